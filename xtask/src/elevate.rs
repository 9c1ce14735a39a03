//! Root, for the few things that need it: packages, and programs that work in network namespaces.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{find_program, search_path};

/// What an elevated program may need to see of the caller's environment; sudo removes nearly all of it.
const PASSED_ON: [&str; 9] =
    ["CARGO_", "CI", "NO_COLOR", "PROPTEST_", "RUST_", "TERM", "TMPDIR", "VIPLANE_", "COLUMNS"];

/// True when this process is root.
pub(crate) fn is_root() -> Result<bool> {
    let own = fs::metadata("/proc/self").context("cannot read /proc/self: is /proc mounted?")?;
    Ok(own.uid() == 0)
}

/// The command `program`, as root: itself, or through sudo.
///
/// # Errors
/// When this is not root and there is no sudo.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = if is_root()? {
        Command::new(program)
    } else {
        let Some(sudo) = find_program("sudo") else {
            bail!(
                "{} needs root, and there is no sudo: install sudo, or run this as root",
                program.as_ref().display()
            );
        };
        let mut command = Command::new(sudo);
        // `env` sets what sudo would strip, without a rule in sudoers that permits it.
        command.arg("--").arg("env").args(passed_on()).arg(format!("PATH={}", search_path())).arg(program);
        command
    };
    command.env("PATH", search_path());
    Ok(command)
}

fn passed_on() -> impl Iterator<Item = OsString> {
    let wanted =
        |name: &OsStr| PASSED_ON.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes()));
    std::env::vars_os().filter(move |(name, _)| wanted(name)).map(|(name, value)| {
        let mut assignment = name;
        assignment.push("=");
        assignment.push(value);
        assignment
    })
}

/// The runner that cargo starts privileged binaries with: becomes `command`, as root.
pub(crate) fn become_root(arguments: &[OsString]) -> Result<Infallible> {
    let [program, arguments @ ..] = arguments else { bail!("elevate: a command is missing") };
    let error = command(program)?.args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// A cargo argument that makes `cargo run` and `cargo test` start their binaries as root, while cargo itself stays with
/// the user.
pub(crate) fn cargo_runner() -> Result<[String; 2]> {
    let xtask = std::env::current_exe().context("cannot find the path of xtask itself")?;
    Ok([
        "--config".into(),
        format!("target.'cfg(all())'.runner = [{:?}, 'elevate']", xtask.display().to_string()),
    ])
}

/// Makes sure that root here may do what the lab does: make namespaces, and configure networks in them.
///
/// # Errors
/// In containers whose root is a limited one.
pub(crate) fn require_namespaces() -> Result<()> {
    let mut probe = command("unshare")?;
    // An address on the new loopback device takes CAP_NET_ADMIN, which a new network namespace alone does not.
    probe.args(["--net", "--mount", "ip", "address", "add", "127.0.0.2/8", "dev", "lo"]);
    let output =
        probe.stdin(Stdio::inherit()).output().context("cannot start unshare (package util-linux)")?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "this needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN (in a container: --privileged), to make network namespaces \
         and load BPF programs: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )
}
