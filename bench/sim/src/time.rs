//! True time, and the clocks of nodes, which measure it wrongly.

use std::ops::Add;
use std::time::Duration;

use vip_agent::types::MonotonicTime;

/// A point of the simulation's true time in nanoseconds. No node ever sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// When every simulation begins.
    pub const START: Self = Self(0);
    /// After everything.
    pub const NEVER: Self = Self(u64::MAX);

    /// What has gone by since `earlier`; nothing if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        span(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds since the start, for people.
    pub fn millis(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

/// Nanoseconds, up to 584 years of them.
pub(crate) fn nanos(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(span.subsec_nanos()))
}

pub(crate) fn span(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

/// Largest error of a node's clock, in millionths. Crystals are within 100; two clocks that differ by more than 1/384
/// (two clocks, priority 254) would use up the shortest skew within a lease: the bound of the third principle ends there.
pub(crate) const LARGEST_CLOCK_ERROR: i64 = 500;

/// A node's CLOCK_MONOTONIC: too fast or too slow, begun at any time, and stopped while the machine is paused.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    set: Instant,
    showed: u64,
    error: i64,
    runs: bool,
}

/// Further ahead than any simulation runs.
const HORIZON: u64 = 4_000_000_000_000;

impl Clock {
    /// A clock that shows `reading` at the start, with an error in millionths.
    pub(crate) fn new(reading: Duration, error: i64) -> Self {
        Self { set: Instant::START, showed: nanos(reading), error, runs: true }
    }

    /// What it shows.
    pub(crate) fn read(&self, now: Instant) -> MonotonicTime {
        MonotonicTime(if self.runs { self.showed + self.gone(now.0 - self.set.0) } else { self.showed })
    }

    fn gone(&self, real: u64) -> u64 {
        real.saturating_add_signed(real.cast_signed() * self.error / 1_000_000)
    }

    /// When it shows `reading`, from `now` on.
    pub(crate) fn shows(&self, reading: MonotonicTime, now: Instant) -> Instant {
        if self.read(now) >= reading {
            return now;
        }
        let ahead = reading.0 - self.showed;
        if !self.runs || ahead > HORIZON {
            return Instant::NEVER;
        }
        let mut real = ahead * 1_000_000 / 1_000_000_u64.saturating_add_signed(self.error);
        while self.gone(real) < ahead {
            real += 1;
        }
        Instant(self.set.0 + real)
    }

    /// The machine is paused.
    pub(crate) fn stop(&mut self, now: Instant) {
        self.set(now, false);
    }

    /// The machine goes on.
    pub(crate) fn go_on(&mut self, now: Instant) {
        self.set(now, true);
    }

    fn set(&mut self, now: Instant, runs: bool) {
        self.showed = self.read(now).0;
        self.set = now;
        self.runs = runs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_time_at_the_instant_that_it_names_and_not_before() {
        for error in [-LARGEST_CLOCK_ERROR, -1, 0, 3, LARGEST_CLOCK_ERROR] {
            let clock = Clock::new(Duration::from_secs(77), error);
            for ahead in [1, 999, 1_000_000, 30_000_001, 40_950_000_000] {
                let reading = clock.read(Instant::START) + span(ahead);
                let at = clock.shows(reading, Instant::START);
                assert!(clock.read(at) >= reading);
                assert!(clock.read(Instant(at.0 - 1)) < reading, "{error} {ahead}");
            }
        }
    }

    #[test]
    fn a_clock_stands_still_while_its_machine_is_paused() {
        let mut clock = Clock::new(Duration::ZERO, 100);
        clock.stop(Instant(1_000_000));
        let stopped = clock.read(Instant(1_000_000));
        assert_eq!(clock.read(Instant(9_000_000)), stopped);
        assert_eq!(clock.shows(stopped + span(1), Instant(9_000_000)), Instant::NEVER);
        clock.go_on(Instant(9_000_000));
        assert_eq!(clock.read(Instant(9_000_000)), stopped);
    }
}
