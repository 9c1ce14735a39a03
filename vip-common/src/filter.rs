//! Says of most addresses at once that they are no VIP, so that frames that are not ours do without a hash lookup.
//!
//! A lookup by hash is a call into the kernel: 6-9 ns, and 20-30 ns where the processor needs costly return thunks
//! (AMD's SRSO). An array is read in place, in 2 ns. So `FILTER` is a bitmap over a hash of the address. A set bit says:
//! no VIP has this hash. A map full of zeros, as it is created, therefore rules nothing out: an agent that forgot to
//! fill it would cost time, not VIPs.
//!
//! Who adds a VIP clears its bit first; who removed one sets the bit afterwards, if no other VIP has it.

use crate::packet::ipv6::Address;

/// Entries of `FILTER`, 64 bits each: with 256 VIPs one foreign address in 256 is looked up in vain.
pub const WORDS: u32 = 1024;

/// 2^64 / golden ratio: multiplying by it spreads addresses that differ in few bits (Knuth, TAOCP 6.4).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// One bit of `FILTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    /// Index of the word.
    pub word: u32,
    /// The bit in it.
    pub mask: u64,
}

impl Bit {
    /// Of an IPv4 address.
    #[inline(always)]
    pub const fn of_ipv4(address: [u8; 4]) -> Self {
        Self::of(u32::from_le_bytes(address) as u64)
    }

    /// Of an IPv6 address.
    #[inline(always)]
    pub const fn of_ipv6(address: Address) -> Self {
        Self::of(address.folded())
    }

    #[inline(always)]
    const fn of(number: u64) -> Self {
        let hash = number.wrapping_mul(SPREAD) >> 48;
        Self { word: (hash >> 6) as u32, mask: 1 << (hash & 63) }
    }
}

/// The contents of `FILTER` for a set of VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter([u64; WORDS as usize]);

impl Filter {
    /// Rules out every address.
    pub const fn new() -> Self {
        Self([u64::MAX; WORDS as usize])
    }

    /// No longer rules out addresses of this bit.
    pub fn admit(&mut self, bit: Bit) {
        if let Some(word) = self.0.get_mut(bit.word as usize) {
            *word &= !bit.mask;
        }
    }

    /// Whether addresses of this bit are no VIP.
    pub fn rules_out(&self, bit: Bit) -> bool {
        self.0.get(bit.word as usize).is_some_and(|word| word & bit.mask != 0)
    }

    /// The words, in the order of the map.
    pub const fn words(&self) -> &[u64; WORDS as usize] {
        &self.0
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}
