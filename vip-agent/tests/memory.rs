//! How much memory an agent takes, beside its maps.
//!
//! The limit holds for a release build (`cargo xtask test --full`); a debug build carries more code.

#[path = "support/agents.rs"]
mod agents;

use agents::{SOON, agent, pair, vips_256};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vip_lab::Lab;

const LIMIT_KIB: u64 = if cfg!(debug_assertions) { 32 } else { 12 } * 1024;

/// Most of it are pages of the program that the watcher shares with the agent: how many depends on what else the kernel has
/// in its page cache.
const WATCHER_LIMIT_KIB: u64 = if cfg!(debug_assertions) { 16 } else { 6 } * 1024;
/// What it has for itself.
const OWN_LIMIT_KIB: u64 = if cfg!(debug_assertions) { 2 } else { 1 } * 1024;

/// `VmRSS` and the like, in KiB.
fn memory(pid: nix::unistd::Pid, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse()?)
}

/// Moves the VIPs back and forth, so that whatever is allocated late is, and looks.
fn stays_small(lab: &Lab) -> Result<()> {
    let agents = pair(agent(lab, 1).preempt(false), agent(lab, 2).preempt(false))?;
    for round in 0..6 {
        let [owner, heir] = [round % 2, (round + 1) % 2];
        agents[owner].signal(Signal::SIGSTOP)?;
        agents[heir].wait_state("active", SOON)?;
        agents[owner].signal(Signal::SIGCONT)?;
        agents[owner].wait_state("backup", SOON)?;
    }
    for agent in &agents {
        let resident = agent.process().resident_kib()?;
        let maps = agent.status()?.raw["map_memory"].as_u64().context("status without map_memory")?;
        let pid = agent.wait_watcher(SOON)?;
        let (watcher, own) = (memory(pid, "VmRSS")?, memory(pid, "RssAnon")?);
        let (vips, build) = (lab.vips().len(), if cfg!(debug_assertions) { "debug" } else { "release" });
        println!(
            "{vips} VIPs ({build}): {resident} KiB resident, {} KiB in maps, watcher {watcher} KiB of which {own} are its own",
            maps / 1024
        );
        ensure!(resident < LIMIT_KIB, "{resident} KiB resident with {vips} VIPs");
        ensure!(watcher < WATCHER_LIMIT_KIB, "the watcher has {watcher} KiB resident with {vips} VIPs");
        ensure!(own < OWN_LIMIT_KIB, "the watcher has {own} KiB of its own with {vips} VIPs");
        ensure!(maps > 0, "maps take memory");
    }
    Ok(())
}

#[test]
fn an_agent_with_one_vip_stays_within_12_mib() -> Result<()> {
    stays_small(&Lab::builder().nodes(2).vips(["10.0.0.50"]).build()?)
}

#[test]
fn an_agent_with_256_vips_stays_within_12_mib() -> Result<()> {
    stays_small(&Lab::builder().nodes(2).vips(vips_256()).build()?)
}
