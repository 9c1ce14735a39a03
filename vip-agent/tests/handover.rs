//! Planned moves: SIGTERM, SIGINT, drain and preemption cost nobody a request.

#[path = "support/agents.rs"]
mod agents;

use std::time::{Duration, Instant};

use agents::{Ask as _, Conversation, SOON, VIPS, agent, is_on_lo, lab, ms, pair, times};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::hogs::Hogs;
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
    drains_lose_nothing(ms(1000), times(1, 50))
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
    signals_lose_nothing(Signal::SIGTERM, ms(1000), times(1, 50))
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

/// The takeover waits for addresses that a busy machine is slow to put in place.
#[test]
fn a_busy_machine_loses_no_request_either() -> Result<()> {
    let lab = lab().build()?;
    let agents = both(&lab, ms(100), false)?;
    let load = lab.requests().every(ms(10)).delay(ms(10)).start()?;
    let hogs = Hogs::start(8)?;
    for n in 0..times(4, 20) {
        let (from, to) = (&agents[n % 2], &agents[(n + 1) % 2]);
        from.drain()?;
        to.wait_state("active", SOON)?;
        from.undrain()?;
        from.wait_state("backup", SOON)?;
    }
    drop(hogs);
    let report = load.stop();
    println!("busy: {} requests, latencies {:?} ms", report.requests().len(), report.latencies().summary());
    ensure!(report.lost().count() == 0, "{:?}", report.lost().collect::<Vec<_>>());
    Ok(())
}

// === drain ===

#[test]
fn a_drain_without_a_peer_says_why_not_and_the_vips_stay() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = agent(&lab, 1).start()?;
    alone.wait_state("active", SOON)?;
    let said = alone.say(&["drain"])?;
    ensure!(said.code == Some(1), "{said:?}");
    ensure!(said.err.contains("edge: no peer took over within 200ms"), "{said:?}");
    let status = alone.edge()?;
    ensure!(status.state == "active" && status.owned, "{status:?}");
    for vip in VIPS {
        ensure!(Conversation::open(lab.client(), vip)?.ask()? == "node1");
    }
    // It can be tried again.
    ensure!(alone.say(&["drain"])?.code == Some(1));
    Ok(())
}

#[test]
fn an_heir_keeps_cpus_ready_while_its_skew_runs_and_no_longer() -> Result<()> {
    let lab = lab().build()?;
    let [owner, heir] = both(&lab, ms(1000), false)?;
    ensure!(!heir.keeps_cpus_ready()?, "nothing is to be expected");
    owner.signal(Signal::SIGTERM)?;
    wait::until(SOON, || heir.keeps_cpus_ready().is_ok_and(|ready| ready))?;
    ensure!(heir.edge()?.state == "backup", "its skew is 0.6 s");
    heir.wait_state("active", SOON)?;
    wait::until(SOON, || heir.keeps_cpus_ready().is_ok_and(|ready| !ready))
}

fn extra(priority: u8) -> serde_json::Value {
    json!({"name": "extra", "virtual_router_id": 52, "interface": "eth0", "priority": priority,
           "advert_interval": "100ms", "vips": ["10.0.0.60/24"]})
}

fn state_of(agent: &Agent, instance: &str) -> Result<String> {
    let status = agent.status()?;
    let found = status.instances.into_iter().find(|known| known.name == instance);
    Ok(found.with_context(|| format!("no instance {instance}"))?.state)
}

#[test]
fn one_instance_is_drained_by_name_and_an_unknown_name_is_refused() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1).instance(extra(200)), agent(&lab, 2).instance(extra(190)))?;
    let refused = first.say(&["drain", "nobody"])?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(refused.err.contains("no instance nobody; there are: edge, extra"), "{refused:?}");
    first.say(&["drain", "extra"])?.ok()?;
    ensure!(state_of(&first, "extra")? == "draining" && state_of(&second, "extra")? == "active");
    ensure!(state_of(&first, "edge")? == "active" && state_of(&second, "edge")? == "backup");
    first.say(&["undrain", "extra"])?.ok()?;
    wait::until(SOON, || state_of(&first, "extra").is_ok_and(|state| state == "active"))?;
    ensure!(first.say(&["undrain", "nobody"])?.code == Some(1));
    Ok(())
}

#[test]
fn a_drained_node_stays_out_even_when_the_owner_dies() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = both(&lab, ms(100), true)?;
    first.drain()?;
    second.wait_state("active", SOON)?;
    second.crash()?;
    std::thread::sleep(ms(1500));
    let status = first.edge()?;
    ensure!(status.state == "draining" && !status.owned, "{status:?}");
    ensure!(status.reason.as_deref() == Some("drained by an operator"), "{status:?}");
    // There is nothing to hand over any more.
    first.drain()?;
    first.undrain()?;
    first.wait_state("active", SOON).map(drop)
}

#[test]
fn draining_twice_and_draining_a_backup_are_fine() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = both(&lab, ms(100), true)?;
    second.drain()?;
    let nobody = first.say(&["drain"])?;
    ensure!(nobody.code == Some(1), "both were drained: {nobody:?}");
    second.undrain()?;
    second.wait_state("backup", SOON)?;
    first.drain()?;
    first.drain()?;
    ensure!(first.edge()?.state == "draining" && second.edge()?.state == "active");
    Ok(())
}

/// Whoever asked at the same time is told, too: nobody waits for ever.
#[test]
fn two_who_drain_and_one_who_undrains_meanwhile_all_get_an_answer() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = agent(&lab, 1).interval(ms(1000)).start()?;
    alone.wait_state("active", SOON)?;
    std::thread::scope(|scope| {
        let drains: Vec<_> = (0..2).map(|_| scope.spawn(|| alone.say(&["drain"]))).collect();
        std::thread::sleep(ms(300));
        alone.undrain()?;
        for drain in drains {
            let said = drain.join().expect("no panic")?;
            ensure!(said.code == Some(1) && said.err.contains("undrained before"), "{said:?}");
        }
        Ok(())
    })?;
    alone.wait_state("active", SOON).map(drop)
}

#[test]
fn a_drain_that_meets_a_fault_is_answered() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = agent(&lab, 1).interval(ms(2000)).start()?;
    alone.wait_state("active", SOON)?;
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| alone.say(&["drain"]));
        std::thread::sleep(ms(300));
        lab.node(1).set_link(false)?;
        // It does not own any more, which was what was asked for.
        drain.join().expect("no panic")?.ok().map(drop)
    })?;
    lab.node(1).set_link(true)?;
    alone.wait_state("draining", SOON).map(drop)
}

// === the end of an agent ===

#[test]
fn sigterm_without_a_peer_ends_soon() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = agent(&lab, 1).start()?;
    alone.wait_state("active", SOON)?;
    alone.signal(Signal::SIGTERM)?;
    let status = alone.wait(SOON)?;
    ensure!(status.success(), "{status}\n{}", alone.log());
    ensure!(alone.log().contains("no_heir"), "{}", alone.log());
    Ok(())
}

#[test]
fn a_signal_during_the_hold_down_ends_the_agent_at_once() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let held = agent(&lab, 1).set_instance("hold_down", json!("60s")).start()?;
    held.wait_state("initialize", SOON)?;
    held.signal(Signal::SIGTERM)?;
    ensure!(held.wait(ms(3000))?.success(), "{}", held.log());
    Ok(())
}

#[test]
fn a_second_signal_ends_the_agent_at_once() -> Result<()> {
    let lab = lab().build()?;
    let patient = |n| agent(&lab, n).grace(Duration::from_secs(60));
    let [first, second] = pair(patient(1), patient(2))?;
    let mut open = Conversation::open(lab.client(), VIPS[0])?;
    ensure!(open.ask()? == "node1");
    first.signal(Signal::SIGTERM)?;
    second.wait_state("active", SOON)?;
    std::thread::sleep(ms(2000));
    ensure!(first.process().is_running(), "it serves the open connection: {}", first.log());
    ensure!(open.ask()? == "node1");
    first.signal(Signal::SIGTERM)?;
    ensure!(first.wait(ms(3000))?.success(), "{}", first.log());
    Ok(())
}

// === connections ===

#[test]
fn open_connections_outlive_a_move_within_the_grace_time() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = both(&lab, ms(100), false)?;
    let load = lab.requests().every(ms(50)).delay(ms(3000)).patience(SOON).start()?;
    wait::until(SOON, || load.in_flight() >= 20)?;
    first.drain()?;
    second.wait_state("active", SOON)?;
    wait::until(SOON, || load.report().answered_by().len() == 2)?;
    let report = load.stop();
    ensure!(report.lost().count() == 0, "{:?}", report.lost().collect::<Vec<_>>());
    ensure!(report.answered_by()["node1"] >= 20, "{:?}", report.answered_by());
    Ok(())
}

/// Ports come around in less than the minute that TIME_WAIT lasts when a client opens 1000 connections a second.
#[test]
fn what_is_left_of_a_connection_that_ended_here_does_not_claim_one_of_the_former_owner() -> Result<()> {
    const PORT: u16 = 40_000;
    let lab = lab().build()?;
    let [first, second] = both(&lab, ms(100), false)?;
    for vip in VIPS {
        ensure!(Conversation::open_from(lab.client(), PORT, vip)?.ask_and_end()? == "node1");
    }
    first.drain()?;
    second.wait_state("active", SOON)?;
    first.undrain()?;
    let mut open = Vec::new();
    for vip in VIPS {
        open.push(Conversation::open_from(lab.client(), PORT, vip)?);
    }
    second.drain()?;
    first.wait_state("active", SOON)?;
    for (conversation, vip) in open.iter_mut().zip(VIPS) {
        ensure!(agents::neighbor(lab.client(), vip)? == Some(lab.node(1).mac()), "clients ask node1 now");
        ensure!(conversation.ask()? == "node2");
    }
    Ok(())
}

#[test]
fn sigterm_waits_for_open_connections_and_no_longer() -> Result<()> {
    let lab = lab().build()?;
    let mut open: Vec<_> = Vec::new();
    let [first, second] = both(&lab, ms(100), false)?;
    for vip in VIPS {
        open.push(Conversation::open(lab.client(), vip)?);
    }
    first.signal(Signal::SIGTERM)?;
    second.wait_state("active", SOON)?;
    let begun = Instant::now();
    while begun.elapsed() < ms(2500) {
        for conversation in &mut open {
            ensure!(conversation.ask()? == "node1");
        }
        std::thread::sleep(ms(100));
    }
    ensure!(first.process().is_running(), "{}", first.log());
    drop(open);
    // Of the grace time of 5 s half is left; an agent that waited for its end would count connections as cut.
    let status = first.wait(SOON)?;
    ensure!(status.success() && !first.log().contains("cut "), "{status}\n{}", first.log());
    Ok(())
}

/// Opens one connection by each family, moves the VIPs by `leave`, and looks what becomes of the connections.
fn connections_are_cut_at_the_end_of_grace(leave: impl FnOnce(&Agent) -> Result<()>) -> Result<Agent> {
    let lab = lab().build()?;
    let short = |n| -> AgentBuilder { agent(&lab, n).grace(ms(2000)) };
    let [first, second] = pair(short(1), short(2))?;
    let mut open = Vec::new();
    for vip in VIPS {
        open.push(Conversation::open(lab.client(), vip)?);
    }
    leave(&first)?;
    second.wait_state("active", SOON)?;
    for (conversation, vip) in open.iter_mut().zip(VIPS) {
        ensure!(agents::neighbor(lab.client(), vip)? == Some(lab.node(2).mac()), "clients ask node2 now");
        // So it was node2 that sent these frames on.
        ensure!(conversation.ask()? == "node1");
        ensure!(Conversation::open(lab.client(), vip)?.ask()? == "node2", "new connections are node2's");
    }
    first.process().wait_log("cut 2 connections at the end of the grace time", SOON)?;
    for (conversation, vip) in open.iter_mut().zip(VIPS) {
        let ended = conversation.ask();
        ensure!(ended.is_err(), "{vip}: {ended:?} though node2 forwards no longer");
        ensure!(!first.process().is_running() || !is_on_lo(&first, vip)?, "{vip} is still on lo");
    }
    Ok(first)
}

#[test]
fn what_outlives_the_grace_time_after_a_drain_is_cut_and_counted() -> Result<()> {
    let first = connections_are_cut_at_the_end_of_grace(Agent::drain)?;
    ensure!(first.edge_json()?["connections_cut"] == 2, "{:?}", first.edge_json());
    Ok(())
}

#[test]
fn what_outlives_the_grace_time_after_a_signal_is_cut_and_the_agent_ends() -> Result<()> {
    let first = connections_are_cut_at_the_end_of_grace(|agent| agent.signal(Signal::SIGTERM))?;
    ensure!(first.wait(SOON)?.success(), "{}", first.log());
    Ok(())
}

#[test]
fn without_a_grace_time_open_connections_are_cut_at_once() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1).grace(ms(0)), agent(&lab, 2).grace(ms(0)))?;
    let _open = Conversation::open(lab.client(), VIPS[0])?;
    first.drain()?;
    second.wait_state("active", SOON)?;
    first.wait_for("counted", |status| status["instances"][0]["connections_cut"] == 1)?;
    ensure!(!is_on_lo(&first, VIPS[0])?);
    Ok(())
}
