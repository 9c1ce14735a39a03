//! The kernel does to any packet what steering does to it in user space, whose own tests compare that to a model.

use anyhow::{Result, ensure};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use vip_common::packet::ethernet::{self, Header};
use vip_common::rewrite::Verdict;
use vip_common::steering::apply::apply;
use vip_common::steering::tables::{Closed, MAX_SERVICES, Mode};

use crate::kernel::{Kernel, Run};
use crate::packets::{ENDS4, ENDS6, Ends, Kind, Sent, icmp_error, tags, with_room};
use crate::world::{Member, Plan, World};

/// Every mode in the families that it has, with affinity and without, source ranges, and nobody there.
pub(crate) fn plans() -> Vec<Plan> {
    let nobody = Plan { ports: (53, 53, 0), protocols: vec![17], backends: Vec::new(), ..Plan::direct() };
    let mut tunnel4 = Plan { ports: (82, 82, 0), mode: Mode::Tunnel, ..Plan::direct() };
    tunnel4.backends[0].mtu = 70;
    let mut nat6 = Plan { ends: ENDS6, ..Plan::nat() };
    nat6.closed = Closed::Reject;
    vec![
        Plan::direct(),
        Plan { ends: ENDS6, ports: (81, 81, 0), protocols: vec![6, 17], affinity: 60, ..Plan::direct() },
        Plan { ports: (81, 81, 0), mode: Mode::Local, ..Plan::direct() },
        Plan { closed: Closed::Drop, ..nobody.clone() },
        Plan { closed: Closed::Reject, ends: ENDS6, ..nobody },
        Plan { protocols: vec![6, 17, 132], ..Plan::tunnel() },
        tunnel4,
        Plan::nat(),
        nat6,
        Plan { ports: (0, 0, 0), protocols: vec![132], allowed: vec![ENDS4.wide().0], ..Plan::direct() },
    ]
}

/// What it must come to.
pub(crate) fn expected(world: &World, frame: &[u8]) -> Run {
    let steered = world.steer(frame);
    let (verdict, frame) = with_room(frame, |frame| apply(frame, &steered.action));
    let (verdict, outcome) = (verdict.unwrap_or(Verdict::Drop), steered.outcome);
    let service = steered.service.map_or(MAX_SERVICES, u32::from);
    let backends = Some(steered.backend).into_iter().filter(|slot| *slot != 0).collect();
    Run { verdict, frame, counted: vec![(service, outcome as usize)], backends }
}

fn is_ip(frame: &[u8]) -> bool {
    matches!(Header::read(frame), Some(Header { ethertype: ethernet::IPV4 | ethernet::IPV6, .. }))
}

fn agrees(kernel: &Kernel, world: &World, frame: &[u8]) -> Result<()> {
    // The tables of both are noted in by each run: the model is asked once.
    let expected = expected(world, frame);
    let run = kernel.run(frame)?;
    if run.verdict == Verdict::Drop && expected.verdict == Verdict::Drop {
        // Nobody sees what is left of it.
        ensure!(
            (&run.counted, &run.backends) == (&expected.counted, &expected.backends),
            "{run:?}: {frame:02x?}"
        );
        return Ok(());
    }
    ensure!(run == expected, "{run:02x?} instead of {expected:02x?} for {frame:02x?}");
    Ok(())
}

/// Packets to the VIPs, errors about their packets, fragments; a quarter of them damaged behind their addresses.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = select(vec![Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::Unsummed, Kind::Sctp, Kind::Echo]);
    let flags = select(vec![0x02_u8, 0x10, 0x11, 0x14]);
    let port = select(vec![80_u16, 80, 81, 82, 53, 7, 8000, 8003]);
    let length = select(vec![0_usize, 11, 60]);
    let sent = (any::<bool>(), kind, 1000..1010_u16, port, flags, tags(), length, select(vec![1_u8, 2, 64]));
    let sent = sent.prop_map(|(four, kind, from, to, flags, tags, length, hops)| Sent {
        ports: (from, to),
        flags,
        tags,
        hops,
        payload: vec![0xab; length],
        ..Sent::new(if four { ENDS4 } else { ENDS6 }, kind)
    });
    let sent = sent.boxed();
    let error = (sent.clone(), 8..40_usize).prop_map(|(sent, quote)| {
        let about = Sent {
            ends: sent.ends.reversed(),
            ports: (sent.ports.1, sent.ports.0),
            tags: Vec::new(),
            ..sent
        };
        icmp_error(&about, quote)
    });
    let fragment = (sent.clone(), 0..8_u8, select(vec![0x20_u8, 0, 0x20]), select(vec![0_u8, 3]));
    let fragment = fragment.prop_map(|(sent, id, more, offset)| {
        let mut frame = Sent { tags: Vec::new(), ..sent.clone() }.bytes();
        if matches!(sent.ends, Ends::V4(..)) {
            frame[19] = id;
            frame[20..22].copy_from_slice(&[more, offset]);
            crate::packets::fix_ipv4(&mut frame[14..]);
        }
        frame
    });
    let sound = prop_oneof![4 => sent.prop_map(|sent| sent.bytes()), 2 => error, 2 => fragment];
    (sound, any::<bool>(), any::<bool>(), any::<(Index, u8, Index)>()).prop_map(
        |(mut frame, a, b, (at, value, cut))| {
            if a && b {
                // Frames that are for no VIP any more are not steering's.
                let header = Header::read(&frame[..]).map_or(14, |header| header.payload);
                let six = frame[header] >> 4 == 6;
                let at = header + at.index(frame.len() - header);
                let address = if six { header + 24..header + 40 } else { header + 16..header + 20 };
                // Nor are other versions, VRRP, hop-by-hop headers and neighbour discovery.
                let others =
                    if six { [header, header + 6, header + 40] } else { [header, header + 9, header] };
                if !address.contains(&at) && !others.contains(&at) {
                    frame[at] = value;
                }
                let least = address.end + 1;
                frame.truncate(least + cut.index(frame.len() + 1 - least));
            }
            frame
        },
    )
}

fn failed(error: &anyhow::Error) -> TestCaseError {
    TestCaseError::fail(format!("{error:#}"))
}

fn assert_equivalent(world: &World) -> Result<()> {
    let kernel = Kernel::with(world)?;
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner.run(&frame(), |frame| {
        prop_assume!(is_ip(&frame));
        agrees(&kernel, world, &frame).map_err(|error| failed(&error))
    })?;
    Ok(())
}

#[test]
fn where_ports_without_a_service_pass() -> Result<()> {
    assert_equivalent(&World::of(&plans()))
}

#[test]
fn where_ports_without_a_service_are_rejected() -> Result<()> {
    assert_equivalent(&World { closed: Closed::Reject, echo: false, ..World::of(&plans()) })
}

#[test]
fn where_ports_without_a_service_are_silent() -> Result<()> {
    assert_equivalent(&World { closed: Closed::Drop, ..World::of(&plans()) })
}

#[test]
fn while_backends_come_and_go_and_drain() -> Result<()> {
    let mut plans = plans();
    let mut world = World::of(&plans);
    let mut kernel = Kernel::with(&world)?;
    let mut runner = TestRunner::deterministic();
    let change = (0..plans.len(), 0..3_usize, 0..4_u8, vec(frame(), 40));
    for _ in 0..60 {
        let (service, member, what, frames) =
            change.new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("{reason}"))?.current();
        if let Some(member) = plans[service].backends.get_mut(member) {
            match what {
                0 => member.up = !member.up,
                1 => member.draining = !member.draining,
                2 => (member.up, member.draining) = (true, false),
                _ => {
                    *member =
                        Member { generation: member.generation + 1, number: member.number + 10, ..*member }
                }
            }
        }
        world.fill(&plans);
        kernel.fill(&world)?;
        for frame in frames.iter().filter(|frame| is_ip(frame)) {
            agrees(&kernel, &world, frame)?;
        }
    }
    Ok(())
}
