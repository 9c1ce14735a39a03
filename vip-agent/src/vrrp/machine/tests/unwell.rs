//! `all_failed: open`: an owner that is unwell offers the VIPs, and keeps them if nobody takes them.

use super::super::LEASE_INTERVALS;
use super::*;

/// Priority 100, 100 ms, Active since the clock began.
fn owner() -> Rig {
    Rig::new().interval_cs(10).active()
}

/// The same, unwell at 50 ms, and nobody took the VIPs: they were its own again at 250 ms.
fn last_resort() -> Rig {
    let mut rig = owner();
    rig.at(50.0).event(Event::Unwell).at(260.0);
    assert_eq!(rig.state(), State::Active);
    rig
}

#[test]
fn an_unwell_owner_says_priority_0_and_goes_on_answering_until_its_heir_is_heard() {
    let mut rig = owner();
    rig.at(50.0).event(Event::Unwell);
    assert_eq!(rig.history(), [(50.0, State::Draining, Cause::Fault)]);
    assert_eq!(rig.wire, [(50.0, Sent::Leaving)]);
    // One interval + 100 ms.
    assert_eq!(rig.answers_until(), Some(250.0));
    rig.at(75.0).advert(90);
    assert_eq!(rig.state(), State::Fault);
    assert!(!rig.owns());
    rig.at(10_000.0);
    assert_eq!(rig.history()[1..], [(75.0, State::Fault, Cause::HandedOver)]);
}

#[test]
fn without_an_heir_it_keeps_the_vips_by_the_lowest_priority_and_never_stops_answering() {
    let mut rig = owner();
    rig.at(50.0).event(Event::Unwell);
    for at in 51..2000 {
        rig.at(f64::from(at));
        assert!(rig.owns(), "not at {at} ms");
    }
    assert_eq!(rig.history(), [(50.0, State::Draining, Cause::Fault), (250.0, State::Active, Cause::NoHeir)]);
    assert_eq!(rig.priority_now(), 2);
    assert_eq!(rig.adverts()[..3], [250.0, 350.0, 450.0]);
}

#[test]
fn the_last_resort_yields_to_anybody_and_takes_part_no_more() {
    let mut rig = last_resort();
    rig.at(300.0).advert(3);
    assert_eq!(rig.history().last(), Some(&(300.0, State::Fault, Cause::HigherPriority)));
    // What it yields by must not beat the winner.
    assert_eq!((rig.wire.last(), rig.priority_now()), (Some(&(300.0, Sent::Yielding)), 2));
    rig.at(10_000.0);
    assert_eq!(rig.state(), State::Fault);
    // Its own priority, once it is well.
    rig.event(Event::Well).advert(90).at(20_000.0);
    assert_eq!((rig.state(), rig.priority_now()), (State::Active, 100));
}

#[test]
fn of_two_last_resorts_that_meet_one_stays() {
    let mut winner = last_resort();
    winner.at(300.0).advert_from(2, Ordering::Less).at(1000.0);
    assert_eq!(winner.state(), State::Active);
    let mut loser = last_resort();
    loser.at(300.0).advert_from(2, Ordering::Greater).at(1000.0);
    assert_eq!(loser.state(), State::Fault);
}

#[test]
fn once_well_it_owns_by_its_own_priority_and_says_so_at_once() {
    let mut rig = last_resort();
    rig.at(300.0).event(Event::Well);
    assert_eq!((rig.state(), rig.priority_now()), (State::Active, 100));
    assert_eq!(rig.adverts().last(), Some(&300.0));
    // Well again before its offer was over: it never was another's.
    let mut rig = owner();
    rig.at(50.0).event(Event::Unwell).at(100.0).event(Event::Well);
    assert_eq!(rig.history().last(), Some(&(100.0, State::Active, Cause::Recovered)));
    assert_eq!(rig.priority_now(), 100);
}

#[test]
fn an_unwell_backup_keeps_out_until_it_is_well() {
    let mut rig = Rig::new().interval_cs(10).backup();
    rig.at(50.0).event(Event::Unwell).advert(0).at(10_000.0);
    assert_eq!(rig.history(), [(50.0, State::Fault, Cause::Fault)]);
    rig.event(Event::Well);
    assert_eq!(rig.history().last(), Some(&(10_000.0, State::Backup, Cause::Recovered)));
}

#[test]
fn a_fault_and_being_unwell_each_keep_it_out() {
    let mut rig = Rig::new().backup();
    rig.event(Event::Unwell).event(Event::Fault).event(Event::Well);
    assert_eq!(rig.state(), State::Fault);
    rig.event(Event::Unwell).event(Event::Recovered);
    assert_eq!(rig.state(), State::Fault);
    rig.event(Event::Well);
    assert_eq!(rig.state(), State::Backup);
}

#[test]
fn a_fault_ends_an_offer_and_a_last_resort_at_once() {
    let mut offering = owner();
    offering.at(50.0).event(Event::Unwell).at(60.0).event(Event::Fault);
    assert_eq!((offering.state(), offering.owns()), (State::Fault, false));
    let mut keeping = last_resort();
    keeping.at(300.0).event(Event::Fault);
    assert_eq!((keeping.state(), keeping.owns(), keeping.priority_now()), (State::Fault, false, 100));
}

#[test]
fn a_last_resort_that_was_stopped_comes_back_as_the_last_of_all_backups() {
    let mut rig = last_resort();
    rig.at(300.0).stopped_until(5000.0).timer();
    assert_eq!(rig.history().last(), Some(&(5000.0, State::Backup, Cause::LeaseExpired)));
    let skew = 100.0 * 254.0 / 256.0;
    assert_eq!(rig.timer_at(), Some(5000.0 + f64::from(LEASE_INTERVALS) * 100.0 + skew));
    rig.advert(3).at(5300.0).advert(3).at(5500.0);
    assert_eq!(rig.state(), State::Backup);
}

#[test]
fn a_refused_offer_answers_no_longer_than_the_lease() {
    let mut rig = owner();
    rig.at(50.0).mute(true).event(Event::Unwell);
    assert_eq!(rig.answers_until(), Some(250.0));
    let mut late = owner();
    late.mute(true).stopped_until(290.0).event(Event::Unwell);
    assert_eq!(late.answers_until(), Some(300.0));
}

#[test]
fn a_drain_of_an_unwell_owner_without_an_heir_is_off_and_undraining_goes_on_with_the_offer() {
    let mut rig = last_resort();
    rig.at(300.0).event(Event::Drain).at(1000.0);
    assert_eq!((rig.state(), rig.priority_now()), (State::Active, 2));
    rig.event(Event::Drain).event(Event::Undrain);
    assert_eq!(rig.state(), State::Draining);
    rig.at(2000.0);
    assert_eq!((rig.state(), rig.priority_now()), (State::Active, 2));
}

#[test]
fn other_parameters_do_not_make_a_last_resort_more_than_that() {
    let mut rig = last_resort();
    rig.reconfigure(|p| p.priority = Priority::new(200).unwrap());
    assert_eq!(rig.priority_now(), 2);
    rig.event(Event::Well);
    assert_eq!(rig.priority_now(), 200);
}

#[test]
fn the_address_owner_can_be_a_last_resort_too() {
    let mut rig = Rig::new().priority(255).interval_cs(10).active();
    rig.at(50.0).event(Event::Unwell).at(300.0);
    assert_eq!((rig.state(), rig.priority_now()), (State::Active, 2));
    rig.advert(100);
    assert_eq!(rig.state(), State::Fault);
    rig.event(Event::Well);
    assert_eq!((rig.state(), rig.priority_now()), (State::Active, 255));
}
