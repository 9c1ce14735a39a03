//! An owner whose weighted priority falls below a Backup's: it hands over soon, and nothing is lost or flaps.

use super::*;

/// Skew of priority 100 at 1 s.
const SKEW: f64 = 609.375;
const TAKEOVER: f64 = 3609.375;

#[test]
fn an_owner_that_falls_below_a_backup_is_replaced_after_a_skew() {
    let mut rig = Rig::new().backup();
    rig.at(1000.0).advert(200).at(1300.0).advert(60).at(1800.0).advert(60).at(3000.0);
    // From the first of the lower ones: the second is no news.
    assert_eq!(rig.history(), [(1300.0 + SKEW, State::Active, Cause::Preempt)]);
    assert_eq!(rig.actions_at(1300.0 + SKEW)[0], Action::ForwardToFormer);
}

#[test]
fn an_owner_that_recovers_within_the_skew_keeps_the_vips() {
    let mut rig = Rig::new().staging_takes(5.0).backup();
    rig.at(300.0).advert(60).at(600.0).advert(200).at(3000.0);
    assert!(rig.history().is_empty());
    assert_eq!((rig.times_of(Action::Stage), rig.times_of(Action::Unstage)), (vec![300.0], vec![600.0]));
    rig.at(5000.0);
    assert_eq!(rig.history(), [(600.0 + TAKEOVER, State::Active, Cause::Timeout)]);
}

#[test]
fn an_owner_that_falls_and_stays_better_keeps_the_vips() {
    let mut rig = Rig::new().backup();
    for second in 1..20 {
        rig.at(f64::from(second) * 1000.0).advert(100);
    }
    assert!(rig.history().is_empty());
}

/// Questions of before a takeover are the same on the wire, and may be overtaken by the first advertisement after it.
#[test]
fn an_owner_that_says_the_lowest_priority_is_replaced_after_active_down_alone() {
    let mut rig = Rig::new().backup();
    rig.at(1000.0).advert(200).at(1001.0).advert(1).at(2000.0).advert(1);
    assert_eq!(rig.timer_at(), Some(1000.0 + TAKEOVER));
    rig.advert(200);
    assert_eq!(rig.timer_at(), Some(2000.0 + TAKEOVER));
}

#[test]
fn another_routers_lower_advert_says_nothing_about_the_owner() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).advert_by(7, 60).at(1000.0).advert(200).at(1500.0).advert_by(7, 60);
    assert_eq!(rig.timer_at(), Some(1000.0 + TAKEOVER));
}

#[test]
fn an_owner_that_was_always_lower_is_replaced_after_active_down_alone() {
    let mut rig = Rig::new().started();
    rig.at(1000.0).advert(60).at(2000.0).advert(50);
    assert_eq!(rig.timer_at(), Some(TAKEOVER));
}

#[test]
fn a_backup_that_does_not_preempt_follows_the_fallen_owner() {
    let mut rig = Rig::new().no_preempt().backup();
    for second in 1..20 {
        rig.at(f64::from(second) * 1000.0).advert(1);
    }
    assert!(rig.history().is_empty());
}

#[test]
fn preempt_delay_is_kept_before_a_fallen_owner_is_replaced() {
    let mut rig = Rig::new().preempt_delay(10_000.0).backup();
    for second in 1..=20 {
        rig.at(f64::from(second) * 1000.0).advert(60);
    }
    // Seen fallen first at 1 s; the one at 10 s is the last that is tolerated.
    assert_eq!(rig.history(), [(10_000.0 + TAKEOVER, State::Active, Cause::Preempt)]);
}

#[test]
fn a_fallen_owner_tells_so_at_once_and_goes_on_answering_until_the_heir_is_heard() {
    let mut rig = Rig::new().priority(200).active();
    rig.at(300.0).reconfigure(|p| p.priority = Priority::new(60).unwrap());
    assert_eq!(rig.wire, [(300.0, Sent::Advert)]);
    rig.at(900.0);
    assert!(rig.owns());
    rig.advert(100);
    assert_eq!((rig.state(), rig.owns()), (State::Backup, false));
}

#[test]
fn a_fallen_owner_without_a_better_peer_stays_active() {
    let mut rig = Rig::new().priority(200).active();
    rig.at(300.0).reconfigure(|p| p.priority = Priority::new(60).unwrap());
    for second in 1..20 {
        rig.at(f64::from(second) * 1000.0).advert(50);
    }
    assert!(rig.owns() && rig.transitions.is_empty());
}

#[test]
fn a_fallen_owner_that_says_priority_zero_after_all_is_replaced_by_that() {
    let mut rig = Rig::new().backup();
    rig.at(300.0).advert(60).at(500.0).advert(0).at(3000.0);
    assert_eq!(rig.history(), [(500.0 + SKEW, State::Active, Cause::PriorityZero)]);
}
