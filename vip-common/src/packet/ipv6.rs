//! IPv6's fixed header (RFC 8200). Extension headers are only followed by [`crate::steering::packet`]: nothing that we answer has one.

use core::fmt;

use super::checksum::Sum;
use super::ethernet::Mac;
use super::{Bytes, BytesMut};

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// Offset of the next header's number.
pub const NEXT_HEADER: usize = 6;
/// Offset of the hop limit.
pub const HOP_LIMIT: usize = 7;
/// Offset of the payload length.
pub const PAYLOAD_LENGTH: usize = 4;
/// Offset of the source address.
pub const SOURCE: usize = 8;
/// Offset of the destination address.
pub const DESTINATION: usize = 24;

/// An address, held as two numbers in memory order: registers, as [`super::ethernet::Mac`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    high: u64,
    low: u64,
}

impl Address {
    /// `::`
    pub const UNSPECIFIED: Self = Self { high: 0, low: 0 };
    /// `ff02::1`
    pub const ALL_NODES: Self = Self::halves([0xff, 0x02, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]);

    #[inline(always)]
    const fn halves(high: [u8; 8], low: [u8; 8]) -> Self {
        Self { high: u64::from_ne_bytes(high), low: u64::from_ne_bytes(low) }
    }

    /// From the bytes on the wire.
    #[inline(always)]
    pub const fn new([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [u8; 16]) -> Self {
        Self::halves([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p])
    }

    /// The bytes on the wire.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.high.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.low.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Reads the address at `offset`.
    #[inline(always)]
    pub fn load<B: Bytes + ?Sized>(frame: &B, offset: usize) -> Option<Self> {
        let low = u64::from_ne_bytes(frame.load(offset + 8)?);
        let high = u64::from_ne_bytes(frame.load(offset)?);
        Some(Self { high, low })
    }

    /// Writes the address at `offset`.
    #[inline(always)]
    #[must_use]
    pub fn store<B: BytesMut + ?Sized>(self, frame: &mut B, offset: usize) -> Option<()> {
        frame.store(offset + 8, self.low.to_ne_bytes())?;
        frame.store(offset, self.high.to_ne_bytes())
    }

    /// Whether it names a group.
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        self.high.to_ne_bytes()[0] == 0xff
    }

    /// The group that questions for this address go to: ff02::1:ffXX:XXXX (RFC 4291, 2.7.1).
    #[inline(always)]
    pub const fn solicited_node(self) -> Self {
        const PREFIX: Address = Address::halves([0xff, 0x02, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0xff, 0, 0, 0]);
        const LAST_24_BITS: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 0xff, 0xff, 0xff]);
        Self { high: PREFIX.high, low: PREFIX.low | self.low & LAST_24_BITS }
    }

    /// The Ethernet group of an IPv6 group: 33:33 and its last four bytes (RFC 2464, 7).
    #[inline(always)]
    pub const fn group_mac(self) -> Mac {
        let [_, _, _, _, a, b, c, d] = self.low.to_ne_bytes();
        Mac::new([0x33, 0x33, a, b, c, d])
    }

    /// Both halves in one number, the same on every machine: for hashing.
    #[inline(always)]
    pub const fn folded(self) -> u64 {
        u64::from_le(self.high) ^ u64::from_le(self.low).rotate_left(17)
    }

    /// Adds it to a checksum.
    #[inline(always)]
    #[must_use]
    pub const fn add_to(self, sum: Sum) -> Sum {
        sum.eight(self.high.to_ne_bytes()).eight(self.low.to_ne_bytes())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&core::net::Ipv6Addr::from(self.bytes()), f)
    }
}

/// The version, which is not always what the EtherType says.
#[inline(always)]
pub fn version<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<u8> {
    let [version_and_class] = frame.load(at)?;
    Some(version_and_class >> 4)
}

/// The number of the header behind the fixed one.
#[inline(always)]
pub fn next_header<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<u8> {
    let [number] = frame.load(at + NEXT_HEADER)?;
    Some(number)
}

/// Length of what follows the fixed header, in bytes, as the header says.
#[inline(always)]
pub fn payload_length<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<u16> {
    frame.load(at + 4).map(u16::from_be_bytes)
}

/// The hop limit.
#[inline(always)]
pub fn hop_limit<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<u8> {
    let [hops] = frame.load(at + 7)?;
    Some(hops)
}

/// The source address.
#[inline(always)]
pub fn source<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Address> {
    Address::load(frame, at + SOURCE)
}

/// The destination address.
#[inline(always)]
pub fn destination<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Address> {
    Address::load(frame, at + DESTINATION)
}
