//! Steering: which backend a packet to a VIP goes to, and what it looks like then (docs/steering.md).
//!
//! **Nothing calls this yet.** The XDP program is to call what reads ([`packet`], [`hash`]) and rewrites ([`nat`], [`tunnel`], [`answer`]),
//! the agent [`maglev::fill`]. Until then all of it is here for its tests alone; nothing of it is part of what a pin
//! directory holds.

pub mod answer;
pub mod hash;
pub mod link;
pub mod maglev;
pub mod nat;
pub mod packet;
pub mod tunnel;
