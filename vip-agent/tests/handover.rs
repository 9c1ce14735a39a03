//! Planned moves: SIGTERM, SIGINT, drain and preemption cost nobody a request.

#[path = "support/agents.rs"]
mod agents;

use std::time::Duration;

use agents::{Ask as _, SOON, agent, lab, ms, pair, times};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use vip_lab::agent::Agent;
use vip_lab::requests::Requests;
use vip_lab::{Lab, wait};

/// 1000 requests a second of 10 ms each, half of them by IPv6.
fn load(lab: &Lab) -> Result<Requests> {
    let load = lab.requests().every(ms(1)).delay(ms(10)).start()?;
    in_full_swing(&load)?;
    Ok(load)
}

/// At least 10 requests are in flight, and not so many that the machine cannot keep up with them at all.
fn in_full_swing(load: &Requests) -> Result<()> {
    wait::until(2 * SOON, || (10..200).contains(&load.in_flight()))
}

/// Makes `count` moves under load, each by `move_on`, and tells what that cost.
fn nothing_is_lost(
    what: &str,
    lab: &Lab,
    count: usize,
    mut move_on: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let load = load(lab)?;
    for n in 0..count {
        in_full_swing(&load)?;
        move_on(n)?;
    }
    in_full_swing(&load)?;
    let report = load.stop();
    let slow = report.slow(ms(900)).count();
    let lost: Vec<_> = report.lost().collect();
    println!(
        "{what}: {count} moves, {} requests, {} lost, {slow} slow, longest gap {:?}, latencies {:?} ms, by {:?}",
        report.requests().len(),
        lost.len(),
        report.gap(),
        report.latencies().summary(),
        report.answered_by(),
    );
    ensure!(lost.is_empty(), "{what}: lost {}: {:?}", lost.len(), &lost[..lost.len().min(20)]);
    // A SYN is sent again after a second: what took that long was lost once, or the machine was too busy to answer any.
    let kept_up = report.latencies().quantile(0.9).is_some_and(|latency| latency < 300.0);
    ensure!(slow == 0 || !kept_up, "{what}: {slow} SYNs were lost");
    ensure!(report.answered_by().len() == 2, "{what}: only {:?} served", report.answered_by());
    Ok(())
}

fn both(lab: &Lab, interval: Duration, preempt: bool) -> Result<[Agent; 2]> {
    let builder = |n| agent(lab, n).interval(interval).preempt(preempt);
    pair(builder(1), builder(2))
}

fn drains_lose_nothing(interval: Duration, moves: usize) -> Result<()> {
    let lab = lab().build()?;
    let agents = both(&lab, interval, false)?;
    nothing_is_lost(&format!("drain at {interval:?}"), &lab, moves, |n| {
        let (from, to) = (&agents[n % 2], &agents[(n + 1) % 2]);
        from.drain()?;
        ensure!(!from.edge()?.owned, "the drain returned before the VIPs had moved");
        to.wait_state("active", SOON)?;
        from.undrain()?;
        from.wait_state("backup", SOON).map(drop)
    })
}

fn signals_lose_nothing(signal: Signal, interval: Duration, moves: usize) -> Result<()> {
    let lab = lab().build()?;
    let mut agents = both(&lab, interval, false)?;
    nothing_is_lost(&format!("{signal} at {interval:?}"), &lab, moves, |n| {
        let (from, to) = (n % 2, (n + 1) % 2);
        agents[from].signal(signal)?;
        agents[to].wait_state("active", SOON)?;
        let status = agents[from].wait(SOON)?;
        ensure!(status.success(), "{status}\n{}", agents[from].log());
        agents[from] = agents[from].builder().start()?;
        agents[from].wait_state("backup", SOON).map(drop)
    })
}

fn preemptions_lose_nothing(interval: Duration, moves: usize) -> Result<()> {
    let lab = lab().build()?;
    let agents = both(&lab, interval, true)?;
    nothing_is_lost(&format!("preemption at {interval:?}"), &lab, moves, |_| {
        agents[0].drain()?;
        agents[1].wait_state("active", SOON)?;
        agents[0].undrain()?;
        agents[0].wait_state("active", SOON)?;
        let cause = agents[0].edge()?.last_takeover.map(|takeover| takeover.cause);
        ensure!(cause.as_deref() == Some("preempt"), "{cause:?}");
        agents[1].wait_state("backup", SOON).map(drop)
    })
}

#[test]
fn drains_with_10_ms_adverts_lose_no_request() -> Result<()> {
    drains_lose_nothing(ms(10), times(6, 50))
}

#[test]
fn drains_with_100_ms_adverts_lose_no_request() -> Result<()> {
    drains_lose_nothing(ms(100), times(4, 50))
}

#[test]
fn drains_with_1_s_adverts_lose_no_request() -> Result<()> {
    drains_lose_nothing(ms(1000), times(2, 50))
}

#[test]
fn sigterms_with_10_ms_adverts_lose_no_request() -> Result<()> {
    signals_lose_nothing(Signal::SIGTERM, ms(10), times(4, 50))
}

#[test]
fn sigterms_with_100_ms_adverts_lose_no_request() -> Result<()> {
    signals_lose_nothing(Signal::SIGTERM, ms(100), times(2, 50))
}

#[test]
fn sigterms_with_1_s_adverts_lose_no_request() -> Result<()> {
    signals_lose_nothing(Signal::SIGTERM, ms(1000), times(2, 50))
}

#[test]
fn sigint_is_like_sigterm() -> Result<()> {
    signals_lose_nothing(Signal::SIGINT, ms(100), times(2, 10))
}

#[test]
fn preemptions_with_10_ms_adverts_lose_no_request() -> Result<()> {
    preemptions_lose_nothing(ms(10), times(4, 50))
}

#[test]
fn preemptions_with_100_ms_adverts_lose_no_request() -> Result<()> {
    preemptions_lose_nothing(ms(100), times(2, 50))
}

#[test]
fn preemptions_with_1_s_adverts_lose_no_request() -> Result<()> {
    preemptions_lose_nothing(ms(1000), times(1, 50))
}
