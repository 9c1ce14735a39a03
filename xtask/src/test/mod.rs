//! `cargo xtask test`: lints, then unit and property tests as the user, then the tests that need root.

mod second_try;

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::toolchain::{self, Toolchain, Version};
use crate::workspace::{cargo, output, run};
use crate::{build_ebpf, elevate};

/// Which tests to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// The long suites too (sets VIPLANE_FULL=1)
    #[arg(long)]
    pub(crate) full: bool,
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
    run(&mut selection.cargo_test(&["--lib", "--bins"], &[]), "cargo test")?;
    run(&mut selection.cargo_test(&["--doc"], &[]), "cargo test --doc")?;

    let [config, runner] = elevate::cargo_runner()?;
    let as_root = |suites: &[String], options: &[&str]| {
        let mut targets: Vec<&str> = suites.iter().flat_map(|suite| ["--test", suite]).collect();
        targets.extend([config.as_str(), &runner, "--no-fail-fast"]);
        selection.cargo_test(&targets, options)
    };
    let (patient, punctual): (Vec<String>, Vec<String>) =
        suites()?.into_iter().partition(|suite| PATIENT.contains(&suite.as_str()));
    let mut flaky = Vec::new();
    heading("tests as root, in network namespaces: several at a time");
    flaky.extend(second_try::run(|options| as_root(&patient, options), "--test-threads=3")?);
    heading("tests as root, in network namespaces: one at a time");
    flaky.extend(second_try::run(|options| as_root(&punctual, options), "--test-threads=1")?);
    if !flaky.is_empty() {
        heading("flaky: failed, and passed when run again by themselves. Each is a bug to be found");
        for test in flaky {
            eprintln!("  {test}");
        }
    }
    Ok(())
}

/// Suites that wait for what happens and do not ask when, so that their tests may run beside each other: most of their time
/// is spent waiting. All others watch the clock, and each of their tests runs several nodes already.
const PATIENT: &[&str] = &[
    "accept",
    "agent",
    "api",
    "auth_trailer",
    "bad_input",
    "chart",
    "cleanup",
    "conflicts",
    "conformance",
    "dataplane_attach",
    "dataplane_egress",
    "dataplane_maps",
    "dataplane_pins",
    "dataplane_refusals",
    "dataplane_restart",
    "decision",
    "flow_sync",
    "following",
    "foreign",
    "full_nat",
    "heartbeat",
    "image",
    "import",
    "import_interop",
    "interfaces",
    "interop",
    "keepalived",
    "kube_child",
    "kube_process",
    "kube_steering",
    "last_good",
    "links",
    "local_backends",
    "net_addresses",
    "net_connections",
    "net_instance_lock",
    "net_journal",
    "net_links",
    "net_neighbors",
    "net_offload",
    "net_sysctl",
    "package",
    "preflight",
    "privilege",
    "program",
    "proxy",
    "reload",
    "service_edges",
    "service_floods",
    "service_modes",
    "services",
    "services_scale",
    "sockets",
    "steering",
    "told_flows",
    "topology",
    "tunnel_ends",
    "wire",
];

/// The names of all integration tests.
fn suites() -> Result<Vec<String>> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--no-deps", "--format-version=1"]);
    let text = output(&mut metadata).context("cargo metadata says nothing")?;
    let metadata: Metadata = serde_json::from_str(&text).context("cannot read what cargo metadata says")?;
    let targets = metadata.packages.into_iter().flat_map(|package| package.targets);
    let suites: BTreeSet<String> =
        targets.filter(|target| target.kind == ["test"]).map(|target| target.name).collect();
    if let Some(gone) = PATIENT.iter().find(|name| !suites.contains(**name)) {
        bail!("there is no test suite {gone}: take it out of PATIENT in xtask/src/test/mod.rs");
    }
    Ok(suites.into_iter().collect())
}

/// What is read of `cargo metadata`.
#[derive(serde::Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(serde::Deserialize)]
struct Package {
    targets: Vec<Target>,
}

#[derive(serde::Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

impl Selection {
    fn cargo_test(&self, targets: &[&str], options: &[&str]) -> Command {
        let mut command = cargo();
        // Always the same packages: another choice would mean other features, and building them again.
        command.args(["test", "--workspace", "--exclude", "vip-ebpf"]);
        command.args(targets).arg("--").args(options);
        if !options.contains(&second_try::EXACT) {
            command.args(&self.filter);
        }
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
