//! bpf-linker: builds the pinned release into target/tools and makes it find the right LLVM.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::toolchain::Toolchain;
use crate::workspace::{cargo, run, search_path, tools};

/// The pinned release. It is the last that can borrow rustc's own LLVM at run time; later ones want an LLVM
/// development package of their own, which Debian 12 has not for LLVM 23.
const RELEASE: &str = "0.10.3";

const WRAPPER: &str = r#"#!/bin/sh
folder=$(dirname -- "$0")
LD_LIBRARY_PATH="$folder/lib" exec "$folder/bin/bpf-linker" "$@"
"#;

/// How to build bpf-linker for one LLVM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pinned {
    llvm: u32,
}

impl std::fmt::Display for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bpf-linker {RELEASE} (LLVM {})", self.llvm)
    }
}

/// The linker for a rustc with this LLVM: the linker reads rustc's bitcode, so it must not be older.
///
/// # Errors
/// What does not fit, as the end of a sentence.
pub(crate) fn pinned_for(llvm: u32) -> Result<Pinned, String> {
    match llvm {
        20..=22 => Ok(Pinned { llvm }),
        _ => Err(format!("LLVM {llvm}, but bpf-linker {RELEASE} knows 20 to 22")),
    }
}

impl Pinned {
    fn folder(self) -> PathBuf {
        tools().join(format!("bpf-linker-{RELEASE}-llvm{}", self.llvm))
    }

    /// True when it has been built.
    pub(crate) fn is_installed(self) -> bool {
        self.folder().join("bin/bpf-linker").is_file()
    }

    /// Builds it from crates.io, about a minute.
    pub(crate) fn install(self) -> Result<()> {
        let features = format!("llvm-{0},rust-llvm-{0}", self.llvm);
        let build = tools().join("build");
        let mut install = cargo();
        install.args([
            "install",
            "bpf-linker",
            "--version",
            RELEASE,
            "--locked",
            "--no-track",
            "--no-default-features",
        ]);
        install.args(["--features", &features]).arg("--root").arg(self.folder());
        // Its own build folder, and no target that is meant for this workspace; debug information would only cost time.
        install
            .env("CARGO_TARGET_DIR", &build)
            .env_remove("CARGO_BUILD_TARGET")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        // Or else cargo warns that nobody will find the linker.
        install.env("PATH", format!("{}:{}", self.folder().join("bin").display(), search_path()));
        run(&mut install, "building bpf-linker")?;
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
    }

    /// The command to link with. bpf-linker loads the first libLLVM it finds along LD_LIBRARY_PATH and PATH, in
    /// whatever order a folder lists its files, so a system with several may give it the wrong one: the command is a
    /// wrapper that shows it a folder with one only, `toolchain`'s own.
    pub(crate) fn command(self, toolchain: &Toolchain) -> Result<PathBuf> {
        let folder = self.folder();
        let lib = folder.join("lib");
        fs::create_dir_all(&lib).with_context(|| format!("cannot create {}", lib.display()))?;
        let link = lib.join("libLLVM.so");
        if fs::read_link(&link).ok().as_deref() != Some(&toolchain.libllvm) {
            if link.is_symlink() {
                fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
            }
            symlink(&toolchain.libllvm, &link)
                .with_context(|| format!("cannot create {}", link.display()))?;
        }
        let wrapper = folder.join("bpf-linker");
        if fs::read_to_string(&wrapper).ok().as_deref() != Some(WRAPPER) {
            fs::write(&wrapper, WRAPPER).with_context(|| format!("cannot write {}", wrapper.display()))?;
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        }
        Ok(wrapper)
    }
}
