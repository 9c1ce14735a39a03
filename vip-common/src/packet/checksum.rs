//! The Internet checksum: whole (RFC 1071) and by difference (RFC 1624).
//!
//! Sums are kept in memory order, which the checksum does not mind (RFC 1071, 2B), and four bytes wide.

/// The running sum, good for more data than a packet can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds one word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(word) as u64)
    }

    /// Adds four words.
    #[inline(always)]
    #[must_use]
    pub const fn eight(self, bytes: [u8; 8]) -> Self {
        let bytes = u64::from_ne_bytes(bytes);
        Self(self.0 + (bytes & 0xffff_ffff) + (bytes >> 32))
    }

    /// The checksum to send; over data that holds its own checksum it is zero if nothing was damaged.
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        (!(sum as u16)).to_ne_bytes()
    }
}

/// The checksum after the word `from` of its data became `to` (RFC 1624, equation 3).
///
/// What was damaged before stays damaged.
#[must_use]
pub const fn replace(checksum: [u8; 2], from: [u8; 2], to: [u8; 2]) -> [u8; 2] {
    Sum::new().word(invert(checksum)).word(invert(from)).word(to).checksum()
}

const fn invert([high, low]: [u8; 2]) -> [u8; 2] {
    [!high, !low]
}
