//! Another process goes on as what the machine of this one was.

use super::*;
use crate::vrrp::machine::longer;

/// Active by 100 ms adverts.
fn owner() -> Rig {
    Rig::new().interval_cs(10).active()
}

#[test]
fn an_owner_says_twice_that_it_will_be_silent_and_its_lease_is_three_of_that() {
    let mut rig = owner();
    rig.at(250.0).pause();
    assert_eq!(rig.adverts(), [100.0, 200.0, 250.0, 250.0]);
    assert_eq!(rig.answers_until(), Some(3250.0));
}

#[test]
fn its_successor_says_the_old_interval_and_nothing_else() {
    let mut rig = owner();
    rig.at(250.0).pause().succeeded(50.0, &[], None);
    assert_eq!(rig.actions_at(300.0), [Action::Advertise]);
    assert_eq!((rig.state(), rig.answers_until()), (State::Active, Some(600.0)));
    assert!(rig.transitions.is_empty());
    rig.at(500.0);
    assert_eq!(rig.adverts()[4..], [300.0, 400.0, 500.0]);
}

#[test]
fn announcements_that_still_follow_a_takeover_are_made_by_the_successor() {
    let mut rig = Rig::new().interval_cs(10).announce(3, 200.0, None).active();
    rig.at(250.0).pause().succeeded(50.0, &[], None).at(2000.0);
    assert_eq!(rig.announcements, [200.0, 500.0, 700.0]);
}

#[test]
fn a_successor_that_is_too_late_watches() {
    let mut rig = owner();
    rig.at(250.0).pause().succeeded(3000.0, &[], None);
    assert_eq!((rig.state(), rig.answers_until()), (State::Backup, None));
}

#[test]
fn a_successor_that_cannot_own_gives_the_vips_up() {
    let mut rig = owner();
    rig.at(250.0).pause().succeeded(50.0, &[Event::Fault], None);
    assert_eq!((rig.state(), rig.answers_until()), (State::Fault, None));
    assert_eq!(rig.wire.last(), Some(&(300.0, Sent::Leaving)));
}

#[test]
fn one_whose_probes_failed_meanwhile_offers_them_first() {
    let mut rig = owner();
    rig.at(250.0).pause().succeeded(50.0, &[Event::Unwell], None);
    assert_eq!(rig.state(), State::Draining);
    assert_eq!(rig.wire.last(), Some(&(300.0, Sent::Leaving)));
}

#[test]
fn a_better_router_that_was_heard_meanwhile_gets_them() {
    let mut rig = owner();
    rig.at(250.0).pause().succeeded(50.0, &[], Some(200));
    assert_eq!((rig.state(), rig.answers_until()), (State::Backup, None));
    assert_eq!(rig.wire.last(), Some(&(300.0, Sent::Yielding)));
}

#[test]
fn a_worse_one_is_told_who_owns() {
    let mut rig = owner();
    rig.at(250.0).pause().succeeded(50.0, &[], Some(50));
    assert_eq!((rig.state(), rig.answers_until()), (State::Active, Some(600.0)));
    assert_eq!(rig.times_of(Action::Advertise)[4..], [300.0]);
}

#[test]
fn a_backup_waits_for_its_owner_as_before() {
    let mut rig = Rig::new().interval_cs(10).backup();
    rig.at(20.0).advert_announcing(200, 50);
    let due = rig.timer_at();
    rig.at(100.0).pause().succeeded(50.0, &[], None);
    assert_eq!((rig.state(), rig.timer_at()), (State::Backup, due));
    assert!(rig.wire.is_empty());
}

#[test]
fn one_that_was_drained_stays_so() {
    let mut rig = owner();
    rig.at(250.0).event(Event::Drain).at(255.0).advert(50);
    rig.pause().succeeded(50.0, &[Event::Drain], None);
    assert_eq!((rig.state(), rig.answers_until()), (State::Draining, None));
}

#[test]
fn nobody_goes_on_in_the_middle_of_a_handover() {
    let mut rig = owner();
    assert!(rig.at(250.0).can_be_succeeded());
    rig.event(Event::Drain);
    assert!(!rig.can_be_succeeded());
}

#[test]
fn the_longer_interval_is_twice_the_own_within_a_second_and_what_the_field_holds() {
    let v3 = |cs| AdvertInterval::from(Centiseconds::new(cs).unwrap());
    for (own, expected) in
        [(1, 100), (50, 100), (51, 102), (100, 200), (2047, 4094), (2048, 4095), (4095, 4095)]
    {
        assert_eq!(longer(v3(own)), v3(expected));
    }
    let v2 = AdvertInterval::from(Seconds::new(3).unwrap());
    assert_eq!(longer(v2), v2, "nothing is learned in version 2");
}
