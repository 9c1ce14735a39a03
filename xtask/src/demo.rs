//! `cargo xtask demo`: builds agent and demo, then becomes the demo, as root.

use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{elevate, release};

/// Starts the demo with its own `options`.
pub(crate) fn start(options: &[String]) -> Result<Infallible> {
    elevate::require_namespaces()?;
    let error = release::prepare("vip-demo", "target/demo", options)?.exec();
    Err(error).context("cannot start cargo")
}
