//! The decision in user space: against a plain model of it, and on any bytes.

#[path = "../common/mod.rs"]
mod common;

mod fuzz;
mod packet;
mod properties;
mod reference;
