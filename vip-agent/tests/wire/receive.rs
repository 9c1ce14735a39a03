//! What IP and the RFCs would refuse is refused, and everything else is let in: each rule with its neighbour.

use vip_agent::types::{ChecksumMode, MacAddr};
use vip_agent::vrrp::codec::{Fields, PseudoHeader};
use vip_agent::vrrp::discard::Discard;
use vip_agent::vrrp::receive::{Packet, Received, Rules, Senders};

use crate::fixture::{
    MAC, OWN_MAC, advert, checksum, encode, fields, frame, ip, multicast_rules, multicast4, multicast6,
    pseudo, version_2,
};

const IPV4: usize = 14;
const IPV6: usize = 14;

fn good(pseudo: PseudoHeader) -> Vec<u8> {
    frame(pseudo, 255, &advert(pseudo, ChecksumMode::Pseudo))
}

fn unicast_rules(own: &str, peers: &[&str], min_ttl: Option<u8>) -> Rules {
    let peers = peers.iter().map(|peer| ip(peer)).collect();
    Rules { senders: Senders::Unicast { peers, min_ttl }, ..multicast_rules(own) }
}

fn receive<'a>(frame: &'a [u8], rules: &Rules) -> Result<Received<'a>, Discard> {
    Packet::parse(frame)?.accept(rules)
}

fn refused(frame: &[u8]) -> Option<Discard> {
    Packet::parse(frame).err()
}

/// The frame with some bytes of its IPv4 header changed and the header's checksum made right again.
fn with_ipv4_header(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let header = &mut frame[IPV4..IPV4 + 20];
    change(header);
    header[10..12].fill(0);
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum);
    frame
}

#[test]
fn a_multicast_advert_is_received_with_its_sender() {
    for (pseudo, own) in [(multicast4(), "192.0.2.2"), (multicast6(), "fe80::2")] {
        let frame = good(pseudo);
        let packet = Packet::parse(&frame).unwrap();
        assert_eq!((packet.family(), packet.virtual_router_id.get()), (pseudo.family(), 7));
        let received = packet.accept(&multicast_rules(own)).unwrap();
        assert_eq!((received.source, received.source_mac), (pseudo.source(), MacAddr(MAC)));
    }
}

#[test]
fn ethernet_padding_is_no_part_of_the_advert() {
    for (pseudo, own) in [(multicast4(), "192.0.2.2"), (multicast6(), "fe80::2")] {
        let mut frame = good(pseudo);
        frame.resize(frame.len() + 20, 0xaa);
        assert!(receive(&frame, &multicast_rules(own)).is_ok());
    }
}

#[test]
fn a_frame_that_ends_early_is_truncated_wherever_it_ends() {
    for pseudo in [multicast4(), multicast6()] {
        let frame = good(pseudo);
        for length in 0..frame.len() {
            assert_eq!(refused(&frame[..length]), Some(Discard::Truncated), "{length} bytes");
        }
    }
}

#[test]
fn other_ethertypes_are_not_ip() {
    for ethertype in [[0x08, 0x06], [0x81, 0x00]] {
        let mut frame = good(multicast4());
        frame[12..14].copy_from_slice(&ethertype);
        assert_eq!(refused(&frame), Some(Discard::NotIp));
    }
}

#[test]
fn the_ethertype_decides_the_version() {
    let mut frame = good(multicast6());
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    assert_eq!(refused(&frame), Some(Discard::BadIpHeader));
    let mut frame = good(multicast4());
    frame.resize(100, 0);
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    assert_eq!(refused(&frame), Some(Discard::BadIpHeader));
}

#[test]
fn an_ipv4_header_that_is_too_short_is_bad() {
    let frame = with_ipv4_header(good(multicast4()), |header| header[0] = 0x44);
    assert_eq!(refused(&frame), Some(Discard::BadIpHeader));
    let frame = with_ipv4_header(good(multicast4()), |header| header[2..4].copy_from_slice(&[0, 19]));
    assert_eq!(refused(&frame), Some(Discard::BadIpHeader));
}

#[test]
fn ipv4_options_are_skipped() {
    let mut frame = good(multicast4());
    // Router alert.
    frame.splice(IPV4 + 20..IPV4 + 20, [0x94, 0x04, 0, 0]);
    frame[IPV4] = 0x46;
    frame[IPV4 + 3] += 4;
    frame[IPV4 + 10..IPV4 + 12].fill(0);
    let sum = checksum(&frame[IPV4..IPV4 + 24]);
    frame[IPV4 + 10..IPV4 + 12].copy_from_slice(&sum);
    assert!(receive(&frame, &multicast_rules("192.0.2.2")).is_ok());
}

#[test]
fn a_wrong_ipv4_header_checksum_is_bad() {
    let mut frame = good(multicast4());
    frame[IPV4 + 10] ^= 1;
    assert_eq!(refused(&frame), Some(Discard::BadIpChecksum));
}

#[test]
fn first_and_later_fragments_are_refused_but_not_dont_fragment() {
    for (flags, expected) in
        [([0x20, 0], Some(Discard::Fragment)), ([0, 1], Some(Discard::Fragment)), ([0x40, 0], None)]
    {
        let frame = with_ipv4_header(good(multicast4()), |header| header[6..8].copy_from_slice(&flags));
        assert_eq!(refused(&frame), expected);
    }
}

#[test]
fn other_protocols_and_extension_headers_are_not_vrrp() {
    let frame = with_ipv4_header(good(multicast4()), |header| header[9] = 51);
    assert_eq!(refused(&frame), Some(Discard::NotVrrp));
    // Hop-by-hop options, fragment.
    for next_header in [0, 44] {
        let mut frame = good(multicast6());
        frame[IPV6 + 6] = next_header;
        assert_eq!(refused(&frame), Some(Discard::NotVrrp));
    }
}

#[test]
fn less_than_an_advert_header_is_too_short() {
    for pseudo in [multicast4(), multicast6()] {
        for length in 0..8 {
            assert_eq!(refused(&frame(pseudo, 255, &vec![0x31; length])), Some(Discard::TooShort));
        }
    }
}

#[test]
fn sources_that_no_host_has_are_refused() {
    for source in ["224.0.0.18", "255.255.255.255", "127.0.0.1", "0.0.0.0"] {
        assert_eq!(refused(&good(pseudo(source, "224.0.0.18"))), Some(Discard::BadSource), "{source}");
    }
    for source in ["ff02::12", "::1", "::"] {
        assert_eq!(refused(&good(pseudo(source, "ff02::12"))), Some(Discard::BadSource), "{source}");
    }
}

#[test]
fn multicast_with_ttl_254_is_refused() {
    for (pseudo, own) in [(multicast4(), "192.0.2.2"), (multicast6(), "fe80::2")] {
        for hop_limit in [254, 64, 1, 0] {
            let frame = frame(pseudo, hop_limit, &advert(pseudo, ChecksumMode::Pseudo));
            assert_eq!(receive(&frame, &multicast_rules(own)), Err(Discard::BadTtl));
        }
    }
}

/// The frame as it comes from this MAC.
fn from_mac(mut frame: Vec<u8>, mac: MacAddr) -> Vec<u8> {
    frame[6..12].copy_from_slice(&mac.0);
    frame
}

#[test]
fn adverts_from_our_own_address_are_refused_and_an_echo_is_told_from_another_host() {
    for (pseudo, own) in [(multicast4(), "192.0.2.1"), (multicast6(), "fe80::1")] {
        let rules = multicast_rules(own);
        assert_eq!(receive(&good(pseudo), &rules), Err(Discard::OwnSource));
        assert_eq!(receive(&from_mac(good(pseudo), OWN_MAC), &rules), Err(Discard::OwnMac));
    }
}

#[test]
fn another_address_behind_our_own_mac_is_heard_with_a_remark_and_refused_if_strict() {
    for (pseudo, own) in [(multicast4(), "192.0.2.2"), (multicast6(), "fe80::2")] {
        let mut rules = multicast_rules(own);
        let frame = from_mac(good(pseudo), OWN_MAC);
        assert_eq!(receive(&frame, &rules).unwrap().remark, Some(Discard::OwnMac));
        rules.decode.strict = true;
        assert_eq!(receive(&frame, &rules), Err(Discard::OwnMac));
    }
}

#[test]
fn unicast_to_a_multicast_instance_and_the_reverse_are_refused() {
    let unicast = good(pseudo("192.0.2.1", "192.0.2.2"));
    assert_eq!(receive(&unicast, &multicast_rules("192.0.2.2")), Err(Discard::WrongDestination));
    let rules = unicast_rules("192.0.2.2", &["192.0.2.1"], None);
    assert_eq!(receive(&good(multicast4()), &rules), Err(Discard::WrongDestination));
    let other_group = good(pseudo("192.0.2.1", "224.0.0.19"));
    assert_eq!(receive(&other_group, &multicast_rules("192.0.2.2")), Err(Discard::WrongDestination));
}

#[test]
fn unicast_is_accepted_from_peers_only() {
    let rules = unicast_rules("192.0.2.2", &["192.0.2.1", "192.0.2.3"], None);
    for (source, expected) in
        [("192.0.2.1", None), ("192.0.2.3", None), ("192.0.2.4", Some(Discard::UnknownPeer))]
    {
        let frame = good(pseudo(source, "192.0.2.2"));
        assert_eq!(receive(&frame, &rules).err(), expected, "{source}");
    }
}

#[test]
fn unicast_to_another_address_of_ours_is_refused() {
    let rules = unicast_rules("192.0.2.2", &["192.0.2.1"], None);
    let frame = good(pseudo("192.0.2.1", "192.0.2.9"));
    assert_eq!(receive(&frame, &rules), Err(Discard::WrongDestination));
}

#[test]
fn unicast_with_hop_limit_64_is_accepted_unless_min_ttl_says_more() {
    let peers = pseudo("2001:db8::1", "2001:db8::2");
    let frame = frame(peers, 64, &advert(peers, ChecksumMode::Pseudo));
    for (min_ttl, expected) in [
        (None, None),
        (Some(64), None),
        (Some(65), Some(Discard::BadTtl)),
        (Some(255), Some(Discard::BadTtl)),
    ] {
        let rules = unicast_rules("2001:db8::2", &["2001:db8::1"], min_ttl);
        assert_eq!(receive(&frame, &rules).err(), expected);
    }
}

#[test]
fn ipv6_multicast_from_a_global_address_is_refused_if_strict() {
    let frame = good(pseudo("2001:db8::1", "ff02::12"));
    let mut rules = multicast_rules("fe80::2");
    assert_eq!(receive(&frame, &rules).unwrap().remark, Some(Discard::SourceNotLinkLocal));
    rules.decode.strict = true;
    assert_eq!(receive(&frame, &rules), Err(Discard::SourceNotLinkLocal));
}

#[test]
fn ipv6_addresses_in_an_ipv4_packet_are_trailing_bytes() {
    let payload = advert(multicast6(), ChecksumMode::Pseudo);
    let frame = frame(multicast4(), 255, &payload);
    assert_eq!(receive(&frame, &multicast_rules("192.0.2.2")), Err(Discard::TrailingBytes));
}

/// Rules, an advert with another list, in both versions where both have it, and what is wrong with it.
fn foreign_lists() -> Vec<(Vec<u8>, Rules, Discard)> {
    let lists = |pseudo: PseudoHeader, own: &str, listed: &[&str], dialect, why| {
        let addresses: Vec<_> = listed.iter().map(|address| ip(address)).collect();
        let payload = encode(&Fields { dialect, ..fields(&addresses) }, pseudo);
        let mut rules = multicast_rules(own);
        rules.decode.dialect = dialect;
        (frame(pseudo, 255, &payload), rules, why)
    };
    let mut found = Vec::new();
    for dialect in [fields(&[]).dialect, version_2(""), version_2("secret12")] {
        let v4 = |listed, why| lists(multicast4(), "192.0.2.2", listed, dialect, why);
        found.push(v4(&["192.0.2.101"], Discard::VridClash));
        found.push(v4(&["192.0.2.100", "192.0.2.101"], Discard::AddressMismatch));
    }
    let v6 = |listed, why| lists(multicast6(), "fe80::2", listed, fields(&[]).dialect, why);
    found.push(v6(&["fe80::100"], Discard::AddressMismatch));
    found.push(v6(&["fe80::100", "2001:db8::3", "2001:db8::4"], Discard::AddressMismatch));
    found.push(v6(&["fe80::101", "2001:db8::4"], Discard::VridClash));
    found
}

#[test]
fn another_list_of_vips_is_accepted_with_a_remark() {
    let foreign = foreign_lists();
    assert_eq!(foreign.len(), 9);
    for (frame, rules, why) in foreign {
        assert_eq!(receive(&frame, &rules).unwrap().remark, Some(why));
    }
}

#[test]
fn another_list_of_vips_is_refused_if_strict() {
    for (frame, mut rules, why) in foreign_lists() {
        rules.decode.strict = true;
        assert_eq!(receive(&frame, &rules), Err(why));
    }
}

#[test]
fn the_list_of_an_address_owner_is_believed_in_version_2_even_if_strict() {
    let refused = [(version_2(""), None), (fields(&[]).dialect, Some(Discard::VridClash))];
    for (dialect, expected) in refused {
        let fields = Fields { priority: 255, dialect, ..fields(&[]) };
        let payload = encode(&Fields { addresses: &[ip("192.0.2.101")], ..fields }, multicast4());
        let mut rules = multicast_rules("192.0.2.2");
        rules.decode.dialect = dialect;
        rules.decode.strict = true;
        let frame = frame(multicast4(), 255, &payload);
        let received = receive(&frame, &rules);
        assert_eq!(received.err(), expected);
        if let Ok(received) = received {
            assert_eq!(received.remark, Some(Discard::VridClash));
        }
    }
}

#[test]
fn our_own_list_in_any_order_is_no_remark() {
    for (pseudo, own) in [(multicast4(), "192.0.2.2"), (multicast6(), "fe80::2")] {
        assert_eq!(receive(&good(pseudo), &multicast_rules(own)).unwrap().remark, None);
    }
    let listed = ["192.0.2.101", "192.0.2.100"].map(ip);
    let frame = frame(multicast4(), 255, &encode(&fields(&listed), multicast4()));
    let rules = Rules { vips: ["192.0.2.100", "192.0.2.101"].map(ip).into(), ..multicast_rules("192.0.2.2") };
    assert_eq!(receive(&frame, &rules).unwrap().remark, None);
}

#[test]
fn a_first_ipv6_address_that_is_not_link_local_is_a_remark_where_ours_is() {
    let listed = ["2001:db8::3", "fe80::100"].map(ip);
    let frame = frame(multicast6(), 255, &encode(&fields(&listed), multicast6()));
    let mut rules = multicast_rules("fe80::2");
    assert_eq!(receive(&frame, &rules).unwrap().remark, Some(Discard::FirstNotLinkLocal));
    rules.vips = listed.into();
    assert_eq!(receive(&frame, &rules).unwrap().remark, None);
    rules.decode.strict = true;
    assert_eq!(receive(&frame, &rules), Err(Discard::FirstNotLinkLocal));
}

#[test]
fn adverts_of_the_other_version_are_told_from_broken_ones() {
    let frame_of = |dialect| {
        let vips = [ip("192.0.2.100")];
        frame(multicast4(), 255, &encode(&Fields { dialect, ..fields(&vips) }, multicast4()))
    };
    let versions = [fields(&[]).dialect, version_2("")];
    for own in versions {
        for other in versions {
            let mut rules = multicast_rules("192.0.2.2");
            rules.decode.dialect = own;
            let expected = (own != other).then_some(Discard::VersionMismatch);
            assert_eq!(receive(&frame_of(other), &rules).err(), expected);
        }
    }
}

#[test]
fn any_number_of_unicast_peers_is_heard_in_both_versions() {
    let peers: Vec<String> = (0..1000_u16).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    for dialect in [fields(&[]).dialect, version_2("secret12")] {
        let vips = [ip("192.0.2.100")];
        let fields = Fields { dialect, ..fields(&vips) };
        let named: Vec<&str> = peers.iter().map(String::as_str).collect();
        let mut rules = unicast_rules("192.0.2.2", &named, None);
        rules.decode.dialect = dialect;
        for peer in &peers {
            let pseudo = pseudo(peer, "192.0.2.2");
            assert!(receive(&frame(pseudo, 255, &encode(&fields, pseudo)), &rules).is_ok(), "{peer}");
        }
    }
}
