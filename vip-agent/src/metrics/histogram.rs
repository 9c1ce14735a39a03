//! Distributions of times: fixed buckets, counted without allocation and without locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, inclusive, in nanoseconds, and as the `le` label writes them in seconds. From what a takeover
/// takes (some 10 µs) to what version 2 waits for (three intervals of a second and more).
pub(super) const BOUNDS: [(u64, &str); 18] = [
    (10_000, "0.00001"),
    (25_000, "0.000025"),
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (3_000_000_000, "3.0"),
    (10_000_000_000, "10.0"),
];

/// With the bucket of what is beyond all bounds.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// Times observed since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Each on its own, not cumulative.
    pub(super) buckets: [u64; BUCKETS],
    /// All times added up, in nanoseconds: 584 years of them.
    pub(super) sum: u64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, time: Duration) {
        let nanos = nanos(time);
        self.buckets[bucket(nanos)] += 1;
        self.sum = self.sum.saturating_add(nanos);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A [`Histogram`] that one thread counts into while others read: two relaxed additions, nothing else.
#[derive(Debug, Default)]
pub struct SharedHistogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl SharedHistogram {
    /// Counts one. Allocates nothing and waits for nobody.
    pub fn observe(&self, time: Duration) {
        let nanos = nanos(time);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted so far. A time that is being counted may be missing in the sum or in its bucket.
    pub fn read(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed)),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(nanos: u64) -> usize {
    BOUNDS.partition_point(|(bound, _)| *bound < nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_beyond_all_to_the_last() {
        let mut histogram = Histogram::default();
        let [below, at, above] = [999, 1000, 1001].map(Duration::from_micros);
        for time in [below, at, above, Duration::from_secs(3600)] {
            histogram.observe(time);
        }
        let millisecond = BOUNDS.iter().position(|(_, label)| *label == "0.001").unwrap();
        assert_eq!(histogram.buckets[millisecond..][..2], [2, 1]);
        assert_eq!(histogram.buckets[BUCKETS - 1], 1);
        assert_eq!((histogram.count(), histogram.sum), (4, 3_600_003_000_000));
    }

    #[test]
    fn labels_are_the_bounds_in_seconds_and_in_order() {
        for (nanos, label) in BOUNDS {
            assert_eq!(Duration::try_from_secs_f64(label.parse().unwrap()), Ok(Duration::from_nanos(nanos)));
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_shared_one_counts_the_same() {
        let (mut plain, shared) = (Histogram::default(), SharedHistogram::default());
        for micros in [0, 7, 10, 11, 480, 99_000, 20_000_000] {
            plain.observe(Duration::from_micros(micros));
            shared.observe(Duration::from_micros(micros));
        }
        assert_eq!(shared.read(), plain);
    }
}
