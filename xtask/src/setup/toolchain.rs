//! The compiler for the BPF program: finds or gets a rustc that can build `core` for bpfel-unknown-none.
//!
//! Stable compilers ship no `core` for BPF, so it is built from its sources (`-Z build-std=core`, which
//! `RUSTC_BOOTSTRAP=1` permits on stable). Two ways lead to these sources: rustup's component rust-src, or a
//! distribution's package beside its rustc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fmt, fs};

use anyhow::{Result, bail};

use super::linker::{self, Pinned};
use super::{packages, rustup};
use crate::workspace::{find_program, output};

/// The oldest rustc that builds this workspace (`rust-version` in Cargo.toml).
pub(crate) const OLDEST: Version = Version { major: 1, minor: 95 };

/// What is announced before [`obtain`].
pub(crate) const BOTH_WAYS: &str = "a compiler for the BPF program: the sources of Rust's library by rustup, or else a packaged rustc and \
                                    its sources by apt; with the bpf-linker that fits, built into target/tools";

/// A release, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// The first number.
    pub(crate) major: u32,
    /// The second number.
    pub(crate) minor: u32,
}

impl Version {
    /// Reads the first two numbers of `1.96.0+dfsg1-1` and the like.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A rustc with the sources of `core`, and an LLVM that a bpf-linker exists for.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// The compiler itself, not rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// The folder that holds its bin/ and lib/.
    pub(crate) sysroot: PathBuf,
    /// Its release.
    pub(crate) release: Version,
    /// The linker for the LLVM in it.
    pub(crate) linker: Pinned,
    /// That LLVM as a shared library.
    pub(crate) libllvm: PathBuf,
}

impl Toolchain {
    /// The program `name` of this toolchain, if it has one.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.sysroot.join("bin").join(name);
        path.is_file().then_some(path)
    }

    /// Its linker, if that is not built yet.
    pub(crate) fn missing_linker(&self) -> Option<Pinned> {
        (!self.linker.is_installed()).then_some(self.linker)
    }
}

/// What looking for a toolchain brought.
#[derive(Debug)]
pub(crate) enum Search {
    /// One that serves.
    Found(Toolchain),
    /// None, and why each that is here does not serve.
    Nothing(Vec<Rejection>),
}

impl Search {
    /// The toolchain, if there is one.
    pub(crate) fn found(&self) -> Option<&Toolchain> {
        match self {
            Self::Found(toolchain) => Some(toolchain),
            Self::Nothing(_) => None,
        }
    }
}

/// Why a compiler does not serve.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    rustc: PathBuf,
    reason: String,
    lacks_sources_only: bool,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rustc.display(), self.reason)
    }
}

/// Looks for a toolchain that serves as it is: the active one first, then rustup's others, then the system's.
pub(crate) fn find() -> Search {
    let mut rejected: Vec<Rejection> = Vec::new();
    let active = active_sysroot().map(|sysroot| sysroot.join("bin/rustc"));
    for rustc in active.into_iter().chain(rustup::compilers()).chain(of_system()) {
        if rejected.iter().any(|earlier| earlier.rustc == rustc) {
            continue;
        }
        match examine(&rustc) {
            Ok(toolchain) => return Search::Found(toolchain),
            Err(rejection) => rejected.push(rejection),
        }
    }
    Search::Nothing(rejected)
}

/// The sysroot of the rustc that an ordinary build in this workspace uses.
pub(crate) fn active_sysroot() -> Option<PathBuf> {
    static SYSROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let ask = || {
        let rustc = env::var_os("RUSTC").map(PathBuf::from).or_else(|| find_program("rustc"))?;
        output(Command::new(rustc).args(["--print", "sysroot"])).map(|sysroot| sysroot.trim().into())
    };
    SYSROOT.get_or_init(ask).clone()
}

/// The release of that rustc.
pub(crate) fn active_release() -> Option<Version> {
    let rustc = active_sysroot()?.join("bin/rustc");
    version_in(&output(Command::new(rustc).arg("-vV"))?, "release")
}

/// A version among what `rustc -vV` prints.
fn version_in(facts: &str, key: &str) -> Option<Version> {
    let value = facts.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))?;
    Version::parse(value)
}

/// Debian's and Ubuntu's: `rustc`, and Ubuntu's `rustc-1.NN` beside it, newest first.
fn of_system() -> Vec<PathBuf> {
    let files = fs::read_dir("/usr/bin").into_iter().flatten().flatten();
    let numbered = files.filter(|file| file.file_name().as_encoded_bytes().starts_with(b"rustc-1."));
    let mut compilers: Vec<_> = numbered.map(|file| file.path()).collect();
    compilers.sort();
    compilers.extend(["/usr/bin/rustc".into()].into_iter().filter(|rustc: &PathBuf| rustc.is_file()));
    compilers.reverse();
    compilers
}

/// The toolchain of the compiler at `rustc`, or why it does not serve.
fn examine(rustc: &Path) -> Result<Toolchain, Rejection> {
    let reject = |reason: String| Rejection { rustc: rustc.to_owned(), reason, lacks_sources_only: false };
    let facts = output(Command::new(rustc).args(["-vV"])).ok_or_else(|| reject("does not run".into()))?;
    let fact = |key| version_in(&facts, key).ok_or_else(|| reject(format!("tells no {key}")));
    let release = fact("release")?;
    if release < OLDEST {
        return Err(reject(format!("is {release}, older than {OLDEST}")));
    }
    let llvm = fact("LLVM version")?.major;
    let linker = linker::pinned_for(llvm).map_err(|why| reject(format!("({release}) has {why}")))?;
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))
        .ok_or_else(|| reject("tells no sysroot".into()))?;
    let sysroot = PathBuf::from(sysroot.trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
        return Err(Rejection {
            lacks_sources_only: true,
            ..reject(format!("({release}) has no library sources"))
        });
    }
    let Some(libllvm) = shared_llvm(&sysroot, llvm) else {
        return Err(reject(format!("({release}) comes without a shared libLLVM {llvm}")));
    };
    Ok(Toolchain { rustc: rustc.to_owned(), sysroot, release, linker, libllvm })
}

/// The shared LLVM of a compiler: in its own lib/ for rustup's, among the system's libraries for a distribution's.
fn shared_llvm(sysroot: &Path, major: u32) -> Option<PathBuf> {
    let lib = sysroot.join("lib");
    let libraries = fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
    let multiarch = libraries.filter(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    let folders = [lib.clone(), format!("/usr/lib/llvm-{major}/lib").into()].into_iter().chain(multiarch);
    let prefix = format!("libLLVM.so.{major}");
    let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    files
        .map(|file| file.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
}

/// Gets a toolchain, where [`find`] found none: by rustup, else by apt.
///
/// # Errors
/// When neither way leads to one; names both ways.
pub(crate) fn obtain(rejected: &[Rejection]) -> Result<Toolchain> {
    for attempt in [by_rustup, by_apt] {
        match attempt(rejected) {
            Ok(()) => {
                if let Search::Found(toolchain) = find() {
                    return Ok(toolchain);
                }
            }
            Err(error) => eprintln!("set-up: {error:#}"),
        }
    }
    let reasons: Vec<_> = rejected.iter().map(|rejection| format!("\n  {rejection}")).collect();
    bail!(
        "no compiler for the BPF program: either `rustup component add rust-src` for a toolchain of at least Rust {OLDEST} \
         with LLVM 20 to 22, or packages of such a rustc and its library sources (Debian: rustc-web and rust-web-src). \
         What is here does not serve:{}",
        if reasons.is_empty() { " there is none".to_owned() } else { reasons.concat() }
    )
}

fn by_rustup(rejected: &[Rejection]) -> Result<()> {
    if find_program("rustup").is_none() {
        bail!("there is no rustup; trying the packages");
    }
    let lacking = rejected.iter().filter(|rejection| rejection.lacks_sources_only);
    let name = lacking.filter_map(|rejection| rustup::name_of(rejection.rustc.parent()?.parent()?)).next();
    match name {
        Some(name) => rustup::add_component(&name, "rust-src"),
        None => rustup::add_oldest(),
    }
}

fn by_apt(_: &[Rejection]) -> Result<()> {
    let names = ["rustc-web".to_owned(), "rust-web-src".to_owned()];
    packages::require_apt(&names)?;
    packages::refresh_lists()?;
    match packages::packaged_compiler() {
        Some(names) => packages::install(&names),
        None => bail!("apt has no rustc of at least {OLDEST} together with its library sources"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_compilers_and_apt_print() {
        let version = |major, minor| Some(Version { major, minor });
        let facts = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0-nightly\nLLVM version: 22.1.8\n";
        assert_eq!(version_in(facts, "release"), version(1, 96));
        assert_eq!(version_in(facts, "LLVM version"), version(22, 1));
        assert_eq!(version_in(facts, "host"), None);
        assert_eq!(Version::parse(" 1.96.0+dfsg1-1~deb12u2"), version(1, 96));
        assert_eq!(Version::parse("(none)"), None);
    }

    #[test]
    fn a_release_with_a_greater_minor_number_is_newer() {
        assert!(Version::parse("1.100.0") > Version::parse("1.95.0"));
    }

    #[test]
    fn a_compiler_that_is_not_there_is_refused_by_name() {
        let refused = examine(Path::new("/nowhere/bin/rustc")).expect_err("there is none");
        assert_eq!(refused.to_string(), "/nowhere/bin/rustc does not run");
    }

    #[test]
    fn an_llvm_without_a_linker_is_refused_with_the_linker_s_range() {
        let refused = linker::pinned_for(23).expect_err("bpf-linker 0.10.3 has no LLVM 23");
        assert_eq!(refused, "LLVM 23, but bpf-linker 0.10.3 knows 20 to 22");
    }
}
