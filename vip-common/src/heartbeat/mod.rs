//! The private frames of fast detection: heartbeats of owners, questions whether a host lives, its answers, and claims.
//!
//! A frame of its own EtherType, so that no other frame pays for them:
//!
//! ```text
//!  0        4       5      6    8       16       24       32      40     96           608
//! | "vipl" | version | kind | 0  | node  | time   | body   | seal  |                           heartbeat, question, answer
//! | "vipl" | version | kind | 0  | node  | time   | body   | owned        | succession | seal  claims
//! ```
//!
//! Numbers are little-endian: what the seal is computed over, word by word. The program reads the first three kinds;
//! claims go up to the agent.

mod receive;
mod seal;

pub use self::receive::{Peers, Received, receive};
pub use self::seal::Key;

use crate::packet::{Bytes, BytesMut};

/// What every frame begins with: "vipl", version 1.
const START: [u8; 5] = *b"vipl\x01";

/// [`START`] as it stands in the low bytes of the first word, and the mask for it.
const START_WORD: u64 = u64::from_le_bytes([START[0], START[1], START[2], START[3], START[4], 0, 0, 0]);
const START_MASK: u64 = 0xff_ffff_ffff;

/// Words before the seal, or before the virtual routers of claims.
const WORDS: usize = 4;
/// Words of one [`RouterSet`] and of one [`Priorities`].
const SET_WORDS: usize = 4;
const PRIORITY_WORDS: usize = 32;
/// Words of claims before the seal.
const CLAIMS_WORDS: usize = WORDS + 2 * SET_WORDS + 2 * PRIORITY_WORDS;

/// Bytes of a heartbeat, a question or an answer.
pub const LENGTH: usize = (WORDS + 1) * 8;
/// Bytes of claims.
pub const CLAIMS_LENGTH: usize = (CLAIMS_WORDS + 1) * 8;

/// Offset of the kind.
const KIND: usize = 5;
/// Offset of the node.
const NODE: usize = 8;
/// Offset of the body.
const BODY: usize = 24;
/// Offset of the seal, but for claims.
const SEAL: usize = WORDS * 8;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// "I own": sent by owners, as often as its [`Promise`] says. Stamped by the program.
    Heartbeat = 1,
    /// "Do you live?": sent to everyone. Answered by the program, with no help of the agent.
    Question = 2,
    /// "My kernel does." Stamped by the program of the node that asked.
    Answer = 3,
    /// "These are the virtual routers that I own, and those that I would take over." Read by the agent.
    Claims = 4,
}

impl Kind {
    /// The kind with this number.
    #[inline(always)]
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Heartbeat),
            2 => Some(Self::Question),
            3 => Some(Self::Answer),
            4 => Some(Self::Claims),
            _ => None,
        }
    }
}

/// What a heartbeat promises: its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Microseconds until the next one.
    pub interval: u32,
    /// Which of the sender's claims are in force: grows with each change.
    pub edition: u32,
}

impl Promise {
    /// As a body.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.interval as u64 | (self.edition as u64) << 32
    }

    /// From a body.
    #[inline(always)]
    pub const fn of(word: u64) -> Self {
        Self { interval: word as u32, edition: (word >> 32) as u32 }
    }
}

/// A heartbeat, a question or an answer; the beginning of claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub kind: Kind,
    /// Who sends it: a number that an agent draws at its start. Never 0.
    pub node: u64,
    /// CLOCK_MONOTONIC nanoseconds of the sender, of the asker in an answer: what is not later than the last of its kind
    /// was seen before.
    pub time: u64,
    /// Heartbeats and claims: a [`Promise`]. Answers: who asked. Questions: 0.
    pub body: u64,
}

/// A message as it was read, whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unverified {
    message: Message,
    seal: u64,
}

impl Message {
    #[inline(always)]
    const fn words(&self) -> [u64; WORDS] {
        [START_WORD | (self.kind as u64) << (8 * KIND), self.node, self.time, self.body]
    }

    /// The bytes on the wire.
    pub fn sealed(&self, key: Key) -> [u8; LENGTH] {
        let words = self.words();
        let mut bytes = [0; LENGTH];
        fill(&mut bytes, words.into_iter().chain([key.seal(words)]));
        bytes
    }

    /// Whether such a frame begins at `at`, and of which kind; `None` if it is none of ours.
    #[inline(always)]
    pub fn kind<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Kind> {
        let first = word(frame, at)?;
        let [.., kind, zero, zero_too] = first.to_le_bytes();
        (first & START_MASK == START_WORD && zero == 0 && zero_too == 0).then_some(())?;
        Kind::of(kind)
    }

    /// Reads the rest of one whose [`Self::kind`] is known, but for claims; `None` if it is cut short.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B, at: usize, kind: Kind) -> Option<Unverified> {
        // The last word first: so the verifier of the kernel knows about all of them.
        let seal = word(frame, at + SEAL)?;
        let message = Self {
            kind,
            node: word(frame, at + NODE)?,
            time: word(frame, at + NODE + 8)?,
            body: word(frame, at + BODY)?,
        };
        Some(Unverified { message, seal })
    }

    /// Writes one in the place of another.
    #[inline(always)]
    #[must_use]
    pub fn write<B: BytesMut + ?Sized>(&self, frame: &mut B, at: usize, key: Key) -> Option<()> {
        let words = self.words();
        frame.store(at + SEAL, key.seal(words).to_le_bytes())?;
        let [first, node, time, body] = words;
        frame.store(at, first.to_le_bytes())?;
        frame.store(at + NODE, node.to_le_bytes())?;
        frame.store(at + NODE + 8, time.to_le_bytes())?;
        frame.store(at + BODY, body.to_le_bytes())
    }
}

impl Unverified {
    /// The message, if who wrote it has the key.
    #[inline(always)]
    pub fn verify(&self, key: Key) -> Option<Message> {
        (key.seal(self.message.words()) == self.seal).then_some(self.message)
    }
}

/// The virtual routers of one family that a node owns on an interface: a bit for each VRID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterSet([u64; SET_WORDS]);

impl RouterSet {
    /// Adds a VRID.
    pub const fn insert(&mut self, id: u8) {
        self.0[id as usize / 64] |= 1 << (id % 64);
    }

    /// Whether a VRID is in it.
    pub const fn contains(&self, id: u8) -> bool {
        self.0[id as usize / 64] & 1 << (id % 64) != 0
    }

    /// Whether a VRID is in both.
    pub fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(one, other)| one & other != 0)
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        matches!(self.0, [0, 0, 0, 0])
    }
}

/// What a node owns on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Virtual routers of IPv4.
    pub v4: RouterSet,
    /// Virtual routers of IPv6.
    pub v6: RouterSet,
}

impl Owned {
    /// Whether a virtual router is in both.
    pub fn intersects(&self, other: &Self) -> bool {
        self.v4.intersects(&other.v4) || self.v6.intersects(&other.v6)
    }

    /// Whether it owns nothing.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// With which priority a node waits for the virtual routers of one family: a byte for each VRID, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priorities([u64; PRIORITY_WORDS]);

impl Default for Priorities {
    fn default() -> Self {
        Self([0; PRIORITY_WORDS])
    }
}

impl Priorities {
    /// It waits for this VRID with a priority of 1 to 255.
    pub const fn set(&mut self, id: u8, priority: u8) {
        let (word, shift) = Self::place(id);
        self.0[word] = self.0[word] & !(0xff << shift) | (priority as u64) << shift;
    }

    /// With which priority it waits for a VRID, if it does.
    pub const fn get(&self, id: u8) -> Option<u8> {
        let (word, shift) = Self::place(id);
        match (self.0[word] >> shift) as u8 {
            0 => None,
            priority => Some(priority),
        }
    }

    /// Those that it waits for.
    pub fn routers(&self) -> RouterSet {
        let mut routers = RouterSet::default();
        (1..=u8::MAX).filter(|id| self.get(*id).is_some()).for_each(|id| routers.insert(id));
        routers
    }

    const fn place(id: u8) -> (usize, u32) {
        (id as usize / 8, id as u32 % 8 * 8)
    }
}

/// What a node would take over on an interface if its owner were dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Succession {
    /// Virtual routers of IPv4.
    pub v4: Priorities,
    /// Virtual routers of IPv6.
    pub v6: Priorities,
}

impl Succession {
    /// What it waits for.
    pub fn routers(&self) -> Owned {
        Owned { v4: self.v4.routers(), v6: self.v6.routers() }
    }
}

/// The frame that tells what a node owns, and what it would take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who sends it.
    pub node: u64,
    /// As in [`Message::time`].
    pub time: u64,
    /// How often its heartbeats come, and by which number they mean these claims.
    pub promise: Promise,
    /// What it owns.
    pub owned: Owned,
    /// What it would take over.
    pub succession: Succession,
}

impl Claims {
    fn words(&self) -> [u64; CLAIMS_WORDS] {
        let Self { node, time, promise, owned, succession } = self;
        let message = Message { kind: Kind::Claims, node: *node, time: *time, body: promise.word() };
        let (sets, priorities) = ([owned.v4.0, owned.v6.0], [succession.v4.0, succession.v6.0]);
        let all = message.words().into_iter().chain(sets.into_iter().flatten());
        let mut words = [0; CLAIMS_WORDS];
        for (room, word) in words.iter_mut().zip(all.chain(priorities.into_iter().flatten())) {
            *room = word;
        }
        words
    }

    /// The bytes on the wire.
    pub fn sealed(&self, key: Key) -> [u8; CLAIMS_LENGTH] {
        let words = self.words();
        let mut bytes = [0; CLAIMS_LENGTH];
        fill(&mut bytes, words.into_iter().chain([key.seal(words)]));
        bytes
    }

    /// Reads and verifies claims; `None` if they are none, or whoever wrote them has not the key.
    pub fn open<B: Bytes + ?Sized>(frame: &B, at: usize, key: Key) -> Option<Self> {
        if Message::kind(frame, at)? != Kind::Claims {
            return None;
        }
        let mut words = [0; CLAIMS_WORDS];
        for (index, read) in words.iter_mut().enumerate() {
            *read = word(frame, at + index * 8)?;
        }
        if word(frame, at + words.len() * 8)? != key.seal(words) {
            return None;
        }
        let [_, node, time, body, routers @ ..] = words;
        let mut routers = routers.into_iter();
        let owned = Owned { v4: RouterSet(take(&mut routers)), v6: RouterSet(take(&mut routers)) };
        let succession =
            Succession { v4: Priorities(take(&mut routers)), v6: Priorities(take(&mut routers)) };
        Some(Self { node, time, promise: Promise::of(body), owned, succession })
    }
}

fn take<const N: usize>(words: &mut impl Iterator<Item = u64>) -> [u64; N] {
    core::array::from_fn(|_| words.next().unwrap_or_default())
}

#[inline(always)]
fn word<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<u64> {
    frame.load(at).map(u64::from_le_bytes)
}

fn fill(bytes: &mut [u8], words: impl Iterator<Item = u64>) {
    for (room, word) in bytes.chunks_exact_mut(8).zip(words) {
        room.copy_from_slice(&word.to_le_bytes());
    }
}
