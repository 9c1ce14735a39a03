//! What a VIP answers by itself: echo replies, TCP resets and ICMP errors, each made of the packet that it answers.
//!
//! Called by [`apply`](super::apply::apply). How often is the caller's affair. `None` of any of these means that
//! the packet gets no answer by the rules of its protocol, or has no room for one: it must be dropped.

use super::link::{self, Hop};
use super::packet::{Fragment, Packet, icmp, protocol};
use super::tunnel::write4;
use crate::decision::Family;
use crate::packet::checksum::{Delta, Sum, replace};
use crate::packet::ethernet::{self, Mac};
use crate::packet::ipv6::Address;
use crate::packet::{Bytes, BytesMut, Headroom, ipv4, ipv6};

/// Hops that an answer may go.
const HOPS: u8 = 64;

/// Bytes of the packet that an error quotes at most, from the IP header on: a multiple of four.
///
/// RFC 1812, 4.3.2.3 and RFC 4443, 2.4 would have as much as fits into 576 and 1280 bytes. Receivers look at headers, which
/// these hold with options and extensions; each further word would cost everyone's verifier a step of the checksum.
pub const QUOTE: usize = 128;

/// Bytes behind the IP header that an error must quote (RFC 792): ports and, in TCP, the sequence number.
const QUOTED_TRANSPORT: usize = 8;

/// An ICMP error. What the families call differently is one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody serves the port (RFC 1122, 3.2.2.1; RFC 4443, 3.1).
    PortUnreachable,
    /// The sender is not on the list (RFC 1812, 5.2.7.1: code 13; RFC 4443, 3.1: code 1).
    Prohibited,
    /// It does not fit into the tunnel: what fits, in bytes from the IP header on (RFC 1191, 4; RFC 4443, 3.2).
    TooBig(u16),
    /// Its last hop was here (RFC 792; RFC 4443, 3.3).
    TimeExceeded,
}

impl Error {
    /// Type, code and the word behind the checksum.
    #[inline(always)]
    const fn start(self, family: Family) -> ([u8; 2], [u8; 4]) {
        match (family, self) {
            (Family::V4, Self::PortUnreachable) => ([icmp::UNREACHABLE, 3], [0; 4]),
            (Family::V4, Self::Prohibited) => ([icmp::UNREACHABLE, 13], [0; 4]),
            (Family::V4, Self::TimeExceeded) => ([icmp::TIME_EXCEEDED, 0], [0; 4]),
            (Family::V4, Self::TooBig(mtu)) => {
                let [high, low] = mtu.to_be_bytes();
                ([icmp::UNREACHABLE, 4], [0, 0, high, low])
            }
            (Family::V6, Self::PortUnreachable) => ([icmp::UNREACHABLE6, 4], [0; 4]),
            (Family::V6, Self::Prohibited) => ([icmp::UNREACHABLE6, 1], [0; 4]),
            (Family::V6, Self::TimeExceeded) => ([icmp::TIME_EXCEEDED6, 0], [0; 4]),
            (Family::V6, Self::TooBig(mtu)) => {
                let [high, low] = mtu.to_be_bytes();
                ([icmp::TOO_BIG6, 0], [0, 0, high, low])
            }
        }
    }
}

/// Turns an echo request into its reply. Both checksums by the difference: what came damaged goes back damaged.
///
/// Not of fragments, of packets with IP options or extensions, or from an address that is no host's.
#[inline(always)]
#[must_use]
pub fn echo<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet, own: Mac) -> Option<()> {
    if !is_echo_request(frame, packet) || !is_from_one_host(frame, packet) {
        return None;
    }
    let reply = match packet.family {
        Family::V4 => icmp::ECHO_REPLY,
        Family::V6 => icmp::ECHO_REPLY6,
    };
    let request: [u8; 2] = packet.load(frame, 0)?;
    let checksum = packet.load(frame, icmp::CHECKSUM)?;
    frame.store(packet.transport + icmp::CHECKSUM, replace(checksum, request, [reply, 0]))?;
    frame.store(packet.transport, [reply, 0])?;
    swap_addresses(frame, packet)?;
    set_hops(frame, packet)?;
    Hop::back(frame, own)?.write(frame)
}

/// Whether the packet is an echo request that [`echo`] can answer.
#[inline(always)]
pub fn is_echo_request<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> bool {
    let (header, kind) = match packet.family {
        Family::V4 => (ipv4::HEADER, [icmp::ECHO_REQUEST, 0]),
        Family::V6 => (ipv6::HEADER, [icmp::ECHO_REQUEST6, 0]),
    };
    matches!((packet.family, packet.protocol), (Family::V4, protocol::ICMP) | (Family::V6, protocol::ICMPV6))
        && packet.fragment == Fragment::Whole
        && packet.transport - packet.network == header
        && packet.end - packet.transport >= icmp::HEADER
        && packet.load(frame, 0) == Some(kind)
}

/// Whether the packet's sender may be told anything: one host's address, by one station, and not by a group address
/// (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
#[inline(always)]
fn is_from_one_host<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> bool {
    let to_one = ethernet::destination(frame).is_some_and(Mac::is_station);
    let one = match packet.family {
        Family::V4 => ipv4::source(frame, packet.network)
            .is_some_and(|[first, ..]| first != 0 && first != 127 && first < 224),
        Family::V6 => ipv6::source(frame, packet.network)
            .is_some_and(|source| source != Address::UNSPECIFIED && !source.is_multicast()),
    };
    to_one && one
}

#[inline(always)]
fn swap_addresses<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet) -> Option<()> {
    let at = packet.network;
    match packet.family {
        Family::V4 => {
            let [a, b, c, d, e, f, g, h]: [u8; 8] = frame.load(at + ipv4::SOURCE)?;
            frame.store(at + ipv4::SOURCE, [e, f, g, h, a, b, c, d])
        }
        Family::V6 => {
            let source = ipv6::source(frame, at)?;
            ipv6::destination(frame, at)?.store(frame, at + ipv6::SOURCE)?;
            source.store(frame, at + ipv6::DESTINATION)
        }
    }
}

#[inline(always)]
fn set_hops<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet) -> Option<()> {
    match packet.family {
        Family::V4 => {
            let at = packet.network;
            let before: [u8; 2] = frame.load(at + ipv4::TTL)?;
            let checksum = frame.load(at + ipv4::CHECKSUM)?;
            let delta = Delta::new().word(before, [HOPS, before[1]]);
            frame.store(at + ipv4::CHECKSUM, delta.apply(checksum))?;
            frame.store(at + ipv4::TTL, [HOPS])
        }
        Family::V6 => frame.store(packet.network + ipv6::HOP_LIMIT, [HOPS]),
    }
}

/// Offsets and bits of a TCP header (RFC 9293, 3.1).
mod tcp {
    pub(super) const SEQUENCE: usize = 4;
    pub(super) const ACKNOWLEDGMENT: usize = 8;
    pub(super) const WORDS: usize = 12;
    pub(super) const HEADER: usize = 20;
    pub(super) const FIN: u8 = 0x01;
    pub(super) const SYN: u8 = 0x02;
    pub(super) const RST: u8 = 0x04;
    pub(super) const ACK: u8 = 0x10;
}

/// Turns a TCP segment into the reset that a closed port answers with (RFC 9293, 3.10.7.1); nothing resets a reset.
#[inline(always)]
#[must_use]
pub fn reset<B: BytesMut + ?Sized>(frame: &mut B, packet: &Packet, own: Mac) -> Option<()> {
    if packet.protocol != protocol::TCP
        || packet.fragment != Fragment::Whole
        || !is_from_one_host(frame, packet)
    {
        return None;
    }
    let header = reset_header(frame, packet)?;
    Hop::back(frame, own)?.write(frame)?;
    swap_addresses(frame, packet)?;
    let at = packet.network;
    match packet.family {
        Family::V4 => {
            frame.resize(at + ipv4::HEADER + tcp::HEADER)?;
            let addresses: [u8; 8] = frame.load(at + ipv4::SOURCE)?;
            let length = (ipv4::HEADER + tcp::HEADER) as u8;
            write4(frame, at, [0x45, 0, 0, length, 0, 0, 0x40, 0], [HOPS, protocol::TCP], addresses)?;
            header.write(frame, at + ipv4::HEADER, Sum::new().eight(addresses))
        }
        Family::V6 => {
            frame.resize(at + ipv6::HEADER + tcp::HEADER)?;
            frame.store(at, [0x60, 0, 0, 0, 0, tcp::HEADER as u8, protocol::TCP, HOPS])?;
            let destination = ipv6::destination(frame, at)?;
            let sum = destination.add_to(ipv6::source(frame, at)?.add_to(Sum::new()));
            header.write(frame, at + ipv6::HEADER, sum)
        }
    }
}

/// What differs from one reset to another.
struct Reset {
    ports: [u8; 4],
    sequence: [u8; 4],
    acknowledgment: [u8; 4],
    flags: u8,
}

#[inline(always)]
fn reset_header<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> Option<Reset> {
    let [a, b, c, d] = packet.load(frame, 0)?;
    let [words, flags] = packet.load(frame, tcp::WORDS)?;
    let header = usize::from(words >> 4) * 4;
    let data = (packet.end - packet.transport).checked_sub(header)?;
    if flags & tcp::RST != 0 || header < tcp::HEADER {
        return None;
    }
    let ports = [c, d, a, b];
    if flags & tcp::ACK != 0 {
        let sequence = packet.load(frame, tcp::ACKNOWLEDGMENT)?;
        return Some(Reset { ports, sequence, acknowledgment: [0; 4], flags: tcp::RST });
    }
    let controls = u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
    let sequence = u32::from_be_bytes(packet.load(frame, tcp::SEQUENCE)?);
    let acknowledgment = sequence.wrapping_add(data as u32).wrapping_add(controls).to_be_bytes();
    Some(Reset { ports, sequence: [0; 4], acknowledgment, flags: tcp::RST | tcp::ACK })
}

impl Reset {
    /// `sum`: of the addresses.
    #[inline(always)]
    fn write<B: BytesMut + ?Sized>(&self, frame: &mut B, at: usize, sum: Sum) -> Option<()> {
        let control = [(tcp::HEADER as u8 / 4) << 4, self.flags, 0, 0];
        let pseudo_header = sum.word([0, protocol::TCP]).word([0, tcp::HEADER as u8]);
        let sum = pseudo_header.four(self.ports).four(self.sequence).four(self.acknowledgment).four(control);
        let [high, low] = sum.checksum();
        frame.store(at + 16, [high, low, 0, 0])?;
        frame.store(at + tcp::WORDS, control)?;
        frame.store(at + tcp::ACKNOWLEDGMENT, self.acknowledgment)?;
        frame.store(at + tcp::SEQUENCE, self.sequence)?;
        frame.store(at, self.ports)
    }
}

/// Turns a packet into the ICMP error about it, from the address that it was sent to.
///
/// Not about later fragments, ICMP errors, or packets that are not one host's to one station; of those whose IP header
/// and eight bytes more do not fit into [`QUOTE`].
#[inline(always)]
#[must_use]
pub fn error<B: Headroom + ?Sized>(frame: &mut B, packet: &Packet, error: Error, own: Mac) -> Option<()> {
    if !may_have_an_error(frame, packet) {
        return None;
    }
    let at = packet.network;
    let length = packet.end - at;
    let quote = if length < QUOTE { length & !3 } else { QUOTE };
    if packet.transport - at + QUOTED_TRANSPORT > quote {
        return None;
    }
    frame.resize(at + quote)?;
    let (start, rest) = error.start(packet.family);
    let hop = Hop::back(frame, own)?;
    match packet.family {
        Family::V4 => {
            let [a, b, c, d, e, f, g, h]: [u8; 8] = frame.load(at + ipv4::SOURCE)?;
            link::open(frame, at, ipv4::HEADER + icmp::HEADER, hop, Family::V4)?;
            let [high, low] = ((ipv4::HEADER + icmp::HEADER + quote) as u16).to_be_bytes();
            let addresses = [e, f, g, h, a, b, c, d];
            // 0xc0: internetwork control, as RFC 1812, 4.3.2.5 has it for errors.
            write4(frame, at, [0x45, 0xc0, high, low, 0, 0, 0x40, 0], [HOPS, protocol::ICMP], addresses)?;
            message(frame, at + ipv4::HEADER, quote, start, rest, Sum::new())
        }
        Family::V6 => {
            let (source, destination) = (ipv6::destination(frame, at)?, ipv6::source(frame, at)?);
            link::open(frame, at, ipv6::HEADER + icmp::HEADER, hop, Family::V6)?;
            let length = ((icmp::HEADER + quote) as u16).to_be_bytes();
            frame.store(at, [0x60, 0, 0, 0, length[0], length[1], protocol::ICMPV6, HOPS])?;
            source.store(frame, at + ipv6::SOURCE)?;
            destination.store(frame, at + ipv6::DESTINATION)?;
            let sum = destination.add_to(source.add_to(Sum::new()));
            message(
                frame,
                at + ipv6::HEADER,
                quote,
                start,
                rest,
                sum.word(length).word([0, protocol::ICMPV6]),
            )
        }
    }
}

#[inline(always)]
fn may_have_an_error<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> bool {
    let is_no_error = match packet.protocol {
        protocol::ICMP => matches!(packet.load(frame, 0), Some([icmp::ECHO_REQUEST | icmp::ECHO_REPLY])),
        protocol::ICMPV6 => matches!(packet.load(frame, 0), Some([kind]) if kind >= 128),
        _ => true,
    };
    is_no_error && !matches!(packet.fragment, Fragment::Later(_)) && is_from_one_host(frame, packet)
}

/// Writes the ICMP header at `at` in front of `quote` bytes; `sum` is that of the pseudo-header.
#[inline(always)]
fn message<B: BytesMut + ?Sized>(
    frame: &mut B,
    at: usize,
    quote: usize,
    start: [u8; 2],
    rest: [u8; 4],
    sum: Sum,
) -> Option<()> {
    let mut sum = sum.word(start).four(rest);
    let mut word = 0;
    while word < QUOTE / 4 {
        if word * 4 >= quote {
            break;
        }
        sum = sum.four(frame.load(at + icmp::HEADER + word * 4)?);
        word += 1;
    }
    let ([kind, code], [high, low], [a, b, c, d]) = (start, sum.checksum(), rest);
    frame.store(at, [kind, code, high, low, a, b, c, d])
}
