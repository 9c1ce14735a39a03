//! Announcing in slices: one system call at a time, between which adverts are sent and received.

use std::collections::VecDeque;

use super::InstanceId;
use super::stopwatch::Stopwatch;
use crate::dataplane::announce::{Announcements, Frame};
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
    pub(super) fn next<'a>(
        &mut self,
        announcements: &'a Announcements,
        questions: &'a [Frame],
    ) -> (&'a [Frame], bool) {
        self.has_turn = false;
        let questions: &[Frame] = if self.asks { questions } else { &[] };
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::dataplane::announce::questions;
    use crate::types::MacAddr;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn vips(count: u8) -> impl Iterator<Item = IpAddr> {
        (0..count).map(|last| Ipv4Addr::new(192, 0, 2, last).into())
    }

    fn all_of(urgency: Urgency, count: u8) -> Vec<Vec<Frame>> {
        let announcements = Announcements::build(vips(count), MAC, false);
        let questions = questions(vips(count), MAC, None);
        let mut announcing = Announcing::begin(urgency);
        let mut batches = Vec::new();
        loop {
            let (batch, last) = announcing.next(&announcements, &questions);
            batches.push(batch.to_vec());
            if last {
                return batches;
            }
        }
    }

    #[test]
    fn every_frame_goes_out_once_in_order_and_32_at_once() {
        let announcements = Announcements::build(vips(70), MAC, false);
        let takeover = all_of(Urgency::Takeover, 70);
        assert!(takeover.iter().map(Vec::len).eq([32, 32, 6, 32, 32, 6]));
        assert_eq!(takeover.concat(), [&announcements.first[..], &announcements.second].concat());
        let repeat = all_of(Urgency::Repeat, 70);
        let asked = [&announcements.first[..], &announcements.second, &questions(vips(70), MAC, None)];
        assert_eq!(repeat.concat(), asked.concat());
    }

    #[test]
    fn who_has_nothing_to_announce_is_done_at_once() {
        assert_eq!(all_of(Urgency::Repeat, 0), [Vec::new()]);
    }

    #[test]
    fn what_begins_again_begins_at_the_first_frame_in_the_turn_that_it_has() {
        let announcements = Announcements::build(vips(70), MAC, false);
        let mut announcing = Announcing::begin(Urgency::Takeover);
        assert_eq!(announcing.take_turn(), Some(Urgency::Takeover));
        let first = announcing.next(&announcements, &[]).0.to_vec();
        assert_eq!(announcing.take_turn(), Some(Urgency::Takeover), "its first round is not done");
        announcing.begin_again(Urgency::Takeover);
        assert_eq!(announcing.take_turn(), None, "it has one");
        assert_eq!(announcing.next(&announcements, &[]).0, first);
    }

    #[test]
    fn only_the_first_round_of_a_takeover_is_urgent() {
        let announcements = Announcements::build(vips(1), MAC, false);
        let mut announcing = Announcing::begin(Urgency::Takeover);
        assert_eq!(announcing.take_turn(), Some(Urgency::Takeover));
        announcing.next(&announcements, &[]);
        assert_eq!(announcing.take_turn(), Some(Urgency::Repeat));
    }

    #[test]
    fn takeovers_announce_before_repeats_and_everybody_in_turn() {
        let mut turns = Turns::default();
        turns.make_room(InstanceId(9));
        for id in 0..4 {
            turns.push(InstanceId(id), if id % 2 == 0 { Urgency::Repeat } else { Urgency::Takeover });
        }
        let order: Vec<u16> = std::iter::from_fn(|| turns.pop()).map(|id| id.0).collect();
        assert_eq!(order, [1, 3, 0, 2]);
        assert!(turns.is_empty());
    }
}
