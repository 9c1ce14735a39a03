//! What the agent gives up once its program is loaded: capabilities, privileges by execve(2), system calls.
//!
//! It happens at one point of the start, while the process has a single thread: every thread that comes later, and every
//! process that is started, inherits it. All that a start does after that point a reload can do, too. docs/security.md
//! lists what stays and why; a test compares that list with a running agent.

mod filter;
mod held;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::thread::set_no_new_privs;

pub use self::filter::FilterError;
pub(crate) use self::held::limit_to;
pub use self::held::{COMMANDS, FOR_COMMANDS, KEPT, WATCHER};
use crate::config::{Capabilities, Security};

/// Whether capabilities were given up: the commands of probes get fewer still.
static LIMITED: AtomicBool = AtomicBool::new(false);
/// Whether those that only commands need were, too.
static WITHOUT_COMMANDS: AtomicBool = AtomicBool::new(false);

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Other threads would keep theirs.
    #[error("privileges are given up too late: there are {0} threads already")]
    Threads(usize),
    /// The kernel refuses.
    #[error("cannot give up {what}: {source}")]
    Refused {
        /// What was to be given up.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Gives up what the configuration says, for the whole process, for good; `commands`: whether any of its probes is one.
///
/// A kernel without seccomp filters is worth a warning: capabilities are what counts most.
///
/// # Errors
/// There are other threads; the kernel refuses to take capabilities away.
pub fn give_up(security: Security, commands: bool) -> Result<(), PrivilegeError> {
    let Security { capabilities, seccomp } = security;
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(PrivilegeError::Threads(threads));
    }
    if capabilities == Capabilities::Drop {
        let refused = |what| move |source| PrivilegeError::Refused { what, source };
        set_no_new_privs(true).map_err(io::Error::from).map_err(refused("new privileges"))?;
        held::give_up(commands).map_err(refused("capabilities"))?;
        LIMITED.store(true, Ordering::Relaxed);
        WITHOUT_COMMANDS.store(!commands, Ordering::Relaxed);
    } else {
        tracing::warn!("capabilities are kept (security.capabilities), also by the commands of probes");
    }
    if !seccomp {
        tracing::warn!("system calls are not filtered (security.seccomp)");
    } else if let Err(error) = filter::refuse_the_dangerous() {
        tracing::warn!(%error, "system calls are not filtered");
    }
    Ok(())
}

/// Whether this process has given up what only commands need, as it had none: those that come with a reload do without it.
pub(crate) fn is_without_commands() -> bool {
    WITHOUT_COMMANDS.load(Ordering::Relaxed)
}

/// Leaves to the calling thread, and so to the command that it is about to start, what a check may need: [`COMMANDS`].
///
/// # Errors
/// The kernel refuses.
pub(crate) fn become_command() -> io::Result<()> {
    if LIMITED.load(Ordering::Relaxed) { limit_to(COMMANDS) } else { Ok(()) }
}

/// Leaves a watcher the system calls that watching takes, in all of its threads. An agent without a filter has a watcher
/// without one.
///
/// # Errors
/// The kernel, or the architecture, has no filters.
pub(crate) fn become_watcher() -> Result<(), FilterError> {
    filter::allow_only_watching()
}
