//! `cargo xtask test`: lints, then unit and property tests as the user, then the tests that need root.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::toolchain::{self, Toolchain, Version};
use crate::workspace::{cargo, run};
use crate::{build_ebpf, elevate};

/// Which tests to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// The long suites too (sets VIPLANE_FULL=1)
    #[arg(long)]
    full: bool,
    /// Only tests whose name contains this, and no lints
    filter: Option<String>,
}

/// Runs the lints and the selected tests; the last lines are those of cargo test.
pub(crate) fn all(selection: &Selection, toolchain: &Toolchain) -> Result<()> {
    elevate::require_namespaces()?;
    if selection.filter.is_none() {
        lint(toolchain)?;
    }
    heading("unit and property tests");
    let workspace = ["--workspace", "--exclude", "vip-ebpf"];
    run(&mut selection.cargo_test(&[&workspace[..], &["--lib", "--bins"]].concat(), &[]), "cargo test")?;
    run(&mut selection.cargo_test(&["--package", "vip-common", "--test", "*"], &[]), "cargo test")?;
    run(&mut selection.cargo_test(&[&workspace[..], &["--doc"]].concat(), &[]), "cargo test")?;

    heading("tests as root, in network namespaces");
    let [config, runner] = elevate::cargo_runner()?;
    let suites = [
        "--package",
        "vip-agent",
        "--package",
        "vip-lab",
        "--package",
        "vip-failover",
        "--test",
        "*",
        &config,
        &runner,
    ];
    // One test at a time: they watch the clock, and each runs several nodes already.
    run(&mut selection.cargo_test(&suites, &["--test-threads=1"]), "cargo test")
}

impl Selection {
    fn cargo_test(&self, targets: &[&str], options: &[&str]) -> Command {
        let mut command = cargo();
        command.arg("test").args(targets).arg("--").args(options).args(&self.filter);
        if self.full {
            command.env("VIPLANE_FULL", "1");
        }
        command
    }
}

/// The newest Rust whose lints this workspace has met.
const LINTS_KNOWN: Version = Version { major: 1, minor: 96 };

/// What makes warnings errors; those of a newer compiler are shown, but no reason to fail.
fn strictness(release: Version) -> &'static [&'static str] {
    if release > LINTS_KNOWN { &[] } else { &["-Dwarnings"] }
}

fn lint(toolchain: &Toolchain) -> Result<()> {
    heading("formatting and lints");
    run(cargo().args(["fmt", "--all", "--check"]), "cargo fmt --all --check")?;

    let strict = strictness(toolchain::active_release().context("cannot find rustc")?);
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--exclude", "vip-ebpf", "--all-targets", "--"]).args(strict);
    run(&mut clippy, "clippy")?;
    build_ebpf::lint(toolchain, strictness(toolchain.release))?;

    let mut documentation = cargo();
    documentation.args(["doc", "--workspace", "--exclude", "vip-ebpf", "--no-deps", "--quiet"]);
    run(documentation.env("RUSTDOCFLAGS", strict.join(" ")), "rustdoc")
}

fn heading(title: &str) {
    eprintln!("\n=== {title}");
}
