//! What each mode makes of a packet, by a model that builds its frames with another library; and what it leaves alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use vip_agent::dataplane::RouterSlot;
use vip_agent::types::MonotonicTime;
use vip_common::rewrite::Verdict;
use vip_common::steering::reason::Outcome;
use vip_common::steering::tables::{Closed, Gate, MAX_SERVICES, Mode};

use crate::kernel::{Kernel, Run};
use crate::model::{Input, Model};
use crate::packets::{ENDS4, ENDS6, Ends, Kind, OWN, Sent, is_sound};
use crate::world::{Member, Plan, SECOND, World};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What the model knows: tunnels of IPv6, NAT of IPv4.
fn plans() -> Vec<Plan> {
    vec![
        Plan::direct(),
        Plan { protocols: vec![17, 132], ports: (53, 53, 0), closed: Closed::Drop, ..Plan::tunnel() },
        Plan { ends: ENDS6, affinity: 60, ..Plan::direct() },
        Plan::nat(),
        Plan { ports: (22, 22, 0), mode: Mode::Local, ..Plan::direct() },
    ]
}

fn inputs() -> impl Strategy<Value = Input> {
    let kind = select(vec![Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::Unsummed, Kind::Sctp, Kind::Echo]);
    let port = select(vec![80_u16, 80, 53, 8000, 8003, 8004, 22, 7]);
    let packet = (any::<bool>(), kind, 1000..1004_u16, port, select(vec![SYN, ACK, ACK | 1, 0x12]));
    let sent = packet.prop_map(|(four, kind, from, to, flags)| Sent {
        ports: (from, to),
        flags,
        ..Sent::new(if four { ENDS4 } else { ENDS6 }, kind)
    });
    let with_ports = sent.clone().prop_filter("has ports", |sent| sent.kind != Kind::Echo);
    let fragmented = with_ports.clone().prop_filter("IPv4", |sent| matches!(sent.ends, Ends::V4(..)));
    let about = with_ports.prop_map(|sent| Sent {
        ends: sent.ends.reversed(),
        ports: (sent.ports.1, sent.ports.0),
        ..sent
    });
    prop_oneof![
        5 => sent.prop_map(Input::Whole),
        1 => (fragmented.clone(), 0..3_u16).prop_map(|(sent, id)| Input::First(sent, id)),
        1 => (fragmented, 0..3_u16).prop_map(|(sent, id)| Input::Later(sent, id)),
        1 => about.prop_map(Input::Error),
    ]
}

/// The flow label is a hash: what it is is tested elsewhere.
fn without_label(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [0x86, 0xdd] && frame[20] == 41 {
        frame[15] &= 0xf0;
        frame[16..18].fill(0);
    }
    frame
}

#[test]
fn all_of_them_are_the_models() -> Result<()> {
    let plans = plans();
    let kernel = Kernel::with(&World::of(&plans))?;
    let model = std::cell::RefCell::new(Model::default());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 2000,
        // The tables remember what came before: a shorter case would be another one.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner.run(&inputs(), |input| {
        let (verdict, outcome, frame) = model.borrow_mut().expect(&plans, 1000 * SECOND, &input);
        let run = kernel.run(&input.bytes()).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        prop_assert_eq!(run.verdict, verdict, "{:?}", &input);
        prop_assert_eq!(run.counted[0].1, outcome as usize, "{:?}", &input);
        match frame {
            Some(frame) => prop_assert_eq!(without_label(run.frame), frame, "{:?}", &input),
            None => prop_assert!(is_sound(&run.frame), "{:?}", &input),
        }
        Ok(())
    })?;
    Ok(())
}

fn run_of(plans: &[Plan], sent: &Sent) -> Result<Run> {
    Kernel::with(&World::of(plans))?.run(&sent.bytes())
}

fn to_port(port: u16, sent: Sent) -> Sent {
    Sent { ports: (40_000, port), ..sent }
}

#[test]
fn another_port_is_nobodys_and_passes_as_it_came() -> Result<()> {
    for plan in [Plan::direct(), Plan::tunnel(), Plan::nat()] {
        let sent = to_port(7, Sent::new(plan.ends, Kind::Tcp));
        let run = run_of(&[plan], &sent)?;
        let counted = vec![(MAX_SERVICES, Outcome::Passed as usize)];
        assert_eq!(run, Run { verdict: Verdict::Pass, frame: sent.bytes(), counted, backends: Vec::new() });
    }
    Ok(())
}

#[test]
fn a_corrupt_packet_is_steered_and_stays_corrupt() -> Result<()> {
    let kernel = Kernel::with(&World::of(&[Plan { ends: ENDS4, ..Plan::nat() }]))?;
    let sound = to_port(8000, Sent::tcp4()).bytes();
    let mut corrupt = sound.clone();
    *corrupt.last_mut().expect("bytes") ^= 1;
    assert!(is_sound(&kernel.run(&sound)?.frame));
    let run = kernel.run(&corrupt)?;
    assert_eq!(run.verdict, Verdict::Pass);
    assert!(!is_sound(&run.frame));
    Ok(())
}

#[test]
fn what_its_very_backend_sends_is_not_sent_back() -> Result<()> {
    let mut plan = Plan::direct();
    plan.backends.truncate(1);
    let kernel = Kernel::with(&World::of(std::slice::from_ref(&plan)))?;
    let mut frame = Sent::tcp4().bytes();
    assert_eq!(kernel.run(&frame)?.verdict, Verdict::Transmit);
    frame[6..12].copy_from_slice(&plan.backends[0].mac());
    let run = kernel.run(&frame)?;
    assert_eq!((run.verdict, run.counted[0].1), (Verdict::Drop, Outcome::Loop as usize));
    Ok(())
}

#[test]
fn a_former_owner_steers_while_frames_are_on_their_way_and_passes_them_then() -> Result<()> {
    let kernel = Kernel::with(&World::of(&[Plan::direct(), Plan { ends: ENDS6, ..Plan::direct() }]))?;
    let (words, router) = (kernel.dataplane.words(), RouterSlot::all().next().expect("slots"));
    words.store(router, MonotonicTime::ZERO);
    for ends in [ENDS4, ENDS6] {
        let frame = Sent::new(ends, Kind::Tcp).bytes();
        for (until, verdict) in [
            (MonotonicTime::ZERO, Verdict::Pass),
            (MonotonicTime::now() + Duration::from_secs(60), Verdict::Transmit),
            // The program's clock may be some milliseconds behind.
            (MonotonicTime::now().before(Duration::from_secs(1)), Verdict::Pass),
        ] {
            words.expect(router, until);
            assert_eq!(kernel.run(&frame)?.verdict, verdict);
        }
    }
    Ok(())
}

#[test]
fn a_backend_by_another_interface_gets_nothing() -> Result<()> {
    let mut plan = Plan::direct();
    plan.backends = vec![Member { ifindex: 99, ..Member::new(1) }];
    let run = run_of(&[plan], &Sent::tcp4())?;
    assert_eq!((run.verdict, run.counted[0].1), (Verdict::Drop, Outcome::OtherLink as usize));
    Ok(())
}

#[test]
fn only_clients_in_the_ranges_are_served() -> Result<()> {
    for (ends, stranger) in
        [(ENDS4, Ends::V4([192, 0, 2, 10], [10, 0, 0, 50])), (ENDS6, Ends::V6([0x30; 16], ENDS6.wide().1))]
    {
        let plan = Plan { ends, allowed: vec![ends.wide().0], ..Plan::direct() };
        let kernel = Kernel::with(&World::of(&[plan]))?;
        assert_eq!(kernel.run(&Sent::new(ends, Kind::Tcp).bytes())?.verdict, Verdict::Transmit);
        let refused = kernel.run(&Sent::new(stranger, Kind::Tcp).bytes())?;
        assert_eq!(refused.verdict, Verdict::Drop);
        assert_eq!(refused.counted, [(0, Outcome::NotAllowed as usize)]);
    }
    Ok(())
}

#[test]
fn a_flood_of_new_flows_goes_by_the_ring_and_is_not_noted() -> Result<()> {
    let kernel = Kernel::with(&World::of(&[Plan::direct()]))?;
    let syn = |port| Sent { ports: (port, 80), flags: SYN, ..Sent::tcp4() }.bytes();
    let first = kernel.run(&syn(1))?;
    assert_eq!(first.counted, [(0, Outcome::NewFlow as usize)]);
    kernel.set_gate("NEW_FLOWS", Gate { since: u64::MAX / 2, count: u64::MAX / 2 })?;
    let flood = kernel.run(&syn(2))?;
    ensure!(flood.verdict == Verdict::Transmit, "{flood:?}");
    assert_eq!(flood.counted, [(0, Outcome::Unnoted as usize)]);
    assert_eq!(kernel.flows()?.len(), 1);
    let established = Sent { ports: (1, 80), flags: ACK, ..Sent::tcp4() }.bytes();
    let run = kernel.run(&established)?;
    assert_eq!((run.counted, run.backends), (vec![(0, Outcome::Steered as usize)], first.backends));
    assert_eq!(run.frame[6..12], OWN);
    Ok(())
}
