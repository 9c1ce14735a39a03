//! Fast detection on one interface: which hosts live, judged by the stamps that the XDP program leaves. Pure: no sockets,
//! no clock.
//!
//! An owner's driver sends a heartbeat every millisecond or so; its peers' programs stamp and drop them. A Backup looks at
//! the stamps when the last of them is half the detection time old, and not by each heartbeat. From then on it asks: the
//! owner's program answers without its agent. So
//! - heartbeats: all is well;
//! - answers alone: the host lives and the agent does not, or starves. Its word may still run: adverts decide;
//! - neither for the detection time, though we asked at least three times: the host is dead, or its link.
//!
//! A driver that was kept from running has not asked, so its own lateness is never taken for another's silence. One whose
//! own link is deaf hears nobody: where others answered before, one of them must have answered since.
//!
//! Each says what it would take over, too, and with which priority. The skews of neighbours in priority are tens of
//! microseconds apart, and a driver may be late by more: whoever knows of a better heir that lives leaves it time.

mod link;
mod peer;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::types::MonotonicTime;

pub use self::link::{Frame, Link};
pub use self::peer::Signs;

/// How detection is configured for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often this node, as owner, says that it lives: 1 ms to 1 s.
    pub interval: Duration,
    /// How many of an owner's intervals without a sign of life make it dead: 3 to 50.
    pub multiplier: u8,
}

/// An owner that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// When its last heartbeat came.
    pub heard: MonotonicTime,
    /// How long its last answer took.
    pub echo: Duration,
}

/// How often a node that owns nothing promises to be heard: not at all.
pub const IDLE: Duration = Duration::from_secs(1);

/// How often everybody is greeted although all is well.
const CENSUS: Duration = Duration::from_secs(1);

/// How often everybody is asked although all is well, and for how long an answer shows that questions arrive. While they are
/// lost, and nobody knows it yet, a late heartbeat would make its sender dead: the shorter the better.
const ASKED: Duration = Duration::from_millis(100);
const TRUSTED: Duration = Duration::from_millis(300);

/// Who was not heard for this long is not counted on.
const LATELY: Duration = Duration::from_secs(3);

/// Who was not heard for this long is of no interest any more.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Questions without an answer, asked in time one after the other, before anybody is called dead: as many as fit half the
/// detection time at the least multiplier, at two per interval.
const QUESTIONS: u32 = 3;

/// How many detection times each heir that comes before us and lives is given, beyond our skew. One whose driver was kept from
/// asking takes half of one more than it was late; a stall of some ms must not reverse the order.
const HEIR_TIMES: u32 = 2;

/// Whoever has asked, and asks again or judges within this time, stays awake for it: a CPU that sleeps in between wakes some
/// milliseconds late now and then, above all a virtual one.
const AWAKE: Duration = Duration::from_millis(1);

/// After so many it is enough to ask now and then whether the dead has returned.
const PAST_HOPE: u32 = 16;

/// Nodes that are followed on an interface.
const PEERS: usize = 16;
