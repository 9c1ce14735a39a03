//! Adverts and frames, one builder call each. Packets are assembled by etherparse: an oracle that is not ours.

use std::net::IpAddr;

use etherparse::{IpNumber, PacketBuilder};
use vip_agent::types::{Centiseconds, ChecksumMode, MacAddr, Seconds, VirtualRouterId};
use vip_agent::vrrp::auth::Password;
use vip_agent::vrrp::codec::{DecodeOptions, Dialect, Fields, GROUP_V4, GROUP_V6, PseudoHeader};
use vip_agent::vrrp::receive::{Rules, Senders};

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Of the station that receives.
pub(crate) const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// An address from its text.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an IP address")
}

pub(crate) fn pseudo(source: &str, destination: &str) -> PseudoHeader {
    PseudoHeader::new(ip(source), ip(destination)).expect("addresses of one family")
}

pub(crate) fn multicast4() -> PseudoHeader {
    PseudoHeader::V4 { source: [192, 0, 2, 1].into(), destination: GROUP_V4 }
}

pub(crate) fn multicast6() -> PseudoHeader {
    PseudoHeader::V6 { source: "fe80::1".parse().expect("an address"), destination: GROUP_V6 }
}

/// Version 3, 1 s.
pub(crate) const fn version_3(checksum: ChecksumMode) -> Dialect {
    Dialect::V3 { interval: Centiseconds::SECOND, checksum }
}

/// Version 2, 1 s; an empty password is none.
pub(crate) fn version_2(password: &str) -> Dialect {
    let password = (!password.is_empty()).then(|| Password::new(password).expect("a password"));
    Dialect::V2 { interval: Seconds::ONE, password }
}

/// What an advert lists: one VIP (IPv6: a link-local one before it).
pub(crate) fn vips(pseudo: PseudoHeader) -> Vec<IpAddr> {
    match pseudo {
        PseudoHeader::V4 { .. } => vec![ip("192.0.2.100")],
        PseudoHeader::V6 { .. } => vec![ip("fe80::100"), ip("2001:db8::3")],
    }
}

/// The payload of an advert of version 3: VRID 7, priority 100, 1 s, and [`vips`].
pub(crate) fn advert(pseudo: PseudoHeader, mode: ChecksumMode) -> Vec<u8> {
    advert_in(version_3(mode), pseudo)
}

pub(crate) fn advert_in(dialect: Dialect, pseudo: PseudoHeader) -> Vec<u8> {
    encode(&Fields { dialect, ..fields(&vips(pseudo)) }, pseudo)
}

pub(crate) fn fields(addresses: &[IpAddr]) -> Fields<'_> {
    Fields {
        virtual_router_id: VirtualRouterId::new(7).expect("a VRID"),
        priority: 100,
        dialect: version_3(ChecksumMode::Pseudo),
        addresses,
    }
}

/// What takes [`advert`]s of multicast instances, other than the one with this address.
pub(crate) fn multicast_rules(own: &str) -> Rules {
    let (own, decode) = (ip(own), DecodeOptions { dialect: version_3(ChecksumMode::Pseudo), strict: false });
    let pseudo = if own.is_ipv4() { multicast4() } else { multicast6() };
    Rules { own, own_mac: OWN_MAC, senders: Senders::Multicast, decode, auth: None, vips: vips(pseudo) }
}

pub(crate) fn encode(fields: &Fields<'_>, pseudo: PseudoHeader) -> Vec<u8> {
    let mut buffer = vec![0xff; fields.encoded_len(pseudo.family())];
    let length = fields.encode(pseudo, &mut buffer).expect("an advert");
    assert_eq!(length, buffer.len());
    buffer
}

/// The payload with its checksum, without pseudo-header, made right: version 2.
pub(crate) fn resummed_2(mut payload: Vec<u8>) -> Vec<u8> {
    payload[6..8].fill(0);
    let sum = checksum(&payload);
    payload[6..8].copy_from_slice(&sum);
    payload
}

/// The payload with one byte changed and its checksum (with pseudo-header) made right again.
pub(crate) fn altered(mut payload: Vec<u8>, pseudo: PseudoHeader, at: usize, byte: u8) -> Vec<u8> {
    payload[at] = byte;
    resummed(payload, pseudo)
}

/// The payload with its checksum (with pseudo-header) made right.
pub(crate) fn resummed(mut payload: Vec<u8>, pseudo: PseudoHeader) -> Vec<u8> {
    payload[6..8].fill(0);
    let length = payload.len() as u32;
    let mut sum = etherparse::checksum::Sum16BitWords::new();
    let mut sum = match pseudo {
        PseudoHeader::V4 { source, destination } => {
            sum.add_4bytes(source.octets()).add_4bytes(destination.octets())
        }
        PseudoHeader::V6 { source, destination } => {
            sum.add_16bytes(source.octets()).add_16bytes(destination.octets())
        }
    };
    let sum = sum.add_4bytes(length.to_be_bytes()).add_2bytes([0, 112]).add_slice(&payload);
    payload[6..8].copy_from_slice(&sum.ones_complement().to_ne_bytes());
    payload
}

/// The Internet checksum of some bytes alone, as it goes on the wire.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 2] {
    etherparse::checksum::Sum16BitWords::new().add_slice(bytes).ones_complement().to_ne_bytes()
}

/// A frame around an IP payload of protocol 112.
pub(crate) fn frame(pseudo: PseudoHeader, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(MAC, [1, 0, 0x5e, 0, 0, 0x12]);
    let ip = match pseudo {
        PseudoHeader::V4 { source, destination } => {
            link.ipv4(source.octets(), destination.octets(), hop_limit)
        }
        PseudoHeader::V6 { source, destination } => {
            link.ipv6(source.octets(), destination.octets(), hop_limit)
        }
    };
    let mut frame = Vec::new();
    ip.write(&mut frame, IpNumber(112), payload).expect("a frame");
    frame
}
