//! What the process makes of itself before it looks at anything from outside.

use std::io;

use rustix::process::{Pid, Signal, getppid, nice, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

/// How much it stands back from what the agent has to do.
const NICENESS: i32 = 5;

/// Why the process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Settling {
    /// The agent died while it was started.
    #[error("the agent that started this is gone")]
    Orphan,
    /// The kernel refuses.
    #[error("cannot give up {what}: {source}")]
    Refused {
        /// What was to be given up.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Gives up all capabilities, stands back, and binds the process's life to the agent's. To be called while there is a single thread.
///
/// # Errors
/// The agent, whose process id this is, is gone; the kernel refuses.
pub fn settle(agent: Pid) -> Result<(), Settling> {
    let refused = |what| move |error: rustix::io::Errno| Settling::Refused { what, source: error.into() };
    set_no_new_privs(true).map_err(refused("new privileges"))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(refused("capabilities"))?;
    // It may run as urgently as others, too.
    let _ = nice(NICENESS);
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused("a life of its own"))?;
    // It may have died before.
    if getppid() == Some(agent) { Ok(()) } else { Err(Settling::Orphan) }
}
