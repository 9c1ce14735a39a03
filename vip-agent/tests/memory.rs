//! How much memory an agent takes, beside its maps.
//!
//! What a process has resident are its own pages and those of its file that are mapped: how many of these is up to the page
//! cache, whose folios are as large as the kernel found fit when it read the file. The limit on both holds for a release build
//! (`cargo xtask test --full`); of a debug build, which carries several times the code, only its own are limited.

#[path = "support/agents.rs"]
mod agents;

use agents::{SOON, agent, pair, vips_256};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vip_lab::Lab;

/// Of a release build.
const LIMIT_KIB: u64 = 12 * 1024;
/// What an agent, and its watcher, have for themselves.
const OWN_LIMIT_KIB: u64 = if cfg!(debug_assertions) { 6 } else { 4 } * 1024;
const WATCHER_LIMIT_KIB: u64 = if cfg!(debug_assertions) { 2 } else { 1 } * 1024;

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
        let process = agent.process();
        let (resident, own) = (process.resident_kib()?, memory(process.pid(), "RssAnon")?);
        let maps = agent.status()?.raw["map_memory"].as_u64().context("status without map_memory")?;
        let watcher = memory(agent.wait_watcher(SOON)?, "RssAnon")?;
        let (vips, build) = (lab.vips().len(), if cfg!(debug_assertions) { "debug" } else { "release" });
        println!(
            "{vips} VIPs ({build}): {resident} KiB resident of which {own} are its own, {} KiB in maps, watcher {watcher} KiB of its own",
            maps / 1024
        );
        ensure!(cfg!(debug_assertions) || resident < LIMIT_KIB, "{resident} KiB resident with {vips} VIPs");
        ensure!(own < OWN_LIMIT_KIB, "{own} KiB of its own with {vips} VIPs");
        ensure!(watcher < WATCHER_LIMIT_KIB, "the watcher has {watcher} KiB of its own with {vips} VIPs");
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
