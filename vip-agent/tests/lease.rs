//! An owner that is killed, stopped or muted falls silent by its lease alone, before anyone else answers.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/watch.rs"]
mod watch;

use std::time::Duration;

use agents::{Ask as _, SOON, VIPS, agent, binary, ms, pair, times};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::firewall::Firewall;
use vip_lab::{Lab, Mac};
use watch::Watch;

/// Short, for many rounds; long enough that only a machine that stands still for 150 ms makes an owner lose its lease.
const INTERVAL: Duration = ms(50);

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).clients(1).vips(VIPS).build()
}

/// Whoever owns goes on owning when the other comes back: each round has one move, and it is the one under test.
fn stays(lab: &Lab, number: usize) -> AgentBuilder {
    agent(lab, number).interval(INTERVAL).preempt(false)
}

/// Fails the owner, `rounds` times in turn, and brings it back. All the time, at no instant, two answer for the VIPs.
fn the_owner_fails(
    rounds: usize,
    builder: impl Fn(&Lab, usize) -> AgentBuilder,
    fail: impl Fn(&Agent) -> Result<()>,
    bring_back: impl Fn(&mut Agent) -> Result<()>,
) -> Result<()> {
    let lab = lab()?;
    let mut agents = pair(builder(&lab, 1), builder(&lab, 2))?;
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    for round in 0..rounds {
        let [owner, heir] = [round % 2, (round + 1) % 2];
        fail(&agents[owner])?;
        watch.wait_answers_of(agents[heir].node(), SOON)?;
        bring_back(&mut agents[owner])?;
        agents[owner].wait_state("backup", SOON)?;
        let status = agents[heir].edge()?;
        ensure!(status.state == "active" && status.owned, "the heir is {status:?}");
    }
    let expected: Vec<Mac> = (0..=rounds).map(|round| lab.node(1 + round % 2).mac()).collect();
    let owners = watch.finish(&lab)?;
    ensure!(owners == expected, "{rounds} moves, but the VIPs went {owners:?}");
    println!("{rounds} moves, no instant with two owners");
    Ok(())
}

fn kill(agent: &Agent) -> Result<()> {
    agent.process().kill()
}

fn start_again(agent: &mut Agent) -> Result<()> {
    *agent = agent.builder().start()?;
    Ok(())
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
    the_owner_fails(times(8, 50), stays, kill, start_again)
}

#[test]
fn a_killed_owner_without_pins_is_silent_before_the_next_one_answers() -> Result<()> {
    the_owner_fails(times(8, 50), |lab, number| stays(lab, number).unpinned(), kill, start_again)
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
