//! Announcing in slices: one system call at a time, between which adverts are sent and received.

use std::collections::VecDeque;

use super::InstanceId;
use super::router::Binding;
use super::stopwatch::Stopwatch;
use crate::dataplane::announce::Frame;
use crate::vrrp::machine::Transition;

/// Announcements handed to the kernel in one system call. Each costs the kernel some microseconds, so that more would
/// take longer than a takeover has until the first are out; and no more than these follow a lease that ends meanwhile.
const ANNOUNCED_AT_ONCE: usize = 32;

/// What an instance has yet to announce.
#[derive(Debug)]
pub(super) struct Announcing {
    /// Of the binding's lists: the first round, the second, the questions.
    list: usize,
    /// How many of that list are out.
    sent: usize,
    /// Whether rivals are asked for. The former owner may not have heard of a takeover yet: it would be taken for one.
    asks: bool,
    /// Whether it waits in [`Turns`].
    has_turn: bool,
    /// The change of state that is reported once the first announcements are out.
    pub(super) moved: Option<Moved>,
}

/// A change of state to be reported.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) transition: Transition,
    pub(super) stopwatch: Stopwatch,
}

/// How soon somebody's announcements are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// The first ones of a takeover.
    Takeover,
    /// Repeats and refreshes.
    Repeat,
}

/// Who announces next: takeovers before repeats, each in turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    takeovers: VecDeque<InstanceId>,
    repeats: VecDeque<InstanceId>,
}

impl Announcing {
    /// From the beginning; after a takeover, or again.
    pub(super) fn begin(urgency: Urgency) -> Self {
        Self { list: 0, sent: 0, asks: urgency == Urgency::Repeat, has_turn: false, moved: None }
    }

    /// Begins anew in the same turn: with other frames, or because it is asked to.
    pub(super) fn begin_again(&mut self, urgency: Urgency) {
        *self = Self { has_turn: self.has_turn, moved: self.moved.take(), ..Self::begin(urgency) };
    }

    /// Whether it needs a turn and has none; it has one from then on.
    pub(super) fn take_turn(&mut self) -> Option<Urgency> {
        if std::mem::replace(&mut self.has_turn, true) {
            return None;
        }
        Some(if self.asks || self.list > 0 { Urgency::Repeat } else { Urgency::Takeover })
    }

    /// The turn has come: what goes out now, and whether that was the last.
    pub(super) fn next<'a>(&mut self, binding: &'a Binding) -> (&'a [Frame], bool) {
        self.has_turn = false;
        let announcements = &binding.announcements;
        let questions: &[Frame] = if self.asks { &binding.questions } else { &[] };
        let lists: [&[Frame]; 3] = [&announcements.first, &announcements.second, questions];
        let mut batch: &[Frame] = &[];
        while let Some(list) = lists.get(self.list) {
            let rest = list.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                (self.list, self.sent) = (self.list + 1, 0);
            } else if batch.is_empty() {
                batch = &rest[..rest.len().min(ANNOUNCED_AT_ONCE)];
                self.sent += batch.len();
            } else {
                return (batch, false);
            }
        }
        (batch, true)
    }
}

impl Turns {
    /// Makes room for an instance of this id and all lower ones.
    pub(super) fn make_room(&mut self, id: InstanceId) {
        for queue in [&mut self.takeovers, &mut self.repeats] {
            queue.reserve((usize::from(id.0) + 1).saturating_sub(queue.len()));
        }
    }

    /// To the end of the queue.
    pub(super) fn push(&mut self, id: InstanceId, urgency: Urgency) {
        match urgency {
            Urgency::Takeover => self.takeovers.push_back(id),
            Urgency::Repeat => self.repeats.push_back(id),
        }
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<InstanceId> {
        self.takeovers.pop_front().or_else(|| self.repeats.pop_front())
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.takeovers.is_empty() && self.repeats.is_empty()
    }
}
