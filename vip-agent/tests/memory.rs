//! How much memory an agent takes, beside its maps.
//!
//! What a process has resident are its own pages and those of its file that are mapped: how many of these is up to the page
//! cache, whose folios are as large as the kernel found fit when it read the file. The limit on both holds for a release build
//! (`cargo xtask test --full`); of a debug build, which carries several times the code, only its own are limited.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/certificates.rs"]
mod certificates;

use agents::{Ask as _, SOON, agent, pair, times, vips_256};
use anyhow::{Context, Result, ensure};
use certificates::self_signed;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vip_lab::{Lab, Node, Process, WEB_PORT};

/// Of a release build: the agent's, and its watcher's, which shares most of it with the agent.
const LIMIT_KIB: u64 = 12 * 1024;
const WATCHER_RESIDENT_LIMIT_KIB: u64 = 6 * 1024;
/// What an agent, and its watcher, have for themselves.
const OWN_LIMIT_KIB: u64 = if cfg!(debug_assertions) { 6 } else { 4 } * 1024;
const WATCHER_OWN_LIMIT_KIB: u64 = if cfg!(debug_assertions) { 2 } else { 1 } * 1024;
/// Of its own, with services: to begin with, and for each that has ten backends.
const SERVICES_OWN_LIMIT_KIB: u64 = 10 * 1024;
const SERVICE_OWN_LIMIT_KIB: u64 = 40;

/// `VmRSS` and the like, in KiB.
fn memory(pid: nix::unistd::Pid, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse()?)
}

/// Moves the VIPs back and forth, so that whatever is allocated late is, and looks.
fn stays_small(lab: &Lab, probes: &[Value]) -> Result<()> {
    let names: Vec<&Value> = probes.iter().map(|probe| &probe["name"]).collect();
    let tracking = |number| {
        let agent = agent(lab, number).preempt(false);
        agent.set("probes", json!(probes)).set_instance("track", json!(names))
    };
    let agents = pair(tracking(1), tracking(2))?;
    for agent in &agents {
        let all_up = |status: &Value| {
            let found = status["instances"][0]["probes"].as_array().cloned().unwrap_or_default();
            found.len() == probes.len() && found.iter().all(|probe| probe["up"] == true)
        };
        agent.wait_for("well by all probes", all_up)?;
    }
    for round in 0..6 {
        let [owner, heir] = [round % 2, (round + 1) % 2];
        agents[owner].signal(Signal::SIGSTOP)?;
        agents[heir].wait_state("active", SOON)?;
        agents[owner].signal(Signal::SIGCONT)?;
        agents[owner].wait_state("backup", SOON)?;
    }
    for agent in &agents {
        let process = agent.process();
        let (resident, own) = (process.resident_kib()?, memory(process.pid(), "RssAnon")?);
        let maps = agent.status()?.raw["map_memory"].as_u64().context("status without map_memory")?;
        let pid = agent.wait_watcher(SOON)?;
        let (watcher, watcher_own) = (memory(pid, "VmRSS")?, memory(pid, "RssAnon")?);
        let (vips, build) = (lab.vips().len(), if cfg!(debug_assertions) { "debug" } else { "release" });
        println!(
            "{vips} VIPs, {} probes ({build}): {resident} KiB resident of which {own} are its own, {} KiB in maps, \
             watcher {watcher} KiB of which {watcher_own} are its own",
            probes.len(),
            maps / 1024
        );
        if !cfg!(debug_assertions) {
            ensure!(resident < LIMIT_KIB, "{resident} KiB resident with {vips} VIPs");
            ensure!(
                watcher < WATCHER_RESIDENT_LIMIT_KIB,
                "the watcher has {watcher} KiB resident with {vips} VIPs"
            );
        }
        ensure!(own < OWN_LIMIT_KIB, "{own} KiB of its own with {vips} VIPs");
        ensure!(
            watcher_own < WATCHER_OWN_LIMIT_KIB,
            "the watcher has {watcher_own} KiB of its own with {vips} VIPs"
        );
        ensure!(maps > 0, "maps take memory");
    }
    Ok(())
}

#[test]
fn an_agent_with_one_vip_stays_within_12_mib() -> Result<()> {
    stays_small(&Lab::builder().nodes(2).vips(["10.0.0.50"]).build()?, &[])
}

/// nginx with TLS on port 8443.
fn nginx(node: &Node) -> Result<Process> {
    let file = |name: &str| node.file_path(name).display().to_string();
    let own = self_signed("127.0.0.1", true, false);
    node.write_file(file("own.pem"), own.cert)?;
    node.write_file(file("own.key"), own.key)?;
    node.command("mkdir").arg(file("nginx-files")).read()?;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", file("nginx-files")))
        .join(" ");
    node.write_file(
        file("nginx.conf"),
        format!(
            "daemon off; user root; pid {}; error_log stderr; events {{}}\nhttp {{ access_log off; {temporary}\n\
             server {{ listen 127.0.0.1:8443 ssl; ssl_certificate {}; ssl_certificate_key {}; \
             location / {{ return 200 'all well'; }} }} }}\n",
            file("nginx.pid"),
            file("own.pem"),
            file("own.key")
        ),
    )?;
    node.command("nginx").args(["-c", &file("nginx.conf")]).spawn("nginx")
}

#[test]
fn an_agent_with_ten_probes_stays_within_12_mib() -> Result<()> {
    let lab = Lab::builder().nodes(2).vips(["10.0.0.50"]).web().build()?;
    let _servers = [nginx(lab.node(1))?, nginx(lab.node(2))?];
    let ca = lab.node(1).file_path("own.pem");
    let plain = json!({"http": {"url": format!("http://127.0.0.1:{WEB_PORT}/")}});
    let tls = json!({"http": {"url": "https://127.0.0.1:8443/", "ca_file": ca, "body": "all well"}});
    let tcp = json!({"tcp": {"address": "127.0.0.1:8443"}});
    let command = json!({"exec": {"command": ["true"]}});
    let file = json!({"file": {"path": ca}});
    let link = json!({"interface": {"name": "eth0"}});
    let kinds = [&plain, &plain, &tls, &tls, &tcp, &tcp, &command, &file, &file, &link];
    let probes = kinds.into_iter().enumerate().map(|(number, kind)| {
        let mut probe = kind.clone();
        probe["name"] = json!(format!("probe{number}"));
        // None is a fault: the agents are stopped to and fro.
        probe["weight"] = json!(-1);
        if kind != &link {
            probe["interval"] = json!("200ms");
        }
        probe
    });
    stays_small(&lab, &probes.collect::<Vec<_>>())
}

#[test]
fn an_agent_with_256_vips_stays_within_12_mib() -> Result<()> {
    stays_small(&Lab::builder().nodes(2).vips(vips_256()).build()?, &[])
}

/// What an agent that steers takes: the same ten backends for each service, each service with slots and a ring of its own.
fn with_services(count: u16) -> Result<()> {
    let lab = Lab::builder().nodes(2).vips(["10.0.0.50"]).build()?;
    let backends: Vec<String> = (101..=110).map(|host| format!("10.0.0.{host}")).collect();
    for backend in &backends {
        lab.node(2).ip(&format!("address add {backend}/24 dev eth0"))?;
    }
    let backends: Vec<_> = backends.iter().map(|address| json!({"address": address})).collect();
    let service = |port: u16| json!({"name": format!("s{port}"), "vip": "10.0.0.50", "mode": "dr", "ports": [port], "backends": backends});
    let services: Vec<_> = (1..=count).map(service).collect();
    let agent = agent(&lab, 1).local_address("never").set("services", json!(services)).start()?;
    agent.wait_state("active", SOON)?;
    agent.wait_for("that steers to all", |status| {
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let backends = services.iter().filter_map(|service| service["backends"].as_array());
        services.len() == usize::from(count)
            && backends.flatten().filter(|backend| backend["up"] == true).count() == usize::from(count) * 10
    })?;
    let (resident, own) = (agent.process().resident_kib()?, memory(agent.process().pid(), "RssAnon")?);
    let maps = agent.status()?.raw["map_memory"].as_u64().context("status without map_memory")? / 1024;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "{count} services ({build}): {resident} KiB resident of which {own} are its own, {maps} KiB in maps"
    );
    let limit = SERVICES_OWN_LIMIT_KIB + u64::from(count) * SERVICE_OWN_LIMIT_KIB;
    ensure!(own < limit, "{own} KiB of its own with {count} services");
    ensure!(maps > 40 * 1024, "{maps} KiB in maps, of which flows alone take 26 MiB");
    Ok(())
}

#[test]
fn an_agent_takes_little_for_each_service() -> Result<()> {
    with_services(1)?;
    if times(0, 1) > 0 { with_services(1000) } else { Ok(()) }
}
