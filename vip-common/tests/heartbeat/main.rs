//! Fast detection's frames: their bytes, their seal, and what is believed.

#[path = "../common/mod.rs"]
mod common;

mod codec;
mod receiving;
