//! Each kind of probe against servers, commands and files of every behaviour, all at once: up and down as they should, with a
//! reason that tells, and nothing left behind.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/certificates.rs"]
mod certificates;
#[path = "probe_servers/commands.rs"]
mod commands;
#[path = "probe_servers/crowd.rs"]
mod crowd;
#[path = "probe_servers/http.rs"]
mod http;
#[path = "probe_servers/nginx.rs"]
mod nginx;
#[path = "support/servers.rs"]
mod servers;

use std::time::Duration;

use agents::{SOON, agent, ms};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use vip_lab::agent::Agent;
use vip_lab::{Lab, wait};

/// One probe, and what it should find.
struct Case {
    name: &'static str,
    probe: Value,
    /// Up, or down for a reason that holds one of these words, divided by `|`: a race may have two right ends.
    expected: Result<(), &'static str>,
}

impl Case {
    fn new(name: &'static str, kind: &str, particulars: Value, expected: Result<(), &'static str>) -> Self {
        // None is a fault here: all are looked at.
        let mut probe = json!({"name": name, "interval": "500ms", "timeout": "1s", "weight": -1});
        probe[kind] = particulars;
        Self { name, probe, expected }
    }

    /// What is wrong with what it found, if something is.
    fn complaint(&self, status: &Value) -> Option<String> {
        let probes = status["instances"][0]["probes"].as_array()?;
        let found = probes.iter().find(|found| found["name"] == self.name)?;
        let error = found["last_error"].as_str().unwrap_or_default();
        let right = match self.expected {
            Ok(()) => found["up"] == true && error.is_empty(),
            Err(why) => found["up"] == false && why.split('|').any(|why| error.contains(why)),
        };
        (!right).then(|| format!("{}: {found}, and not {:?}", self.name, self.expected))
    }
}

/// An agent that tracks them all, once each has found what it should, and a while later still does.
fn hold(lab: &Lab, cases: &[Case]) -> Result<Agent> {
    let probes: Vec<&Value> = cases.iter().map(|case| &case.probe).collect();
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let builder = agent(lab, 1).set("probes", json!(probes)).set_instance("track", json!(names));
    let agent = builder.start()?;
    agent.wait_state("active", SOON)?;
    all_are_right(&agent, cases)?;
    std::thread::sleep(ms(1100));
    // None may come and go.
    let status = agent.status()?.raw;
    let wrong: Vec<String> = cases.iter().filter_map(|case| case.complaint(&status)).collect();
    if !wrong.is_empty() {
        bail!("no longer: {}", wrong.join("\n"));
    }
    Ok(agent)
}

fn all_are_right(agent: &Agent, cases: &[Case]) -> Result<()> {
    let mut wrong = vec!["no status".to_owned()];
    let right = wait::until(SOON, || {
        if let Ok(status) = agent.status() {
            wrong = cases.iter().filter_map(|case| case.complaint(&status.raw)).collect();
        }
        std::thread::sleep(Duration::from_millis(50));
        wrong.is_empty()
    });
    if right.is_err() {
        bail!("{}\n{}", wrong.join("\n"), agent.log());
    }
    Ok(())
}

/// `VmRSS:` and the like, in KiB.
fn memory_kib(pid: nix::unistd::Pid, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Processes whose parent is this one: state and name of each.
fn children(parent: nix::unistd::Pid) -> Vec<(char, String)> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (_, rest) = stat.split_once('(')?;
            let (name, rest) = rest.rsplit_once(") ")?;
            let mut fields = rest.split(' ');
            let state = fields.next()?.chars().next()?;
            (fields.next()? == parent.to_string()).then(|| (state, name.to_owned()))
        })
        .collect()
}
