//! New parameters in each state.

use super::*;

fn priority(value: u8) -> impl Fn(&mut super::super::Parameters) {
    move |p| p.priority = Priority::new(value).unwrap()
}

fn interval(centiseconds: u16) -> impl Fn(&mut super::super::Parameters) {
    move |p| p.interval = Centiseconds::new(centiseconds).unwrap().into()
}

#[test]
fn the_same_parameters_change_nothing() {
    let mut rig = Rig::new().active();
    rig.at(300.0).reconfigure(|_| {});
    assert!(rig.actions.is_empty());
}

#[test]
fn before_the_start_they_hold_for_the_start() {
    let mut rig = Rig::new();
    rig.reconfigure(priority(255));
    assert!(rig.actions.is_empty());
    assert_eq!(rig.started().state(), State::Active);
}

#[test]
fn a_backup_waits_by_its_new_priority() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).reconfigure(priority(254));
    assert_eq!(rig.timer_at(), Some(3007.8125));
    rig.at(600.0).advert(200);
    assert_eq!(rig.timer_at(), Some(3007.8125), "now lower than ours");
}

#[test]
fn a_backup_keeps_the_interval_of_a_live_owner() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).reconfigure(interval(1));
    assert_eq!(rig.timer_at(), Some(3609.375));
}

#[test]
fn a_backup_that_lost_keeps_the_interval_of_the_winner() {
    let mut rig = Rig::new().active();
    rig.advert(200).at(500.0).reconfigure(interval(1));
    assert_eq!(rig.timer_at(), Some(3609.375));
}

#[test]
fn a_backup_that_has_heard_nobody_waits_by_its_new_interval() {
    let mut rig = Rig::new().started();
    rig.reconfigure(interval(10));
    assert_eq!(rig.timer_at(), Some(360.9375));
}

#[test]
fn a_backup_about_to_preempt_waits_for_an_owner_that_holds_it_by_the_new_parameters() {
    let changes: [fn(&mut super::super::Parameters); 3] = [
        |p| p.preempt = false,
        |p| p.preempt_delay = std::time::Duration::from_secs(60),
        |p| p.priority = Priority::new(40).unwrap(),
    ];
    for change in changes {
        let mut rig = Rig::new().staging_takes(1.0).started();
        rig.at(1000.0).advert(50).at(2000.0).advert(50).at(3000.0).advert(50).at(3100.0).reconfigure(change);
        for second in 4..10 {
            rig.at(f64::from(second) * 1000.0).advert(50);
        }
        assert_eq!(rig.state(), State::Backup);
    }
}

#[test]
fn an_address_owner_that_is_one_no_longer_is_held_by_a_lower_owner() {
    let mut rig = Rig::new().priority(255).no_preempt().active();
    rig.stopped_until(3500.0).timer().at(4000.0).advert(50).at(5000.0).advert(50);
    rig.reconfigure(priority(200)).at(7000.0).advert(50).at(9000.0);
    assert_eq!(rig.state(), State::Backup);
}

#[test]
fn a_backup_that_is_still_to_preempt_goes_on_after_a_reload() {
    let mut rig = Rig::new().started();
    rig.at(1000.0).advert(50).at(2000.0).advert(50).reconfigure(priority(200));
    rig.at(3000.0).advert(50).at(4000.0);
    assert_eq!(rig.history()[1..], [(3218.75, State::Active, Cause::Preempt)]);
}

#[test]
fn an_owner_tells_its_peers_at_once() {
    let mut rig = Rig::new().active();
    rig.at(300.0).reconfigure(priority(50)).at(1400.0);
    assert_eq!(rig.adverts(), [300.0, 1300.0]);
    assert!(rig.transitions.is_empty());
}

#[test]
fn an_owners_lease_follows_its_interval() {
    let mut rig = Rig::new().active();
    rig.at(300.0).reconfigure(interval(1));
    assert_eq!(rig.answers_until(), Some(330.0));
    rig.at(320.0);
    assert_eq!(rig.adverts(), [300.0, 310.0, 320.0]);
    rig.reconfigure(interval(100));
    assert_eq!(rig.answers_until(), Some(3320.0));
}

#[test]
fn an_owner_with_a_new_lower_priority_yields_to_what_is_higher_now() {
    let mut rig = Rig::new().active();
    rig.at(300.0).reconfigure(priority(50)).advert(60);
    assert_eq!(rig.state(), State::Backup);
}

#[test]
fn a_refresh_that_is_switched_on_reaches_a_running_owner() {
    let mut rig = Rig::new().active();
    rig.at(500.0).reconfigure(|p| p.announce_refresh = Some(rig::duration(10_000.0))).at(21_000.0);
    assert_eq!(rig.announcements, [10_000.0, 20_000.0]);
}

#[test]
fn local_addresses_follow_a_running_owner() {
    let mut rig = Rig::new().active();
    rig.at(500.0).reconfigure(|p| p.staging = true).at(600.0).reconfigure(|p| p.staging = false);
    assert_eq!(rig.times_of(Action::Stage), [500.0]);
    assert_eq!(rig.times_of(Action::Unstage), [600.0]);
}

#[test]
fn a_drained_or_faulty_router_stays_out() {
    for event in [Event::Drain, Event::Fault] {
        let mut rig = Rig::new().backup();
        rig.event(event).reconfigure(priority(255)).at(10_000.0);
        assert!(rig.wire.is_empty() && !rig.owns());
    }
}

#[test]
fn a_drain_under_way_keeps_its_end() {
    let mut rig = Rig::new().active();
    rig.event(Event::Drain).at(50.0).reconfigure(interval(1)).at(70.0);
    assert_eq!(rig.answers_until(), Some(1100.0));
}
