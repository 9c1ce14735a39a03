//! What the XDP program and the agent share: map layouts, packet reading and rewriting, and the decision itself.
//!
//! Everything here is `no_std` and runs in three places unchanged: in the kernel (vip-ebpf), in the agent (which fills
//! the maps), and in user-space tests, which call the very decision that the kernel runs on plain byte slices.
#![no_std]
#![forbid(unsafe_code)]

pub mod decision;
pub mod filter;
pub mod heartbeat;
pub mod maps;
pub mod packet;
pub mod reason;
pub mod rewrite;
pub mod steering;
