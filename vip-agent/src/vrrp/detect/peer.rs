//! One other node: what it claims, what was heard of it, and what follows from that.

use std::time::Duration;

use vip_common::heartbeat::{Claims, Promise};

use super::{FORGOTTEN, LATELY, PAST_HOPE, QUESTIONS, TRUSTED};
use crate::dataplane::PeerSlot;
use crate::types::MonotonicTime;
use crate::vrrp::machine::OwnerLife;

/// What the program noted of a node; zero where it has noted nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// When its last heartbeat came.
    pub heard: MonotonicTime,
    /// What that promised.
    pub promise: Promise,
    /// When its last answer came.
    pub answered: MonotonicTime,
    /// When we had asked for that.
    pub asked: MonotonicTime,
}

impl Signs {
    /// When its host gave its last sign of life.
    pub(super) fn last(&self) -> MonotonicTime {
        self.heard.max(self.answered)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) slot: PeerSlot,
    pub(super) claims: Claims,
    pub(super) signs: Signs,
    /// Questions since its last sign of life.
    unanswered: u32,
    /// Those of them that were asked in time one after the other, when the first was, and when the last.
    in_a_row: u32,
    first_asked: MonotonicTime,
    last_asked: MonotonicTime,
}

impl Peer {
    pub(super) fn new(slot: PeerSlot, claims: Claims) -> Self {
        Self {
            slot,
            claims,
            signs: Signs::default(),
            unanswered: 0,
            in_a_row: 0,
            first_asked: MonotonicTime::ZERO,
            last_asked: MonotonicTime::ZERO,
        }
    }

    /// Takes in what the program has noted.
    pub(super) fn update(&mut self, signs: Signs) {
        if signs.last() > self.signs.last() {
            self.unanswered = 0;
        }
        self.signs = signs;
    }

    /// Everybody was asked. Whoever was kept from asking for longer than an interval may have been kept from hearing as well:
    /// it begins anew.
    pub(super) fn note_question(&mut self, now: MonotonicTime) {
        let kept = now.since(self.last_asked) > self.interval() && !self.is_past_hope();
        if self.unanswered == 0 || kept {
            self.first_asked = now;
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        self.last_asked = now;
    }

    /// When it was asked first, of the questions that tell anything.
    pub(super) fn first_asked(&self) -> MonotonicTime {
        self.first_asked
    }

    /// Whether it was asked, has not answered, and may still.
    pub(super) fn is_in_question(&self) -> bool {
        self.unanswered > 0 && !self.is_past_hope()
    }

    /// Whether it was asked so often that it is asked less often.
    fn is_past_hope(&self) -> bool {
        self.in_a_row > PAST_HOPE
    }

    /// Whether it left questions unanswered before the other one did: it may be dead, and tells nothing about our own link.
    pub(super) fn was_silent_before(&self, other: &Self) -> bool {
        self.signs.answered == MonotonicTime::ZERO || self.unanswered > other.unanswered + 1
    }

    /// How often it promised to be heard.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_micros(self.signs.promise.interval.into())
    }

    /// Whether it answered of late, as of its last sign of life: who never answers cannot be told from the dead.
    pub(super) fn answers(&self) -> bool {
        self.signs.answered != MonotonicTime::ZERO && self.signs.heard.since(self.signs.answered) < TRUSTED
    }

    /// Whether its silence means something: its heartbeats came, they meant the claims that we know, and it answers.
    pub(super) fn is_covered(&self) -> bool {
        self.signs.heard != MonotonicTime::ZERO
            && self.signs.promise == self.claims.promise
            && !self.interval().is_zero()
            && self.answers()
    }

    /// Whether it is of no interest any more.
    pub(super) fn is_forgotten(&self, now: MonotonicTime) -> bool {
        now.since(self.signs.last()) > FORGOTTEN
    }

    /// When it has been silent for so long that it is to be asked, unless it was by then.
    pub(super) fn ask_at(&self, multiplier: u8) -> MonotonicTime {
        self.signs.last() + self.interval() * u32::from(multiplier) / 2
    }

    /// When to ask again who was asked at `last`: twice an interval, less often who is past hope.
    pub(super) fn ask_again_at(&self, multiplier: u8, last: MonotonicTime) -> MonotonicTime {
        let patience = if self.is_past_hope() { self.interval() * 4 } else { self.interval() / 2 };
        self.ask_at(multiplier).max(last + patience)
    }

    /// What a watcher with this multiplier makes of it; `None` if it is not to be counted on. `hears` says whether our own
    /// link hears anybody who was asked at that time or later.
    pub(super) fn life(
        &self,
        multiplier: u8,
        now: MonotonicTime,
        hears: impl FnOnce(MonotonicTime) -> bool,
    ) -> Option<OwnerLife> {
        let silent = now.since(self.signs.last());
        if !self.is_covered() {
            return (silent < LATELY).then_some(OwnerLife::Alive);
        }
        if self.is_forgotten(now) {
            return None;
        }
        let time = self.time(multiplier);
        if self.unanswered == 0 || silent + self.interval() < time {
            return Some(OwnerLife::Alive);
        }
        let dead = self.dead_at(multiplier) <= now && self.in_a_row >= QUESTIONS && hears(self.first_asked);
        let since = self.signs.last() + time;
        let found = OwnerLife::Dead { since, longest_skew: time, others_first: Duration::ZERO };
        Some(if dead { found } else { OwnerLife::Suspected })
    }

    /// The detection time.
    fn time(&self, multiplier: u8) -> Duration {
        self.interval() * u32::from(multiplier)
    }

    /// When it is called dead if nothing is heard: half the detection time is for answers, however late it was asked. It was
    /// dead before, then, and the skew counts from there.
    fn dead_at(&self, multiplier: u8) -> MonotonicTime {
        let time = self.time(multiplier);
        (self.signs.last() + time).max(self.first_asked + time / 2)
    }

    /// When the next thing becomes of its silence, which has begun to be asked about.
    pub(super) fn turns_at(&self, multiplier: u8, now: MonotonicTime) -> MonotonicTime {
        if self.unanswered == 0 {
            return MonotonicTime::NEVER;
        }
        let dead_at = self.dead_at(multiplier);
        let suspected_at = self.signs.last() + (self.time(multiplier) - self.interval());
        [suspected_at, dead_at].into_iter().find(|at| *at > now).unwrap_or(MonotonicTime::NEVER)
    }
}
