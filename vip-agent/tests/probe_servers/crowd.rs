//! Fifty probes that hang, beside one that is well.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vip_lab::{Lab, WEB_PORT};

use super::agents::{Ask as _, SOON, agent};
use super::servers::Server;

const HUNG: usize = 50;
/// Questions of one probe that are open at once, at most (docs/configuration.md).
const OPEN: usize = 8;

#[test]
fn fifty_hung_probes_delay_none_and_take_a_bounded_share_of_files_and_memory() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(0).vips(["10.0.0.50"]).web().build()?;
    let server = Server::hung(lab.node(1), 4096, 0)?;
    let hung = |number: usize| {
        let mut probe =
            json!({"name": format!("hung{number}"), "interval": "100ms", "timeout": "2s", "weight": -1});
        match number % 5 {
            0 => probe["exec"] = json!({"command": ["sleep", "1002"]}),
            _ => probe["http"] = json!({"url": server.url()}),
        }
        probe
    };
    let well = json!({
        "name": "well", "interval": "100ms", "timeout": "500ms",
        "http": {"url": format!("http://127.0.0.1:{WEB_PORT}/")},
    });
    let probes: Vec<Value> = (0..HUNG).map(hung).chain([well]).collect();
    let names: Vec<&Value> = probes.iter().map(|probe| &probe["name"]).collect();
    let builder = agent(&lab, 1).set("probes", json!(probes)).set_instance("track", json!(names));
    let agent = builder.start()?;
    agent.wait_state("active", SOON)?;
    // All questions that may be open are, and the first have run out of time.
    let given_up = |status: &Value| {
        let probes = status["instances"][0]["probes"].as_array().cloned().unwrap_or_default();
        let hung = probes.iter().filter(|probe| probe["name"] != "well");
        hung.filter(|probe| probe["last_error"].as_str().is_some_and(|why| why.contains("within 2s"))).count()
            == HUNG
    };
    agent.wait_for("all hang", given_up)?;
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.process().pid()))?.count();
    let own = super::memory_kib(agent.process().pid(), "RssAnon:")?;
    let resident = agent.process().resident_kib()?;
    println!("{HUNG} hung probes: {open} open files, {resident} KiB resident, of which {own} are its own");
    ensure!(open < 128 + HUNG * OPEN, "{open} open files");
    ensure!(own < 16 << 10, "{own} KiB of its own");

    // The one that is well is asked as often as ever, and heard.
    let begun = std::time::Instant::now();
    lab.stop_web(1);
    agent.wait_state("fault", SOON)?;
    println!("beside them, from a server's end to the fault: {:?}", begun.elapsed());
    let release = agent.edge_json()?["last_release"].clone();
    let verdict = release["verdict_us"].as_u64().with_context(|| format!("no verdict_us: {release}"))?;
    // Two answers, one interval apart: not a time-out of the others.
    ensure!(release["probe"] == "well" && verdict < 1_500_000, "{release}");
    lab.start_web(1)?;
    agent.wait_state("active", SOON)?;
    // In good order: what its commands are would outlive its death.
    agent.signal(Signal::SIGTERM)?;
    agent.wait(SOON).map(drop)
}
