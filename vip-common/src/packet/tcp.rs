//! TCP (RFC 9293): as much as tells flows apart and sees them begin.

use super::Bytes;

const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Whether the segment at `at` opens a connection: SYN without ACK; `None` if its header is cut short.
#[inline(always)]
pub fn opens<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<bool> {
    let [flags] = frame.load(at + FLAGS)?;
    Some(flags & (SYN | ACK) == SYN)
}

/// Network order.
#[inline(always)]
pub fn source_port<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<[u8; 2]> {
    frame.load(at)
}

/// Network order.
#[inline(always)]
pub fn destination_port<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<[u8; 2]> {
    frame.load(at + 2)
}
