//! The XDP program by BPF_PROG_TEST_RUN, byte by byte. Needs root, and no network.

#[path = "../../../vip-common/tests/common/mod.rs"]
mod common;

mod arp;
mod equivalence;
mod events;
mod heartbeat;
mod kernel;
mod neighbor;
mod passes;
mod traffic;
mod virtual_mac;
