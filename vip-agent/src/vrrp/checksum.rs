//! The Internet checksum (RFC 1071), shared by VRRP, the IPv4 header and ICMPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A running one's complement sum. Parts may be added in any order, each of even length but the last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// With `bytes` read as big-endian 16-bit words, an odd last byte padded with zero.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        let sum: u64 = words.iter().map(|&word| u64::from(u16::from_be_bytes(word))).sum();
        Self(self.0 + sum + rest.first().map_or(0, |&last| u64::from(last) << 8))
    }

    /// With the IPv4 pseudo-header (RFC 9568, 5.2.8, as keepalived and FRR apply it to IPv4).
    pub(crate) fn pseudo4(
        self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        length: usize,
    ) -> Self {
        self.bytes(&source.octets()).bytes(&destination.octets()).tail(protocol, length)
    }

    /// With the IPv6 pseudo-header (RFC 8200, 8.1).
    pub(crate) fn pseudo6(
        self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        length: usize,
    ) -> Self {
        self.bytes(&source.octets()).bytes(&destination.octets()).tail(protocol, length)
    }

    /// With one 16-bit word.
    pub(crate) fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    fn tail(self, protocol: u8, length: usize) -> Self {
        Self(self.0 + u64::from(protocol) + length as u64)
    }

    /// The sum itself: 0xffff over data that holds its own right checksum.
    pub(crate) fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // The loop leaves 16 bits.
        sum as u16
    }

    /// What goes into the checksum field, summed as zero.
    pub(crate) fn checksum(self) -> u16 {
        !self.folded()
    }

    /// Whether data that holds its own checksum is intact.
    pub(crate) fn is_valid(self) -> bool {
        self.folded() == 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_example_of_rfc_1071() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    #[test]
    fn pads_an_odd_last_byte_with_zero() {
        assert_eq!(Sum::default().bytes(&[0x12, 0x34, 0x56]).folded(), 0x1234 + 0x5600);
    }
}
