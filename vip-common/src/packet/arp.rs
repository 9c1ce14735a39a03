//! ARP for IPv4 over Ethernet (RFC 826).

use super::Bytes;
use super::ethernet::Mac;

/// Hardware type of Ethernet.
pub const ETHERNET: u16 = 1;
/// Operation: who has the target address?
pub const REQUEST: u16 = 1;
/// Operation: the sender has the sender address.
pub const REPLY: u16 = 2;

/// Protocol type of IPv4, and the lengths of both kinds of addresses.
const IPV4_OVER_ETHERNET: [u8; 4] = [0x08, 0x00, 6, 4];

/// Offset of the operation.
pub const OPERATION: usize = 6;
/// Offset of the sender's hardware address.
pub const SENDER_MAC: usize = 8;
/// Offset of the sender's protocol address.
pub const SENDER: usize = 14;
/// Offset of the target's hardware address.
pub const TARGET_MAC: usize = 18;
/// Offset of the target's protocol address.
pub const TARGET: usize = 24;

/// An ARP message whose addresses are of IPv4 and of the length of Ethernet's.
///
/// ```text
///  0        2        4    5    6         8            14         18           24         28
/// | htype  | ptype  |hlen|plen|operation| sender MAC | sender IP | target MAC | target IP |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// [`ETHERNET`]; Linux accepts 6 (IEEE 802) as well.
    pub hardware_type: u16,
    /// [`REQUEST`], [`REPLY`] or one of the rarer ones.
    pub operation: u16,
    /// Hardware address of the sender.
    pub sender_mac: Mac,
    /// Protocol address of the sender; 0.0.0.0 in a probe (RFC 5227, 2.1.1).
    pub sender: [u8; 4],
    /// Protocol address that the message asks for.
    pub target: [u8; 4],
}

impl Arp {
    /// Reads the message at `at`; `None` if it is cut short, or its addresses are not of IPv4 over Ethernet.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Self> {
        let target = frame.load(at + TARGET)?;
        if frame.load(at + 2)? != IPV4_OVER_ETHERNET {
            return None;
        }
        Some(Self {
            hardware_type: u16::from_be_bytes(frame.load(at)?),
            operation: u16::from_be_bytes(frame.load(at + OPERATION)?),
            sender_mac: Mac::load(frame, at + SENDER_MAC)?,
            sender: frame.load(at + SENDER)?,
            target,
        })
    }
}
