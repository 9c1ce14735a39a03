//! What becomes of a heartbeat, question or answer that arrives: a pure function but for the peers' words.

use super::{Kind, Message};
use crate::decision::{Tables, interface};
use crate::maps::{HeartbeatLink, PEER_WAYS, PeerWord, peer_slots};
use crate::packet::BytesMut;
use crate::packet::ethernet::{self, Mac};
use crate::reason::Reason;

/// What is looked up and noted: BPF maps in the kernel, plain collections in tests.
pub trait Peers: Tables {
    /// `HEARTBEAT_LINKS`, by the interface that adverts go by.
    fn link(&self, ifindex: u32) -> Option<HeartbeatLink>;
    /// One word of `PEERS`; 0 for a slot that does not exist.
    fn word(&self, slot: u32, word: PeerWord) -> u64;
    /// Stores one word of `PEERS`.
    fn note(&self, slot: u32, word: PeerWord, value: u64);
}

/// A frame of ours, which is counted and goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Slot of the interface, for the counters.
    pub link: u16,
    /// Why: [`Reason::HeartbeatAnswered`] if the frame has become the answer, which goes out; otherwise it is dropped.
    pub reason: Reason,
}

/// Takes in a frame; `None` if it is none of these, or nothing is detected on the interface: it passes, uncounted.
///
/// Nothing is returned of what was read, and effects are had at once: of an `Option` LLVM moves about what is not there,
/// too, and the verifier lets nobody read a register that was never written.
#[inline(always)]
pub fn receive<B: BytesMut + ?Sized, T: Peers>(frame: &mut B, tables: &T) -> Option<Received> {
    let header = ethernet::Header::read(frame)?;
    if header.ethertype != ethernet::HEARTBEAT {
        return None;
    }
    let at = header.payload;
    let kind = Message::kind(frame, at)?;
    if kind == Kind::Claims {
        return None;
    }
    let ifindex = interface(&header, tables)?;
    let link = tables.link(ifindex)?;
    let unverified = Message::read(frame, at, kind)?;
    let reason = match unverified.verify(link.key) {
        None => Reason::HeartbeatForged,
        Some(message) if kind == Kind::Question => answer(frame, at, &message, &link)?,
        Some(message) => stamp(ifindex, &message, &link, tables),
    };
    Some(Received { link: link.slot, reason })
}

/// Writes the answer in the place of the question: it goes to whoever asked and says so.
#[inline(always)]
fn answer<B: BytesMut + ?Sized>(
    frame: &mut B,
    at: usize,
    question: &Message,
    link: &HeartbeatLink,
) -> Option<Reason> {
    let asker = ethernet::source(frame)?;
    if question.node == link.node || !asker.is_station() {
        return Some(Reason::HeartbeatStale);
    }
    let answer = Message { kind: Kind::Answer, node: link.node, time: question.time, body: question.node };
    answer.write(frame, at, link.key)?;
    asker.store(frame, ethernet::DESTINATION)?;
    Mac::new(link.mac).store(frame, ethernet::SOURCE)?;
    Some(Reason::HeartbeatAnswered)
}

/// Notes a heartbeat or an answer.
#[inline(always)]
fn stamp<T: Peers>(ifindex: u32, message: &Message, link: &HeartbeatLink, tables: &T) -> Reason {
    let answers = message.kind == Kind::Answer;
    // Somebody else's question has somebody else's answer.
    if answers && message.body != link.node {
        return Reason::HeartbeatUnknown;
    }
    let first = peer_slots(message.node);
    let mut way = 0;
    while way < PEER_WAYS {
        let slot = first + way;
        if tables.word(slot, PeerWord::Node) == message.node
            && tables.word(slot, PeerWord::Interface) == u64::from(ifindex)
        {
            let now = tables.now();
            return if answers {
                answered(slot, message, now, tables)
            } else {
                heard(slot, message, now, tables)
            };
        }
        way += 1;
    }
    Reason::HeartbeatUnknown
}

/// The arrival comes last: who sees it sees what arrived. Two CPUs at the same instant may leave the earlier of two signs of
/// life, which does no harm: they are some nanoseconds apart.
#[inline(always)]
fn heard<T: Peers>(slot: u32, heartbeat: &Message, now: u64, tables: &T) -> Reason {
    if heartbeat.time <= tables.word(slot, PeerWord::Sent) {
        return Reason::HeartbeatStale;
    }
    tables.note(slot, PeerWord::Promise, heartbeat.body);
    tables.note(slot, PeerWord::Sent, heartbeat.time);
    tables.note(slot, PeerWord::Heard, now);
    Reason::HeartbeatStamped
}

#[inline(always)]
fn answered<T: Peers>(slot: u32, answer: &Message, now: u64, tables: &T) -> Reason {
    // We asked: by our own clock, and not in the future.
    if answer.time <= tables.word(slot, PeerWord::Asked) || answer.time > now {
        return Reason::HeartbeatStale;
    }
    tables.note(slot, PeerWord::Asked, answer.time);
    tables.note(slot, PeerWord::Answered, now);
    Reason::HeartbeatStamped
}
