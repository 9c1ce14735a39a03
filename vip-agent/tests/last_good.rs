//! A configuration file that is broken at the start, and one that changes while the agent runs.

#[path = "support/agents.rs"]
mod agents;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, say};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, wait};

const CONFIG: &str = "/run/lab/agent.yaml";

fn one() -> Result<Lab> {
    Lab::builder().nodes(1).clients(1).vips(VIPS).web().build()
}

fn active(builder: AgentBuilder) -> Result<Agent> {
    let agent = builder.start()?;
    agent.wait_state("active", SOON)?;
    Ok(agent)
}

/// An agent ran by this configuration and was killed; now the file is another one.
fn ran_by(builder: AgentBuilder) -> Result<()> {
    active(builder)?.crash()
}

fn metric(agent: &Agent, name: &str) -> Result<String> {
    let metrics = agent.node().run(|| -> Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:9870")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.unwrap_or_default().trim().to_owned())
}

fn runs_by_the_last_good(agent: &Agent, why: &str) -> Result<()> {
    let status = agent.status()?.raw;
    let configuration = &status["configuration"];
    let reason = configuration["reason"].as_str().unwrap_or_default();
    ensure!(configuration["last_good"] == true && configuration["file"] == CONFIG, "{configuration}");
    ensure!(reason.starts_with("runs by /var/lib/viplane/last-good.yaml, kept by vip-agent 0."), "{reason}");
    ensure!(reason.contains(why), "{reason}");
    ensure!(agent.log().contains("ERROR THE CONFIGURATION FILE IS NOT IN FORCE"), "{}", agent.log());
    ensure!(agent.say(&["status"])?.ok()?.out.contains("IS NOT IN FORCE"));
    ensure!(metric(agent, "viplane_config_current")? == "0");
    ensure!(Conversation::open(agent.node(), VIPS[0])?.ask()? == "node1");
    Ok(())
}

#[test]
fn a_file_that_is_broken_at_the_start_gives_way_to_the_last_good_one_until_it_is_repaired() -> Result<()> {
    let lab = one()?;
    ran_by(agent(&lab, 1).priority(123))?;
    let broken = agent(&lab, 1).yaml("flavour: vanilla\n").start()?;
    broken.wait_state("active", SOON)?;
    ensure!(broken.edge_json()?["priority"] == 123);
    runs_by_the_last_good(&broken, "/run/lab/agent.yaml:")?;
    let checked = broken.say(&["check", CONFIG])?;
    ensure!(checked.code == Some(1) && checked.err.contains("flavour"), "{checked:?}");
    // What is good stays so over another such start.
    broken.crash()?;
    let again = active(broken.builder())?;
    runs_by_the_last_good(&again, "flavour")?;
    again.reload(&agent(&lab, 1).priority(124))?;
    let status = again.status()?.raw;
    ensure!(
        status["configuration"]["last_good"] == false && status["configuration"]["reason"].is_null(),
        "{status}"
    );
    ensure!(status["instances"][0]["priority"] == 124, "{status}");
    // Answers of the API may be 0.1 s old.
    wait::until(SOON, || metric(&again, "viplane_config_current").is_ok_and(|value| value == "1"))
}

#[test]
fn a_file_that_a_reload_would_refuse_is_refused_by_a_start_as_well() -> Result<()> {
    let lab = one()?;
    let absent = agent(&lab, 1).set_instance("interface", json!("eth7"));
    // Without a last good one there is nothing to run by.
    let failed = absent.clone().start()?;
    ensure!(!failed.wait(SOON)?.success() && failed.log().contains("eth7"), "{}", failed.log());
    ran_by(agent(&lab, 1))?;
    runs_by_the_last_good(&active(absent)?, "eth7")
}

#[test]
fn a_missing_file_or_a_strict_operator_is_left_alone() -> Result<()> {
    let lab = one()?;
    ran_by(agent(&lab, 1))?;
    let broken = agent(&lab, 1).yaml("flavour: vanilla\n");
    let strict = broken.clone().argument("--no-last-good").start()?;
    ensure!(!strict.wait(SOON)?.success() && strict.log().contains("flavour"), "{}", strict.log());
    let missing = say(&broken, &["run", "--config", "/run/lab/none.yaml"])?;
    ensure!(missing.code == Some(1) && missing.err.contains("No such file"), "{missing:?}");
    // One that is no longer valid here does not serve, and is named.
    lab.node(1).write_file("/var/lib/viplane/last-good.yaml", "instances: 7\n")?;
    let both = broken.start()?;
    ensure!(!both.wait(SOON)?.success(), "{}", both.log());
    let log = both.log();
    ensure!(log.contains("flavour") && log.contains("/var/lib/viplane/last-good.yaml:1:12: "), "{log}");
    Ok(())
}

/// Whether a thread looks at the file.
fn is_followed(agent: &Agent) -> Result<bool> {
    let mut threads = fs::read_dir(format!("/proc/{}/task", agent.process().pid()))?.flatten();
    Ok(threads.any(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim_end() == "config-watch")
    }))
}

#[test]
fn changes_of_the_file_are_applied_where_that_is_asked_for() -> Result<()> {
    let lab = one()?;
    let following = |priority: u8| agent(&lab, 1).priority(priority).set("reload_on_change", json!(true));
    let running = active(following(121))?;
    ensure!(is_followed(&running)?);
    let priority = |wanted: u8| move |status: &Value| status["instances"][0]["priority"] == wanted;
    // As editors do it.
    following(122).write_config()?;
    running.wait_for("written", priority(122))?;
    lab.node(1).write_file("/run/lab/agent.yaml~", following(123).config()?)?;
    lab.node(1).run(|| fs::rename("/run/lab/agent.yaml~", CONFIG))?;
    running.wait_for("replaced", priority(123))?;
    // Half of a file.
    lab.node(1).write_file(CONFIG, "instances: [{name: ed")?;
    wait::until(SOON, || running.log().contains("configuration refused, the old one stays"))?;
    let status = running.status()?.raw;
    ensure!(priority(123)(&status) && status["configuration"]["reason"].is_string(), "{status}");
    ensure!(status["configuration"]["last_good"] == false, "{status}");
    agent(&lab, 1).priority(124).write_config()?;
    running.wait_for("repaired", priority(124))?;
    // And no more: nobody looks.
    wait::until(SOON, || is_followed(&running).is_ok_and(|followed| !followed))
}
