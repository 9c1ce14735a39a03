//! The words that decide who answers: deadlines and handovers in memory shared with the XDP program, and their slots.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vip_common::maps::MAX_ROUTERS;

use super::DataplaneError;
use crate::types::{MacAddr, MonotonicTime};

/// Index of a virtual router's words: below [`MAX_ROUTERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterSlot(u16);

impl RouterSlot {
    /// The index, as [`vip_common::maps::Vip::router`] carries it.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MAX_ROUTERS).filter_map(|slot| u16::try_from(slot).ok().map(Self))
    }
}

/// Hands out router slots, the lowest free one first.
#[derive(Debug, Default)]
pub struct SlotAllocator {
    taken: Vec<bool>,
}

impl SlotAllocator {
    /// Takes a slot.
    ///
    /// # Errors
    /// All [`MAX_ROUTERS`] are taken.
    pub fn allocate(&mut self) -> Result<RouterSlot, DataplaneError> {
        let free = self.taken.iter().position(|taken| !taken).unwrap_or(self.taken.len());
        let full = DataplaneError::Full { what: "virtual router", limit: MAX_ROUTERS };
        let slot = u16::try_from(free).ok().filter(|slot| u32::from(*slot) < MAX_ROUTERS).ok_or(full)?;
        if free == self.taken.len() {
            self.taken.push(true);
        } else {
            self.taken[free] = true;
        }
        Ok(RouterSlot(slot))
    }

    /// Gives a slot back. Its words must have been zeroed before: see [`OwnershipWords::clear`].
    pub fn free(&mut self, slot: RouterSlot) {
        if let Some(taken) = self.taken.get_mut(usize::from(slot.0)) {
            *taken = false;
        }
    }
}

/// The ownership words, by router slot. A clone writes to the same memory; any thread may.
#[derive(Clone, Debug)]
pub struct OwnershipWords {
    deadlines: Arc<Words>,
    handovers: Arc<Words>,
}

impl OwnershipWords {
    /// Maps `DEADLINES` and `HANDOVERS`, which must be mmapable arrays of [`MAX_ROUTERS`] entries.
    pub(super) fn map(deadlines: BorrowedFd<'_>, handovers: BorrowedFd<'_>) -> io::Result<Self> {
        let routers = MAX_ROUTERS as usize;
        Ok(Self {
            deadlines: Arc::new(Words::map(deadlines, routers)?),
            handovers: Arc::new(Words::map(handovers, routers * WORDS_PER_HANDOVER)?),
        })
    }

    /// Answers for the router's VIPs until then ([`MonotonicTime::ZERO`]: no longer). One atomic 8-byte store.
    pub fn store(&self, slot: RouterSlot, until: MonotonicTime) {
        self.deadline(slot).store(until.0, Ordering::Release);
    }

    /// Until when this node answers for the router's VIPs.
    pub fn load(&self, slot: RouterSlot) -> MonotonicTime {
        MonotonicTime(self.deadline(slot).load(Ordering::Acquire))
    }

    /// Answers until then at the latest: an earlier deadline stands.
    pub fn cap(&self, slot: RouterSlot, until: MonotonicTime) {
        self.deadline(slot).fetch_min(until.0, Ordering::AcqRel);
    }

    /// Sends frames of connections that this node does not know to the former owner, until then
    /// ([`MonotonicTime::ZERO`]: no longer).
    ///
    /// The program may read between any two of the stores: it never sees the new time with the former MAC of an
    /// earlier move.
    pub fn hand_over(&self, slot: RouterSlot, former: MacAddr, until: MonotonicTime) {
        let [expiry, station, _] = self.handover(slot);
        let [a, b, c, d, e, f] = former.0;
        let former = u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
        if station.load(Ordering::Relaxed) != former {
            expiry.store(0, Ordering::Relaxed);
            // Release on both: the MAC is not seen before the zero, nor the time before the MAC.
            station.store(former, Ordering::Release);
        }
        expiry.store(until.0, Ordering::Release);
    }

    /// Until when frames are handed to the former owner, and who that is.
    pub fn handing_over(&self, slot: RouterSlot) -> (MacAddr, MonotonicTime) {
        let [expiry, station, _] = self.handover(slot);
        let until = MonotonicTime(expiry.load(Ordering::Acquire));
        let [a, b, c, d, e, f, _, _] = station.load(Ordering::Relaxed).to_ne_bytes();
        (MacAddr([a, b, c, d, e, f]), until)
    }

    /// Takes frames to the router's virtual MAC, and steers those to its VIPs with services, until then without owning it: they are
    /// on their way while it moves ([`MonotonicTime::ZERO`]: no longer). Nobody's question is answered by this.
    pub fn expect(&self, slot: RouterSlot, until: MonotonicTime) {
        let [_, _, in_transit] = self.handover(slot);
        in_transit.store(until.0, Ordering::Release);
    }

    /// Silences a router and forgets whom it succeeded.
    pub fn clear(&self, slot: RouterSlot) {
        self.store(slot, MonotonicTime::ZERO);
        self.expect(slot, MonotonicTime::ZERO);
        self.hand_over(slot, MacAddr::default(), MonotonicTime::ZERO);
    }

    fn deadline(&self, slot: RouterSlot) -> &AtomicU64 {
        &self.deadlines.as_slice()[usize::from(slot.0)]
    }

    fn handover(&self, slot: RouterSlot) -> [&AtomicU64; WORDS_PER_HANDOVER] {
        let first = usize::from(slot.0) * WORDS_PER_HANDOVER;
        let words = self.handovers.as_slice();
        [&words[first], &words[first + 1], &words[first + 2]]
    }
}

/// The deadlines alone, in the memory of a process that looks after the agent.
#[derive(Debug)]
pub struct Deadlines(Words);

impl Deadlines {
    /// Maps `DEADLINES`, or other memory of that size ([`super::Dataplane::deadlines`]). The descriptor is not needed
    /// afterwards; the mapping keeps the map, but no program or link.
    ///
    /// # Errors
    /// The memory cannot be mapped.
    pub fn map(deadlines: BorrowedFd<'_>) -> io::Result<Self> {
        Words::map(deadlines, MAX_ROUTERS as usize).map(Self)
    }

    /// Answers for no router's VIPs from now on. What each deadline was, by slot.
    pub fn release_all(&self) -> [MonotonicTime; MAX_ROUTERS as usize] {
        let mut former = [MonotonicTime::ZERO; MAX_ROUTERS as usize];
        for (former, word) in former.iter_mut().zip(self.0.as_slice()) {
            *former = MonotonicTime(word.swap(0, Ordering::AcqRel));
        }
        former
    }

    /// Sets one, as an agent would.
    pub(crate) fn store(&self, slot: RouterSlot, until: MonotonicTime) {
        self.0.as_slice()[usize::from(slot.0)].store(until.0, Ordering::Release);
    }
}

/// [`vip_common::maps::Handover`] as atomic words: the time, the MAC with its padding, the other time.
const WORDS_PER_HANDOVER: usize = size_of::<vip_common::maps::Handover>() / size_of::<AtomicU64>();
const _: () = assert!(std::mem::offset_of!(vip_common::maps::Handover, former) == size_of::<AtomicU64>());
const _: () =
    assert!(std::mem::offset_of!(vip_common::maps::Handover, in_transit) == 2 * size_of::<AtomicU64>());

/// An mmapable array map in this process's memory.
#[derive(Debug)]
pub(super) struct Words {
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the memory is shared with the kernel anyway, and is only ever touched by atomic operations.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Populated at once, so that the first store to a word does not fault.
    pub(super) fn map(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len * size_of::<AtomicU64>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                map,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, len })
    }

    pub(super) fn as_slice(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds `len` words for as long as `self` lives, is page aligned, and all access to it from
        // this side is atomic; any bits are a valid AtomicU64.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this size, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len * size_of::<AtomicU64>()) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_the_next_one_given_out() {
        let mut slots = SlotAllocator::default();
        let first = slots.allocate().unwrap();
        let second = slots.allocate().unwrap();
        assert_ne!(first, second);
        slots.free(first);
        assert_eq!(slots.allocate().unwrap(), first);
    }

    #[test]
    fn there_are_as_many_slots_as_words_and_no_more() {
        let mut slots = SlotAllocator::default();
        for _ in 0..MAX_ROUTERS {
            slots.allocate().unwrap();
        }
        assert!(matches!(slots.allocate(), Err(DataplaneError::Full { limit: MAX_ROUTERS, .. })));
    }
}
