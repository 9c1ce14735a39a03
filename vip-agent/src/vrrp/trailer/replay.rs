//! What was heard last of each sender, so that nothing is heard twice.

use std::net::IpAddr;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::stamp::Stamp;
use super::{KeyId, Signed};
use crate::types::MonotonicTime;

/// Senders that are remembered: each knows the key, so a stranger cannot make more of them.
const SENDERS: usize = 64;

/// An advert that arrives twice within this time was doubled by the network, or by a watcher that says all twice.
const DOUBLED_WITHIN: Duration = Duration::from_millis(100);

/// The last that a sender signed by a key. A new key begins anew: that is how one gets back in that has lost both its clock
/// and its `state_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its address.
    pub source: IpAddr,
    /// The key.
    pub key: KeyId,
    /// The greatest stamp that was accepted of it.
    pub stamp: Stamp,
    /// When.
    pub heard: MonotonicTime,
}

/// The marks of an instance. Fixed in size.
#[derive(Clone, Debug, Default)]
pub struct Marks(ArrayVec<Mark, SENDERS>);

/// Whether an advert is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Later than all that was heard of its sender.
    Fresh,
    /// The last one once more, at once.
    Doubled,
    /// One that was heard before, or was to be heard before the last.
    Replayed,
}

impl Marks {
    /// Those that were kept over a restart.
    pub fn restore(kept: impl IntoIterator<Item = Mark>) -> Self {
        let mut marks = Self::default();
        for mark in kept {
            marks.note(mark);
        }
        marks
    }

    /// Judges an advert that is signed by a key of ours, and remembers it if it is fresh.
    pub fn admit(&mut self, source: IpAddr, Signed { key, stamp }: Signed, now: MonotonicTime) -> Freshness {
        match self.0.iter().find(|mark| (mark.source, mark.key) == (source, key)) {
            Some(mark) if stamp == mark.stamp && now.since(mark.heard) < DOUBLED_WITHIN => Freshness::Doubled,
            Some(mark) if stamp <= mark.stamp => Freshness::Replayed,
            _ => {
                self.note(Mark { source, key, stamp, heard: now });
                Freshness::Fresh
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mark> {
        self.0.iter()
    }

    fn note(&mut self, mark: Mark) {
        if let Some(known) =
            self.0.iter_mut().find(|known| (known.source, known.key) == (mark.source, mark.key))
        {
            *known = mark;
            return;
        }
        if self.0.is_full()
            && let Some(oldest) = (0..SENDERS).min_by_key(|&index| self.0[index].heard)
        {
            self.0.swap_remove(oldest);
        }
        self.0.push(mark);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn at(milliseconds: u64) -> MonotonicTime {
        MonotonicTime::ZERO + Duration::from_millis(milliseconds)
    }

    fn stamp(number: u64) -> Signed {
        Signed { key: KeyId([1, 2, 3, 4]), stamp: Stamp::from_wire(number) }
    }

    #[test]
    fn the_first_advert_of_a_sender_is_news_and_then_only_later_ones_are() {
        let mut marks = Marks::default();
        let table = [
            (10, Freshness::Fresh),
            (9, Freshness::Replayed),
            (11, Freshness::Fresh),
            (10, Freshness::Replayed),
        ];
        for (number, expected) in table {
            assert_eq!(marks.admit(PEER, stamp(number), at(0)), expected, "{number}");
        }
        assert_eq!(marks.admit([10, 0, 0, 3].into(), stamp(5), at(0)), Freshness::Fresh, "another sender");
    }

    #[test]
    fn the_last_advert_at_once_is_a_double_and_later_a_replay() {
        let mut marks = Marks::default();
        marks.admit(PEER, stamp(10), at(0));
        assert_eq!(marks.admit(PEER, stamp(10), at(99)), Freshness::Doubled);
        assert_eq!(marks.admit(PEER, stamp(10), at(100)), Freshness::Replayed);
    }

    #[test]
    fn a_new_key_begins_anew_and_the_old_one_stays_known() {
        let mut marks = Marks::default();
        marks.admit(PEER, stamp(10), at(0));
        let renewed = Signed { key: KeyId([5, 6, 7, 8]), stamp: Stamp::from_wire(3) };
        assert_eq!(marks.admit(PEER, renewed, at(0)), Freshness::Fresh);
        assert_eq!(marks.admit(PEER, stamp(10), at(500)), Freshness::Replayed);
    }

    #[test]
    fn what_was_kept_over_a_restart_counts() {
        let mut before = Marks::default();
        before.admit(PEER, stamp(10), at(5000));
        let mut marks = Marks::restore(before.iter().map(|mark| Mark { heard: at(0), ..*mark }));
        assert_eq!(marks.admit(PEER, stamp(10), at(5001)), Freshness::Replayed);
        assert_eq!(marks.admit(PEER, stamp(11), at(5001)), Freshness::Fresh);
    }

    #[test]
    fn of_too_many_senders_the_one_that_was_silent_longest_is_forgotten() {
        let mut marks = Marks::default();
        for n in 0..=SENDERS as u8 {
            marks.admit([10, 0, 0, n].into(), stamp(10), at(n.into()));
        }
        assert_eq!(marks.iter().count(), SENDERS);
        assert_eq!(marks.admit([10, 0, 0, 1].into(), stamp(10), at(9999)), Freshness::Replayed);
        assert_eq!(marks.admit([10, 0, 0, 0].into(), stamp(10), at(9999)), Freshness::Fresh);
    }

    proptest! {
        #[test]
        fn nothing_is_fresh_twice_and_what_is_fresh_grows(heard in prop::collection::vec((0u8..4, 0u64..40), 1..200)) {
            let mut marks = Marks::default();
            let mut greatest = BTreeMap::new();
            for (sender, number) in heard {
                let fresh = marks.admit([10, 0, 0, sender].into(), stamp(number), at(0)) == Freshness::Fresh;
                prop_assert_eq!(fresh, greatest.get(&sender).is_none_or(|last| number > *last));
                if fresh {
                    greatest.insert(sender, number);
                }
            }
        }
    }
}
