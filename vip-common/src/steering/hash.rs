//! The hashes on which all nodes must agree: of flows, of clients and of backends.
//!
//! All numbers are read from the wire's bytes in network order, so every machine comes to the same. The mixer is the
//! finaliser of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; constants:
//! Stafford's variant 13): two multiplications, which BPF has, and every bit of the input moves half of the output's.
//!
//! It is not keyed: who chooses his own ports can choose his backend among those of the service. He can do that
//! under any hash that he can observe, and a key would be one more thing that has to be the same on every node.
//!
//! A change of anything here moves flows while nodes of two versions are mixed: it is a change of the protocol.

/// What tells the uses apart: the same address hashes differently as a client and as a backend.
const FLOW: u64 = 0x7669_706c_616e_6501;
const CLIENT: u64 = 0x7669_706c_616e_6502;
const OFFSET: u64 = 0x7669_706c_616e_6503;
const SKIP: u64 = 0x7669_706c_616e_6504;

/// Both ports of a packet, network order: the client's, then the VIP's.
pub type Ports = [u8; 4];

/// Of an IPv4 flow.
#[inline(always)]
pub const fn of_flow4(client: [u8; 4], ports: Ports) -> u64 {
    mix(FLOW ^ ((number(client) << 32) | number(ports)))
}

/// Of an IPv6 flow.
#[inline(always)]
pub const fn of_flow6(client: [u8; 16], ports: Ports) -> u64 {
    let [high, low] = halves(client);
    mix(mix(mix(FLOW ^ high) ^ low) ^ number(ports))
}

/// Of an IPv4 client, whichever its ports: for affinity.
#[inline(always)]
pub const fn of_client4(client: [u8; 4]) -> u64 {
    mix(CLIENT ^ number(client))
}

/// Of an IPv6 client, whichever its ports: for affinity.
#[inline(always)]
pub const fn of_client6(client: [u8; 16]) -> u64 {
    let [high, low] = halves(client);
    mix(mix(CLIENT ^ high) ^ low)
}

/// The place in a ring of `size` entries: below `size`, each equally often. A multiplication instead of a division, which
/// costs an XDP program as much as a map lookup.
#[inline(always)]
pub const fn position(hash: u64, size: u32) -> u32 {
    (((hash >> 32) * size as u64) >> 32) as u32
}

/// Where a backend's walk through the ring begins.
pub(super) const fn offset(identity: [u8; 16]) -> u64 {
    let [high, low] = halves(identity);
    mix(mix(OFFSET ^ high) ^ low)
}

/// How far each step of that walk goes.
pub(super) const fn skip(identity: [u8; 16]) -> u64 {
    let [high, low] = halves(identity);
    mix(mix(SKIP ^ high) ^ low)
}

#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[inline(always)]
const fn number(bytes: [u8; 4]) -> u64 {
    u32::from_be_bytes(bytes) as u64
}

#[inline(always)]
const fn halves([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [u8; 16]) -> [u64; 2] {
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
}
