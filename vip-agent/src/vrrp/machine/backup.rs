//! Backup: watching the owner, and the way out of it.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timing::{active_down, fraction, skew, staging};
use super::{Action, Carried, Cause, Machine, Output, OwnerLife, Parameters, PeerAdvert, Phase};
use crate::types::{AdvertInterval, Centiseconds, MonotonicTime, Priority};

/// How long a planned takeover waits for its local addresses beyond the skew. The leaving owner goes on answering for the
/// longest skew + [`super::DRAIN_MARGIN`], so this costs nobody a packet: on a busy machine the addresses take tens of
/// milliseconds.
pub const STAGING_PATIENCE: Duration = Duration::from_millis(75);

/// How long an owner has to answer a question ([`Action::Ask`]): keepalived takes 1.3 ms, and some tens on a busy machine.
/// And not longer than two intervals: Backups of lower priority take the question for a sign of life, wait three and a
/// skew from it, and must not be first.
const ANSWER_TIME: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backup {
    /// Active_Adver_Interval: learned from the owner, our own until one was heard. In version 2 always our own.
    interval: AdvertInterval,
    /// Whether it was learned.
    learned: bool,
    /// Active_Down_Timer.
    down_at: DownTimer,
    staged: Staged,
    /// When a lower-priority owner was first seen, of those seen since the last that holds us.
    lower_since: Option<MonotonicTime>,
    /// When it was last seen.
    lower_heard: Option<MonotonicTime>,
    /// The owner whose priority held us last, and that priority.
    held_by: Option<(IpAddr, u8)>,
    /// Nobody was heard since we began.
    unheard: bool,
    /// When we asked whether there is an owner.
    asked: Option<MonotonicTime>,
    /// What fast detection says of the owner, since it was last heard.
    life: OwnerLife,
}

/// When Active_Down began to run, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownTimer {
    /// Three intervals and a skew after this time.
    Silence(MonotonicTime),
    /// The owner said priority 0 at this time: a skew after it.
    Leaving(MonotonicTime),
    /// The owner fell below us at this time: a skew after it, too.
    Fallen(MonotonicTime),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Staged {
    No,
    Asked,
    Yes,
}

impl Backup {
    /// Watches an owner that has not been heard yet.
    pub(super) fn arm(own_interval: AdvertInterval, now: MonotonicTime) -> Self {
        Self {
            interval: own_interval,
            learned: false,
            down_at: DownTimer::Silence(now),
            staged: Staged::No,
            lower_since: None,
            lower_heard: None,
            held_by: None,
            unheard: true,
            asked: None,
            life: OwnerLife::Alive,
        }
    }

    /// Watches an owner that was heard just now, by the interval that it announced.
    pub(super) fn follow(own: AdvertInterval, announced: AdvertInterval, now: MonotonicTime) -> Self {
        let mut backup = Self { unheard: false, ..Self::arm(own, now) };
        backup.learn(announced);
        backup
    }

    /// What another process needs to go on watching.
    pub(super) fn carry(&self) -> Carried {
        let learned = match self.interval {
            AdvertInterval::V3(interval) if self.learned => Some(interval.get()),
            _ => None,
        };
        Carried::Backup { down_at: self.down_at, learned, held_by: self.held_by, unheard: self.unheard }
    }

    /// As [`Self::carry`] has told of it.
    pub(super) fn carried(
        first_interval: AdvertInterval,
        learned: Option<Centiseconds>,
        down_at: DownTimer,
        held_by: Option<(IpAddr, u8)>,
        unheard: bool,
    ) -> Self {
        let mut backup = Self { down_at, held_by, unheard, ..Self::arm(first_interval, MonotonicTime::ZERO) };
        if let (Some(interval), AdvertInterval::V3(_)) = (learned, first_interval) {
            backup.learn(interval.into());
        }
        backup
    }

    fn due(&self, parameters: &Parameters) -> MonotonicTime {
        let by_adverts = match self.down_at {
            DownTimer::Silence(since) => since + active_down(parameters.priority, self.interval),
            DownTimer::Leaving(since) | DownTimer::Fallen(since) => {
                since + skew(parameters.priority, self.interval)
            }
        };
        match self.life {
            OwnerLife::Dead { since, longest_skew, others_first } => {
                by_adverts.min(since + fraction(parameters.priority, longest_skew) + others_first)
            }
            OwnerLife::Alive | OwnerLife::Suspected => by_adverts,
        }
    }

    fn is_owner_dead(&self) -> bool {
        matches!(self.life, OwnerLife::Dead { .. })
    }

    fn stage_at(&self) -> MonotonicTime {
        if self.life != OwnerLife::Alive {
            return MonotonicTime::ZERO;
        }
        match self.down_at {
            DownTimer::Silence(since) => since + staging(self.interval),
            DownTimer::Leaving(since) | DownTimer::Fallen(since) => since,
        }
    }

    /// The interval by which it waits.
    pub(super) fn interval(&self) -> AdvertInterval {
        self.interval
    }

    /// Whether an owner held it within the last interval.
    pub(super) fn is_held(&self, now: MonotonicTime) -> bool {
        let DownTimer::Silence(since) = self.down_at else { return false };
        !self.unheard && !self.is_owner_dead() && now.since(since) < self.interval.duration()
    }

    /// Whether nobody was heard since it began.
    pub(super) fn has_heard_nobody(&self) -> bool {
        self.unheard
    }

    /// Whether the question is to be put, or was: of one that must not take over from a living owner.
    fn asks(&self, parameters: &Parameters) -> bool {
        self.unheard && parameters.defers()
    }

    /// A question that tells nothing about an owner.
    fn is_of_no_consequence(&self, advert: PeerAdvert, parameters: &Parameters, now: MonotonicTime) -> bool {
        // An owner with this priority and a smaller address than ours would yield to our own question: of two that ask
        // at once, the greater address goes on.
        let smaller_asks = self.asked.is_some() && advert.address != Ordering::Greater;
        // Nobody has taken over before our own skew is over.
        let owner_leaves = matches!(self.down_at, DownTimer::Leaving(_)) && now < self.due(parameters);
        advert.is_question() && (smaller_asks || owner_leaves)
    }

    /// Whether the owner that held us says that it is worth less now.
    fn is_fall(&self, advert: PeerAdvert) -> bool {
        // A question of before its takeover may arrive after its first advertisement.
        !advert.is_question()
            && self.held_by.is_some_and(|(owner, held)| owner == advert.sender && advert.priority < held)
    }

    /// An owner that still answers lets us wait for our addresses.
    fn owner_still_answers(&self, now: MonotonicTime) -> bool {
        let says_so = !matches!(self.down_at, DownTimer::Silence(_)) || self.is_preempting(now);
        says_so && !self.is_owner_dead()
    }

    fn is_preempting(&self, now: MonotonicTime) -> bool {
        self.lower_heard.is_some_and(|heard| now.since(heard) < self.interval.duration() * 3)
    }

    /// When to take over: at the timer's end, or a little later if the addresses are not there yet, or an answer may come.
    pub(super) fn take_over_at(&self, parameters: &Parameters) -> MonotonicTime {
        let due = self.due(parameters);
        if self.asks(parameters) {
            self.asked.unwrap_or(due) + ANSWER_TIME.min(self.interval.duration() * 2)
        } else if parameters.staging && self.staged != Staged::Yes && self.owner_still_answers(due) {
            due + STAGING_PATIENCE
        } else {
            due
        }
    }

    pub(super) fn next_timer(&self, parameters: &Parameters) -> MonotonicTime {
        let take_over = match self.asked {
            None if self.asks(parameters) => self.due(parameters),
            _ => self.take_over_at(parameters),
        };
        if parameters.staging && self.staged == Staged::No {
            take_over.min(self.stage_at())
        } else {
            take_over
        }
    }

    pub(super) fn reconfigure(
        &mut self,
        before: &Parameters,
        after: &Parameters,
        first_interval: AdvertInterval,
        now: MonotonicTime,
        output: &mut Output,
    ) {
        if !self.learned || self.interval.version() != first_interval.version() {
            self.learned = false;
            self.interval = first_interval;
        }
        // An owner that was to be replaced may be one that holds us now. Its next advertisement tells.
        let may_hold = after.priority < before.priority || self.tolerates_lower(after, now);
        if may_hold
            && self.is_preempting(now)
            && let Some(heard) = self.lower_heard
        {
            self.wait_from(heard, output);
        }
    }

    /// Whether a lower-priority owner is left alone: by configuration, or for the preempt delay.
    fn tolerates_lower(&mut self, parameters: &Parameters, now: MonotonicTime) -> bool {
        if parameters.priority == Priority::OWNER {
            // "... always preempts, independent of the setting of this flag": RFC 9568, 6.1.
            return false;
        }
        if parameters.defers() {
            return true;
        }
        let since = *self.lower_since.get_or_insert(now);
        now.since(since) < parameters.preempt_delay
    }

    fn stage_if_foreseeable(&mut self, parameters: &Parameters, now: MonotonicTime, output: &mut Output) {
        if parameters.staging && self.staged == Staged::No && self.stage_at() <= now {
            self.staged = Staged::Asked;
            output.actions.push(Action::Stage);
        }
    }

    /// Version 2 has no interval but the one that all routers are configured with.
    fn learn(&mut self, announced: AdvertInterval) {
        if let AdvertInterval::V3(_) = announced {
            self.interval = announced;
            self.learned = true;
        }
    }

    /// The owner holds us: learn its interval and wait again.
    fn rearm(&mut self, announced: AdvertInterval, now: MonotonicTime, output: &mut Output) {
        self.learn(announced);
        self.wait_from(now, output);
    }

    fn wait_from(&mut self, since: MonotonicTime, output: &mut Output) {
        self.down_at = DownTimer::Silence(since);
        self.lower_heard = None;
        self.held_by = None;
        self.asked = None;
        self.life = OwnerLife::Alive;
        if self.staged != Staged::No {
            self.staged = Staged::No;
            output.actions.push(Action::Unstage);
        }
    }
}

impl Machine {
    pub(super) fn advert_while_backup(
        &mut self,
        advert: PeerAdvert,
        now: MonotonicTime,
        output: &mut Output,
    ) {
        let Phase::Backup(backup) = &mut self.phase else { return };
        if backup.is_of_no_consequence(advert, &self.parameters, now) {
            return;
        }
        backup.unheard = false;
        if advert.priority == 0 {
            backup.down_at = DownTimer::Leaving(now);
        } else if advert.priority >= self.parameters.priority.get() {
            backup.lower_since = None;
            backup.rearm(advert.interval, now, output);
            backup.held_by = Some((advert.sender, advert.priority));
        } else if backup.tolerates_lower(&self.parameters, now) {
            backup.rearm(advert.interval, now, output);
        } else {
            // The timer runs on: this owner is to be replaced.
            backup.lower_heard = Some(now);
            if backup.is_fall(advert) && matches!(backup.down_at, DownTimer::Silence(_)) {
                backup.down_at = DownTimer::Fallen(now);
            }
        }
        // Not the takeover, even if it is due: a better owner's advertisement may be next in the queue.
        backup.stage_if_foreseeable(&self.parameters, now, output);
    }

    /// Fast detection has news. Of an owner that was never heard there is none.
    pub(super) fn owner_life(&mut self, life: OwnerLife, now: MonotonicTime, output: &mut Output) {
        let Phase::Backup(backup) = &mut self.phase else { return };
        if backup.unheard {
            return;
        }
        backup.life = life;
        backup.stage_if_foreseeable(&self.parameters, now, output);
        if backup.staged != Staged::No && now < backup.stage_at() {
            backup.staged = Staged::No;
            output.actions.push(Action::Unstage);
        }
    }

    pub(super) fn timer_while_backup(&mut self, now: MonotonicTime, output: &mut Output) {
        let Phase::Backup(backup) = &mut self.phase else { return };
        backup.stage_if_foreseeable(&self.parameters, now, output);
        if backup.asked.is_none() && backup.asks(&self.parameters) {
            if backup.due(&self.parameters) <= now {
                backup.asked = Some(now);
                output.actions.push(Action::Ask);
            }
        } else if backup.take_over_at(&self.parameters) <= now {
            let cause = match backup.down_at {
                _ if backup.is_owner_dead() => Cause::OwnerDead,
                DownTimer::Leaving(_) => Cause::PriorityZero,
                DownTimer::Fallen(_) => Cause::Preempt,
                DownTimer::Silence(_) if backup.is_preempting(now) => Cause::Preempt,
                DownTimer::Silence(_) => Cause::Timeout,
            };
            self.become_active(cause, now, output);
        }
    }

    /// A takeover that waited for this is due now: the timer, before which the queues are read, carries it out.
    pub(super) fn staged(&mut self) {
        let Phase::Backup(backup) = &mut self.phase else { return };
        if backup.staged == Staged::Asked {
            backup.staged = Staged::Yes;
        }
    }
}
