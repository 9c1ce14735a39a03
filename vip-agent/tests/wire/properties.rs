//! For any values: what is encoded is read back. For any bytes: no panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use vip_agent::types::{Centiseconds, ChecksumMode, Seconds, VirtualRouterId};
use vip_agent::vrrp::auth::Password;
use vip_agent::vrrp::codec::{
    Advert, DecodeOptions, Dialect, Fields, PseudoHeader, patch_interval, patch_priority,
};
use vip_agent::vrrp::receive::{Packet, Rules, Senders};

use crate::fixture::{
    advert_in, encode, frame, ip, multicast_rules, multicast4, multicast6, version_2, version_3,
};

fn mode() -> impl Strategy<Value = ChecksumMode> {
    prop_oneof![Just(ChecksumMode::Pseudo), Just(ChecksumMode::Rfc9568), Just(ChecksumMode::OldUnicast)]
}

fn version_3_dialect() -> impl Strategy<Value = Dialect> {
    (1u16..=4095, mode()).prop_map(|(interval, checksum)| Dialect::V3 {
        interval: Centiseconds::new(interval).expect("an interval"),
        checksum,
    })
}

fn version_2_dialect() -> impl Strategy<Value = Dialect> {
    let password = "[a-zA-Z0-9!-/ ]{1,8}|\\p{L}".prop_map(|text| Password::new(&text).expect("a password"));
    (1u8.., proptest::option::of(password)).prop_map(|(interval, password)| Dialect::V2 {
        interval: Seconds::new(interval).expect("an interval"),
        password,
    })
}

fn v4_packet() -> impl Strategy<Value = (PseudoHeader, Vec<IpAddr>)> {
    (any::<Ipv4Addr>(), any::<Ipv4Addr>(), vec(any::<Ipv4Addr>().prop_map(IpAddr::from), 1..=255))
        .prop_map(|(source, destination, vips)| (PseudoHeader::V4 { source, destination }, vips))
}

fn v6_packet() -> impl Strategy<Value = (PseudoHeader, Vec<IpAddr>)> {
    (any::<Ipv6Addr>(), any::<Ipv6Addr>(), vec(any::<Ipv6Addr>().prop_map(IpAddr::from), 1..=255))
        .prop_map(|(source, destination, vips)| (PseudoHeader::V6 { source, destination }, vips))
}

/// A way of writing adverts, addresses of a packet and those in its advert, all of one family.
fn packet() -> impl Strategy<Value = (Dialect, (PseudoHeader, Vec<IpAddr>))> {
    prop_oneof![
        (version_3_dialect(), prop_oneof![v4_packet(), v6_packet()]),
        (version_2_dialect(), v4_packet()),
    ]
}

fn any_rules() -> Vec<Rules> {
    let mut rules = Vec::new();
    for dialect in [version_3(ChecksumMode::Pseudo), version_2(""), version_2("secret12")] {
        for own in ["192.0.2.2", "fe80::2"] {
            let mut multicast = multicast_rules(own);
            multicast.decode = DecodeOptions { dialect, strict: false };
            let senders = Senders::Unicast { peers: vec![ip("192.0.2.1"), ip("fe80::1")], min_ttl: None };
            let mut unicast = Rules { senders, ..multicast.clone() };
            unicast.decode.strict = true;
            rules.extend([multicast, unicast]);
        }
    }
    rules
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded((dialect, (pseudo, vips)) in packet(), vrid in 1u8.., priority: u8) {
        let virtual_router_id = VirtualRouterId::new(vrid).unwrap();
        let fields = Fields { virtual_router_id, priority, dialect, addresses: &vips };
        let payload = encode(&fields, pseudo);
        let advert = Advert::decode(&payload, pseudo, DecodeOptions { dialect, strict: false }).unwrap();
        prop_assert_eq!((advert.virtual_router_id, advert.priority), (virtual_router_id, priority));
        prop_assert_eq!(advert.interval, dialect.interval());
        prop_assert_eq!(advert.addresses().collect::<Vec<_>>(), vips.clone());
        prop_assert!(advert.lists(&vips));
    }

    #[test]
    fn what_differs_in_any_way_is_not_accepted_by_version_2(
        own in version_2_dialect(), other in version_2_dialect(), (pseudo, vips) in v4_packet(),
    ) {
        let payload = encode(&Fields { dialect: other, ..crate::fixture::fields(&vips) }, pseudo);
        let accepted = Advert::decode(&payload, pseudo, DecodeOptions { dialect: own, strict: false }).is_ok();
        prop_assert_eq!(accepted, own == other);
    }

    #[test]
    fn a_patched_priority_equals_a_fresh_encoding(
        (dialect, (pseudo, vips)) in packet(), before: u8, after: u8,
    ) {
        let with = |priority| {
            let fields = Fields { priority, dialect, ..crate::fixture::fields(&vips) };
            encode(&fields, pseudo)
        };
        let mut patched = with(before);
        patch_priority(&mut patched, after);
        prop_assert_eq!(patched, with(after));
    }

    #[test]
    fn a_patched_interval_equals_a_fresh_encoding(
        before in 1u16..=4095, after in 1u16..=4095, checksum in mode(), (pseudo, vips) in v4_packet(),
    ) {
        let [before, after] = [before, after].map(|interval| Centiseconds::new(interval).unwrap());
        let with = |interval| {
            let dialect = Dialect::V3 { interval, checksum };
            encode(&Fields { dialect, ..crate::fixture::fields(&vips) }, pseudo)
        };
        let mut patched = with(before);
        patch_interval(&mut patched, after);
        prop_assert_eq!(patched, with(after));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        payload in vec(any::<u8>(), 0..300), strict: bool, dialect in prop_oneof![version_3_dialect(), version_2_dialect()],
    ) {
        for pseudo in [multicast4(), multicast6()] {
            let options = DecodeOptions { dialect, strict };
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
        let version_3 = [multicast4(), multicast6()].map(|pseudo| (version_3(ChecksumMode::Pseudo), pseudo));
        for (dialect, pseudo) in version_3.into_iter().chain([(version_2("secret12"), multicast4())]) {
            let mut frame = frame(pseudo, 255, &advert_in(dialect, pseudo));
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
