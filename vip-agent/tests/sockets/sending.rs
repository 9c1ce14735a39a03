//! An advert that is sent arrives as RFC 9568 wants it.

use vip_agent::types::{Family, MacAddr, MonotonicTime, VirtualRouterId};
use vip_agent::vrrp::receive::{Packet, Senders};
use vip_agent::vrrp::socket::PacketReceiver;

use crate::fixture::{
    FAMILIES, Wire, adverts, framed, ip, multicast_adverts, near_sender, near_source, receive, receive_now,
    send_multicast, strict_rules,
};

#[test]
fn a_multicast_advert_arrives_and_passes_every_check() {
    let wire = Wire::new();
    for (family, far) in FAMILIES.into_iter().zip(["192.0.2.2", "fe80::2"]) {
        let mut receiver = wire.far_receiver(family);
        let sender = near_sender(&wire, near_source(family));
        let before = MonotonicTime::now();
        sender.send(&multicast_adverts(family)).unwrap();
        let frame = receive(&mut receiver, 1).remove(0);
        let packet = Packet::parse(&frame.bytes).unwrap();
        let received = packet.accept(&strict_rules(far, Senders::Multicast)).unwrap();
        assert_eq!(received.source, near_source(family));
        assert_eq!(packet.hop_limit, 255);
        assert_eq!(traffic_class(&frame.bytes, family), 0xc0);
        assert!(!frame.truncated);
        assert!(before <= frame.arrival && frame.arrival <= MonotonicTime::now());
    }
}

#[test]
fn an_advert_from_a_virtual_mac_arrives_and_passes_every_check() {
    let wire = Wire::new();
    for (family, far) in FAMILIES.into_iter().zip(["192.0.2.2", "fe80::2"]) {
        let mut receiver = wire.far_receiver(family);
        let (sender, mut adverts) = framed(&wire, family);
        for priority in [100, 0, 255] {
            adverts.set_priority(priority);
            sender.send(&adverts).unwrap();
            let frame = receive(&mut receiver, 1).remove(0);
            let packet = Packet::parse(&frame.bytes).unwrap();
            let received = packet.accept(&strict_rules(far, Senders::Multicast)).unwrap();
            let id = VirtualRouterId::new(7).unwrap();
            assert_eq!(received.source_mac, MacAddr::of_virtual_router(id, family));
            assert_eq!((received.source, received.advert.priority), (near_source(family), priority));
            assert_eq!(packet.hop_limit, 255);
            assert_eq!(traffic_class(&frame.bytes, family), 0xc0);
        }
    }
}

#[test]
fn a_rehearsal_leaves_nothing_on_the_wire() {
    let wire = Wire::new();
    for family in FAMILIES {
        let mut receiver = wire.far_receiver(family);
        let (sender, adverts) = (near_sender(&wire, near_source(family)), multicast_adverts(family));
        assert_eq!(sender.rehearse(&adverts).unwrap(), family == Family::V4, "{family}");
        sender.send(&adverts).unwrap();
        let frames = receive(&mut receiver, 1);
        assert_eq!(hop_limit(&frames[0].bytes, family), 255, "{family}: the advert itself came first");
        assert!(receive_now(&mut receiver).is_empty(), "{family}: and nothing else");
    }
}

fn hop_limit(frame: &[u8], family: Family) -> u8 {
    match family {
        Family::V4 => frame[22],
        Family::V6 => frame[21],
    }
}

fn traffic_class(frame: &[u8], family: Family) -> u8 {
    match family {
        Family::V4 => frame[15],
        Family::V6 => frame[14] << 4 | frame[15] >> 4,
    }
}

#[test]
fn unicast_adverts_reach_every_peer_with_a_checksum_of_its_own() {
    let wire = Wire::new();
    for (family, source, peers) in [
        (Family::V4, "192.0.2.1", ["192.0.2.2", "192.0.2.3"]),
        (Family::V6, "2001:db8::1", ["2001:db8::2", "2001:db8::3"]),
    ] {
        let mut receiver = wire.far_receiver(family);
        let sender = near_sender(&wire, ip(source));
        sender.send(&adverts(ip(source), &peers.map(ip))).unwrap();
        let frames = receive(&mut receiver, 2);
        for peer in peers {
            let senders = Senders::Unicast { peers: vec![ip(source)], min_ttl: Some(255) };
            let rules = strict_rules(peer, senders);
            let accepted =
                frames.iter().filter(|frame| Packet::parse(&frame.bytes).unwrap().accept(&rules).is_ok());
            assert_eq!(accepted.count(), 1, "{peer}");
        }
    }
}

#[test]
fn unicast_over_link_local_addresses_stays_on_its_interface() {
    let wire = Wire::new();
    let mut receiver = wire.far_receiver(Family::V6);
    let sender = near_sender(&wire, ip("fe80::1"));
    sender.send(&adverts(ip("fe80::1"), &[ip("fe80::2")])).unwrap();
    let frame = receive(&mut receiver, 1).remove(0);
    let senders = Senders::Unicast { peers: vec![ip("fe80::1")], min_ttl: Some(255) };
    assert!(Packet::parse(&frame.bytes).unwrap().accept(&strict_rules("fe80::2", senders)).is_ok());
}

#[test]
fn the_sender_does_not_hear_itself() {
    let wire = Wire::new();
    for family in FAMILIES {
        let mut far = wire.far_receiver(family);
        let mut near = PacketReceiver::open(&wire.near, family).unwrap();
        near.join_group().unwrap();
        send_multicast(&wire, family);
        receive(&mut far, 1);
        assert!(receive_now(&mut near).is_empty());
    }
}
