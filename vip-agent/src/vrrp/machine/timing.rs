//! The timers of RFC 9568, 6.1, and of RFC 3768, 6.1.2, in nanoseconds: whole centiseconds would make every skew zero at
//! 10 ms, and whole seconds every skew of version 2.

use std::time::Duration;

use crate::types::{AdvertInterval, Priority};

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
