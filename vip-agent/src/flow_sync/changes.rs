//! What has changed of this node's flows since when, for peers that know different parts of it. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::codec::{Batch, Change};
use super::table::{Flow, FlowKey};
use crate::types::MonotonicTime;

/// Flows that are told to peers: about 20 MiB of memory at most. Beyond them new ones are not told, and are counted.
pub const MAX_FLOWS: usize = 65_536;

/// A flow that lives is told again so often: far less than any flow may be idle for.
const AGAIN: Duration = Duration::from_secs(60);

/// For how long it is told that a flow is over. Who does not hear it lets the flow end by itself.
const OBITUARY: Duration = Duration::from_secs(60);

/// Datagrams that a peer has not acknowledged yet, at most.
pub const IN_FLIGHT: usize = 32;

/// What is not acknowledged for so long is told again.
const PATIENCE: Duration = Duration::from_millis(250);

/// Flows by what tells them apart, and in the order of their last changes.
#[derive(Debug, Default)]
pub struct Changes {
    flows: HashMap<FlowKey, Entry>,
    order: BTreeMap<u64, FlowKey>,
    /// The number of the last change.
    last: u64,
    /// Which reading of the table it is.
    reading: u64,
    untold: u64,
}

#[derive(Debug)]
struct Entry {
    change: u64,
    /// `None`: it is over.
    flow: Option<Flow>,
    /// When that was told first.
    at: MonotonicTime,
    /// The last packet.
    seen: MonotonicTime,
    reading: u64,
}

impl Changes {
    /// The number of the last change.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// How many flows of the last reading were too many.
    pub const fn untold(&self) -> u64 {
        self.untold
    }

    /// The table is about to be read.
    pub fn begin(&mut self) {
        self.reading += 1;
        self.untold = 0;
    }

    /// A flow as it is in the table.
    pub fn note(&mut self, flow: &Flow, now: MonotonicTime) {
        let (reading, seen) = (self.reading, now.before(flow.idle));
        if let Some(entry) = self.flows.get_mut(&flow.key) {
            entry.reading = reading;
            entry.seen = seen;
            let old = entry.flow.is_some_and(|told| told.is_alike(flow));
            let lives = now.since(entry.at) >= AGAIN && seen > entry.at;
            if old && !lives {
                return;
            }
        } else if self.flows.len() >= MAX_FLOWS {
            self.untold += 1;
            return;
        }
        self.change(flow.key, Some(*flow), now, seen);
    }

    /// The table was read: what was not in it is over, or, where `is_ours` says that the VIP is another's now, not our affair any
    /// more.
    pub fn end(&mut self, now: MonotonicTime, is_ours: impl Fn(IpAddr) -> bool) {
        let reading = self.reading;
        let mut over = Vec::new();
        let mut forgotten = Vec::new();
        for (key, entry) in &self.flows {
            if !is_ours(key.vip) || (entry.flow.is_none() && now.since(entry.at) >= OBITUARY) {
                forgotten.push((*key, entry.change));
            } else if entry.flow.is_some() && entry.reading != reading {
                over.push(*key);
            }
        }
        for (key, change) in forgotten {
            self.flows.remove(&key);
            self.order.remove(&change);
        }
        for key in over {
            self.change(key, None, now, now);
        }
    }

    fn change(&mut self, key: FlowKey, flow: Option<Flow>, now: MonotonicTime, seen: MonotonicTime) {
        self.last += 1;
        let entry = Entry { change: self.last, flow, at: now, seen, reading: self.reading };
        if let Some(former) = self.flows.insert(key, entry) {
            self.order.remove(&former.change);
        }
        self.order.insert(self.last, key);
    }

    /// The changes after `base`, as many as there is room for, and up to which one they go.
    fn after(&self, base: u64, now: MonotonicTime) -> (Batch, u64) {
        let mut batch = Batch::default();
        let mut upto = base;
        for (number, key) in self.order.range(base + 1..) {
            let Some(entry) = self.flows.get(key) else { continue };
            let change = match entry.flow {
                Some(flow) => Change::Noted(Flow { idle: now.since(entry.seen), ..flow }),
                None => Change::Gone(*key),
            };
            if !batch.push(&change) {
                return (batch, upto);
            }
            upto = *number;
        }
        // Nothing is left: those numbers that nobody has any more count as told.
        (batch, self.last)
    }
}

/// How much of the changes a peer has.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    acknowledged: u64,
    sent: u64,
    in_flight: VecDeque<u64>,
    /// When something was acknowledged, or was sent while nothing was in flight.
    moved: MonotonicTime,
}

impl Cursor {
    /// How many changes the peer has not acknowledged.
    pub const fn behind(&self, changes: &Changes) -> u64 {
        changes.last.saturating_sub(self.acknowledged)
    }

    /// What to tell next, and after and up to which change; `None` if there is nothing, or the peer has to say first what it
    /// has.
    pub fn next(&mut self, changes: &Changes, now: MonotonicTime) -> Option<(Batch, u64, u64)> {
        if !self.in_flight.is_empty() && now.since(self.moved) >= PATIENCE {
            (self.sent, self.moved) = (self.acknowledged, now);
            self.in_flight.clear();
        }
        if self.sent >= changes.last || self.in_flight.len() >= IN_FLIGHT {
            return None;
        }
        let base = self.sent;
        let (batch, upto) = changes.after(base, now);
        if self.in_flight.is_empty() {
            self.moved = now;
        }
        self.sent = upto;
        self.in_flight.push_back(upto);
        Some((batch, base, upto))
    }

    /// The peer has all up to this one.
    pub fn acknowledge(&mut self, upto: u64, now: MonotonicTime) {
        if upto <= self.acknowledged || upto > self.sent {
            return;
        }
        (self.acknowledged, self.moved) = (upto, now);
        while self.in_flight.front().is_some_and(|sent| *sent <= upto) {
            self.in_flight.pop_front();
        }
    }
}
