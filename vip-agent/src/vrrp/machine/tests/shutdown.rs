//! Shutdown in each state.

use super::*;

#[test]
fn a_backup_shuts_down_silently() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).event(Event::Shutdown).at(60_000.0);
    assert_eq!(rig.history(), [(500.0, State::Initialize, Cause::Shutdown)]);
    assert!(rig.wire.is_empty());
}

#[test]
fn a_backup_takes_its_staged_addresses_along() {
    let mut rig = Rig::new().staging_takes(0.0).backup();
    rig.at(2600.0).event(Event::Shutdown);
    assert_eq!(rig.actions, [(2500.0, Action::Stage), (2600.0, Action::Unstage)]);
}

#[test]
fn an_owner_says_priority_zero_and_answers_until_the_heir_is_heard() {
    let mut rig = Rig::new().active();
    rig.at(200.0).event(Event::Shutdown);
    assert_eq!(rig.wire, [(200.0, Sent::Leaving)]);
    assert_eq!((rig.state(), rig.answers_until()), (State::Draining, Some(1300.0)));
    rig.at(700.0).advert(50);
    assert_eq!(rig.answers_until(), None);
    assert_eq!(
        rig.history(),
        [(200.0, State::Draining, Cause::Shutdown), (700.0, State::Initialize, Cause::HandedOver)]
    );
}

#[test]
fn an_owner_without_an_heir_is_gone_after_an_interval_and_the_margin() {
    let mut rig = Rig::new().active();
    rig.event(Event::Shutdown).at(60_000.0);
    assert_eq!(rig.history()[1..], [(1100.0, State::Initialize, Cause::NoHeir)]);
    assert_eq!((rig.answers_until(), rig.timer_at()), (None, None));
}

#[test]
fn a_draining_owner_shuts_down_without_a_new_wait() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(600.0).event(Event::Shutdown).at(60_000.0);
    assert_eq!(rig.history()[1..], [(1100.0, State::Initialize, Cause::NoHeir)]);
}

#[test]
fn a_shutdown_cannot_be_undrained() {
    let mut rig = Rig::new().active();
    rig.event(Event::Shutdown).at(100.0).event(Event::Undrain).at(200.0).advert(50);
    assert_eq!(rig.state(), State::Initialize);
}

#[test]
fn a_drained_router_shuts_down_silently() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(600.0).advert(50).at(5000.0).event(Event::Shutdown);
    assert_eq!(rig.history().last(), Some(&(5000.0, State::Initialize, Cause::Shutdown)));
    assert_eq!(rig.wire.last(), Some(&(10.0, Sent::Leaving)));
}

#[test]
fn a_faulty_router_shuts_down_silently() {
    let mut rig = Rig::new().backup();
    rig.event(Event::Fault).event(Event::Shutdown);
    assert_eq!(rig.state(), State::Initialize);
    assert!(rig.wire.is_empty());
}

#[test]
fn a_router_in_hold_down_shuts_down_and_stays_out() {
    let mut rig = Rig::new().priority(255).hold_down(5000.0).started();
    rig.at(1000.0).event(Event::Shutdown).at(60_000.0);
    assert_eq!((rig.state(), rig.timer_at()), (State::Initialize, None));
}

#[test]
fn a_second_shutdown_changes_nothing() {
    let mut rig = Rig::new().active();
    rig.event(Event::Shutdown).at(500.0).event(Event::Shutdown).at(600.0);
    assert_eq!((rig.state(), rig.answers_until()), (State::Draining, Some(1100.0)));
}
