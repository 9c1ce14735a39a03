//! The authentication trailer: what is signed is heard, by whom, and any change of it is not.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use vip_agent::types::ChecksumMode;
use vip_agent::vrrp::codec::{Dialect, Fields, PseudoHeader};
use vip_agent::vrrp::discard::Discard;
use vip_agent::vrrp::prepared::PreparedAdverts;
use vip_agent::vrrp::receive::{Packet, Received, Rules};
use vip_agent::vrrp::trailer::{AuthRules, Epoch, KeyRing, LEN, Signer, Stamps};

use crate::fixture::{
    advert, advert_in, fields, frame, ip, multicast_rules, multicast4, multicast6, pseudo, version_2,
    version_3, vips,
};

const ONE: &str = "5e";
const OTHER: &str = "0f";

/// Keys by the byte that each is made of.
fn ring(keys: &[&str]) -> KeyRing {
    let lines: Vec<String> = keys.iter().map(|key| key.repeat(32)).collect();
    KeyRing::parse(&lines.join("\n")).expect("keys")
}

fn stamps() -> Arc<Stamps> {
    Arc::new(Stamps::begin(Epoch::after(None, UNIX_EPOCH + Duration::from_secs(1_800_000_000))))
}

fn prepared(dialect: Dialect, pseudo: PseudoHeader, keys: &[&str]) -> PreparedAdverts {
    let vips = vips(pseudo);
    let fields = Fields { dialect, ..fields(&vips) };
    let built = PreparedAdverts::build(&fields, pseudo.source(), &[pseudo.destination()]).expect("adverts");
    built.signed_by(Some(Signer::new(ring(keys), stamps())))
}

/// The payload of the fixture's advert, signed by the first of these keys.
fn signed_in(dialect: Dialect, pseudo: PseudoHeader, keys: &[&str]) -> Vec<u8> {
    let mut adverts = prepared(dialect, pseudo, keys);
    adverts.sign();
    adverts.iter().map(|(_, advert)| advert.to_vec()).next().expect("one")
}

fn signed(pseudo: PseudoHeader, keys: &[&str]) -> Vec<u8> {
    signed_in(version_3(ChecksumMode::Pseudo), pseudo, keys)
}

/// What takes adverts in this dialect that are signed by any of these keys; by none: without a trailer.
fn rules(dialect: Dialect, own: &str, keys: &[&str], accept_unsigned: bool) -> Rules {
    let mut rules = multicast_rules(own);
    rules.decode.dialect = dialect;
    rules.auth = (!keys.is_empty()).then(|| AuthRules { keys: ring(keys), accept_unsigned });
    rules
}

fn rules_3(own: &str, keys: &[&str], accept_unsigned: bool) -> Rules {
    rules(version_3(ChecksumMode::Pseudo), own, keys, accept_unsigned)
}

fn receive<'a>(frame: &'a [u8], rules: &Rules) -> Result<Received<'a>, Discard> {
    Packet::parse(frame)?.accept(rules)
}

/// Every dialect over every family that has it, with the receiver's address.
fn speeches() -> Vec<(Dialect, PseudoHeader, &'static str)> {
    vec![
        (version_3(ChecksumMode::Pseudo), multicast4(), "192.0.2.2"),
        (version_3(ChecksumMode::Rfc9568), multicast4(), "192.0.2.2"),
        (version_3(ChecksumMode::Pseudo), multicast6(), "fe80::2"),
        (version_2(""), multicast4(), "192.0.2.2"),
        (version_2("secret12"), multicast4(), "192.0.2.2"),
    ]
}

#[test]
fn the_bytes_are_those_that_another_implementation_makes() {
    // By Python's hmac and hashlib.
    let expected = "310764010064059ec0000264\
                    5650413159bb9d4e1ad2748000000000\
                    96d5c9dc4258fd37ffe52d1cce21ef9e8a67283f79d2cde76d998a054f03ec8b";
    let hex: String = signed(multicast4(), &[ONE]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected);
}

#[test]
fn what_is_signed_is_heard_and_tells_its_stamp() {
    for (dialect, pseudo, own) in speeches() {
        let mut adverts = prepared(dialect, pseudo, &[ONE]);
        let mut last = None;
        for _ in 0..3 {
            adverts.sign();
            let (_, payload) = adverts.iter().next().unwrap();
            let frame = frame(pseudo, 255, payload);
            let received = receive(&frame, &rules(dialect, own, &[ONE], false)).unwrap();
            assert_eq!((received.remark, received.source), (None, pseudo.source()));
            assert!(received.advert.lists(&vips(pseudo)));
            let stamp = received.signed.unwrap().stamp;
            assert!(last < Some(stamp), "each advert is later than the one before");
            last = Some(stamp);
        }
    }
}

#[test]
fn another_priority_is_signed_with_the_next_advert() {
    let mut adverts = prepared(version_3(ChecksumMode::Pseudo), multicast4(), &[ONE]);
    for priority in [0, 100, 255] {
        adverts.set_priority(priority);
        adverts.sign();
        let frame = frame(multicast4(), 255, adverts.iter().next().unwrap().1);
        let received = receive(&frame, &rules_3("192.0.2.2", &[ONE], false)).unwrap();
        assert_eq!(received.advert.priority, priority);
    }
}

#[test]
fn a_farewell_for_later_is_later_than_all_that_is_said_until_then() {
    let mut adverts = prepared(version_3(ChecksumMode::Pseudo), multicast4(), &[ONE]);
    let stamp = |adverts: &PreparedAdverts| {
        let frame = frame(multicast4(), 255, adverts.iter().next().unwrap().1);
        receive(&frame, &rules_3("192.0.2.2", &[ONE], false)).unwrap().signed.unwrap().stamp
    };
    let mut farewell = adverts.clone();
    farewell.sign_farewell();
    for _ in 0..1000 {
        adverts.sign();
        assert!(stamp(&adverts) < stamp(&farewell));
    }
}

#[test]
fn the_frame_of_a_virtual_mac_holds_the_trailer_within_its_packet() {
    for (pseudo, own) in [(multicast4(), "192.0.2.2"), (multicast6(), "fe80::2")] {
        let mac = vip_agent::types::MacAddr([0, 0, 0x5e, 0, 1, 7]);
        let mut framed = prepared(version_3(ChecksumMode::Pseudo), pseudo, &[ONE]).in_frame(mac);
        framed.sign();
        let (_, bytes) = framed.iter().next().unwrap();
        let received = receive(bytes, &rules_3(own, &[ONE], false)).unwrap();
        assert!(received.signed.is_some() && received.source_mac == mac);
    }
}

#[test]
fn a_key_is_rotated_without_a_gap() {
    // Who is where in the three steps: the new key comes second, then first, then alone. Each meets its neighbours.
    let steps: [&[&str]; 4] = [&[ONE], &[ONE, OTHER], &[OTHER, ONE], &[OTHER]];
    for (index, sender) in steps.iter().enumerate() {
        for (other, receiver) in steps.iter().enumerate() {
            let frame = frame(multicast4(), 255, &signed(multicast4(), sender));
            let heard = receive(&frame, &rules_3("192.0.2.2", receiver, false)).map(drop);
            let expected = if receiver.contains(&sender[0]) { Ok(()) } else { Err(Discard::UnknownKey) };
            assert_eq!(heard, expected, "{sender:?} to {receiver:?}");
            assert!(heard.is_ok() || index.abs_diff(other) > 1, "neighbouring steps do not meet");
        }
    }
}

#[test]
fn what_is_not_signed_is_refused_unless_the_group_is_changing_over() {
    for (dialect, pseudo, own) in speeches() {
        let frame = frame(pseudo, 255, &advert_in(dialect, pseudo));
        assert_eq!(receive(&frame, &rules(dialect, own, &[ONE], false)), Err(Discard::Unsigned));
        let mut changing_over = rules(dialect, own, &[ONE], true);
        for strict in [false, true] {
            changing_over.decode.strict = strict;
            let received = receive(&frame, &changing_over).unwrap();
            assert_eq!((received.remark, received.signed), (Some(Discard::Unsigned), None));
        }
    }
}

#[test]
fn who_has_no_key_hears_the_message_as_if_it_were_not_signed() {
    for (dialect, pseudo, own) in speeches() {
        let frame = frame(pseudo, 255, &signed_in(dialect, pseudo, &[ONE]));
        for strict in [false, true] {
            let mut rules = rules(dialect, own, &[], false);
            rules.decode.strict = strict;
            let received = receive(&frame, &rules).unwrap();
            assert_eq!((received.remark, received.signed), (Some(Discard::UnexpectedTrailer), None));
            assert!(received.advert.lists(&vips(pseudo)));
        }
    }
}

#[test]
fn even_who_changes_over_refuses_a_wrong_signature() {
    let payload = signed(multicast4(), &[OTHER]);
    let frame = frame(multicast4(), 255, &payload);
    assert_eq!(receive(&frame, &rules_3("192.0.2.2", &[ONE], true)), Err(Discard::UnknownKey));
}

#[test]
fn bytes_of_another_length_are_no_trailer() {
    for length in [1, 4, LEN - 1, LEN + 1, 2 * LEN] {
        let mut payload = advert(multicast4(), ChecksumMode::Pseudo);
        payload.extend(b"VPA1".iter().copied().cycle().take(length));
        let frame = frame(multicast4(), 255, &payload);
        for keys in [&[][..], &[ONE]] {
            assert_eq!(receive(&frame, &rules_3("192.0.2.2", keys, true)), Err(Discard::TrailingBytes));
        }
    }
}

/// From one pair of addresses to another, where the message itself does not tell.
#[test]
fn a_signature_is_of_its_source_and_destination() {
    let dialect = version_3(ChecksumMode::Rfc9568);
    let payload = signed_in(dialect, multicast4(), &[ONE]);
    let elsewhere: IpAddr = ip("192.0.2.9");
    let moved = pseudo(&elsewhere.to_string(), "224.0.0.18");
    let frame = frame(moved, 255, &payload);
    assert_eq!(receive(&frame, &rules(dialect, "192.0.2.2", &[ONE], false)), Err(Discard::BadSignature));

    let to_one = pseudo("192.0.2.1", "192.0.2.3");
    let payload = signed_in(dialect, to_one, &[ONE]);
    let to_another = crate::fixture::frame(pseudo("192.0.2.1", "192.0.2.2"), 255, &payload);
    let mut rules = rules(dialect, "192.0.2.2", &[ONE], false);
    let peers = vec![ip("192.0.2.1")];
    rules.senders = vip_agent::vrrp::receive::Senders::Unicast { peers, min_ttl: None };
    assert_eq!(receive(&to_another, &rules), Err(Discard::BadSignature));
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(speech in 0..5_usize, at: prop::sample::Index, bit in 0..8_u8) {
        let (dialect, pseudo, own) = speeches()[speech];
        let mut payload = signed_in(dialect, pseudo, &[ONE]);
        let at = at.index(payload.len());
        payload[at] ^= 1 << bit;
        let frame = frame(pseudo, 255, &payload);
        let heard = receive(&frame, &rules(dialect, own, &[ONE, OTHER], false));
        prop_assert!(heard.is_err(), "byte {at}, bit {bit}: {heard:?}");
    }

    #[test]
    fn a_repaired_checksum_does_not_help(at in 0..12_usize, byte: u8) {
        let mut payload = signed_in(version_2(""), multicast4(), &[ONE]);
        prop_assume!(payload[at] != byte && !(6..8).contains(&at));
        payload[at] = byte;
        let (message, trailer) = payload.split_at(20);
        let payload = [&crate::fixture::resummed_2(message.to_vec()), trailer].concat();
        let frame = frame(multicast4(), 255, &payload);
        prop_assert!(receive(&frame, &rules(version_2(""), "192.0.2.2", &[ONE], false)).is_err());
    }

    #[test]
    fn any_trailer_is_read_without_harm(trailer in prop::collection::vec(any::<u8>(), 0..100), magic: bool) {
        let mut payload = advert(multicast4(), ChecksumMode::Pseudo);
        payload.extend(if magic { &b"VPA1"[..] } else { &[] });
        payload.extend(trailer);
        let frame = frame(multicast4(), 255, &payload);
        let heard = receive(&frame, &rules_3("192.0.2.2", &[ONE], false));
        prop_assert!(heard.is_err());
    }
}
