//! The ports that full NAT may give to flows on their way to backends.

use core::ops::RangeInclusive;

use bytemuck::{Pod, Zeroable};

/// Ranges of ports at most.
pub const MAX_RANGES: usize = 8;

/// Value of `NAT_PORTS`: ports that nobody else on this node uses.
///
/// A flow is told by both ends, so each backend's port can have as many flows of each protocol as there are ports here.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ports {
    /// How many there are in all ranges.
    count: u32,
    /// First and last of each range, ascending; [0, 0] = none.
    ranges: [[u16; 2]; MAX_RANGES],
}

impl Ports {
    /// Nobody gets any.
    pub const NONE: Self = Self { count: 0, ranges: [[0; 2]; MAX_RANGES] };

    /// Those of `wanted` that are in none of `taken` (`ip_local_port_range`, listening ports, NodePorts, ports of services).
    /// Where that leaves more than [`MAX_RANGES`] ranges the longest are taken. Port 0 is none.
    pub fn new(wanted: RangeInclusive<u16>, taken: &[RangeInclusive<u16>]) -> Self {
        let mut ports = Self::NONE;
        let last = u32::from(*wanted.end());
        let mut at = u32::from(*wanted.start()).max(1);
        while at <= last {
            let covering =
                taken.iter().filter(|range| covers(range, at)).map(|range| u32::from(*range.end()));
            if let Some(end) = covering.max() {
                at = end + 1;
                continue;
            }
            let next = taken.iter().map(|range| u32::from(*range.start())).filter(|start| *start > at).min();
            let end = next.map_or(last, |next| last.min(next - 1));
            // Both are ports: `wanted` bounds them.
            ports.add([at as u16, end as u16]);
            at = end + 1;
        }
        ports
    }

    /// In the place of the shortest if there is no room, unless that is longer.
    fn add(&mut self, range: [u16; 2]) {
        let shortest = (0..MAX_RANGES).min_by_key(|index| length(self.ranges[*index])).unwrap_or_default();
        if length(range) > length(self.ranges[shortest]) {
            self.ranges[shortest] = range;
            self.ranges.sort_unstable_by_key(|range| if *range == [0; 2] { u16::MAX } else { range[0] });
            self.count = self.ranges.iter().map(|range| length(*range)).sum();
        }
    }

    /// How many there are.
    #[inline(always)]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        self.ranges.iter().filter(|range| length(**range) > 0).map(|[first, last]| *first..=*last)
    }

    /// Whether it is one of them.
    #[inline(always)]
    pub fn contains(&self, port: u16) -> bool {
        let mut index = 0;
        while index < MAX_RANGES {
            let [first, last] = self.ranges[index];
            if first != 0 && port >= first && port <= last {
                return true;
            }
            index += 1;
        }
        false
    }

    /// The port at this place, of [`Self::count`]; `None` behind the last.
    #[inline(always)]
    pub(super) fn nth(&self, place: u32) -> Option<u16> {
        let mut left = place;
        let mut index = 0;
        while index < MAX_RANGES {
            let range = self.ranges[index];
            let length = length(range);
            if left < length {
                return Some(range[0].wrapping_add(left as u16));
            }
            left -= length;
            index += 1;
        }
        None
    }

    /// A place for a random number: each is as likely.
    #[inline(always)]
    pub(super) const fn place(&self, random: u32) -> u32 {
        ((random as u64 * self.count as u64) >> 32) as u32
    }

    /// The next place, which is the first behind the last.
    #[inline(always)]
    pub(super) const fn after(&self, place: u32) -> u32 {
        if place + 1 < self.count { place + 1 } else { 0 }
    }
}

fn covers(range: &RangeInclusive<u16>, port: u32) -> bool {
    u32::from(*range.start()) <= port && port <= u32::from(*range.end())
}

#[inline(always)]
const fn length([first, last]: [u16; 2]) -> u32 {
    if first == 0 || last < first { 0 } else { last as u32 - first as u32 + 1 }
}
