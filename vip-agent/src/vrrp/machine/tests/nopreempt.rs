//! The promise of `preempt: false`: an owner that lives keeps the VIPs, also from one that has just started.

use super::super::SETTLING;
use super::*;

const TAKEOVER: f64 = 3609.375;
/// For the answer to a question.
const ANSWER: f64 = 50.0;

/// Started alone and active without having heard anybody, priority 200.
fn alone() -> Rig {
    Rig::new().priority(200).no_preempt().active()
}

#[test]
fn who_has_heard_nobody_asks_before_it_takes_over() {
    let mut rig = Rig::new().no_preempt().started();
    rig.at(5000.0);
    assert_eq!(rig.wire[..2], [(TAKEOVER, Sent::Question), (TAKEOVER + ANSWER, Sent::Advert)]);
    assert_eq!(rig.history()[1..], [(TAKEOVER + ANSWER, State::Active, Cause::Timeout)]);
}

/// Who hears a question waits for three intervals from it.
#[test]
fn the_answer_is_waited_for_no_longer_than_two_intervals() {
    let mut rig = Rig::new().interval_cs(1).no_preempt().started();
    rig.at(1000.0);
    assert_eq!(rig.history()[1], (36.09375 + 20.0, State::Active, Cause::Timeout));
}

#[test]
fn an_answer_to_the_question_keeps_a_restarted_router_backup() {
    // Our own interval is 10 ms, the owner's is 1 s.
    let mut rig = Rig::new().priority(200).interval_cs(1).no_preempt().started();
    rig.at(40.0).advert_announcing(100, 100).at(3000.0);
    assert_eq!(rig.wire, [(32.1875, Sent::Question)]);
    assert_eq!((rig.state(), rig.timer_at()), (State::Backup, Some(40.0 + 3000.0 + 218.75)));
}

#[test]
fn who_preempts_or_owns_the_address_or_has_heard_somebody_does_not_ask() {
    let mut heard = Rig::new().no_preempt().started();
    heard.advert(50);
    for mut rig in [Rig::new().started(), Rig::new().priority(255).no_preempt().started(), heard] {
        rig.at(10_000.0);
        assert_eq!(rig.state(), State::Active);
        assert!(rig.wire.iter().all(|(_, sent)| *sent == Sent::Advert), "{:?}", rig.wire);
    }
}

#[test]
fn of_two_that_ask_at_once_the_greater_address_takes_over_and_the_other_waits() {
    let mut greater = Rig::new().no_preempt().started();
    greater.at(TAKEOVER).advert_from(1, Ordering::Less).at(60_000.0);
    assert_eq!(greater.history()[1..], [(TAKEOVER + ANSWER, State::Active, Cause::Timeout)]);
    let mut smaller = Rig::new().no_preempt().started();
    smaller.at(TAKEOVER).advert_from(1, Ordering::Greater).at(60_000.0);
    assert_eq!(smaller.history()[1..], [(TAKEOVER * 2.0, State::Active, Cause::Timeout)]);
}

#[test]
fn an_owner_of_the_lowest_priority_that_answers_a_question_keeps_the_vips() {
    let mut rig = Rig::new().no_preempt().started();
    rig.at(TAKEOVER + 1.0).advert_from(1, Ordering::Greater);
    assert_eq!((rig.state(), rig.timer_at()), (State::Backup, Some(TAKEOVER * 2.0 + 1.0)));
}

/// Who has given the VIPs back asks, and the other may have yielded meanwhile.
#[test]
fn a_question_does_not_keep_the_heir_of_a_leaving_owner() {
    let mut rig = Rig::new().no_preempt().backup();
    rig.at(1000.0).advert(0).at(1100.0).advert(1).at(5000.0);
    assert_eq!(rig.history(), [(1609.375, State::Active, Cause::PriorityZero)]);
    let mut kept = Rig::new().no_preempt().backup();
    kept.at(1000.0).advert(0).at(1100.0).advert(2);
    assert_eq!(kept.timer_at(), Some(1100.0 + TAKEOVER), "an owner that stays is another matter");
    let mut staging = Rig::new().no_preempt().staging_hangs().backup();
    staging.at(1000.0).advert(0).at(1650.0).advert(1);
    assert_eq!(staging.timer_at(), Some(1650.0 + 2500.0), "and so is an heir: staging begins anew");
}

#[test]
fn the_wait_after_a_start_is_by_the_remembered_interval_if_that_is_longer() {
    for (own, remembered, takeover) in [(1, 100, 3609.375), (100, 1, 3609.375), (1, 4095, 147_803.906_25)] {
        let mut rig = Rig::new().interval_cs(own).no_preempt().remembering(remembered).started();
        rig.at(200_000.0);
        assert_eq!(
            rig.history()[1],
            (takeover + ANSWER, State::Active, Cause::Timeout),
            "{own} {remembered}"
        );
    }
}

#[test]
fn who_preempts_does_not_wait_by_what_it_remembers() {
    let rig = Rig::new().interval_cs(1).remembering(100).started();
    assert_eq!(rig.timer_at(), Some(36.09375));
}

#[test]
fn an_owner_heard_teaches_the_interval_for_a_return_from_a_fault() {
    let mut rig = Rig::new().interval_cs(1).no_preempt().started();
    rig.advert_announcing(50, 100);
    rig.event(Event::Fault).at(1000.0).event(Event::Recovered);
    assert_eq!(rig.timer_at(), Some(1000.0 + TAKEOVER));
}

#[test]
fn a_router_that_was_stopped_waits_by_the_interval_that_it_remembers_and_asks() {
    let mut rig = Rig::new().priority(200).interval_cs(1).no_preempt().remembering(100).active();
    rig.at(20.0).stopped_until(8000.0).timer();
    assert_eq!(rig.history(), [(8000.0, State::Backup, Cause::LeaseExpired)]);
    rig.at(11_230.0);
    assert_eq!(rig.wire.last(), Some(&(11_218.75, Sent::Question)));
}

#[test]
fn other_parameters_do_not_shorten_the_remembered_wait() {
    let mut rig = Rig::new().interval_cs(10).no_preempt().remembering(100).started();
    rig.reconfigure(|p| p.interval = Centiseconds::new(1).unwrap().into());
    assert_eq!(rig.timer_at(), Some(TAKEOVER));
    rig.reconfigure(|p| p.preempt = true);
    assert_eq!(rig.timer_at(), Some(36.09375));
}

#[test]
fn the_vips_go_back_to_an_owner_that_was_there_before() {
    let mut rig = alone();
    rig.at(20_400.0).advert(100);
    assert_eq!(rig.history(), [(20_400.0, State::Draining, Cause::HandBack)]);
    assert!(rig.owns(), "it goes on answering until it is sure of the other");
    // The other is Active and answers priority 0, each time that it is said.
    rig.at(20_400.5).advert(100).at(20_410.5).advert(100);
    assert_eq!(rig.history()[1..], [(20_410.5, State::Backup, Cause::HandedOver)]);
    assert!(!rig.owns());
    // It is asked to announce: it may never have noticed.
    assert_eq!(rig.actions_at(20_410.5)[..2], [Action::Release, Action::Ask]);
    assert_eq!(rig.timer_at(), Some(20_410.5 + 3218.75));
}

#[test]
fn an_heir_of_the_lowest_priority_is_not_asked() {
    let mut rig = alone();
    rig.at(500.0).advert_by(2, 100).at(1500.0).advert_by(3, 1);
    assert_eq!((rig.state(), rig.owns(), rig.times_of(Action::Ask)), (State::Backup, false, vec![]));
}

/// It has, perhaps, sent its own and yielded to ours, in both families.
#[test]
fn what_a_former_owner_sent_before_it_heard_priority_0_is_no_heir() {
    let mut rig = alone();
    rig.at(500.0).advert_by(2, 100);
    for sender in [22, 2, 22] {
        rig.at(500.2).advert_by(sender, 100);
        assert_eq!((rig.state(), rig.owns()), (State::Draining, true));
    }
    // Now it takes over by our priority 0.
    rig.at(1109.0).advert_by(22, 100);
    assert_eq!((rig.state(), rig.owns()), (State::Backup, false));
}

/// Its skew was over, and it had spoken, before it was heeded.
#[test]
fn a_quick_heir_is_told_priority_0_once_more_when_its_answer_counts() {
    let mut rig = Rig::new().priority(200).interval_cs(1).no_preempt().active();
    rig.at(500.0).advert(199).at(500.4).advert(199).at(502.0);
    assert_eq!(rig.wire.iter().filter(|(_, sent)| *sent == Sent::Leaving).count(), 2);
    assert_eq!(rig.wire.last(), Some(&(501.0, Sent::Leaving)));
    rig.advert(199);
    assert_eq!(rig.state(), State::Backup);
}

#[test]
fn without_a_former_owner_after_all_the_vips_stay() {
    let mut rig = alone();
    rig.at(500.0).advert(100).at(5000.0);
    assert_eq!(rig.history()[1..], [(1600.0, State::Active, Cause::NoHeir)]);
    // And it is not tried again.
    rig.advert(100);
    assert_eq!(rig.state(), State::Active);
}

#[test]
fn only_the_first_other_router_gets_the_vips_back_soon_after_the_takeover_and_if_it_would_have_waited() {
    let mut heard = alone();
    heard.at(500.0).advert(0).at(1500.0).advert(100);
    let mut late = alone();
    late.at(SETTLING.as_secs_f64() * 1000.0).advert(100);
    let mut preempting = Rig::new().priority(200).active();
    preempting.at(500.0).advert(100);
    let mut newcomer = alone();
    newcomer.at(500.0).advert_announcing(100, 33);
    let mut owner = Rig::new().priority(255).no_preempt().active();
    owner.at(500.0).advert(100);
    for rig in [heard, late, preempting, newcomer, owner] {
        assert_eq!(rig.state(), State::Active);
        assert!(rig.owns());
    }
}

#[test]
fn a_question_is_answered_and_nothing_is_given_to_who_asks() {
    let mut rig = alone();
    rig.at(500.0).advert(1);
    assert_eq!((rig.state(), rig.adverts()), (State::Active, vec![500.0]));
    rig.advert(100);
    assert_eq!(rig.state(), State::Draining, "an owner is another matter");
}

#[test]
fn a_takeover_from_a_known_owner_is_not_given_back() {
    let mut rig = Rig::new().priority(200).no_preempt().started();
    rig.advert(100).at(10_000.0);
    assert_eq!(rig.state(), State::Active);
    rig.advert(100);
    assert_eq!(rig.state(), State::Active);
}

#[test]
fn a_better_owner_that_was_there_before_is_yielded_to_as_ever() {
    let mut rig = alone();
    rig.at(500.0).advert(250);
    assert_eq!(rig.history(), [(500.0, State::Backup, Cause::HigherPriority)]);
}

#[test]
fn a_drain_during_the_giving_back_ends_drained_and_a_shutdown_ends() {
    for (event, state) in [(Event::Drain, State::Draining), (Event::Shutdown, State::Initialize)] {
        let mut rig = alone();
        rig.at(500.0).advert(100).event(event).at(600.0).advert(100).at(20_000.0);
        assert_eq!((rig.state(), rig.owns()), (state, false));
    }
}

#[test]
fn an_undrain_does_not_end_the_giving_back() {
    let mut rig = alone();
    rig.at(500.0).advert(100).event(Event::Undrain).at(600.0).advert(100);
    assert_eq!(rig.state(), State::Backup);
}
