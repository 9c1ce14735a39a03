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

    /// Adds two words.
    #[inline(always)]
    #[must_use]
    pub const fn four(self, bytes: [u8; 4]) -> Self {
        Self(self.0 + u32::from_ne_bytes(bytes) as u64)
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

/// What changes of the data add up to, for checksums that cover them (RFC 1624, equation 3): one of them for several fields,
/// and one for several checksums.
///
/// What was damaged before stays damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(Sum);

impl Delta {
    /// Of no change.
    pub const fn new() -> Self {
        Self(Sum::new())
    }

    /// One word became another.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, from: [u8; 2], to: [u8; 2]) -> Self {
        Self(self.0.word(invert(from)).word(to))
    }

    /// Two words became others: an IPv4 address, both ports.
    #[inline(always)]
    #[must_use]
    pub const fn four(self, from: [u8; 4], to: [u8; 4]) -> Self {
        Self(self.0.four((!u32::from_ne_bytes(from)).to_ne_bytes()).four(to))
    }

    /// Four words became others: half of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn eight(self, from: [u8; 8], to: [u8; 8]) -> Self {
        Self(self.0.eight((!u64::from_ne_bytes(from)).to_ne_bytes()).eight(to))
    }

    /// All changes of both.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(Sum(self.0.0 + other.0.0))
    }

    /// A checksum over the data after the changes.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        self.0.word(invert(checksum)).checksum()
    }

    /// As the kernel's helpers take it (bpf_l3_csum_replace, bpf_l4_csum_replace): a sum of 32 bits.
    #[inline(always)]
    pub const fn folded(self) -> u32 {
        let sum = (self.0.0 & 0xffff_ffff) + (self.0.0 >> 32);
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum as u32
    }

    /// The same for UDP, where zero says that there is none (RFC 768): that stays, and nothing else becomes it.
    #[inline(always)]
    #[must_use]
    pub const fn apply_udp(self, checksum: [u8; 2]) -> [u8; 2] {
        match checksum {
            [0, 0] => [0, 0],
            checksum => match self.apply(checksum) {
                [0, 0] => [0xff, 0xff],
                changed => changed,
            },
        }
    }
}

/// The checksum after the word `from` of its data became `to` (RFC 1624, equation 3).
///
/// What was damaged before stays damaged.
#[must_use]
pub const fn replace(checksum: [u8; 2], from: [u8; 2], to: [u8; 2]) -> [u8; 2] {
    Sum::new().word(invert(checksum)).word(invert(from)).word(to).checksum()
}

#[inline(always)]
const fn invert([high, low]: [u8; 2]) -> [u8; 2] {
    [!high, !low]
}
