//! Release builds of the programs that show and measure, started as root.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::elevate;
use crate::workspace::{cargo, root, run};

/// Makes a folder for results.
pub(crate) fn folder(folder: &str) -> Result<()> {
    fs::create_dir_all(root().join(folder)).with_context(|| format!("cannot create {folder}"))
}

/// Builds the agent and `package`; returns the command that runs `package`'s binary as root. Cargo replaces itself by
/// that binary, so signals and the exit code pass straight through. `folder` will take the results: it is made here,
/// lest it be root's.
pub(crate) fn prepare(package: &str, folder: &str, options: &[String]) -> Result<Command> {
    self::folder(folder)?;
    // The program starts agents: their binary must lie beside its own.
    let mut build = cargo();
    run(build.args(["build", "--release", "--package", "vip-agent", "--package", package]), "cargo build")?;
    let mut command = cargo();
    command.args(["run", "--release", "--quiet"]).args(elevate::cargo_runner()?);
    command.args(["--package", package, "--bin", package, "--"]).args(options);
    Ok(command)
}
