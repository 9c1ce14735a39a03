//! Ethernet II with up to two VLAN tags.

use core::fmt;

use super::{Bytes, BytesMut};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of local experiments (IEEE 802, 9.2.3): ours for [`crate::heartbeat`].
pub const HEARTBEAT: u16 = 0x88b5;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Offset of the destination address.
pub const DESTINATION: usize = 0;
/// Offset of the source address.
pub const SOURCE: usize = 6;
/// Bytes of a header without tags.
pub const HEADER: usize = 14;
/// Bytes that a tag adds.
pub const TAG: usize = 4;

/// An Ethernet address, held as a number.
///
/// In the kernel it is compared and moved about in one register; an array would be taken apart into bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(u64);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self::new([0xff; 6]);

    /// From the bytes on the wire.
    #[inline(always)]
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// The bytes on the wire.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// The bytes on the wire as a number, the first one lowest.
    #[inline(always)]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// From [`Self::number`]; what is above its six bytes does not count.
    #[inline(always)]
    pub const fn of_number(number: u64) -> Self {
        Self(number & 0xffff_ffff_ffff)
    }

    /// Reads the address at `offset`.
    #[inline(always)]
    pub fn load<B: Bytes + ?Sized>(frame: &B, offset: usize) -> Option<Self> {
        let last = u16::from_le_bytes(frame.load(offset + 4)?);
        let first = u32::from_le_bytes(frame.load(offset)?);
        Some(Self(u64::from(first) | u64::from(last) << 32))
    }

    /// Writes the address at `offset`.
    #[inline(always)]
    #[must_use]
    pub fn store<B: BytesMut + ?Sized>(self, frame: &mut B, offset: usize) -> Option<()> {
        frame.store(offset + 4, ((self.0 >> 32) as u16).to_le_bytes())?;
        frame.store(offset, (self.0 as u32).to_le_bytes())
    }

    /// Whether it names a group of stations (broadcast included).
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether it names one station: neither a group nor all zero.
    #[inline(always)]
    pub const fn is_station(self) -> bool {
        !self.is_group() && self.0 != 0
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.bytes();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What stands behind the addresses.
///
/// The addresses are not here: most frames are passed on without a look at them ([`destination`], [`source`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the payload, behind all tags that were read.
    pub ethertype: u16,
    /// Offset of the payload: 14, 18 or 22.
    pub payload: usize,
    /// The VLAN, if the tags name one.
    pub vlan: Option<VlanId>,
}

/// The VLAN that a frame's tags name. VID 0 only carries a priority (802.1Q, table 9-2) and counts as no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanId {
    /// 1-4095.
    pub outer: u16,
    /// 0 where there is no second tag.
    pub inner: u16,
}

impl Header {
    /// Reads the type and at most two tags; `None` if the frame ends before them.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B) -> Option<Self> {
        let ethertype = u16::from_be_bytes(frame.load(12)?);
        if !is_tag(ethertype) {
            return Some(Self { ethertype, payload: HEADER, vlan: None });
        }
        let (first, ethertype) = tag(frame, HEADER)?;
        if !is_tag(ethertype) {
            return Some(Self { ethertype, payload: HEADER + TAG, vlan: VlanId::of(first, 0) });
        }
        let (second, ethertype) = tag(frame, HEADER + TAG)?;
        Some(Self { ethertype, payload: HEADER + 2 * TAG, vlan: VlanId::of(first, second) })
    }
}

impl VlanId {
    #[inline(always)]
    fn of(first: u16, second: u16) -> Option<Self> {
        match (first, second) {
            (0, 0) => None,
            (0, outer) => Some(Self { outer, inner: 0 }),
            (outer, inner) => Some(Self { outer, inner }),
        }
    }
}

/// The destination address.
#[inline(always)]
pub fn destination<B: Bytes + ?Sized>(frame: &B) -> Option<Mac> {
    Mac::load(frame, DESTINATION)
}

/// The source address.
#[inline(always)]
pub fn source<B: Bytes + ?Sized>(frame: &B) -> Option<Mac> {
    Mac::load(frame, SOURCE)
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, VLAN | SERVICE_VLAN)
}

/// VID and inner type of the tag whose control information is at `offset`.
#[inline(always)]
fn tag<B: Bytes + ?Sized>(frame: &B, offset: usize) -> Option<(u16, u16)> {
    let [a, b, c, d] = frame.load(offset)?;
    Some((u16::from_be_bytes([a, b]) & 0x0fff, u16::from_be_bytes([c, d])))
}
