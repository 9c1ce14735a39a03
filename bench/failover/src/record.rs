//! What is measured: one record per move of the VIPs, as it stands in the JSON.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vip_lab::agent::Takeover;

/// Whose VIPs move.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Contender {
    /// Ours.
    Viplane,
    /// The peer.
    Keepalived,
}

/// Why they move.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The owner's processes are killed (SIGKILL), all at one instant; its kernel lives.
    Crash,
    /// One of the owner's processes is killed alone: viplane's agent, whose watcher lives, or keepalived's parent, whose
    /// child lives.
    AgentDies,
    /// The owner's cable is cut: nothing of it is heard any more.
    HostDies,
    /// The owner is told to end.
    Sigterm,
    /// The owner is told to hand over and stay (ours only).
    Drain,
    /// The owner's web server ends, and what looks at it notices: a probe every 100 ms, or keepalived's `vrrp_script` every
    /// second, twice.
    ServiceDies,
    /// A router of higher priority joins.
    Preempt,
}

/// One configuration of the virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cell {
    /// Advertisement interval.
    pub(crate) interval: Duration,
    /// How many VIPs.
    pub(crate) vips: u16,
}

/// One move.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Move {
    /// Whose.
    pub(crate) contender: Contender,
    /// Why.
    pub(crate) event: Event,
    /// Advertisement interval, in milliseconds.
    pub(crate) interval_ms: u64,
    /// How many VIPs moved.
    pub(crate) vips: u16,
    /// Which round, from 1; in a round each contender does every event.
    pub(crate) run: usize,
    /// Load average of the last minute when it began.
    pub(crate) load: f64,
    /// What crossed the switch's ports.
    pub(crate) wire: WireTimes,
    /// What it cost a client.
    pub(crate) client: ClientView,
    /// The new owner's own account of it (ours only).
    pub(crate) phases: Option<Takeover>,
    /// The old owner's account of how it gave up, from the last bad answer of its probe to priority 0, in microseconds (ours
    /// only, where a service died).
    #[serde(default)]
    pub(crate) verdict_to_word_us: Option<f64>,
    /// When it decided, by that account: microseconds since 1970 (ours only).
    pub(crate) decided_at_us: Option<f64>,
}

/// Times between frames, by the kernel's stamps at the switch's ports, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireTimes {
    /// What the protocol's timers ask for, from the old owner's last word on: Active_Down_Interval after an
    /// advertisement, Skew_Time after priority 0 (RFC 9568, 6.1). None for a preempting router: its timer starts with
    /// itself.
    pub(crate) timer_us: Option<f64>,
    /// The old owner's last word (last advertisement, or the first priority 0) to the new one's first advertisement.
    pub(crate) word_to_advert_us: Option<f64>,
    /// How long after the protocol's timer the new owner's first advertisement came. Every priority 0 starts it anew.
    pub(crate) late_us: Option<f64>,
    /// The old owner's last word to the new one's first announcement (gratuitous ARP or unsolicited NA).
    pub(crate) word_to_announcement_us: Option<f64>,
    /// The new owner's first announcement, in microseconds since 1970.
    pub(crate) announced_at_us: f64,
    /// The new owner's first advertisement to its first announcement; negative if that came before.
    pub(crate) advert_to_announcement_us: f64,
    /// The new owner's first advertisement until every VIP was announced once.
    pub(crate) advert_to_all_announced_us: f64,
    /// The blow that ended a process or a service to the first priority 0, if it was that which made the others act.
    #[serde(default)]
    pub(crate) death_to_word_us: Option<f64>,
}

/// What a client saw that asks every millisecond.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClientView {
    /// Requests that began around the move.
    pub(crate) requests: usize,
    /// Those without an answer.
    pub(crate) lost: usize,
    /// When those began, in milliseconds since the move was begun, and how they ended.
    pub(crate) losses: Vec<(f64, String)>,
    /// Those whose answer took more than 200 ms: a SYN was lost and sent again.
    pub(crate) slow: usize,
    /// The longest time without an answer, in milliseconds.
    pub(crate) gap_ms: f64,
}

// === impl Contender ===

impl Contender {
    /// Both, in the order in which they take turns.
    pub(crate) const BOTH: [Self; 2] = [Self::Viplane, Self::Keepalived];
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viplane => "viplane",
            Self::Keepalived => "keepalived",
        })
    }
}

// === impl Event ===

impl Event {
    /// All, in the order in which a round goes through them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Crash,
        Self::AgentDies,
        Self::Sigterm,
        Self::Drain,
        Self::HostDies,
        Self::ServiceDies,
        Self::Preempt,
    ];

    /// Whether it is measured without being asked for: what looks at a service would disturb the other figures.
    pub(crate) fn is_usual(self) -> bool {
        self != Self::ServiceDies
    }

    /// Whether the others hear priority 0.
    pub(crate) fn is_told(self) -> bool {
        matches!(self, Self::AgentDies | Self::ServiceDies) || self.is_planned()
    }

    /// Whether the old owner has a chance to hand over.
    pub(crate) fn is_planned(self) -> bool {
        matches!(self, Self::Sigterm | Self::Drain | Self::Preempt)
    }

    /// Whether `contender` knows such a thing.
    pub(crate) fn is_known_to(self, contender: Contender) -> bool {
        self != Self::Drain || contender == Contender::Viplane
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crash",
            Self::AgentDies => "agent dies",
            Self::HostDies => "host dies",
            Self::ServiceDies => "service dies",
            Self::Sigterm => "SIGTERM",
            Self::Drain => "drain",
            Self::Preempt => "preempt",
        })
    }
}

// === impl Cell ===

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interval, vips } = self;
        write!(f, "{}, {vips} VIP{}", interval_text(interval.as_millis()), if *vips == 1 { "" } else { "s" })
    }
}

/// `10 ms`, `1 s`.
pub(crate) fn interval_text(millis: u128) -> String {
    if millis.is_multiple_of(1000) { format!("{} s", millis / 1000) } else { format!("{millis} ms") }
}

// === impl Move ===

impl Move {
    /// Its configuration.
    pub(crate) fn cell(&self) -> Cell {
        Cell { interval: Duration::from_millis(self.interval_ms), vips: self.vips }
    }
}
