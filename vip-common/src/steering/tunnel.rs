//! Tunnels to backends that are not on this link: IPv4 in IPv4 (RFC 2003), IPv4 and IPv6 in IPv6 (RFC 2473); and the way out of them.
//!
//! Called by [`apply`](super::apply::apply) for mode `tunnel`, and by the program of a node that is the tunnel's end.

use super::link::{self, Hop};
use super::packet::{Fragment, Packet, protocol};
use crate::decision::Family;
use crate::packet::checksum::{Sum, replace};
use crate::packet::ipv6::Address;
use crate::packet::{Bytes, BytesMut, Headroom, ipv4, ipv6};

/// Hops that the outer packet may go.
const HOPS: u8 = 64;
/// ECN: congestion experienced (RFC 3168, 5).
const CE: u8 = 0b11;
/// The bits of ECN in the traffic class.
const ECN: u8 = 0b11;

/// A tunnel's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Of the outer header. IPv6 packets do not go in IPv4 ones.
    pub family: Family,
    /// This node's end; an IPv4 address stands in the first four bytes.
    pub source: [u8; 16],
    /// IPv4: how many low bits of `source` differ by flow, so that receivers and routers that look at addresses only spread
    /// the flows; 0 = none. The network must route none of them back, and filter none. In IPv6 the flow label does it (RFC
    /// 6438).
    pub source_bits: u8,
    /// The backend's end, likewise.
    pub destination: [u8; 16],
}

impl Tunnel {
    /// Bytes of the outer header.
    #[inline(always)]
    pub const fn overhead(&self) -> usize {
        match self.family {
            Family::V4 => ipv4::HEADER,
            Family::V6 => ipv6::HEADER,
        }
    }
}

/// What of the inner packet goes to the outer header.
struct Inner {
    protocol: u8,
    /// DSCP and ECN: the packet is treated on its way as it would have been, and congestion is heard of (RFC 6040, 4.1).
    class: u8,
    /// The whole packet's.
    length: u16,
}

/// Puts the packet into a tunnel; `hash` is its flow's. `None` if there is no room in front, or one header is not for the other.
///
/// The outer packet has DF, whatever the inner one (RFC 2003, 3.1 allows it): nobody here could number those that may be
/// fragmented (RFC 6864, 4.1), so the sender must know what fits: [`super::answer::Error::TooBig`].
#[inline(always)]
#[must_use]
pub fn encapsulate<B: Headroom + ?Sized>(
    frame: &mut B,
    packet: &Packet,
    tunnel: &Tunnel,
    hash: u64,
    hop: Hop,
) -> Option<()> {
    let inner = inner(frame, packet)?;
    let at = packet.network;
    match (tunnel.family, packet.family) {
        (Family::V4, Family::V4) => {
            link::open(frame, at, ipv4::HEADER, hop, Family::V4)?;
            outer4(frame, at, &inner, tunnel, hash)
        }
        (Family::V6, _) => {
            link::open(frame, at, ipv6::HEADER, hop, Family::V6)?;
            outer6(frame, at, &inner, tunnel, hash)
        }
        (Family::V4, Family::V6) => None,
    }
}

#[inline(always)]
fn inner<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> Option<Inner> {
    let at = packet.network;
    let length = (packet.end - at) as u16;
    Some(match packet.family {
        Family::V4 => {
            let [_, class] = frame.load(at)?;
            Inner { protocol: protocol::IPV4, class, length }
        }
        Family::V6 => {
            let [a, b] = frame.load(at)?;
            Inner { protocol: protocol::IPV6, class: (a << 4) | (b >> 4), length }
        }
    })
}

#[inline(always)]
fn outer4<B: BytesMut + ?Sized>(
    frame: &mut B,
    at: usize,
    inner: &Inner,
    tunnel: &Tunnel,
    hash: u64,
) -> Option<()> {
    let [high, low] = inner.length.checked_add(ipv4::HEADER as u16)?.to_be_bytes();
    let [dont_fragment, _] = ipv4::DONT_FRAGMENT.to_be_bytes();
    let source = varied(tunnel.source, tunnel.source_bits, hash);
    let [e, f, g, h, ..] = tunnel.destination;
    let [i, j, k, l] = source;
    write4(
        frame,
        at,
        [0x45, inner.class, high, low, 0, 0, dont_fragment, 0],
        [HOPS, inner.protocol],
        [i, j, k, l, e, f, g, h],
    )
}

/// Writes an IPv4 header without options: what is in front of the TTL, TTL and protocol, addresses.
#[inline(always)]
#[must_use]
pub(super) fn write4<B: BytesMut + ?Sized>(
    frame: &mut B,
    at: usize,
    start: [u8; 8],
    [ttl, protocol]: [u8; 2],
    addresses: [u8; 8],
) -> Option<()> {
    let [high, low] = Sum::new().eight(start).word([ttl, protocol]).eight(addresses).checksum();
    frame.store(at + ipv4::SOURCE, addresses)?;
    frame.store(at + ipv4::TTL, [ttl, protocol, high, low])?;
    frame.store(at, start)
}

#[inline(always)]
fn outer6<B: BytesMut + ?Sized>(
    frame: &mut B,
    at: usize,
    inner: &Inner,
    tunnel: &Tunnel,
    hash: u64,
) -> Option<()> {
    let [high, low] = inner.length.to_be_bytes();
    let [_, label @ ..] = (hash as u32 & 0x000f_ffff).to_be_bytes();
    let class = inner.class;
    let first = [0x60 | (class >> 4), (class << 4) | label[0], label[1], label[2]];
    Address::new(tunnel.source).store(frame, at + ipv6::SOURCE)?;
    Address::new(tunnel.destination).store(frame, at + ipv6::DESTINATION)?;
    let [a, b, c, d] = first;
    frame.store(at, [a, b, c, d, high, low, inner.protocol, HOPS])
}

/// The source address with its low `bits` from the hash.
#[inline(always)]
const fn varied([a, b, c, d, ..]: [u8; 16], bits: u8, hash: u64) -> [u8; 4] {
    let mask = ((1_u64 << (bits & 31)) - 1) as u32;
    let source = u32::from_be_bytes([a, b, c, d]);
    ((source & !mask) | (hash as u32 & mask)).to_be_bytes()
}

/// Why a packet stays in its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no tunnel of ours: another protocol, a fragment, or cut short. Others may know it.
    Unknown,
    /// Its headers contradict each other: it must be dropped.
    Invalid,
    /// It met congestion, and its sender does not speak ECN: it must be dropped (RFC 6040, 4.2).
    Congested,
}

/// Takes the packet out of its tunnel, to go up the stack as if it had come without; returns its family. What the
/// outer header says of congestion goes to the inner one.
///
/// Whether the tunnel's other end may send to this one must be known before.
#[inline(always)]
pub fn decapsulate<B: Headroom + ?Sized>(frame: &mut B, outer: &Packet) -> Result<Family, Refused> {
    let family = match outer.protocol {
        protocol::IPV4 => Family::V4,
        protocol::IPV6 if outer.family == Family::V6 => Family::V6,
        _ => return Err(Refused::Unknown),
    };
    if outer.fragment != Fragment::Whole {
        return Err(Refused::Unknown);
    }
    let inner = Packet::read(frame, family, outer.transport).ok_or(Refused::Invalid)?;
    // A packet that claims to be longer than what carries it would reach into the padding.
    if inner.end > outer.end {
        return Err(Refused::Invalid);
    }
    let outer_class = class(frame, outer).ok_or(Refused::Invalid)?;
    if outer_class & ECN == CE {
        mark_congested(frame, &inner)?;
    }
    let header = outer.network;
    link::close(frame, header, outer.transport - header, family).ok_or(Refused::Invalid)?;
    Ok(family)
}

#[inline(always)]
fn class<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> Option<u8> {
    let [a, b] = frame.load(packet.network)?;
    Some(match packet.family {
        Family::V4 => b,
        Family::V6 => (a << 4) | (b >> 4),
    })
}

/// Sets CE in the inner header (RFC 6040, figure 4).
#[inline(always)]
fn mark_congested<B: BytesMut + ?Sized>(frame: &mut B, inner: &Packet) -> Result<(), Refused> {
    let at = inner.network;
    let class = class(frame, inner).ok_or(Refused::Invalid)?;
    if class & ECN == 0 {
        return Err(Refused::Congested);
    }
    let stored = match inner.family {
        Family::V4 => store_class4(frame, at, class | CE),
        Family::V6 => frame.load(at).and_then(|[a, b]: [u8; 2]| frame.store(at, [a, b | (CE << 4)])),
    };
    stored.ok_or(Refused::Invalid)
}

#[inline(always)]
fn store_class4<B: BytesMut + ?Sized>(frame: &mut B, at: usize, class: u8) -> Option<()> {
    let [version, before] = frame.load(at)?;
    let checksum = frame.load(at + ipv4::CHECKSUM)?;
    let changed = replace(checksum, [version, before], [version, class]);
    frame.store(at + ipv4::CHECKSUM, changed)?;
    frame.store(at, [version, class])
}
