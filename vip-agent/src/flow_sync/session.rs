//! Whether a datagram of a peer is news, without any clock but one's own. Pure.
//!
//! Each end draws a number and believes a datagram that repeats it: whoever made that one has the key, and lives. A peer that
//! has a number which is not known has been started anew, or is a recording: it is asked by a fresh number, which no recording
//! can repeat. While the peer that is known is heard, nobody else is listened to: so recordings cost nothing.

use std::time::Duration;

use super::codec::Nonce;
use crate::types::MonotonicTime;

/// A peer that was silent for so long may have been started anew.
pub const SILENCE: Duration = Duration::from_secs(3);

/// Datagrams that may overtake each other.
const WINDOW: u64 = 64;

/// One end's view of a session.
#[derive(Clone, Debug)]
pub struct Session {
    /// What the peer is to repeat.
    mine: Nonce,
    /// What the peer is known by, once it has repeated that.
    theirs: Option<Nonce>,
    /// What a peer is to repeat that was started anew.
    next: Option<Nonce>,
    heard: MonotonicTime,
    sent: u64,
    received: Window,
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// News of the peer.
    Fresh,
    /// The first of a session: nothing of a former one counts any more.
    Begun,
    /// Perhaps a peer that was started anew: it is to be asked.
    Stranger,
    /// A recording, a double, or far too late.
    Stale,
}

impl Session {
    /// With nobody yet. `mine` was never used before.
    pub fn new(mine: Nonce) -> Self {
        let received = Window::default();
        Self { mine, theirs: None, next: None, heard: MonotonicTime::ZERO, sent: 0, received }
    }

    /// Whether both ends have answered each other.
    pub const fn is_established(&self) -> bool {
        self.theirs.is_some()
    }

    /// How long the peer was not heard; `None`: it never was.
    pub fn silent_for(&self, now: MonotonicTime) -> Option<Duration> {
        self.theirs.map(|_| now.since(self.heard))
    }

    /// Judges what came; `draw` makes a number that was never used before.
    pub fn admit(
        &mut self,
        (from, to, sequence): (Nonce, Option<Nonce>, u64),
        now: MonotonicTime,
        draw: impl FnOnce() -> Nonce,
    ) -> Standing {
        if self.theirs == Some(from) && to == Some(self.mine) {
            if !self.received.admit(sequence) {
                return Standing::Stale;
            }
            self.heard = now;
            return Standing::Fresh;
        }
        let asked = if self.theirs.is_some() { self.next } else { Some(self.mine) };
        if asked.is_some() && to == asked {
            self.mine = self.next.take().unwrap_or(self.mine);
            (self.theirs, self.heard, self.sent) = (Some(from), now, 0);
            self.received = Window::default();
            self.received.admit(sequence);
            return Standing::Begun;
        }
        if self.theirs.is_some() && now.since(self.heard) < SILENCE {
            return Standing::Stale;
        }
        if self.theirs.is_some() && self.next.is_none() {
            self.next = Some(draw());
        }
        Standing::Stranger
    }

    /// By which numbers and with which sequence the next datagram to the peer goes.
    pub fn numbers(&mut self) -> (Nonce, Option<Nonce>, u64) {
        self.sent += 1;
        (self.mine, self.theirs, self.sent)
    }

    /// The same for the question to a stranger.
    pub fn question(&self, stranger: Nonce) -> (Nonce, Option<Nonce>, u64) {
        (self.next.unwrap_or(self.mine), Some(stranger), 0)
    }
}

/// Which sequence numbers were there (RFC 4303, 3.4.3).
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// The greatest.
    last: u64,
    /// Those before it, the last one in the lowest bit.
    seen: u64,
}

impl Window {
    fn admit(&mut self, sequence: u64) -> bool {
        if sequence > self.last || self.seen == 0 {
            let ahead = sequence.saturating_sub(self.last);
            self.seen = if ahead < WINDOW { self.seen << ahead } else { 0 } | 1;
            self.last = sequence;
            return true;
        }
        let behind = self.last - sequence;
        if behind >= WINDOW || self.seen & 1 << behind != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}
