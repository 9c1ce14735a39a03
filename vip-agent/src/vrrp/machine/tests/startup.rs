//! Initialize and the ways out of it.

use super::*;

#[test]
fn a_new_machine_waits_for_startup() {
    let mut rig = Rig::new();
    rig.advert(200).at(100_000.0).advert(0).at(200_000.0);
    assert_eq!((rig.state(), rig.timer_at()), (State::Initialize, None));
    assert!(rig.actions.is_empty());
}

#[test]
fn an_address_owner_starts_as_active_with_advert_before_announcement() {
    let rig = Rig::new().priority(255).started();
    assert_eq!(rig.history(), [(0.0, State::Active, Cause::Startup)]);
    assert_eq!(rig.actions_at(0.0), [Action::ForwardNothing, Action::Advertise, Action::Announce]);
    assert_eq!(rig.answers_until(), Some(3000.0));
}

#[test]
fn any_other_router_starts_as_backup_and_says_nothing() {
    let mut rig = Rig::new().priority(254).started();
    assert_eq!(rig.history(), [(0.0, State::Backup, Cause::Startup)]);
    rig.at(3007.0);
    assert!(rig.actions.is_empty());
    assert!(!rig.owns());
}

#[test]
fn a_backup_that_hears_nobody_takes_over_after_active_down() {
    let mut rig = Rig::new().started();
    rig.at(10_000.0);
    assert_eq!(rig.history()[1..], [(3609.375, State::Active, Cause::Timeout)]);
}

#[test]
fn hold_down_delays_the_start_of_backup_and_of_the_address_owner() {
    for (priority, state) in [(100, State::Backup), (255, State::Active)] {
        let mut rig = Rig::new().priority(priority).hold_down(5000.0).started();
        rig.at(4999.0).advert(100);
        assert_eq!(rig.state(), State::Initialize);
        rig.at(6000.0);
        assert_eq!(rig.history(), [(5000.0, state, Cause::Startup)]);
    }
}

#[test]
fn a_second_startup_changes_nothing() {
    let mut rig = Rig::new().hold_down(5000.0).started();
    rig.at(4000.0).event(Event::Startup).at(5000.0).event(Event::Startup);
    assert_eq!(rig.history(), [(5000.0, State::Backup, Cause::Startup)]);
}

#[test]
fn a_fault_or_a_drain_during_hold_down_counts_when_it_ends() {
    for (event, state) in [(Event::Fault, State::Fault), (Event::Drain, State::Draining)] {
        let mut rig = Rig::new().priority(255).hold_down(5000.0).started();
        rig.at(1000.0).event(event);
        assert_eq!(rig.state(), State::Initialize);
        rig.at(60_000.0);
        assert_eq!(rig.history(), [(5000.0, state, Cause::Startup)]);
        assert!(rig.wire.is_empty());
    }
}
