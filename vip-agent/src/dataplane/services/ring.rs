//! Rings in the memory of maps: built by several threads, as each takes as long as thousands of packets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vip_common::steering::maglev::{self, Candidate};
use vip_common::steering::tables::RingPair;

use super::super::sys;
use super::wanted::RING;

/// As many threads build at most, and none is started for fewer rings than that.
const MOST_THREADS: usize = 4;
const RINGS_PER_THREAD: usize = 16;

/// A map that holds a ring. All without candidates are one.
#[derive(Clone, Debug)]
pub(super) struct Ring(Arc<OwnedFd>);

impl Ring {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn new(candidates: &[Candidate]) -> io::Result<Self> {
        let map = sys::create_ring(RING)?;
        let mut memory = Memory::of(map.as_fd())?;
        let mut candidates = candidates.to_vec();
        maglev::fill(memory.words(), RING, &mut candidates)
            .map_err(|refused| io::Error::other(format!("no ring was built: {refused:?}")))?;
        Ok(Self(Arc::new(map)))
    }
}

/// Builds one ring for each list of candidates.
pub(super) fn build(lists: &[&[Candidate]]) -> io::Result<Vec<Ring>> {
    let nobody = if lists.iter().any(|list| list.is_empty()) { Some(Ring::new(&[])?) } else { None };
    let one = |list: &&[Candidate]| match &nobody {
        Some(nobody) if list.is_empty() => Ok(nobody.clone()),
        _ => Ring::new(list),
    };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let threads = cpus.min(MOST_THREADS).min(lists.len() / RINGS_PER_THREAD).max(1);
    let share = lists.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut shares = lists.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<_> = shares
            .map(|lists| scope.spawn(move || lists.iter().map(one).collect::<io::Result<Vec<_>>>()))
            .collect();
        let mut rings = own.iter().map(one).collect::<io::Result<Vec<_>>>()?;
        for other in others {
            let built = other.join().map_err(|_| io::Error::other("a thread that built rings failed"))?;
            rings.extend(built?);
        }
        Ok(rings)
    })
}

/// A ring's map in this process's memory, before anybody else knows of it.
struct Memory {
    start: *mut u32,
}

impl Memory {
    const BYTES: usize = RING.pairs() as usize * size_of::<RingPair>();

    fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                Self::BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                map,
                0,
            )
        }?;
        Ok(Self { start: start.cast() })
    }

    fn words(&mut self) -> &mut [u32] {
        // SAFETY: the mapping holds as many words, without gaps between its pairs, for as long as `self` lives and is page aligned; the map is in no other
        // map and known to nobody else, so that nothing else reads or writes it.
        unsafe { std::slice::from_raw_parts_mut(self.start, RING.get() as usize) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `of` with this size, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), Self::BYTES) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
    }
}
