//! Everybody on one interface: who is followed, what is said and when, and whose owner is dead.

use std::time::Duration;

use arrayvec::ArrayVec;
use vip_common::heartbeat::{Claims, Kind, Message, Owned, Promise, Succession};

use super::peer::Peer;
use super::{ASKED, AWAKE, CENSUS, Covered, HEIR_TIMES, IDLE, LATELY, PEERS, Signs};
use crate::dataplane::PeerSlot;
use crate::types::{Family, MonotonicTime, VirtualRouterId};
use crate::vrrp::machine::OwnerLife;

/// Claims are said this many times, this long apart, when they change: a lost one leaves us uncovered.
const CLAIMED: u8 = 3;
const AGAIN: Duration = Duration::from_millis(2);

/// What is to be sent to everybody.
#[expect(clippy::large_enum_variant, reason = "it is sent at once, by a thread that does not allocate")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A heartbeat or a question.
    Message(Message),
    /// What we own.
    Claims(Claims),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Link {
    /// The number of this node.
    node: u64,
    /// What we own here and how often we say so.
    owned: Owned,
    interval: Duration,
    edition: u32,
    next_heartbeat: MonotonicTime,
    next_claims: MonotonicTime,
    repeats: u8,
    /// What we would take over if its owner were dead, and the least multiplier of those.
    succession: Succession,
    watched: Owned,
    multiplier: u8,
    next_census: MonotonicTime,
    last_question: MonotonicTime,
    /// The last time of a frame of ours: each is later than the one before.
    last_time: u64,
    /// Until when nobody is counted on: frames came up here that the program should have kept.
    blind_until: MonotonicTime,
    peers: ArrayVec<Peer, PEERS>,
}

impl Link {
    /// Knows nobody yet, and greets and asks at once. `node` is the number of this node, not 0.
    pub fn new(node: u64, now: MonotonicTime) -> Self {
        Self {
            node,
            owned: Owned::default(),
            interval: IDLE,
            edition: 1,
            next_heartbeat: MonotonicTime::NEVER,
            next_claims: now,
            repeats: 0,
            succession: Succession::default(),
            watched: Owned::default(),
            multiplier: u8::MAX,
            next_census: now,
            last_question: MonotonicTime::ZERO,
            last_time: 0,
            blind_until: MonotonicTime::ZERO,
            peers: ArrayVec::new(),
        }
    }

    /// The number of this node.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// What this node owns now, and how often it is to say so.
    pub fn own(&mut self, owned: Owned, interval: Duration, now: MonotonicTime) {
        if (owned, interval) == (self.owned, self.interval) {
            return;
        }
        if self.owned.is_empty() || interval != self.interval {
            self.next_heartbeat = now;
        }
        if owned.is_empty() {
            self.next_heartbeat = MonotonicTime::NEVER;
        }
        (self.owned, self.interval) = (owned, interval);
        self.edition = self.edition.wrapping_add(1);
        self.next_claims = now;
        self.repeats = CLAIMED;
    }

    /// Follows nobody any more.
    pub fn forget_all(&mut self, forget: impl Fn(PeerSlot)) {
        self.peers.drain(..).for_each(|peer| forget(peer.slot));
    }

    /// What this node would take over, and the least multiplier by which.
    pub fn watch(&mut self, succession: Succession, multiplier: u8, now: MonotonicTime) {
        self.multiplier = multiplier;
        if std::mem::replace(&mut self.succession, succession) != succession {
            self.watched = succession.routers();
            self.next_claims = now;
            self.repeats = CLAIMED;
        }
    }

    /// Takes in somebody's claims. `follow` finds a slot for one who was not known; `forget` gives one back.
    pub fn hear(
        &mut self,
        claims: Claims,
        now: MonotonicTime,
        follow: impl FnOnce(u64) -> Option<PeerSlot>,
        forget: impl FnOnce(PeerSlot),
    ) {
        if claims.node == self.node || claims.node == 0 {
            return;
        }
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.claims.node == claims.node) {
            // Later than the last, as with all that is heard.
            if claims.time > peer.claims.time {
                peer.claims = claims;
            }
            return;
        }
        if self.peers.is_full()
            && let Some(oldest) = (0..PEERS).min_by_key(|&index| self.peers[index].signs.last())
        {
            forget(self.peers.swap_remove(oldest).slot);
        }
        let Some(slot) = follow(claims.node) else { return };
        self.peers.push(Peer::new(slot, claims));
        // It is to know us, and we whether it answers.
        self.next_claims = now;
        self.next_census = now;
    }

    /// A frame came up that the program should have kept: it does not run here, and silence means nothing.
    pub fn is_blind(&mut self, now: MonotonicTime) {
        self.blind_until = now + LATELY;
    }

    /// Looks at what the program has noted. Whether anybody who is watched is late, so that [`Self::life`] has news.
    pub fn look(
        &mut self,
        now: MonotonicTime,
        signs: impl Fn(PeerSlot) -> Signs,
        forget: impl Fn(PeerSlot),
    ) -> bool {
        for peer in &mut self.peers {
            peer.update(signs(peer.slot));
        }
        // One that was greeted a moment ago has not been heard yet.
        let greeted = now.since(self.last_question) < ASKED;
        self.peers.retain(|peer| {
            let stays = !peer.is_forgotten(now) || greeted && peer.signs == Signs::default();
            if !stays {
                forget(peer.slot);
            }
            stays
        });
        self.watched_peers().any(|peer| peer.ask_at(self.multiplier) <= now)
    }

    /// What is known of a virtual router's owner. `advert` is when one was last accepted from anybody: who was silent
    /// before that is not the owner, or speaks by adverts alone.
    pub fn life(
        &self,
        family: Family,
        id: VirtualRouterId,
        multiplier: u8,
        advert: MonotonicTime,
        now: MonotonicTime,
    ) -> OwnerLife {
        if now < self.blind_until {
            return OwnerLife::Alive;
        }
        let owners = self.owners(family, id).filter(|peer| peer.signs.last() + peer.interval() * 2 >= advert);
        let lives = owners.filter_map(|peer| {
            let life = peer.life(multiplier, now, |asked| self.hears(peer, asked))?;
            let OwnerLife::Dead { since, longest_skew, .. } = life else { return Some(life) };
            let others_first = longest_skew * HEIR_TIMES * self.heirs_before_us(family, id, peer);
            Some(OwnerLife::Dead { since, longest_skew, others_first })
        });
        lives.reduce(liveliest).unwrap_or_default()
    }

    /// How many others would rather take over from a dead owner, of those that answered since it fell silent. Equals go by
    /// their numbers: it is better that one of them is late than that both are the first.
    fn heirs_before_us(&self, family: Family, id: VirtualRouterId, dead: &Peer) -> u32 {
        let ours = (priority(&self.succession, family, id), self.node);
        let comes_first = |peer: &&Peer| {
            let theirs = priority(&peer.claims.succession, family, id);
            peer.claims.node != dead.claims.node
                && theirs.is_some()
                && (theirs, peer.claims.node) > ours
                && peer.signs.asked >= dead.first_asked()
        };
        self.peers.iter().filter(comes_first).map(|_| 1).sum()
    }

    /// The owner of a virtual router, if it is watched.
    pub fn covered(&self, family: Family, id: VirtualRouterId, now: MonotonicTime) -> Option<Covered> {
        let owner =
            self.owners(family, id).filter(|peer| peer.is_covered()).max_by_key(|peer| peer.signs.heard)?;
        let Signs { heard, answered, asked, .. } = owner.signs;
        (now >= self.blind_until && now.since(heard) < LATELY)
            .then(|| Covered { heard, echo: answered.since(asked) })
    }

    fn owners(&self, family: Family, id: VirtualRouterId) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(move |peer| match family {
            Family::V4 => peer.claims.owned.v4.contains(id.get()),
            Family::V6 => peer.claims.owned.v6.contains(id.get()),
        })
    }

    /// Whether somebody else was heard, of what was asked since `asked`; true if there is nobody else.
    fn hears(&self, silent: &Peer, asked: MonotonicTime) -> bool {
        let answer_else = |peer: &&Peer| {
            peer.claims.node != silent.claims.node
                && silent.signs.last().since(peer.signs.answered) < LATELY
                && !peer.was_silent_before(silent)
        };
        let mut others = self.peers.iter().filter(answer_else).peekable();
        others.peek().is_none() || others.any(|peer| peer.signs.asked >= asked)
    }

    /// The next frame that is due; `None` if there is none now.
    pub fn next_frame(&mut self, now: MonotonicTime) -> Option<Frame> {
        if self.next_heartbeat <= now {
            let on_time = self.next_heartbeat + self.interval;
            self.next_heartbeat = if on_time > now { on_time } else { now + self.interval };
            return Some(self.message(Kind::Heartbeat, self.promise().word(), now));
        }
        if self.next_claims <= now {
            self.repeats = self.repeats.saturating_sub(1);
            self.next_claims = now + if self.repeats == 0 { CENSUS } else { AGAIN };
            let (promise, time) = (self.promise(), self.time(now));
            let Self { node, owned, succession, .. } = *self;
            return Some(Frame::Claims(Claims { node, time, promise, owned, succession }));
        }
        if self.next_question() <= now {
            self.next_census = now + ASKED;
            self.last_question = now;
            self.peers.iter_mut().for_each(|peer| peer.note_question(now));
            return Some(self.message(Kind::Question, 0, now));
        }
        None
    }

    /// When there is something to send or to judge.
    pub fn next_timer(&self, now: MonotonicTime) -> MonotonicTime {
        let turns = self.watched_peers().map(|peer| peer.turns_at(self.multiplier, now)).min();
        let turns = turns.unwrap_or(MonotonicTime::NEVER);
        self.next_heartbeat.min(self.next_claims).min(self.next_question()).min(turns)
    }

    /// Whether what comes next is worth staying awake for.
    pub fn stays_awake(&self, now: MonotonicTime) -> bool {
        self.watched_peers().any(Peer::is_in_question) && self.next_timer(now) < now + AWAKE
    }

    fn next_question(&self) -> MonotonicTime {
        let ask_at = |peer: &Peer| peer.ask_again_at(self.multiplier, self.last_question);
        self.watched_peers().map(ask_at).min().unwrap_or(MonotonicTime::NEVER).min(self.next_census)
    }

    fn watched_peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| is_watched(peer, self.watched))
    }

    fn promise(&self) -> Promise {
        let interval = u32::try_from(self.interval.as_micros()).unwrap_or(u32::MAX);
        Promise { interval, edition: self.edition }
    }

    fn message(&mut self, kind: Kind, body: u64, now: MonotonicTime) -> Frame {
        Frame::Message(Message { kind, node: self.node, time: self.time(now), body })
    }

    /// The time to put into a frame: `now`, and later than in the last one.
    fn time(&mut self, now: MonotonicTime) -> u64 {
        self.last_time = now.0.max(self.last_time + 1);
        self.last_time
    }
}

/// Whether its silence matters to us.
fn is_watched(peer: &Peer, watched: Owned) -> bool {
    peer.is_covered() && peer.claims.owned.intersects(&watched)
}

fn priority(succession: &Succession, family: Family, id: VirtualRouterId) -> Option<u8> {
    match family {
        Family::V4 => succession.v4.get(id.get()),
        Family::V6 => succession.v6.get(id.get()),
    }
}

/// One owner that lives is enough.
fn liveliest(one: OwnerLife, other: OwnerLife) -> OwnerLife {
    match (one, other) {
        (OwnerLife::Alive, _) | (_, OwnerLife::Alive) => OwnerLife::Alive,
        (OwnerLife::Suspected, _) | (_, OwnerLife::Suspected) => OwnerLife::Suspected,
        (
            OwnerLife::Dead { since, longest_skew, others_first },
            OwnerLife::Dead { since: later, longest_skew: longer, others_first: patient },
        ) => OwnerLife::Dead {
            since: since.max(later),
            longest_skew: longest_skew.max(longer),
            others_first: others_first.max(patient),
        },
    }
}
