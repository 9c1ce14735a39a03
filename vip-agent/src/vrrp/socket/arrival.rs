//! When a frame arrived, on our clock: the kernel stamps with CLOCK_REALTIME, timers and leases run on
//! CLOCK_MONOTONIC.

use rustix::time::{ClockId, clock_gettime};

use crate::types::MonotonicTime;

/// NTP slews both clocks alike, so their difference changes only when CLOCK_REALTIME is set or the machine slept; two
/// readings of it otherwise differ by how long a preemption between two clock reads can last.
const STEP_NANOS: u64 = 1_000_000;

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, read anew for every batch of frames.
///
/// If that difference has jumped since the last batch, the stamps in between cannot be trusted: those frames count as
/// arriving now. That errs to the safe side (a Backup waits longer, by the time the batch lay in the queue).
#[derive(Clone, Copy, Debug)]
pub(super) struct ArrivalClock {
    offset: i64,
    now: MonotonicTime,
    stepped: bool,
}

impl ArrivalClock {
    pub(super) fn start() -> Self {
        let (offset, now) = read_offset();
        Self { offset, now, stepped: false }
    }

    /// Reads both clocks: right after a batch was received.
    pub(super) fn refresh(&mut self) {
        let (offset, now) = read_offset();
        self.observe(offset, now);
    }

    fn observe(&mut self, offset: i64, now: MonotonicTime) {
        let stepped = offset.abs_diff(self.offset) > STEP_NANOS;
        *self = Self { offset, now, stepped };
    }

    /// The kernel's stamp, in nanoseconds of CLOCK_REALTIME, as a time that is not in the future.
    pub(super) fn monotonic(&self, stamp: Option<i64>) -> MonotonicTime {
        match stamp {
            Some(stamp) if !self.stepped => {
                let arrival = u64::try_from(stamp.saturating_sub(self.offset)).unwrap_or(0);
                MonotonicTime(arrival).min(self.now)
            }
            _ => self.now,
        }
    }
}

/// CLOCK_REALTIME is read between two readings of CLOCK_MONOTONIC, three times, and the closest pair counts: a
/// preemption in between does not spoil it.
fn read_offset() -> (i64, MonotonicTime) {
    let read = || {
        let before = MonotonicTime::now();
        let real = clock_gettime(ClockId::Realtime);
        let after = MonotonicTime::now();
        let width = after.0.saturating_sub(before.0);
        let offset = nanos(real.tv_sec, real.tv_nsec) - i64::try_from(before.0 + width / 2).unwrap_or(0);
        (width, offset, after)
    };
    let (mut width, mut offset, mut now) = read();
    for _ in 0..2 {
        let (other_width, other_offset, after) = read();
        if other_width < width {
            (width, offset) = (other_width, other_offset);
        }
        now = after;
    }
    (offset, now)
}

/// A timespec in nanoseconds: enough until the year 2262.
pub(super) fn nanos(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: i64 = 1_700_000_000_000_000_000;

    fn clock() -> ArrivalClock {
        ArrivalClock { offset: EPOCH, now: MonotonicTime(5_000), stepped: false }
    }

    #[test]
    fn a_stamp_becomes_monotonic() {
        assert_eq!(clock().monotonic(Some(EPOCH + 4_000)), MonotonicTime(4_000));
    }

    #[test]
    fn nothing_arrives_in_the_future() {
        assert_eq!(clock().monotonic(Some(EPOCH + 6_000)), MonotonicTime(5_000));
    }

    #[test]
    fn a_frame_without_a_stamp_arrives_now() {
        assert_eq!(clock().monotonic(None), MonotonicTime(5_000));
    }

    #[test]
    fn after_the_wall_clock_was_set_stamps_are_not_trusted_for_one_batch() {
        for jump in [-3_600_000_000_000, -2_000_000, 2_000_000, 3_600_000_000_000] {
            let mut clock = clock();
            clock.observe(EPOCH + jump, MonotonicTime(9_000));
            assert_eq!(clock.monotonic(Some(EPOCH + 8_000)), MonotonicTime(9_000));
            clock.observe(EPOCH + jump, MonotonicTime(12_000));
            assert_eq!(clock.monotonic(Some(EPOCH + jump + 11_000)), MonotonicTime(11_000));
        }
    }

    #[test]
    fn reading_the_clocks_twice_is_no_step() {
        let mut clock = ArrivalClock::start();
        clock.refresh();
        assert!(!clock.stepped);
    }
}
