//! What rustup is asked for: components of its toolchains, within a bounded time, since it may have no network.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::Result;

use super::toolchain::OLDEST;
use crate::workspace::{find_program, run};

/// Longest wait for one download, in seconds: several times what a component takes on a slow line.
const PATIENCE: &str = "300";

/// The compilers of all installed toolchains.
pub(crate) fn compilers() -> Vec<PathBuf> {
    let Some(toolchains) = folder().and_then(|folder| fs::read_dir(folder).ok()) else { return Vec::new() };
    let mut compilers: Vec<_> = toolchains.flatten().map(|entry| entry.path().join("bin/rustc")).collect();
    compilers.sort();
    compilers
}

/// The name of the toolchain with this sysroot, if rustup is here and keeps it.
pub(crate) fn name_of(sysroot: &Path) -> Option<String> {
    find_program("rustup")?;
    let name = sysroot.strip_prefix(folder()?).ok()?;
    Some(name.to_str()?.to_owned())
}

/// Adds a component to an installed toolchain.
pub(crate) fn add_component(toolchain: &str, component: &str) -> Result<()> {
    bounded(&["component", "add", component, "--toolchain", toolchain])
}

/// Adds the oldest toolchain that builds this workspace, with the sources of its library.
pub(crate) fn add_oldest() -> Result<()> {
    let oldest = format!("{OLDEST}.0");
    bounded(&[
        "toolchain",
        "install",
        &oldest,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--no-self-update",
    ])
}

fn bounded(arguments: &[&str]) -> Result<()> {
    let mut rustup = Command::new("timeout");
    rustup.args([PATIENCE, "rustup"]).args(arguments).env("RUSTUP_MAX_RETRIES", "1");
    run(&mut rustup, &format!("rustup {}", arguments.join(" ")))
}

fn folder() -> Option<PathBuf> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".rustup")))?;
    Some(home.join("toolchains"))
}
