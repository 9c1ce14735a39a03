//! Packets into tunnels and out of them.

use std::collections::HashSet;

use etherparse::{IpNumber, NetSlice, SlicedPacket};
use proptest::prelude::*;
use vip_common::decision::Family;
use vip_common::packet::Headroom as _;
use vip_common::steering::tunnel::{Refused, Tunnel, decapsulate, encapsulate};

use crate::packets::{
    BACKEND, ENDS4, ENDS6, Ends, Kind, OWN, Sent, fix_ipv4, hop, is_sound, read, sent, with_room,
};

const END4: [u8; 4] = [172, 16, 7, 7];
const OUR4: [u8; 4] = [10, 200, 0, 0];
const END6: [u8; 16] = [0x2a; 16];
const OUR6: [u8; 16] = [0x2b; 16];

fn tunnel4() -> Tunnel {
    let (source, destination) = Ends::V4(OUR4, END4).wide();
    Tunnel { family: Family::V4, source, source_bits: 0, destination }
}

fn tunnel6() -> Tunnel {
    Tunnel { family: Family::V6, source: OUR6, source_bits: 0, destination: END6 }
}

fn into(frame: &[u8], tunnel: &Tunnel, hash: u64) -> Option<Vec<u8>> {
    let packet = read(frame)?;
    let (done, after) = with_room(frame, |frame| encapsulate(frame, &packet, tunnel, hash, hop()));
    done.map(|()| after)
}

fn out_of(frame: &[u8]) -> Result<Vec<u8>, Refused> {
    let packet = read(frame).ok_or(Refused::Unknown)?;
    let (done, after) = with_room(frame, |frame| decapsulate(frame, &packet));
    done.map(|_| after)
}

#[test]
fn ipv4_in_ipv4_is_byte_for_byte_as_rfc_2003_has_it() {
    let sent = Sent { class: 0xb9, ..Sent::tcp4() };
    let packet = sent.packet();
    let [high, low] = u16::try_from(packet.len() + 20).expect("short").to_be_bytes();
    let mut outer = vec![0x45, 0xb9, high, low, 0, 0, 0x40, 0, 64, 4, 0, 0];
    outer.extend([OUR4, END4].concat());
    fix_ipv4(&mut outer);
    let expected = [&BACKEND[..], &OWN, &[0x08, 0x00], &outer, &packet].concat();
    assert_eq!(into(&sent.bytes(), &tunnel4(), 0), Some(expected));
}

#[test]
fn both_families_in_ipv6_are_byte_for_byte_as_rfc_2473_has_them() {
    for (sent, protocol) in [(Sent::tcp4(), 4), (Sent::tcp6(), 41)] {
        let sent = Sent { class: 0xb9, tags: vec![[0x81, 0, 0, 100]], ..sent };
        let packet = sent.packet();
        let [high, low] = u16::try_from(packet.len()).expect("short").to_be_bytes();
        let start = [0x6b, 0x9a, 0xbc, 0xde, high, low, protocol, 64];
        let expected =
            [&BACKEND[..], &OWN, &[0x81, 0, 0, 100, 0x86, 0xdd], &start, &OUR6, &END6, &packet].concat();
        assert_eq!(into(&sent.bytes(), &tunnel6(), 0xffff_ffff_ffff_abcd_u64 << 4 | 0xe), Some(expected));
    }
}

#[test]
fn ipv6_does_not_go_in_ipv4() {
    assert_eq!(into(&Sent::tcp6().bytes(), &tunnel4(), 0), None);
}

#[test]
fn a_tunnel_is_never_fragmented_on_its_way() {
    let mut frame = Sent::tcp4().bytes();
    frame[18..22].copy_from_slice(&[0x12, 0x34, 0x20, 0]);
    fix_ipv4(&mut frame[14..]);
    let after = into(&frame, &tunnel4(), 0).expect("room enough");
    assert_eq!(after[18..22], [0, 0, 0x40, 0]);
    assert_eq!(after[38..42], [0x12, 0x34, 0x20, 0]);
}

#[test]
fn flows_differ_in_what_spreads_them() {
    let tunnel = Tunnel { source_bits: 16, ..tunnel4() };
    let mut sources = HashSet::new();
    let mut labels = HashSet::new();
    for flow in 0..1000_u64 {
        let hash = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let four = into(&Sent::tcp4().bytes(), &tunnel, hash).expect("room enough");
        assert!(is_sound(&four));
        assert_eq!(four[26..28], OUR4[..2]);
        sources.insert(four[28..30].to_vec());
        let six = into(&Sent::tcp4().bytes(), &tunnel6(), hash).expect("room enough");
        assert_eq!(six[22..38], OUR6);
        labels.insert(six[15..18].to_vec());
    }
    assert!(sources.len() > 950, "{}", sources.len());
    assert!(labels.len() > 950, "{}", labels.len());
}

#[test]
fn a_frame_without_room_in_front_is_left_alone() {
    let frame = Sent::tcp4().bytes();
    let packet = read(&frame).expect("sane");
    let (done, after) = with_room(&frame, |frame| {
        frame.grow_front(128).expect("all the room");
        frame.cut_front(128)?;
        frame.grow_front(120)?;
        let done = encapsulate(frame, &packet, &tunnel4(), 0, hop());
        frame.cut_front(120)?;
        Some(done)
    });
    assert_eq!((done, after), (Some(None), frame));
}

#[test]
fn congestion_on_the_way_reaches_the_inner_packet() {
    for (ends, tunnel) in [(ENDS4, tunnel4()), (ENDS4, tunnel6()), (ENDS6, tunnel6())] {
        for (inner, expected) in
            [(0b10, Ok(0b11)), (0b01, Ok(0b11)), (0b11, Ok(0b11)), (0, Err(Refused::Congested))]
        {
            let sent = Sent { class: 0xb8 | inner, ..Sent::new(ends, Kind::Tcp) };
            let mut frame = into(&sent.bytes(), &tunnel, 0).expect("room enough");
            if tunnel.family == Family::V4 {
                frame[15] |= 0b11;
                fix_ipv4(&mut frame[14..34]);
            } else {
                frame[15] |= 0b11 << 4;
            }
            let after = out_of(&frame);
            let delivered = |ecn: u8| {
                let mut frame = Sent { class: 0xb8 | ecn, ..sent.clone() }.bytes();
                frame[..6].copy_from_slice(&BACKEND);
                frame[6..12].copy_from_slice(&OWN);
                frame
            };
            assert_eq!(after, expected.map(delivered), "{ends:?} {tunnel:?} {inner}");
        }
    }
}

#[test]
fn what_is_no_tunnel_of_ours_stays_as_it_is() {
    let mut fragment = into(&Sent::tcp4().bytes(), &tunnel4(), 0).expect("room enough");
    fragment[20] = 0x20;
    // 6in4 is not ours.
    let six_in_four = {
        let mut frame = into(&Sent::tcp4().bytes(), &tunnel4(), 0).expect("room enough");
        frame[23] = 41;
        frame
    };
    for frame in [Sent::tcp4().bytes(), Sent::tcp6().bytes(), fragment, six_in_four] {
        assert_eq!(out_of(&frame), Err(Refused::Unknown));
    }
}

#[test]
fn a_packet_that_is_longer_than_its_tunnel_is_invalid() {
    let mut frame = into(&Sent::tcp4().bytes(), &tunnel4(), 0).expect("room enough");
    frame[37] += 1;
    frame.extend([0; 20]);
    assert_eq!(out_of(&frame), Err(Refused::Invalid));
    let mut other_family = into(&Sent::tcp4().bytes(), &tunnel6(), 0).expect("room enough");
    other_family[20] = 41;
    assert_eq!(out_of(&other_family), Err(Refused::Invalid));
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(sent in sent(), six in any::<bool>(), hash in any::<u64>(), bits in 0..=24_u8) {
        let six = six || sent.ends.family() == Family::V6;
        let tunnel = if six { tunnel6() } else { Tunnel { source_bits: bits, ..tunnel4() } };
        let frame = sent.bytes();
        let inside = into(&frame, &tunnel, hash).expect("room enough");
        prop_assert_eq!(inside.len(), frame.len() + tunnel.overhead());
        let reader = SlicedPacket::from_ethernet(&inside)?;
        let (protocol, source_is_ours, to_the_end) = match &reader.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header();
                prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                let ours = u32::from_be_bytes(header.source()) >> bits;
                let kept = u32::from_be_bytes(OUR4) >> bits;
                (header.protocol(), ours == kept, header.destination() == END4)
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header();
                (header.next_header(), header.source() == OUR6, header.destination() == END6)
            }
            other => panic!("{other:?}"),
        };
        let inner = if sent.ends.family() == Family::V4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
        prop_assert_eq!((protocol, source_is_ours, to_the_end), (inner, true, true));
        prop_assert_eq!(out_of(&inside), Ok([&BACKEND[..], &OWN, &frame[12..]].concat()));
    }

    #[test]
    fn no_bytes_whatever_make_tunnels_panic(frame in prop::collection::vec(any::<u8>(), 14..200), six in any::<bool>(), inner in any::<bool>()) {
        let mut frame = frame;
        frame[12..14].copy_from_slice(if six { &[0x86, 0xdd] } else { &[0x08, 0] });
        if frame.len() > 40 {
            frame[14] = if six { 0x60 } else { 0x45 };
            frame[if six { 20 } else { 23 }] = if inner { 41 } else { 4 };
        }
        let _ = out_of(&frame);
        into(&frame, &tunnel6(), 1);
    }
}
