//! The advert of version 2, one rule of RFC 3768 at a time, and the passwords of RFC 2338.

use vip_agent::types::{Family, Seconds, Version};
use vip_agent::vrrp::auth::Password;
use vip_agent::vrrp::codec::{
    Advert, DecodeOptions, Dialect, EncodeError, Fields, MAX_LEN, PseudoHeader, capacity,
};
use vip_agent::vrrp::discard::Discard;
use vip_agent::vrrp::prepared::PreparedAdverts;
use vip_agent::vrrp::receive::Packet;

use crate::fixture::{
    advert_in, encode, fields, frame, ip, multicast4, multicast6, pseudo, resummed, resummed_2, version_2,
};

const VERSION_TYPE: usize = 0;
const VRID: usize = 1;
const COUNT: usize = 3;
const AUTH_TYPE: usize = 4;
const INTERVAL: usize = 5;

/// One VIP, and no password unless said otherwise.
fn good(password: &str) -> Vec<u8> {
    advert_in(version_2(password), multicast4())
}

/// The refusal by a router without (or with) this password.
fn refusal(payload: &[u8], password: &str) -> Option<Discard> {
    let options = DecodeOptions { dialect: version_2(password), strict: false };
    Advert::decode(payload, multicast4(), options).err()
}

/// What becomes of a good advert, right checksum included, whose byte `at` is changed to `byte`.
fn with_byte(at: usize, byte: u8) -> Option<Discard> {
    let mut payload = good("");
    payload[at] = byte;
    refusal(&resummed_2(payload), "")
}

#[test]
fn an_advert_is_laid_out_as_rfc_3768_wants_it() {
    let payload = advert_in(version_2("secret"), multicast4());
    assert_eq!(payload[..6], [0x21, 7, 100, 1, 1, 1]);
    assert_eq!(payload[8..], *b"\xc0\0\x02\x64secret\0\0");
    let bare = good("");
    assert_eq!(bare[..6], [0x21, 7, 100, 1, 0, 1]);
    assert_eq!(bare[8..], [192, 0, 2, 100, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_checksum_covers_the_password_and_no_pseudo_header() {
    for password in ["", "secret12"] {
        let payload = good(password);
        assert_eq!(resummed_2(payload.clone()), payload);
        assert_eq!(refusal(&resummed(payload, multicast4()), password), Some(Discard::BadChecksum));
    }
    // The unicast peer that it goes to does not change it.
    assert_eq!(advert_in(version_2(""), pseudo("192.0.2.1", "192.0.2.2")), good(""));
}

#[test]
fn a_flipped_bit_anywhere_is_a_bad_checksum_or_worse() {
    for password in ["", "secret12"] {
        let good = good(password);
        for bit in 0..good.len() * 8 {
            let mut payload = good.clone();
            payload[bit / 8] ^= 1 << (bit % 8);
            assert!(refusal(&payload, password).is_some(), "bit {bit}");
        }
    }
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    let good = good("");
    for length in 0..good.len() {
        assert_eq!(refusal(&good[..length], ""), Some(Discard::TooShort), "{length} bytes");
    }
    for extra in [1, 4, 8] {
        let mut longer = good.clone();
        longer.resize(good.len() + extra, 0);
        assert_eq!(refusal(&resummed_2(longer), ""), Some(Discard::TrailingBytes));
    }
    assert_eq!(with_byte(COUNT, 3), Some(Discard::TooShort));
    assert_eq!(with_byte(COUNT, 255), Some(Discard::TooShort));
}

#[test]
fn other_types_versions_and_virtual_router_0_are_refused() {
    assert_eq!(with_byte(VERSION_TYPE, 0x22), Some(Discard::BadType));
    assert_eq!(with_byte(VERSION_TYPE, 0x20), Some(Discard::BadType));
    for version in [0, 1, 4, 15] {
        assert_eq!(with_byte(VERSION_TYPE, version << 4 | 1), Some(Discard::BadVersion));
    }
    assert_eq!(with_byte(VERSION_TYPE, 0x31), Some(Discard::VersionMismatch));
    assert_eq!(with_byte(VRID, 0), Some(Discard::ZeroVrid));
    assert_eq!(with_byte(COUNT, 0), Some(Discard::ZeroAddresses));
}

#[test]
fn another_interval_than_ours_is_refused() {
    assert_eq!(with_byte(INTERVAL, 0), Some(Discard::ZeroInterval));
    for interval in [2, 100, 255] {
        assert_eq!(with_byte(INTERVAL, interval), Some(Discard::IntervalMismatch));
    }
}

#[test]
fn the_right_password_is_accepted_and_a_wrong_or_missing_one_is_not() {
    for (theirs, ours, expected) in [
        ("", "", None),
        ("secret12", "secret12", None),
        ("s", "s", None),
        ("secret12", "secret13", Some(Discard::WrongPassword)),
        ("secret", "secret1", Some(Discard::WrongPassword)),
        ("secret1", "secret", Some(Discard::WrongPassword)),
        ("", "secret12", Some(Discard::AuthTypeMismatch)),
        ("secret12", "", Some(Discard::AuthTypeMismatch)),
    ] {
        assert_eq!(refusal(&good(theirs), ours), expected, "{theirs:?} to {ours:?}");
    }
}

#[test]
fn other_authentication_types_are_refused() {
    for auth_type in [2, 3, 254, 255] {
        assert_eq!(with_byte(AUTH_TYPE, auth_type), Some(Discard::UnknownAuthType));
        let mut payload = good("secret12");
        payload[AUTH_TYPE] = auth_type;
        assert_eq!(refusal(&resummed_2(payload), "secret12"), Some(Discard::UnknownAuthType));
    }
}

#[test]
fn authentication_data_is_sent_as_zeros_without_a_password_and_then_ignored() {
    let mut payload = good("");
    assert_eq!(payload[12..], [0; 8]);
    payload[12..].copy_from_slice(b"whatever");
    assert_eq!(refusal(&resummed_2(payload), ""), None);
}

#[test]
fn the_checksum_is_looked_at_before_the_password() {
    let mut payload = good("secret12");
    payload[19] ^= 1;
    assert_eq!(refusal(&payload, "secret12"), Some(Discard::BadChecksum));
}

#[test]
fn over_ipv6_there_is_no_version_2() {
    let vips = ["fe80::100", "2001:db8::3"].map(ip);
    let fields = Fields { dialect: version_2(""), ..fields(&vips) };
    let encoded = fields.encode(multicast6(), &mut [0; MAX_LEN]);
    assert_eq!(encoded, Err(EncodeError::Version2OverIpv6));
    let options = DecodeOptions { dialect: version_2(""), strict: false };
    assert_eq!(Advert::decode(&good(""), multicast6(), options), Err(Discard::BadVersion));
}

#[test]
fn every_unicast_peer_gets_the_same_advert_with_any_number_of_peers() {
    let (vips, source) = ([ip("192.0.2.100")], ip("192.0.2.1"));
    let peers: Vec<_> = (0..1000_u16).map(|n| ip(&format!("10.1.{}.{}", n / 250, n % 250 + 1))).collect();
    let dialect = version_2("secret12");
    let mut adverts = PreparedAdverts::build(&Fields { dialect, ..fields(&vips) }, source, &peers).unwrap();
    for priority in [100, 0, 255] {
        adverts.set_priority(priority);
        assert_eq!(adverts.iter().map(|(peer, _)| peer).collect::<Vec<_>>(), peers);
        for (peer, payload) in adverts.iter() {
            let pseudo = PseudoHeader::new(source, peer).unwrap();
            let advert = Advert::decode(payload, pseudo, DecodeOptions { dialect, strict: true }).unwrap();
            assert_eq!(advert.priority, priority);
        }
    }
}

#[test]
fn an_advert_of_255_addresses_and_a_password_is_read_back() {
    let vips: Vec<_> = (0..255_u8).map(|n| [10, 0, 0, n].into()).collect();
    let dialect = Dialect::V2 {
        interval: Seconds::new(255).unwrap(),
        password: Some(Password::new("secret12").unwrap()),
    };
    let payload = encode(&Fields { dialect, ..fields(&vips) }, multicast4());
    assert_eq!(payload.len(), 8 + 255 * 4 + 8);
    let advert = Advert::decode(&payload, multicast4(), DecodeOptions { dialect, strict: true }).unwrap();
    assert!(advert.lists(&vips));
    assert_eq!(capacity(Version::V2, Family::V4, 1500), 255);
    // 20 bytes of IP header, 8 before and 8 after the addresses.
    assert_eq!(capacity(Version::V2, Family::V4, 576), (576 - 36) / 4);
}

#[test]
fn no_debug_form_shows_a_password() {
    let (vips, dialect) = ([ip("192.0.2.100")], version_2("secret12"));
    let fields = Fields { dialect, ..fields(&vips) };
    let payload = encode(&fields, multicast4());
    let frame = frame(multicast4(), 255, &payload);
    let options = DecodeOptions { dialect, strict: false };
    let shown = [
        format!("{fields:?}"),
        format!("{options:?}"),
        format!("{:?}", PreparedAdverts::build(&fields, ip("192.0.2.1"), &[ip("224.0.0.18")]).unwrap()),
        format!("{:?}", Packet::parse(&frame).unwrap()),
        format!("{:?}", Advert::decode(&payload, multicast4(), options).unwrap()),
    ];
    // As text, and as a list of bytes: "secr".
    for shown in shown {
        assert!(!shown.contains("secret") && !shown.contains("115, 101, 99, 114"), "{shown}");
    }
}
