//! Active: regular advertisements, and rivals (RFC 9568, 6.4.3).

use super::*;

#[test]
fn an_owner_advertises_without_drift() {
    let mut rig = Rig::new().interval_cs(1).active();
    // Woken 3 ms late: the next comes when it would have come.
    rig.stopped_until(13.0).timer().at(45.0);
    assert_eq!(rig.adverts(), [13.0, 20.0, 30.0, 40.0]);
}

#[test]
fn an_owner_late_by_more_than_an_interval_does_not_catch_up_with_a_burst() {
    let mut rig = Rig::new().interval_cs(1).active();
    rig.stopped_until(25.0).timer().at(50.0);
    assert_eq!(rig.adverts(), [25.0, 35.0, 45.0]);
}

#[test]
fn priority_zero_is_answered_at_once_and_resets_the_timer() {
    let mut rig = Rig::new().active();
    rig.at(300.0).advert(0).at(2000.0);
    assert_eq!(rig.adverts(), [300.0, 1300.0]);
    assert!(rig.announcements.is_empty(), "a router that leaves has not claimed anything");
}

#[test]
fn a_lower_rival_is_answered_at_once_by_advert_and_announcement() {
    let mut rig = Rig::new().active();
    rig.at(300.0).advert(99).at(2000.0);
    assert_eq!(rig.adverts(), [300.0, 1300.0]);
    assert_eq!(rig.actions_at(300.0), [Action::Advertise, Action::Announce]);
    assert_eq!(rig.state(), State::Active);
}

#[test]
fn an_equal_rival_with_a_lower_address_is_answered() {
    let mut rig = Rig::new().active();
    rig.at(300.0).advert_from(100, Ordering::Less);
    assert_eq!(rig.adverts(), [300.0]);
    assert!(rig.transitions.is_empty());
}

#[test]
fn an_equal_rival_with_a_higher_address_wins() {
    let mut rig = Rig::new().active();
    rig.at(300.0).advert_from(100, Ordering::Greater);
    assert_eq!(rig.history(), [(300.0, State::Backup, Cause::HigherPriority)]);
    assert!(!rig.owns());
}

#[test]
fn a_higher_rival_wins_and_its_interval_is_learned() {
    let mut rig = Rig::new().active();
    rig.at(300.0).advert_announcing(101, 10);
    assert_eq!(rig.history(), [(300.0, State::Backup, Cause::HigherPriority)]);
    assert_eq!(rig.timer_at(), Some(300.0 + 360.9375));
}

#[test]
fn an_owner_that_yields_is_silent_first_and_heard_once_more() {
    let mut rig = Rig::new().active();
    rig.at(300.0).advert(101);
    assert_eq!(
        rig.actions_at(300.0),
        [Action::Release, Action::AdvertiseYielding, Action::ForwardNothing, Action::UnstageAfterGrace]
    );
    rig.at(3000.0);
    assert_eq!(rig.wire, [(300.0, Sent::Yielding)]);
}

#[test]
fn a_rival_one_skew_after_our_lost_advert_is_answered_at_once() {
    // A Backup of priority 254 that missed three: 7.8 ms after the last of them.
    let mut rig = Rig::new().priority(255).active();
    rig.at(1007.8125).advert(254);
    assert_eq!(rig.adverts(), [1000.0, 1007.8125]);
}

#[test]
fn two_address_owners_settle_by_address_without_a_storm() {
    let mut lower = Rig::new().priority(255).active();
    let mut higher = Rig::new().priority(255).active();
    for second in 1..60 {
        let now = f64::from(second) * 1000.0;
        lower.at(now).advert_from(255, Ordering::Greater);
        higher.at(now);
    }
    assert_eq!(lower.history(), [(1000.0, State::Backup, Cause::HigherPriority)]);
    assert_eq!(higher.adverts().len(), 59);
    assert_eq!(lower.wire.len(), 2, "the regular one at 1 s, and the last");
}

#[test]
fn a_flood_of_lower_adverts_gets_bounded_replies_and_no_transition() {
    for (interval, gap) in [(1, 2.5), (100, 10.0)] {
        let mut rig = Rig::new().interval_cs(interval).active();
        for tenth in 0..10_000 {
            rig.at(f64::from(tenth) / 10.0).advert(99);
        }
        let adverts = rig.adverts();
        assert!(adverts.windows(2).all(|pair| pair[1] - pair[0] >= gap), "{adverts:?}");
        assert_eq!(adverts.len(), (1000.0 / gap) as usize);
        assert_eq!(rig.announcements.len(), 9, "every 100 ms: {:?}", rig.announcements);
        assert!(rig.transitions.is_empty() && rig.owns());
    }
}

#[test]
fn a_flood_of_higher_adverts_brings_one_transition() {
    let mut rig = Rig::new().active();
    for tenth in 0..10_000 {
        rig.at(f64::from(tenth) / 10.0).advert(200);
    }
    assert_eq!(rig.history(), [(0.0, State::Backup, Cause::HigherPriority)]);
    assert_eq!(rig.wire.len(), 1);
}

#[test]
fn a_reply_that_comes_too_early_is_put_off_not_dropped() {
    let mut rig = Rig::new().active();
    rig.at(300.0).advert(99).at(304.0).advert(99).at(1400.0);
    assert_eq!(rig.adverts(), [300.0, 310.0, 1310.0]);
}

#[test]
fn after_yielding_it_waits_out_the_new_owner() {
    let mut rig = Rig::new().active();
    rig.at(300.0).advert(200).at(1300.0).advert(200).at(10_000.0);
    assert_eq!(rig.history()[1..], [(1300.0 + 3609.375, State::Active, Cause::Timeout)]);
}
