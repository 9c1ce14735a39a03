//! Steering against models and an independent packet reader.

mod answers;
mod maglev;
mod model;
mod nat;
mod packets;
mod reading;
mod steers;
mod tunnels;
mod world;
