//! Upgrades: another process takes over from the agent that runs, and nobody notices.

#[path = "support/agents.rs"]
mod agents;

use agents::{Ask as _, SOON, VIPS, agent, is_on_lo, lab, ms, pair, times};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::requests::Requests;
use vip_lab::{Lab, Stamp, wait};

/// The agent that takes over from the one of this builder.
fn successor(builder: AgentBuilder) -> Result<Agent> {
    builder.argument("--take-over").start()
}

/// Waits until `old` has ended, and `new` answers in its place.
fn wait_succession(old: &Agent, new: &Agent) -> Result<Value> {
    let ended =
        old.wait(SOON).with_context(|| format!("the old one: {}\nthe new one: {}", old.log(), new.log()))?;
    ensure!(ended.success(), "the old agent ended with {ended}:\n{}", old.log());
    new.wait_for("in charge", |status| status["pid"].as_i64() == Some(new.process().pid().as_raw().into()))
}

fn load(lab: &Lab) -> Result<Requests> {
    let load = lab.requests().every(ms(2)).delay(ms(10)).start()?;
    wait::until(SOON, || !load.report().requests().is_empty())?;
    Ok(load)
}

fn nothing_was_lost(load: Requests, within: std::time::Duration) -> Result<()> {
    let report = load.stop();
    ensure!(report.lost().count() == 0, "{:?}", report.lost().collect::<Vec<_>>());
    let slow: Vec<_> = report.slow(within).collect();
    ensure!(slow.is_empty(), "a SYN was lost: {slow:?}");
    ensure!(!report.requests().is_empty());
    Ok(())
}

/// What a move would change.
fn life(agent: &Agent) -> Result<(String, String, u64)> {
    let edge = agent.edge()?;
    Ok((edge.state, edge.since, edge.transitions))
}

fn owner_is_upgraded(interval: std::time::Duration, rounds: usize) -> Result<()> {
    let lab = lab().build()?;
    let build = |number| agent(&lab, number).interval(interval);
    let [first, second] = pair(build(1), build(2))?;
    let (before, watching) = (life(&first)?, life(&second)?);
    let load = load(&lab)?;
    let wire = lab.wire()?;
    let begun = Stamp::now();
    let mut owner = first;
    for _ in 0..rounds {
        let new = successor(build(1))?;
        wait_succession(&owner, &new)?;
        ensure!(is_on_lo(&new, VIPS[0])? && is_on_lo(&new, VIPS[1])?);
        owner = new;
    }
    std::thread::sleep(interval * 4);
    nothing_was_lost(load, ms(900))?;
    let adverts = wire.frames(|frame| frame.at >= begun && frame.advert().is_some());
    let others = adverts.iter().filter(|frame| !frame.is_from(lab.node(1)));
    ensure!(others.count() == 0, "somebody else took over");
    let said: Vec<_> = adverts.iter().filter_map(|frame| frame.advert()).collect();
    ensure!(said.iter().all(|advert| advert.priority == 200), "somebody resigned: {said:?}");
    let last = said.last().map(|advert| advert.interval_cs);
    ensure!(last == Some(u16::try_from(interval.as_millis() / 10)?), "{last:?}");
    ensure!(life(&owner)? == before, "{:?} was {before:?}", life(&owner)?);
    ensure!(life(&second)? == watching, "the other node moved");
    Ok(())
}

#[test]
fn an_owner_with_1_s_adverts_is_upgraded_and_nobody_notices() -> Result<()> {
    owner_is_upgraded(ms(1000), times(2, 20))
}

#[test]
fn an_owner_with_100_ms_adverts_is_upgraded_and_nobody_notices() -> Result<()> {
    owner_is_upgraded(ms(100), times(2, 20))
}
