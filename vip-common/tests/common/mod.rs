//! Fixtures for tests of the decision, in user space (vip-common) and in the kernel (vip-agent).
#![allow(dead_code, unreachable_pub, reason = "shared by test binaries, of which each uses its part")]

pub mod frames;
pub mod strategies;
pub mod world;
