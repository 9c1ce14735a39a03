//! Steering: which backend a packet to a VIP goes to, and what it looks like then (docs/steering.md).
//!
//! **Nothing calls this yet.** The XDP program is to call [`steer`](steer::steer) for owned VIPs that have services and
//! [`apply`](apply::apply) for what comes of it, the agent [`maglev::fill`] and the layouts of [`tables`]. Until then all of it is
//! here for its tests alone; nothing of it is part of what a pin directory holds.

pub mod answer;
pub mod apply;
mod choose;
pub mod full_nat;
pub mod hash;
pub mod link;
pub mod maglev;
pub mod nat;
pub mod packet;
pub mod reason;
pub mod steer;
pub mod tables;
pub mod tunnel;
