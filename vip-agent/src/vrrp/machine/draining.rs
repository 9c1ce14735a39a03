//! Draining: make before break, and the time that an operator keeps the instance out.

use std::time::Duration;

use super::{
    Action, Active, Backup, Cause, DRAIN_MARGIN, Machine, Output, PeerAdvert, Phase, State, Transition,
};
use crate::types::{AdvertInterval, MonotonicTime};

/// How soon priority 0 is said once more at the latest. Each one starts a Backup's skew anew: the slowest heir's skew and its
/// patience for addresses must end before we do.
const SAY_AGAIN: Duration = Duration::from_millis(10);

/// What a former owner had on its way when it heard priority 0 arrives within this time, and it may have yielded since.
/// One that has not says so again: priority 0, said once more, is answered as well.
const CROSSING: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draining {
    /// Until when we go on answering unless the heir is heard; `None` = we do not answer any more.
    pub(super) answers_until: Option<MonotonicTime>,
    /// Where the lease ended before the drain.
    lease_until: MonotonicTime,
    begun: MonotonicTime,
    /// When priority 0 is said once more, in case the first was lost.
    say_again: MonotonicTime,
    /// What comes after it.
    pub(super) then: Then,
    /// Another member of the sync group has heard the heir.
    group_handed_over: bool,
}

/// What a draining owner becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The agent ends: without an heir the VIPs are given up.
    End,
    /// Kept out by an operator.
    Drained,
    /// Backup: the VIPs go back to an owner that was there before.
    Backup,
    /// Fault, if there is an heir; without one it keeps them as a last resort.
    Keep,
}

impl Draining {
    /// Out of the election, not answering.
    pub(super) fn drained() -> Self {
        Self {
            answers_until: None,
            lease_until: MonotonicTime::ZERO,
            begun: MonotonicTime::ZERO,
            say_again: MonotonicTime::NEVER,
            then: Then::Drained,
            group_handed_over: false,
        }
    }

    pub(super) fn next_timer(&self) -> MonotonicTime {
        self.answers_until.unwrap_or(MonotonicTime::NEVER).min(self.say_again)
    }

    fn is_heir(&self, advert: PeerAdvert, own: AdvertInterval, now: MonotonicTime) -> bool {
        let owned_before = self.then == Then::Backup && now.since(self.begun) < CROSSING;
        // An heir of the lowest priority waits for nearly all of the longest skew, by our interval or by its own.
        let longest_skew = own.longest_skew().min(advert.interval.longest_skew());
        let asks = advert.is_question() && now.since(self.begun) < longest_skew / 2;
        advert.priority > 0 && !owned_before && !asks
    }
}

impl Machine {
    /// Active says priority 0 and goes on answering until the heir is heard.
    pub(super) fn leave(&mut self, then: Then, now: MonotonicTime, output: &mut Output) {
        let Phase::Active(Active { lease_until, .. }) = self.phase else { return };
        let longest_skew = self.parameters.interval.longest_skew();
        let until = now + longest_skew + DRAIN_MARGIN;
        output.actions.extend([Action::AdvertiseLeaving, Action::HoldLease(until)]);
        let soon = SAY_AGAIN.min(longest_skew / 16);
        let draining = Draining {
            answers_until: Some(until),
            lease_until,
            begun: now,
            say_again: now + if then == Then::Backup { soon.max(CROSSING) } else { soon },
            then,
            group_handed_over: false,
        };
        let cause = match then {
            Then::End => Cause::Shutdown,
            Then::Drained => Cause::Drain,
            Then::Backup => Cause::HandBack,
            Then::Keep => Cause::Fault,
        };
        self.enter(Phase::Draining(draining), cause, output);
    }

    /// Priority 0 was not sent: backups still wait for the lease, so it stays the limit.
    pub(super) fn leaving_refused(&mut self) {
        let Phase::Draining(draining) = &mut self.phase else { return };
        draining.answers_until = draining.answers_until.map(|until| until.min(draining.lease_until));
    }

    pub(super) fn drain(&mut self, now: MonotonicTime, output: &mut Output) {
        self.drained = true;
        match &mut self.phase {
            Phase::Active(_) => self.leave(Then::Drained, now, output),
            Phase::Backup(_) => {
                output.actions.push(Action::Unstage);
                self.enter(Phase::Draining(Draining::drained()), Cause::Drain, output);
            }
            Phase::Draining(draining) if draining.then != Then::End => draining.then = Then::Drained,
            Phase::Initialize { .. } | Phase::Draining(_) | Phase::Fault => {}
        }
    }

    pub(super) fn undrain(&mut self, now: MonotonicTime, output: &mut Output) {
        self.drained = false;
        let owns = self.owns(now);
        match &mut self.phase {
            // What it did before.
            Phase::Draining(draining) if draining.then == Then::Drained && owns && self.unwell => {
                draining.then = Then::Keep;
            }
            // Still answering, so still the owner: an advertisement tells those who heard priority 0 to stay Backup.
            Phase::Draining(draining) if draining.then == Then::Drained && owns => {
                self.become_active(Cause::Undrain, now, output);
            }
            Phase::Draining(draining) if draining.then == Then::Drained => {
                if draining.answers_until.is_some() {
                    // Past its end, but the timer did not come to say so.
                    output.actions.extend([Action::Release, Action::ForwardNothing, Action::Unstage]);
                }
                self.begin(Cause::Undrain, now, output);
            }
            _ => {}
        }
    }

    pub(super) fn advert_while_draining(
        &mut self,
        advert: PeerAdvert,
        now: MonotonicTime,
        output: &mut Output,
    ) {
        let Phase::Draining(draining) = &mut self.phase else { return };
        if draining.answers_until.is_none() || !draining.is_heir(advert, self.parameters.interval, now) {
            return;
        }
        output.actions.push(Action::Release);
        if draining.then == Then::Backup && !advert.is_question() {
            // It may never have lost the VIPs, and so has no reason of its own to announce them again. One of the lowest
            // priority, to which nothing is given back, has just taken over, and might yield to a question.
            output.actions.push(Action::Ask);
        }
        let following = Backup::follow(self.parameters.interval, advert.interval, now);
        self.handed_over(following, output);
    }

    /// The VIPs are another's: what remains to be done, and what comes now.
    fn handed_over(&mut self, backup: Backup, output: &mut Output) {
        let Phase::Draining(draining) = &self.phase else { return };
        output.actions.extend([Action::ForwardNothing, Action::UnstageAfterGrace]);
        match draining.then {
            Then::End => {
                self.enter(Phase::Initialize { begins: MonotonicTime::NEVER }, Cause::HandedOver, output);
            }
            Then::Backup | Then::Keep if self.unwell => {
                self.enter(Phase::Fault, Cause::HandedOver, output);
            }
            Then::Backup | Then::Keep => self.enter(Phase::Backup(backup), Cause::HandedOver, output),
            Then::Drained => {
                self.phase = Phase::Draining(Draining::drained());
                // The state keeps its name, but whoever waits for the handover wants to know.
                output.transition =
                    Some(Transition { from: State::Draining, to: State::Draining, cause: Cause::HandedOver });
            }
        }
    }

    /// Another member of the sync group has heard its heir, who owns or is about to own these VIPs, too.
    pub(super) fn group_handed_over(&mut self) {
        if let Phase::Draining(draining) = &mut self.phase {
            draining.group_handed_over = true;
        }
    }

    pub(super) fn timer_while_draining(&mut self, now: MonotonicTime, output: &mut Output) {
        let Phase::Draining(draining) = &mut self.phase else { return };
        if draining.say_again <= now {
            draining.say_again = MonotonicTime::NEVER;
            output.actions.push(Action::AdvertiseLeaving);
        }
        let Some(until) = draining.answers_until.filter(|until| *until <= now) else { return };
        output.actions.clear();
        if draining.group_handed_over {
            output.actions.push(Action::Release);
            let watching = Backup::arm(self.first_interval(), now);
            return self.handed_over(watching, output);
        }
        if draining.then == Then::End {
            output.actions.extend([Action::Release, Action::ForwardNothing, Action::UnstageAfterGrace]);
            self.enter(Phase::Initialize { begins: MonotonicTime::NEVER }, Cause::NoHeir, output);
            return;
        }
        // Nobody wants them: a VIP without an owner serves nobody, so the drain is off.
        self.drained = false;
        self.be_last_resort(self.unwell);
        if now.since(until) < DRAIN_MARGIN {
            self.become_active(Cause::NoHeir, now, output);
        } else {
            // Stopped or starved meanwhile: who knows what others did. The way back is the ordinary one.
            output.actions.extend([Action::Release, Action::ForwardNothing, Action::Unstage]);
            if self.unwell {
                self.watch(Cause::LeaseExpired, now, output);
            } else {
                self.begin(Cause::LeaseExpired, now, output);
            }
        }
    }
}
