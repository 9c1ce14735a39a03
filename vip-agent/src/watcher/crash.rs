//! Tells the watcher of a fatal signal before the process dumps core: until that is done the kernel keeps all of the
//! process's threads, locks and descriptors, and a large dump takes seconds.
//!
//! What the watcher is told must be final: the driver thread may not write to a word once the watcher has zeroed it. So
//! it is the driver thread that tells, and that does nothing else any more; any other thread that gets a fatal signal
//! first has the driver interrupted. Then the signal does what it would have done: to the thread that got it, so that the
//! dump shows the culprit.
//!
//! SIGKILL cannot be handled, and needs not be: it dumps nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::message::{Bytes, Message};

/// Signals that end a process with a core dump and that code of ours, or the lack of memory, may cause.
const FATAL: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];

/// How long a thread waits for the driver to tell, in steps of [`STEP`]: it runs with real-time priority.
const STEPS: u32 = 200;
static STEP: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 100_000 };

static CRASHED: Bytes = Message::Crashed.encode();

/// The agent's end of the socket to its watcher; -1: there is none.
static SOCKET: AtomicI32 = AtomicI32::new(-1);
/// The driver's thread id; 0: there is none.
static DRIVER: AtomicI32 = AtomicI32::new(0);
/// Another thread wants the driver to tell.
static ASKED: AtomicBool = AtomicBool::new(false);
static TOLD: AtomicBool = AtomicBool::new(false);
/// What handled the signals before: the standard library's guard of the stacks.
static FORMER: OnceLock<[libc::sigaction; FATAL.len()]> = OnceLock::new();

/// While it exists, the thread that made it is the driver.
#[derive(Debug)]
pub struct DriverThread(());

/// Makes the calling thread the one that writes to the words.
pub fn driver_is_this_thread() -> DriverThread {
    DRIVER.store(thread_id(), Ordering::SeqCst);
    DriverThread(())
}

impl Drop for DriverThread {
    fn drop(&mut self) {
        DRIVER.store(0, Ordering::SeqCst);
    }
}

/// Handles fatal signals from now on, with nobody to tell yet. Once is enough.
///
/// # Errors
/// The system refuses.
pub fn handle_fatal_signals() -> io::Result<()> {
    let mut failed = Ok(());
    FORMER.get_or_init(|| {
        FATAL.map(|signal| {
            replace(signal, on_fatal_signal as *const () as usize).unwrap_or_else(|error| {
                failed = Err(error);
                default_action()
            })
        })
    });
    failed
}

/// Whom to tell: the watcher at the other end of this socket. `None`: nobody.
pub(super) fn tell(socket: Option<RawFd>) {
    SOCKET.store(socket.unwrap_or(-1), Ordering::SeqCst);
}

fn replace(signal: libc::c_int, handler: libc::sighandler_t) -> io::Result<libc::sigaction> {
    let mut action = default_action();
    action.sa_sigaction = handler;
    // On the alternate stack, which the standard library gives to each thread: the fault may be the stack's.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    let mut former = MaybeUninit::uninit();
    // SAFETY: `action` is a valid sigaction whose handler does only what is allowed in one, and `former` is written
    // whenever the call succeeds.
    unsafe {
        if libc::sigaction(signal, &raw const action, former.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(former.assume_init())
    }
}

fn default_action() -> libc::sigaction {
    // SAFETY: all zero is a valid sigaction: SIG_DFL, no flags, an empty mask.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Only what signal-safety(7) allows: system calls and lock-free atomics.
extern "C" fn on_fatal_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let driver = DRIVER.load(Ordering::SeqCst);
    if driver == 0 {
        tell_watcher();
    } else if driver == thread_id() {
        tell_watcher();
        if ASKED.load(Ordering::SeqCst) {
            // The thread that asked dies of the signal, and takes all others along.
            loop {
                // SAFETY: it has no preconditions.
                unsafe { libc::pause() };
            }
        }
    } else {
        if !ASKED.swap(true, Ordering::SeqCst) {
            // SAFETY: plain system calls; a thread id that is gone by now is an error and no harm.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), driver, signal) };
        }
        for _ in 0..STEPS {
            if TOLD.load(Ordering::SeqCst) {
                break;
            }
            // SAFETY: it reads a live timespec, and writes nothing.
            unsafe { libc::nanosleep(&raw const STEP, std::ptr::null_mut()) };
        }
    }
    // SAFETY: the kernel hands out a valid siginfo with SA_SIGINFO.
    die_of(signal, unsafe { (*info).si_code } > 0);
}

fn tell_watcher() {
    let socket = SOCKET.load(Ordering::SeqCst);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if socket >= 0 {
        // SAFETY: the bytes are static; a descriptor that is none by now is an error and no harm.
        unsafe { libc::send(socket, CRASHED.as_ptr().cast(), CRASHED.len(), flags) };
    }
    TOLD.store(true, Ordering::SeqCst);
}

/// Lets the signal have its effect when the handler returns: a fault happens again, anything else is sent again.
fn die_of(signal: libc::c_int, is_fault: bool) {
    let former = FORMER.get().and_then(|former| {
        let index = FATAL.iter().position(|known| *known == signal)?;
        former.get(index)
    });
    let action = match former {
        Some(former) if is_fault => *former,
        _ => default_action(),
    };
    // SAFETY: both are valid actions; the signal is blocked until the handler returns, and has its effect then.
    unsafe {
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        if !is_fault {
            libc::raise(signal);
        }
    }
}

fn thread_id() -> libc::c_int {
    rustix::thread::gettid().as_raw_nonzero().get()
}
