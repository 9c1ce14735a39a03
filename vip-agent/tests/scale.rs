//! 255 instances on one interface: what they share, how their adverts are spread, and that they all move.

#[path = "support/agents.rs"]
mod agents;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use agents::{SOON, agent, ms};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use vip_lab::agent::{Agent, AgentBuilder, InstanceStatus};
use vip_lab::wire::{Frame, Packet, Wire};
use vip_lab::{Lab, Node, Stamp};

const INSTANCES: u8 = 255;
/// What a debug build on a busy machine can do.
const INTERVAL: Duration = ms(200);

/// What takeovers after a crash may be caused by.
const CRASH: [&str; 2] = ["priority_zero", "timeout"];

/// One VIP of each family.
fn vips(id: u8) -> [String; 2] {
    [format!("10.0.1.{id}"), format!("fd00::1:{id:x}")]
}

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).clients(1).vips((1..=INSTANCES).flat_map(vips)).build()
}

/// An agent with one instance for each virtual router id.
fn crowd(lab: &Lab, number: usize) -> AgentBuilder {
    let first = agent(lab, number).interval(INTERVAL).preempt(false).vrid(1).vips(vips(1)).grace(ms(500));
    (2..=INSTANCES).fold(first, |builder, id| {
        builder.instance(json!({
            "name": format!("edge{id}"), "virtual_router_id": id, "interface": "eth0", "vips": vips(id),
            "priority": 210 - 10 * number, "advert_interval": "200ms", "preempt": false, "grace": "500ms",
        }))
    })
}

/// How many sockets of the node stand in these files of /proc/net, of those that a line is about.
fn sockets(node: &Node, file: &str, wanted: impl Fn(&str) -> bool) -> Result<usize> {
    let listed = node.read_file(format!("/proc/thread-self/net/{file}"))?;
    Ok(listed.lines().skip(1).filter(|line| wanted(line)).count())
}

/// The IPv4 adverts of a node by virtual router id: IPv6's go out with them.
fn is_advert_of(node: &Node) -> impl Fn(&Frame) -> bool + use<> {
    let node = node.clone();
    move |frame| {
        frame.is_from(&node)
            && frame.advert().is_some_and(|advert| advert.priority > 0 && advert.source.is_ipv4())
    }
}

/// The greatest share of its adverts that any tenth of an interval has, for each of some intervals.
fn greatest_shares(wire: &Wire, node: &Node, since: Stamp, intervals: u32) -> Vec<f64> {
    let times: Vec<Stamp> = wire.frames(is_advert_of(node)).iter().map(|frame| frame.at).collect();
    let within =
        |from: Stamp, span: Duration| times.iter().filter(|at| **at >= from && **at < from + span).count();
    let share = |interval: u32| {
        let begin = since + INTERVAL * interval;
        let tenths = (0..100).map(|step| within(begin + INTERVAL * step / 100, INTERVAL / 10));
        tenths.max().unwrap_or_default() as f64 / f64::from(INSTANCES)
    };
    (0..intervals).map(share).collect()
}

/// `/metrics` of an agent, and how long it took.
fn scrape(agent: &Agent) -> Result<(Duration, String)> {
    agent.node().run(|| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect("127.0.0.1:9870").context("the API")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok((begun.elapsed(), answer))
    })
}

/// How many of the driver's timers were late by how much: all, and those by more than 10 ms.
fn late(agent: &Agent) -> Result<[f64; 2]> {
    let (_, metrics) = scrape(agent)?;
    let sample = |name: &str| -> Result<f64> {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name} in {metrics}"))?.trim().parse()?)
    };
    let all = sample("viplane_timer_lateness_seconds_count")?;
    Ok([all, all - sample("viplane_timer_lateness_seconds_bucket{le=\"0.01\"}")?])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Who has announced what, and when it was complete.
fn announced(wire: &Wire, lab: &Lab, node: &Node, since: Stamp) -> Result<[Duration; 2]> {
    let mut missing: BTreeSet<_> = lab.vips().iter().copied().collect();
    let (mut first, mut last) = (None, None);
    for frame in wire.frames(|frame| frame.at >= since && frame.is_from(node)) {
        let vip = match &frame.packet {
            Packet::Arp(arp) => arp.target.into(),
            Packet::NeighborAdvertisement(advertisement) => advertisement.target.into(),
            _ => continue,
        };
        if frame.packet.announces(vip) && missing.remove(&vip) {
            first.get_or_insert(frame.at);
            last = Some(frame.at);
        }
    }
    ensure!(missing.is_empty(), "not announced: {missing:?}");
    Ok([first.context("announcements")? - since, last.context("announcements")? - since])
}

/// Each has moved as often as it should, and said how: no report was lost.
fn all_moved(agent: &Agent, state: &str, transitions: u64, causes: &[&str]) -> Result<Vec<InstanceStatus>> {
    let status = agent.wait_state(state, SOON)?;
    ensure!(status.instances.len() == usize::from(INSTANCES));
    // What the driver does is in the status at once, what it reports about it a moment later.
    let complete = vip_lab::wait::until(SOON, || {
        agent.status().is_ok_and(|status| {
            status.instances.iter().all(|instance| {
                let takeover = instance.last_takeover.as_ref();
                let caused = takeover.map_or(causes.is_empty(), |own| causes.contains(&own.cause.as_str()));
                instance.transitions == transitions && caused
            })
        })
    });
    let instances = agent.status()?.instances;
    complete.with_context(|| {
        format!("not {transitions} transitions, {causes:?}: {:?}\n{}", instances.first(), agent.log())
    })?;
    ensure!(!agent.log().contains("more than could be followed"), "reports were lost");
    Ok(instances)
}

#[test]
fn instances_of_one_interface_share_its_sockets_spread_their_adverts_and_move_together() -> Result<()> {
    let lab = lab()?;
    let [one, two] = [lab.node(1), lab.node(2)];
    let first = crowd(&lab, 1).start()?;
    all_moved(&first, "active", 2, &["timeout"])?;
    let second = crowd(&lab, 2).start()?;
    all_moved(&second, "backup", 1, &[])?;

    for agent in [&first, &second] {
        // One per family to receive adverts, one to announce; two more while the new ones look who has their VIPs.
        let settled = || sockets(agent.node(), "packet", |_| true).is_ok_and(|count| count == 3);
        vip_lab::wait::until(SOON, settled)
            .with_context(|| format!("packet sockets of {}", agent.node().name()))?;
        let open = std::fs::read_dir(format!("/proc/{}/fd", agent.process().pid()))?.count();
        // Of the agent and its API as such some 70; one for each instance would be 255 more.
        ensure!(open < 128, "{open} open files of {}", agent.node().name());
    }
    for node in [one, two] {
        let adverts = |line: &str| line.contains(":0070");
        // One to send, one to rehearse.
        ensure!(sockets(node, "raw", adverts)? == 2, "raw sockets of {}", node.name());
        ensure!(sockets(node, "raw6", adverts)? == 1, "raw sockets of {}", node.name());
    }

    // The crash.
    let wire = lab.wire()?;
    wire.wait_first(Stamp::MIN, SOON, is_advert_of(one))?;
    first.signal(Signal::SIGKILL)?;
    let began = wire.wait_first(Stamp::MIN, SOON, is_advert_of(two))?.at;
    let taken = all_moved(&second, "active", 2, &CRASH)?;
    let [announced_first, announced_last] = announced(&wire, &lab, two, began)?;
    let adverts = wire.frames(|frame| is_advert_of(two)(frame) && frame.at < began + INTERVAL * 3);
    let owners: BTreeSet<u8> =
        adverts.iter().filter_map(|frame| frame.advert()).map(|advert| advert.vrid).collect();
    ensure!(owners.len() == usize::from(INSTANCES), "{} of 255 taken within three intervals", owners.len());
    let slowest = |of: fn(&vip_lab::agent::Takeover) -> f64| {
        taken.iter().filter_map(|instance| instance.last_takeover.as_ref()).map(of).fold(0.0, f64::max)
    };
    println!(
        "crash: first announcement {announced_first:?} after the first advert, last {announced_last:?}; of one instance at most: flip \
         {} us, announce {} us",
        slowest(|takeover| takeover.flip_us),
        slowest(|takeover| takeover.announce_us)
    );

    // Steadily.
    std::thread::sleep(INTERVAL * 12);
    let shares = greatest_shares(&wire, two, began + INTERVAL * 2, 10);
    println!("the greatest share of a tenth of an interval: {shares:.2?}");
    ensure!(wire.lost() == 0, "the capture lost frames");
    ensure!(median(shares.clone()) <= 0.2, "adverts come in bursts: {shares:?}");

    // Looked at as often as it can be: each scrape asks the driver about every instance.
    let wire = lab.wire()?;
    let before = late(&second)?;
    let took = (0..20).map(|_| scrape(&second)).collect::<Result<Vec<_>>>()?;
    let spans: Vec<f64> = took.iter().map(|(span, _)| span.as_secs_f64() * 1e3).collect();
    let after = late(&second)?;
    println!(
        "a scrape of /metrics: {:.1} ms, at most {:.1} ms; timers of the driver by lateness before {before:?}, after {after:?}",
        median(spans.clone()),
        spans.iter().copied().fold(0.0, f64::max)
    );
    for (_, metrics) in &took {
        let leases = metrics.lines().filter(|line| line.starts_with("viplane_lease_seconds{")).count();
        ensure!(leases == usize::from(INSTANCES), "{leases} leases in {metrics}");
    }
    // The backup has missed nothing of the owner meanwhile.
    ensure!(wire.frames(is_advert_of(two)).len() > 1, "no adverts while it was scraped");
    drop(wire);

    // And back.
    let first = first.builder().start()?;
    all_moved(&first, "backup", 1, &[])?;
    all_moved(&second, "active", 2, &CRASH)?;
    second.signal(Signal::SIGTERM)?;
    all_moved(&first, "active", 2, &["priority_zero"])?;
    let ended = second.wait(SOON)?;
    ensure!(ended.success(), "{ended}: {}", second.log());
    let left = two.ip("-o address show dev lo")?;
    ensure!(!left.contains("10.0.1.") && !left.contains("fd00::1:"), "left on lo: {left}");
    Ok(())
}
