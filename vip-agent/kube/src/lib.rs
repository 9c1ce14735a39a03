//! `vip-kube`: objects of a Kubernetes cluster become virtual routers of this node, and services that it steers.
//!
//! ```text
//! API server ─ watch ─► book ─ cluster ─► model (pure) ─ desired ─► vip-agent: by the path that a reload takes
//!      ▲                                                               │
//!      └──────────────── publish: the status of Services ◄── what this node is Active in
//! ```
//!
//! `vip-agent` starts it as a process of its own (see vip-kube-protocol for what they say to each other), where its configuration names a
//! cluster. It has no privileges, and no part in a failover: it may hang, die or be missing, and all stays as it is.

pub mod allocate;
mod allocator;
mod book;
pub mod cluster;
mod connection;
mod conversation;
mod convert;
mod events;
mod follow;
mod lead;
pub mod model;
mod owners;
pub mod pools;
mod process;
mod publish;
mod telling;
mod trouble;
mod watch;

pub use conversation::converse;
pub use process::{Settling, settle};
