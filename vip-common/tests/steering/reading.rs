//! What steering reads of packets.

use etherparse::{LaxSlicedPacket, TransportSlice};
use proptest::prelude::*;
use vip_common::decision::Family;
use vip_common::steering::packet::{Fragment, Packet, Tuple};

use crate::packets::{ENDS4, ENDS6, Ends, Kind, OWN, Sent, fix_ipv4, icmp_error, read, sent};

fn tuple(ends: Ends, (client_port, vip_port): (u16, u16), protocol: u8) -> Tuple {
    let (client, vip) = ends.wide();
    let (client_port, vip_port) = (client_port.to_be_bytes(), vip_port.to_be_bytes());
    Tuple { client, vip, client_port, vip_port, protocol }
}

/// The frame around the IPv6 packet whose extension headers are these, each `(its number, the rest of it)`.
fn extended(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let plain = Sent::tcp6().packet();
    let numbers = extensions.iter().map(|(number, _)| *number).chain([6]);
    let mut packet = plain[..40].to_vec();
    packet[6] = extensions.first().map_or(6, |(number, _)| *number);
    for (next, (_, rest)) in numbers.skip(1).zip(extensions) {
        packet.push(next);
        packet.extend_from_slice(rest);
    }
    packet.extend_from_slice(&plain[40..]);
    let length = u16::try_from(packet.len() - 40).expect("short").to_be_bytes();
    packet[4..6].copy_from_slice(&length);
    [&OWN[..], &OWN, &[0x86, 0xdd], &packet].concat()
}

const OPTIONS: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
const LONG_OPTIONS: [u8; 15] = [1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn the_flow_is_found_behind_extension_headers() {
    for extensions in [
        vec![],
        vec![(60, &OPTIONS[..])],
        vec![(0, &LONG_OPTIONS[..]), (60, &OPTIONS)],
        vec![(0, &OPTIONS[..]), (60, &LONG_OPTIONS), (44, &[0, 0, 1, 1, 2, 3, 4])],
    ] {
        let frame = extended(&extensions);
        let found = read(&frame).and_then(|packet| packet.tuple(&frame[..]));
        assert_eq!(found, Some(tuple(ENDS6, (40_000, 80), 6)), "{extensions:?}");
    }
}

#[test]
fn what_cannot_be_walked_over_is_not_steered() {
    let routing = [2, 0, 0, 0, 0, 0, 0];
    let huge = [&[40][..], &[0; 41 * 8 - 2]].concat();
    let four = [(60, &OPTIONS[..]); 4];
    for extensions in [vec![(43, &routing[..])], vec![(60, &huge[..])], four.to_vec()] {
        let frame = extended(&extensions);
        assert_eq!(read(&frame).and_then(|packet| packet.tuple(&frame[..])), None, "{extensions:?}");
    }
}

#[test]
fn an_ipv4_header_with_options_is_walked_over() {
    let plain = Sent::tcp4().packet();
    let mut packet = [&plain[..20], &[1; 12], &plain[20..]].concat();
    packet[0] = 0x48;
    packet[3] += 12;
    fix_ipv4(&mut packet);
    let frame = [&OWN[..], &OWN, &[0x08, 0x00], &packet].concat();
    let packet = read(&frame).expect("sane");
    assert_eq!(packet.transport, 14 + 32);
    assert_eq!(packet.tuple(&frame[..]), Some(tuple(ENDS4, (40_000, 80), 6)));
}

#[test]
fn fragments_are_told_apart_in_ipv4() {
    for (field, expected) in [
        (0x0000_u16, Fragment::Whole),
        (0x4000, Fragment::Whole),
        (0x2000, Fragment::First(0x1234)),
        (0x2001, Fragment::Later(0x1234)),
        (0x1fff, Fragment::Later(0x1234)),
    ] {
        let mut frame = Sent::tcp4().bytes();
        frame[18..20].copy_from_slice(&[0x12, 0x34]);
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        let packet = read(&frame).expect("sane");
        assert_eq!(packet.fragment, expected, "{field:x}");
        assert_eq!(packet.tuple(&frame[..]).is_some(), !matches!(expected, Fragment::Later(_)), "{field:x}");
    }
}

#[test]
fn fragments_are_told_apart_in_ipv6() {
    for (field, expected) in [
        (0x0000_u16, Fragment::Whole),
        (0x0001, Fragment::First(0x0102_0304)),
        (0x0008, Fragment::Later(0x0102_0304)),
        (0xfff9, Fragment::Later(0x0102_0304)),
    ] {
        let [high, low] = field.to_be_bytes();
        let frame = extended(&[(44, &[0, high, low, 1, 2, 3, 4])]);
        let packet = read(&frame).expect("sane");
        assert_eq!((packet.fragment, packet.protocol), (expected, 6), "{field:x}");
        assert_eq!(packet.tuple(&frame[..]).is_some(), !matches!(expected, Fragment::Later(_)), "{field:x}");
    }
}

#[test]
fn padding_is_no_part_of_a_packet() {
    let mut frame = Sent { payload: Vec::new(), kind: Kind::Udp, ..Sent::tcp4() }.bytes();
    frame[17] = 20 + 2;
    frame.resize(60, 0);
    let packet = read(&frame).expect("sane");
    assert_eq!(packet.tuple(&frame[..]), None, "the ports are padding");
}

#[test]
fn an_error_is_of_the_flow_that_it_quotes() {
    for ends in [ENDS4, ENDS6] {
        for kind in [Kind::Tcp, Kind::Udp, Kind::Sctp] {
            for quote in [8, 12, 28] {
                let about = Sent { ports: (80, 40_000), ..Sent::new(ends.reversed(), kind) };
                let frame = icmp_error(&about, quote.min(about.packet().len()));
                let packet = read(&frame).expect("sane");
                assert_eq!(packet.tuple(&frame[..]), None, "an error has no ports of its own");
                let quoted = packet.quoted(&frame[..]).expect("it quotes a flow");
                let protocol = if kind == Kind::Tcp {
                    6
                } else if kind == Kind::Udp {
                    17
                } else {
                    132
                };
                let found = quoted.tuple(&frame[..]).map(Tuple::reversed);
                assert_eq!(found, Some(tuple(ends, (40_000, 80), protocol)), "{kind:?} {quote}");
            }
        }
    }
}

#[test]
fn an_error_that_quotes_too_little_or_is_none_is_of_no_flow() {
    for ends in [ENDS4, ENDS6] {
        let about = Sent::new(ends.reversed(), Kind::Tcp);
        for quote in 0..4 {
            let frame = icmp_error(&about, quote);
            assert_eq!(read(&frame).and_then(|packet| packet.quoted(&frame[..])), None, "{quote} bytes");
        }
        let echo = icmp_error(&Sent::new(ends.reversed(), Kind::Echo), 8);
        assert_eq!(read(&echo).and_then(|packet| packet.quoted(&echo[..])), None, "about an echo");
        let frame = Sent::new(ends, Kind::Echo).bytes();
        assert_eq!(read(&frame).and_then(|packet| packet.quoted(&frame[..])), None, "an echo");
        let mut redirect = icmp_error(&about, 8);
        let at = if ends.family() == Family::V4 { 34 } else { 54 };
        redirect[at] = if ends.family() == Family::V4 { 5 } else { 137 };
        assert_eq!(read(&redirect).and_then(|packet| packet.quoted(&redirect[..])), None, "a redirect");
    }
}

proptest! {
    #[test]
    fn the_flow_is_the_independent_readers(sent in sent(), cut in any::<prop::sample::Index>(), damage in any::<(prop::sample::Index, u8)>(), damaged in any::<bool>()) {
        let mut frame = sent.bytes();
        if damaged {
            frame.truncate(cut.index(frame.len()) + 1);
            let at = damage.0.index(frame.len());
            frame[at] = damage.1;
        }
        let ours = read(&frame).and_then(|packet| packet.tuple(&frame[..]));
        let theirs = LaxSlicedPacket::from_ethernet(&frame).ok().and_then(|packet| {
            let (a, b) = match packet.transport? {
                TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
                TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
                _ => return None,
            };
            Some((a.to_be_bytes(), b.to_be_bytes()))
        });
        // The other reader wants whole headers and knows no SCTP; what it finds, ours must find.
        if let Some(ports) = theirs && sent.tags.len() < 3 {
            let found = ours.map(|tuple| (tuple.client_port, tuple.vip_port));
            if !damaged {
                prop_assert_eq!(found, Some(ports));
            } else if found.is_some() {
                prop_assert_eq!(found, Some(ports));
            }
        }
    }

    #[test]
    fn no_bytes_whatever_make_reading_panic(frame in prop::collection::vec(any::<u8>(), 0..200), four in any::<bool>(), at in 0..64_usize) {
        let family = if four { Family::V4 } else { Family::V6 };
        if let Some(packet) = Packet::read(&frame[..], family, at) {
            packet.tuple(&frame[..]);
            packet.quoted(&frame[..]);
        }
    }
}
