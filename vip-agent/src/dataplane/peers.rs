//! Signs of life of other nodes: memory in which the XDP program notes them, and its slots.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vip_common::heartbeat::Promise;
use vip_common::maps::{MAX_PEERS, PEER_WAYS, PeerWord, peer_slots};

use super::ownership::Words;
use crate::types::MonotonicTime;
use crate::vrrp::detect::Signs;

/// Index of a node's words: below [`MAX_PEERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerSlot(pub(crate) u16);

/// The words of all nodes that are followed. A clone writes to the same memory.
#[derive(Clone, Debug)]
pub struct PeerWords(Arc<Words>);

impl PeerWords {
    /// Maps `PEERS`, which must be a mmapable array of [`MAX_PEERS`] entries.
    pub(super) fn map(peers: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(Arc::new(Words::map(peers, MAX_PEERS as usize * PeerWord::COUNT)?)))
    }

    /// From now on notes what comes from this node (not 0) on this interface; `None` if all slots are taken in which its
    /// number may be.
    pub fn follow(&self, node: u64, ifindex: u32) -> Option<PeerSlot> {
        let slots = (0..PEER_WAYS).filter_map(|way| u16::try_from(peer_slots(node) + way).ok().map(PeerSlot));
        let free = |slot: &PeerSlot| self.word(*slot, PeerWord::Node).load(Ordering::Relaxed) == 0;
        let slot = slots.into_iter().find(free)?;
        for word in [PeerWord::Heard, PeerWord::Sent, PeerWord::Promise, PeerWord::Answered, PeerWord::Asked]
        {
            self.word(slot, word).store(0, Ordering::Relaxed);
        }
        self.word(slot, PeerWord::Interface).store(ifindex.into(), Ordering::Relaxed);
        // Last: what the program finds is complete.
        self.word(slot, PeerWord::Node).store(node, Ordering::Release);
        Some(slot)
    }

    /// Notes nothing of this node any more.
    pub fn forget(&self, slot: PeerSlot) {
        self.word(slot, PeerWord::Node).store(0, Ordering::Release);
    }

    /// What was noted.
    pub fn signs(&self, slot: PeerSlot) -> Signs {
        let time = |word| MonotonicTime(self.word(slot, word).load(Ordering::Acquire));
        // The program stores the arrivals last.
        let (heard, answered) = (time(PeerWord::Heard), time(PeerWord::Answered));
        let promise = Promise::of(self.word(slot, PeerWord::Promise).load(Ordering::Relaxed));
        Signs { heard, promise, answered, asked: time(PeerWord::Asked) }
    }

    fn word(&self, slot: PeerSlot, word: PeerWord) -> &AtomicU64 {
        &self.0.as_slice()[usize::from(slot.0) * PeerWord::COUNT + word as usize]
    }
}
