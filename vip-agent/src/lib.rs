//! The agent: elects owners by VRRP and moves VIPs by writing one word into a BPF map.

pub mod config;
pub mod dataplane;
pub mod net;
pub mod types;
pub mod vrrp;
