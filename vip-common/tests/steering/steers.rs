//! Which backend a packet goes to, and when.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use vip_common::rewrite::Verdict;
use vip_common::steering::reason::Outcome;
use vip_common::steering::steer::Action;
use vip_common::steering::tables::{Closed, Gate, Mode};

use crate::model::{Expected, Input, Model};
use crate::packets::{ENDS4, ENDS6, Ends, Kind, OWN, Sent, fix_ipv4, is_sound};
use crate::world::{IFINDEX, Member, Plan, World, slot};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// Segments of different connections.
fn segment(port: u16, flags: u8) -> Vec<u8> {
    Sent { ports: (port, 80), flags, ..Sent::tcp4() }.bytes()
}

/// Where these connections go.
fn backends(world: &World, ports: std::ops::Range<u16>, flags: u8) -> Vec<u32> {
    ports.map(|port| world.steer(&segment(port, flags)).backend).collect()
}

#[test]
fn a_direct_frame_changes_nothing_but_its_macs() {
    let plans = [Plan::direct()];
    let world = World::of(&plans);
    let frame = segment(40_000, SYN);
    let steered = world.steer(&frame);
    let member = plans[0].backends[steered.backend as usize - 1];
    let (verdict, after, outcome) = World::of(&plans).run(&frame);
    assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::NewFlow));
    assert_eq!(after, [&member.mac()[..], &OWN, &frame[12..]].concat());
}

#[test]
fn flows_spread_over_all_backends_and_stay() {
    let world = World::of(&[Plan::direct()]);
    let first = backends(&world, 1000..1300, SYN);
    for number in 1..=3 {
        let has = first.iter().filter(|backend| **backend == number).count();
        assert!((70..130).contains(&has), "{has} of 300");
    }
    assert_eq!(backends(&world, 1000..1300, ACK), first);
    assert_eq!(world.flows.borrow().len(), 300);
}

#[test]
fn another_node_without_any_flow_steers_them_alike() {
    let plans = [Plan::direct()];
    let (first, second) = (World::of(&plans), World::of(&plans));
    assert_eq!(backends(&first, 1000..1300, SYN), backends(&second, 1000..1300, ACK));
}

#[test]
fn flows_on_unchanged_backends_survive_every_change_of_the_set() {
    let mut plans = [Plan { backends: (1..=10).map(Member::new).collect(), ..Plan::direct() }];
    let mut world = World::of(&plans);
    let first = backends(&world, 1000..1500, SYN);
    for gone in [3, 7, 1] {
        plans[0].backends[gone].up = false;
        world.fill(&plans);
    }
    plans[0].backends.extend((11..=14).map(Member::new));
    world.fill(&plans);
    let after = backends(&world, 1000..1500, ACK);
    for (before, after) in first.iter().zip(after) {
        let lived = ![3, 7, 1].contains(&(*before as usize - 1));
        assert_eq!(*before == after, lived, "{before} {after}");
    }
}

#[test]
fn a_draining_backend_keeps_its_flows_and_gets_no_new_ones() {
    let mut plans = [Plan::direct()];
    let mut world = World::of(&plans);
    let first = backends(&world, 1000..1300, SYN);
    plans[0].backends[1].draining = true;
    world.fill(&plans);
    assert_eq!(backends(&world, 1000..1300, ACK), first);
    assert!(!backends(&world, 2000..2300, SYN).contains(&slot(0, 1)));
}

#[test]
fn a_slot_that_changed_hands_does_not_get_its_former_backends_flows() {
    let mut plans = [Plan::direct()];
    let mut world = World::of(&plans);
    backends(&world, 1000..1100, SYN);
    plans[0].backends[1] = Member { generation: 2, ..Member::new(77) };
    world.fill(&plans);
    let fresh = World::of(&plans);
    for port in 1000..1100 {
        let (steered, ring) = (world.steer(&segment(port, ACK)), fresh.steer(&segment(port, ACK)));
        if steered.backend == slot(0, 1) {
            assert_eq!(ring.backend, slot(0, 1), "by the ring only");
        }
    }
}

#[test]
fn a_flow_that_is_idle_too_long_goes_by_the_ring() {
    let mut plans = [Plan::direct()];
    let mut world = World::of(&plans);
    let first = backends(&world, 1000..1300, SYN);
    // More than its SYN must be seen for the long time-out.
    backends(&world, 1000..1300, ACK);
    plans[0].backends[1].draining = true;
    world.fill(&plans);
    world.wait(124 * 60 - 1);
    assert_eq!(backends(&world, 1000..1300, ACK), first);
    world.wait(124 * 60);
    assert!(!backends(&world, 1000..1300, ACK).contains(&slot(0, 1)));
}

#[test]
fn a_flow_or_client_that_another_cpu_noted_a_tick_later_is_not_idle() {
    let mut plans = [Plan { affinity: 10, ..Plan::direct() }];
    let mut world = World::of(&plans);
    let first = backends(&world, 1000..1001, SYN);
    plans[0].backends.extend((4..=60).map(Member::new));
    world.fill(&plans);
    world.now.set(world.now.get() - 4_000_000);
    assert_eq!(backends(&world, 1000..1001, ACK), first);
    assert_eq!(backends(&world, 2000..2001, SYN), first, "the same client");
}

#[test]
fn a_flow_in_use_is_never_idle() {
    let mut plans = [Plan::direct()];
    let mut world = World::of(&plans);
    let first = backends(&world, 1000..1300, SYN);
    plans[0].backends[1].draining = true;
    world.fill(&plans);
    for _ in 0..10 {
        assert_eq!(backends(&world, 1000..1300, ACK), first);
        world.wait(100 * 60);
    }
}

#[test]
fn a_flood_of_new_flows_goes_by_the_ring_and_is_not_noted() {
    let plans = [Plan::direct()];
    let world = World { admits_flows: false, ..World::of(&plans) };
    let flood = backends(&world, 1000..1300, SYN);
    assert_eq!(flood, backends(&World::of(&plans), 1000..1300, SYN));
    assert!(world.flows.borrow().is_empty());
    assert_eq!(world.run(&segment(1, SYN)).2, Outcome::Unnoted);
}

#[test]
fn a_reset_of_an_unknown_flow_is_not_noted() {
    let world = World::of(&[Plan::direct()]);
    assert_eq!(world.run(&segment(1, RST)).2, Outcome::Steered);
    assert!(world.flows.borrow().is_empty());
}

#[test]
fn a_gate_opens_again_with_the_next_interval() {
    let mut gate = Gate::default();
    let admitted = |gate: &mut Gate, now| (0..100).filter(|_| gate.admits(now, 10)).count();
    assert_eq!(admitted(&mut gate, 5), 10);
    assert_eq!(admitted(&mut gate, Gate::INTERVAL - 1), 0);
    assert_eq!(admitted(&mut gate, Gate::INTERVAL), 10);
    assert_eq!(admitted(&mut gate, 50 * Gate::INTERVAL), 10);
}

#[test]
fn clients_with_an_affinity_stay_while_the_set_changes_until_it_ends() {
    let mut plans = [Plan { affinity: 10, ..Plan::direct() }];
    let mut world = World::of(&plans);
    let client = |client: u8, port| {
        let ends = Ends::V4([192, 0, 2, client], [10, 0, 0, 50]);
        Sent { ends, ports: (port, 80), flags: SYN, ..Sent::tcp4() }.bytes()
    };
    let first: Vec<_> = (0..200).map(|number| world.steer(&client(number, 1)).backend).collect();
    plans[0].backends.extend((4..=9).map(Member::new));
    world.fill(&plans);
    world.wait(9);
    let again: Vec<_> = (0..200).map(|number| world.steer(&client(number, 2)).backend).collect();
    assert_eq!(again, first);
    world.wait(10);
    let moved =
        (0..200).filter(|number| world.steer(&client(*number, 3)).backend != first[usize::from(*number)]);
    assert!(moved.count() > 50, "two thirds should");
}

#[test]
fn what_cannot_be_served_is_answered_as_the_service_says() {
    for (closed, verdict, outcome) in [
        (Closed::Pass, Verdict::Pass, Outcome::Passed),
        (Closed::Drop, Verdict::Drop, Outcome::Closed),
        (Closed::Reject, Verdict::Transmit, Outcome::Rejected),
    ] {
        let without = Plan { backends: Vec::new(), closed, protocols: vec![6, 17], ..Plan::direct() };
        let world = World::of(std::slice::from_ref(&without));
        for frame in [segment(1, SYN), Sent::new(ENDS4, Kind::Udp).bytes()] {
            let (got, after, why) = world.run(&frame);
            assert_eq!((got, why), (verdict, outcome));
            assert!(is_sound(&after));
        }
        let world = World { admits_answers: false, ..World::of(&[without]) };
        let silent = closed == Closed::Reject;
        assert_eq!(world.run(&segment(1, SYN)).2, if silent { Outcome::Silent } else { outcome });
    }
}

#[test]
fn ports_without_a_service_are_answered_as_the_vip_says() {
    let other = Sent { ports: (1, 81), flags: SYN, ..Sent::tcp4() }.bytes();
    for (closed, verdict) in
        [(Closed::Pass, Verdict::Pass), (Closed::Drop, Verdict::Drop), (Closed::Reject, Verdict::Transmit)]
    {
        let world = World { closed, ..World::of(&[Plan::direct()]) };
        assert_eq!(world.run(&other).0, verdict);
        assert_eq!(world.run(&segment(1, SYN)).0, Verdict::Transmit, "the service is not meant");
    }
}

#[test]
fn a_port_of_its_own_comes_before_all_ports() {
    let all = Plan { ports: (0, 0, 0), backends: vec![Member::new(9)], ..Plan::direct() };
    let world = World::of(&[Plan::direct(), all]);
    assert_eq!(world.steer(&segment(1, SYN)).service, Some(0));
    let other = Sent { ports: (1, 81), flags: SYN, ..Sent::tcp4() }.bytes();
    assert_eq!(world.steer(&other).service, Some(1));
}

#[test]
fn what_does_not_fit_into_a_tunnel_is_told_to_its_sender() {
    let mut plan = Plan::tunnel();
    plan.backends.iter_mut().for_each(|member| member.mtu = 1400);
    let world = World::of(&[plan]);
    let sent = |length: usize| Sent { payload: vec![1; length - 60], ..Sent::tcp6() }.bytes();
    assert_eq!(world.run(&sent(1360)).0, Verdict::Transmit);
    let (verdict, after, outcome) = world.run(&sent(1361));
    assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::TooBig));
    assert_eq!(after[14 + 40..14 + 42], [2, 0], "packet too big");
    assert_eq!(after[14 + 44..14 + 48], [0, 0, 5, 0x50], "1360 bytes fit");
    assert!(is_sound(&after));
}

#[test]
fn a_tunnel_takes_a_hop_and_a_direct_way_none() {
    let world = World::of(&[Plan::direct(), Plan::tunnel()]);
    let last = Sent { hops: 1, ..Sent::tcp6() }.bytes();
    let (verdict, after, outcome) = world.run(&last);
    assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::Expired));
    assert_eq!(after[14 + 40..14 + 42], [3, 0], "time exceeded");
    assert_eq!(world.run(&Sent { hops: 1, ..Sent::tcp4() }.bytes()).2, Outcome::NewFlow);
}

#[test]
fn a_backend_on_another_link_or_that_sent_the_frame_gets_nothing() {
    let mut plan = Plan { backends: vec![Member::new(1)], ..Plan::direct() };
    let mut frame = segment(1, SYN);
    frame[6..12].copy_from_slice(&plan.backends[0].mac());
    assert_eq!(World::of(std::slice::from_ref(&plan)).run(&frame).2, Outcome::Loop);
    plan.backends[0].ifindex = IFINDEX + 1;
    assert_eq!(World::of(&[plan]).run(&segment(1, SYN)).2, Outcome::OtherLink);
}

#[test]
fn a_backend_on_this_node_is_up_the_stack() {
    let mut plan = Plan::direct();
    plan.backends.iter_mut().for_each(|member| member.local = true);
    let (verdict, after, outcome) = World::of(&[plan]).run(&segment(1, SYN));
    assert_eq!((verdict, outcome, after), (Verdict::Pass, Outcome::NewFlow, segment(1, SYN)));
}

#[test]
fn all_fragments_of_a_datagram_are_spread_alike() {
    let mut plan = Plan { mode: Mode::Tunnel, protocols: vec![17], ..Plan::direct() };
    plan.backends.truncate(1);
    let world = World::of(&[plan]);
    let sent = Sent::new(ENDS4, Kind::Udp);
    let hash = |input: Input| match world.steer(&input.bytes()).action {
        Action::Encapsulate { hash, .. } => hash,
        other => panic!("{other:?}"),
    };
    let first = hash(Input::First(sent.clone(), 1));
    assert_eq!(hash(Input::Later(sent.clone(), 1)), first);
    assert_ne!(hash(Input::Whole(sent)), first, "by its ports, which later fragments lack");
}

#[test]
fn what_follows_a_first_fragment_that_was_refused_is_dropped() {
    let sent = Sent { ports: (1, 81), ..Sent::tcp4() };
    for (closed, outcome) in [(Closed::Drop, Outcome::FragmentUnknown), (Closed::Pass, Outcome::Passed)] {
        let world = World { closed, ..World::of(&[Plan::direct()]) };
        world.run(&Input::First(sent.clone(), 1).bytes());
        assert_eq!(world.run(&Input::Later(sent.clone(), 1).bytes()).2, outcome);
    }
}

#[test]
fn an_error_about_a_packet_of_somebody_else_is_not_steered() {
    let world = World::of(&[Plan::direct()]);
    let about = Sent { ports: (80, 1), ..Sent::new(ENDS4.reversed(), Kind::Tcp) };
    let mut frame = Input::Error(about).bytes();
    assert_eq!(world.run(&frame).2, Outcome::ErrorSteered);
    frame[30..34].copy_from_slice(&[10, 0, 0, 51]);
    assert_eq!(world.steer(&frame).action, Action::Pass);
}

#[test]
fn an_echo_is_answered_only_where_the_stack_does_not() {
    let echo = Sent::new(ENDS6, Kind::Echo).bytes();
    let world = World::of(&[Plan::tunnel()]);
    assert_eq!(world.run(&echo).2, Outcome::Echoed);
    assert_eq!(World { echo: false, ..world }.steer(&echo).action, Action::Pass);
}

#[test]
fn what_is_not_readable_goes_up_the_stack() {
    let world = World { closed: Closed::Reject, ..World::of(&[Plan::direct(), Plan::tunnel()]) };
    let mut truncated = segment(1, SYN);
    truncated.truncate(14 + 22);
    let mut version = segment(1, SYN);
    version[14] = 0x55;
    let mut gre = segment(1, SYN);
    gre[14 + 9] = 47;
    fix_ipv4(&mut gre[14..]);
    for frame in [truncated, version, gre] {
        assert_eq!(world.run(&frame), (Verdict::Pass, frame, Outcome::Passed));
    }
}

/// One of each mode, and where they differ.
fn plans() -> Vec<Plan> {
    let (allowed, _) = client(ENDS6, 1).wide();
    vec![
        Plan::direct(),
        Plan { protocols: vec![17, 132], ports: (53, 53, 0), closed: Closed::Drop, ..Plan::tunnel() },
        Plan { affinity: 20, ..Plan::nat() },
        Plan { ports: (22, 22, 0), mode: Mode::Local, ..Plan::tunnel() },
        Plan { ports: (443, 443, 0), mode: Mode::Direct, allowed: vec![allowed], ..Plan::tunnel() },
        Plan { ports: (0, 0, 0), protocols: vec![132], closed: Closed::Pass, ..Plan::direct() },
    ]
}

/// One of a few, so that they come again.
fn client(ends: Ends, number: u8) -> Ends {
    match ends {
        Ends::V4(_, vip) => Ends::V4([192, 0, 2, number], vip),
        Ends::V6(mut client, vip) => {
            client[15] = number;
            Ends::V6(client, vip)
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(Input),
    Wait(u64),
    /// The backend of this service goes up, down, drains, or another takes its slot.
    Change(usize, usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = select(vec![
        Kind::Tcp,
        Kind::Tcp,
        Kind::Tcp,
        Kind::Udp,
        Kind::Udp,
        Kind::Unsummed,
        Kind::Sctp,
        Kind::Echo,
    ]);
    let port = select(vec![80_u16, 80, 53, 53, 8000, 8003, 8004, 22, 443, 443, 7]);
    let flags = select(vec![SYN, SYN, ACK, ACK, ACK, ACK | 1, RST, 0x12]);
    let packet = (any::<bool>(), 0..3_u8, kind, 1000..1004_u16, port, flags);
    let sent = packet.prop_map(|(four, number, kind, from, to, flags)| {
        let ends = client(if four { ENDS4 } else { ENDS6 }, number);
        Sent { ports: (from, to), flags, ..Sent::new(ends, kind) }
    });
    let with_ports = sent.clone().prop_filter("has ports", |sent| sent.kind != Kind::Echo);
    let fragmented = with_ports.clone().prop_filter("IPv4", |sent| matches!(sent.ends, Ends::V4(..)));
    let about = with_ports.prop_map(|sent| Sent {
        ends: sent.ends.reversed(),
        ports: (sent.ports.1, sent.ports.0),
        ..sent
    });
    prop_oneof![
        20 => sent.prop_map(|sent| Step::Send(Input::Whole(sent))),
        4 => (fragmented.clone(), 0..3_u16).prop_map(|(sent, id)| Step::Send(Input::First(sent, id))),
        4 => (fragmented, 0..3_u16).prop_map(|(sent, id)| Step::Send(Input::Later(sent, id))),
        4 => about.prop_map(|about| Step::Send(Input::Error(about))),
        2 => select(vec![0, 1, 19, 29, 31, 239, 240, 301, 7439, 7440]).prop_map(Step::Wait),
        3 => (0..6_usize, 0..3_usize, 0..4_u8).prop_map(|(service, member, what)| Step::Change(service, member, what)),
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_models_whatever_happens(steps in vec(step(), 1..60)) {
        let mut plans = plans();
        let mut world = World::of(&plans);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Wait(seconds) => world.wait(seconds),
                Step::Change(service, member, what) => {
                    let member = &mut plans[service].backends[member];
                    match what {
                        0 => member.up = !member.up,
                        1 => member.draining = !member.draining,
                        2 => (member.up, member.draining) = (true, false),
                        _ => *member = Member { generation: member.generation + 1, number: member.number + 10, ..*member },
                    }
                    world.fill(&plans);
                }
                Step::Send(input) => {
                    let expected: Expected = model.expect(&plans, world.now.get(), &input);
                    let (verdict, after, outcome) = world.run(&input.bytes());
                    prop_assert_eq!((verdict, outcome), (expected.0, expected.1), "{:?}", input);
                    match expected.2 {
                        Some(frame) => prop_assert_eq!(without_label(after), frame, "{:?}", input),
                        None => prop_assert!(is_sound(&after), "{:?}", input),
                    }
                }
            }
        }
    }

    #[test]
    fn no_bytes_whatever_make_it_panic(frame in vec(any::<u8>(), 14..300), six in any::<bool>()) {
        let mut frame = frame;
        frame[12..14].copy_from_slice(if six { &[0x86, 0xdd] } else { &[0x08, 0] });
        if let Some(first) = frame.get_mut(14) {
            *first = if six { 0x60 } else { 0x45 };
        }
        let world = World { closed: Closed::Reject, ..World::of(&plans()) };
        world.run(&frame);
    }

    #[test]
    fn damage_to_a_packet_never_makes_it_panic_or_touch_what_is_passed(
        at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>(), which in 0..5_usize
    ) {
        let inputs = [
            Input::Whole(Sent::tcp4()),
            Input::Whole(Sent { ports: (1, 53), ..Sent::new(ENDS6, Kind::Udp) }),
            Input::Whole(Sent { ports: (1, 8000), ..Sent::tcp4() }),
            Input::First(Sent::tcp4(), 1),
            Input::Error(Sent { ports: (80, 1), ..Sent::new(ENDS4.reversed(), Kind::Tcp) }),
        ];
        let mut frame = inputs[which].bytes();
        let at = 14 + at.index(frame.len() - 14);
        frame[at] = value;
        frame.truncate(14 + cut.index(frame.len() - 13));
        let world = World::of(&plans());
        let (verdict, after, outcome) = world.run(&frame);
        if verdict == Verdict::Drop || outcome == Outcome::Passed {
            prop_assert_eq!(after, frame);
        }
    }
}
