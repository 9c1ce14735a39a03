//! Steering in the kernel by BPF_PROG_TEST_RUN, byte by byte, beside the same code in user space. Needs root, and no network.
#![allow(dead_code, reason = "fixtures of vip-common's tests, of which this uses its part")]

#[path = "../../../vip-common/tests/steering/leaving.rs"]
mod leaving;
#[path = "../../../vip-common/tests/steering/legs.rs"]
mod legs;
#[path = "../../../vip-common/tests/steering/model.rs"]
mod model;
#[path = "../../../vip-common/tests/steering/packets.rs"]
mod packets;
#[path = "../../../vip-common/tests/steering/world.rs"]
mod world;

mod answers;
mod decapsulation;
mod edge;
mod egress;
mod equivalence;
mod full_nat;
mod full_nat_equivalence;
mod kernel;
mod modes;
mod programs;
