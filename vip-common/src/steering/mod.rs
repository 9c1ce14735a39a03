//! Steering: which backend a packet to a VIP goes to, and what it looks like then (docs/steering.md).
//!
//! The XDP program calls [`steer`](steer::steer) for owned VIPs that have services and [`apply`](apply::apply) for what comes of
//! it, in programs that go on with each other ([`handoff`]). The agent [`maglev::fill`] and the layouts of [`tables`].

pub mod answer;
pub mod apply;
mod choose;
pub mod egress;
pub mod fragments;
pub mod full_nat;
pub mod handoff;
pub mod hash;
pub mod link;
pub mod maglev;
pub mod nat;
pub mod packet;
pub mod reason;
pub mod steer;
pub mod tables;
pub mod tunnel;
pub mod tunnel_end;
