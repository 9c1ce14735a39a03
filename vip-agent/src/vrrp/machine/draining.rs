//! Draining: make before break, and the time that an operator keeps the instance out.

use super::{Action, Active, Cause, DRAIN_MARGIN, Machine, Output, PeerAdvert, Phase, State, Transition};
use crate::types::MonotonicTime;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draining {
    /// Until when we go on answering unless the heir is heard; `None` = we do not answer any more.
    pub(super) answers_until: Option<MonotonicTime>,
    /// Where the lease ended before the drain.
    lease_until: MonotonicTime,
    /// When priority 0 is said once more, in case the first was lost. Soon, because each one starts a Backup's skew anew.
    say_again: MonotonicTime,
    /// The agent ends: without an heir the VIPs are given up.
    pub(super) for_good: bool,
}

impl Draining {
    /// Out of the election, not answering.
    pub(super) fn drained() -> Self {
        Self {
            answers_until: None,
            lease_until: MonotonicTime::ZERO,
            say_again: MonotonicTime::NEVER,
            for_good: false,
        }
    }

    pub(super) fn next_timer(&self) -> MonotonicTime {
        self.answers_until.unwrap_or(MonotonicTime::NEVER).min(self.say_again)
    }
}

impl Machine {
    /// Active says priority 0 and goes on answering until the heir is heard.
    pub(super) fn leave(&mut self, for_good: bool, now: MonotonicTime, output: &mut Output) {
        let Phase::Active(Active { lease_until, .. }) = self.phase else { return };
        let longest_skew = self.parameters.interval.longest_skew();
        let until = now + longest_skew + DRAIN_MARGIN;
        output.actions.extend([Action::AdvertiseLeaving, Action::HoldLease(until)]);
        let draining = Draining {
            answers_until: Some(until),
            lease_until,
            say_again: now + longest_skew / 16,
            for_good,
        };
        let cause = if for_good { Cause::Shutdown } else { Cause::Drain };
        self.enter(Phase::Draining(draining), cause, output);
    }

    /// Priority 0 was not sent: backups still wait for the lease, so it stays the limit.
    pub(super) fn leaving_refused(&mut self) {
        let Phase::Draining(draining) = &mut self.phase else { return };
        draining.answers_until = draining.answers_until.map(|until| until.min(draining.lease_until));
    }

    pub(super) fn drain(&mut self, now: MonotonicTime, output: &mut Output) {
        self.drained = true;
        match self.phase {
            Phase::Active(_) => self.leave(false, now, output),
            Phase::Backup(_) => {
                output.actions.push(Action::Unstage);
                self.enter(Phase::Draining(Draining::drained()), Cause::Drain, output);
            }
            Phase::Initialize { .. } | Phase::Draining(_) | Phase::Fault => {}
        }
    }

    pub(super) fn undrain(&mut self, now: MonotonicTime, output: &mut Output) {
        self.drained = false;
        match &self.phase {
            // Still answering, so still the owner: an advertisement tells those who heard priority 0 to stay Backup.
            Phase::Draining(draining) if !draining.for_good && self.owns(now) => {
                self.become_active(Cause::Undrain, now, output);
            }
            Phase::Draining(draining) if !draining.for_good => {
                if draining.answers_until.is_some() {
                    // Past its end, but the timer did not come to say so.
                    output.actions.extend([Action::Release, Action::ForwardNothing, Action::Unstage]);
                }
                self.begin(Cause::Undrain, now, output);
            }
            _ => {}
        }
    }

    pub(super) fn advert_while_draining(&mut self, advert: PeerAdvert, output: &mut Output) {
        let Phase::Draining(draining) = &mut self.phase else { return };
        if draining.answers_until.is_none() || advert.priority == 0 {
            return;
        }
        output.actions.extend([Action::Release, Action::ForwardNothing, Action::UnstageAfterGrace]);
        if draining.for_good {
            self.enter(Phase::Initialize { begins: MonotonicTime::NEVER }, Cause::HandedOver, output);
        } else {
            self.phase = Phase::Draining(Draining::drained());
            // The state keeps its name, but whoever waits for the handover wants to know.
            output.transition =
                Some(Transition { from: State::Draining, to: State::Draining, cause: Cause::HandedOver });
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
        if draining.for_good {
            output.actions.extend([Action::Release, Action::ForwardNothing, Action::UnstageAfterGrace]);
            self.enter(Phase::Initialize { begins: MonotonicTime::NEVER }, Cause::NoHeir, output);
            return;
        }
        // Nobody wants them: a VIP without an owner serves nobody, so the drain is off.
        self.drained = false;
        if now.since(until) < DRAIN_MARGIN {
            self.become_active(Cause::NoHeir, now, output);
        } else {
            // Stopped or starved meanwhile: who knows what others did. The way back is the ordinary one.
            output.actions.extend([Action::Release, Action::ForwardNothing, Action::Unstage]);
            self.begin(Cause::LeaseExpired, now, output);
        }
    }
}
