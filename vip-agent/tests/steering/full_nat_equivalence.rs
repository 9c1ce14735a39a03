//! Full NAT in the kernel does to any packet what it does in user space, whose own tests compare that to a model: frames, counters
//! and entries, while clients, backends and routers speak at random and ports run out.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use vip_common::rewrite::Verdict;
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::full_nat::tables::{NatFlow, NatReturn};
use vip_common::steering::reason::Outcome;

use crate::edge::{EDGE, enter};
use crate::equivalence::expected;
use crate::kernel::Kernel;
use crate::packets::{ENDS4, ENDS6, Ends, Kind, Sent, fix_ipv4, icmp_error, is_sound};
use crate::world::{IFINDEX, Member, Plan, World};

/// Few, so that they run out.
const PORTS: [u16; 5] = [20_000, 20_001, 20_002, 20_005, 20_006];

/// Services with backends elsewhere, here and elsewhere, and of all ports; and one that has nothing to do with it.
fn plans() -> Vec<Plan> {
    let mut mixed = Plan { ports: (8100, 8100, 3), ..Plan::full_nat(ENDS4) };
    mixed.backends[0].local = true;
    let all = Plan { ports: (0, 0, 0), affinity: 60, ..Plan::full_nat(ENDS6) };
    vec![Plan::full_nat(ENDS4), mixed, Plan { affinity: 60, ..Plan::full_nat(ENDS6) }, all, Plan::direct()]
}

#[derive(Clone, Debug)]
enum Event {
    Packet(Vec<u8>),
    /// The answer to one of the flows that are known, or an error about one of its packets on either side.
    About(Index, u8, u8),
    /// A backend goes up, drains, or goes away.
    Change(usize, usize, u8),
}

fn event() -> impl Strategy<Value = Event> {
    let kind = select(vec![Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::Unsummed, Kind::Sctp]);
    let flags = || select(vec![0x02_u8, 0x02, 0x10, 0x10, 0x11, 0x04, 0x12]);
    let from = select(vec![20_000_u16, 20_001, 20_003, 40_000]);
    let to = select(vec![8000_u16, 8001, 8100, 80, 20_001, 7]);
    let rest = (flags(), vec(any::<u8>(), 0..30), select(vec![1_u8, 64, 64]), 0..4_u8);
    let sent = (any::<bool>(), kind, from, to, rest).prop_map(|(four, kind, from, to, rest)| {
        let (flags, payload, hops, number) = rest;
        let ends = match if four || kind == Kind::Unsummed { ENDS4 } else { ENDS6 } {
            Ends::V4(_, vip) => Ends::V4([192, 0, 2, number], vip),
            Ends::V6(mut client, vip) => {
                client[15] = number;
                Ends::V6(client, vip)
            }
        };
        Sent { ports: (from, to), flags, payload, hops, ..Sent::new(ends, kind) }
    });
    let fragment = (sent.clone(), 0..4_u8, select(vec![(0x20_u8, 0_u8), (0x20, 3), (0, 3)]));
    let fragment = fragment.prop_map(|(sent, id, (more, offset))| {
        let mut frame = sent.bytes();
        if matches!(sent.ends, Ends::V4(..)) {
            frame[19] = id;
            frame[20..22].copy_from_slice(&[more, offset]);
            fix_ipv4(&mut frame[14..]);
        }
        frame
    });
    prop_oneof![
        8 => sent.prop_map(|sent| Event::Packet(sent.bytes())),
        2 => fragment.prop_map(Event::Packet),
        8 => (any::<Index>(), flags(), 0..4_u8).prop_map(|(flow, flags, what)| Event::About(flow, flags, what)),
        1 => (0..4_usize, 0..3_usize, 0..3_u8).prop_map(|(service, member, what)| Event::Change(service, member, what)),
    ]
}

fn ends(family: u8, from: [u8; 16], to: [u8; 16]) -> Ends {
    let narrow = |[a, b, c, d, ..]: [u8; 16]| [a, b, c, d];
    if family == 4 { Ends::V4(narrow(from), narrow(to)) } else { Ends::V6(from, to) }
}

/// What is sent about a flow.
fn about(flow: &NatFlow, back: &NatReturn, flags: u8, what: u8) -> Vec<u8> {
    let port = u16::from_be_bytes;
    let way = flow.way;
    let sent = |from, to, ports| Sent {
        ports,
        flags,
        ..Sent::new(ends(way.family, from, to), if way.protocol == 6 { Kind::Tcp } else { Kind::Udp })
    };
    let (own, backend) = (port(way.own_port), port(way.backend_port));
    let (client, vip) = (port(back.client.client_port), port(back.client.vip_port));
    match what {
        0 | 1 => sent(way.backend, way.own, (backend, own)).bytes(),
        2 => icmp_error(&sent(way.own, way.backend, (own, backend)), 8),
        _ => icmp_error(&sent(back.vip, back.client.client, (vip, client)), 28),
    }
}

type Entries = (BTreeMap<[u8; 24], NatFlow>, BTreeMap<[u8; 40], NatReturn>);

/// What both have noted, but for the time, and the interface.
fn entries_of(kernel: &Kernel) -> Result<Entries> {
    let flows = kernel.nat_flows()?.into_iter().map(|(key, flow)| (key, NatFlow { seen: 0, ..flow }));
    let returns = kernel.nat_returns()?.into_iter().map(|(key, mut back)| {
        back.seen = 0;
        back.hop.ifindex = if back.hop.ifindex == EDGE { IFINDEX } else { back.hop.ifindex };
        (key, back)
    });
    Ok((flows.collect(), returns.collect()))
}

fn entries_in(world: &World) -> Entries {
    let flows = world.nat.flows.borrow();
    let flows = flows.iter().map(|(key, flow)| (bytemuck::cast(*key), NatFlow { seen: 0, ..*flow }));
    let returns = world.nat.returns.borrow();
    let returns = returns.iter().map(|(key, back)| (bytemuck::cast(*key), NatReturn { seen: 0, ..*back }));
    (flows.collect(), returns.collect())
}

/// The kernel draws its own numbers: whichever port it took by chance, user space is to draw that one.
fn follow_chance(world: &World, known: &Entries, now: &Entries) {
    let new = now.0.iter().find(|(key, flow)| known.0.get(*key).is_none_or(|before| before.way != flow.way));
    if let Some((_, flow)) = new
        && let Some(place) = PORTS.iter().position(|port| port.to_be_bytes() == flow.way.own_port)
    {
        let count = PORTS.len() as u64;
        world.nat.random.set((((place as u64) << 32).div_ceil(count)) as u32);
    }
}

#[test]
fn whatever_clients_backends_and_routers_say() -> Result<()> {
    enter()?;
    let mut runner = TestRunner::deterministic();
    let events = vec(event(), 400);
    let mut outcomes = [0_u32; Outcome::COUNT];
    // Few, as each loads the programs.
    for _ in 0..4 {
        let mut plans = plans();
        let mut world = World::of(&plans);
        world.nat.ports = Ports::new(20_000..=20_006, &[20_003..=20_004]);
        let mut kernel = Kernel::on(EDGE, &world)?;
        let tree = events.new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("{reason}"))?;
        for event in tree.current() {
            let known = entries_in(&world);
            let frame = match &event {
                Event::Packet(frame) => frame.clone(),
                Event::About(flow, flags, what) => {
                    let whole: Vec<_> = known.0.values().collect();
                    if whole.is_empty() {
                        continue;
                    }
                    let flow = whole[flow.index(whole.len())];
                    let back =
                        known.1.get(&bytemuck::cast::<_, [u8; 40]>(flow.way)).context("no way back")?;
                    about(flow, back, *flags, *what)
                }
                Event::Change(service, member, what) => {
                    let member: &mut Member = &mut plans[*service].backends[*member];
                    match what {
                        0 => member.up = !member.up,
                        1 => member.draining = !member.draining,
                        _ => (member.up, member.draining) = (true, false),
                    }
                    world.fill(&plans);
                    kernel.fill(&world)?;
                    continue;
                }
            };
            let run = kernel.run(&frame)?;
            let noted = entries_of(&kernel)?;
            follow_chance(&world, &known, &noted);
            let mut expected = expected(&world, &frame);
            if run.verdict == Verdict::Drop {
                // Nobody sees what is left of it.
                expected.frame.clone_from(&run.frame);
            }
            ensure!(run == expected, "{run:02x?} instead of {expected:02x?} for {event:02x?}");
            let is_part = frame[12] == 8 && (frame[20] & 0x3f, frame[21]) != (0, 0);
            ensure!(
                run.verdict != Verdict::Transmit || is_part || is_sound(&run.frame),
                "{run:02x?} for {event:02x?}"
            );
            ensure!(
                noted == entries_in(&world),
                "{noted:?}\ninstead of {:?} for {event:02x?}",
                entries_in(&world)
            );
            outcomes[run.counted[0].1] += 1;
        }
    }
    // What matters was there.
    for outcome in [Outcome::NewFlow, Outcome::ErrorSteered, Outcome::Returned, Outcome::Unmapped] {
        ensure!(outcomes[outcome as usize] > 0, "no packet came to {outcome:?}: {outcomes:?}");
    }
    Ok(())
}
