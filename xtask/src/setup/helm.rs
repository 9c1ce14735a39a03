//! Helm's own engine for tests and manifests: a Python package, in an environment of its own below target/tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages;
use crate::workspace::{find_program, output, run, tools};

/// What is announced before [`install`].
pub(crate) const WHAT: &str =
    "Helm's engine (the Python package helm-python-sdk), into target/tools/helm: renders the chart";

/// The pinned release, which holds Helm 4.2.
const PACKAGE: &str = "helm-python-sdk==0.2.2";

fn folder() -> PathBuf {
    tools().join("helm")
}

fn stamp() -> PathBuf {
    folder().join("installed")
}

/// True when the pinned release is there.
pub(crate) fn is_installed() -> bool {
    fs::read_to_string(stamp()).is_ok_and(|package| package == PACKAGE)
}

/// Installs it: about 80 MB from PyPI.
///
/// # Errors
/// There is no Python 3 with `venv`, nor apt to get it with; PyPI is out of reach.
pub(crate) fn install() -> Result<()> {
    let usual = Path::new("/usr/bin/python3");
    let python = || usual.exists().then(|| usual.to_owned()).or_else(|| find_program("python3"));
    let has_venv =
        |python: &PathBuf| output(Command::new(python).args(["-c", "import ensurepip, venv"])).is_some();
    if !python().as_ref().is_some_and(has_venv) {
        packages::install(&["python3-venv".to_owned()])?;
    }
    let python = python().context("there is no python3")?;
    let folder = folder();
    run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder), "making a Python environment")?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--only-binary=:all:",
        PACKAGE,
    ]);
    run(&mut pip, "installing helm-python-sdk")?;
    remove_copies(&folder)?;
    fs::write(stamp(), PACKAGE).with_context(|| format!("cannot write {}", stamp().display()))
}

/// A wheel holds no links, so each name of its 85 MB library is a copy; the one with the whole version is what is loaded.
fn remove_copies(folder: &Path) -> Result<()> {
    let mut find = Command::new("find");
    find.arg(folder).args(["-name", "libhelm_c.so", "-o", "-name", "libhelm_c.so.0"]).arg("-print");
    let copies = output(&mut find).context("cannot look for copies of libhelm_c")?;
    for copy in copies.lines() {
        fs::remove_file(copy).with_context(|| format!("cannot remove {copy}"))?;
    }
    Ok(())
}
