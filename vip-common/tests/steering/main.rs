//! Steering against models and an independent packet reader.

mod answers;
mod egress;
mod full_nat;
mod full_nat_model;
mod full_nat_ports;
mod full_nat_races;
mod leaving;
mod legs;
mod maglev;
mod model;
mod nat;
mod packets;
mod reading;
mod steers;
mod tunnels;
mod world;
