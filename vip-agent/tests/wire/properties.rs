//! For any values: what is encoded is read back. For any bytes: no panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use vip_agent::types::{Centiseconds, ChecksumMode, VirtualRouterId};
use vip_agent::vrrp::codec::{Advert, DecodeOptions, Fields, PseudoHeader, patch_priority};
use vip_agent::vrrp::receive::{Packet, Rules, Senders};

use crate::fixture::{advert, encode, frame, ip, multicast4, multicast6};

fn mode() -> impl Strategy<Value = ChecksumMode> {
    prop_oneof![Just(ChecksumMode::Pseudo), Just(ChecksumMode::Rfc9568), Just(ChecksumMode::OldUnicast)]
}

/// Addresses of a packet and those in its advert, all of one family.
fn packet() -> impl Strategy<Value = (PseudoHeader, Vec<IpAddr>)> {
    let v4 = (any::<Ipv4Addr>(), any::<Ipv4Addr>(), vec(any::<Ipv4Addr>().prop_map(IpAddr::from), 1..=255))
        .prop_map(|(source, destination, vips)| (PseudoHeader::V4 { source, destination }, vips));
    let v6 = (any::<Ipv6Addr>(), any::<Ipv6Addr>(), vec(any::<Ipv6Addr>().prop_map(IpAddr::from), 1..=255))
        .prop_map(|(source, destination, vips)| (PseudoHeader::V6 { source, destination }, vips));
    prop_oneof![v4, v6]
}

fn any_rules() -> [Rules; 2] {
    let decode = DecodeOptions::default();
    let own = ip("192.0.2.2");
    let senders = Senders::Unicast { peers: vec![ip("192.0.2.1")], min_ttl: None };
    [Rules { own, senders: Senders::Multicast, decode }, Rules { own, senders, decode }]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        (pseudo, vips) in packet(), vrid in 1u8.., priority: u8, interval in 1u16..=4095, mode in mode(),
    ) {
        let fields = Fields {
            virtual_router_id: VirtualRouterId::new(vrid).unwrap(),
            priority,
            interval: Centiseconds::new(interval).unwrap(),
            addresses: &vips,
        };
        let payload = encode(&fields, pseudo, mode);
        let advert = Advert::decode(&payload, pseudo, DecodeOptions { checksum: mode, strict: false }).unwrap();
        let addresses: Vec<_> = advert.addresses().collect();
        let decoded = Fields {
            virtual_router_id: advert.virtual_router_id,
            priority: advert.priority,
            interval: advert.interval,
            addresses: &addresses,
        };
        prop_assert_eq!(decoded, fields);
        prop_assert!(advert.lists(&vips));
    }

    #[test]
    fn a_patched_priority_equals_a_fresh_encoding(
        (pseudo, vips) in packet(), before: u8, after: u8, mode in mode(),
    ) {
        let with = |priority| {
            let fields = Fields { priority, ..crate::fixture::fields(&vips) };
            encode(&fields, pseudo, mode)
        };
        let mut patched = with(before);
        patch_priority(&mut patched, after);
        prop_assert_eq!(patched, with(after));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(payload in vec(any::<u8>(), 0..300), strict: bool) {
        for pseudo in [multicast4(), multicast6()] {
            let options = DecodeOptions { strict, ..DecodeOptions::default() };
            if let Ok(advert) = Advert::decode(&payload, pseudo, options) {
                prop_assert_ne!(advert.addresses().count(), 0);
            }
        }
    }

    #[test]
    fn no_frame_makes_the_receiver_panic(frame in vec(any::<u8>(), 0..200), ethertype in 0usize..3) {
        let mut frame = frame;
        if let Some(field) = frame.get_mut(12..14) {
            field.copy_from_slice(&[[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00]][ethertype]);
        }
        for rules in any_rules() {
            let _ = Packet::parse(&frame).and_then(|packet| packet.accept(&rules).map(drop));
        }
    }

    #[test]
    fn a_damaged_frame_never_makes_the_receiver_panic(
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), length: prop::sample::Index,
    ) {
        for pseudo in [multicast4(), multicast6()] {
            let mut frame = frame(pseudo, 255, &advert(pseudo, ChecksumMode::Pseudo));
            for (at, byte) in &damage {
                let at = at.index(frame.len());
                frame[at] = *byte;
            }
            frame.truncate(length.index(frame.len() + 1));
            for rules in any_rules() {
                let _ = Packet::parse(&frame).and_then(|packet| packet.accept(&rules).map(drop));
            }
        }
    }
}
