//! Active: owning the VIPs for as long as the lease is renewed.

use std::cmp::Ordering;
use std::time::Duration;

use super::{
    Action, Backup, Cause, LEASE_INTERVALS, Machine, Output, Parameters, PeerAdvert, Phase, SETTLING, Then,
};
use crate::types::MonotonicTime;

/// Shortest time between the advertisements that answer rivals: a flood of theirs must not become one of ours. Regular
/// ones do not count: a rival that missed ours appears a skew after it, and must not own for an interval.
const SHORTEST_REPLY_GAP: Duration = Duration::from_millis(10);

/// Shortest time between announcements, whatever is configured: the timer must not spin.
const SHORTEST_ANNOUNCE_GAP: Duration = Duration::from_millis(10);

/// Shortest time between announcements that answer rivals.
const RIVAL_ANNOUNCE_GAP: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Active {
    /// Until when we answer; ZERO before the first advertisement was accepted.
    pub(super) lease_until: MonotonicTime,
    /// Adver_Timer.
    next_advert: MonotonicTime,
    /// Before this time no rival is answered at once.
    next_reply: MonotonicTime,
    next_announce: MonotonicTime,
    last_announce: MonotonicTime,
    /// Repeats still to come, the scheduled one included.
    pub(super) repeats_left: u16,
    /// Before this time a lower-priority owner, the first other router to be heard, gets the VIPs back; ZERO: never.
    pub(super) gives_back_until: MonotonicTime,
}

impl Active {
    /// As another process was, whose announcements were made lately.
    pub(super) fn carried(
        lease_until: MonotonicTime,
        repeats_left: u16,
        gives_back_until: MonotonicTime,
        now: MonotonicTime,
        parameters: &Parameters,
    ) -> Self {
        let mut active = Self {
            lease_until,
            next_advert: now,
            next_reply: now,
            next_announce: MonotonicTime::NEVER,
            last_announce: now,
            repeats_left,
            gives_back_until,
        };
        active.schedule_announcement(parameters);
        active
    }

    pub(super) fn next_timer(&self) -> MonotonicTime {
        // ZERO: the first advertisement's result is about to be reported.
        let lease =
            if self.lease_until == MonotonicTime::ZERO { MonotonicTime::NEVER } else { self.lease_until };
        self.next_advert.min(self.next_announce).min(lease)
    }

    /// An advertisement was accepted for sending; `at` is from before the send.
    pub(super) fn renew(&mut self, at: MonotonicTime, parameters: &Parameters) {
        let interval = parameters.interval.duration();
        self.lease_until = at + interval * LEASE_INTERVALS;
    }

    /// Tells the peers, and brings what was begun under the old parameters in line.
    pub(super) fn reconfigure(
        &mut self,
        before: &Parameters,
        after: &Parameters,
        now: MonotonicTime,
        output: &mut Output,
    ) {
        self.advertise(now, after, output);
        self.schedule_announcement(after);
        match (before.staging, after.staging) {
            (false, true) => output.actions.push(Action::Stage),
            (true, false) => output.actions.push(Action::Unstage),
            _ => {}
        }
    }

    /// Schedules the next regular advertisement without drift. Without a phase a late one does not make the next come early.
    pub(super) fn advertise(&mut self, now: MonotonicTime, parameters: &Parameters, output: &mut Output) {
        let on_schedule = self.next_advert + parameters.interval.duration();
        if self.next_advert == self.next_reply {
            // The reply that was put off.
            self.next_reply = now + reply_gap(parameters);
        }
        let keeps_time = parameters.phase.is_none() && self.next_advert <= now && on_schedule > now;
        self.next_advert = if keeps_time { on_schedule } else { parameters.next_advert(now) };
        output.actions.push(Action::Advertise);
    }

    /// Answers a rival: at once, or as soon as the gap to the last answer allows.
    fn reply(&mut self, now: MonotonicTime, parameters: &Parameters, output: &mut Output) {
        if now < self.next_reply {
            self.next_advert = self.next_advert.min(self.next_reply);
            return;
        }
        self.next_reply = now + reply_gap(parameters);
        // Not by the phase, or a flood of rivals' adverts would be answered at its gap and by the regular ones as well.
        self.next_advert = now + parameters.interval.duration();
        output.actions.push(Action::Advertise);
    }

    /// A rival that held the VIPs has told everybody so, or is about to: tell them otherwise, now and once it is done.
    fn announce_over_rival(&mut self, now: MonotonicTime, parameters: &Parameters, output: &mut Output) {
        let earliest = self.last_announce + RIVAL_ANNOUNCE_GAP;
        if now < earliest {
            self.repeats_left = parameters.announce_repeat.saturating_add(1);
            self.next_announce = self.next_announce.min(earliest);
            return;
        }
        self.announce(now, parameters, output);
        self.repeats_left = self.repeats_left.saturating_add(1);
        self.next_announce = self.next_announce.min(now + RIVAL_ANNOUNCE_GAP);
    }

    /// Whether the sender, who has just been heard first, was an owner before we took over: then the VIPs are its own.
    fn gives_back(&mut self, advert: PeerAdvert, parameters: &Parameters, now: MonotonicTime) -> bool {
        if advert.is_question() {
            // Somebody who has just begun asks who owns.
            return false;
        }
        let settled = std::mem::replace(&mut self.gives_back_until, MonotonicTime::ZERO) <= now;
        // One that speaks much more often than we do may have come later, and not have waited for us.
        let waited = advert.interval.duration() * LEASE_INTERVALS >= parameters.interval.duration();
        !settled && waited && advert.priority > 0 && parameters.defers()
    }

    /// Announces, and begins the schedule of repeats anew.
    pub(super) fn announce(&mut self, now: MonotonicTime, parameters: &Parameters, output: &mut Output) {
        self.repeats_left = parameters.announce_repeat;
        self.announced(now, parameters, output);
    }

    fn announced(&mut self, now: MonotonicTime, parameters: &Parameters, output: &mut Output) {
        self.last_announce = now;
        self.schedule_announcement(parameters);
        output.actions.push(Action::Announce);
    }

    fn schedule_announcement(&mut self, parameters: &Parameters) {
        let gap = if self.repeats_left > 0 {
            Some(parameters.announce_interval)
        } else {
            parameters.announce_refresh
        };
        self.next_announce =
            gap.map_or(MonotonicTime::NEVER, |gap| self.last_announce + gap.max(SHORTEST_ANNOUNCE_GAP));
    }
}

fn reply_gap(parameters: &Parameters) -> Duration {
    SHORTEST_REPLY_GAP.min(parameters.interval.duration() / 4)
}

impl Machine {
    /// Takes the VIPs: connections of the former owner first, then advertisement and lease, then announcements.
    pub(super) fn become_active(&mut self, cause: Cause, now: MonotonicTime, output: &mut Output) {
        let planned = matches!(cause, Cause::PriorityZero | Cause::Preempt);
        output.actions.push(if planned { Action::ForwardToFormer } else { Action::ForwardNothing });
        // Alone, or behind a port that is not open yet: who knows.
        let unheard = matches!(&self.phase, Phase::Backup(backup) if backup.has_heard_nobody());
        let settles = unheard && cause == Cause::Timeout && self.parameters.defers();
        let mut active = Active {
            lease_until: MonotonicTime::ZERO,
            next_advert: self.parameters.next_advert(now),
            next_reply: now,
            next_announce: MonotonicTime::NEVER,
            last_announce: now,
            repeats_left: 0,
            gives_back_until: if settles { now + SETTLING } else { MonotonicTime::ZERO },
        };
        output.actions.push(Action::Advertise);
        active.announce(now, &self.parameters, output);
        if self.parameters.staging {
            // Most often a confirmation of what was staged before.
            output.actions.push(Action::Stage);
        }
        self.enter(Phase::Active(active), cause, output);
    }

    /// An owner whose lease has run out is no owner: others may have taken over meanwhile. It must not act as one.
    pub(super) fn fence(&mut self, refused: bool, now: MonotonicTime, output: &mut Output) {
        let Phase::Active(active) = &self.phase else { return };
        if now < active.lease_until {
            return;
        }
        let never_owned = active.lease_until == MonotonicTime::ZERO;
        let cause = if refused && never_owned { Cause::AdvertRefused } else { Cause::LeaseExpired };
        output.actions.extend([Action::Release, Action::ForwardNothing, Action::Unstage]);
        self.watch(cause, now, output);
    }

    pub(super) fn advert_while_active(
        &mut self,
        advert: PeerAdvert,
        now: MonotonicTime,
        output: &mut Output,
    ) {
        let Phase::Active(active) = &mut self.phase else { return };
        let ours = self.parameters.priority.get();
        let wins = advert.priority > ours || (advert.priority == ours && advert.address == Ordering::Greater);
        let gives_back = active.gives_back(advert, &self.parameters, now);
        if wins {
            output.actions.extend([
                Action::Release,
                Action::AdvertiseYielding,
                Action::ForwardNothing,
                Action::UnstageAfterGrace,
            ]);
            // One that is unwell has done its part: it does not take the VIPs from another that is. Its priority stays that of
            // the last resort until it begins anew: by its own the yielding advertisement would beat the winner.
            let next = if self.unwell {
                Phase::Fault
            } else {
                Phase::Backup(Backup::follow(self.parameters.interval, advert.interval, now))
            };
            self.enter(next, Cause::HigherPriority, output);
            return;
        }
        if gives_back {
            self.leave(Then::Backup, now, output);
            return;
        }
        active.reply(now, &self.parameters, output);
        if advert.priority > 0 {
            active.announce_over_rival(now, &self.parameters, output);
        }
    }

    /// Another member of the sync group lost: its heir has these VIPs as well, or is to have them soon.
    pub(super) fn group_lost(&mut self, now: MonotonicTime, output: &mut Output) {
        let Phase::Active(_) = &self.phase else { return };
        output.actions.extend([
            Action::Release,
            Action::AdvertiseLeaving,
            Action::ForwardNothing,
            Action::UnstageAfterGrace,
        ]);
        self.watch(Cause::SyncGroup, now, output);
    }

    pub(super) fn timer_while_active(&mut self, now: MonotonicTime, output: &mut Output) {
        let Phase::Active(active) = &mut self.phase else { return };
        if active.next_advert <= now {
            active.advertise(now, &self.parameters, output);
        }
        if active.next_announce <= now {
            active.repeats_left = active.repeats_left.saturating_sub(1);
            active.announced(now, &self.parameters, output);
        }
    }
}
