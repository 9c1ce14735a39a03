//! What keeps the driver thread on time: SCHED_FIFO, locked memory, a touched stack.

use std::io;

use rustix::thread::CapabilitySet;

/// Stack of the driver thread: it holds receive buffers and little else.
pub(super) const STACK: usize = 256 * 1024;

/// Above ordinary real-time work (threaded interrupts run at 50), below the kernel's own watchdogs (99).
const PRIORITY: i32 = 60;

/// What the system allowed; the text says why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realtime {
    /// SCHED_FIFO.
    pub scheduling: Result<(), String>,
    /// Memory locked as it is touched (MCL_ONFAULT).
    pub memory: Result<(), String>,
}

impl Realtime {
    /// For the calling thread (scheduling) and its process (memory).
    pub(super) fn enter() -> Self {
        let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        let realtime = Self { scheduling: scheduling(policy), memory: memory() };
        touch_stack();
        realtime
    }
}

/// SCHED_FIFO for the calling thread, and what goes with it (SCHED_RESET_ON_FORK).
///
/// # Errors
/// Why the system does not allow it.
pub(crate) fn scheduling(policy: libc::c_int) -> Result<(), String> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the pointer is to a live sched_param; 0 names the calling thread.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!(
        "{error}: give the agent CAP_SYS_NICE (or an RLIMIT_RTPRIO of {PRIORITY}); \
         in a cgroup v1 with real-time groups also cpu.rt_runtime_us"
    ))
}

/// Locks the calling process's memory as it is touched.
///
/// mlockall without CAP_IPC_LOCK succeeds up to RLIMIT_MEMLOCK, and later threads then fail to start: so only with it.
///
/// # Errors
/// Why the system does not allow it.
pub(crate) fn memory() -> Result<(), String> {
    let capabilities = rustix::thread::capabilities(None).map_err(|error| format!("capget: {error}"))?;
    if !capabilities.effective.contains(CapabilitySet::IPC_LOCK) {
        return Err(
            "without CAP_IPC_LOCK memory is not locked: the agent may be late when memory is short".into()
        );
    }
    // SAFETY: no pointers; it changes only how this process's pages are kept.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } == 0 {
        Ok(())
    } else {
        Err(format!("mlockall: {}", io::Error::last_os_error()))
    }
}

/// Faults the stack's pages in now, so that no takeover waits for it.
fn touch_stack() {
    let pages = [0u8; STACK / 2];
    std::hint::black_box(&pages);
}
