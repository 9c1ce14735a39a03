//! What announcements say beyond what the golden frames show.

use etherparse::{ArpHardwareId, ArpOperation, LaxPacketHeaders, NetHeaders, PacketHeaders, TransportHeader};
use vip_agent::dataplane::announce::{Announcements, frame_to_itself, questions};
use vip_agent::types::MacAddr;

use crate::fixture::{MAC, ip};

#[test]
fn every_vip_is_announced_once_in_the_first_round_and_arp_again_in_the_second() {
    let vips = ["192.0.2.100", "2001:db8::100", "192.0.2.101", "fe80::5:100"].map(ip);
    let announcements = Announcements::build(vips, MacAddr(MAC), false);
    assert_eq!(announcements.first.iter().map(|frame| frame.len()).collect::<Vec<_>>(), [42, 86, 42, 86]);
    assert_eq!(announcements.second.iter().map(|frame| frame.len()).collect::<Vec<_>>(), [42, 42]);
}

#[test]
fn a_gratuitous_arp_reply_binds_the_vip_to_the_mac_twice() {
    let announcements = Announcements::build([ip("192.0.2.100")], MacAddr(MAC), false);
    let headers = PacketHeaders::from_ethernet_slice(&announcements.first[0]).unwrap();
    let link = headers.link.and_then(etherparse::LinkHeader::ethernet2).unwrap();
    assert_eq!((link.source, link.destination), (MAC, [0xff; 6]));
    let Some(NetHeaders::Arp(arp)) = headers.net else { panic!("not ARP") };
    assert_eq!(arp.operation, ArpOperation::REPLY);
    assert_eq!(arp.hw_addr_type, ArpHardwareId::ETHERNET);
    assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&MAC[..], &[192, 0, 2, 100][..]));
    assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&MAC[..], &[192, 0, 2, 100][..]));
}

#[test]
fn a_neighbour_advertisement_says_router_as_told_and_override_always() {
    for (router, flags) in [(true, 0xa0), (false, 0x20)] {
        let announcements = Announcements::build([ip("2001:db8::100")], MacAddr(MAC), router);
        let frame = &announcements.first[0];
        assert_eq!(frame[58], flags);
        let headers = LaxPacketHeaders::from_ethernet(frame).unwrap();
        let Some(NetHeaders::Ipv6(ipv6, _)) = headers.net else { panic!("not IPv6") };
        assert_eq!(ipv6.hop_limit, 255);
        let Some(TransportHeader::Icmpv6(icmp)) = headers.transport else { panic!("not ICMPv6") };
        let right =
            icmp.icmp_type.calc_checksum(ipv6.source, ipv6.destination, headers.payload.slice()).unwrap();
        assert_eq!(icmp.checksum, right);
    }
}

#[test]
fn a_question_by_arp_comes_from_no_address() {
    let asked = questions([ip("192.0.2.100")], MacAddr(MAC), None);
    let headers = PacketHeaders::from_ethernet_slice(&asked[0]).unwrap();
    let link = headers.link.and_then(etherparse::LinkHeader::ethernet2).unwrap();
    assert_eq!((link.source, link.destination), (MAC, [0xff; 6]));
    let Some(NetHeaders::Arp(arp)) = headers.net else { panic!("not ARP") };
    assert_eq!(arp.operation, ArpOperation::REQUEST);
    assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&MAC[..], &[0; 4][..]));
    assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&[0; 6][..], &[192, 0, 2, 100][..]));
}

#[test]
fn a_question_by_neighbour_solicitation_comes_from_an_address_of_ours() {
    let source = "fe80::1".parse().unwrap();
    let asked = questions([ip("2001:db8::12:3456")], MacAddr(MAC), Some(source));
    assert_eq!(asked[0][..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    let headers = LaxPacketHeaders::from_ethernet(&asked[0]).unwrap();
    let Some(NetHeaders::Ipv6(ipv6, _)) = headers.net else { panic!("not IPv6") };
    assert_eq!((ipv6.source_addr(), ipv6.hop_limit), (source, 255));
    assert_eq!(ipv6.destination_addr().to_string(), "ff02::1:ff12:3456");
    let Some(TransportHeader::Icmpv6(icmp)) = headers.transport else { panic!("not ICMPv6") };
    let right = icmp.icmp_type.calc_checksum(ipv6.source, ipv6.destination, headers.payload.slice()).unwrap();
    assert_eq!(icmp.checksum, right);
    assert_eq!(asked[0][54], 135);
    assert_eq!(asked[0][62..78], "2001:db8::12:3456".parse::<std::net::Ipv6Addr>().unwrap().octets());
    assert_eq!(asked[0][78..], [&[1, 1][..], &MAC].concat());
}

#[test]
fn without_an_address_of_ours_no_ipv6_vip_is_asked_for() {
    let asked = questions(["192.0.2.100", "2001:db8::100"].map(ip), MacAddr(MAC), None);
    assert_eq!(asked.len(), 1);
}

#[test]
fn a_frame_to_itself_is_of_the_shortest_length_and_no_protocol_in_use() {
    let frame = frame_to_itself(MacAddr(MAC));
    let headers = LaxPacketHeaders::from_ethernet(&frame).unwrap();
    let link = headers.link.and_then(etherparse::LinkHeader::ethernet2).unwrap();
    assert_eq!((link.source, link.destination, link.ether_type.0), (MAC, MAC, 0x88b5));
    assert_eq!(frame.len(), 60);
}
