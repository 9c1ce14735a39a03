//! `cargo xtask build-ebpf`: builds the XDP program and records which sources it was made of.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::fingerprint::{self, Object, RECORD};
use crate::setup::toolchain::Toolchain;
use crate::slim;
use crate::workspace::{cargo, cargo_at, root, run};

const TARGET: &str = "bpfel-unknown-none";

/// Apart from the other builds, whose compiler and flags differ.
const BUILD_FOLDER: &str = "target/bpf-build";

const PROGRAM: [&str; 8] = [
    "--package",
    "vip-ebpf",
    "--release",
    "-Zbuild-std=core",
    "--target",
    TARGET,
    "--target-dir",
    BUILD_FOLDER,
];

/// Builds the object where it is missing or stale.
pub(crate) fn refresh(toolchain: &Toolchain) -> Result<()> {
    match fingerprint::object(&root())? {
        Object::Fresh => Ok(()),
        Object::Stale | Object::Missing => build(toolchain),
    }
}

/// Builds the object; cargo decides what is to be done.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    let root = root();
    // Taken before the build: an edit during it then counts as stale.
    let fingerprint = fingerprint::of_sources(&root)?;
    let mut build = for_bpf(cargo_at(cargo_of(toolchain)), toolchain)?;
    run(build.arg("build").args(PROGRAM), "building the BPF program")?;
    let built = root.join(BUILD_FOLDER).join(TARGET).join("release");
    let objects = root.join("target/bpf");
    fs::create_dir_all(&objects)?;
    // The last one is the client's side of bench/dataplane.
    for name in ["vip-ebpf", "vip-ebpf-steering", "vip-ebpf-bench"] {
        let built = built.join(name);
        let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        replace(&objects.join(name), &slim::without_dwarf(&object, &built)?)?;
    }
    replace(&root.join(RECORD), format!("{fingerprint}\n").as_bytes())
}

/// Runs clippy over the program; it must be the clippy of the program's compiler.
pub(crate) fn lint(toolchain: &Toolchain, options: &[&str]) -> Result<()> {
    let clippy =
        toolchain.program("cargo-clippy").context("the compiler of the BPF program has no clippy")?;
    let mut clippy = for_bpf(cargo_at(clippy), toolchain)?;
    clippy.env("CARGO", cargo_of(toolchain)).arg("clippy").args(PROGRAM).arg("--").args(options);
    run(&mut clippy, "clippy for the BPF program")
}

/// A toolchain's own cargo knows the layout of its library sources best; Debian's rustc may come without one.
fn cargo_of(toolchain: &Toolchain) -> OsString {
    toolchain.program("cargo").map_or_else(|| cargo().get_program().to_owned(), Into::into)
}

/// Makes `command` compile with `toolchain`, for BPF.
fn for_bpf(mut command: Command, toolchain: &Toolchain) -> Result<Command> {
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--cfg=bpf_target_arch=\"{}\"", bpf_target_arch()),
    ];
    command.env("RUSTC", &toolchain.rustc).env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    // Not among the flags: those are part of all symbols' hashes, by which LLVM orders what it inlines, and the program would be
    // another one in each checkout.
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", toolchain.linker.command(toolchain)?);
    // The workspace's release profile is about the agent's size.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3");
    command.env("CARGO_PROFILE_RELEASE_LTO", "false");
    Ok(command)
}

/// The architecture whose kernel structures the program meets, in libbpf's spelling as aya wants it.
fn bpf_target_arch() -> &'static str {
    match std::env::consts::ARCH {
        riscv if riscv.starts_with("riscv64") => "riscv64",
        other => other,
    }
}

/// Writes a file in one step, so that nobody reads half of it; leaves an equal one alone, so that nothing is rebuilt for it.
fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, contents)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
