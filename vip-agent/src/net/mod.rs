//! The kernel by rtnetlink and sysctl: links, addresses, neighbours, and the journal of what we changed.
//!
//! All of it runs on tokio, never on the driver thread: the routing lock can hold a request for 20 ms.

pub mod addresses;
pub mod connections;
pub mod ethtool;
mod genetlink;
pub mod instance_lock;
pub mod journal;
pub mod links;
pub mod neighbors;
mod netlink;
pub mod next_hops;
pub mod offload;
mod path_mtu;
pub mod sysctl;

pub use netlink::{NetlinkError, Rtnetlink};
