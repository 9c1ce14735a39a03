//! An owner that is killed with its watcher, stopped or muted falls silent by its lease alone, before anyone else answers.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/watch.rs"]
mod watch;

use agents::{Ask as _, SOON, agent, binary, pair, times};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rounds::{Failure, INTERVAL, lab, start_again, stays};
use vip_lab::Lab;
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::firewall::Firewall;

/// Nobody says that the owner is gone: its heir finds out by its silence.
fn the_owner_fails(
    rounds: usize,
    builder: impl Fn(&Lab, usize) -> AgentBuilder,
    fail: impl Fn(&Agent) -> Result<()>,
    bring_back: impl Fn(&mut Agent) -> Result<()>,
) -> Result<()> {
    rounds::the_owner_fails(rounds, Failure { builder, fail, bring_back, cause: "timeout" })
}

fn crash(agent: &Agent) -> Result<()> {
    agent.crash()
}

fn stop(agent: &Agent) -> Result<()> {
    agent.signal(Signal::SIGSTOP)
}

fn let_run(agent: &mut Agent) -> Result<()> {
    agent.signal(Signal::SIGCONT)
}

/// The agent itself has to notice and say so: its own sends fail with EPERM.
fn mute(agent: &Agent, by: Firewall) -> Result<()> {
    agent.node().set_firewall(by)?;
    let status = agent.wait_for("aware of its firewall", |status| {
        let edge = &status["instances"][0];
        edge["state"] == "backup" && edge["reason"].as_str().is_some_and(|reason| reason.contains("EPERM"))
    })?;
    ensure!(status["instances"][0]["owned"] == false, "a muted owner still answers: {status}");
    Ok(())
}

fn unmute(agent: &mut Agent) -> Result<()> {
    agent.node().clear_firewall()
}

#[test]
fn a_killed_owner_with_pinned_maps_is_silent_before_the_next_one_answers() -> Result<()> {
    the_owner_fails(times(8, 50), stays, crash, start_again)
}

#[test]
fn a_killed_owner_without_pins_is_silent_before_the_next_one_answers() -> Result<()> {
    the_owner_fails(times(8, 50), |lab, number| stays(lab, number).unpinned(), crash, start_again)
}

#[test]
fn a_stopped_owner_with_pinned_maps_is_silent_before_the_next_one_answers_and_continues_as_backup()
-> Result<()> {
    the_owner_fails(times(8, 50), stays, stop, let_run)
}

#[test]
fn a_stopped_owner_without_pins_is_silent_before_the_next_one_answers_and_continues_as_backup() -> Result<()>
{
    the_owner_fails(times(8, 50), |lab, number| stays(lab, number).unpinned(), stop, let_run)
}

#[test]
fn an_owner_whose_firewall_drops_its_adverts_is_silent_before_the_next_one_answers() -> Result<()> {
    the_owner_fails(times(8, 50), stays, |agent| mute(agent, Firewall::MuteAdverts), unmute)
}

#[test]
fn an_owner_that_is_muted_in_ipv4_only_loses_both_families() -> Result<()> {
    the_owner_fails(times(4, 50), stays, |agent| mute(agent, Firewall::MuteIpv4Adverts), unmute)
}

#[test]
fn an_owner_that_is_muted_in_ipv6_only_loses_both_families() -> Result<()> {
    the_owner_fails(times(4, 50), stays, |agent| mute(agent, Firewall::MuteIpv6Adverts), unmute)
}

#[test]
fn a_muted_owner_that_may_preempt_owns_again_when_the_rule_goes() -> Result<()> {
    let lab = lab()?;
    let [first, second] = pair(agent(&lab, 1).interval(INTERVAL), lab.agent(2, binary()).interval(INTERVAL))?;
    mute(&first, Firewall::MuteAdverts)?;
    second.wait_state("active", SOON)?;
    // Muted, it tries again and again, and never gets anywhere.
    std::thread::sleep(INTERVAL * 10);
    let status = first.edge()?;
    ensure!(status.state == "backup" && !status.owned, "muted, and yet {status:?}");

    first.node().clear_firewall()?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    ensure!(first.edge()?.reason.is_none(), "an owner has no reason not to own");
    Ok(())
}
