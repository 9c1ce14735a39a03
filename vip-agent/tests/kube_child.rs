//! An agent whose cluster does not answer, and its process `vip-kube`: what was last known is served, whatever becomes of either.

#[path = "support/agents.rs"]
mod agents;

use std::fs;
use std::path::Path;

use agents::{Ask as _, SOON, binary, is_on_lo, vip_kube};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, wait};

const VIP: &str = "10.0.0.50";

/// An API server that refuses connections.
const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: gone
contexts: [{name: gone, context: {cluster: gone, user: nobody}}]
clusters: [{name: gone, cluster: {server: "https://127.0.0.1:1", insecure-skip-tls-verify: true}}]
users: [{name: nobody, user: {token: none}}]
"#;

fn lab() -> Result<Lab> {
    Lab::builder().nodes(1).clients(1).vips([VIP]).web().build()
}

/// A Kubernetes agent, and what it knew when it last heard of its cluster.
fn agent(lab: &Lab, program: &Path) -> Result<AgentBuilder> {
    let node = lab.node(1);
    let (kubeconfig, state_dir) = (node.file_path("kubeconfig"), node.file_path("state"));
    node.write_file(&kubeconfig, KUBECONFIG)?;
    let known = json!({"instances": [{
        "name": "kube-configmap", "virtual_router_id": 50, "advert_interval": "100ms", "vips": [VIP], "local_address": "active",
    }]});
    let (folder, text) = (state_dir.clone(), known.to_string());
    node.run(move || -> Result<()> {
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("kubernetes.json"), text)?)
    })?;
    let agent =
        lab.agent(1, program).bare().set("state_dir", json!(state_dir)).set("interface", json!("eth0"));
    Ok(agent.set("kubernetes", json!({"kubeconfig": kubeconfig})))
}

fn is_served(status: &Value) -> bool {
    let instance = &status["instances"][0];
    instance["name"] == "kube-configmap" && instance["state"] == "active"
}

/// What a move would change.
fn life(agent: &Agent) -> Result<(String, String, u64)> {
    let instance = agent.edge()?;
    Ok((instance.state, instance.since, instance.transitions))
}

/// The process, once it has said what is wrong; not `former`.
fn child(agent: &Agent, former: Option<Pid>) -> Result<Pid> {
    let pid = |status: &Value| {
        status["kubernetes"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw)
    };
    let says = |status: &Value| status["kubernetes"]["troubles"].to_string().contains("error");
    let status = agent.wait_for("followed by another process", |status| {
        says(status) && pid(status).is_some_and(|pid| Some(pid) != former)
    })?;
    pid(&status).context("a process")
}

fn is_gone(pid: Pid) -> Result<()> {
    let alive =
        || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "vip-kube");
    wait::until(SOON, || !alive()).with_context(|| format!("vip-kube, {pid}, lives on"))
}

#[test]
fn a_process_that_dies_or_hangs_moves_nothing_and_comes_back() -> Result<()> {
    vip_kube()?;
    let lab = lab()?;
    let agent = agent(&lab, binary())?.start()?;
    agent.wait_for("served by what was last known", is_served)?;
    let first = child(&agent, None)?;
    let before = life(&agent)?;
    let status = fs::read_to_string(format!("/proc/{first}/status"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("capabilities")?;
    ensure!(effective.trim().chars().all(|digit| digit == '0'), "{effective}");

    kill(first, Signal::SIGKILL)?;
    let second = child(&agent, Some(first))?;
    kill(second, Signal::SIGSTOP)?;
    // Who hangs keeps nobody from changing the file, and the file comes first.
    let own = json!({"name": "own", "virtual_router_id": 9, "interface": "eth0", "vips": ["10.0.0.60"]});
    agent.reload(&agent.builder().instance(own))?;
    agent.wait_for("with the file's own one", |status| {
        status["instances"].as_array().is_some_and(|all| all.len() == 2)
    })?;
    let instances = agent.status()?.instances;
    let kept = instances.iter().find(|instance| instance.name == "kube-configmap").context("it stays")?;
    ensure!((kept.state.clone(), kept.since.clone(), kept.transitions) == before, "{kept:?} was {before:?}");

    // A dead agent leaves nobody behind, not even who hangs.
    agent.kill()?;
    is_gone(second)
}

#[test]
fn an_upgrade_brings_a_process_of_its_own_and_moves_nothing() -> Result<()> {
    vip_kube()?;
    let lab = lab()?;
    let old = agent(&lab, binary())?.start()?;
    old.wait_for("served by what was last known", is_served)?;
    let (former, before) = (child(&old, None)?, life(&old)?);
    let new = old.builder().argument("--take-over").start()?;
    ensure!(old.wait(SOON)?.success(), "{}", old.log());
    new.wait_for("in charge", |status| status["pid"].as_i64() == Some(new.process().pid().as_raw().into()))?;
    child(&new, Some(former))?;
    is_gone(former)?;
    ensure!(life(&new)? == before, "{:?} was {before:?}", life(&new)?);
    // Whoever ends in good order takes it along.
    let last = child(&new, None)?;
    new.signal(Signal::SIGTERM)?;
    ensure!(new.wait(SOON)?.success(), "{}", new.log());
    is_gone(last)
}

#[test]
fn an_agent_without_the_program_serves_what_it_knows_and_names_what_is_missing() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let alone = folder.path().join("vip-agent");
    fs::hard_link(binary(), &alone).context("link the agent")?;
    let lab = lab()?;
    let agent = agent(&lab, &alone)?.start()?;
    agent.wait_for("served by what was last known", is_served)?;
    ensure!(is_on_lo(&agent, VIP)?);
    let missing = folder.path().join("vip-kube").display().to_string();
    let status = agent.wait_for("told what is missing", |status| {
        status["kubernetes"]["troubles"].to_string().contains(&missing)
    })?;
    ensure!(status["kubernetes"]["troubles"].to_string().contains("Install all of the package"), "{status}");
    ensure!(status["kubernetes"]["pid"].is_null(), "{status}");
    Ok(())
}
