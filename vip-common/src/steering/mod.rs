//! Steering: which backend a packet to a VIP goes to, and what it looks like then (docs/steering.md).
//!
//! **Nothing calls this yet.** The agent is to call [`maglev::fill`], the XDP program [`hash`]. Until then all of it is here for its tests
//! alone; nothing of it is part of what a pin directory holds.

pub mod hash;
pub mod maglev;
