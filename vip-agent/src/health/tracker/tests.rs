//! What verdicts make of an instance, and what time makes of verdicts.

use std::num::NonZeroU16;

use proptest::prelude::*;

use super::*;

fn off() -> Outcome {
    Outcome::Down("off".into())
}

fn ms(milliseconds: u64) -> MonotonicTime {
    MonotonicTime::ZERO + Duration::from_millis(milliseconds)
}

/// A round from one time to another, in milliseconds.
fn round(outcome: Outcome, began: u64, ended: u64) -> Round {
    Round { outcome, began: ms(began), ended: ms(ended) }
}

fn fault_of(probe: &str) -> Health {
    Health::Fault { probe: probe.into(), why: format!("probe {probe} is down: off") }
}

/// A tracker of one probe, `web`, that falls and rises by two, whose outcomes hold for a second.
fn polled() -> Tracker {
    let mut tracker = Tracker::default();
    let twice = NonZeroU16::new(2).unwrap();
    tracker.set_probes([Probe {
        name: "web".into(),
        weight: Weight::Fault,
        thresholds: Thresholds { fall: twice, rise: twice, initially_up: false },
        expires: Some(Duration::from_secs(1)),
    }]);
    tracker
}

/// A tracker of probes p0, p1, ... with these weights and verdicts.
fn tracker(probes: &[(i64, bool)]) -> (Tracker, Vec<String>) {
    let mut tracker = Tracker::default();
    let names: Vec<String> = (0..probes.len()).map(|index| format!("p{index}")).collect();
    tracker.set_probes(names.iter().zip(probes).map(|(name, (weight, _))| Probe {
        name: name.clone(),
        weight: Weight::try_from(*weight).unwrap(),
        thresholds: Thresholds::AT_ONCE,
        expires: None,
    }));
    for (name, (_, up)) in names.iter().zip(probes) {
        tracker.observe(name, round(if *up { Outcome::Up } else { off() }, 0, 0));
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
    assert_eq!(health(255, &[(0, false)]), fault_of("p0"));
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
    assert_eq!(health(100, &[(-10, false), (0, false)]), fault_of("p1"));
}

#[test]
fn a_probe_that_is_tracked_twice_counts_once_and_an_unknown_one_not_at_all() {
    let (tracker, _) = tracker(&[(-40, false)]);
    assert_eq!(tracker.health(Priority::DEFAULT, ["p0", "p9", "p0"]), able(60));
}

#[test]
fn probes_that_stay_keep_their_verdicts() {
    let (mut tracker, _) = tracker(&[(0, true), (0, true)]);
    let probe = |name: &str| Probe {
        name: name.into(),
        weight: Weight::Fault,
        thresholds: Thresholds::AT_ONCE,
        expires: None,
    };
    tracker.set_probes([probe("p1"), probe("new")]);
    assert!(tracker.view("p1").unwrap().up);
    assert!(!tracker.view("new").unwrap().up);
    assert_eq!(tracker.view("p0"), None);
    assert!(!tracker.observe("p0", round(off(), 0, 0)));
}

#[test]
fn a_turn_tells_the_first_and_the_last_of_the_answers_that_made_it() {
    let mut tracker = polled();
    assert_eq!(tracker.turn("web"), None);
    assert!(tracker.observe("web", round(Outcome::Up, 0, 1)));
    for (outcome, at) in [(off(), 100), (Outcome::Up, 200), (off(), 300)] {
        assert!(!tracker.observe("web", round(outcome, at, at + 1)));
    }
    assert!(tracker.observe("web", round(off(), 400, 405)));
    let turn = Turn { probe: "web".into(), up: false, first: ms(301), last: ms(405) };
    assert_eq!(tracker.turn("web"), Some(&turn));
}

#[test]
fn a_late_round_that_began_before_the_last_one_is_counted_and_not_judged() {
    let mut tracker = polled();
    tracker.observe("web", round(Outcome::Up, 200, 201));
    for began in [0, 100] {
        assert!(!tracker.observe("web", round(off(), began, 1000)));
    }
    assert_eq!(tracker.view("web"), Some(View { name: "web", up: true, proven: true, last_error: None }));
    let (_, up, measured) = tracker.measured().next().unwrap();
    assert!(up);
    assert_eq!((measured.up, measured.down, measured.rounds()), (1, 2, 3));
    assert_eq!(measured.durations, [1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    assert_eq!(measured.last, Some(Duration::from_millis(900)));
}

#[test]
fn a_verdict_without_outcomes_expires_at_once_and_rises_again() {
    let mut tracker = polled();
    tracker.observe("web", round(Outcome::Up, 0, 1));
    let half = Duration::from_millis(500);
    assert_eq!(tracker.grow_older(half, ms(500)), [""; 0]);
    assert_eq!(tracker.grow_older(half, ms(1000)), [""; 0]);
    assert_eq!(tracker.grow_older(half, ms(1500)), ["web"]);
    assert_eq!(tracker.grow_older(half, ms(2000)), [""; 0]);
    let reason = "probe web is down: no outcome for 2 s: the probe hangs";
    let health = tracker.health(Priority::DEFAULT, ["web"]);
    assert_eq!(health, Health::Fault { probe: "web".into(), why: reason.into() });
    assert!(!tracker.observe("web", round(Outcome::Up, 2100, 2101)));
    assert!(tracker.observe("web", round(Outcome::Up, 2200, 2201)));
    assert_eq!(tracker.measured().next().unwrap().2.expired, 1);
}

#[test]
fn what_is_told_and_not_polled_never_expires() {
    let (mut tracker, _) = tracker(&[(0, true)]);
    assert_eq!(tracker.grow_older(Duration::from_secs(86400), ms(1)), [""; 0]);
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
        prop_assert_eq!(faulty, matches!(forth, Health::Fault { .. }));
        match (forth, back) {
            (Health::Able(forth), Health::Able(back)) => {
                prop_assert_eq!(forth, back);
                prop_assert_eq!(forth == Priority::OWNER, own == Priority::OWNER);
            }
            (Health::Fault { .. }, Health::Fault { .. }) => {}
            _ => prop_assert!(false, "the order counted"),
        }
    }
}
