//! The end of a tunnel on a backend's node: packets to VIPs, out of the outer header that an owner of the VIP put them into.
//!
//! `viplane` asks [`may_be_ours`] about what is for no VIP, and goes on with `vip_decapsulate`, which calls [`take_out`], where this
//! node is the end of a tunnel. Only what is configured comes out: an end of this node, with a VIP that it is a backend of. The
//! packet's own source is whoever sent it says: docs/security.md.

use bytemuck::{Pod, Zeroable};

use super::packet::{Packet, protocol};
use super::steer::number;
use super::tunnel::{Refused, decapsulate};
use crate::decision::Family;
use crate::packet::{Bytes, Headroom, ethernet, ipv4, ipv6};

/// Pairs of a tunnel's end and a VIP.
pub const MAX_TUNNEL_ENDS: u32 = 16_384;

/// Key of `TUNNEL_ENDS`: what may come out where. Its value says nothing.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct TunnelEndKey {
    /// This node's address that the outer header is to; an IPv4 one stands in the first four bytes.
    pub end: [u8; 16],
    /// The VIP that the inner packet is to, likewise.
    pub vip: [u8; 16],
    /// 4 or 6: of `end`.
    pub end_family: u8,
    /// 4 or 6: of `vip`.
    pub vip_family: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// `TUNNEL_ENDS`: a BPF map in the kernel, a plain collection in tests.
pub trait TunnelEnds {
    /// Whether packets to this VIP may come out at this end.
    fn holds(&self, key: &TunnelEndKey) -> bool;
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is no tunnel's of ours, and as it was.
    Not,
    /// It is the inner packet's now.
    Out,
    /// It is ours, and must be dropped: [`Refused::Invalid`], [`Refused::Congested`].
    Refused,
}

/// Whether a frame may hold a packet within a packet: what costs no more than a look at the protocol.
#[inline(always)]
pub fn may_be_ours<B: Bytes + ?Sized>(frame: &B) -> bool {
    let Some(header) = ethernet::Header::read(frame) else { return false };
    let at = match header.ethertype {
        ethernet::IPV4 => ipv4::PROTOCOL,
        ethernet::IPV6 => ipv6::NEXT_HEADER,
        _ => return false,
    };
    matches!(frame.load(header.payload + at), Some([protocol::IPV4 | protocol::IPV6]))
}

/// Takes a packet out of its outer header, if it came to an end of this node's and is for a VIP that it is a backend of.
#[inline(always)]
pub fn take_out<B: Headroom + ?Sized, T: TunnelEnds>(frame: &mut B, tables: &T) -> Taken {
    let Some((outer, key)) = read(frame) else { return Taken::Not };
    if !tables.holds(&key) {
        return Taken::Not;
    }
    match decapsulate(frame, &outer) {
        Ok(_) => Taken::Out,
        Err(Refused::Unknown) => Taken::Not,
        Err(Refused::Invalid | Refused::Congested) => Taken::Refused,
    }
}

#[inline(always)]
fn read<B: Bytes + ?Sized>(frame: &B) -> Option<(Packet, TunnelEndKey)> {
    let header = ethernet::Header::read(frame)?;
    let family = match header.ethertype {
        ethernet::IPV4 => Family::V4,
        ethernet::IPV6 => Family::V6,
        _ => return None,
    };
    let outer = Packet::read(frame, family, header.payload)?;
    let vip_family = match outer.protocol {
        protocol::IPV4 => Family::V4,
        protocol::IPV6 => Family::V6,
        _ => return None,
    };
    let (_, end) = outer.addresses(frame)?;
    let vip = match vip_family {
        Family::V4 => ipv4::widen(outer.load(frame, ipv4::DESTINATION)?),
        Family::V6 => {
            let [a, b, c, d, e, f, g, h] = outer.load(frame, ipv6::DESTINATION)?;
            let [i, j, k, l, m, n, o, p] = outer.load(frame, ipv6::DESTINATION + 8)?;
            [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
        }
    };
    let (end_family, vip_family) = (number(family), number(vip_family));
    Some((outer, TunnelEndKey { end, vip, end_family, vip_family, reserved: [0; 2] }))
}

const _: () = assert!(size_of::<TunnelEndKey>() == 36);
