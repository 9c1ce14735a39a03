//! Translated packets: sound where they were, damaged where they were, and otherwise as they were.

use proptest::prelude::*;
use vip_common::steering::nat::{Endpoint, Hops, Translation, decrement_hops, translate, translate_error};

use crate::packets::{
    ENDS4, ENDS6, Ends, Kind, Sent, ends, fix_ipv4, icmp_error, is_sound, read, sent, with_room,
};

/// To these ends and ports.
fn to(ends: Ends, ports: (u16, u16)) -> Translation {
    let (source, destination) = ends.wide();
    let end = |address, port: u16| Some(Endpoint { address, port: port.to_be_bytes() });
    Translation { source: end(source, ports.0), destination: end(destination, ports.1) }
}

fn translated(frame: &[u8], to: &Translation) -> Option<Vec<u8>> {
    let packet = read(frame)?;
    let (done, after) = with_room(frame, |frame| translate(frame, &packet, to));
    done.map(|()| after)
}

fn error_translated(frame: &[u8], to: &Translation, quoted_to: &Translation) -> Option<Vec<u8>> {
    let packet = read(frame)?;
    let quoted = packet.quoted(frame)?;
    let (done, after) = with_room(frame, |frame| translate_error(frame, &packet, &quoted, to, quoted_to));
    done.map(|()| after)
}

const OTHER4: Ends = Ends::V4([10, 9, 8, 7], [172, 16, 0, 200]);
const OTHER6: Ends = Ends::V6([0x2a; 16], [0xfc; 16]);

fn others(ends: Ends) -> Ends {
    match ends {
        Ends::V4(..) => OTHER4,
        Ends::V6(..) => OTHER6,
    }
}

#[test]
fn a_translated_packet_is_the_one_that_would_have_been_built() {
    for ends in [ENDS4, ENDS6] {
        for kind in [Kind::Tcp, Kind::Udp] {
            let sent = Sent::new(ends, kind);
            let expected = Sent { ends: others(ends), ports: (1, 65_535), ..sent.clone() };
            let after = translated(&sent.bytes(), &to(others(ends), (1, 65_535)));
            assert_eq!(after, Some(expected.bytes()), "{ends:?} {kind:?}");
        }
    }
}

#[test]
fn only_what_is_named_changes() {
    let (client, backend) = (Ends::V4([192, 0, 2, 9], [172, 16, 0, 200]), (40_000, 8080));
    let all = to(client, backend);
    let only_destination = Translation { source: None, ..all };
    let expected = Sent { ends: client, ports: backend, ..Sent::tcp4() }.bytes();
    assert_eq!(translated(&Sent::tcp4().bytes(), &only_destination), Some(expected.clone()));
    assert_eq!(translated(&Sent::tcp4().bytes(), &all), Some(expected));
    assert_eq!(translated(&Sent::tcp4().bytes(), &Translation::default()), Some(Sent::tcp4().bytes()));
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let sent = Sent::new(ENDS4, Kind::Unsummed);
    let expected = Sent { ends: OTHER4, ports: (7, 9), ..sent.clone() };
    assert_eq!(translated(&sent.bytes(), &to(OTHER4, (7, 9))), Some(expected.bytes()));
    // In IPv6 there must be one: it was invalid, and stays so.
    let invalid = translated(&Sent::new(ENDS6, Kind::Unsummed).bytes(), &to(OTHER6, (7, 9))).expect("whole");
    assert_eq!(invalid[14 + 46..14 + 48], [0, 0]);
    assert!(!is_sound(&invalid));
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_written_as_ones() {
    // Of all source ports one makes the sum of this datagram zero.
    let zero = (0..=u16::MAX).find_map(|port| {
        let sent = Sent { ports: (port, 9), ..Sent::new(OTHER4, Kind::Udp) };
        let built = sent.bytes();
        (built[40..42] == [0xff, 0xff]).then_some((port, built))
    });
    let (port, built) = zero.expect("one of them");
    let after = translated(&Sent::new(ENDS4, Kind::Udp).bytes(), &to(OTHER4, (port, 9))).expect("whole");
    assert_eq!(after, built);
}

#[test]
fn sctp_keeps_its_ports_or_is_not_translated() {
    let sent = Sent::new(ENDS4, Kind::Sctp);
    let expected = Sent { ends: OTHER4, ..sent.clone() };
    assert_eq!(translated(&sent.bytes(), &to(OTHER4, (40_000, 80))), Some(expected.bytes()));
    assert_eq!(translated(&sent.bytes(), &to(OTHER4, (40_000, 81))), None);
}

#[test]
fn later_fragments_get_addresses_and_nothing_else() {
    let mut frame = Sent::tcp4().bytes();
    frame[20..22].copy_from_slice(&[0x20, 0x10]);
    fix_ipv4(&mut frame[14..]);
    let after = translated(&frame, &to(OTHER4, (1, 2))).expect("whole");
    assert_eq!(after[34..], frame[34..]);
    let mut expected = Sent { ends: OTHER4, ..Sent::tcp4() }.bytes();
    expected[20..22].copy_from_slice(&[0x20, 0x10]);
    fix_ipv4(&mut expected[14..]);
    assert_eq!(after[..34], expected[..34]);
}

#[test]
fn a_packet_that_ends_before_its_checksum_is_not_translated() {
    for kind in [Kind::Tcp, Kind::Udp] {
        let whole = Sent { payload: Vec::new(), ..Sent::new(ENDS4, kind) }.bytes();
        let needed = 34 + if kind == Kind::Tcp { 18 } else { 8 };
        for length in 34..needed {
            let mut frame = whole[..length].to_vec();
            frame[17] = u8::try_from(length - 14).expect("short");
            frame.resize(80, 0);
            assert_eq!(translated(&frame, &to(OTHER4, (1, 2))), None, "{kind:?} of {length}");
        }
    }
}

#[test]
fn a_hop_is_taken_off_and_the_last_one_is_not() {
    for sent in [Sent::tcp4(), Sent::tcp6()] {
        for hops in [2, 3, 64, 255] {
            let sent = Sent { hops, ..sent.clone() };
            let packet = read(&sent.bytes()).expect("sane");
            let (left, after) = with_room(&sent.bytes(), |frame| decrement_hops(frame, &packet));
            assert_eq!(left, Some(Hops::Left));
            assert_eq!(after, Sent { hops: hops - 1, ..sent }.bytes());
        }
        for hops in [0, 1] {
            let sent = Sent { hops, ..sent.clone() };
            let packet = read(&sent.bytes()).expect("sane");
            let (left, after) = with_room(&sent.bytes(), |frame| decrement_hops(frame, &packet));
            assert_eq!((left, after), (Some(Hops::Expired), sent.bytes()));
        }
    }
}

#[test]
fn an_error_is_translated_with_what_it_quotes() {
    for (ends, router) in
        [(ENDS4, Ends::V4([198, 51, 100, 1], [0; 4])), (ENDS6, Ends::V6([0x20; 16], [0; 16]))]
    {
        for kind in [Kind::Tcp, Kind::Udp, Kind::Unsummed, Kind::Sctp] {
            for quote in [8, 18, 19, 31] {
                let about = Sent { ports: (80, 40_000), ..Sent::new(ends.reversed(), kind) };
                // What the backend sent before it was translated the other way.
                let ports = if kind == Kind::Sctp { (80, 40_000) } else { (8080, 1) };
                let original = Sent { ends: others(ends), ports, ..about.clone() };
                let (backend, _) = others(ends).wide();
                let (from, _) = router.wide();
                let outer = Translation {
                    source: Some(Endpoint { address: from, port: [0; 2] }),
                    destination: Some(Endpoint { address: backend, port: [0; 2] }),
                };
                let after = error_translated(&icmp_error(&about, quote), &outer, &to(others(ends), ports));
                assert_eq!(after, Some(icmp_error(&original, quote)), "{kind:?} {quote} {ends:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn translated_packets_are_sound_and_otherwise_as_they_were(sent in sent(), new in ends(), ports in any::<(u16, u16)>()) {
        let new = if new.family() == sent.ends.family() { new } else { others(sent.ends) };
        let ports = if sent.kind == Kind::Sctp { sent.ports } else { ports };
        let after = translated(&sent.bytes(), &to(new, ports));
        let has_ports = !matches!(sent.kind, Kind::Echo);
        let expected = Sent { ends: new, ports: if has_ports { ports } else { sent.ports }, ..sent.clone() };
        let after = after.expect("a whole packet");
        prop_assert_eq!(is_sound(&after), sent.kind != Kind::Unsummed || new.family() == ENDS4.family());
        prop_assert_eq!(after, expected.bytes());
    }

    #[test]
    fn what_was_damaged_stays_damaged(sent in sent(), new in ends(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        prop_assume!(matches!(sent.kind, Kind::Tcp | Kind::Udp) && new.family() == sent.ends.family());
        let mut frame = sent.bytes();
        let packet = read(&frame).expect("sane");
        // Behind the ports, but not the length of the header or a checksum that becomes "none".
        let from = packet.transport + 4;
        let at = from + at.index(frame.len() - from);
        let in_header = at - packet.transport;
        prop_assume!(if sent.kind == Kind::Tcp { in_header != 12 } else { in_header >= 8 });
        frame[at] ^= flip;
        prop_assume!(!is_sound(&frame));
        let after = translated(&frame, &to(new, (1, 2))).expect("a whole packet");
        prop_assert!(!is_sound(&after));
        // And back again it is what it was.
        let back = translated(&after, &to(sent.ends, sent.ports)).expect("a whole packet");
        prop_assert_eq!(back, frame);
    }

    #[test]
    fn no_bytes_whatever_make_translation_panic(frame in prop::collection::vec(any::<u8>(), 14..200), six in any::<bool>()) {
        let mut frame = frame;
        frame[12..14].copy_from_slice(if six { &[0x86, 0xdd] } else { &[0x08, 0] });
        if let Some(first) = frame.get_mut(14) {
            *first = if six { 0x60 } else { 0x45 };
        }
        let new = to(if six { OTHER6 } else { OTHER4 }, (1, 2));
        translated(&frame, &new);
        error_translated(&frame, &new, &new.swapped());
        if let Some(packet) = read(&frame) {
            with_room(&frame, |frame| decrement_hops(frame, &packet));
        }
    }
}
