//! Hashes that all nodes compute alike, whatever they run on. Their values are pinned by a test: versions are mixed while nodes are
//! upgraded one by one.

use std::net::IpAddr;

/// FNV-1a, 64 bits, and the finaliser of SplitMix64, since FNV alone mixes its upper bits badly.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // Each part ends, or "ab" + "c" would be "a" + "bc".
        for byte in part.iter().copied().chain([0xff]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    state ^= state >> 30;
    state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state ^= state >> 27;
    state = state.wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// Of an address, in network order.
pub(super) fn of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => hash(&[&address.octets()]),
        IpAddr::V6(address) => hash(&[&address.octets()]),
    }
}

/// The hash's share of a range, 0 to `range` - 1.
pub(super) fn within(hash: u64, range: u8) -> u8 {
    let scaled = (u128::from(hash) * u128::from(range)) >> 64;
    u8::try_from(scaled).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_computes_the_same() {
        assert_eq!(hash(&[]), hash(&[]));
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        let pinned = [hash(&[b"kube-shard-1", b"node1"]), of_address([10, 0, 0, 50].into())];
        assert_eq!(pinned, PINNED);
    }

    const PINNED: [u64; 2] = [14_839_634_229_307_905_789, 1_230_773_567_201_149_330];

    #[test]
    fn a_share_of_a_range_is_within_it() {
        assert_eq!([0, u64::MAX / 2 + 1, u64::MAX].map(|hash| within(hash, 8)), [0, 4, 7]);
    }
}
