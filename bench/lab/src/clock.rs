//! Points in time that wire, clients and probers share: CLOCK_REALTIME, as the kernel stamps packets.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970 on CLOCK_REALTIME.
///
/// The kernel's receive stamps (SO_TIMESTAMPNS) are on that clock; everything else in the lab follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Stamp(u64);

impl Stamp {
    /// Before everything.
    pub const MIN: Self = Self(0);
    /// After everything.
    pub const MAX: Self = Self(u64::MAX);

    /// This instant.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// A point given in nanoseconds since 1970.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

impl From<SystemTime> for Stamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The longest time between neighbours of an ordered list that has a part in `from` to `to`; zero if there is none.
pub(crate) fn longest_gap(ordered: &[Stamp], from: Stamp, to: Stamp) -> Duration {
    let touching = ordered.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
    touching.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

impl Sub for Stamp {
    type Output = Duration;

    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Stamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Stamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
