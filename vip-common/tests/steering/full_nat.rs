//! Full NAT: both legs byte for byte, and what becomes of flows, ports and entries.

use vip_common::rewrite::Verdict;
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::full_nat::tables::{NatHop, Routed, gives_way, is_over};
use vip_common::steering::reason::Outcome;
use vip_common::steering::steer::Action;
use vip_common::steering::tables::FlowState;

use crate::legs::{
    ACK, FIN, RST, SYN, answer, assert_alike, error_on, inner, returned, segment, sent_on, translated,
};
use crate::model::Input;
use crate::packets::{ENDS4, ENDS6, Ends, Kind, OWN, Sent, icmp_error, is_sound};
use crate::world::{GATEWAY, IFINDEX, Member, Plan, SECOND, WAY_BACK, World};

fn world(ends: Ends) -> (World, Member) {
    let mut plan = Plan::full_nat(ends);
    plan.backends.truncate(1);
    (World::of(std::slice::from_ref(&plan)), plan.backends[0])
}

/// A connection that both ends have spoken on.
fn established(world: &World, member: Member) {
    world.run(&segment(SYN).bytes());
    world.run(&answer(&segment(SYN), member, 25_000, SYN | ACK).bytes());
    world.run(&segment(ACK).bytes());
}

fn only_flow(world: &World) -> vip_common::steering::full_nat::tables::NatFlow {
    let flows = world.nat.flows.borrow();
    assert_eq!(flows.len(), 1);
    *flows.values().next().expect("one")
}

fn entries(world: &World) -> (usize, usize) {
    (world.nat.flows.borrow().len(), world.nat.returns.borrow().len())
}

#[test]
fn both_legs_are_what_would_have_been_built_for_them() {
    for ends in [ENDS4, ENDS6] {
        for kind in [Kind::Tcp, Kind::Udp] {
            for tags in [vec![], vec![[0x81, 0, 0x60, 100]]] {
                let (world, member) = world(ends);
                let sent = Sent { ports: (25_000, 8001), flags: SYN, tags, ..Sent::new(ends, kind) };
                let there = world.run(&sent.bytes());
                let expected = sent_on(member.mac(), &translated(&sent, member, 25_000));
                assert_eq!(there, (Verdict::Transmit, expected, Outcome::NewFlow), "{sent:?}");
                let back = world.run(&answer(&sent, member, 25_000, SYN | ACK).bytes());
                let expected = sent_on(GATEWAY, &returned(&sent, SYN | ACK));
                assert_eq!(back, (Verdict::Transmit, expected, Outcome::Returned), "{sent:?}");
            }
        }
    }
}

#[test]
fn a_flow_keeps_its_port_and_an_answer_to_another_belongs_to_nobody() {
    let (world, member) = world(ENDS4);
    established(&world, member);
    let again = world.run(&segment(ACK).bytes());
    let expected = sent_on(member.mac(), &translated(&segment(ACK), member, 25_000));
    assert_eq!(again, (Verdict::Transmit, expected, Outcome::Steered));
    let stray = answer(&segment(ACK), member, 25_001, ACK).bytes();
    assert_eq!(world.run(&stray), (Verdict::Pass, stray, Outcome::Passed));
}

#[test]
fn a_node_address_in_the_backends_slot_is_used_instead_of_the_vip() {
    let (mut world, member) = world(ENDS4);
    world.backends.values_mut().for_each(|backend| backend.source[..4].copy_from_slice(&[10, 0, 0, 7]));
    let Ends::V4(_, backend) = inner(ENDS4, member) else { unreachable!() };
    let expected =
        Sent { ends: Ends::V4([10, 0, 0, 7], backend), ..translated(&segment(SYN), member, 25_000) };
    assert_eq!(world.run(&segment(SYN).bytes()).1, sent_on(member.mac(), &expected));
}

#[test]
fn a_port_that_may_not_be_used_becomes_one_by_chance() {
    let (world, member) = world(ENDS4);
    // A quarter of the way through the ports.
    world.nat.random.set(1 << 30);
    let sent = Sent { ports: (40_000, 8001), ..segment(SYN) };
    let (.., outcome) = world.run(&sent.bytes());
    assert_eq!(outcome, Outcome::NewFlow);
    let back = world.run(&answer(&sent, member, 22_500, SYN | ACK).bytes());
    assert_eq!(back.1, sent_on(GATEWAY, &returned(&sent, SYN | ACK)));
}

#[test]
fn two_clients_with_the_same_port_get_different_ones() {
    let (world, member) = world(ENDS4);
    world.nat.random.set(u32::MAX);
    let other = Sent { ends: Ends::V4([192, 0, 2, 10], [10, 0, 0, 50]), ..segment(SYN) };
    let third = Sent { ends: Ends::V4([192, 0, 2, 11], [10, 0, 0, 50]), ..segment(SYN) };
    for (sent, port) in [(segment(SYN), 25_000), (other, 29_999), (third, 20_000)] {
        assert_eq!(world.run(&sent.bytes()).1, sent_on(member.mac(), &translated(&sent, member, port)));
        let back = world.run(&answer(&sent, member, port, ACK).bytes());
        assert_eq!(back.1, sent_on(GATEWAY, &returned(&sent, ACK)));
    }
}

#[test]
fn the_same_port_serves_flows_to_different_ports_of_a_backend() {
    let (world, member) = world(ENDS4);
    for port in 8000..=8003 {
        let sent = Sent { ports: (25_000, port), ..segment(SYN) };
        assert_eq!(world.run(&sent.bytes()).1, sent_on(member.mac(), &translated(&sent, member, 25_000)));
    }
}

#[test]
fn when_all_ports_are_in_use_new_flows_are_dropped_and_the_others_live() {
    let (mut world, member) = world(ENDS4);
    world.nat.ports = Ports::new(20_000..=20_009, &[]);
    let sent = |number: u16| Sent { ports: (40_000 + number, 8001), ..segment(SYN) };
    let connect = |number| {
        let outcome = world.run(&sent(number).bytes()).2;
        world.run(&answer(&sent(number), member, 20_000 + number, SYN | ACK).bytes());
        world.run(&Sent { flags: ACK, ..sent(number) }.bytes());
        outcome
    };
    for number in 0..10 {
        assert_eq!(connect(number), Outcome::NewFlow);
    }
    let before = sent(10).bytes();
    assert_eq!(world.run(&before), (Verdict::Drop, before, Outcome::NoPort));
    assert_eq!(entries(&world), (10, 10));
    for number in 0..10 {
        assert_eq!(world.run(&Sent { flags: ACK, ..sent(number) }.bytes()).2, Outcome::Steered);
    }
}

#[test]
fn a_flow_that_was_never_answered_gives_way_when_ports_are_short_and_not_before() {
    let (mut world, _) = world(ENDS4);
    world.nat.ports = Ports::new(20_000..=20_009, &[]);
    let sent = |number: u16| Sent { ports: (40_000 + number, 8001), ..segment(SYN) };
    for number in 0..10 {
        world.run(&sent(number).bytes());
    }
    world.wait(9);
    assert_eq!(world.run(&sent(10).bytes()).2, Outcome::NoPort);
    world.wait(1);
    assert_eq!(world.run(&sent(10).bytes()).2, Outcome::NewFlow);
    // Neither half of the one that gave way is left.
    assert_eq!(entries(&world), (10, 10));
    let flows = world.nat.flows.borrow();
    let returns = world.nat.returns.borrow();
    assert!(flows.iter().all(|(client, flow)| returns[&flow.way].client == *client));
}

#[test]
fn a_connection_that_is_established_never_gives_way_in_its_time() {
    let (mut world, member) = world(ENDS4);
    world.nat.ports = Ports::new(25_000..=25_000, &[]);
    established(&world, member);
    let other = Sent { ports: (40_000, 8001), ..segment(SYN) };
    world.wait(124 * 60 - 1);
    assert_eq!(world.run(&other.bytes()).2, Outcome::NoPort);
    world.wait(1);
    assert_eq!(world.run(&other.bytes()).2, Outcome::NewFlow);
}

#[test]
fn without_room_or_ports_nothing_is_left_behind() {
    for (room, ports) in [(0, Ports::new(20_000..=29_999, &[])), (9, Ports::NONE)] {
        let (mut world, _) = world(ENDS4);
        (world.nat.room, world.nat.ports) = (room, ports);
        assert_eq!(world.run(&segment(SYN).bytes()).2, Outcome::NoPort);
        assert_eq!(entries(&world), (0, 0));
    }
}

#[test]
fn what_cannot_begin_a_flow_is_dropped_and_takes_no_port() {
    let (world, _) = world(ENDS4);
    assert_eq!(world.run(&segment(RST).bytes()).2, Outcome::Unmapped);
    let flooded = World { admits_flows: false, ..World::of(&[Plan::full_nat(ENDS4)]) };
    assert_eq!(flooded.run(&segment(SYN).bytes()).2, Outcome::Unmapped);
    let sctp = Plan { protocols: vec![132], ..Plan::full_nat(ENDS4) };
    let sctp = World::of(&[sctp]);
    let frame = Sent { ports: (25_000, 8001), ..Sent::new(ENDS4, Kind::Sctp) }.bytes();
    assert_eq!(sctp.run(&frame).2, Outcome::Unmapped);
    for world in [world, flooded, sctp] {
        assert_eq!(entries(&world), (0, 0));
        assert!(world.flows.borrow().is_empty(), "full NAT's flows are in tables of their own");
    }
}

#[test]
fn a_segment_of_an_unknown_connection_goes_to_a_backend_which_will_reset_it() {
    let (world, member) = world(ENDS4);
    let (verdict, after, outcome) = world.run(&segment(ACK).bytes());
    assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::NewFlow));
    assert_eq!(after, sent_on(member.mac(), &translated(&segment(ACK), member, 25_000)));
    let reset = world.run(&answer(&segment(ACK), member, 25_000, RST).bytes());
    assert_eq!(reset.1, sent_on(GATEWAY, &returned(&segment(ACK), RST)));
    // It is not taken for a connection that lives.
    world.wait(4 * 60);
    let returns = world.nat.returns.borrow();
    let back = returns.values().next();
    assert!(is_over(Some(&only_flow(&world)), back, 6, world.now.get()));
}

#[test]
fn the_life_of_a_connection_is_known_from_both_directions() {
    let (world, member) = world(ENDS4);
    let state = || FlowState::of(only_flow(&world).state);
    world.run(&segment(SYN).bytes());
    world.run(&segment(ACK).bytes());
    assert_eq!(state(), FlowState::Opening, "nobody has answered");
    world.run(&answer(&segment(SYN), member, 25_000, SYN | ACK).bytes());
    assert_eq!(state(), FlowState::Opening, "the client has not shown that it hears us");
    world.run(&segment(ACK).bytes());
    assert_eq!(state(), FlowState::Established);
    world.run(&segment(FIN).bytes());
    assert_eq!(state(), FlowState::Closing);
    world.run(&segment(ACK).bytes());
    assert_eq!(state(), FlowState::Closing);
    world.run(&segment(SYN).bytes());
    assert_eq!(state(), FlowState::Opening, "a new connection by the same ports");
    assert_eq!(entries(&world), (1, 1));
}

#[test]
fn a_flow_is_over_when_both_directions_are_silent_for_long_enough() {
    let (world, member) = world(ENDS4);
    established(&world, member);
    let begun = world.now.get();
    world.wait(3600);
    world.run(&answer(&segment(ACK), member, 25_000, ACK).bytes());
    let flow = only_flow(&world);
    let back = *world.nat.returns.borrow().values().next().expect("one");
    let minutes = |minutes: u64| begun + minutes * 60 * SECOND;
    assert!(!is_over(Some(&flow), Some(&back), 6, minutes(124 + 60) - 1));
    assert!(is_over(Some(&flow), Some(&back), 6, minutes(124 + 60)));
    assert!(is_over(Some(&flow), None, 6, minutes(124)), "without the answer it is older");
    // A clock of a packet that is behind that of another CPU's makes nothing old.
    assert!(!is_over(Some(&flow), Some(&back), 6, begun - SECOND));
    assert!(!gives_way(Some(&flow), Some(&back), 6, begun - SECOND));
    // UDP: five minutes; what was closed by either end, or not answered: four.
    for (state, protocol, over) in
        [(FlowState::Established, 17, 5), (FlowState::Closing, 6, 4), (FlowState::Opening, 6, 4)]
    {
        let flow =
            vip_common::steering::full_nat::tables::NatFlow { state: state as u8, seen: begun, ..flow };
        let back = vip_common::steering::full_nat::tables::NatReturn { seen: begun, ..back };
        assert!(!is_over(Some(&flow), Some(&back), protocol, minutes(over) - 1));
        assert!(is_over(Some(&flow), Some(&back), protocol, minutes(over)));
    }
}

#[test]
fn an_entry_that_the_kernel_needed_the_memory_of_is_put_back() {
    let (world, member) = world(ENDS4);
    established(&world, member);
    world.nat.returns.borrow_mut().clear();
    world.wait(1);
    assert_eq!(world.run(&segment(ACK).bytes()).2, Outcome::Steered);
    let back = world.run(&answer(&segment(ACK), member, 25_000, ACK).bytes());
    assert_eq!(back.1, sent_on(GATEWAY, &returned(&segment(ACK), ACK)));
    world.nat.flows.borrow_mut().clear();
    world.wait(1);
    assert_eq!(world.run(&answer(&segment(ACK), member, 25_000, ACK).bytes()).2, Outcome::Returned);
    assert_eq!(
        world.run(&segment(ACK).bytes()).1,
        sent_on(member.mac(), &translated(&segment(ACK), member, 25_000))
    );
    assert_eq!(entries(&world), (1, 1));
}

#[test]
fn a_flow_whose_port_was_lost_to_another_gets_a_new_one_and_mixes_with_nobody() {
    let (world, member) = world(ENDS4);
    established(&world, member);
    let other = Sent { ends: Ends::V4([192, 0, 2, 10], [10, 0, 0, 50]), ..segment(SYN) };
    world.nat.returns.borrow_mut().clear();
    world.run(&other.bytes());
    world.wait(1);
    assert_eq!(
        world.run(&segment(ACK).bytes()).1,
        sent_on(member.mac(), &translated(&segment(ACK), member, 20_000))
    );
    let back = world.run(&answer(&other, member, 25_000, ACK).bytes());
    assert_eq!(back.1, sent_on(GATEWAY, &returned(&other, ACK)));
    assert_eq!(entries(&world), (2, 2));
}

#[test]
fn flows_stay_with_their_backend_while_the_set_changes_and_leave_a_dead_one() {
    let mut plans = [Plan::full_nat(ENDS4)];
    let mut world = World::of(&plans);
    let sent = |number: u16, flags| Sent { ports: (25_000 + number, 8001), ..segment(flags) };
    let where_to = |world: &World, flags| -> Vec<_> {
        (0..100).map(|number| world.steer(&sent(number, flags).bytes()).backend).collect()
    };
    let first = where_to(&world, SYN);
    plans[0].backends.extend((4..=6).map(Member::new));
    world.fill(&plans);
    assert_eq!(where_to(&world, ACK), first);
    plans[0].backends[1].draining = true;
    world.fill(&plans);
    assert_eq!(where_to(&world, ACK), first, "draining: what is there stays");
    plans[0].backends[2].up = false;
    world.fill(&plans);
    let after = where_to(&world, ACK);
    for (before, after) in first.iter().zip(&after) {
        assert_eq!(before == after, *before != 3, "{before} {after}");
    }
    // New connections from the same ports are new to a draining backend, too.
    assert!(!where_to(&world, SYN).contains(&2));
    assert_eq!(entries(&world), (100, 100), "nothing is left of former entries");
}

#[test]
fn the_way_to_a_client_is_asked_for_once_a_second_and_followed() {
    let (world, member) = world(ENDS4);
    established(&world, member);
    let back = || world.run(&answer(&segment(ACK), member, 25_000, ACK).bytes());
    let asked = world.nat.asked.get();
    back();
    back();
    assert_eq!(world.nat.asked.get(), asked);
    world.nat.way.set((Routed::Known, NatHop { mac: [2, 0, 0, 0, 0, 0x77], ..WAY_BACK }));
    world.wait(1);
    assert_eq!(back().1[..6], [2, 0, 0, 0, 0, 0x77]);
    assert_eq!(world.nat.asked.get(), asked + 1);
    // A neighbour that is being asked again is still there.
    world.nat.way.set((Routed::Unresolved, WAY_BACK));
    world.wait(1);
    assert_eq!(back().1[..6], [2, 0, 0, 0, 0, 0x77]);
    world.nat.way.set((Routed::Nowhere, WAY_BACK));
    world.wait(1);
    assert_eq!(back().2, Outcome::NoWayBack);
}

#[test]
fn a_client_whose_next_hop_is_not_resolved_hears_the_answer_once_it_is() {
    let (world, member) = world(ENDS4);
    world.nat.way.set((Routed::Unresolved, WAY_BACK));
    assert_eq!(world.run(&segment(SYN).bytes()).0, Verdict::Transmit);
    let back = || world.run(&answer(&segment(SYN), member, 25_000, SYN | ACK).bytes());
    assert_eq!((back().0, back().2), (Verdict::Drop, Outcome::NoWayBack));
    world.nat.way.set((Routed::Known, WAY_BACK));
    assert_eq!(back().1, sent_on(GATEWAY, &returned(&segment(SYN), SYN | ACK)));
}

#[test]
fn a_client_that_no_route_leads_to_takes_no_port() {
    let (world, _) = world(ENDS4);
    world.nat.way.set((Routed::Nowhere, WAY_BACK));
    assert_eq!(world.run(&segment(SYN).bytes()).2, Outcome::NoWayBack);
    assert_eq!(entries(&world), (0, 0));
}

#[test]
fn what_would_leave_by_another_link_is_dropped_in_either_direction() {
    let (world, member) = world(ENDS4);
    world.nat.way.set((Routed::Known, NatHop { ifindex: IFINDEX + 1, ..WAY_BACK }));
    world.run(&segment(SYN).bytes());
    let back = world.run(&answer(&segment(SYN), member, 25_000, SYN | ACK).bytes());
    assert_eq!((back.0, back.2), (Verdict::Drop, Outcome::OtherLink));
    let mut plan = Plan::full_nat(ENDS4);
    plan.backends.iter_mut().for_each(|member| member.ifindex = IFINDEX + 1);
    let world = World::of(&[plan]);
    assert_eq!(world.run(&segment(SYN).bytes()).2, Outcome::OtherLink);
    assert_eq!(entries(&world), (0, 0));
}

#[test]
fn a_packet_at_its_last_hop_is_told_in_either_direction() {
    for ends in [ENDS4, ENDS6] {
        let (world, member) = world(ends);
        let sent = Sent { ends, ..segment(SYN) };
        let (verdict, after, outcome) = world.run(&Sent { hops: 1, ..sent.clone() }.bytes());
        assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::Expired));
        assert!(is_sound(&after));
        assert_eq!(entries(&world), (0, 0));
        world.run(&sent.bytes());
        let late = Sent { hops: 1, ..answer(&sent, member, 25_000, ACK) };
        let (verdict, after, outcome) = world.run(&late.bytes());
        assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::Expired));
        assert!(is_sound(&after));
    }
}

#[test]
fn what_does_not_fit_is_told_in_either_direction() {
    let mut plan = Plan::full_nat(ENDS6);
    plan.backends.truncate(1);
    plan.backends[0].mtu = 1400;
    let member = plan.backends[0];
    let world = World::of(&[plan]);
    world.nat.way.set((Routed::Known, NatHop { mtu: 1300, ..WAY_BACK }));
    let sent = |length: usize| Sent { ends: ENDS6, payload: vec![1; length - 60], ..segment(ACK) };
    assert_eq!(world.run(&sent(1400).bytes()).0, Verdict::Transmit);
    let (verdict, after, outcome) = world.run(&sent(1401).bytes());
    assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::TooBig));
    assert_eq!(after[14 + 44..14 + 48], [0, 0, 5, 0x78], "1400 bytes fit");
    let back = |length| world.run(&answer(&sent(length), member, 25_000, ACK).bytes());
    assert_eq!(back(1300).2, Outcome::Returned);
    let (verdict, after, outcome) = back(1301);
    assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::TooBig));
    assert_eq!(after[14 + 44..14 + 48], [0, 0, 5, 0x14], "1300 bytes fit");
    assert!(is_sound(&after));
}

#[test]
fn an_error_about_an_answer_goes_to_its_backend_and_quotes_what_that_sent() {
    for ends in [ENDS4, ENDS6] {
        for quote in [8, 28] {
            let (world, member) = world(ends);
            let sent = Sent { ends, ..segment(SYN) };
            world.run(&sent.bytes());
            let about = Sent { hops: 64, ..returned(&sent, ACK) };
            let (verdict, after, outcome) = world.run(&icmp_error(&about, quote));
            assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::ErrorSteered));
            let quoted = answer(&sent, member, 25_000, ACK);
            assert_alike(&after, &error_on(member.mac(), inner(ends, member), &quoted, quote), ends);
        }
    }
}

#[test]
fn an_error_about_what_went_to_a_backend_goes_to_its_client_and_quotes_what_that_sent() {
    for ends in [ENDS4, ENDS6] {
        for quote in [8, 28] {
            let (world, member) = world(ends);
            let sent = Sent { ends, ..segment(SYN) };
            world.run(&sent.bytes());
            let about = Sent { hops: 64, ..translated(&sent, member, 25_000) };
            let (verdict, after, outcome) = world.run(&icmp_error(&about, quote));
            assert_eq!((verdict, outcome), (Verdict::Transmit, Outcome::ErrorSteered));
            assert_alike(&after, &error_on(GATEWAY, ends.reversed(), &sent, quote), ends);
        }
    }
}

#[test]
fn an_error_about_a_flow_that_nobody_knows_goes_up_the_stack_and_makes_no_entry() {
    let (world, member) = world(ENDS4);
    for about in [returned(&segment(SYN), ACK), translated(&segment(SYN), member, 25_000)] {
        let frame = icmp_error(&about, 8);
        assert_eq!(world.run(&frame), (Verdict::Pass, frame, Outcome::Passed));
    }
    assert_eq!(entries(&world), (0, 0));
}

#[test]
fn all_fragments_go_the_way_of_the_first_in_either_direction() {
    let (world, member) = world(ENDS4);
    let sent = Sent { ports: (25_000, 8001), ..Sent::new(ENDS4, Kind::Udp) };
    let back = answer(&sent, member, 25_000, 0);
    let table = [
        (sent.clone(), member.mac(), translated(&sent, member, 25_000), Outcome::NewFlow),
        (back, GATEWAY, returned(&sent, 0), Outcome::Returned),
    ];
    for (sent, to, expected, outcome) in table {
        let unknown = Input::Later(sent.clone(), 9).bytes();
        assert_eq!(world.run(&unknown).2, Outcome::FragmentUnknown);
        let first = Input::First(expected.clone(), 7).bytes();
        let (verdict, after, why) = world.run(&Input::First(sent.clone(), 7).bytes());
        assert_eq!((verdict, why), (Verdict::Transmit, outcome));
        assert_eq!(after, [&to[..], &OWN, &first[12..]].concat());
        // Behind the IP header a later one has neither ports nor a checksum: it stays.
        let later = Input::Later(sent.clone(), 7).bytes();
        let header = Input::Later(expected, 7).bytes();
        let (verdict, after, why) = world.run(&later);
        assert_eq!((verdict, why), (Verdict::Transmit, Outcome::FragmentSteered));
        assert_eq!(after, [&to[..], &OWN, &header[12..34], &later[34..]].concat());
    }
}

#[test]
fn a_client_that_is_a_backend_is_served_by_itself_or_by_another() {
    for number in 1..=2 {
        let (world, member) = world(ENDS4);
        let Ends::V4(_, client) = inner(ENDS4, Member::new(number)) else { unreachable!() };
        let sent = Sent { ends: Ends::V4(client, [10, 0, 0, 50]), ..segment(SYN) };
        let mut frame = sent.bytes();
        frame[6..12].copy_from_slice(&Member::new(number).mac());
        let there = world.run(&frame);
        assert_eq!(there.1, sent_on(member.mac(), &translated(&sent, member, 25_000)));
        let back = world.run(&answer(&sent, member, 25_000, SYN | ACK).bytes());
        assert_eq!(back.1, sent_on(GATEWAY, &returned(&sent, SYN | ACK)));
    }
}

#[test]
fn what_came_damaged_goes_on_damaged_in_either_direction() {
    let (world, member) = world(ENDS4);
    world.run(&segment(SYN).bytes());
    for mut frame in [segment(ACK).bytes(), answer(&segment(ACK), member, 25_000, ACK).bytes()] {
        // A byte of the payload.
        frame[14 + 42] ^= 0x40;
        let (verdict, after, _) = world.run(&frame);
        assert_eq!(verdict, Verdict::Transmit);
        assert!(!is_sound(&after));
        // And the IP header.
        frame[14 + 42] ^= 0x40;
        frame[14 + 11] ^= 0x40;
        assert!(!is_sound(&world.run(&frame).1));
    }
}

#[test]
fn udp_without_a_checksum_stays_without_in_either_direction() {
    let (world, member) = world(ENDS4);
    let sent = Sent { ports: (25_000, 8001), ..Sent::new(ENDS4, Kind::Unsummed) };
    assert_eq!(world.run(&sent.bytes()).1, sent_on(member.mac(), &translated(&sent, member, 25_000)));
    let back = world.run(&answer(&sent, member, 25_000, 0).bytes());
    assert_eq!(back.1, sent_on(GATEWAY, &returned(&sent, 0)));
}

#[test]
fn a_node_without_full_nat_looks_for_no_answers() {
    let world = World {
        nat: crate::world::Nat { ports: Ports::NONE, ..Default::default() },
        ..World::of(&[Plan::direct()])
    };
    world.interrupt(0, |_| panic!("a table of full NAT was asked"));
    let steered = world.steer(&Sent { ports: (25_000, 80), ..Sent::tcp4() }.bytes());
    assert!(matches!(steered.action, Action::Direct(_)));
    let steered = world.steer(&Sent { ports: (80, 25_000), ..Sent::tcp4() }.bytes());
    assert_eq!(steered.action, Action::Pass);
}

#[test]
fn a_service_of_all_ports_takes_no_answer_from_full_nat_and_gets_the_rest() {
    let mut plan = Plan::full_nat(ENDS4);
    plan.backends.truncate(1);
    let member = plan.backends[0];
    let all = Plan { ports: (0, 0, 0), ..Plan::direct() };
    let world = World::of(&[plan, all]);
    world.run(&segment(SYN).bytes());
    let back = world.run(&answer(&segment(SYN), member, 25_000, SYN | ACK).bytes());
    assert_eq!(back.1, sent_on(GATEWAY, &returned(&segment(SYN), SYN | ACK)));
    let steered = world.steer(&answer(&segment(SYN), member, 25_001, SYN | ACK).bytes());
    assert!(matches!(steered.action, Action::Direct(_)));
}

#[test]
fn all_ports_of_a_vip_may_be_full_nats() {
    let plan = Plan { ports: (0, 0, 1000), ..Plan::full_nat(ENDS4) };
    let world = World::of(&[Plan { backends: vec![Member::new(1)], ..plan }]);
    let (member, sent) = (Member::new(1), segment(SYN));
    assert_eq!(world.run(&sent.bytes()).1, sent_on(member.mac(), &translated(&sent, member, 25_000)));
    let back = world.run(&answer(&sent, member, 25_000, SYN | ACK).bytes());
    assert_eq!(back.1, sent_on(GATEWAY, &returned(&sent, SYN | ACK)));
}

#[test]
fn a_service_with_backends_here_and_elsewhere_goes_to_both() {
    let mut plan = Plan::full_nat(ENDS4);
    plan.backends[0].local = true;
    let here = plan.backends[0];
    let world = World::of(&[plan]);
    let mut seen = [0; 2];
    for number in 0..60 {
        let sent = Sent { ports: (25_000 + number, 8001), ..segment(SYN) };
        let (verdict, after, outcome) = world.run(&sent.bytes());
        assert_eq!(outcome, Outcome::NewFlow);
        let to_local = after[30..34] == here.address(sent.ends.family())[..4];
        assert_eq!(verdict, if to_local { Verdict::Pass } else { Verdict::Transmit });
        assert_eq!(after[26..30] == sent.bytes()[26..30], to_local, "a local backend sees its client");
        seen[usize::from(to_local)] += 1;
        let again = world.run(&Sent { flags: ACK, ..sent }.bytes());
        assert_eq!((again.0, again.2), (verdict, Outcome::Steered));
    }
    assert_eq!(entries(&world), (seen[0], seen[0]));
    assert!(seen.into_iter().all(|count| count > 5), "{seen:?}");
}
