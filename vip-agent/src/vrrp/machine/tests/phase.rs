//! Regular adverts of many instances are spread over the interval.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::{AdvertPhase, Event, Machine, Parameters};
use super::*;
use crate::types::{MonotonicTime, VirtualRouterId};

fn phase(id: u8) -> AdvertPhase {
    AdvertPhase::of(VirtualRouterId::new(id).unwrap())
}

/// When the adverts of an owner go out in this many intervals after it became Active at `now`.
fn adverts(parameters: Parameters, now: MonotonicTime, intervals: u32) -> Vec<MonotonicTime> {
    let mut machine = Machine::new(parameters);
    let end = now + parameters.interval.duration() * intervals;
    let (mut sent, mut now, mut event) = (Vec::new(), now, Event::Startup);
    while now < end {
        if machine.handle(event, now).actions.contains(&Action::Advertise) {
            sent.push(now);
            machine.handle(Event::AdvertSent(now), now);
        }
        (now, event) = (machine.next_timer(), Event::Timer);
    }
    sent
}

/// Owners at once, without repeats of announcements between.
fn owner(id: u8, centiseconds: u16) -> Parameters {
    Parameters {
        priority: Priority::OWNER,
        interval: Centiseconds::new(centiseconds).unwrap().into(),
        phase: Some(phase(id)),
        ..Rig::new().parameters()
    }
}

#[test]
fn after_the_first_advert_no_gap_is_longer_than_an_interval_and_all_further_ones_are_one() {
    for (id, begin) in (1..=255).zip([1, 7_777_777, 123_456_789_012].into_iter().cycle()) {
        for centiseconds in [1, 7, 100, 4095] {
            let parameters = owner(id, centiseconds);
            let interval = parameters.interval.duration();
            let sent = adverts(parameters, MonotonicTime(begin), 10);
            let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1].since(pair[0])).collect();
            assert!(!gaps[0].is_zero() && gaps[0] <= interval, "{id}: {gaps:?}");
            assert!(gaps.len() >= 9 && gaps[1..].iter().all(|gap| *gap == interval), "{id}: {gaps:?}");
        }
    }
}

#[test]
fn a_tenth_of_an_interval_never_has_more_than_a_seventh_of_the_adverts_of_255_instances() {
    let began = MonotonicTime(123_456_789);
    let interval = Duration::from_millis(10);
    let mut sent: Vec<MonotonicTime> = (1..=255)
        .flat_map(|id| adverts(owner(id, 1), began, 5))
        .filter(|at| at.since(began) > interval)
        .collect();
    sent.sort_unstable();
    let most = (0..sent.len())
        .map(|first| sent[first..].iter().take_while(|at| at.since(sent[first]) < interval / 10).count())
        .max();
    assert!(most.is_some_and(|most| most <= 255 / 7), "{most:?} of 255");
}

#[test]
fn few_instances_are_spread_too_however_their_ids_are_chosen() {
    for step in [1, 2, 5, 10, 16, 20, 25, 32, 50] {
        let count = (255 / u16::from(step)).min(8) as u8;
        let phases: BTreeSet<AdvertPhase> = (1..=count).map(|n| phase(n * step)).collect();
        assert!(phases.len() >= usize::from(count) - 1, "ids in steps of {step}: {phases:?}");
    }
}

#[test]
fn a_late_advert_is_followed_by_one_in_time() {
    let mut machine = Machine::new(owner(51, 1));
    let begin = MonotonicTime(1_000_000_000);
    machine.handle(Event::Startup, begin);
    machine.handle(Event::AdvertSent(begin), begin);
    let on_time = machine.next_timer();
    let late = on_time + Duration::from_millis(9);
    machine.handle(Event::Timer, late);
    machine.handle(Event::AdvertSent(late), late);
    assert_eq!(machine.next_timer(), on_time + Duration::from_millis(10));
}

#[test]
fn an_answer_to_a_rival_puts_the_regular_advert_off_and_then_the_phase_is_found_again() {
    let mut rig = Rig::new().with(|parameters| parameters.phase = Some(phase(51))).active();
    rig.at(3000.0);
    let on_time = *rig.adverts().last().unwrap();
    rig.at(on_time + 400.0).advert(50).at(on_time + 3000.0);
    let after: Vec<f64> =
        rig.adverts().into_iter().filter(|at| *at > on_time).map(|at| at - on_time).collect();
    assert_eq!(after, [400.0, 1400.0, 2000.0, 3000.0]);
}
