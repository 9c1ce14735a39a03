//! Tells at once that a thread of another process died: a lock in shared memory that the kernel takes from the dead.
//!
//! A robust, process-shared mutex (futex(2), set_robust_list(2)). The dying thread gives it up first thing, before its
//! process's memory and descriptors go. A stopped or traced thread keeps it.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const SIZE: usize = size_of::<libc::pthread_mutex_t>();

/// The lock, in memory that can be handed to another process ([`AsFd`]).
#[derive(Debug)]
pub struct Lifeline {
    memory: OwnedFd,
    lock: NonNull<libc::pthread_mutex_t>,
}

// SAFETY: a pthread mutex is made for being used by any thread, and the memory is mapped as long as `self` lives.
unsafe impl Send for Lifeline {}
// SAFETY: as above.
unsafe impl Sync for Lifeline {}

/// The lock is held by this thread until this is dropped, or the thread dies. A panic that unwinds drops it without
/// letting go: that is a death, too.
#[derive(Debug)]
pub struct Held {
    lifeline: Arc<Lifeline>,
    /// Only the thread that took the lock may give it back.
    _not_send: PhantomData<*const ()>,
}

/// How the holder's hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It died.
    Died,
    /// It let go.
    LetGo,
}

impl Lifeline {
    /// A new one, held by nobody.
    ///
    /// # Errors
    /// No memory or descriptors are left; no memfd (Linux 3.17), or a system that forbids it.
    pub fn create() -> io::Result<Self> {
        let memory = memfd_create("viplane-lifeline", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, SIZE as u64)?;
        let lifeline = Self::open(memory)?;
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: `attributes` is initialised by the first call before the others use it, and `lock` points to writable
        // memory that nobody else uses yet.
        unsafe {
            let attributes = attributes.as_mut_ptr();
            check(libc::pthread_mutexattr_init(attributes))?;
            check(libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED))?;
            check(libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST))?;
            check(libc::pthread_mutex_init(lifeline.lock.as_ptr(), attributes))?;
        }
        Ok(lifeline)
    }

    /// One that another process has created, by its memory.
    ///
    /// # Errors
    /// The memory cannot be mapped.
    pub(super) fn open(memory: OwnedFd) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let start = unsafe {
            mmap(std::ptr::null_mut(), SIZE, ProtFlags::READ | ProtFlags::WRITE, flags, &memory, 0)
        }?;
        let lock = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { memory, lock })
    }

    /// Takes the lock for the calling thread.
    ///
    /// # Errors
    /// It was held before, by a thread that died.
    pub fn hold(self: &Arc<Self>) -> io::Result<Held> {
        // SAFETY: `lock` points to an initialised mutex that is mapped as long as `self` lives.
        check(unsafe { libc::pthread_mutex_lock(self.lock.as_ptr()) })?;
        Ok(Held { lifeline: Arc::clone(self), _not_send: PhantomData })
    }

    /// Waits until the holder dies or lets go. Nobody may wait before there is a holder.
    ///
    /// # Errors
    /// The lock is beyond repair: its holder died, and somebody was told before.
    pub fn wait(&self) -> io::Result<End> {
        // SAFETY: as in `hold`.
        match unsafe { libc::pthread_mutex_lock(self.lock.as_ptr()) } {
            libc::EOWNERDEAD => Ok(End::Died),
            locked => {
                check(locked)?;
                // SAFETY: as above, and this thread has just locked it.
                check(unsafe { libc::pthread_mutex_unlock(self.lock.as_ptr()) })?;
                Ok(End::LetGo)
            }
        }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        // The mutex is not destroyed: another process may wait for it. It has nothing beside its memory.
        // SAFETY: the mapping was made by `open` with this size, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.lock.as_ptr().cast(), SIZE) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
    }
}

impl Held {
    /// Keeps the lock to the end of the thread, which then counts as dead.
    pub fn until_death(self) {
        // Its memory stays mapped, too, or the kernel would not find the lock.
        std::mem::forget(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(Arc::clone(&self.lifeline));
            return;
        }
        // SAFETY: the lock is mapped as long as the lifeline lives, and this thread holds it: `Held` is not Send.
        let unlocked = unsafe { libc::pthread_mutex_unlock(self.lifeline.lock.as_ptr()) };
        debug_assert_eq!(unlocked, 0, "the lock is held by this thread");
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// What is heard of a thread that took the lock and then did `then`.
    fn end_of(then: impl FnOnce(Held) + Send + 'static) -> End {
        let lifeline = Arc::new(Lifeline::create().unwrap());
        let (taken, is_taken) = channel();
        let holder = {
            let lifeline = Arc::clone(&lifeline);
            thread::spawn(move || {
                let held = lifeline.hold().unwrap();
                taken.send(()).unwrap();
                then(held);
            })
        };
        is_taken.recv().unwrap();
        // As the watcher does: by memory of its own at the same pages.
        let other = Lifeline::open(lifeline.memory.try_clone().unwrap()).unwrap();
        let end = other.wait().unwrap();
        let _ = holder.join();
        end
    }

    #[test]
    fn a_thread_that_lets_go_has_not_died() {
        assert_eq!(end_of(drop), End::LetGo);
    }

    #[test]
    fn a_thread_that_ends_without_letting_go_has_died() {
        assert_eq!(end_of(Held::until_death), End::Died);
    }

    #[test]
    fn a_thread_that_panics_has_died() {
        assert_eq!(end_of(|_held| panic!("as it is to")), End::Died);
    }
}
