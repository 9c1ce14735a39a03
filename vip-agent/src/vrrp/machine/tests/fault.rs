//! Faults: silent first, priority 0 next; back as Backup.

use super::*;

#[test]
fn a_faulty_owner_is_silent_first_and_then_says_priority_zero() {
    let mut rig = Rig::new().active();
    rig.at(1200.0).event(Event::Fault);
    assert_eq!(rig.history(), [(1200.0, State::Fault, Cause::Fault)]);
    assert_eq!(
        rig.actions_at(1200.0),
        [Action::Release, Action::AdvertiseLeaving, Action::ForwardNothing, Action::UnstageAfterGrace]
    );
    assert_eq!(rig.answers_until(), None);
}

#[test]
fn a_faulty_router_sends_nothing_and_follows_nobody() {
    let mut rig = Rig::new().active();
    rig.event(Event::Fault).at(1000.0).advert(50).advert(0).event(Event::Fault).at(100_000.0);
    assert_eq!(rig.wire, [(0.0, Sent::Leaving)]);
    assert_eq!(rig.timer_at(), None);
}

#[test]
fn a_faulty_backup_says_nothing() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).event(Event::Fault).at(10_000.0);
    assert_eq!(rig.history(), [(500.0, State::Fault, Cause::Fault)]);
    assert!(rig.wire.is_empty());
}

#[test]
fn recovery_leads_to_backup() {
    let mut rig = Rig::new().active();
    rig.event(Event::Fault).at(5000.0).event(Event::Recovered).at(10_000.0);
    assert_eq!(
        rig.history()[1..],
        [(5000.0, State::Backup, Cause::Recovered), (8609.375, State::Active, Cause::Timeout)]
    );
}

#[test]
fn an_address_owner_recovers_as_active() {
    let mut rig = Rig::new().priority(255).active();
    rig.event(Event::Fault).at(5000.0).event(Event::Recovered);
    assert_eq!(rig.history()[1..], [(5000.0, State::Active, Cause::Recovered)]);
}

#[test]
fn recovery_without_a_fault_changes_nothing() {
    let mut rig = Rig::new().active();
    rig.event(Event::Recovered);
    assert!(rig.actions.is_empty() && rig.transitions.is_empty());
}

#[test]
fn a_fault_during_a_drain_ends_the_answering_at_once() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(30.0).event(Event::Fault);
    assert_eq!((rig.state(), rig.owns()), (State::Fault, false));
    assert_eq!(
        rig.actions_at(30.0),
        [Action::Release, Action::AdvertiseLeaving, Action::ForwardNothing, Action::UnstageAfterGrace]
    );
}

#[test]
fn a_fault_after_the_end_of_a_drain_cleans_up_as_well() {
    let mut rig = Rig::new().staging_takes(0.0).active();
    rig.event(Event::Drain).at(70.0).stopped_until(1150.0).event(Event::Fault);
    assert_eq!(rig.times_of(Action::UnstageAfterGrace), [1150.0]);
    assert_eq!(rig.times_of(Action::Release), [1150.0]);
}

#[test]
fn a_fault_during_a_shutdown_ends_it() {
    let mut rig = Rig::new().active();
    rig.event(Event::Shutdown).at(30.0).event(Event::Fault);
    assert_eq!(rig.state(), State::Initialize);
    assert_eq!(rig.answers_until(), None);
}
