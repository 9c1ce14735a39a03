//! What local backends send to clients: the VIP's again if it answers what came through a VIP, and else as it was.

use proptest::prelude::*;
use proptest::sample::select;
use vip_common::rewrite::Verdict;
use vip_common::steering::egress::Left;
use vip_common::steering::reason::Outcome;

use crate::leaving::Outgoing;
use crate::packets::{CLIENT, ENDS4, ENDS6, Ends, Kind, OWN, Sent, is_sound, tags};
use crate::world::{Member, Plan, World};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;

/// The one local backend of [`one`].
const POD4: [u8; 4] = [172, 16, 0, 1];
const POD6: [u8; 16] = [0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// TCP and UDP on ports 8000-8003 of both VIPs, to ports 9000-9003 of one local backend.
fn one() -> World {
    World::of(&[ENDS4, ENDS6].map(plan))
}

fn plan(ends: Ends) -> Plan {
    let backends = vec![Member { local: true, ..Member::new(1) }];
    Plan { ends, backends, protocols: vec![6, 17, 132], ..Plan::nat() }
}

fn request(ends: Ends, kind: Kind) -> Sent {
    Sent { ports: (40_000, 8000), flags: SYN, ..Sent::new(ends, kind) }
}

/// What the backend answers to that: as it sends it, and as the client must see it.
fn answer(request: &Sent) -> (Sent, Sent) {
    let (backend, vip) = match request.ends {
        Ends::V4(client, vip) => (Ends::V4(POD4, client), Ends::V4(vip, client)),
        Ends::V6(client, vip) => (Ends::V6(POD6, client), Ends::V6(vip, client)),
    };
    let (from, to) = request.ports;
    let sent = |ends, port| Sent { ends, ports: (port, from), flags: ACK | SYN, ..request.clone() };
    (sent(backend, to + 1000), sent(vip, to))
}

/// The frame, on its way out.
fn outward(sent: &Sent) -> Vec<u8> {
    let mut frame = sent.bytes();
    frame[..6].copy_from_slice(&CLIENT);
    frame[6..12].copy_from_slice(&OWN);
    frame
}

fn comes(world: &World, sent: &Sent) -> (Verdict, Outcome) {
    let (verdict, _, outcome) = world.run(&sent.bytes());
    (verdict, outcome)
}

fn leaves_as_it_was(world: &World, sent: &Sent) -> bool {
    let frame = outward(sent);
    Outgoing::whole(frame.clone()).leave(world) == (Left::AsItWas, frame)
}

proptest! {
    #[test]
    fn an_answer_is_the_vips_by_byte_whoever_sums_it_up(
        ends in select(vec![ENDS4, ENDS6]),
        kind in select(vec![Kind::Tcp, Kind::Udp, Kind::Unsummed]),
        from in any::<u16>(),
        to in 8000..8004_u16,
        payload in prop::collection::vec(any::<u8>(), 0..80),
        tags in tags(),
    ) {
        let request = Sent { ports: (from, to), payload, tags, ..request(ends, kind) };
        let world = one();
        prop_assert_eq!(comes(&world, &request), (Verdict::Pass, Outcome::NewFlow));
        let (sent, seen) = answer(&request);
        let expected = (Left::Restored, outward(&seen));
        prop_assert_eq!(&Outgoing::whole(outward(&sent)).leave(&world), &expected);
        if kind != Kind::Unsummed {
            prop_assert_eq!(&Outgoing::partial(outward(&sent)).leave(&world), &expected);
        }
    }

    #[test]
    fn nothing_makes_it_touch_what_it_cannot_read(mut frame in prop::collection::vec(any::<u8>(), 0..120), six: bool) {
        if frame.len() > 14 {
            frame[12..14].copy_from_slice(if six { &[0x86, 0xdd] } else { &[8, 0] });
            frame[14] = if six { 0x60 } else { 0x45 };
        }
        prop_assert_eq!(Outgoing::whole(frame.clone()).leave(&one()), (Left::AsItWas, frame));
    }
}

#[test]
fn sctp_keeps_its_ports_and_its_sum() {
    let plan = Plan { ports: (8000, 8000, 0), ..plan(ENDS4) };
    let world = World::of(&[plan]);
    let request = request(ENDS4, Kind::Sctp);
    assert_eq!(comes(&world, &request).0, Verdict::Pass);
    let (sent, seen) = answer(&request);
    let sent = Sent { ports: (8000, 40_000), ..sent };
    assert_eq!(Outgoing::whole(outward(&sent)).leave(&world), (Left::Restored, outward(&seen)));
}

#[test]
fn who_asks_the_backend_itself_is_answered_by_it() {
    for ends in [ENDS4, ENDS6] {
        let world = one();
        comes(&world, &request(ends, Kind::Tcp));
        let (answered, _) = answer(&request(ends, Kind::Tcp));
        for other in [
            Sent { ports: (9000, 40_001), ..answered.clone() },
            Sent { ports: (9001, 40_000), ..answered.clone() },
            Sent { kind: Kind::Udp, ..answered.clone() },
            Sent { ends: Ends::V4([172, 16, 0, 9], [192, 0, 2, 9]), ..answered.clone() },
            Sent { ends: ends.reversed(), ..answered },
        ] {
            assert!(leaves_as_it_was(&world, &other), "{other:?}");
        }
    }
}

#[test]
fn an_entry_that_was_evicted_is_there_again_with_the_next_packet() {
    let world = one();
    let request = request(ENDS4, Kind::Tcp);
    comes(&world, &request);
    world.local_flows.borrow_mut().clear();
    let (sent, _) = answer(&request);
    assert!(leaves_as_it_was(&world, &sent));
    comes(&world, &Sent { flags: ACK, ..request });
    assert_eq!(Outgoing::whole(outward(&sent)).leave(&world).0, Left::Restored);
}

#[test]
fn a_flow_that_is_silent_for_too_long_is_nobodys() {
    let world = one();
    let request = request(ENDS4, Kind::Udp);
    comes(&world, &request);
    let (sent, _) = answer(&request);
    for _ in 0..3 {
        // What the backend says keeps it.
        world.wait(299);
        assert_eq!(Outgoing::whole(outward(&sent)).leave(&world).0, Left::Restored);
    }
    world.wait(301);
    assert!(leaves_as_it_was(&world, &sent));
}

#[test]
fn a_closed_flow_is_over_sooner_whoever_closed_it() {
    for by_client in [false, true] {
        let world = one();
        let request = request(ENDS4, Kind::Tcp);
        comes(&world, &request);
        comes(&world, &Sent { flags: ACK, ..request.clone() });
        let (sent, _) = answer(&request);
        world.wait(3600);
        assert_eq!(Outgoing::whole(outward(&sent)).leave(&world).0, Left::Restored);
        if by_client {
            comes(&world, &Sent { flags: ACK | FIN, ..request });
        } else {
            Outgoing::whole(outward(&Sent { flags: ACK | FIN, ..sent.clone() })).leave(&world);
        }
        world.wait(241);
        assert!(leaves_as_it_was(&world, &sent), "{by_client}");
    }
}

#[test]
fn one_port_to_two_vips_of_a_backend_is_refused_until_the_first_is_over() {
    let other = Ends::V4([192, 0, 2, 9], [10, 0, 0, 51]);
    let world = World::of(&[plan(ENDS4), plan(other)]);
    let (first, second) = (request(ENDS4, Kind::Tcp), request(other, Kind::Tcp));
    assert_eq!(comes(&world, &first), (Verdict::Pass, Outcome::NewFlow));
    assert_eq!(comes(&world, &second), (Verdict::Drop, Outcome::NoPort));
    let (sent, seen) = answer(&first);
    assert_eq!(Outgoing::whole(outward(&sent)).leave(&world), (Left::Restored, outward(&seen)));
    comes(&world, &Sent { flags: ACK | FIN, ..first });
    assert_eq!(comes(&world, &second).0, Verdict::Pass);
    let (sent, seen) = answer(&second);
    assert_eq!(Outgoing::whole(outward(&sent)).leave(&world), (Left::Restored, outward(&seen)));
}

#[test]
fn a_flood_of_new_flows_is_dropped_and_known_ones_are_not() {
    let mut world = one();
    comes(&world, &request(ENDS4, Kind::Tcp));
    world.admits_flows = false;
    let stranger = Sent { ports: (1, 8000), ..request(ENDS4, Kind::Tcp) };
    assert_eq!(comes(&world, &stranger), (Verdict::Drop, Outcome::Unmapped));
    let known = Sent { flags: ACK, ..request(ENDS4, Kind::Tcp) };
    assert_eq!(comes(&world, &known), (Verdict::Pass, Outcome::Steered));
}

#[test]
fn the_reset_of_an_unknown_flow_notes_nothing() {
    let world = one();
    let reset = Sent { flags: RST | ACK, ..request(ENDS4, Kind::Tcp) };
    assert_eq!(comes(&world, &reset).0, Verdict::Pass);
    assert!(world.local_flows.borrow().is_empty());
}

#[test]
fn fragments_go_the_way_of_the_first() {
    let world = one();
    let request = request(ENDS4, Kind::Udp);
    comes(&world, &request);
    let (sent, seen) = answer(&request);
    let fragment = |sent: &Sent, offset: u8, more: u8| {
        let mut frame = outward(sent);
        frame[18..22].copy_from_slice(&[0x12, 0x34, more, offset]);
        crate::packets::fix_ipv4(&mut frame[14..]);
        frame
    };
    let later = fragment(&sent, 3, 0);
    assert_eq!(Outgoing::whole(later.clone()).leave(&world), (Left::AsItWas, later.clone()), "not yet known");
    let first = Outgoing::whole(fragment(&sent, 0, 0x20)).leave(&world);
    assert_eq!(first, (Left::Restored, fragment(&seen, 0, 0x20)));
    // Behind the IP header, a later one is nothing but data.
    let mut expected = fragment(&seen, 3, 0);
    expected[34..].copy_from_slice(&later[34..]);
    assert_eq!(Outgoing::whole(later.clone()).leave(&world), (Left::Restored, expected));
    world.wait(31);
    assert_eq!(Outgoing::whole(later.clone()).leave(&world), (Left::AsItWas, later));
}

#[test]
fn an_error_about_what_was_translated_is_about_the_vip() {
    for (ends, kind) in [(ENDS4, Kind::Tcp), (ENDS4, Kind::Udp), (ENDS4, Kind::Unsummed), (ENDS6, Kind::Udp)]
    {
        let world = one();
        let request = request(ends, kind);
        comes(&world, &request);
        let inner = match ends {
            Ends::V4(client, _) => Ends::V4(client, POD4),
            Ends::V6(client, _) => Ends::V6(client, POD6),
        };
        let translated = Sent { ends: inner, ports: (40_000, 9000), ..request.clone() };
        for quote in [8, 20, 31] {
            let error = crate::packets::icmp_error(&translated, quote);
            let (left, frame) = Outgoing::whole(error.clone()).leave(&world);
            assert_eq!(left, Left::Restored);
            assert!(is_sound(&frame), "{frame:02x?}");
            let mut expected = crate::packets::icmp_error(&request, quote);
            // Its source is the VIP now, and its checksums are those of that.
            let (outer, inner) = if ends.wide().1[4..] == [0; 12] { (14..34, 42) } else { (14..54, 62) };
            let vip = ends.wide().1;
            match ends {
                Ends::V4(..) => assert_eq!(frame[26..30], vip[..4]),
                Ends::V6(..) => assert_eq!(frame[22..38], vip),
            }
            expected[outer.clone()].copy_from_slice(&frame[outer]);
            assert_eq!(frame[inner..], expected[inner..], "{quote}");
        }
    }
}
