//! Backup: whom it follows, whom it replaces, and when (RFC 9568, 6.4.2).

use super::*;

const TAKEOVER: f64 = 3609.375;

#[test]
fn a_higher_priority_holds_a_backup() {
    let mut rig = Rig::new().started();
    for second in 0..100 {
        rig.at(f64::from(second) * 1000.0).advert(101);
    }
    assert_eq!(rig.history().len(), 1);
    assert_eq!(rig.timer_at(), Some(99_000.0 + TAKEOVER));
}

#[test]
fn an_equal_priority_holds_a_backup_whatever_its_address() {
    for address in [Ordering::Less, Ordering::Greater] {
        let mut rig = Rig::new().started();
        rig.at(3600.0).advert_from(100, address);
        assert_eq!(rig.timer_at(), Some(3600.0 + TAKEOVER));
    }
}

#[test]
fn a_lower_priority_does_not_hold_a_preempting_backup() {
    let mut rig = Rig::new().started();
    for ms in [1000.0, 2000.0, 3000.0] {
        rig.at(ms).advert(99);
    }
    rig.at(4000.0);
    assert_eq!(rig.history()[1..], [(TAKEOVER, State::Active, Cause::Preempt)]);
    assert_eq!(rig.actions_at(TAKEOVER)[0], Action::ForwardToFormer);
}

#[test]
fn a_lower_priority_is_not_learned_from_by_a_preempting_backup() {
    let mut rig = Rig::new().started();
    rig.at(1000.0).advert_announcing(99, 4000);
    assert_eq!(rig.timer_at(), Some(TAKEOVER));
}

#[test]
fn a_lower_priority_holds_a_backup_that_does_not_preempt() {
    let mut rig = Rig::new().no_preempt().started();
    for second in 0..100 {
        rig.at(f64::from(second) * 1000.0).advert(1);
    }
    assert_eq!(rig.history().len(), 1);
    assert_eq!(rig.timer_at(), Some(99_000.0 + TAKEOVER));
}

#[test]
fn preempt_delay_counts_from_the_first_lower_advert() {
    let mut rig = Rig::new().preempt_delay(10_000.0).started();
    for second in 1..=20 {
        rig.at(f64::from(second) * 1000.0).advert(99);
    }
    // Seen first at 1 s; the one at 10 s is the last that is tolerated.
    assert_eq!(rig.history()[1..], [(10_000.0 + TAKEOVER, State::Active, Cause::Preempt)]);
}

#[test]
fn a_better_owner_starts_the_preempt_delay_anew() {
    let mut rig = Rig::new().preempt_delay(10_000.0).started();
    rig.at(1000.0).advert(99).at(2000.0).advert(200).at(3000.0).advert(99);
    rig.at(5000.0).advert(99).at(8000.0).advert(99).at(11_500.0).advert(99);
    // 10.5 s after the very first, 8.5 s after the one that counts.
    assert_eq!(rig.timer_at(), Some(11_500.0 + TAKEOVER));
}

#[test]
fn an_owner_that_falls_silent_is_not_waited_for_by_preempt_delay() {
    let mut rig = Rig::new().preempt_delay(3_600_000.0).started();
    rig.at(1000.0).advert(99).at(20_000.0);
    assert_eq!(rig.history()[1..], [(1000.0 + TAKEOVER, State::Active, Cause::Timeout)]);
}

#[test]
fn the_address_owner_preempts_whatever_the_configuration_says() {
    let mut rig = Rig::new().priority(255).no_preempt().preempt_delay(60_000.0).active();
    rig.stopped_until(4000.0).advert(254);
    assert_eq!(rig.state(), State::Backup);
    for second in 5..10 {
        rig.at(f64::from(second) * 1000.0).advert(254);
    }
    assert_eq!(rig.history()[1..], [(7003.90625, State::Active, Cause::Preempt)]);
}

#[test]
fn priority_zero_shortens_the_wait_to_a_skew() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).advert(0).at(2000.0);
    assert_eq!(rig.history(), [(1109.375, State::Active, Cause::PriorityZero)]);
    assert_eq!(rig.actions_at(1109.375), [Action::ForwardToFormer, Action::Advertise, Action::Announce]);
}

#[test]
fn priority_zero_repeated_sets_the_skew_anew_each_time() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).advert(0).at(501.0).advert(0).at(600.0).advert(0);
    assert_eq!(rig.timer_at(), Some(600.0 + 609.375));
}

#[test]
fn priority_zero_uses_the_learned_interval_for_the_skew_and_teaches_none() {
    let mut rig = Rig::new().backup();
    rig.advert_announcing(200, 10);
    rig.at(100.0).advert_announcing(0, 4000);
    assert_eq!(rig.timer_at(), Some(100.0 + 60.9375));
}

#[test]
fn an_advert_after_priority_zero_holds_the_backup_again() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).advert(0).at(600.0).advert(150);
    assert_eq!(rig.timer_at(), Some(600.0 + TAKEOVER));
}

#[test]
fn a_lower_heir_after_priority_zero_does_not_hold_a_preempting_backup() {
    let mut rig = Rig::new().backup();
    rig.at(500.0).advert(0).at(600.0).advert(99);
    assert_eq!(rig.timer_at(), Some(1109.375));
}

#[test]
fn the_interval_is_learned_from_the_owner() {
    for (centiseconds, takeover) in [(10, 360.9375), (30, 1082.8125), (100, 3609.375)] {
        let mut rig = Rig::new().interval_cs(50).started();
        rig.advert_announcing(200, centiseconds).at(10_000.0);
        assert_eq!(rig.history()[1..], [(takeover, State::Active, Cause::Timeout)]);
        // Learned for the wait only: what is announced is our own.
        assert_eq!(rig.adverts()[..2], [takeover, takeover + 500.0]);
    }
}

#[test]
fn a_late_timer_takes_over_only_if_the_queue_held_no_advert() {
    let mut silent = Rig::new().backup();
    silent.stopped_until(60_000.0).timer();
    assert_eq!(silent.history(), [(60_000.0, State::Active, Cause::Timeout)]);

    let mut queued = Rig::new().backup();
    queued.stopped_until(60_000.0).advert(200).timer();
    assert_eq!(queued.state(), State::Backup);
    assert_eq!(queued.timer_at(), Some(60_000.0 + TAKEOVER));
}

#[test]
fn a_late_backup_reads_past_a_lower_advert_to_a_better_one() {
    let mut rig = Rig::new().backup();
    rig.stopped_until(60_000.0).advert(50).advert(200).timer();
    assert!(rig.transitions.is_empty());
    assert_eq!(rig.timer_at(), Some(60_000.0 + TAKEOVER));
}

#[test]
fn a_late_backup_reads_past_priority_zero_to_the_heir() {
    let mut rig = Rig::new().backup();
    rig.stopped_until(60_000.0).advert(0).advert(150).timer();
    assert!(rig.transitions.is_empty());
    assert_eq!(rig.timer_at(), Some(60_000.0 + TAKEOVER));
}

#[test]
fn a_flood_of_higher_adverts_makes_a_backup_do_nothing() {
    let mut rig = Rig::new().backup();
    for microsecond in 0..100_000 {
        rig.at(f64::from(microsecond) / 1000.0).advert(201);
    }
    assert!(rig.actions.is_empty() && rig.transitions.is_empty());
}

#[test]
fn a_flood_of_lower_adverts_brings_one_takeover() {
    let mut rig = Rig::new().interval_cs(1).started();
    for microsecond in 0..100_000 {
        rig.at(f64::from(microsecond) / 1000.0).advert(50);
    }
    assert_eq!(rig.history()[1..], [(36.09375, State::Active, Cause::Preempt)]);
}
