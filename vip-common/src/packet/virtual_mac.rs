//! The virtual MACs of VRRP (RFC 9568, 7.3): 00-00-5E-00-01-VRID for IPv4, 00-00-5E-00-02-VRID for IPv6.

use super::Bytes;
use super::ethernet::{self, Mac};
use crate::decision::Family;

/// IANA's OUI and the first byte of the block, as [`Bytes`] reads them.
const PREFIX: [u8; 4] = [0x00, 0x00, 0x5e, 0x00];
const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// The virtual MAC of one virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VirtualMac {
    block: u8,
    id: u8,
}

impl VirtualMac {
    /// Of the virtual router with this VRID (1-255) over a family.
    #[inline(always)]
    pub const fn new(family: Family, id: u8) -> Self {
        let block = match family {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        };
        Self { block, id }
    }

    /// The frame's destination, if it is a virtual MAC. One load and one comparison rule out all other frames.
    #[inline(always)]
    pub fn of_destination<B: Bytes + ?Sized>(frame: &B) -> Option<Self> {
        let prefix = u32::from_le_bytes(frame.load(ethernet::DESTINATION)?);
        if prefix != const { u32::from_le_bytes(PREFIX) } {
            return None;
        }
        let [block, id] = frame.load(ethernet::DESTINATION + PREFIX.len())?;
        matches!(block, IPV4 | IPV6).then_some(Self { block, id })
    }

    /// The last two bytes, in which virtual MACs differ.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 2] {
        [self.block, self.id]
    }

    /// The address on the wire.
    #[inline(always)]
    pub const fn mac(self) -> Mac {
        let [a, b, c, d] = PREFIX;
        Mac::new([a, b, c, d, self.block, self.id])
    }
}
