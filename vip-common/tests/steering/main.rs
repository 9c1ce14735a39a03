//! Steering against models and an independent packet reader.

mod answers;
mod maglev;
mod nat;
mod packets;
mod reading;
mod tunnels;
