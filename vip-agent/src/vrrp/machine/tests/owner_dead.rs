//! What fast detection says of the owner's host: it shortens the wait and decides nothing by itself.

use std::time::Duration;

use super::rig::duration;
use super::*;
use crate::types::MonotonicTime;

/// Of priority 100, of a detection time of 4 ms.
const SHORT_SKEW: f64 = 2.4375;
const TAKEOVER: f64 = 3609.375;

impl Rig {
    /// No sign of life since four milliseconds before `ms`.
    fn owner_dead_since(&mut self, ms: f64) -> &mut Self {
        self.owner_dead_and_others_first(ms, 0)
    }

    /// The same, and others that live come before us.
    fn owner_dead_and_others_first(&mut self, ms: f64, patience: u64) -> &mut Self {
        self.event(Event::Owner(OwnerLife::Dead {
            since: self.time(ms),
            longest_skew: Duration::from_millis(4),
            others_first: Duration::from_millis(patience),
        }))
    }

    fn owner(&mut self, life: OwnerLife) -> &mut Self {
        self.event(Event::Owner(life))
    }
}

#[test]
fn a_dead_owner_is_replaced_a_scaled_skew_after_it_was_found_dead() {
    let mut rig = Rig::new().backup();
    rig.at(300.0).owner_dead_since(300.0).at(1000.0);
    assert_eq!(rig.history(), [(300.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
    // Nothing is forwarded to a host that is dead.
    assert_eq!(rig.actions_at(300.0 + SHORT_SKEW)[..2], [Action::ForwardNothing, Action::Advertise]);
}

#[test]
fn the_skew_counts_from_the_death_and_not_from_when_a_late_driver_tells_of_it() {
    let mut rig = Rig::new().backup();
    rig.at(302.0).owner_dead_since(300.0).at(1000.0);
    assert_eq!(rig.history(), [(300.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
    let mut late = Rig::new().backup();
    late.at(310.0).owner_dead_since(300.0).at(1000.0);
    assert_eq!(late.history(), [(310.0, State::Active, Cause::OwnerDead)]);
}

#[test]
fn backups_replace_a_dead_owner_in_the_order_of_their_priorities() {
    let waits = [254, 200, 101, 100, 99, 1].map(|priority| {
        let mut rig = Rig::new().priority(priority).backup_of(255);
        rig.at(300.0).owner_dead_since(300.0);
        rig.timer_at().expect("it waits") - 300.0
    });
    assert!(waits.is_sorted_by(|sooner, later| sooner < later), "{waits:?}");
    assert!(waits[5] < 4.0, "{waits:?}");
}

#[test]
fn those_who_come_first_are_given_their_time_beyond_the_skew() {
    let mut rig = Rig::new().backup();
    rig.at(300.0).owner_dead_and_others_first(300.0, 8).at(1000.0);
    assert_eq!(rig.history(), [(308.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
    // Their hosts died as well: what is known last counts.
    let mut alone = Rig::new().backup();
    alone.at(300.0).owner_dead_and_others_first(300.0, 8).at(301.0).owner_dead_since(300.0).at(1000.0);
    assert_eq!(alone.history(), [(300.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
    // No longer than adverts allow.
    let mut slow = Rig::new().backup();
    slow.at(300.0).owner_dead_and_others_first(300.0, 10_000).at(5000.0);
    assert_eq!(slow.history(), [(TAKEOVER, State::Active, Cause::OwnerDead)]);
}

#[test]
fn a_sign_of_life_before_the_takeover_calls_it_off() {
    let mut rig = Rig::new().backup();
    rig.at(300.0).owner_dead_since(300.0).at(302.0).owner(OwnerLife::Alive).at(3000.0);
    assert!(rig.history().is_empty());
    assert_eq!(rig.timer_at(), Some(TAKEOVER));
}

#[test]
fn an_advert_of_an_owner_found_dead_calls_the_takeover_off() {
    let mut rig = Rig::new().backup();
    rig.at(300.0).owner_dead_since(300.0).at(302.0).advert(200);
    assert_eq!(rig.timer_at(), Some(302.0 + TAKEOVER));
}

#[test]
fn a_better_backup_that_was_first_keeps_the_vips() {
    let mut rig = Rig::new().backup();
    rig.at(300.0).owner_dead_since(300.0).at(301.0).advert_by(3, 150).at(3000.0);
    assert!(rig.history().is_empty());
}

#[test]
fn a_worse_backup_that_was_first_is_replaced() {
    let mut rig = Rig::new().backup();
    rig.at(300.0).owner_dead_since(300.0).at(301.0).advert_by(3, 50).at(3000.0);
    assert_eq!(rig.history(), [(300.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
}

#[test]
fn late_signs_of_life_stage_and_those_that_come_after_all_unstage() {
    let mut rig = Rig::new().staging_takes(0.5).backup();
    rig.at(300.0).owner(OwnerLife::Suspected).at(301.0).owner(OwnerLife::Alive).at(1000.0);
    assert!(rig.history().is_empty());
    assert_eq!((rig.times_of(Action::Stage), rig.times_of(Action::Unstage)), (vec![300.0], vec![301.0]));
    rig.owner(OwnerLife::Suspected).owner_dead_since(1000.0).at(1010.0);
    assert_eq!(rig.history(), [(1000.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
    assert_eq!(rig.times_of(Action::Stage), [300.0, 1000.0, 1000.0 + SHORT_SKEW]);
}

#[test]
fn suspicion_alone_leads_to_nothing() {
    let mut rig = Rig::new().backup();
    rig.at(300.0).owner(OwnerLife::Suspected).at(3600.0);
    assert!(rig.history().is_empty());
    rig.at(4000.0);
    assert_eq!(rig.history(), [(TAKEOVER, State::Active, Cause::Timeout)]);
}

#[test]
fn a_takeover_after_a_death_does_not_wait_for_addresses() {
    let mut rig = Rig::new().staging_hangs().backup();
    // It even said that it leaves: what it held on to for its heir went with it.
    rig.at(300.0).advert(0).at(310.0).owner_dead_since(310.0).at(1000.0);
    assert_eq!(rig.history(), [(310.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
}

#[test]
fn a_death_never_lengthens_the_wait() {
    let mut rig = Rig::new().backup();
    rig.at(3609.0).owner_dead_since(3609.0).at(4000.0);
    assert_eq!(rig.history(), [(TAKEOVER, State::Active, Cause::OwnerDead)]);
}

#[test]
fn a_backup_that_does_not_preempt_replaces_a_dead_owner_of_any_priority() {
    let mut rig = Rig::new().no_preempt().backup();
    rig.at(500.0).advert(1).at(600.0).owner_dead_since(600.0).at(1000.0);
    assert_eq!(rig.history(), [(600.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
}

#[test]
fn the_death_of_an_owner_never_heard_means_nothing() {
    let mut rig = Rig::new().started();
    rig.at(100.0).owner_dead_since(100.0).at(3600.0);
    assert!(rig.history().iter().all(|(_, state, _)| *state != State::Active));
}

#[test]
fn an_owner_a_drained_and_a_faulty_router_do_not_care() {
    for event in [None, Some(Event::Drain), Some(Event::Fault)] {
        let mut rig = Rig::new().active();
        if let Some(event) = event {
            rig.event(event);
        }
        let (state, before) = (rig.state(), rig.history().len());
        rig.owner_dead_since(0.0).owner(OwnerLife::Suspected).owner(OwnerLife::Alive);
        assert_eq!((rig.state(), rig.history().len()), (state, before));
    }
}

#[test]
fn version_2_is_served_alike() {
    let mut rig = Rig::new().version_2(1).backup();
    rig.at(300.0).owner_dead_since(300.0).at(1000.0);
    assert_eq!(rig.history(), [(300.0 + SHORT_SKEW, State::Active, Cause::OwnerDead)]);
}

impl Rig {
    fn time(&self, ms: f64) -> MonotonicTime {
        self.origin() + duration(ms)
    }
}
