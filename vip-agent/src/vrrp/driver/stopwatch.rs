//! How long each step of a change of state takes.

use std::time::Duration;

use crate::types::MonotonicTime;

/// How long each step of a change of state took (microseconds in status): contract of `last_takeover`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Last advertisement of the owner (or the signal) -> read, or the timer handled.
    pub detect: Duration,
    /// -> the machine returned.
    pub decide: Duration,
    /// -> the ownership word was stored.
    pub flip: Duration,
    /// -> the first announcements were handed to the kernel.
    pub announce: Duration,
}

/// The stages of one change of state as they are reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    /// The `now` of the event.
    pub(super) detected: MonotonicTime,
    detect: Duration,
    pub(super) decided: MonotonicTime,
    flipped: Option<MonotonicTime>,
    announced: Option<MonotonicTime>,
}

impl Stopwatch {
    pub(super) fn start(since: MonotonicTime, detected: MonotonicTime, decided: MonotonicTime) -> Self {
        Self { detected, detect: detected.since(since), decided, flipped: None, announced: None }
    }

    pub(super) fn flip(&mut self) {
        self.flipped.get_or_insert_with(MonotonicTime::now);
    }

    pub(super) fn announce(&mut self) {
        self.announced.get_or_insert_with(MonotonicTime::now);
    }

    pub(super) fn phases(&self) -> Phases {
        let flipped = self.flipped.unwrap_or(self.decided);
        Phases {
            detect: self.detect,
            decide: self.decided.since(self.detected),
            flip: flipped.since(self.decided),
            announce: self.announced.map_or(Duration::ZERO, |announced| announced.since(flipped)),
        }
    }
}
