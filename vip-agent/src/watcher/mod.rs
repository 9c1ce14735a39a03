//! The dead-agent watcher: a process of a few pages that says what a killed agent can no longer say.
//!
//! An agent that dies is silent by its lease, but its peers wait out Active_Down before they believe it. The watcher
//! learns of the death within microseconds, zeroes the ownership words, and only then says priority 0 in the agent's name,
//! on the agent's own sockets. It is the agent's child: the same program, executed anew under another name
//! ([`NAME`]), so that nothing of the agent's threads, memory and locks comes along.
//!
//! What tells of the death, fastest first:
//! - A lock that the driver thread holds as long as it lives ([`Lifeline`]). The kernel passes it on when that thread dies,
//!   before it closes any of the process's descriptors (closing packet sockets alone takes it milliseconds).
//! - A word by the agent's handler of fatal signals ([`crash`]): a process that dumps core does not let go of its locks
//!   before that is done.
//! - A pidfd, for what is left: an agent whose driver thread has ended, and that was killed on its way out.
//!
//! A stopped agent is not dead: its lease runs out, and that is all. Where both are killed at once, the lease is all there
//! is, too.

pub mod crash;
mod handle;
mod lifeline;
mod message;
mod plan;
mod process;
mod resignation;

pub use self::handle::{Event, Ready, Watcher};
pub use self::lifeline::{End, Held, Lifeline};
pub use self::process::{is_called, main};

/// The name that the watcher runs by: `ps` shows it and the agent's process id.
pub const NAME: &str = "vip-agent-watcher";
