//! What `vip-agent` and its process `vip-kube` say to each other, and the words that both need: one line of JSON per message.
//!
//! ```text
//! vip-agent ── Order: the file's `kubernetes`, what the file has taken, what this node is Active in ──────────► vip-kube
//! vip-agent ◄── Report: the instances and services that the cluster wants, in the configuration's own format ── vip-kube
//! ```
//!
//! Each message says all there is to say, or names the document that it differs from by some services' backends, so that any but a document
//! may be left out for a later one, and a process that was started anew needs no
//! history. Who does not understand a line ends the conversation: the agent keeps what it knows, and starts another process.

mod address;
mod lines;
mod message;
mod names;
mod settings;

pub use address::{AddressError, VipAddress, node, vip};
pub use lines::{LONGEST, LineError, Lines, encode};
pub use message::{Backend, Backends, Document, Order, Remark, Report, Room, Steering, Telling, View};
pub use names::{Label, NameError, ObjectName, is_subdomain};
pub use settings::{Kubernetes, LEAST_ROUTERS, LoadBalancerClass, OUR_CLASS, Sources};

/// Both sides have to speak the same: `vip-kube` is told this number at its start, as a program that an upgrade has put in the place of
/// the agent's own one may be of another version.
pub const PROTOCOL: u32 = 2;
