//! What version 2 does differently (RFC 3768, 6), and what it does not.

use super::*;

/// Active_Down of priority 100 at 1 s, and at 10 s.
const TAKEOVER: f64 = 3609.375;
const TAKEOVER_10S: f64 = 30_609.375;

fn seconds(seconds: u8) -> AdvertInterval {
    Seconds::new(seconds).unwrap().into()
}

#[test]
fn a_backup_takes_over_after_three_of_its_own_intervals_and_a_skew_of_less_than_a_second() {
    for (interval, takeover) in [(1, TAKEOVER), (10, TAKEOVER_10S), (255, 765_609.375)] {
        let mut rig = Rig::new().version_2(interval).backup();
        rig.at(1_100_000.0);
        assert_eq!(rig.history()[0], (takeover, State::Active, Cause::Timeout));
        assert_eq!(rig.adverts()[..2], [takeover, takeover + f64::from(interval) * 1000.0]);
    }
}

#[test]
fn nothing_is_learned_from_an_owner_with_another_interval() {
    for announced in [1, 255] {
        let mut rig = Rig::new().version_2(10).started();
        rig.advert_of(200, seconds(announced));
        assert_eq!(rig.timer_at(), Some(TAKEOVER_10S));
    }
}

#[test]
fn nothing_is_learned_from_the_winner_of_two_owners_either() {
    let mut rig = Rig::new().version_2(1).active();
    rig.at(100.0).advert_of(200, seconds(255));
    assert_eq!(rig.history(), [(100.0, State::Backup, Cause::HigherPriority)]);
    assert_eq!(rig.timer_at(), Some(100.0 + TAKEOVER));
}

#[test]
fn priority_zero_shortens_the_wait_to_the_skew_whatever_the_interval() {
    let mut rig = Rig::new().version_2(10).backup();
    rig.at(500.0).advert(0).at(2000.0);
    assert_eq!(rig.history(), [(1109.375, State::Active, Cause::PriorityZero)]);
}

#[test]
fn higher_and_equal_priorities_hold_a_backup_and_lower_ones_do_not() {
    for (priority, timer) in [(101, 1000.0 + TAKEOVER), (100, 1000.0 + TAKEOVER), (99, TAKEOVER)] {
        let mut rig = Rig::new().version_2(1).backup();
        rig.at(1000.0).advert_by(7, priority);
        assert_eq!(rig.timer_at(), Some(timer), "{priority}");
    }
    let mut rig = Rig::new().version_2(1).no_preempt().backup();
    rig.at(1000.0).advert(99);
    assert_eq!(rig.timer_at(), Some(1000.0 + TAKEOVER));
}

#[test]
fn an_owner_that_falls_below_a_backup_is_replaced_after_a_skew_whatever_the_interval() {
    let mut rig = Rig::new().version_2(10).backup();
    rig.at(1000.0).advert(99).at(2000.0);
    assert_eq!(rig.history(), [(1609.375, State::Active, Cause::Preempt)]);
}

#[test]
fn an_owner_yields_to_a_higher_priority_and_to_a_greater_address() {
    for (priority, address) in [(101, Ordering::Less), (100, Ordering::Greater)] {
        let mut rig = Rig::new().version_2(1).active();
        rig.at(100.0).advert_from(priority, address);
        assert_eq!(rig.history(), [(100.0, State::Backup, Cause::HigherPriority)]);
    }
}

/// RFC 9568's answer, which RFC 3768 does not know; keepalived gives it in version 2 as well.
#[test]
fn a_losing_advert_and_priority_zero_are_answered_at_once() {
    for (priority, address) in [(0, Ordering::Less), (99, Ordering::Greater), (100, Ordering::Less)] {
        let mut rig = Rig::new().version_2(10).active();
        rig.at(5000.0).advert_from(priority, address).at(14_999.0);
        assert_eq!(rig.adverts(), [5000.0], "{priority}");
        rig.at(15_000.0);
        assert_eq!(rig.adverts(), [5000.0, 15_000.0], "{priority}");
        assert!(rig.transitions.is_empty());
    }
}

#[test]
fn the_lease_is_three_intervals() {
    let mut rig = Rig::new().version_2(10).active();
    assert_eq!(rig.answers_until(), Some(30_000.0));
    rig.at(10_000.0);
    assert_eq!(rig.answers_until(), Some(40_000.0));
    rig.stopped_until(40_000.0).timer();
    assert_eq!(rig.history(), [(40_000.0, State::Backup, Cause::LeaseExpired)]);
}

#[test]
fn a_muted_owner_is_silent_before_any_backup_takes_over() {
    let mut owner = Rig::new().priority(254).version_2(10).active();
    let mut backup = Rig::new().priority(253).version_2(10).backup();
    owner.mute(true).at(60_000.0);
    backup.at(60_000.0);
    assert_eq!(owner.history()[0], (30_000.0, State::Backup, Cause::LeaseExpired));
    assert_eq!(backup.history()[0], (30011.71875, State::Active, Cause::Timeout));
}

#[test]
fn a_leaving_owner_answers_for_the_longest_skew_and_the_margin_whatever_the_interval() {
    let mut rig = Rig::new().version_2(255).active();
    rig.event(Event::Shutdown);
    assert_eq!(rig.answers_until(), Some(1100.0));
    rig.at(2000.0);
    assert_eq!(rig.wire, [(0.0, Sent::Leaving), (10.0, Sent::Leaving)]);
    assert_eq!(
        rig.history(),
        [(0.0, State::Draining, Cause::Shutdown), (1100.0, State::Initialize, Cause::NoHeir)]
    );
}

#[test]
fn the_heir_of_any_priority_is_heard_in_time() {
    for priority in [1, 100, 254] {
        let mut owner = Rig::new().priority(255).version_2(20).active();
        let mut heir = Rig::new().priority(priority).version_2(20).staging_takes(30.0).backup();
        owner.event(Event::Shutdown);
        heir.advert(0).at(10.0).advert(0).at(2000.0);
        let (taken_over, state, cause) = heir.history()[0];
        assert_eq!((state, cause), (State::Active, Cause::PriorityZero));
        owner.at(taken_over);
        assert!(owner.owns(), "{priority}: nobody answered before {taken_over} ms");
    }
}

#[test]
fn adverts_of_the_other_version_are_not_for_it() {
    let [second, hundred_cs] = [seconds(1), Centiseconds::new(100).unwrap().into()];
    for (own, other) in [(second, hundred_cs), (hundred_cs, second)] {
        let mut backup = Rig::new().with(|p| p.interval = own).backup();
        backup.at(1000.0).advert_of(200, other).at(2000.0).advert_of(0, other);
        assert_eq!(backup.timer_at(), Some(TAKEOVER));

        let mut owner = Rig::new().with(|p| p.interval = own).active();
        owner.at(100.0);
        for priority in [0, 50, 100, 255] {
            owner.advert_of(priority, other);
        }
        assert!(owner.transitions.is_empty() && owner.actions.is_empty());
    }
}

#[test]
fn a_backup_forgets_the_learned_interval_with_the_version() {
    let mut rig = Rig::new().backup();
    rig.advert_announcing(200, 4000).reconfigure(|p| p.interval = seconds(1));
    assert_eq!(rig.timer_at(), Some(TAKEOVER));
    rig.reconfigure(|p| p.interval = Centiseconds::new(10).unwrap().into());
    assert_eq!(rig.timer_at(), Some(360.9375));
}

#[test]
fn a_backup_waits_by_its_new_interval_whomever_it_has_heard() {
    let mut rig = Rig::new().version_2(1).backup();
    rig.at(500.0).reconfigure(|p| p.interval = seconds(10));
    assert_eq!(rig.timer_at(), Some(TAKEOVER_10S));
}
