//! IPv4 (RFC 791).

use super::Bytes;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Offset of the total length.
pub const TOTAL_LENGTH: usize = 2;
/// Offset of the identification; flags and fragment offset follow.
pub const IDENTIFICATION: usize = 4;
/// Offset of the time to live; the protocol follows.
pub const TTL: usize = 8;
/// Offset of the protocol.
pub const PROTOCOL: usize = 9;
/// Offset of the header's checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SOURCE: usize = 12;
/// Offset of the destination address.
pub const DESTINATION: usize = 16;
/// Flag: do not fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Flag: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset, in units of eight bytes.
pub const OFFSET: u16 = 0x1fff;

/// What the first look needs: whose packet, and whether it is one that always passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Destination address.
    pub destination: [u8; 4],
}

impl Brief {
    /// Reads the header at `at`; `None` if it is cut short.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Self> {
        let destination = frame.load(at + DESTINATION)?;
        let [protocol] = frame.load(at + PROTOCOL)?;
        Some(Self { protocol, destination })
    }
}

/// Where the transport header is; `None` if this is a fragment without one, or no sane IPv4.
#[inline(always)]
pub fn transport<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<usize> {
    let [version_and_words] = frame.load(at)?;
    let words = usize::from(version_and_words & 0x0f);
    let fragment_offset = u16::from_be_bytes(frame.load(at + 6)?) & 0x1fff;
    (version_and_words >> 4 == 4 && words >= 5 && fragment_offset == 0).then_some(at + words * 4)
}

/// The source address.
#[inline(always)]
pub fn source<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<[u8; 4]> {
    frame.load(at + SOURCE)
}

/// The address in the first four of an IPv6 address' bytes: how the maps hold it where they hold both families.
#[inline(always)]
pub const fn widen([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}
