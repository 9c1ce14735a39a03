//! Health: what probes find, and what that makes of an instance.
//!
//! Pure but for [`probes`]: whoever probes (an interface's state, a task that asks) hands each [`Round`] to the [`Tracker`],
//! which makes verdicts of them and, of all verdicts that an instance tracks, its [`Health`].

mod measured;
pub mod probes;
mod tracker;
mod verdict;

pub use measured::{BUCKETS_MS, Measured};
pub use tracker::{Health, Probe, Round, Tracker, Turn, View, Weight};
pub use verdict::{Outcome, Thresholds, Verdict};
