//! Fuzz targets: any payload to the decoder, any frame to the receiver, each against the model.
//!
//! As tests they take the corpus and a few seconds of random bytes; `cargo xtask fuzz codec` and `frame` look for long, led by
//! coverage. Each input is taken as it is and made sound, since random bytes are not.

use std::time::Duration;

use bolero::check;
use vip_agent::types::{AdvertInterval, ChecksumMode, VirtualRouterId};
use vip_agent::vrrp::codec::{Advert, DecodeOptions, Dialect, Fields, GROUP_V4, PseudoHeader};
use vip_agent::vrrp::receive::{Packet, Rules, Senders};

use crate::fixture::{
    checksum, encode, frame, ip, multicast_rules, multicast4, multicast6, resummed, resummed_2, version_2,
    version_3,
};
use crate::model::{Said, delivered, heard, said};

const IPV4: [u8; 2] = [0x08, 0x00];

/// How long random inputs are tried.
fn time() -> Duration {
    Duration::from_secs(if std::env::var_os("VIPLANE_FULL").is_some() { 60 } else { 2 })
}

#[test]
fn any_payload_is_read_as_the_model_reads_it() {
    check!(name = "codec").with_test_time(time()).with_iterations(usize::MAX).with_max_len(4096).for_each(
        |payload: &[u8]| {
            let unicast =
                PseudoHeader::V4 { source: [192, 0, 2, 1].into(), destination: [192, 0, 2, 2].into() };
            for pseudo in [multicast4(), unicast, multicast6()] {
                for payload in [Some(payload.to_vec()), sound(payload, pseudo, 2), sound(payload, pseudo, 3)]
                {
                    for options in options() {
                        read(payload.as_deref().unwrap_or_default(), pseudo, options);
                    }
                }
            }
        },
    );
}

#[test]
fn any_frame_is_received_as_the_model_receives_it() {
    check!(name = "frame").with_test_time(time()).with_iterations(usize::MAX).with_max_len(2048).for_each(
        |input: &[u8]| {
            receive(input);
            receive(&ip_mended(input));
            for pseudo in [multicast4(), multicast6()] {
                for version in [2, 3] {
                    let payload = sound(input, pseudo, version).unwrap_or_else(|| input.to_vec());
                    receive(&frame(pseudo, 255, &payload));
                }
            }
        },
    );
}

/// Of either version, strict and not, with each checksum, with a password and without.
fn options() -> impl Iterator<Item = DecodeOptions> {
    let modes = [ChecksumMode::Pseudo, ChecksumMode::Rfc9568, ChecksumMode::OldUnicast];
    let dialects = modes.map(version_3).into_iter().chain([version_2(""), version_2("secret12")]);
    dialects.flat_map(|dialect| [false, true].map(|strict| DecodeOptions { dialect, strict }))
}

fn rules() -> impl Iterator<Item = Rules> {
    let owns = ["192.0.2.2", "192.0.2.1", "fe80::2", "fe80::1"];
    options().flat_map(move |decode| {
        owns.into_iter().flat_map(move |own| {
            let multicast = Rules { decode, ..multicast_rules(own) };
            let peers = vec![ip("192.0.2.1"), ip("fe80::1"), ip("2001:db8::1")];
            let senders = Senders::Unicast { peers, min_ttl: decode.strict.then_some(255) };
            [Rules { senders, ..multicast.clone() }, multicast]
        })
    })
}

/// The decoder agrees with the model, and what was read is written back as it was.
fn read(payload: &[u8], pseudo: PseudoHeader, options: DecodeOptions) {
    let advert = Advert::decode(payload, pseudo, options).ok();
    let read = advert.as_ref().map(values);
    assert_eq!(read, said(payload, pseudo, options), "{options:?}");
    let Some(advert) = advert else { return };
    let addresses: Vec<_> = advert.addresses().collect();
    let dialect = match (advert.interval, options.dialect) {
        (AdvertInterval::V3(interval), Dialect::V3 { .. }) => {
            Dialect::V3 { interval, checksum: advert.checksum }
        }
        (_, own) => own,
    };
    let virtual_router_id = advert.virtual_router_id;
    let fields = Fields { virtual_router_id, priority: advert.priority, dialect, addresses: &addresses };
    let written = encode(&fields, pseudo);
    assert_eq!(bare(&written, dialect), bare(payload, dialect));
    let again = Advert::decode(&written, pseudo, options).expect("what we write we read");
    assert_eq!(values(&again), values(&advert));
}

fn values(advert: &Advert<'_>) -> Said {
    Said {
        vrid: advert.virtual_router_id.get(),
        priority: advert.priority,
        interval: advert.interval,
        addresses: advert.addresses().collect(),
    }
}

/// Without what may differ in what says the same: the checksum, reserved bits, authentication data of type 0.
fn bare(payload: &[u8], dialect: Dialect) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload[6..8].fill(0);
    match dialect {
        Dialect::V3 { .. } => payload[4] &= 0x0f,
        Dialect::V2 { password: None, .. } => payload.truncate(payload.len() - 8),
        Dialect::V2 { .. } => {}
    }
    payload
}

/// The receiver agrees with the model.
fn receive(frame: &[u8]) {
    let packet = Packet::parse(frame).ok();
    let expected = delivered(frame);
    assert_eq!(
        packet.as_ref().map(|packet| (packet.addresses, packet.hop_limit, packet.virtual_router_id)),
        expected.as_ref().map(|packet| {
            let vrid = VirtualRouterId::new(packet.payload[1]).expect("the model has looked");
            (packet.pseudo, packet.hop_limit, vrid)
        })
    );
    let (Some(packet), Some(expected)) = (packet, expected) else { return };
    for rules in rules() {
        let received = packet.accept(&rules).ok();
        let heard = heard(&expected, &rules);
        match &received {
            Some(received) => {
                assert_eq!(Some(values(&received.advert)), heard, "{rules:?}");
                assert_eq!(
                    (received.source, &received.source_mac.0[..]),
                    (expected.pseudo.source(), &frame[6..12])
                );
                let lists_ours = received.advert.lists(&rules.vips);
                assert!(lists_ours || received.remark.is_some(), "another list passes without a word");
            }
            // Strict rules refuse more than the model knows of.
            None => assert!(heard.is_none() || rules.decode.strict, "{rules:?} does not hear {heard:?}"),
        }
    }
}

/// An advert of these bytes whose version, type, count and checksum are right, if it has room for an address.
fn sound(bytes: &[u8], pseudo: PseudoHeader, version: u8) -> Option<Vec<u8>> {
    let trailer = if version == 2 { 8 } else { 0 };
    let width = if matches!(pseudo, PseudoHeader::V4 { .. }) { 4 } else { 16 };
    let count = u8::try_from((bytes.len().checked_sub(8 + trailer)? / width).min(255)).ok()?;
    let mut payload = bytes.get(..8 + usize::from(count) * width + trailer)?.to_vec();
    payload[0] = version << 4 | 1;
    payload[3] = count;
    if version == 3 {
        return Some(resummed(payload, pseudo));
    }
    // Often enough that of the instances.
    payload[4] &= 1;
    payload[5] = payload[5].min(1);
    if payload[4] == 1 && payload[2] & 1 == 1 {
        let data = payload.len() - 8;
        payload[data..].copy_from_slice(b"secret12");
    }
    Some(resummed_2(payload))
}

/// The frame with a right checksum in its IPv4 header, if it has one; to the group if it goes nowhere.
fn ip_mended(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.get(12..14) == Some(&IPV4)
        && let Some(&first) = frame.get(14)
        && let Some(header) = frame.get_mut(14..14 + usize::from(first & 0xf) * 4)
        && header.len() >= 20
    {
        if header[16..20] == [0; 4] {
            header[16..20].copy_from_slice(&GROUP_V4.octets());
        }
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum);
    }
    frame
}
