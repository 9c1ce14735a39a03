//! Ethernet and IP headers of adverts that do not pass through the IP stack: those from a virtual MAC (RFC 9568, 7.2).

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::checksum::Sum;
use super::codec::{GROUP_V4, GROUP_V6, HOP_LIMIT, PROTOCOL};
use crate::types::MacAddr;

/// Ethernet and IPv6, the longer one of the two.
const LONGEST: usize = 14 + IPV6_HEADER;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Internetwork control, as the raw sockets send.
const TRAFFIC_CLASS: u8 = 0xc0;
const DONT_FRAGMENT: u8 = 0x40;

/// The headers before an advert of `length` bytes from `mac` and `source` to the advert group.
///
/// IPv4 packets are never fragmented, so their identification says nothing and is 0 (RFC 6864, 4.1): the same bytes go out
/// each time.
pub(super) fn headers(mac: MacAddr, source: IpAddr, length: usize) -> ArrayVec<u8, LONGEST> {
    let mut headers = ArrayVec::new();
    match source {
        IpAddr::V4(source) => {
            let [_, b, c, d] = GROUP_V4.octets();
            // RFC 1112, 6.4: the group's last 23 bits.
            headers.extend([0x01, 0x00, 0x5e, b & 0x7f, c, d]);
            headers.extend(mac.0);
            headers.extend([0x08, 0x00]);
            headers.extend(ipv4(source.octets(), IPV4_HEADER + length));
        }
        IpAddr::V6(source) => {
            let [.., a, b, c, d] = GROUP_V6.octets();
            // RFC 2464, 7.
            headers.extend([0x33, 0x33, a, b, c, d]);
            headers.extend(mac.0);
            headers.extend([0x86, 0xdd]);
            let [high, low] = (length as u16).to_be_bytes();
            // Version, traffic class, flow label 0.
            headers.extend([
                0x60 | TRAFFIC_CLASS >> 4,
                TRAFFIC_CLASS << 4,
                0,
                0,
                high,
                low,
                PROTOCOL,
                HOP_LIMIT,
            ]);
            headers.extend(source.octets());
            headers.extend(GROUP_V6.octets());
        }
    }
    headers
}

fn ipv4(source: [u8; 4], length: usize) -> [u8; IPV4_HEADER] {
    let [high, low] = (length as u16).to_be_bytes();
    let mut header = [0; IPV4_HEADER];
    header[..10].copy_from_slice(&[
        0x45,
        TRAFFIC_CLASS,
        high,
        low,
        0,
        0,
        DONT_FRAGMENT,
        0,
        HOP_LIMIT,
        PROTOCOL,
    ]);
    header[12..16].copy_from_slice(&source);
    header[16..].copy_from_slice(&GROUP_V4.octets());
    let checksum = Sum::default().bytes(&header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}
