//! `cargo xtask sim`: simulated networks by seed, in a release build.

use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::workspace::cargo;

/// Plays, with the simulator's own `options`.
pub(crate) fn play(options: &[String]) -> Result<Infallible> {
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--package", "vip-sim", "--"]).args(options);
    Err(command.exec()).context("cannot start cargo")
}
