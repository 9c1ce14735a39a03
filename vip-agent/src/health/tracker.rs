//! All probes, and what those that an instance tracks make of it: a fault, or a priority.

use std::collections::BTreeMap;
use std::time::Duration;

use super::measured::Measured;
use super::verdict::{Outcome, Thresholds, Verdict};
use crate::types::{MonotonicTime, OutOfRange, Priority};

/// What a verdict means for the instances that track the probe: `weight`, -254 to 254.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Weight {
    /// 0: down is a fault.
    #[default]
    Fault,
    /// -254 to -1: the priority is lower by this much while down.
    Lower(u8),
    /// 1 to 254: the priority is higher by this much while up.
    Raise(u8),
}

impl TryFrom<i64> for Weight {
    type Error = OutOfRange;

    fn try_from(weight: i64) -> Result<Self, OutOfRange> {
        let amount = u8::try_from(weight.unsigned_abs()).ok().filter(|amount| *amount <= 254);
        match amount {
            Some(0) => Ok(Self::Fault),
            Some(amount) if weight < 0 => Ok(Self::Lower(amount)),
            Some(amount) => Ok(Self::Raise(amount)),
            None => Err(OutOfRange::new("a weight", "-254 to 254", weight)),
        }
    }
}

impl From<Weight> for i64 {
    fn from(weight: Weight) -> Self {
        match weight {
            Weight::Fault => 0,
            Weight::Lower(amount) => -Self::from(amount),
            Weight::Raise(amount) => amount.into(),
        }
    }
}

impl Weight {
    /// What it adds to a priority.
    fn change(self, up: bool) -> i32 {
        match (self, up) {
            (Self::Lower(amount), false) => -i32::from(amount),
            (Self::Raise(amount), true) => amount.into(),
            _ => 0,
        }
    }
}

/// A probe as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Unique.
    pub name: String,
    /// What its verdict means.
    pub weight: Weight,
    /// How its outcomes become one.
    pub thresholds: Thresholds,
    /// How long an outcome holds; `None`: until the next, for what is told and not polled.
    pub expires: Option<Duration>,
}

/// Probing once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// What it came to.
    pub outcome: Outcome,
    /// When the question was put.
    pub began: MonotonicTime,
    /// When the answer was there, or its time was over.
    pub ended: MonotonicTime,
}

/// A verdict that became another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The probe.
    pub probe: String,
    /// What it is now.
    pub up: bool,
    /// When the first of the answers that made it so was there.
    pub first: MonotonicTime,
    /// When the last of them was.
    pub last: MonotonicTime,
}

/// What an instance can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing.
    Fault {
        /// The probe that is down.
        probe: String,
        /// In words, with its reason.
        why: String,
    },
    /// Take part with this priority.
    Able(Priority),
}

/// A probe as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Its name.
    pub name: &'a str,
    /// The verdict.
    pub up: bool,
    /// Whether it rests on an outcome; before the first one it is but what the configuration presumes.
    pub proven: bool,
    /// Why the last outcome was not up.
    pub last_error: Option<&'a str>,
}

/// All probes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracker {
    probes: BTreeMap<String, Tracked>,
}

/// One probe, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
struct Tracked {
    weight: Weight,
    verdict: Verdict,
    expires: Option<Duration>,
    /// Time since the last outcome in which the runtime did run.
    age: Duration,
    /// When the question was put whose answer was judged last: an older one has nothing to say any more.
    newest: MonotonicTime,
    /// Whether the last outcome was up, and when the first of the row was there of which it is one.
    row: Option<(bool, MonotonicTime)>,
    turn: Option<Turn>,
    measured: Measured,
}

impl Tracked {
    fn new(Probe { weight, thresholds, expires, .. }: &Probe) -> Self {
        Self {
            weight: *weight,
            verdict: Verdict::new(*thresholds),
            expires: *expires,
            age: Duration::ZERO,
            newest: MonotonicTime::ZERO,
            row: None,
            turn: None,
            measured: Measured::default(),
        }
    }

    fn observe(&mut self, name: &str, Round { outcome, began, ended }: Round) -> bool {
        let up = outcome == Outcome::Up;
        self.measured.add(up, ended.since(began));
        if began < self.newest {
            return false;
        }
        self.newest = began;
        self.age = Duration::ZERO;
        let first = match self.row {
            Some((same, first)) if same == up => first,
            _ => ended,
        };
        self.row = Some((up, first));
        let turned = self.verdict.observe(outcome);
        if turned {
            self.turn = Some(Turn { probe: name.to_owned(), up, first, last: ended });
        }
        turned
    }

    fn grow_older(&mut self, name: &str, by: Duration, now: MonotonicTime) -> bool {
        let before = self.age;
        self.age += by;
        let Some(limit) = self.expires.filter(|limit| *limit < self.age) else { return false };
        if before <= limit {
            self.measured.expired += 1;
        }
        let turned = self.verdict.expire(format!("no outcome for {} s: the probe hangs", self.age.as_secs()));
        if turned {
            self.row = None;
            self.turn = Some(Turn { probe: name.to_owned(), up: false, first: now, last: now });
        }
        turned
    }
}

impl Tracker {
    /// Tracks these probes from now on. Those that it knew keep their verdicts.
    pub fn set_probes(&mut self, probes: impl IntoIterator<Item = Probe>) {
        let mut known = std::mem::take(&mut self.probes);
        let tracked = probes.into_iter().map(|probe| {
            let tracked = match known.remove(&probe.name) {
                Some(mut tracked) => {
                    tracked.weight = probe.weight;
                    tracked.expires = probe.expires;
                    tracked.age = Duration::ZERO;
                    tracked.verdict.judge_by(probe.thresholds);
                    tracked
                }
                None => Tracked::new(&probe),
            };
            (probe.name, tracked)
        });
        self.probes = tracked.collect();
    }

    /// Begins with the verdict that another process came to; why it was not up.
    pub fn inherit(&mut self, probe: &str, up: bool, why: Option<String>) {
        if let Some(tracked) = self.probes.get_mut(probe) {
            tracked.verdict.inherit(up, why);
        }
    }

    /// Takes a round in; whether the probe's verdict is another one now. Unknown probes have none: one may have been
    /// taken out of the configuration while its outcome was on the way. A round that began before the last one that was
    /// judged is counted and not judged: its time-out is longer than its interval, and it tells of the past.
    pub fn observe(&mut self, probe: &str, round: Round) -> bool {
        self.probes.get_mut(probe).is_some_and(|tracked| tracked.observe(probe, round))
    }

    /// Time went by in which outcomes could have come; the probes whose verdicts changed because none did. What the process
    /// as a whole was stopped for does not count.
    pub fn grow_older(&mut self, by: Duration, now: MonotonicTime) -> Vec<String> {
        let probes = self.probes.iter_mut();
        probes.filter_map(|(name, tracked)| tracked.grow_older(name, by, now).then(|| name.clone())).collect()
    }

    /// When and by which answers a probe's verdict became what it is; `None` if it always was.
    pub fn turn(&self, probe: &str) -> Option<&Turn> {
        self.probes.get(probe)?.turn.as_ref()
    }

    /// All probes by name: whether each is up, and what was counted and timed of it.
    pub fn measured(&self) -> impl Iterator<Item = (&str, bool, &Measured)> {
        self.probes.iter().map(|(name, tracked)| (name.as_str(), tracked.verdict.is_up(), &tracked.measured))
    }

    /// What the verdicts on some probes, each counted once, make of an instance that has this priority of its own.
    ///
    /// A weighted priority stays within 1-254, and the address owner's 255 is never moved.
    pub fn health<'a>(&self, own: Priority, tracked: impl IntoIterator<Item = &'a str>) -> Health {
        let mut change = 0;
        let mut counted = Vec::new();
        for name in tracked {
            let Some(Tracked { weight, verdict, .. }) =
                self.probes.get(name).filter(|_| !counted.contains(&name))
            else {
                continue;
            };
            counted.push(name);
            if *weight == Weight::Fault && !verdict.is_up() {
                let why = format!("probe {name} is down: {}", verdict.reason());
                return Health::Fault { probe: name.to_owned(), why };
            }
            change += weight.change(verdict.is_up());
        }
        Health::Able(own.weighted(change))
    }

    /// How a probe is.
    pub fn view(&self, probe: &str) -> Option<View<'_>> {
        let (name, Tracked { verdict, .. }) = self.probes.get_key_value(probe)?;
        Some(View {
            name,
            up: verdict.is_up(),
            proven: verdict.is_proven(),
            last_error: verdict.last_error(),
        })
    }
}

#[cfg(test)]
mod tests;
