//! The TC program does to what leaves what user space does to it, whose own tests build what it must come to.

use anyhow::Result;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use vip_common::rewrite::Verdict;
use vip_common::steering::egress::Left;
use vip_common::steering::reason::Outcome;
use vip_common::steering::tables::Gate;

use crate::kernel::Kernel;
use crate::leaving::Outgoing;
use crate::packets::{ENDS4, ENDS6, Ends, Kind, Sent, fix_ipv4, icmp_error, tags};
use crate::world::{Member, Plan, World};

/// TC_ACT_UNSPEC: other programs go on.
const GO_ON: i32 = -1;
const POD4: [u8; 4] = [172, 16, 0, 1];
const POD6: [u8; 16] = [0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// TCP and UDP on ports 8000-8003 of both VIPs, to ports 9000-9003 of one local backend.
fn world() -> World {
    let one = |ends| Plan { ends, backends: vec![Member { local: true, ..Member::new(1) }], ..Plan::nat() };
    World::of(&[ENDS4, ENDS6].map(one))
}

/// From the backend to a client that has asked, or has not.
fn answer() -> impl Strategy<Value = Sent> {
    let kind = select(vec![Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::Unsummed, Kind::Sctp, Kind::Echo]);
    let ports = (9000..9002_u16, 1000..1006_u16, any::<bool>());
    let flags = select(vec![0x12_u8, 0x10, 0x11, 0x14]);
    (any::<bool>(), kind, ports, flags, tags(), select(vec![0_usize, 11, 60])).prop_map(
        |(four, kind, (from, to, asked), flags, tags, length)| {
            let ends = match (four, ENDS4, ENDS6) {
                (true, Ends::V4(client, _), _) => {
                    Ends::V4(if asked { POD4 } else { [172, 16, 0, 7] }, client)
                }
                (_, _, Ends::V6(client, _)) => Ends::V6(if asked { POD6 } else { [0xfc; 16] }, client),
                _ => unreachable!("what the ends are is fixed"),
            };
            let payload = vec![0xab; length];
            Sent { ports: (from, to), flags, tags, payload, ..Sent::new(ends, kind) }
        },
    )
}

/// Answers, errors, fragments; a quarter of them damaged.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let error = (answer(), 8..40_usize).prop_map(|(sent, quote)| {
        let (from, to) = sent.ports;
        icmp_error(&Sent { ends: sent.ends.reversed(), ports: (to, from), tags: Vec::new(), ..sent }, quote)
    });
    let fragment = (answer(), 0..4_u8, select(vec![0x20_u8, 0]), select(vec![0_u8, 3]));
    let fragment = fragment.prop_map(|(sent, id, more, offset)| {
        let mut frame = Sent { tags: Vec::new(), ..sent.clone() }.bytes();
        if matches!(sent.ends, Ends::V4(..)) {
            frame[19] = id;
            frame[20..22].copy_from_slice(&[more, offset]);
            fix_ipv4(&mut frame[14..]);
        }
        frame
    });
    let sound = prop_oneof![4 => answer().prop_map(|sent| sent.bytes()), 2 => error, 2 => fragment];
    (sound, 0..4_u8, any::<(Index, u8, Index)>()).prop_map(|(mut frame, damaged, (at, value, cut))| {
        if damaged == 0 {
            let at = 14 + at.index(frame.len() - 14);
            frame[at] = value;
            frame.truncate(15 + cut.index(frame.len() - 14));
        }
        frame
    })
}

/// What asks for the answers of [`answer`]: on ports 1000 to 1003.
fn requests() -> impl Iterator<Item = Sent> {
    [ENDS4, ENDS6].into_iter().flat_map(|ends| {
        [Kind::Tcp, Kind::Udp].into_iter().flat_map(move |kind| {
            let ports = (1000..1004_u16).flat_map(|from| (8000..8002_u16).map(move |to| (from, to)));
            ports.map(move |ports| Sent { ports, flags: 0x02, ..Sent::new(ends, kind) })
        })
    })
}

#[test]
fn what_leaves_is_what_user_space_makes_of_it() -> Result<()> {
    let world = world();
    let kernel = Kernel::with(&world)?;
    for request in requests() {
        world.run(&request.bytes());
        assert_eq!(kernel.run(&request.bytes())?.verdict, Verdict::Pass);
    }
    assert_eq!(kernel.local_flows()?.len(), world.local_flows.borrow().len());
    let config = ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() };
    let restored = std::cell::Cell::new(0);
    TestRunner::new(config).run(&frame(), |frame| {
        // The kernel takes no frame without a whole header of its protocol.
        let Ok((verdict, after)) = kernel.leave(&frame) else { return Ok(()) };
        let (left, expected) = Outgoing::whole(frame.clone()).leave(&world);
        prop_assert_eq!(verdict, if left == Left::Broken { 2 } else { GO_ON }, "{:02x?}", &frame);
        if left != Left::Broken {
            prop_assert_eq!(after, expected, "{:02x?}", &frame);
        }
        restored.set(restored.get() + u32::from(left == Left::Restored));
        Ok(())
    })?;
    assert!(restored.get() > 500, "{}", restored.get());
    Ok(())
}

#[test]
fn a_flow_that_is_over_leaves_as_it_is() -> Result<()> {
    let kernel = Kernel::with(&world())?;
    let Ends::V4(client, _) = ENDS4 else { unreachable!("IPv4") };
    let request = Sent { ports: (1000, 8000), flags: 0x02, ..Sent::tcp4() };
    assert_eq!(kernel.run(&request.bytes())?.counted[0].1, Outcome::NewFlow as usize);
    let answer = Sent { ends: Ends::V4(POD4, client), ports: (9000, 1000), ..request }.bytes();
    let (_, restored) = kernel.leave(&answer)?;
    assert_eq!(restored[26..30], ENDS4.wide().1[..4]);
    for (key, flow) in kernel.local_flows()? {
        // Closing since 241 s, of a machine that runs for longer: else it began to.
        let seen = flow.seen.saturating_sub(241_000_000_000);
        let key = bytemuck::cast(key);
        kernel.set_local_flow(key, vip_common::steering::egress::LocalFlow { seen, state: 2, ..flow })?;
    }
    assert_eq!(kernel.leave(&answer)?, (GO_ON, answer));
    Ok(())
}

#[test]
fn a_flow_that_cannot_be_noted_is_not_begun() -> Result<()> {
    let kernel = Kernel::with(&world())?;
    kernel.set_gate("NEW_FLOWS", Gate { since: u64::MAX / 2, count: u64::MAX / 2 })?;
    let run = kernel.run(&Sent { ports: (1, 8000), flags: 0x02, ..Sent::tcp4() }.bytes())?;
    assert_eq!((run.verdict, run.counted), (Verdict::Drop, vec![(0, Outcome::Unmapped as usize)]));
    assert!(kernel.local_flows()?.is_empty());
    Ok(())
}
