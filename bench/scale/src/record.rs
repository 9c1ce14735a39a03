//! What is measured, as it stands in the JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use vip_lab::machine::Machine;
use vip_lab::stats::Summary;

/// Whose virtual routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Contender {
    /// Ours.
    Viplane,
    /// The peer.
    Keepalived,
}

/// Why all of them move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The owner's cable is cut: nothing of it is heard any more.
    HostDies,
    /// The owner's processes are killed (SIGKILL); its kernel lives, and so does what watches over ours.
    Crash,
    /// The owner is told to end.
    Sigterm,
}

/// One configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    /// Advertisement interval, in milliseconds.
    pub(crate) interval_ms: u64,
    /// Virtual routers.
    pub(crate) instances: u8,
    /// VIPs of all of them.
    pub(crate) vips: u16,
}

/// All.
#[derive(Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) outcomes: Vec<Outcome>,
}

/// What one contender made of one configuration.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) contender: Contender,
    pub(crate) cell: Cell,
    /// Start of the first to its owning everything, in milliseconds.
    pub(crate) start_ms: Option<f64>,
    /// Resident memory of the owner, in KiB.
    pub(crate) resident_kib: Option<u64>,
    pub(crate) steady: Option<Steady>,
    pub(crate) moves: Vec<Move>,
    /// Why it was not finished.
    pub(crate) error: Option<String>,
}

/// While nothing is done to them.
#[derive(Serialize)]
pub(crate) struct Steady {
    pub(crate) seconds: f64,
    /// Share of one CPU that the owner takes, in percent.
    pub(crate) owner_cpu_percent: f64,
    /// Of that, the thread that runs VRRP (ours only).
    pub(crate) owner_driver_cpu_percent: Option<f64>,
    /// The one that watches.
    pub(crate) backup_cpu_percent: f64,
    pub(crate) backup_driver_cpu_percent: Option<f64>,
    /// Changes of state of either.
    pub(crate) unasked_moves: u64,
    /// Between one advert of a virtual router and its next on the wire, in milliseconds.
    pub(crate) gap_ms: Option<Summary>,
    /// Adverts on the wire in a second.
    pub(crate) adverts_per_second: f64,
    /// The greatest share of an interval's adverts within a tenth of it, in percent: 10 would be perfectly even. Median over
    /// intervals.
    pub(crate) tenth_percent: f64,
}

/// A move of all virtual routers, by the wire. In milliseconds from the old owner's last word (its last advert, or its first
/// priority 0).
#[derive(Serialize)]
pub(crate) struct Move {
    pub(crate) event: Event,
    /// The new owner's first advert of any virtual router.
    pub(crate) first_advert_ms: f64,
    /// Of the last virtual router.
    pub(crate) last_advert_ms: f64,
    /// The first announcement of any VIP.
    pub(crate) first_announcement_ms: f64,
    /// When every VIP had been announced.
    pub(crate) all_announced_ms: f64,
    /// Virtual routers whose first announcement came before another one's first advert.
    pub(crate) announced_before_others_advertised: usize,
    /// By virtual router: its first advert to its first announcement.
    pub(crate) advert_to_announcement_ms: Option<Summary>,
    /// By virtual router: decision to the first announcement handed to the kernel (ours only, from status).
    pub(crate) decide_to_announcement_ms: Option<Summary>,
}

impl Contender {
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

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostDies => "host dies",
            Self::Crash => "crash",
            Self::Sigterm => "SIGTERM",
        })
    }
}

impl Cell {
    pub(crate) fn new(interval: Duration, instances: u8, vips: u16) -> Self {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        Self { interval_ms, instances, vips }
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms, {} virtual routers, {} VIPs", self.interval_ms, self.instances, self.vips)
    }
}

impl Outcome {
    pub(crate) fn new(contender: Contender, cell: Cell) -> Self {
        Self {
            contender,
            cell,
            start_ms: None,
            resident_kib: None,
            steady: None,
            moves: Vec::new(),
            error: None,
        }
    }
}
