//! One node's part of the exchange: what it says to whom, and what it makes of what it hears. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::changes::{Changes, Cursor};
use super::codec::{Batch, Change, Message, Nonce, Refused};
use super::session::{SILENCE, Session, Standing};
use super::table::{FlowTable, Noted};
use crate::types::MonotonicTime;
use crate::vrrp::trailer::KeyRing;

/// Something is said to each peer so often, if only that one is there.
const GREETING: Duration = Duration::from_secs(1);

/// Datagrams to a peer in a second at most: of 1200 bytes, so 5 Mbit/s, and at least 7000 flows of IPv6 or 16 000 of IPv4.
pub const RATE: u32 = 500;

/// Of those at once.
const BURST: u32 = 50;

/// Guests at once: what recordings from that many addresses bring in keeps others out for [`SILENCE`] at most.
const MOST_GUESTS: usize = 32;

/// A guest that was not heard for so long is forgotten.
const GUEST_LEAVES: Duration = Duration::from_secs(60);

/// With whom flows are exchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// Those who are spoken to unasked.
    pub peers: BTreeSet<IpAddr>,
    /// Whether whoever else speaks, and has a key, is a peer as well: an owner does not hear its backups' adverts.
    pub guests: bool,
}

/// What one node says and hears.
#[derive(Debug)]
pub struct Exchange {
    keys: KeyRing,
    changes: Changes,
    peers: BTreeMap<IpAddr, Peer>,
    guests: bool,
    counts: Counts,
}

/// A peer, as this node knows it.
#[derive(Debug)]
struct Peer {
    session: Session,
    cursor: Cursor,
    /// Up to which of its changes this node has all.
    has: u64,
    greeted: Option<MonotonicTime>,
    rate: Rate,
    /// Changes of it were taken in that it has not been told of.
    owes: bool,
    /// Nobody named it: when it spoke first.
    guest_since: Option<MonotonicTime>,
}

/// What came of all that was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes told, those told again included.
    pub told: u64,
    /// Flows of peers, by what became of them.
    pub noted: BTreeMap<Noted, u64>,
    /// Flows of peers that ended.
    pub gone: u64,
    /// Datagrams that were none of a peer's, or none of ours.
    pub refused: u64,
    /// Datagrams that were recordings, doubles, or too late.
    pub stale: u64,
}

/// A peer, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its address.
    pub address: IpAddr,
    /// For how long it was not heard; `None`: no session with it has begun.
    pub silent: Option<Duration>,
    /// How many changes it has not acknowledged yet.
    pub behind: u64,
}

/// A datagram to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The peer.
    pub to: IpAddr,
    /// What to send.
    pub bytes: Vec<u8>,
}

impl Exchange {
    /// With nobody.
    pub fn new(keys: KeyRing) -> Self {
        let (changes, peers, counts) = Default::default();
        Self { keys, changes, peers, guests: false, counts }
    }

    /// These are the peers from now on. Those that stay keep their sessions. `draw` makes numbers that were never used before.
    pub fn set_company(&mut self, company: &Company, mut draw: impl FnMut() -> Nonce) {
        let mut former = std::mem::take(&mut self.peers);
        let named = company.peers.iter().map(|address| {
            let mut peer = former.remove(address).unwrap_or_else(|| Peer::new(draw()));
            peer.guest_since = None;
            (*address, peer)
        });
        self.peers = named.collect();
        self.guests = company.guests;
        let stays = |(_, peer): &(IpAddr, Peer)| company.guests && peer.guest_since.is_some();
        self.peers.extend(former.into_iter().filter(stays));
    }

    /// What came of all that was heard.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The peers, in the order of their addresses.
    pub fn peers(&self, now: MonotonicTime) -> impl Iterator<Item = PeerView> + '_ {
        self.peers.iter().map(move |(address, peer)| PeerView {
            address: *address,
            silent: peer.session.silent_for(now),
            behind: peer.cursor.behind(&self.changes),
        })
    }

    /// How many flows are told, and how many are too many for that.
    pub fn flows(&self) -> (usize, u64) {
        (self.changes.len(), self.changes.untold())
    }

    /// Looks for what has changed.
    ///
    /// # Errors
    /// The table cannot be read: nothing is taken for over.
    pub fn read(&mut self, table: &mut dyn FlowTable, now: MonotonicTime) -> io::Result<()> {
        self.changes.begin();
        table.read(&mut |flow| self.changes.note(&flow, now))?;
        self.changes.end(now, |vip| table.owns(vip));
        Ok(())
    }

    /// Takes in a datagram; yields what is to be said at once.
    pub fn hear(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        table: &mut dyn FlowTable,
        now: MonotonicTime,
        mut draw: impl FnMut() -> Nonce,
    ) -> Option<Datagram> {
        let message = match Message::open(datagram, &self.keys) {
            Ok(message) if self.is_peer(from, now, &mut draw) => message,
            Ok(_) | Err(Refused::Malformed | Refused::UnknownKey | Refused::BadSignature) => {
                self.counts.refused += 1;
                return None;
            }
        };
        let peer = self.peers.get_mut(&from)?;
        match peer.session.admit((message.from, message.to, message.sequence), now, draw) {
            Standing::Stale => {
                self.counts.stale += 1;
                None
            }
            Standing::Stranger => {
                // Not as often as somebody plays recordings.
                let numbers = peer.session.question(message.from);
                let bytes = peer.message(numbers).sealed(&self.keys);
                peer.rate.take(now).then_some(Datagram { to: from, bytes })
            }
            Standing::Begun => {
                // It knows nothing, and nothing is known of it.
                (peer.cursor, peer.has) = (Cursor::default(), 0);
                // Nor does it know that it was heard.
                peer.owes = true;
                peer.take(&message, table, &mut self.counts, now);
                None
            }
            Standing::Fresh => {
                peer.take(&message, table, &mut self.counts, now);
                None
            }
        }
    }

    /// Whether who has a key is listened to; it is a guest from now on, if there is room for one.
    fn is_peer(&mut self, from: IpAddr, now: MonotonicTime, draw: impl FnOnce() -> Nonce) -> bool {
        if self.peers.contains_key(&from) {
            return true;
        }
        let guests = self.peers.values().filter(|peer| peer.guest_since.is_some()).count();
        let welcome = self.guests && guests < MOST_GUESTS;
        if welcome {
            self.peers.insert(from, Peer { guest_since: Some(now), ..Peer::new(draw()) });
        }
        welcome
    }

    /// What is to be said now, and to whom.
    pub fn speak(&mut self, now: MonotonicTime) -> Vec<Datagram> {
        self.peers.retain(|_, peer| !peer.has_left(now));
        let mut said = Vec::new();
        for (&to, peer) in &mut self.peers {
            let before = said.len();
            while peer.session.is_established() && peer.rate.has_room(now) {
                let Some((batch, base, upto)) = peer.cursor.next(&self.changes, now) else { break };
                self.counts.told += u64::from(batch.len());
                let numbers = peer.session.numbers();
                let message = Message { base, upto, ..peer.message(numbers) };
                said.push(Datagram { to, bytes: message.sealed_with(&batch, &self.keys) });
                peer.rate.take(now);
            }
            let late = peer.greeted.is_none_or(|greeted| now.since(greeted) >= GREETING);
            if said.len() == before && (peer.owes || late) && peer.rate.take(now) {
                let numbers = peer.session.numbers();
                let message = peer.message(numbers);
                said.push(Datagram { to, bytes: message.sealed_with(&Batch::default(), &self.keys) });
            }
            if said.len() > before {
                // Whatever was said says what this node has.
                (peer.owes, peer.greeted) = (false, Some(now));
            }
        }
        said
    }
}

impl Peer {
    fn new(mine: Nonce) -> Self {
        Self {
            session: Session::new(mine),
            cursor: Cursor::default(),
            has: 0,
            greeted: None,
            rate: Rate::default(),
            owes: false,
            guest_since: None,
        }
    }

    /// Whether it is a guest that is not heard any more, or never answered: what it said first may have been a recording.
    fn has_left(&self, now: MonotonicTime) -> bool {
        let Some(since) = self.guest_since else { return false };
        match self.session.silent_for(now) {
            Some(silent) => silent >= GUEST_LEAVES,
            None => now.since(since) >= SILENCE,
        }
    }

    /// Says what this node has, and nothing more.
    fn message(&self, (from, to, sequence): (Nonce, Option<Nonce>, u64)) -> Message {
        Message { from, to, sequence, acknowledged: self.has, base: 0, upto: 0, changes: Vec::new() }
    }

    /// Takes in what a peer says. What does not follow on what is known comes again, with what is missing in front of it.
    fn take(
        &mut self,
        message: &Message,
        table: &mut dyn FlowTable,
        counts: &mut Counts,
        now: MonotonicTime,
    ) {
        self.cursor.acknowledge(message.acknowledged, now);
        if message.base == message.upto {
            return;
        }
        self.owes = true;
        if message.base != self.has {
            return;
        }
        for change in &message.changes {
            match change {
                Change::Gone(key) => {
                    counts.gone += 1;
                    table.forget(key);
                }
                Change::Noted(flow) => {
                    let noted = if flow.is_over() { Noted::Over } else { table.note(flow) };
                    *counts.noted.entry(noted).or_default() += 1;
                }
            }
        }
        self.has = message.upto;
    }
}

/// How much may be said: [`RATE`] a second, [`BURST`] at once.
#[derive(Clone, Debug)]
struct Rate {
    /// Thousandths of datagrams.
    left: u64,
    since: Option<MonotonicTime>,
}

impl Default for Rate {
    fn default() -> Self {
        Self { left: u64::from(BURST) * 1000, since: None }
    }
}

impl Rate {
    fn has_room(&mut self, now: MonotonicTime) -> bool {
        let passed = self.since.map_or(Duration::ZERO, |since| now.since(since));
        let milliseconds = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let earned = milliseconds.saturating_mul(RATE.into());
        if earned > 0 || self.since.is_none() {
            self.since = Some(now);
        }
        self.left = self.left.saturating_add(earned).min(u64::from(BURST) * 1000);
        self.left >= 1000
    }

    fn take(&mut self, now: MonotonicTime) -> bool {
        let room = self.has_room(now);
        if room {
            self.left -= 1000;
        }
        room
    }
}
