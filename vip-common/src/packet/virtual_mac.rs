//! The virtual MACs of VRRP (RFC 9568, 7.3): 00-00-5E-00-01-VRID for IPv4, 00-00-5E-00-02-VRID for IPv6.

use super::Bytes;
use super::ethernet;

/// IANA's OUI and a zero, as [`Bytes`] reads them.
const PREFIX: [u8; 4] = [0x00, 0x00, 0x5e, 0x00];
const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// The last two bytes of the frame's destination, in which virtual MACs differ, if it is one. A load and a comparison rule
/// out all other frames.
#[inline(always)]
pub fn of_destination<B: Bytes + ?Sized>(frame: &B) -> Option<[u8; 2]> {
    let prefix = u32::from_le_bytes(frame.load(ethernet::DESTINATION)?);
    if prefix != const { u32::from_le_bytes(PREFIX) } {
        return None;
    }
    let [block, id] = frame.load(ethernet::DESTINATION + PREFIX.len())?;
    matches!(block, IPV4 | IPV6).then_some([block, id])
}
