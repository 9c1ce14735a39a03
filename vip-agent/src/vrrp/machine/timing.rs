//! The timers of RFC 9568, 6.1, and of RFC 3768, 6.1.2, in nanoseconds: whole centiseconds would make every skew zero at
//! 10 ms, and whole seconds every skew of version 2.

use std::time::Duration;

use crate::types::{AdvertInterval, MonotonicTime, Priority, VirtualRouterId};

/// Skew_Time: the lower the priority the longer.
pub(super) fn skew(priority: Priority, interval: AdvertInterval) -> Duration {
    fraction(priority, interval.longest_skew())
}

/// The part of the longest skew that a priority waits.
pub(super) fn fraction(priority: Priority, longest_skew: Duration) -> Duration {
    longest_skew * (256 - u32::from(priority.get())) / 256
}

/// Active_Down_Interval: silence after which a Backup takes over.
pub(super) fn active_down(priority: Priority, interval: AdvertInterval) -> Duration {
    interval.duration() * 3 + skew(priority, interval)
}

/// Silence after which a takeover is foreseeable, and local addresses are staged: two and a half intervals.
pub(super) fn staging(interval: AdvertInterval) -> Duration {
    interval.duration() * 5 / 2
}

/// When, within an interval of the clock, the regular adverts of a virtual router go out. After a takeover of all at once
/// the instances of a node would else tick in step for ever, and load node, network and peers with bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdvertPhase(u8);

impl AdvertPhase {
    /// Phases in an interval. Not more, so that with 255 instances eight adverts go out in one system call.
    pub const COUNT: u32 = 32;

    /// The phase of a virtual router: the same for ever, and far from that of its neighbours, however their ids are chosen.
    pub fn of(id: VirtualRouterId) -> Self {
        // Multiples of the golden ratio are spread more evenly than those of any other number.
        const GOLDEN_RATIO: u16 = 40503;
        let spread = u16::from(id.get()).wrapping_mul(GOLDEN_RATIO);
        Self((spread >> (u16::BITS - Self::COUNT.ilog2())) as u8)
    }

    /// The first such time after `now`: in an interval at the latest.
    pub(super) fn next(self, interval: Duration, now: MonotonicTime) -> MonotonicTime {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let offset = nanos(interval * u32::from(self.0) / Self::COUNT);
        let interval = nanos(interval).max(1);
        let passed = (now.0 % interval + interval - offset) % interval;
        now + Duration::from_nanos(interval - passed)
    }
}
