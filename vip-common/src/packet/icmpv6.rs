//! Neighbour discovery over ICMPv6 (RFC 4861).

use super::Bytes;
use super::checksum::Sum;
use super::ethernet::Mac;
use super::ipv6::{self, Address};

/// IPv6 next header number.
pub const NEXT_HEADER: u8 = 58;
/// Type of a neighbour solicitation.
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// Type of a neighbour advertisement.
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;

/// Offset of the target address in both messages.
pub const TARGET: usize = 8;
/// Offset of the first option in both messages, and their length without options.
pub const OPTIONS: usize = 24;
/// Option: link-layer address of the sender of a solicitation.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// Option: link-layer address of the advertised target.
pub const TARGET_LINK_LAYER: u8 = 2;

/// The longest message that is read: eight units of options. The longest in use, a solicitation with source address,
/// nonce (RFC 7527) and ARO (RFC 6775), has 24 + 8 + 8 + 16 bytes.
pub const LONGEST: usize = 88;

/// Options and the checksum are both made of units of eight bytes.
const UNIT: usize = 8;

/// The link-layer addresses that a sound message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// [`SOURCE_LINK_LAYER`]
    pub source: Option<Mac>,
    /// [`TARGET_LINK_LAYER`]
    pub target: Option<Mac>,
}

/// The message's type and code; its checksum and target are not looked at.
#[inline(always)]
pub fn kind<B: Bytes + ?Sized>(frame: &B, ip: usize) -> Option<(u8, u8)> {
    let [kind, code] = frame.load(ip + ipv6::HEADER)?;
    Some((kind, code))
}

/// Whether the packet holds a solicitation or an advertisement.
#[inline(always)]
pub fn is_neighbor_message<B: Bytes + ?Sized>(frame: &B, ip: usize) -> bool {
    matches!(kind(frame, ip), Some((NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT, _)))
}

/// The target of a solicitation or advertisement in the IPv6 packet at `ip`.
#[inline(always)]
pub fn target<B: Bytes + ?Sized>(frame: &B, ip: usize) -> Option<Address> {
    Address::load(frame, ip + ipv6::HEADER + TARGET)
}

/// The checks that both messages must pass before anything in them counts (RFC 4861, 7.1): version, hop limit, code,
/// length, checksum, options that fill the message exactly. `None` if one fails, or if the message is longer than [`LONGEST`].
#[inline(always)]
pub fn validate<B: Bytes + ?Sized>(frame: &B, ip: usize) -> Option<Options> {
    let (_, code) = kind(frame, ip)?;
    let length = usize::from(ipv6::payload_length(frame, ip)?);
    let whole_units = length % UNIT == 0 && (OPTIONS..=LONGEST).contains(&length);
    // A router decrements the hop limit, so 255 proves that the sender is on this link.
    if ipv6::version(frame, ip)? != 6 || code != 0 || ipv6::hop_limit(frame, ip)? != 255 || !whole_units {
        return None;
    }
    if checksum(frame, ip, length)? != [0; 2] {
        return None;
    }
    options(frame, ip + ipv6::HEADER + OPTIONS, length - OPTIONS)
}

/// The checksum of a message of whole units, over data and pseudo-header (RFC 8200, 8.1).
#[inline(always)]
fn checksum<B: Bytes + ?Sized>(frame: &B, ip: usize, length: usize) -> Option<[u8; 2]> {
    let mut sum = pseudo_header(ipv6::source(frame, ip)?, ipv6::destination(frame, ip)?, length);
    for unit in 0..LONGEST / UNIT {
        if unit * UNIT >= length {
            break;
        }
        sum = sum.eight(frame.load(ip + ipv6::HEADER + unit * UNIT)?);
    }
    Some(sum.checksum())
}

/// The sum of the pseudo-header of an ICMPv6 message of `length` bytes.
#[inline(always)]
pub fn pseudo_header(source: Address, destination: Address, length: usize) -> Sum {
    let sum = destination.add_to(source.add_to(Sum::new()));
    sum.word((length as u16).to_be_bytes()).word([0, NEXT_HEADER])
}

/// Walks `length` bytes of options (at most `LONGEST - OPTIONS`); `None` if they do not fit exactly.
#[inline(always)]
fn options<B: Bytes + ?Sized>(frame: &B, first: usize, length: usize) -> Option<Options> {
    let mut found = Options { source: None, target: None };
    let mut done = 0;
    for _ in 0..(LONGEST - OPTIONS) / UNIT {
        if done >= length {
            break;
        }
        // Never true; bounds `done` by a constant, which is all that verifiers before Linux 6.8 can compare with.
        if done > LONGEST - OPTIONS - UNIT {
            return None;
        }
        let [kind, units] = frame.load(first + done)?;
        match (kind, units) {
            (_, 0) => return None,
            (SOURCE_LINK_LAYER, 1) => found.source = Mac::load(frame, first + done + 2),
            (TARGET_LINK_LAYER, 1) => found.target = Mac::load(frame, first + done + 2),
            _ => {}
        }
        done += usize::from(units) * UNIT;
    }
    (done == length).then_some(found)
}

/// A neighbour advertisement with its one option, the target's link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The VIP: source address and target.
    pub target: Address,
    /// The MAC that answers for it.
    pub mac: Mac,
    /// Who is told.
    pub destination: Address,
    /// Bits of [`flags`].
    pub flags: u8,
}

/// The first byte behind an advertisement's checksum (RFC 4861, 4.4).
pub mod flags {
    /// R: the sender forwards packets.
    pub const ROUTER: u8 = 0x80;
    /// S: it answers a solicitation of the destination.
    pub const SOLICITED: u8 = 0x40;
    /// O: it replaces what neighbours have in their caches.
    pub const OVERRIDE: u8 = 0x20;
}

impl Advertisement {
    /// Bytes of the ICMPv6 message: one option.
    pub const LENGTH: usize = OPTIONS + UNIT;

    /// The IPv6 header's first eight bytes.
    pub const IPV6_START: [u8; 8] = [0x60, 0, 0, 0, 0, Self::LENGTH as u8, NEXT_HEADER, 255];

    /// The message's first eight bytes, its checksum included.
    #[inline(always)]
    pub fn start(&self) -> [u8; 8] {
        let header = pseudo_header(self.target, self.destination, Self::LENGTH).eight([
            NEIGHBOR_ADVERTISEMENT,
            0,
            0,
            0,
            self.flags,
            0,
            0,
            0,
        ]);
        let [high, low] = self.target.add_to(header).eight(self.option()).checksum();
        [NEIGHBOR_ADVERTISEMENT, 0, high, low, self.flags, 0, 0, 0]
    }

    /// The target link-layer address option.
    #[inline(always)]
    pub const fn option(&self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self.mac.bytes();
        [TARGET_LINK_LAYER, 1, a, b, c, d, e, f]
    }
}
