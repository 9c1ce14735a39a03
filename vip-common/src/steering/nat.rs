//! Network address translation of one packet: addresses, ports, TTL, and each checksum by the difference (RFC 1624), so that what
//! was damaged before stays damaged.
//!
//! Called by [`apply`](super::apply::apply) for mode `nat`. Not for TC egress, where checksums may be partial: there the kernel's
//! bpf_l4_csum_replace is right, and nothing else.
//!
//! `None` of any of these means that the packet ends too early: what is left of it must be dropped.

use bytemuck::{Pod, Zeroable};

use super::packet::{Fragment, Packet, icmp, protocol};
use crate::decision::Family;
use crate::packet::checksum::Delta;
use crate::packet::{BytesMut, ipv4, ipv6};

/// One end of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Endpoint {
    /// Of the packet's family; an IPv4 one stands in the first four bytes.
    pub address: [u8; 16],
    /// Network order.
    pub port: [u8; 2],
}

/// What ends a packet gets; those that are not named stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Whom it is from.
    pub source: Option<Endpoint>,
    /// Whom it is for.
    pub destination: Option<Endpoint>,
}

impl Translation {
    /// What the packets of the other direction get, and so what an ICMP error quotes.
    #[inline(always)]
    pub const fn swapped(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// What is left of a packet's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// It may go on.
    Left,
    /// This was its last hop: the packet is as it was, and goes no further (RFC 1812, 5.3.1; RFC 8200, 3).
    Expired,
}

/// Takes one hop off the packet's life.
#[inline(always)]
pub fn decrement_hops<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet) -> Option<Hops> {
    match packet.family {
        Family::V4 => {
            let at = packet.network + ipv4::TTL;
            let [ttl, protocol] = frame.load(at)?;
            if ttl <= 1 {
                return Some(Hops::Expired);
            }
            let checksum = frame.load(packet.network + ipv4::CHECKSUM)?;
            let delta = Delta::new().word([ttl, protocol], [ttl - 1, protocol]);
            frame.store(packet.network + ipv4::CHECKSUM, delta.apply(checksum))?;
            frame.store(at, [ttl - 1])?;
        }
        Family::V6 => {
            let [hops] = frame.load(packet.network + ipv6::HOP_LIMIT)?;
            if hops <= 1 {
                return Some(Hops::Expired);
            }
            frame.store(packet.network + ipv6::HOP_LIMIT, [hops - 1])?;
        }
    }
    Some(Hops::Left)
}

/// Translates a packet. Later fragments have addresses only, SCTP keeps its ports (its checksum is no sum, RFC 9260, 6.8):
/// `None` if it should get others.
#[inline(always)]
#[must_use]
pub fn translate<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet, to: &Translation) -> Option<()> {
    let addresses = move_addresses(frame, packet, to)?.addresses;
    if matches!(packet.fragment, Fragment::Later(_)) {
        return Some(());
    }
    match packet.protocol {
        protocol::TCP | protocol::UDP => {
            let ports = move_ports(frame, packet, to)?;
            let at = transport_checksum(packet.protocol);
            let checksum = packet.load(frame, at)?;
            let changed = changed(packet.protocol, checksum, addresses.and(ports));
            frame.store(packet.transport + at, changed)
        }
        protocol::SCTP => keeps_ports(frame, packet, to),
        protocol::ICMPV6 => adjust_icmp(frame, packet, addresses),
        _ => Some(()),
    }
}

/// Translates an ICMP error: the packet that carries it, and the one that it quotes. Of the quoted packet's own checksums
/// that of IPv4 is always there, that of TCP seldom.
#[inline(always)]
#[must_use]
pub fn translate_error<B: BytesMut + ?Sized>(
    frame: &mut B,
    packet: &Packet,
    quoted: &Packet,
    to: &Translation,
    quoted_to: &Translation,
) -> Option<()> {
    let outer = move_addresses(frame, packet, to)?;
    let inner = move_addresses(frame, quoted, quoted_to)?;
    let mut delta = inner.addresses.and(inner.checksum);
    if quoted.protocol == protocol::SCTP {
        keeps_ports(frame, quoted, quoted_to)?;
    } else {
        let ports = move_ports(frame, quoted, quoted_to)?;
        delta = delta.and(ports);
        let at = transport_checksum(quoted.protocol);
        if let Some(checksum) = quoted.load(frame, at) {
            let changed = changed(quoted.protocol, checksum, inner.addresses.and(ports));
            frame.store(quoted.transport + at, changed)?;
            delta = delta.word(checksum, changed);
        }
    }
    if packet.protocol == protocol::ICMPV6 {
        delta = delta.and(outer.addresses);
    }
    adjust_icmp(frame, packet, delta)
}

/// What new addresses change.
struct Moved {
    /// For checksums that cover the pseudo-header.
    addresses: Delta,
    /// The IPv4 header's checksum, for one that covers that header.
    checksum: Delta,
}

#[inline(always)]
fn move_addresses<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet, to: &Translation) -> Option<Moved> {
    let network = packet.network;
    let mut addresses = Delta::new();
    match packet.family {
        Family::V4 => {
            if let Some(source) = &to.source {
                addresses = address4(frame, network + ipv4::SOURCE, source, addresses)?;
            }
            if let Some(destination) = &to.destination {
                addresses = address4(frame, network + ipv4::DESTINATION, destination, addresses)?;
            }
            let before = frame.load(network + ipv4::CHECKSUM)?;
            let after = addresses.apply(before);
            frame.store(network + ipv4::CHECKSUM, after)?;
            Some(Moved { addresses, checksum: Delta::new().word(before, after) })
        }
        Family::V6 => {
            if let Some(source) = &to.source {
                addresses = address6(frame, network + ipv6::SOURCE, source, addresses)?;
            }
            if let Some(destination) = &to.destination {
                addresses = address6(frame, network + ipv6::DESTINATION, destination, addresses)?;
            }
            Some(Moved { addresses, checksum: Delta::new() })
        }
    }
}

#[inline(always)]
fn address4<B: BytesMut + ?Sized>(frame: &mut B, at: usize, to: &Endpoint, delta: Delta) -> Option<Delta> {
    let [a, b, c, d, ..] = to.address;
    let from = frame.load(at)?;
    frame.store(at, [a, b, c, d])?;
    Some(delta.four(from, [a, b, c, d]))
}

#[inline(always)]
fn address6<B: BytesMut + ?Sized>(frame: &mut B, at: usize, to: &Endpoint, delta: Delta) -> Option<Delta> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = to.address;
    let (high, low) = ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]);
    let (old_high, old_low) = (frame.load(at)?, frame.load(at + 8)?);
    frame.store(at, high)?;
    frame.store(at + 8, low)?;
    Some(delta.eight(old_high, high).eight(old_low, low))
}

#[inline(always)]
fn move_ports<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet, to: &Translation) -> Option<Delta> {
    let before: [u8; 4] = packet.load(frame, 0)?;
    let after = ports(before, to);
    frame.store(packet.transport, after)?;
    Some(Delta::new().four(before, after))
}

#[inline(always)]
fn keeps_ports<B: BytesMut + ?Sized>(frame: &B, packet: &Packet, to: &Translation) -> Option<()> {
    let before: [u8; 4] = packet.load(frame, 0)?;
    (ports(before, to) == before).then_some(())
}

#[inline(always)]
fn ports([a, b, c, d]: [u8; 4], to: &Translation) -> [u8; 4] {
    let [a, b] = to.source.map_or([a, b], |source| source.port);
    let [c, d] = to.destination.map_or([c, d], |destination| destination.port);
    [a, b, c, d]
}

/// Offset of the checksum in the header of TCP (RFC 9293, 3.1) or UDP (RFC 768).
#[inline(always)]
const fn transport_checksum(protocol: u8) -> usize {
    if protocol == protocol::TCP { 16 } else { 6 }
}

#[inline(always)]
const fn changed(protocol: u8, checksum: [u8; 2], delta: Delta) -> [u8; 2] {
    if protocol == protocol::TCP { delta.apply(checksum) } else { delta.apply_udp(checksum) }
}

#[inline(always)]
fn adjust_icmp<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet, delta: Delta) -> Option<()> {
    let checksum = packet.load(frame, icmp::CHECKSUM)?;
    frame.store(packet.transport + icmp::CHECKSUM, delta.apply(checksum))
}
