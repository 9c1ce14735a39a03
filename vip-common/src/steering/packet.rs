//! Reads what steering must know of a packet: where its headers are, which flow it belongs to, which part of a datagram it is.
//!
//! Called by [`steer`](super::steer::steer) and by the functions that rewrite.

use crate::decision::Family;
use crate::packet::{Bytes, ipv4, ipv6};

/// IP protocol numbers.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003, RFC 2473).
    pub const IPV4: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 2473).
    pub const IPV6: u8 = 41;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}

/// IPv6 extension headers that are walked over.
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers that a packet may have: more is nobody's honest traffic, and each is a step for the verifier.
const EXTENSIONS: usize = 3;
/// Bytes of one that are walked over at most.
const LONGEST_EXTENSION: usize = 256;

/// Where things are in an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Of its addresses.
    pub family: Family,
    /// Offset of the IP header in the frame.
    pub network: usize,
    /// Offset of what is behind the IP header and its extensions: the transport header, unless it is a [`Fragment::Later`].
    pub transport: usize,
    /// Protocol number of the datagram.
    pub protocol: u8,
    /// Offset of the end, as the IP header says: behind it the frame may have padding.
    pub end: usize,
    /// Which part of its datagram it is.
    pub fragment: Fragment,
}

/// Which part of its datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The one with the transport header; more follow.
    First(u32),
    /// One without; the number is what all parts have in common (with addresses and protocol: RFC 791, RFC 8200, 4.5).
    Later(u32),
}

/// A flow as the client's packets name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// The client's address; an IPv4 one stands in the first four bytes.
    pub client: [u8; 16],
    /// The VIP, likewise.
    pub vip: [u8; 16],
    /// Network order.
    pub client_port: [u8; 2],
    /// Network order.
    pub vip_port: [u8; 2],
    /// TCP, UDP or SCTP.
    pub protocol: u8,
}

/// Whether packets of this protocol begin with a source and a destination port.
#[inline(always)]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}

impl Packet {
    /// Reads the headers of the packet at `network`; `None` if they are cut short, no sane IP, or have extensions that are not
    /// walked over (routing, authentication, more than three).
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B, family: Family, network: usize) -> Option<Self> {
        match family {
            Family::V4 => Self::read4(frame, network),
            Family::V6 => Self::read6(frame, network),
        }
    }

    #[inline(always)]
    fn read4<B: Bytes + ?Sized>(frame: &B, network: usize) -> Option<Self> {
        let [version_and_words, _, high, low] = frame.load(network)?;
        let header = usize::from(version_and_words & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([high, low]));
        if version_and_words >> 4 != 4 || header < ipv4::HEADER || total < header {
            return None;
        }
        let [a, b, c, d] = frame.load(network + ipv4::IDENTIFICATION)?;
        let id = u32::from(u16::from_be_bytes([a, b]));
        let flags_and_offset = u16::from_be_bytes([c, d]);
        let fragment = match (flags_and_offset & ipv4::OFFSET, flags_and_offset & ipv4::MORE_FRAGMENTS) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First(id),
            _ => Fragment::Later(id),
        };
        let [protocol] = frame.load(network + ipv4::PROTOCOL)?;
        let (transport, end) = (network + header, network + total);
        Some(Self { family: Family::V4, network, transport, protocol, end, fragment })
    }

    #[inline(always)]
    fn read6<B: Bytes + ?Sized>(frame: &B, network: usize) -> Option<Self> {
        if ipv6::version(frame, network)? != 6 {
            return None;
        }
        let payload = usize::from(ipv6::payload_length(frame, network)?);
        let mut protocol = ipv6::next_header(frame, network)?;
        let mut transport = network + ipv6::HEADER;
        let mut fragment = Fragment::Whole;
        for _ in 0..EXTENSIONS {
            match protocol {
                HOP_BY_HOP | DESTINATION_OPTIONS => {
                    let [next, units] = frame.load(transport)?;
                    let length = (usize::from(units) + 1) * 8;
                    if length > LONGEST_EXTENSION {
                        return None;
                    }
                    (protocol, transport) = (next, transport + length);
                }
                FRAGMENT if fragment == Fragment::Whole => {
                    let [next, _, high, low, id @ ..]: [u8; 8] = frame.load(transport)?;
                    fragment = fragment6(u16::from_be_bytes([high, low]), u32::from_be_bytes(id));
                    (protocol, transport) = (next, transport + 8);
                    if matches!(fragment, Fragment::Later(_)) {
                        break;
                    }
                }
                _ => break,
            }
        }
        let end = network + ipv6::HEADER + payload;
        let walked = !matches!(protocol, HOP_BY_HOP | DESTINATION_OPTIONS | FRAGMENT);
        let later = matches!(fragment, Fragment::Later(_));
        ((walked || later) && transport <= end).then_some(Self {
            family: Family::V6,
            network,
            transport,
            protocol,
            end,
            fragment,
        })
    }

    /// The first `N` bytes of the transport header from `offset` on; `None` if the packet, or the frame, ends before.
    #[inline(always)]
    pub fn load<const N: usize, B: Bytes + ?Sized>(&self, frame: &B, offset: usize) -> Option<[u8; N]> {
        if matches!(self.fragment, Fragment::Later(_)) || self.transport + offset + N > self.end {
            return None;
        }
        frame.load(self.transport + offset)
    }

    /// Source and destination address; an IPv4 one stands in the first four bytes.
    #[inline(always)]
    pub fn addresses<B: Bytes + ?Sized>(&self, frame: &B) -> Option<([u8; 16], [u8; 16])> {
        Some(match self.family {
            Family::V4 => {
                let destination = frame.load(self.network + ipv4::DESTINATION)?;
                (ipv4::widen(ipv4::source(frame, self.network)?), ipv4::widen(destination))
            }
            Family::V6 => {
                let source = ipv6::source(frame, self.network)?.bytes();
                (source, ipv6::destination(frame, self.network)?.bytes())
            }
        })
    }

    /// The flow that it belongs to; `None` if it has no ports, or they are not in it.
    #[inline(always)]
    pub fn tuple<B: Bytes + ?Sized>(&self, frame: &B) -> Option<Tuple> {
        if !has_ports(self.protocol) {
            return None;
        }
        let [a, b, c, d] = self.load(frame, 0)?;
        let (client, vip) = self.addresses(frame)?;
        Some(Tuple { client, vip, client_port: [a, b], vip_port: [c, d], protocol: self.protocol })
    }

    /// The packet that an ICMP error is about; `None` if it is none, or quotes less than the ports (RFC 792 has eight bytes
    /// behind the IP header; nobody needs more to name a flow).
    #[inline(always)]
    pub fn quoted<B: Bytes + ?Sized>(&self, frame: &B) -> Option<Self> {
        let [kind] = self.load(frame, 0)?;
        let is_error = match self.protocol {
            protocol::ICMP => {
                matches!(kind, icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM)
            }
            protocol::ICMPV6 => (1..=4).contains(&kind),
            _ => false,
        };
        if !is_error || self.fragment != Fragment::Whole {
            return None;
        }
        let quoted = Self::read(frame, self.family, self.transport + icmp::HEADER)?;
        let ports_end = quoted.transport + 4;
        // A quote is cut off, so its own end is no measure: that of the message is.
        (has_ports(quoted.protocol)
            && !matches!(quoted.fragment, Fragment::Later(_))
            && ports_end <= self.end)
            .then_some(Self { end: self.end, ..quoted })
    }
}

impl Tuple {
    /// The flow of the packet that an error quotes: that one was the VIP's, on its way to the client.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self {
            client: self.vip,
            vip: self.client,
            client_port: self.vip_port,
            vip_port: self.client_port,
            protocol: self.protocol,
        }
    }

    /// Both ports in the order of [`super::hash::Ports`].
    #[inline(always)]
    pub const fn ports(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.client_port, self.vip_port);
        [a, b, c, d]
    }
}

/// ICMP, both versions: what their messages have in common.
pub mod icmp {
    /// Bytes in front of what an error quotes.
    pub const HEADER: usize = 8;
    /// Offset of the checksum.
    pub const CHECKSUM: usize = 2;
    /// ICMP: destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// ICMP: time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// ICMP: parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// ICMP: echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// ICMP: echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// ICMPv6: destination unreachable.
    pub const UNREACHABLE6: u8 = 1;
    /// ICMPv6: packet too big.
    pub const TOO_BIG6: u8 = 2;
    /// ICMPv6: time exceeded.
    pub const TIME_EXCEEDED6: u8 = 3;
    /// ICMPv6: echo request.
    pub const ECHO_REQUEST6: u8 = 128;
    /// ICMPv6: echo reply.
    pub const ECHO_REPLY6: u8 = 129;
}

/// An atomic fragment (RFC 6946), offset zero and no more, is a whole datagram.
#[inline(always)]
const fn fragment6(offset_and_more: u16, id: u32) -> Fragment {
    match (offset_and_more >> 3, offset_and_more & 1) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First(id),
        _ => Fragment::Later(id),
    }
}
