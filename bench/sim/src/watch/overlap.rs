//! Never two answerers outside the bound of the third principle: no overlap if the last advert arrived; k intervals if the
//! last k were lost; outside of it a partition, and a paused machine.
//!
//! To the letter, for a Backup B that takes over because it has heard nothing, at the time δ:
//!
//! > Nobody answers after δ + (t - h), where t is when the last advert of that owner was decided on, and h when the last
//! > one that arrived at B was.
//!
//! If the last one arrived t = h, and nobody answers any more. If the last k were lost, t - h is k intervals. Both hold
//! whatever else happens: late timers, stopped threads, refused sends, clocks that differ by 1000 ppm. It does not count
//!
//! - an owner that has said priority 0: it answers until it hears its heir, one interval + 100 ms at most;
//! - the time for which the owner's machine was paused since t;
//! - three times the difference, where routers have different intervals and B waited by a shorter one.
//!
//! Two that answer together for any other reason (a planned move, a preemption, a partition that has healed, takeovers
//! that crossed) do so until they have heard each other: two delays and the shortest gap between replies, from the start
//! or, if messages between them were lost or could not be sent or read, an interval and that from the last obstacle. One
//! that gives the VIPs back to a former owner adds 10 ms and another exchange: it waits for a second word.

use std::time::Duration;

use vip_agent::types::{MonotonicTime, Priority};
use vip_agent::vrrp::machine::{Cause, LEASE_INTERVALS, State};

use super::{Invariant, by_slow_clock};
use crate::network::Network;
use crate::node::Renewal;
use crate::time::Instant;

impl Network {
    /// A router has decided to take over.
    pub(crate) fn check_takeover(&mut self, heir: usize, cause: Cause) {
        match cause {
            Cause::Timeout => self.check_timeout(heir),
            Cause::Preempt => {
                if self.nodes[heir].defers() {
                    let what = format!("n{heir} preempts and is told not to");
                    self.watch.violated(Invariant::Order, self.now, what);
                }
                self.check_preempted(heir);
            }
            _ => {}
        }
    }

    /// Nobody is preempted who was heard last, and said that it is better. If somebody else was heard since, who may have
    /// said so too, and then less: that is an owner that falls.
    fn check_preempted(&mut self, heir: usize) {
        let priority = self.nodes[heir].parameters.priority.get();
        for owner in (0..self.nodes.len()).filter(|owner| *owner != heir) {
            let node = &self.nodes[owner];
            let from = self.watch.directions[owner][heir];
            let others = (0..self.nodes.len()).filter(|other| *other != owner && *other != heir);
            let heard_since = others.map(|other| self.watch.directions[other][heir].heard).max();
            let latest = heard_since
                .unwrap_or(Instant::START)
                .max(self.watch.strangers[heir])
                .max(node.renewal.decided)
                .max(self.nodes[heir].listens_since);
            let waited_for = node.renewal.interval <= self.watch.shortest_interval && !node.word.held;
            if node.answers(self.now) && from.heard >= latest && waited_for && from.said > priority {
                let what = format!("n{heir} preempts n{owner}, which is better");
                self.watch.violated(Invariant::Order, self.now, what);
            }
        }
    }

    fn check_timeout(&mut self, heir: usize) {
        for owner in (0..self.nodes.len()).filter(|owner| *owner != heir) {
            let node = &self.nodes[owner];
            let answers_until = node.answers_until(self.now);
            if answers_until <= self.now || node.word.held {
                continue;
            }
            let renewal = &node.renewal;
            let heard = self.watch.directions[owner][heir].heard.max(self.nodes[heir].listens_since);
            let not_arrived = renewal.decided.since(heard);
            let slower = renewal.interval.saturating_sub(self.watch.shortest_interval) * LEASE_INTERVALS;
            let bound = self.now + not_arrived + by_slow_clock(slower) + renewal.paused;
            if answers_until > bound {
                let beyond = answers_until.since(self.now);
                let what = format!(
                    "n{heir} takes over by timeout, and n{owner} answers for another {beyond:?}; \
                     adverts of {not_arrived:?} have not arrived"
                );
                self.watch.violated(Invariant::Overlap, self.now, what);
            }
        }
    }

    /// A word is about to be renewed by an older decision: a thread that was stopped in between must not resume as an owner
    /// once the lease of that decision is over.
    pub(crate) fn check_revival(&mut self, node: usize, word: MonotonicTime, renewal: &Renewal) {
        let over = renewal.decided + by_slow_clock(renewal.interval * LEASE_INTERVALS);
        let revives = word > self.nodes[node].clock.read(self.now) && !self.nodes[node].answers(self.now);
        if revives && self.now > over {
            let others = self.owners();
            if !others.is_empty() {
                let late = self.now.since(renewal.decided);
                let what = format!("n{node} answers again by a decision of {late:?} ago, beside {others:?}");
                self.watch.violated(Invariant::Overlap, self.now, what);
            }
        }
    }

    pub(super) fn check_together(&mut self, end: Instant) {
        if end <= self.now {
            return;
        }
        let mut answering = 0;
        for node in &self.nodes {
            answering += u32::from(node.answers(self.now));
        }
        if answering < 2 && !self.watch.any_together {
            return;
        }
        self.watch.any_together = answering > 1;
        for higher in 1..self.nodes.len() {
            for lower in 0..higher {
                self.check_pair(lower, higher, end);
            }
        }
    }

    fn check_pair(&mut self, a: usize, b: usize, end: Instant) {
        let both_until =
            self.nodes[a].answers_until(self.now).min(self.nodes[b].answers_until(self.now)).min(end);
        if both_until <= self.now {
            self.watch.directions[a][b].together = Instant::NEVER;
            return;
        }
        let since = self.watch.directions[a][b].together.min(self.now);
        self.watch.directions[a][b].together = if both_until < end { Instant::NEVER } else { since };
        if self.is_obstructed(a, b) {
            self.watch.obstruct(a, b, both_until);
            return;
        }
        let obstructed = self.watch.directions[a][b].obstructed;
        let exchange = self.watch.exchange();
        let gives_back = self.nodes[a].gives_back || self.nodes[b].gives_back;
        let exchange = if gives_back { exchange + self.watch.second_exchange() } else { exchange };
        let (since, bound) = if obstructed >= since || self.is_unsure_of_heir(a, b) {
            (obstructed.max(since), by_slow_clock(self.watch.longest_interval) + exchange)
        } else {
            (since, exchange)
        };
        if both_until > since + bound {
            let together = both_until.since(since);
            let what = format!("n{a} and n{b} answer together for {together:?}, not {bound:?} at most");
            self.watch.violated(Invariant::Overlap, both_until, what);
        }
    }

    /// Whether one is leaving, and takes the first word of an heir of the lowest priority for a question.
    fn is_unsure_of_heir(&self, a: usize, b: usize) -> bool {
        [(a, b), (b, a)].into_iter().any(|(leaving, heir)| {
            let heir = self.nodes[heir].parameters.priority;
            self.nodes[leaving].machine.is_handing_over() && heir == Priority::LOWEST
        })
    }

    /// Whether something keeps two owners from hearing each other now.
    fn is_obstructed(&self, a: usize, b: usize) -> bool {
        let (one, other) = (&self.nodes[a], &self.nodes[b]);
        let nobody_advertises =
            one.machine.state() != State::Active && other.machine.state() != State::Active;
        !one.speaks(self.now)
            || !other.speaks(self.now)
            || self.blocked[a][b]
            || self.blocked[b][a]
            || nobody_advertises
    }

    /// The longest that two routers answer together after the last obstacle.
    pub(crate) fn longest_dispute(&self) -> Duration {
        by_slow_clock(self.watch.longest_interval) + self.watch.exchange()
    }
}
