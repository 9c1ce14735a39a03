//! Unwell: an owner that should not serve if another can, and what it does if none can (`all_failed: open`).

use super::{Action, Cause, Machine, Output, Phase, Then};
use crate::types::{MonotonicTime, Priority};

/// What an owner advertises that cannot serve and keeps the VIPs because nobody else took them: less than any other router's
/// priority should be, and more than a question ([`Action::Ask`]).
const LAST_RESORT: u8 = 2;

impl Machine {
    /// Whether it owns, or would, only because nobody else does.
    pub fn is_last_resort(&self) -> bool {
        self.last_resort
    }

    /// An owner offers the VIPs; anybody else keeps out of the election.
    pub(super) fn unwell(&mut self, now: MonotonicTime, output: &mut Output) {
        if std::mem::replace(&mut self.unwell, true) {
            return;
        }
        match &self.phase {
            Phase::Active(_) => self.leave(Then::Keep, now, output),
            Phase::Backup(_) => {
                output.actions.push(Action::Unstage);
                self.enter(Phase::Fault, Cause::Fault, output);
            }
            // Whoever offers them already becomes what it should be then.
            Phase::Draining(_) | Phase::Initialize { .. } | Phase::Fault => {}
        }
    }

    pub(super) fn well(&mut self, now: MonotonicTime, output: &mut Output) {
        self.unwell = false;
        let was_last_resort = self.last_resort;
        self.be_last_resort(false);
        match &mut self.phase {
            Phase::Fault if !self.faulty => self.begin(Cause::Recovered, now, output),
            Phase::Draining(draining) if draining.then == Then::Keep => {
                if self.owns(now) {
                    return self.become_active(Cause::Recovered, now, output);
                }
                // Past its end, but the timer did not come to say so.
                output.actions.extend([Action::Release, Action::ForwardNothing, Action::Unstage]);
                self.begin(Cause::Recovered, now, output);
            }
            Phase::Active(active) if was_last_resort => active.advertise(now, &self.parameters, output),
            _ => {}
        }
    }

    /// From now on the election is taken part in by the last resort's priority, or by our own.
    pub(super) fn be_last_resort(&mut self, last_resort: bool) {
        self.last_resort = last_resort;
        let lowest = Priority::new(LAST_RESORT).unwrap_or(Priority::LOWEST);
        self.parameters.priority = if last_resort { self.priority.min(lowest) } else { self.priority };
    }
}
