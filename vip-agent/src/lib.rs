//! The agent: elects owners by VRRP and moves VIPs by writing one word into a BPF map.

pub mod agent;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod errors;
mod files;
pub mod health;
pub mod import;
pub mod net;
pub mod preflight;
pub mod status;
pub mod types;
pub mod vrrp;
pub mod watcher;
