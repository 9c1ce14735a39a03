//! All probes, and what those that an instance tracks make of it: a fault, or a priority.

use std::collections::BTreeMap;

use super::verdict::{Outcome, Thresholds, Verdict};
use crate::types::{OutOfRange, Priority};

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
}

/// What an instance can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing, and why.
    Fault(String),
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
    /// Why the last outcome was not up.
    pub last_error: Option<&'a str>,
}

/// All probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    probes: BTreeMap<String, (Weight, Verdict)>,
}

impl Tracker {
    /// Tracks these probes from now on. Those that it knew keep their verdicts.
    pub fn set_probes(&mut self, probes: impl IntoIterator<Item = Probe>) {
        let mut known = std::mem::take(&mut self.probes);
        let tracked = probes.into_iter().map(|Probe { name, weight, thresholds }| {
            let verdict = match known.remove(&name) {
                Some((_, mut verdict)) => {
                    verdict.judge_by(thresholds);
                    verdict
                }
                None => Verdict::new(thresholds),
            };
            (name, (weight, verdict))
        });
        self.probes = tracked.collect();
    }

    /// Takes an outcome in; whether the probe's verdict is another one now. Unknown probes have none: one may have been
    /// taken out of the configuration while its outcome was on the way.
    pub fn observe(&mut self, probe: &str, outcome: Outcome) -> bool {
        self.probes.get_mut(probe).is_some_and(|(_, verdict)| verdict.observe(outcome))
    }

    /// What the verdicts on some probes, each counted once, make of an instance that has this priority of its own.
    ///
    /// A weighted priority stays within 1-254, and the address owner's 255 is never moved.
    pub fn health<'a>(&self, own: Priority, tracked: impl IntoIterator<Item = &'a str>) -> Health {
        let mut change = 0;
        let mut counted = Vec::new();
        for name in tracked {
            let Some((weight, verdict)) = self.probes.get(name).filter(|_| !counted.contains(&name)) else {
                continue;
            };
            counted.push(name);
            if *weight == Weight::Fault && !verdict.is_up() {
                return Health::Fault(format!("probe {name} is down: {}", verdict.reason()));
            }
            change += weight.change(verdict.is_up());
        }
        Health::Able(own.weighted(change))
    }

    /// How a probe is.
    pub fn view(&self, probe: &str) -> Option<View<'_>> {
        let (name, (_, verdict)) = self.probes.get_key_value(probe)?;
        Some(View { name, up: verdict.is_up(), last_error: verdict.last_error() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A tracker of probes p0, p1, ... with these weights and verdicts.
    fn tracker(probes: &[(i64, bool)]) -> (Tracker, Vec<String>) {
        let mut tracker = Tracker::default();
        let names: Vec<String> = (0..probes.len()).map(|index| format!("p{index}")).collect();
        tracker.set_probes(names.iter().zip(probes).map(|(name, (weight, _))| Probe {
            name: name.clone(),
            weight: Weight::try_from(*weight).unwrap(),
            thresholds: Thresholds::AT_ONCE,
        }));
        for (name, (_, up)) in names.iter().zip(probes) {
            tracker.observe(name, if *up { Outcome::Up } else { Outcome::Down("off".into()) });
        }
        (tracker, names)
    }

    fn health(own: u8, probes: &[(i64, bool)]) -> Health {
        let (tracker, names) = tracker(probes);
        tracker.health(Priority::new(own).unwrap(), names.iter().map(String::as_str))
    }

    fn able(priority: u8) -> Health {
        Health::Able(Priority::new(priority).unwrap())
    }

    #[test]
    fn weights_clamp_to_1_254() {
        assert_eq!(health(100, &[(-254, false)]), able(1));
        assert_eq!(health(100, &[(254, true)]), able(254));
        assert_eq!(health(100, &[(-254, false), (-254, false), (254, true)]), able(1));
        // The sum is clamped, not its steps: otherwise the order would count.
        assert_eq!(health(100, &[(254, true), (-120, false)]), able(234));
        assert_eq!(health(254, &[(1, true)]), able(254));
        assert_eq!(health(1, &[(-1, false)]), able(1));
    }

    #[test]
    fn the_address_owner_is_never_moved_by_a_weight_but_by_a_fault() {
        assert_eq!(health(255, &[(-254, false), (-1, true), (200, true)]), able(255));
        assert_eq!(health(255, &[(0, false)]), Health::Fault("probe p0 is down: off".into()));
    }

    #[test]
    fn a_negative_weight_counts_while_down_and_a_positive_one_while_up() {
        assert_eq!(health(100, &[(-40, true), (30, false)]), able(100));
        assert_eq!(health(100, &[(-40, false), (30, false)]), able(60));
        assert_eq!(health(100, &[(-40, true), (30, true)]), able(130));
    }

    #[test]
    fn a_weight_of_0_is_a_fault_while_down() {
        assert_eq!(health(100, &[(0, true), (-10, false)]), able(90));
        assert_eq!(health(100, &[(-10, false), (0, false)]), Health::Fault("probe p1 is down: off".into()));
    }

    #[test]
    fn a_probe_that_is_tracked_twice_counts_once_and_an_unknown_one_not_at_all() {
        let (tracker, _) = tracker(&[(-40, false)]);
        assert_eq!(tracker.health(Priority::DEFAULT, ["p0", "p9", "p0"]), able(60));
    }

    #[test]
    fn probes_that_stay_keep_their_verdicts() {
        let (mut tracker, _) = tracker(&[(0, true), (0, true)]);
        let probe =
            |name: &str| Probe { name: name.into(), weight: Weight::Fault, thresholds: Thresholds::AT_ONCE };
        tracker.set_probes([probe("p1"), probe("new")]);
        assert!(tracker.view("p1").unwrap().up);
        assert!(!tracker.view("new").unwrap().up);
        assert_eq!(tracker.view("p0"), None);
        assert!(!tracker.observe("p0", Outcome::Down("late".into())));
    }

    #[test]
    fn a_weight_is_what_was_written() {
        for weight in -254..=254 {
            assert_eq!(i64::from(Weight::try_from(weight).unwrap()), weight);
        }
        for weight in [-255, 255, 300, i64::MIN, i64::MAX] {
            assert!(Weight::try_from(weight).is_err(), "{weight}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_probes_never_counts_and_the_priority_is_always_valid(
            own in 1..=255_u8,
            probes in proptest::collection::vec((-254..=254_i64, any::<bool>()), 0..8),
        ) {
            let (tracker, names) = tracker(&probes);
            let own = Priority::new(own).unwrap();
            let forth = tracker.health(own, names.iter().map(String::as_str));
            let back = tracker.health(own, names.iter().rev().map(String::as_str));
            let faulty = probes.iter().any(|(weight, up)| *weight == 0 && !up);
            prop_assert_eq!(faulty, matches!(forth, Health::Fault(_)));
            match (forth, back) {
                (Health::Able(forth), Health::Able(back)) => {
                    prop_assert_eq!(forth, back);
                    prop_assert_eq!(forth == Priority::OWNER, own == Priority::OWNER);
                }
                (Health::Fault(_), Health::Fault(_)) => {}
                _ => prop_assert!(false, "the order counted"),
            }
        }
    }
}
