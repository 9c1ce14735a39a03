//! Signs of life of the driver thread and of the runtime, and how late the thread is: for everybody to read at any time.
//!
//! Fixed atomics. They outlive the driver's queues, and reading them waits for nobody: whoever asks whether a thread hangs
//! must not hang with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::{Histogram, SharedHistogram};
use crate::types::MonotonicTime;

/// The thread turns at least twice a second ([`super::event_loop`]): silence for so long is a thread that hangs.
const DRIVER_HANGS: Duration = Duration::from_secs(3);

/// The runtime may be busy for some time with netlink or a reload; after so long it hangs.
const RUNTIME_HANGS: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct Vitals {
    /// When the driver's loop last came round.
    turned: AtomicU64,
    /// When the runtime last showed that it lives.
    beaten: AtomicU64,
    lateness: SharedHistogram,
}

impl Default for Vitals {
    fn default() -> Self {
        let now = MonotonicTime::now().0;
        Self {
            turned: AtomicU64::new(now),
            beaten: AtomicU64::new(now),
            lateness: SharedHistogram::default(),
        }
    }
}

impl Vitals {
    /// How late timers of instances and sync groups were acted on.
    pub fn lateness(&self) -> Histogram {
        self.lateness.read()
    }

    /// Whether the driver thread lives.
    ///
    /// # Errors
    /// For how long it has given no sign of life.
    pub fn driver(&self) -> Result<(), Silence> {
        alive(&self.turned, "the VRRP driver thread", DRIVER_HANGS, MonotonicTime::now())
    }

    /// Whether the runtime lives, however busy it is.
    ///
    /// # Errors
    /// For how long it has given no sign of life.
    pub fn runtime(&self) -> Result<(), Silence> {
        alive(&self.beaten, "the agent's runtime", RUNTIME_HANGS, MonotonicTime::now())
    }

    pub(super) fn turned(&self, at: MonotonicTime) {
        self.turned.store(at.0, Ordering::Relaxed);
    }

    pub(super) fn beaten(&self) {
        self.beaten.store(MonotonicTime::now().0, Ordering::Relaxed);
    }

    /// A timer was due at `due` and is acted on now; ZERO means "whenever you come by", which is never late.
    pub(super) fn acted(&self, due: MonotonicTime, now: MonotonicTime) {
        if due != MonotonicTime::ZERO {
            self.lateness.observe(now.since(due));
        }
    }
}

/// No sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{who} has given no sign of life for {} s: it hangs", span.as_secs())]
pub struct Silence {
    who: &'static str,
    span: Duration,
}

fn alive(last: &AtomicU64, who: &'static str, limit: Duration, now: MonotonicTime) -> Result<(), Silence> {
    let span = now.since(MonotonicTime(last.load(Ordering::Relaxed)));
    if span < limit { Ok(()) } else { Err(Silence { who, span }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_too_long_hangs_and_is_named() {
        let last = AtomicU64::new(1_000_000_000);
        let at = |seconds| {
            alive(&last, "somebody", DRIVER_HANGS, MonotonicTime::ZERO + Duration::from_secs(seconds))
        };
        assert_eq!(at(3), Ok(()));
        let hangs = at(5).expect_err("silent for 4 s");
        assert_eq!(hangs.to_string(), "somebody has given no sign of life for 4 s: it hangs");
    }

    #[test]
    fn what_was_due_at_no_certain_time_is_not_late() {
        let vitals = Vitals::default();
        let now = MonotonicTime::ZERO + Duration::from_secs(9);
        vitals.acted(MonotonicTime::ZERO, now);
        assert_eq!(vitals.lateness().count(), 0);
        vitals.acted(now.before(Duration::from_millis(1)), now);
        assert_eq!(vitals.lateness().count(), 1);
    }
}
