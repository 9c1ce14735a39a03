//! Drain and undrain: make before break.

use super::*;

#[test]
fn a_draining_owner_goes_on_answering_until_it_hears_the_heir() {
    let mut rig = Rig::new().active();
    rig.at(200.0).event(Event::Drain).at(900.0);
    assert!(rig.owns());
    rig.advert(50);
    assert_eq!(rig.actions_at(900.0), [Action::Release, Action::ForwardNothing, Action::UnstageAfterGrace]);
    assert_eq!((rig.state(), rig.owns()), (State::Draining, false));
}

#[test]
fn priority_zero_is_said_twice_and_nothing_after_it() {
    let mut rig = Rig::new().active();
    rig.at(200.0).event(Event::Drain).at(1290.0);
    assert_eq!(rig.wire, [(200.0, Sent::Leaving), (210.0, Sent::Leaving)]);
}

#[test]
fn the_slowest_heir_takes_over_before_the_drain_is_off_even_if_it_heard_only_the_second_priority_zero() {
    for interval in [1, 10, 100, 4095] {
        let mut owner = Rig::new().interval_cs(interval).active();
        owner.event(Event::Drain).at(20.0);
        let second = owner.wire[1].0;
        let mut heir = Rig::new().priority(1).interval_cs(interval).staging_hangs().backup();
        heir.at(second).advert(0).at(50_000.0);
        let (at, state, cause) = heir.history()[0];
        assert_eq!((state, cause), (State::Active, Cause::PriorityZero));
        let until = owner.answers_until().unwrap();
        assert!(at + 5.0 < until, "at {interval} cs: {at} ms, {until} ms");
    }
}

#[test]
fn a_question_is_no_heir_and_an_heir_of_the_lowest_priority_is_one() {
    let mut rig = Rig::new().active();
    rig.at(200.0).event(Event::Drain).at(600.0).advert(1);
    assert!(rig.owns(), "somebody has just begun, and asks");
    rig.at(1200.0).advert(1);
    assert!(!rig.owns());
}

#[test]
fn the_word_ends_an_interval_and_the_margin_after_the_drain() {
    for (interval, until) in [(1, 110.0), (10, 200.0), (100, 1100.0), (4095, 41_050.0)] {
        let mut rig = Rig::new().interval_cs(interval).active();
        rig.event(Event::Drain);
        assert_eq!(rig.answers_until(), Some(until), "at {interval} cs");
    }
}

#[test]
fn a_muted_drain_answers_no_longer_than_its_lease() {
    for (interval, until) in [(1, 30.0), (100, 1100.0)] {
        let mut rig = Rig::new().interval_cs(interval).active();
        rig.mute(true).event(Event::Drain);
        assert_eq!(rig.answers_until(), Some(until), "at {interval} cs");
    }
}

#[test]
fn without_an_heir_the_drain_is_off_and_the_owner_is_active_again() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(60_000.0);
    assert_eq!(rig.history()[1..], [(1100.0, State::Active, Cause::NoHeir)]);
    assert!(rig.owns());
    // Off for good: neither a fault nor an undrain finds it drained.
    rig.event(Event::Fault).event(Event::Recovered);
    assert_eq!(rig.state(), State::Backup);
}

#[test]
fn an_end_of_drain_found_late_leads_to_backup() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(70.0).stopped_until(1200.0).timer();
    assert_eq!(rig.history()[1..], [(1200.0, State::Backup, Cause::LeaseExpired)]);
    assert!(!rig.owns());
}

#[test]
fn an_end_of_drain_and_an_heir_found_together_go_to_the_heir() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(70.0).stopped_until(1120.0).advert(50).timer();
    assert_eq!(rig.state(), State::Draining);
    assert_eq!(rig.timer_at(), None);
}

#[test]
fn priority_zero_by_another_is_no_heir() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(50.0).advert(0);
    assert!(rig.owns());
}

#[test]
fn a_drained_router_takes_nothing_over() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(500.0).advert(50).at(1000.0).advert(0).at(1_000_000.0);
    assert_eq!(rig.state(), State::Draining);
    assert_eq!(rig.wire.len(), 2);
}

#[test]
fn a_drained_backup_says_nothing_and_takes_nothing_over() {
    let mut rig = Rig::new().backup();
    rig.at(100.0).event(Event::Drain).at(1000.0).advert(0).at(1_000_000.0);
    assert_eq!(rig.history(), [(100.0, State::Draining, Cause::Drain)]);
    assert!(rig.wire.is_empty());
}

#[test]
fn a_second_drain_changes_nothing() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(500.0).event(Event::Drain);
    assert_eq!((rig.answers_until(), rig.wire.len()), (Some(1100.0), 2));
    rig.advert(50).at(5000.0).event(Event::Drain);
    assert_eq!((rig.state(), rig.wire.len()), (State::Draining, 2));
}

#[test]
fn undrain_leads_to_backup() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(500.0).advert(50).at(5000.0).event(Event::Undrain);
    assert_eq!(
        rig.history()[1..],
        [(500.0, State::Draining, Cause::HandedOver), (5000.0, State::Backup, Cause::Undrain)]
    );
    assert_eq!(rig.timer_at(), Some(8609.375));
}

#[test]
fn undrain_while_still_answering_takes_priority_zero_back_without_a_gap() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(50.0).event(Event::Undrain);
    assert_eq!(rig.history()[1..], [(50.0, State::Active, Cause::Undrain)]);
    assert_eq!(rig.adverts(), [50.0]);
    assert_eq!(rig.answers_until(), Some(3050.0));
    assert!(rig.times_of(Action::Release).is_empty());
}

#[test]
fn undrain_while_still_answering_but_muted_gives_up() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(50.0).mute(true).event(Event::Undrain);
    assert_eq!((rig.state(), rig.owns()), (State::Backup, false));
}

#[test]
fn undrain_right_after_the_end_cleans_up_and_begins_as_backup() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(70.0).stopped_until(1150.0).event(Event::Undrain);
    assert_eq!(rig.state(), State::Backup);
    assert_eq!(rig.actions_at(1150.0), [Action::Release, Action::ForwardNothing, Action::Unstage]);
}

#[test]
fn undrain_twice_or_without_a_drain_changes_nothing() {
    let mut rig = Rig::new().active();
    rig.event(Event::Undrain).event(Event::Undrain);
    assert!(rig.actions.is_empty() && rig.transitions.is_empty());
}

#[test]
fn a_drain_during_a_fault_outlives_it() {
    let mut rig = Rig::new().active();
    rig.event(Event::Fault).event(Event::Drain).at(5000.0).event(Event::Recovered);
    assert_eq!(rig.history()[1..], [(5000.0, State::Draining, Cause::Recovered)]);
    rig.at(9000.0).event(Event::Undrain);
    assert_eq!(rig.state(), State::Backup);
}

#[test]
fn an_undrain_during_a_fault_counts_after_it() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(50.0).event(Event::Fault).event(Event::Undrain);
    assert_eq!(rig.state(), State::Fault);
    rig.event(Event::Recovered);
    assert_eq!(rig.state(), State::Backup);
}
