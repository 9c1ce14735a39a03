//! Maglev rings: which backend a flow belongs to, the same on every node from the same set (Eisenbud et al.: "Maglev: A Fast
//! and Reliable Software Network Load Balancer", NSDI 2016, 3.4), with weights.
//!
//! Called by the agent, which fills a ring in the memory of a new map before the program sees it, and by tests. The program
//! only reads one entry ([`position`](super::hash::position)).
//!
//! Each backend walks through the ring's entries in an order of its own, which follows from its address alone, and in
//! its turn takes the next that is free. Turns go by identity, not by the order of the list or of map slots, so nodes that
//! learned the backends differently build the same. A backend that goes leaves its entries; most of the others stay.

use core::num::NonZeroU32;

use super::hash;

/// A ring's entry that belongs to nobody: no backend has this slot.
pub const UNSET: u32 = 0;

/// The length of a ring: a prime, so that every walk comes by every entry.
///
/// All nodes of a VIP must have the same. 4 bytes each; a hundred times the number of backends keeps shares within about
/// 1 % and, when one backend of a hundred goes, moves less than 2 % of the others' entries (measured: 1.4 %; a
/// ring of 4093 moves 3.1 %).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize(u32);

impl RingSize {
    /// 16381 entries, 64 KiB.
    pub const DEFAULT: Self = Self(16381);
    /// The shortest that is of any use.
    pub const MIN: u32 = 251;
    /// The longest: 512 KiB.
    pub const MAX: u32 = 131_071;

    /// `None` unless `entries` is a prime from [`Self::MIN`] to [`Self::MAX`].
    pub const fn new(entries: u32) -> Option<Self> {
        if entries < Self::MIN || entries > Self::MAX || entries.is_multiple_of(2) {
            return None;
        }
        let mut divisor = 3;
        while divisor * divisor <= entries {
            if entries.is_multiple_of(divisor) {
                return None;
            }
            divisor += 2;
        }
        Some(Self(entries))
    }

    /// The number of entries.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Elements of a ring's map, of two entries each ([`super::tables::RingPair`]).
    pub const fn pairs(self) -> u32 {
        self.0.div_ceil(2)
    }
}

/// A backend that may be in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    identity: [u8; 16],
    slot: NonZeroU32,
    weight: u16,
    credit: u32,
    position: u32,
    skip: u32,
}

impl Candidate {
    /// `identity`: the address, IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2), so that no address of one family is one of the
    /// other. `slot`: index into this node's `BACKENDS`, which the ring is to hold. `weight`: share of new flows
    /// relative to the others; 0 = draining: none.
    pub const fn new(identity: [u8; 16], slot: NonZeroU32, weight: u16) -> Self {
        Self { identity, slot, weight, credit: 0, position: 0, skip: 0 }
    }

    /// Where its walk through a ring begins, and by how many entries each step goes: for models and for looking into a ring.
    pub fn walk(&self, size: RingSize) -> (u32, u32) {
        let size = u64::from(size.get());
        let offset = hash::offset(self.identity) % size;
        let skip = hash::skip(self.identity) % (size - 1) + 1;
        (offset as u32, skip as u32)
    }

    /// Half a turn of credit: shares are rounded, not cut off, which would give the heaviest what the light ones lack.
    fn start(&mut self, size: RingSize, heaviest: u32) {
        self.credit = heaviest / 2;
        (self.position, self.skip) = self.walk(size);
    }

    /// The entry of the walk that comes next.
    fn step(&mut self, size: u32) -> u32 {
        let here = self.position;
        let next = here + self.skip;
        self.position = if next >= size { next - size } else { next };
        here
    }
}

/// Why no ring was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The memory holds another number of entries than the ring has.
    Length,
    /// Two backends have the same identity: whose entries are whose would depend on their order.
    Twice([u8; 16]),
    /// There are more backends with a weight than entries.
    TooMany,
}

/// Fills `ring`; all [`UNSET`] if no backend has a weight. The candidates come back sorted by identity.
///
/// Each backend has its share, rounded to whole entries; what rounding leaves over is spread by weight. The time goes by
/// size x ln(size), hardly by the number of backends.
pub fn fill(ring: &mut [u32], size: RingSize, candidates: &mut [Candidate]) -> Result<(), Refused> {
    if ring.len() != size.get() as usize {
        return Err(Refused::Length);
    }
    candidates.sort_unstable_by_key(|candidate| candidate.identity);
    if let Some([first, _]) = candidates.array_windows().find(|[a, b]| a.identity == b.identity) {
        return Err(Refused::Twice(first.identity));
    }
    if candidates.iter().filter(|candidate| candidate.weight > 0).count() > ring.len() {
        return Err(Refused::TooMany);
    }
    ring.fill(UNSET);
    let heaviest = candidates.iter().map(|candidate| u32::from(candidate.weight)).max().unwrap_or(0);
    if heaviest > 0 {
        candidates.iter_mut().for_each(|candidate| candidate.start(size, heaviest));
        take_turns(ring, size.get(), heaviest, candidates);
    }
    Ok(())
}

/// In each round the heaviest have one turn each, the others as often as their weight is of that.
fn take_turns(ring: &mut [u32], size: u32, heaviest: u32, candidates: &mut [Candidate]) {
    let mut free = size;
    loop {
        for candidate in &mut *candidates {
            candidate.credit += u32::from(candidate.weight);
            if candidate.credit < heaviest {
                continue;
            }
            candidate.credit -= heaviest;
            take(ring, size, candidate);
            free -= 1;
            if free == 0 {
                return;
            }
        }
    }
}

/// Gives a candidate the next free entry of its walk. There is one, and the walk comes by it.
fn take(ring: &mut [u32], size: u32, candidate: &mut Candidate) {
    loop {
        let at = candidate.step(size);
        if let Some(entry) = ring.get_mut(at as usize)
            && *entry == UNSET
        {
            *entry = candidate.slot.get();
            return;
        }
    }
}
