//! What must hold at every instant of every run, and what it takes to know whether it does.
//!
//! Clients' view first: who answers ([`overlap`]), whether anybody does ([`presence`]). Then each router's own conduct
//! ([`books`]). Each invariant stands with its bound where it is checked.

mod books;
mod overlap;
mod presence;

use std::fmt;
use std::time::Duration;

use vip_agent::vrrp::machine::STAGING_PATIENCE;

use crate::network::Network;
use crate::node::Frame;
use crate::setup::{MOST_NODES, Setup};
use crate::time::{Instant, LARGEST_CLOCK_ERROR};

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Never two answerers outside the bound of the third principle.
    Overlap,
    /// An owner exists within Active_Down of the network being whole and somebody being there to own.
    Presence,
    /// A planned move leaves no instant without an owner, and it happens.
    Handover,
    /// Once settled, the owner is who the priorities and the preemption call for, and it stays.
    Order,
    /// After a heal, and after all else, it is the owner who announced last, and nobody announces who does not own.
    Announcement,
    /// No more adverts per interval than rivals, moves and the interval itself account for.
    Storm,
    /// No word reaches further than the decision behind it allows.
    Lease,
    /// Machine and kernel agree on who owns.
    Books,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When.
    pub at: Instant,
    /// In words.
    pub what: String,
}

/// The network's two ends of one link, seen from `from`.
#[derive(Clone, Copy, Debug)]
struct Direction {
    /// When the newest advert that has arrived was decided on.
    heard: Instant,
    /// The priority in the one that arrived last, which may be an older one.
    said: u8,
    /// When something last kept the two from hearing each other: kept for both directions.
    obstructed: Instant,
    /// Since when both answer; kept where `from` is the lower.
    together: Instant,
}

/// Adverts of one node, counted over an interval.
#[derive(Clone, Copy, Debug)]
struct Count {
    since: Instant,
    messages: u32,
    moves: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    directions: [[Direction; MOST_NODES]; MOST_NODES],
    counts: [Count; MOST_NODES],
    /// When each was last sent something by a stranger.
    strangers: [Instant; MOST_NODES],
    any_together: bool,
    /// Since when nobody answers; in the future while somebody does.
    silent_since: Instant,
    /// When somebody or something last stood in the way of an election.
    disturbed: Instant,
    /// No silence at all is allowed.
    pub(crate) unbroken: bool,
    shortest_interval: Duration,
    longest_interval: Duration,
    longest_delay: Duration,
    lateness: Duration,
    /// Nobody breaks the rules on purpose: each router's own books are checked too.
    honest: bool,
    found: Option<Violation>,
}

impl Watch {
    pub(crate) fn new(setup: &Setup, honest: bool) -> Self {
        let direction = Direction {
            heard: Instant::START,
            said: 0,
            obstructed: Instant::START,
            together: Instant::NEVER,
        };
        let intervals = || setup.nodes.iter().map(|node| node.parameters.interval.duration());
        Self {
            directions: [[direction; MOST_NODES]; MOST_NODES],
            counts: [Count { since: Instant::START, messages: 0, moves: 0 }; MOST_NODES],
            strangers: [Instant::START; MOST_NODES],
            any_together: false,
            silent_since: Instant::START,
            disturbed: Instant::START,
            unbroken: false,
            shortest_interval: intervals().min().unwrap_or_default(),
            longest_interval: intervals().max().unwrap_or_default(),
            longest_delay: setup.link.longest,
            lateness: setup.lateness,
            honest,
            found: None,
        }
    }

    fn violated(&mut self, invariant: Invariant, at: Instant, what: String) {
        self.found.get_or_insert(Violation { invariant, at, what });
    }

    /// Something keeps the election from being undisturbed.
    pub(crate) fn disturb(&mut self, at: Instant) {
        self.disturbed = self.disturbed.max(at);
    }

    pub(crate) fn arrived(&mut self, frame: &Frame) {
        let direction = &mut self.directions[usize::from(frame.from)][usize::from(frame.to)];
        direction.heard = direction.heard.max(frame.decided);
        direction.said = frame.priority;
    }

    /// Somebody who is no router of the run was heard.
    pub(crate) fn stranger_arrived(&mut self, to: usize, at: Instant) {
        self.strangers[to] = at;
        self.disturb(at);
    }

    pub(crate) fn lost(&mut self, frame: &Frame, at: Instant) {
        self.obstruct(usize::from(frame.from), usize::from(frame.to), at);
    }

    fn obstruct(&mut self, from: usize, to: usize, at: Instant) {
        self.disturb(at);
        for (from, to) in [(from, to), (to, from)] {
            let direction = &mut self.directions[from][to];
            direction.obstructed = direction.obstructed.max(at);
        }
    }

    pub(crate) fn obstruct_all(&mut self, node: usize, at: Instant) {
        for other in 0..MOST_NODES {
            self.obstruct(node, other, at);
        }
    }

    /// Somebody was given another interval.
    pub(crate) fn interval_in_use(&mut self, interval: Duration) {
        self.shortest_interval = self.shortest_interval.min(interval);
        self.longest_interval = self.longest_interval.max(interval);
    }

    /// The longest interval that anybody had so far.
    pub(crate) fn longest_interval(&self) -> Duration {
        self.longest_interval
    }

    pub(crate) fn spins(&mut self, at: Instant) {
        self.violated(Invariant::Storm, at, "the run does not end: somebody spins".into());
    }

    /// From the arrival of an advert to what is done about it, and back: for takeovers that cross.
    fn exchange(&self) -> Duration {
        let reply_gap = (self.longest_interval / 4).min(SHORTEST_REPLY_GAP);
        self.longest_delay * 2 + self.lateness * 4 + reply_gap
    }

    /// What a router that gives the VIPs back adds to that: priority 0 said once more, and what that is answered by.
    fn second_exchange(&self) -> Duration {
        SAY_AGAIN + self.exchange()
    }

    /// Active_Down of a priority by the longest interval in use, and what chance may add: clocks, delays, lateness, and
    /// addresses that take their time, or an answer to a question that does: never both, a question is put when nobody
    /// answers.
    pub(crate) fn longest_wait(&self, priority: u8) -> Duration {
        let interval = self.longest_interval;
        let skew = interval * (256 - u32::from(priority)) / 256;
        by_slow_clock(interval * 3 + skew) + self.longest_delay * 2 + self.lateness * 2 + STAGING_PATIENCE
    }
}

/// Of production's machine: how soon a rival is answered again.
const SHORTEST_REPLY_GAP: Duration = Duration::from_millis(10);

/// Of production's machine: after which time priority 0 is said once more at the latest.
const SAY_AGAIN: Duration = Duration::from_millis(10);

/// The longest that a span of a node's clock may be in truth.
pub(crate) fn by_slow_clock(span: Duration) -> Duration {
    span + span * LARGEST_CLOCK_ERROR as u32 / 999_000
}

impl Network {
    /// What was found wrong.
    pub(crate) fn verdict(&mut self) -> Result<(), Violation> {
        self.watch.found.take().map_or(Ok(()), Err)
    }

    /// Everything stays as it is until `end`: does that do?
    pub(crate) fn check_until(&mut self, end: Instant) {
        self.check_presence(end);
        self.check_together(end);
    }
}

impl Invariant {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Presence => "presence",
            Self::Handover => "handover",
            Self::Order => "order",
            Self::Announcement => "announcement",
            Self::Storm => "storm",
            Self::Lease => "lease",
            Self::Books => "books",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (at {:.6} ms)", self.invariant.name(), self.what, self.at.millis())
    }
}
