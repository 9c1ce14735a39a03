//! Stamps: numbers that grow with every advert that an agent sends, over restarts, clock changes and its death.
//!
//! A stamp is an epoch and a counter within it. An agent begins an epoch when it starts, greater than any that it has had:
//! the second of the real time, or the one after its last (kept in `state_dir`), whichever is greater. So it takes both to
//! go wrong, a clock that is behind and a lost `state_dir`, before it speaks with stamps that its peers have seen. Within an
//! epoch no clock matters: NTP may step it as it likes. The last stamp of each epoch is never used by the agent itself: the
//! watcher's farewell has it, signed beforehand, and it is greater than whatever the agent may have said until it died.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Enough for a month at the rate of 400 adverts per second, and for seconds until the year 2514.
const COUNTER_BITS: u32 = 30;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;
const LARGEST_EPOCH: u64 = u64::MAX >> COUNTER_BITS;

/// Which of two adverts of a router is the later one: the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

/// The part of a stamp that changes seldom: seconds of the real time, as far as they grow. 34 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

/// The stamps of an agent: drawn by the driver thread, watched over by the runtime.
#[derive(Debug)]
pub struct Stamps(AtomicU64);

impl Stamp {
    /// The number on the wire.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Any number is one.
    pub const fn from_wire(stamp: u64) -> Self {
        Self(stamp)
    }
}

impl Epoch {
    /// One that is greater than `last`, by the real time if that is.
    pub fn after(last: Option<Self>, now: SystemTime) -> Self {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let least = last.map_or(0, |Self(last)| last.saturating_add(1));
        Self(seconds.max(least).min(LARGEST_EPOCH))
    }

    /// The number, to be kept.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// A number that was kept; `None` if it is none of ours.
    pub fn from_kept(epoch: u64) -> Option<Self> {
        (epoch <= LARGEST_EPOCH).then_some(Self(epoch))
    }

    const fn stamp(self, counter: u64) -> u64 {
        (self.0 << COUNTER_BITS) | counter
    }
}

impl Stamps {
    /// From the beginning of an epoch.
    pub fn begin(epoch: Epoch) -> Self {
        Self(AtomicU64::new(epoch.stamp(0)))
    }

    /// Goes on in a later epoch; an earlier one changes nothing.
    pub fn advance(&self, epoch: Epoch) {
        self.0.fetch_max(epoch.stamp(0), Ordering::Relaxed);
    }

    /// One that was not drawn before.
    pub(super) fn next(&self) -> Stamp {
        Stamp(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// The greatest of this epoch, for when nothing is drawn any more.
    pub(super) fn last(&self) -> Stamp {
        Stamp(self.0.load(Ordering::Relaxed) | COUNTER_MASK)
    }

    /// Whether it is time for another epoch: half of this one is used.
    pub fn are_worn(&self) -> bool {
        self.0.load(Ordering::Relaxed) & COUNTER_MASK > COUNTER_MASK / 2
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn an_epoch_is_the_real_time_unless_that_is_not_greater_than_the_last() {
        let last = Epoch::from_kept(1_000);
        assert_eq!(Epoch::after(None, at(5_000)).get(), 5_000);
        assert_eq!(Epoch::after(last, at(5_000)).get(), 5_000);
        assert_eq!(Epoch::after(last, at(1_000)).get(), 1_001, "a second start within a second");
        assert_eq!(Epoch::after(last, at(3)).get(), 1_001, "a clock that was set back");
        assert_eq!(Epoch::after(last, UNIX_EPOCH - Duration::from_secs(9)).get(), 1_001);
    }

    #[test]
    fn the_last_stamp_of_an_epoch_is_greater_than_any_that_was_drawn_and_smaller_than_the_next_epoch() {
        let stamps = Stamps::begin(Epoch(7));
        let drawn: Vec<Stamp> = (0..1000).map(|_| stamps.next()).collect();
        assert!(drawn.is_sorted_by(|a, b| a < b));
        let last = stamps.last();
        assert!(drawn.iter().all(|stamp| *stamp < last));
        stamps.advance(Epoch(8));
        assert!(stamps.next() > last);
    }

    #[test]
    fn an_earlier_epoch_takes_nothing_back() {
        let stamps = Stamps::begin(Epoch(7));
        let drawn = stamps.next();
        stamps.advance(Epoch(6));
        assert!(stamps.next() > drawn);
    }

    #[test]
    fn an_epoch_is_worn_long_before_its_stamps_are_used_up() {
        let stamps = Stamps::begin(Epoch(7));
        assert!(!stamps.are_worn());
        stamps.0.store(Epoch(7).stamp(COUNTER_MASK / 2 + 1), Ordering::Relaxed);
        assert!(stamps.are_worn());
        stamps.advance(Epoch(8));
        assert!(!stamps.are_worn());
    }

    #[test]
    fn what_was_kept_by_somebody_else_is_no_epoch() {
        assert_eq!(Epoch::from_kept(LARGEST_EPOCH), Some(Epoch(LARGEST_EPOCH)));
        assert_eq!(Epoch::from_kept(LARGEST_EPOCH + 1), None);
    }

    proptest! {
        #[test]
        fn stamps_grow_over_restarts_whatever_the_clock_does(starts in prop::collection::vec((0u64..4_000_000_000, 1usize..50), 1..20)) {
            let (mut kept, mut greatest) = (None, None);
            for (clock, adverts) in starts {
                let epoch = Epoch::after(kept, at(clock));
                kept = Some(epoch);
                let stamps = Stamps::begin(epoch);
                for _ in 0..adverts {
                    let stamp = stamps.next();
                    prop_assert!(greatest < Some(stamp));
                    greatest = Some(stamp);
                }
                // The watcher's farewell.
                greatest = Some(stamps.last());
            }
        }
    }
}
