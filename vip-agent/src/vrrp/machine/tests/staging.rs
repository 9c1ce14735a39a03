//! Local addresses in place before a takeover.

use super::*;

#[test]
fn silence_of_two_and_a_half_intervals_stages() {
    let mut rig = Rig::new().staging_takes(1.0).backup();
    rig.at(3600.0);
    assert_eq!(rig.actions, [(2500.0, Action::Stage)]);
    rig.at(3700.0);
    assert_eq!(rig.history(), [(3609.375, State::Active, Cause::Timeout)]);
}

#[test]
fn priority_zero_stages_at_once() {
    let mut rig = Rig::new().staging_takes(1.0).backup();
    rig.at(500.0).advert(0).at(600.0);
    assert_eq!(rig.actions, [(500.0, Action::Stage)]);
    rig.at(2000.0);
    assert_eq!(rig.history(), [(1109.375, State::Active, Cause::PriorityZero)]);
}

#[test]
fn an_advert_takes_staged_addresses_away_and_staging_begins_anew() {
    let mut rig = Rig::new().staging_takes(1.0).backup();
    rig.at(2600.0).advert(200).at(5200.0);
    assert_eq!(rig.actions, [(2500.0, Action::Stage), (2600.0, Action::Unstage), (5100.0, Action::Stage)]);
}

#[test]
fn an_advert_before_the_addresses_are_in_place_cancels_them_too() {
    let mut rig = Rig::new().staging_takes(500.0).backup();
    rig.at(2600.0).advert(200).at(3500.0);
    assert_eq!(rig.actions, [(2500.0, Action::Stage), (2600.0, Action::Unstage)]);
}

#[test]
fn a_planned_takeover_waits_for_its_addresses() {
    let mut rig = Rig::new().interval_cs(1).staging_takes(15.0).backup();
    rig.at(5.0).advert(0).at(50.0);
    assert_eq!(rig.history(), [(20.0, State::Active, Cause::PriorityZero)]);
}

#[test]
fn a_planned_takeover_waits_no_longer_than_its_patience() {
    let mut rig = Rig::new().interval_cs(1).staging_hangs().backup();
    rig.at(5.0).advert(0).at(100.0);
    assert_eq!(rig.history(), [(5.0 + 6.09375 + 75.0, State::Active, Cause::PriorityZero)]);
}

#[test]
fn a_preempting_takeover_waits_for_its_addresses_too() {
    let mut rig = Rig::new().interval_cs(1).staging_hangs().started();
    for ten in 1..=12 {
        rig.at(f64::from(ten) * 10.0).advert(50);
    }
    assert_eq!(rig.history()[1..], [(36.09375 + 75.0, State::Active, Cause::Preempt)]);
}

#[test]
fn a_crash_is_not_waited_on() {
    let mut rig = Rig::new().interval_cs(1).staging_hangs().backup();
    rig.at(100.0);
    assert_eq!(rig.history(), [(36.09375, State::Active, Cause::Timeout)]);
}

#[test]
fn addresses_that_arrive_past_the_due_time_wait_for_the_queue_like_everything() {
    let mut rig = Rig::new().interval_cs(1).staging_hangs().backup();
    rig.at(5.0).advert(0).at(20.0).event(Event::Staged);
    assert_eq!(rig.state(), State::Backup);
    rig.advert(200).timer();
    assert_eq!(rig.state(), State::Backup);
}

#[test]
fn a_takeover_confirms_its_addresses() {
    let mut rig = Rig::new().staging_takes(0.0).backup();
    rig.at(4000.0);
    assert_eq!(rig.times_of(Action::Stage), [2500.0, 3609.375]);
}

#[test]
fn an_address_owner_stages_at_its_start() {
    let rig = Rig::new().priority(255).staging_takes(0.0).started();
    assert_eq!(
        rig.actions_at(0.0),
        [Action::ForwardNothing, Action::Advertise, Action::Announce, Action::Stage]
    );
}

#[test]
fn without_staging_no_address_is_asked_for_nor_waited_on() {
    let mut rig = Rig::new().interval_cs(1).backup();
    rig.at(5.0).advert(0).event(Event::Staged).at(100.0);
    assert_eq!(rig.history(), [(5.0 + 6.09375, State::Active, Cause::PriorityZero)]);
    assert!(rig.times_of(Action::Stage).is_empty());
}
