//! What tells the frames of those who have the key from all others: SipHash-2-4.
//!
//! A keyed hash made for short messages that BPF can compute: additions, rotations and exclusive ors on four words
//! (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012). Of 64 bits: who has not the key can but guess.

use bytemuck::{Pod, Zeroable};

/// The key of all nodes that hear each other.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Key {
    low: u64,
    high: u64,
}

/// A key is not to be shown.
impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Key {
    /// The key of those who have none of their own. Whoever can read this has it: a seal with it tells damage and
    /// strangers' frames, as a checksum does, and keeps nobody out.
    pub const PUBLIC: Self = Self::new(*b"viplane heartbea");

    /// From its 16 bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            low: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            high: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// The hash of the words' bytes in little-endian order.
    #[inline(always)]
    pub fn seal<const N: usize>(self, words: [u64; N]) -> u64 {
        let mut state = State {
            a: self.low ^ 0x736f_6d65_7073_6575,
            b: self.high ^ 0x646f_7261_6e64_6f6d,
            c: self.low ^ 0x6c79_6765_6e65_7261,
            d: self.high ^ 0x7465_6462_7974_6573,
        };
        for word in words {
            state = state.absorb(word);
        }
        // The last word holds what is left of the message, nothing here, and its length in the highest byte.
        state = state.absorb((N as u64 * 8) << 56);
        state.c ^= 0xff;
        state = state.round().round().round().round();
        state.a ^ state.b ^ state.c ^ state.d
    }
}

#[derive(Clone, Copy)]
struct State {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
}

impl State {
    #[inline(always)]
    const fn absorb(mut self, word: u64) -> Self {
        self.d ^= word;
        self = self.round().round();
        self.a ^= word;
        self
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self { mut a, mut b, mut c, mut d } = self;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32);
        c = c.wrapping_add(b);
        a = a.wrapping_add(d);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        Self { a, b, c, d }
    }
}
