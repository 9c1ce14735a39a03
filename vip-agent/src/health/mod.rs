//! Health: what probes find, and what that makes of an instance.
//!
//! Pure: whoever probes (an interface's state, a poll by HTTP) hands each [`Outcome`] to the [`Tracker`], which makes
//! verdicts of them and, of all verdicts that an instance tracks, its [`Health`]. Nothing here knows a socket or a clock.

mod tracker;
mod verdict;

pub use tracker::{Health, Probe, Tracker, View, Weight};
pub use verdict::{Outcome, Thresholds, Verdict};
