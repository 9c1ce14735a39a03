//! Each router's own conduct: how far its word reaches, how often it speaks, and whether its books are right.

use std::time::Duration;

use vip_agent::types::MonotonicTime;
use vip_agent::vrrp::machine::{DRAIN_MARGIN, LEASE_INTERVALS};

use super::{Count, Invariant, SHORTEST_REPLY_GAP};
use crate::network::Network;

impl Network {
    /// A lease is three intervals from the decision, and only if the advert was accepted.
    pub(crate) fn check_lease(
        &mut self,
        node: usize,
        at: MonotonicTime,
        until: MonotonicTime,
        accepted: bool,
    ) {
        let interval = self.nodes[node].parameters.interval.duration();
        if self.watch.honest && (!accepted || until > at + interval * LEASE_INTERVALS) {
            let span = until.since(at);
            let what = format!("n{node} stores a lease of {span:?}; its advert was accepted: {accepted}");
            self.watch.violated(Invariant::Lease, self.now, what);
        }
    }

    /// A leaving owner answers for one interval (version 2: a second) + 100 ms, and only if its peers were told.
    pub(crate) fn check_hold(
        &mut self,
        node: usize,
        at: MonotonicTime,
        until: MonotonicTime,
        accepted: bool,
    ) {
        let longest_skew = self.nodes[node].parameters.interval.longest_skew();
        if self.watch.honest && (!accepted || until > at + longest_skew + DRAIN_MARGIN) {
            let span = until.since(at);
            let what =
                format!("n{node} goes on answering for {span:?}; its leaving was accepted: {accepted}");
            self.watch.violated(Invariant::Lease, self.now, what);
        }
    }

    pub(crate) fn check_books(&mut self, node: usize) {
        let router = &self.nodes[node];
        let now = router.clock.read(self.now);
        let (machine, word) = (router.machine.owns(now), router.word.until > now);
        if self.watch.honest && machine != word {
            let what = format!("n{node}: the machine owns: {machine}; the kernel answers: {word}");
            self.watch.violated(Invariant::Books, self.now, what);
        }
    }

    pub(crate) fn check_announcement(&mut self, node: usize, owned: bool) {
        if !owned {
            let what = format!("n{node} announces what it does not own");
            self.watch.violated(Invariant::Announcement, self.now, what);
        }
    }

    /// In an interval, a router sends its regular advert (two, if it began within), one more for each gap between replies
    /// that rivals make it fill (10 ms, or a quarter of the interval), and three for each move, reload or drain.
    pub(crate) fn count_message(&mut self, node: usize) {
        let interval = self.nodes[node].parameters.interval.duration();
        let now = self.now;
        let count = &mut self.watch.counts[node];
        if now.since(count.since) >= interval {
            *count = Count { since: now, messages: 0, moves: 0 };
        }
        count.messages += 1;
        let (messages, moves) = (count.messages, count.moves);
        let replies = replies_per(interval);
        if messages > 2 + replies + 3 * (moves + 1) {
            let what = format!("n{node} has sent {messages} adverts within {interval:?}, with {moves} moves");
            self.watch.violated(Invariant::Storm, now, what);
        }
    }

    /// Its state changed, or its parameters.
    pub(crate) fn count_move(&mut self, node: usize) {
        self.watch.counts[node].moves += 1;
    }
}

fn replies_per(interval: Duration) -> u32 {
    let gap = (interval / 4).min(SHORTEST_REPLY_GAP);
    (interval.as_nanos().div_ceil(gap.as_nanos())) as u32 + 1
}
