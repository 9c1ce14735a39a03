//! The lease: a stopped, starved or muted owner is silent by itself, and does not come back as an owner.

use super::*;

#[test]
fn every_accepted_advert_renews_for_three_intervals() {
    let mut rig = Rig::new().active();
    assert_eq!(rig.answers_until(), Some(3000.0));
    rig.at(1000.0);
    assert_eq!(rig.answers_until(), Some(4000.0));
}

#[test]
fn a_stopped_owner_is_fenced_whatever_it_wakes_up_to() {
    let events = [
        Event::Timer,
        Event::Staged,
        Event::Startup,
        Event::Recovered,
        Event::Undrain,
        Event::Advert(PeerAdvert {
            priority: 1,
            interval: Centiseconds::new(100).unwrap().into(),
            address: Ordering::Less,
            sender: PEER,
        }),
        Event::Advert(PeerAdvert {
            priority: 200,
            interval: Centiseconds::new(100).unwrap().into(),
            address: Ordering::Less,
            sender: PEER,
        }),
    ];
    for event in events {
        let mut rig = Rig::new().active();
        rig.stopped_until(3000.0).event(event);
        assert_eq!(rig.history(), [(3000.0, State::Backup, Cause::LeaseExpired)], "{event:?}");
        assert_eq!(rig.actions_at(3000.0), [Action::Release, Action::ForwardNothing, Action::Unstage]);
        assert!(rig.wire.is_empty(), "{event:?}");
    }
}

#[test]
fn a_stopped_owner_is_fenced_before_it_drains_faults_or_shuts_down() {
    for (event, state) in
        [(Event::Drain, State::Draining), (Event::Fault, State::Fault), (Event::Shutdown, State::Initialize)]
    {
        let mut rig = Rig::new().active();
        rig.stopped_until(60_000.0).event(event);
        assert_eq!((rig.state(), rig.owns()), (state, false));
        assert!(rig.wire.is_empty(), "{event:?}: no priority 0 by one who owns nothing");
    }
}

#[test]
fn a_stopped_owner_is_fenced_before_a_reload() {
    let mut rig = Rig::new().active();
    rig.stopped_until(60_000.0).reconfigure(|p| p.priority = Priority::new(200).unwrap());
    assert_eq!(rig.history(), [(60_000.0, State::Backup, Cause::LeaseExpired)]);
    assert!(rig.wire.is_empty());
}

#[test]
fn a_fenced_owner_waits_like_any_backup() {
    let mut rig = Rig::new().active();
    rig.stopped_until(60_000.0).timer().at(70_000.0);
    assert_eq!(rig.history()[1..], [(63_609.375, State::Active, Cause::Timeout)]);
}

#[test]
fn a_fenced_owner_stays_backup_to_an_equal_rival_and_preempts_a_lower_one() {
    for (rival, state) in [(100, State::Backup), (99, State::Active)] {
        let mut rig = Rig::new().active();
        rig.stopped_until(5000.0).advert(rival).timer();
        for second in 6..10 {
            rig.at(f64::from(second) * 1000.0).advert(rival);
        }
        assert_eq!(rig.state(), state);
    }
}

#[test]
fn an_owner_stopped_for_less_than_its_lease_goes_on() {
    let mut rig = Rig::new().active();
    rig.stopped_until(2999.999).timer();
    assert_eq!(rig.adverts(), [2999.999]);
    assert!(rig.transitions.is_empty());
}

#[test]
fn refused_adverts_do_not_renew() {
    let mut rig = Rig::new().active();
    rig.at(1500.0).mute(true).at(3999.0);
    assert_eq!((rig.answers_until(), rig.state()), (Some(4000.0), State::Active));
    rig.at(4000.0);
    assert_eq!(rig.history(), [(4000.0, State::Backup, Cause::LeaseExpired)]);
    assert_eq!(rig.answers_until(), None);
}

#[test]
fn refused_replies_to_rivals_do_not_renew() {
    let mut rig = Rig::new().active();
    rig.mute(true);
    for tenth in 1..40 {
        rig.at(f64::from(tenth) * 100.0).advert(50);
    }
    assert_eq!(rig.history()[0], (3000.0, State::Backup, Cause::LeaseExpired));
    assert!(rig.announcements.iter().all(|at| *at < 3000.0));
}

#[test]
fn an_owner_muted_for_one_advert_goes_on() {
    let mut rig = Rig::new().active();
    rig.at(1500.0).mute(true).at(2500.0).mute(false).at(10_500.0);
    assert!(rig.transitions.is_empty());
    assert_eq!(rig.answers_until(), Some(13_000.0));
}

#[test]
fn an_owner_muted_for_two_is_too_late_with_the_third() {
    let mut rig = Rig::new().active();
    rig.at(1500.0).mute(true).at(3500.0).mute(false).at(4000.0);
    assert_eq!(rig.history(), [(4000.0, State::Backup, Cause::LeaseExpired)]);
    assert!(rig.adverts().iter().all(|at| *at < 4000.0));
}

#[test]
fn a_refused_first_advert_means_no_takeover() {
    let mut rig = Rig::new().muted().started();
    rig.at(3609.375);
    assert_eq!(
        rig.history()[1..],
        [(3609.375, State::Active, Cause::Timeout), (3609.375, State::Backup, Cause::AdvertRefused)]
    );
    assert_eq!((rig.answers_until(), rig.announcements.len()), (None, 0));
}

#[test]
fn a_muted_backup_tries_again_once_per_active_down() {
    let mut rig = Rig::new().muted().started();
    rig.at(36_100.0).mute(false).at(40_000.0);
    let refused = rig.history().iter().filter(|(_, _, cause)| *cause == Cause::AdvertRefused).count();
    assert_eq!(refused, 10);
    assert_eq!(rig.state(), State::Active);
}

#[test]
fn a_muted_address_owner_becomes_backup_not_a_spinning_active() {
    let mut rig = Rig::new().priority(255).muted().started();
    assert_eq!(rig.state(), State::Backup);
    rig.at(10_000.0);
    assert!(rig.transitions.len() < 10);
}

#[test]
fn the_end_of_the_lease_wakes_the_owner_up() {
    let mut rig = Rig::new().interval_cs(1).active();
    rig.mute(true).reconfigure(|p| p.interval = Centiseconds::new(4095).unwrap().into());
    rig.at(31.0);
    assert_eq!(rig.history(), [(30.0, State::Backup, Cause::LeaseExpired)]);
}
