//! What is counted and timed of a probe, for whoever shows it.

use std::time::Duration;

/// Upper bounds of the buckets of [`Measured::durations`], in milliseconds; what takes longer is in none but the total.
pub const BUCKETS_MS: [u64; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000];

/// One probe's rounds since it was first configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Rounds that found it as it should be.
    pub up: u64,
    /// Rounds that did not.
    pub down: u64,
    /// How often there was no outcome for too long.
    pub expired: u64,
    /// How long the last round took, answer or not.
    pub last: Option<Duration>,
    /// Rounds by how long they took: each in the first bucket whose bound ([`BUCKETS_MS`]) it does not exceed.
    pub durations: [u64; BUCKETS_MS.len()],
    /// How long all rounds took together.
    pub total: Duration,
}

impl Measured {
    /// Adds a round.
    pub(super) fn add(&mut self, up: bool, took: Duration) {
        *(if up { &mut self.up } else { &mut self.down }) += 1;
        self.last = Some(took);
        self.total += took;
        if let Some(bucket) = BUCKETS_MS.iter().position(|bound| took <= Duration::from_millis(*bound)) {
            self.durations[bucket] += 1;
        }
    }

    /// All rounds.
    pub fn rounds(&self) -> u64 {
        self.up + self.down
    }
}
