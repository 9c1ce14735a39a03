//! `cargo xtask build`: the BPF program, then the whole workspace.

use anyhow::Result;

use crate::workspace::{cargo, run};

/// Builds everything, with cargo's own options (`--release` and the like) as `options`.
pub(crate) fn all(options: &[String]) -> Result<()> {
    run(cargo().args(["build", "--workspace", "--exclude", "vip-ebpf"]).args(options), "cargo build")
}
