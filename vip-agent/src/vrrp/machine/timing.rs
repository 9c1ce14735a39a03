//! The timers of RFC 9568, 6.1, in nanoseconds: whole centiseconds would make every skew zero at 10 ms.

use std::time::Duration;

use crate::types::{Centiseconds, Priority};

/// Skew_Time: the lower the priority the longer.
pub(super) fn skew(priority: Priority, interval: Centiseconds) -> Duration {
    interval.duration() * (256 - u32::from(priority.get())) / 256
}

/// Active_Down_Interval: silence after which a Backup takes over.
pub(super) fn active_down(priority: Priority, interval: Centiseconds) -> Duration {
    interval.duration() * 3 + skew(priority, interval)
}

/// Silence after which a takeover is foreseeable, and local addresses are staged: two and a half intervals.
pub(super) fn staging(interval: Centiseconds) -> Duration {
    interval.duration() * 5 / 2
}
