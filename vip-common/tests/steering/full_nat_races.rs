//! Two packets at the same time: whatever one does between any two steps of the other, there is one flow, one port, one way.

use vip_common::steering::reason::Outcome;
use vip_common::steering::tables::FlowState;

use crate::packets::{ENDS4, Ends, Kind, Sent};
use crate::world::{Member, Plan, World};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// More than a packet has steps.
const STEPS: usize = 200;

fn world() -> World {
    let mut plan = Plan::full_nat(ENDS4);
    plan.backends.truncate(1);
    World::of(&[plan])
}

/// Each flow has one entry of each kind, and they name each other.
fn assert_whole(world: &World, flows: usize) {
    let (entries, returns) = (world.nat.flows.borrow(), world.nat.returns.borrow());
    assert_eq!((entries.len(), returns.len()), (flows, flows));
    for (client, flow) in entries.iter() {
        let back = returns.get(&flow.way).expect("a way back");
        assert_eq!((back.client, back.backend, back.generation), (*client, flow.backend, flow.generation));
    }
}

/// Sends `first`, and `second` before each of its steps in turn. What came of both, and of the tables, is judged.
fn interleaved(
    make: impl Fn() -> World,
    first: &[u8],
    second: &[u8],
    judge: impl Fn(&World, (Vec<u8>, Outcome), (Vec<u8>, Outcome)),
) {
    for step in 0..STEPS {
        let world = make();
        let result = std::rc::Rc::new(std::cell::RefCell::new(None));
        let (frame, slot) = (second.to_vec(), std::rc::Rc::clone(&result));
        world.interrupt(step, move |world| {
            let (_, after, outcome) = world.run(&frame);
            *slot.borrow_mut() = Some((after, outcome));
        });
        let (_, after, outcome) = world.run(first);
        let Some(other) = result.borrow_mut().take() else {
            assert!(step > 0, "there are steps");
            return;
        };
        judge(&world, (after, outcome), other);
    }
    panic!("no packet has so many steps");
}

/// What a frame is from: address and port behind full NAT.
fn source(frame: &[u8]) -> Vec<u8> {
    [&frame[26..30], &frame[34..36]].concat()
}

#[test]
fn two_packets_of_a_new_flow_make_one_entry_and_leave_by_one_port() {
    // From a port that may be kept, and from one that may not.
    for port in [25_000, 40_000] {
        for (kind, flags) in [(Kind::Tcp, SYN), (Kind::Tcp, ACK), (Kind::Udp, 0)] {
            let frame = Sent { ports: (port, 8001), flags, ..Sent::new(ENDS4, kind) }.bytes();
            interleaved(world, &frame, &frame, |world, first, second| {
                assert_whole(world, 1);
                assert_eq!(source(&first.0), source(&second.0));
                let flow = *world.nat.flows.borrow().values().next().expect("one");
                assert_eq!(source(&first.0)[4..], flow.way.own_port);
                let new = [first.1, second.1].iter().filter(|outcome| **outcome == Outcome::NewFlow).count();
                assert_eq!(new, 1, "{:?} {:?}", first.1, second.1);
            });
        }
    }
}

#[test]
fn two_clients_that_want_one_port_get_two() {
    for port in [25_000, 40_000] {
        let of = |client: u8| {
            let ends = Ends::V4([192, 0, 2, client], [10, 0, 0, 50]);
            Sent { ends, ports: (port, 8001), flags: SYN, ..Sent::tcp4() }.bytes()
        };
        interleaved(world, &of(9), &of(10), |world, first, second| {
            assert_whole(world, 2);
            assert_ne!(source(&first.0), source(&second.0));
            assert_eq!((first.1, second.1), (Outcome::NewFlow, Outcome::NewFlow));
        });
    }
}

#[test]
fn a_flow_whose_set_changes_between_two_of_its_packets_goes_one_way() {
    let frame = Sent { ports: (25_000, 8001), flags: SYN, ..Sent::tcp4() }.bytes();
    for step in 0..20 {
        let mut plans = [Plan::full_nat(ENDS4)];
        let first = World::of(&plans).steer(&frame).backend;
        // The ring of the other CPU's packet has another backend for it.
        plans[0].backends[first as usize - 1].draining = true;
        let elsewhere = World::of(&plans).rings;
        let world = World::of(&[Plan::full_nat(ENDS4)]);
        let other = World { rings: elsewhere, ..World::of(&[Plan::full_nat(ENDS4)]) };
        let theirs = frame.clone();
        let result = std::rc::Rc::new(std::cell::RefCell::new(None));
        let slot = std::rc::Rc::clone(&result);
        world.interrupt(step, move |world| {
            // It runs on the same tables.
            other.nat.flows.swap(&world.nat.flows);
            other.nat.returns.swap(&world.nat.returns);
            *slot.borrow_mut() = Some(other.run(&theirs));
            other.nat.flows.swap(&world.nat.flows);
            other.nat.returns.swap(&world.nat.returns);
        });
        let (_, after, _) = world.run(&frame);
        let Some((_, theirs, _)) = result.borrow_mut().take() else { return };
        assert_whole(&world, 1);
        assert_eq!(after, theirs, "before step {step}");
    }
    panic!("it has not so many steps");
}

#[test]
fn an_answer_beside_a_client_s_packet_harms_neither() {
    let opening = Sent { ports: (25_000, 8001), flags: SYN, ..Sent::tcp4() };
    let backend = Member::new(1).address(ENDS4.family());
    let ends = Ends::V4([backend[0], backend[1], backend[2], backend[3]], [10, 0, 0, 50]);
    let answer = Sent { ends, ports: (9001, 25_000), flags: SYN | ACK, ..Sent::tcp4() }.bytes();
    let ack = Sent { flags: ACK, ..opening.clone() }.bytes();
    let begun = || {
        let world = world();
        world.run(&opening.bytes());
        world.run(&answer);
        world.wait(1);
        world
    };
    for (first, second) in [(&answer, &ack), (&ack, &answer)] {
        // As it is, and with either entry gone.
        for gone in 0..3 {
            let begun = || {
                let world = begun();
                match gone {
                    0 => {}
                    1 => world.nat.flows.borrow_mut().clear(),
                    _ => world.nat.returns.borrow_mut().clear(),
                }
                world
            };
            interleaved(begun, first, second, |world, _, _| {
                // The answer of a way back that is gone is nobody's, but no entry is without its other half.
                let (flows, returns) = (world.nat.flows.borrow(), world.nat.returns.borrow());
                for (client, flow) in flows.iter() {
                    assert_eq!(returns[&flow.way].client, *client);
                    assert_ne!(FlowState::of(flow.state), FlowState::Closing);
                }
            });
        }
    }
}
