//! Who owns when priorities move: tracked interfaces, sync groups, and owners that must not be preempted.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/watch.rs"]
mod watch;

use std::time::Duration;

use agents::{Ask as _, SOON, VIPS, agent, binary, ms};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::wire::Frame;
use vip_lab::{Lab, Node, Stamp, wait};
use watch::Watch;

/// Three nodes with an uplink `up0` each, a client, and web servers behind [`VIPS`].
fn lab() -> Result<Lab> {
    let lab = Lab::builder().nodes(3).clients(1).vips(VIPS).web().build()?;
    lab.nodes().iter().try_for_each(add_uplink)?;
    Ok(lab)
}

/// An interface whose other end is here as well.
fn add_uplink(node: &Node) -> Result<()> {
    node.ip("link add up0 type veth peer name up0p")?;
    node.ip("link set up0 up")?;
    node.ip("link set up0p up").map(drop)
}

/// Takes the carrier of `up0` away, or gives it back.
fn set_uplink(node: &Node, up: bool) -> Result<()> {
    node.ip(&format!("link set up0p {}", if up { "up" } else { "down" })).map(drop)
}

/// An agent that tracks its uplink with this weight.
fn tracking(lab: &Lab, number: usize, weight: i32) -> AgentBuilder {
    agent(lab, number)
        .set("probes", json!([{"name": "uplink", "interface": {"name": "up0"}, "weight": weight}]))
        .set_instance("track", json!(["uplink"]))
}

/// Agents on all nodes; the first owns.
fn start<const N: usize>(builders: [AgentBuilder; N]) -> Result<[Agent; N]> {
    let agents = builders.map(AgentBuilder::start);
    let agents: Vec<Agent> = agents.into_iter().collect::<Result<_>>()?;
    agents[0].wait_state("active", SOON)?;
    for backup in &agents[1..] {
        backup.wait_state("backup", SOON)?;
    }
    Ok(agents.try_into().expect("as many as there were"))
}

/// Backup, and knows of whom: before that it may still take over from one that speaks more rarely than itself.
fn follows(agent: &Agent, owner: &Node) -> Result<()> {
    let owner = owner.ipv4().to_string();
    let what = format!("backup of {owner}");
    let follows = |status: &Value| {
        let edge = &status["instances"][0];
        edge["state"] == "backup" && edge["active_router"] == owner.as_str()
    };
    agent.wait_for(&what, follows).map(drop)
}

fn cause(agent: &Agent) -> Result<Option<String>> {
    Ok(agent.edge()?.last_takeover.map(|takeover| takeover.cause))
}

/// Plays several cases, each in a lab of its own: what they do most is wait.
fn at_once<T: Copy + std::fmt::Debug + Send, const N: usize>(
    cases: [T; N],
    play: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let play = &play;
    std::thread::scope(|scope| {
        let plays = cases.map(|case| scope.spawn(move || play(case).with_context(|| format!("{case:?}"))));
        plays.into_iter().try_for_each(|play| play.join().expect("a play that panics"))
    })
}

/// Nobody's state changes for as long as a takeover by any of them would take, twice.
fn stays(agents: &[&Agent]) -> Result<()> {
    let transitions =
        || agents.iter().map(|agent| Ok(agent.edge()?.transitions)).collect::<Result<Vec<u64>>>();
    let before = transitions()?;
    std::thread::sleep(ms(900));
    let after = transitions()?;
    ensure!(before == after, "flaps: {before:?} -> {after:?}");
    Ok(())
}

// === tracking ===

#[test]
fn an_owner_whose_weighted_priority_falls_hands_over_without_loss_and_takes_back() -> Result<()> {
    let lab = lab()?;
    let [first, second, third] = start([tracking(&lab, 1, -60), agent(&lab, 2), agent(&lab, 3)])?;
    let before = third.edge()?.transitions;
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    let load = lab.requests().every(ms(2)).delay(ms(5)).start()?;
    wait::until(SOON, || load.in_flight() > 0)?;
    set_uplink(lab.node(1), false)?;
    second.wait_state("active", SOON)?;
    let status = first.wait_for("backup", |status| status["instances"][0]["state"] == "backup")?;
    let edge = &status["instances"][0];
    ensure!(edge["priority"] == 200 && edge["effective_priority"] == 140, "{edge}");
    let expected = json!([{"name": "uplink", "up": false, "last_error": "up0 has no carrier"}]);
    ensure!(edge["probes"] == expected, "{edge}");
    ensure!(cause(&second)?.as_deref() == Some("preempt"));
    stays(&[&first, &second, &third])?;
    set_uplink(lab.node(1), true)?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    stays(&[&first, &second, &third])?;
    ensure!(third.edge()?.transitions == before, "the third was never to own");
    let lost = load.stop().lost().count();
    ensure!(lost == 0, "{lost} requests were lost");
    let macs = [lab.node(1).mac(), lab.node(2).mac(), lab.node(1).mac()];
    // In a planned move the two may both answer for as long as an advertisement is under way.
    let tenures = watch.wire.answers_for(VIPS[0].parse()?).tenures();
    let mut owners: Vec<_> =
        tenures.iter().filter(|tenure| tenure.answers > 20).map(|tenure| tenure.mac).collect();
    owners.dedup();
    ensure!(owners == macs, "{tenures:?}");
    Ok(())
}

#[test]
fn a_tracked_interface_of_weight_0_is_a_fault_that_peers_hear_of_at_once() -> Result<()> {
    let lab = lab()?;
    let [first, second] = start([tracking(&lab, 1, 0), agent(&lab, 2)])?;
    let wire = lab.wire()?;
    let begun = Stamp::now();
    lab.node(1).ip("link delete up0")?;
    first.wait_state("fault", SOON)?;
    let why = "probe uplink is down: there is no interface up0";
    first.wait_for(why, |status| status["instances"][0]["reason"] == why)?;
    second.wait_state("active", SOON)?;
    let farewell = |frame: &Frame| frame.advert().is_some_and(|advert| advert.priority == 0);
    wire.wait_first(begun, SOON, farewell)?;
    ensure!(cause(&second)?.as_deref() == Some("priority_zero"));
    add_uplink(lab.node(1))?;
    first.wait_state("active", SOON)?;
    ensure!(first.log().contains("healthy again"), "{}", first.log());
    Ok(())
}

#[test]
fn a_reload_that_tracks_another_interface_counts_at_once_and_leaves_the_state() -> Result<()> {
    let lab = lab()?;
    set_uplink(lab.node(1), false)?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    first.reload(&tracking(&lab, 1, -250))?;
    let edge = first.edge_json()?;
    ensure!(
        edge["effective_priority"] == 1 && edge["state"] == "active" && edge["transitions"] == 2,
        "{edge}"
    );
    first.reload(&agent(&lab, 1))?;
    let edge = first.edge_json()?;
    ensure!(edge["effective_priority"] == 200 && edge["probes"] == json!([]), "{edge}");
    Ok(())
}

#[test]
fn keepalived_takes_over_from_us_when_our_weighted_priority_falls() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(0).vips(["10.0.0.50"]).build()?;
    add_uplink(lab.node(1))?;
    let ours = tracking(&lab, 1, -150).start()?;
    ours.wait_state("active", SOON)?;
    let theirs = lab.keepalived(2).priority(100).interval(ms(100)).global("vrrp_priority -20").start()?;
    theirs.wait_state("BACKUP", SOON)?;
    set_uplink(lab.node(1), false)?;
    theirs.wait_state("MASTER", SOON)?;
    ours.wait_state("backup", SOON)?;
    set_uplink(lab.node(1), true)?;
    ours.wait_state("active", SOON)?;
    theirs.wait_state("BACKUP", SOON)?;
    ensure!(theirs.complaints().is_empty(), "{:#?}", theirs.complaints());
    Ok(())
}

#[test]
fn we_take_over_from_a_keepalived_whose_weighted_priority_falls_after_a_skew() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(0).vips(["10.0.0.50"]).build()?;
    add_uplink(lab.node(2))?;
    let wire = lab.wire()?;
    let theirs = lab
        .keepalived(2)
        .priority(200)
        .interval(ms(500))
        .each_instance("track_interface {\n up0 weight -150\n }")
        .start()?;
    theirs.wait_state("MASTER", SOON)?;
    let ours = agent(&lab, 1).priority(100).start()?;
    follows(&ours, lab.node(2))?;
    let begun = Stamp::now();
    set_uplink(lab.node(2), false)?;
    ours.wait_state("active", SOON)?;
    let said = |node: &Node, wanted: u8| {
        let node = node.clone();
        move |frame: &Frame| {
            frame.is_from(&node) && frame.advert().is_some_and(|advert| advert.priority == wanted)
        }
    };
    let fallen = wire.wait_first(begun, SOON, said(lab.node(2), 50))?.at;
    let taken = wire.wait_first(begun, SOON, said(lab.node(1), 100))?.at;
    // The skew is 305 ms, Active_Down would be 1805 ms from the advertisement before.
    ensure!((ms(300)..ms(1200)).contains(&(taken - fallen)), "after {:?}", taken - fallen);
    theirs.wait_state("BACKUP", SOON)
}

// === sync groups ===

/// An agent with a second instance, on an interface that nobody else is on, in one sync group with the first.
fn grouped(lab: &Lab, number: usize) -> AgentBuilder {
    let priority = 210 - 10 * number;
    agent(lab, number).set_instance("sync_group", json!("both")).instance(json!({
        "name": "inner", "virtual_router_id": 52, "interface": "up0", "advert_interval": "100ms",
        "priority": priority, "vips": ["10.9.0.60"], "sync_group": "both", "grace": "0s",
    }))
}

/// Three nodes; `up0` of each has an address and no connection to the others'.
fn lab_of_groups() -> Result<Lab> {
    let lab = lab()?;
    for node in lab.nodes() {
        node.ip(&format!("address add 10.9.0.{}/24 dev up0", node.ipv4().octets()[3]))?;
    }
    Ok(lab)
}

fn states(agent: &Agent) -> Result<Value> {
    let status = agent.status()?.raw;
    Ok(json!([status["instances"][0]["state"], status["instances"][1]["state"]]))
}

#[test]
fn a_sync_group_faults_moves_and_returns_together() -> Result<()> {
    let lab = lab_of_groups()?;
    let [first, second, third] = start([grouped(&lab, 1), grouped(&lab, 2), grouped(&lab, 3)])?;
    // Nobody hears the others' `inner`; all stay with the owner that they hear by `edge`.
    stays(&[&first, &second, &third])?;
    ensure!(states(&third)? == json!(["backup", "backup"]));
    set_uplink(lab.node(1), false)?;
    let status = first.wait_state("fault", SOON)?;
    let why = "inner of sync group both cannot serve: up0 has no carrier: check the cable or the switch port";
    ensure!(status.instances[0].reason.as_deref() == Some(why), "{:?}", status.instances[0]);
    second.wait_state("active", SOON)?;
    stays(&[&second, &third])?;
    set_uplink(lab.node(1), true)?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    first.process().kill()?;
    second.wait_state("active", SOON)?;
    ensure!(states(&third)? == json!(["backup", "backup"]));
    Ok(())
}

#[test]
fn a_drain_of_one_member_drains_its_sync_group() -> Result<()> {
    let lab = lab_of_groups()?;
    let [first, second] = start([grouped(&lab, 1), grouped(&lab, 2)])?;
    first.say(&["drain", "edge"])?.ok()?;
    // The heir of `inner` cannot be heard: that of `edge` is enough.
    ensure!(states(&first)? == json!(["draining", "draining"]), "{}", first.status()?.raw);
    second.wait_state("active", SOON)?;
    stays(&[&first, &second])?;
    first.say(&["undrain", "inner"])?.ok()?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON).map(drop)
}

/// Told by one member's network, for all: by the agent itself, or by its watcher.
#[test]
fn the_heirs_of_a_sync_group_are_told_of_its_agents_end() -> Result<()> {
    at_once([Signal::SIGTERM, Signal::SIGKILL], |signal| {
        let lab = lab_of_groups()?;
        let [first, second] = start([grouped(&lab, 1), grouped(&lab, 2)])?;
        stays(&[&first, &second])?;
        first.wait_watcher(SOON)?;
        first.signal(signal)?;
        let ended = first.wait(SOON)?;
        ensure!(ended.success() == (signal == Signal::SIGTERM), "{ended}\n{}", first.log());
        second.wait_state("active", SOON)?;
        let status = second.status()?.raw;
        for member in [&status["instances"][0], &status["instances"][1]] {
            ensure!(member["state"] == "active" && member["owned"] == true, "{member}");
            ensure!(member["last_takeover"]["cause"] == "priority_zero", "{member}");
        }
        let silenced = first.log().contains("silenced edge inner");
        ensure!(silenced == (signal == Signal::SIGKILL), "{}", first.log());
        Ok(())
    })
}

#[test]
fn a_reload_adds_a_member_to_a_sync_group_and_takes_it_away() -> Result<()> {
    let lab = lab_of_groups()?;
    let alone = agent(&lab, 1).grace(ms(0)).set_instance("sync_group", json!("both"));
    let first = alone.clone().start()?;
    first.wait_state("active", SOON)?;
    first.reload(&grouped(&lab, 1).grace(ms(0)))?;
    first.wait_state("active", SOON)?;
    ensure!(first.edge()?.transitions == 2, "the first member has moved");
    set_uplink(lab.node(1), false)?;
    first.wait_state("fault", SOON)?;
    first.reload(&alone)?;
    first.wait_state("active", SOON).map(drop)
}

// === preemption, delayed and not at all ===

#[test]
fn preempt_delay_and_hold_down_put_a_return_off() -> Result<()> {
    let lab = lab()?;
    let delayed = agent(&lab, 1).set_instance("preempt_delay", json!("700ms"));
    let [first, second] = start([delayed.set_instance("hold_down", json!("800ms")), agent(&lab, 2)])?;
    first.process().kill()?;
    second.wait_state("active", SOON)?;
    let begun = Stamp::now();
    let wire = lab.wire()?;
    let first = first.builder().start()?;
    first.wait_for("held down", |status| status["instances"][0]["state"] == "initialize")?;
    first.wait_state("active", SOON)?;
    let node = lab.node(1).clone();
    let back = wire.wait_first(begun, SOON, move |frame| frame.is_from(&node) && frame.advert().is_some())?;
    ensure!(back.at - begun >= ms(1500), "back after {:?}", back.at - begun);
    Ok(())
}

/// The higher priority is killed and restarted; the VIPs stay where they went.
fn stays_after_restarts(own: Duration, others: Duration) -> Result<()> {
    let lab = lab()?;
    let higher = agent(&lab, 1).interval(own).preempt(false);
    let first = higher.start()?;
    first.wait_state("active", SOON)?;
    let second = agent(&lab, 2).interval(others).start()?;
    follows(&second, lab.node(1))?;
    let before = second.edge()?.transitions;
    first.process().kill()?;
    second.wait_state("active", SOON)?;
    std::thread::sleep(ms(300));
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(2), SOON)?;
    let mut first = first;
    for _ in 0..2 {
        first = first.builder().start()?;
        first.wait_state("backup", SOON)?;
        std::thread::sleep(ms(1000));
        first.process().kill()?;
    }
    ensure!(watch.finish(&lab)? == [lab.node(2).mac()], "{}", first.log());
    ensure!(second.edge()?.transitions == before + 1, "{:?}", second.edge()?);
    Ok(())
}

#[test]
fn without_preemption_a_restarted_router_leaves_the_vips_where_they_are() -> Result<()> {
    at_once([(ms(50), ms(1000)), (ms(1000), ms(50))], |(own, others)| stays_after_restarts(own, others))
}

#[test]
fn a_restarted_router_listens_for_as_long_as_the_owner_that_it_remembers_would_need() -> Result<()> {
    let lab = lab()?;
    let first = agent(&lab, 1).interval(ms(10)).preempt(false);
    let second = agent(&lab, 2).interval(ms(500)).start()?;
    second.wait_state("active", SOON)?;
    let agent = first.clone().start()?;
    agent.wait_state("backup", SOON)?;
    let memory = "/var/lib/viplane/owners.json";
    wait::until(SOON, || lab.node(1).read_file(memory).is_ok_and(|text| text.contains("10.0.0.2")))?;
    agent.process().kill()?;
    second.process().kill()?;
    let wire = lab.wire()?;
    let taken = |begun| {
        let node = lab.node(1).clone();
        let frame = wire.wait_first(begun, SOON, move |frame: &Frame| {
            frame.is_from(&node) && frame.advert().is_some_and(|advert| advert.priority == 200)
        });
        frame.map(|frame| frame.at - begun)
    };
    let begun = Stamp::now();
    let agent = first.clone().start()?;
    let waited = taken(begun)?;
    // Three intervals of 500 ms and the skew of priority 200.
    ensure!(waited >= ms(1609), "took over after {waited:?}");
    agent.process().kill()?;
    // A file that is broken is no memory, and no reason to stay away.
    lab.node(1).write_file(memory, "{")?;
    let begun = Stamp::now();
    let agent = first.start()?;
    taken(begun)?;
    ensure!(agent.log().contains("cannot read which owners were seen before"), "{}", agent.log());
    Ok(())
}

/// A switch port that opens late (spanning tree): both sides have an owner until then.
#[test]
fn an_owner_that_was_there_before_keeps_or_gets_back_its_vips_when_the_networks_join() -> Result<()> {
    at_once([ms(10), ms(300)], |interval| {
        let lab = lab()?;
        let second = agent(&lab, 2).interval(interval).start()?;
        second.wait_state("active", SOON)?;
        lab.switch().set_forwarding(lab.node(1), false)?;
        let first = agent(&lab, 1).interval(interval).preempt(false).start()?;
        first.wait_state("active", SOON)?;
        lab.switch().set_forwarding(lab.node(1), true)?;
        follows(&first, lab.node(2))?;
        second.wait_state("active", SOON)?;
        stays(&[&first, &second])?;
        ensure!(first.log().contains("hand_back"), "{}", first.log());
        let watch = Watch::start(&lab)?;
        watch.wait_answers_of(lab.node(2), SOON)?;
        ensure!(watch.finish(&lab)? == [lab.node(2).mac()]);
        Ok(())
    })
}

/// keepalived answers the question like any owner.
#[test]
fn a_restarted_router_that_must_not_preempt_leaves_the_vips_with_keepalived() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(0).vips(["10.0.0.50"]).build()?;
    let theirs = lab.keepalived(2).priority(100).interval(ms(500)).global("vrrp_priority -20").start()?;
    theirs.wait_state("MASTER", SOON)?;
    // It takes some tens of milliseconds to answer when the machine is busy.
    let ours = lab.agent(1, binary()).priority(200).interval(ms(30)).preempt(false).start()?;
    follows(&ours, lab.node(2))?;
    stays(&[&ours])?;
    ensure!(ours.edge()?.transitions == 1, "{:?}", ours.edge()?);
    ensure!(theirs.complaints().is_empty(), "{:#?}", theirs.complaints());
    ours.signal(Signal::SIGTERM)?;
    ours.wait(SOON).map(drop)
}
