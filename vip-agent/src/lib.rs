//! The agent: elects owners by VRRP and moves VIPs by writing one word into a BPF map.

pub mod agent;
pub mod api;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod errors;
pub mod events;
mod files;
pub mod flow_sync;
pub mod health;
pub mod idle;
pub mod import;
pub mod kube;
pub mod metrics;
pub mod net;
pub mod preflight;
pub mod privilege;
pub mod proxy;
pub mod status;
pub mod supervisor;
pub mod types;
pub mod upgrade;
pub mod vrrp;
pub mod watcher;
