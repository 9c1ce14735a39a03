//! The advert of version 3, one rule of RFC 9568 at a time.

use vip_agent::types::{Centiseconds, ChecksumMode, Family, Version};
use vip_agent::vrrp::codec::{
    Advert, DecodeOptions, Dialect, EncodeError, Fields, HEADER_LEN, MAX_LEN, PseudoHeader, capacity,
};
use vip_agent::vrrp::discard::Discard;
use vip_agent::vrrp::prepared::PreparedAdverts;

use crate::fixture::{
    advert, altered, checksum, encode, fields, ip, multicast4, multicast6, pseudo, resummed, version_3,
};

const VERSION_TYPE: usize = 0;
const VRID: usize = 1;
const COUNT: usize = 3;
const INTERVAL_HIGH: usize = 4;
const INTERVAL_LOW: usize = 5;

const STRICT: DecodeOptions = options(ChecksumMode::Pseudo, true);
const LENIENT: DecodeOptions = options(ChecksumMode::Pseudo, false);

const fn options(checksum: ChecksumMode, strict: bool) -> DecodeOptions {
    DecodeOptions { dialect: version_3(checksum), strict }
}

fn both_families() -> [PseudoHeader; 2] {
    [multicast4(), multicast6()]
}

fn decode(payload: &[u8], pseudo: PseudoHeader) -> Result<Advert<'_>, Discard> {
    Advert::decode(payload, pseudo, LENIENT)
}

/// What becomes of a good advert, right checksum included, whose byte `at` is changed to `byte`.
fn with_byte(at: usize, byte: u8) -> [Option<Discard>; 2] {
    both_families().map(|pseudo| {
        let payload = altered(advert(pseudo, ChecksumMode::Pseudo), pseudo, at, byte);
        decode(&payload, pseudo).err()
    })
}

#[test]
fn a_good_advert_is_accepted_even_if_strict() {
    for pseudo in both_families() {
        let payload = advert(pseudo, ChecksumMode::Pseudo);
        let advert = Advert::decode(&payload, pseudo, STRICT).unwrap();
        assert_eq!((advert.virtual_router_id.get(), advert.priority), (7, 100));
        assert_eq!(advert.interval, Centiseconds::SECOND.into());
        assert!(!advert.first_not_link_local());
    }
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    for pseudo in both_families() {
        let good = advert(pseudo, ChecksumMode::Pseudo);
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length], pseudo), Err(Discard::TooShort), "{length} bytes");
        }
        for extra in [1, 4, 8, 16] {
            let mut longer = good.clone();
            longer.resize(good.len() + extra, 0);
            assert_eq!(decode(&resummed(longer, pseudo), pseudo), Err(Discard::TrailingBytes));
        }
    }
}

#[test]
fn type_2_is_refused() {
    assert_eq!(with_byte(VERSION_TYPE, 0x32), [Some(Discard::BadType); 2]);
    assert_eq!(with_byte(VERSION_TYPE, 0x30), [Some(Discard::BadType); 2]);
}

#[test]
fn versions_other_than_3_are_refused() {
    for version in [0, 1, 4, 15] {
        assert_eq!(with_byte(VERSION_TYPE, version << 4 | 1), [Some(Discard::BadVersion); 2]);
    }
}

#[test]
fn version_2_is_another_one_over_ipv4_and_none_over_ipv6() {
    for kind in [0x21, 0x22] {
        let refused = [Discard::VersionMismatch, Discard::BadVersion].map(Some);
        assert_eq!(with_byte(VERSION_TYPE, kind), refused);
    }
}

#[test]
fn virtual_router_0_is_refused() {
    assert_eq!(with_byte(VRID, 0), [Some(Discard::ZeroVrid); 2]);
}

#[test]
fn no_addresses_are_refused() {
    assert_eq!(with_byte(COUNT, 0), [Some(Discard::ZeroAddresses); 2]);
    for pseudo in both_families() {
        let header_only = advert(pseudo, ChecksumMode::Pseudo)[..HEADER_LEN].to_vec();
        let header_only = altered(header_only, pseudo, COUNT, 0);
        assert_eq!(decode(&header_only, pseudo), Err(Discard::ZeroAddresses));
    }
}

#[test]
fn more_addresses_than_the_packet_holds_are_refused() {
    assert_eq!(with_byte(COUNT, 3), [Some(Discard::TooShort); 2]);
    assert_eq!(with_byte(COUNT, 255), [Some(Discard::TooShort); 2]);
}

#[test]
fn interval_0_is_refused_whatever_the_reserved_bits_say() {
    for reserved in [0x00, 0xf0] {
        for pseudo in both_families() {
            let mut payload = advert(pseudo, ChecksumMode::Pseudo);
            payload[INTERVAL_LOW] = 0;
            let payload = altered(payload, pseudo, INTERVAL_HIGH, reserved);
            assert_eq!(decode(&payload, pseudo), Err(Discard::ZeroInterval));
        }
    }
}

#[test]
fn reserved_bits_are_accepted_and_ignored() {
    for pseudo in both_families() {
        let payload = altered(advert(pseudo, ChecksumMode::Pseudo), pseudo, INTERVAL_HIGH, 0xf0);
        let advert = Advert::decode(&payload, pseudo, STRICT).unwrap();
        assert_eq!(advert.interval, Centiseconds::SECOND.into());
    }
}

#[test]
fn reserved_bits_are_sent_as_0() {
    for pseudo in both_families() {
        assert_eq!(advert(pseudo, ChecksumMode::Pseudo)[INTERVAL_HIGH] & 0xf0, 0);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_a_bad_checksum_or_worse() {
    for pseudo in both_families() {
        let good = advert(pseudo, ChecksumMode::Pseudo);
        for bit in 0..good.len() * 8 {
            let mut payload = good.clone();
            payload[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&payload, pseudo).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn every_checksum_mode_is_sent_and_recognised() {
    let unicast = pseudo("192.0.2.1", "192.0.2.2");
    for mode in [ChecksumMode::Pseudo, ChecksumMode::Rfc9568, ChecksumMode::OldUnicast] {
        let payload = advert(unicast, mode);
        for checksum in [ChecksumMode::Pseudo, ChecksumMode::Rfc9568, ChecksumMode::OldUnicast] {
            let lenient = Advert::decode(&payload, unicast, options(checksum, false));
            assert_eq!(lenient.unwrap().checksum, mode);
            let strict = Advert::decode(&payload, unicast, options(checksum, true));
            assert_eq!(strict.is_ok(), checksum == mode);
        }
    }
}

#[test]
fn a_multicast_advert_of_the_old_kind_is_strictly_right_under_either_name() {
    let payload = advert(multicast4(), ChecksumMode::OldUnicast);
    for checksum in [ChecksumMode::Pseudo, ChecksumMode::OldUnicast] {
        assert!(Advert::decode(&payload, multicast4(), options(checksum, true)).is_ok());
    }
}

#[test]
fn over_ipv6_the_mode_changes_nothing() {
    let payload = advert(multicast6(), ChecksumMode::Rfc9568);
    assert_eq!(payload, advert(multicast6(), ChecksumMode::Pseudo));
    let strict = options(ChecksumMode::Rfc9568, true);
    assert!(Advert::decode(&payload, multicast6(), strict).is_ok());
}

#[test]
fn an_ipv6_advert_without_a_pseudo_header_is_refused() {
    let mut payload = advert(multicast6(), ChecksumMode::Pseudo);
    payload[6..8].fill(0);
    let bare = checksum(&payload);
    payload[6..8].copy_from_slice(&bare);
    assert_eq!(decode(&payload, multicast6()), Err(Discard::BadChecksum));
}

#[test]
fn a_first_ipv6_address_that_is_not_link_local_is_flagged_and_strictly_refused() {
    let addresses = [ip("2001:db8::3"), ip("fe80::100")];
    let payload = encode(&fields(&addresses), multicast6());
    assert!(decode(&payload, multicast6()).unwrap().first_not_link_local());
    assert_eq!(Advert::decode(&payload, multicast6(), STRICT), Err(Discard::FirstNotLinkLocal));
}

#[test]
fn the_checksums_are_those_of_scapy() {
    let over = |source, destination, addresses: [&str; 2]| {
        let addresses = addresses.map(ip);
        let fields = Fields {
            virtual_router_id: 2.try_into().unwrap(),
            priority: 254,
            dialect: Dialect::V3 { interval: Centiseconds::new(1).unwrap(), checksum: ChecksumMode::Pseudo },
            addresses: &addresses,
        };
        let payload = encode(&fields, pseudo(source, destination));
        u16::from_be_bytes([payload[6], payload[7]])
    };
    assert_eq!(over("20.0.0.3", "224.0.0.18", ["20.0.1.2", "20.0.1.3"]), 0xb25e);
    assert_eq!(over("2001:db8::1", "ff02::12", ["2001:db8::2", "2001:db8::3"]), 0x481b);
}

#[test]
fn a_list_is_compared_without_regard_to_order() {
    let (a, b, c) = (ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.3"));
    let payload = encode(&fields(&[a, b]), multicast4());
    let advert = decode(&payload, multicast4()).unwrap();
    assert!(advert.lists(&[a, b]) && advert.lists(&[b, a]));
    assert!(!advert.lists(&[a]) && !advert.lists(&[a, c]) && !advert.lists(&[a, b, c]));
    let twice = encode(&fields(&[a, a]), multicast4());
    let twice = decode(&twice, multicast4()).unwrap();
    assert!(!twice.lists(&[a, b]));
}

#[test]
fn what_cannot_be_said_is_not_encoded() {
    let mut buffer = [0; MAX_LEN];
    let mut refused = |addresses: &[_], space: usize| {
        fields(addresses).encode(multicast4(), &mut buffer[..space]).unwrap_err()
    };
    let v4 = ip("192.0.2.1");
    assert_eq!(refused(&[], MAX_LEN), EncodeError::NoAddresses);
    assert_eq!(refused(&[v4; 256], MAX_LEN), EncodeError::TooManyAddresses(256));
    assert_eq!(refused(&[v4], 11), EncodeError::BufferTooSmall { needed: 12, found: 11 });
    let (address, family) = (ip("2001:db8::1"), Family::V4);
    assert_eq!(refused(&[v4, address], MAX_LEN), EncodeError::WrongFamily { address, family });
}

#[test]
fn adverts_are_prepared_for_one_family_only() {
    let addresses = [ip("192.0.2.100")];
    let (source, other) = (ip("192.0.2.1"), ip("2001:db8::1"));
    let built = PreparedAdverts::build(&fields(&addresses), source, &[other]);
    assert_eq!(built, Err(EncodeError::WrongFamily { address: other, family: Family::V4 }));
}

#[test]
fn every_unicast_peer_gets_a_checksum_of_its_own() {
    let (addresses, source) = ([ip("192.0.2.100")], ip("192.0.2.1"));
    let peers = [ip("192.0.2.2"), ip("192.0.2.3")];
    let mut adverts = PreparedAdverts::build(&fields(&addresses), source, &peers).unwrap();
    for priority in [100, 255, 0, 1] {
        adverts.set_priority(priority);
        assert_eq!(adverts.iter().map(|(peer, _)| peer).collect::<Vec<_>>(), peers);
        for (peer, payload) in adverts.iter() {
            let advert = Advert::decode(payload, PseudoHeader::new(source, peer).unwrap(), STRICT).unwrap();
            assert_eq!(advert.priority, priority);
        }
    }
}

#[test]
fn an_mtu_bounds_the_addresses_of_an_advert() {
    assert_eq!(capacity(Version::V3, Family::V4, 1500), 255);
    assert_eq!(capacity(Version::V3, Family::V6, 1500), (1500 - 40 - 8) / 16);
    assert_eq!(capacity(Version::V3, Family::V6, 9000), 255);
    assert_eq!(capacity(Version::V3, Family::V4, 20), 0);
}
