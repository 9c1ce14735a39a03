//! The Debian package: the agent, its `vip-kube`, its unit, examples, and scripts that keep a running VIP through an upgrade. Packed by dpkg-deb.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::PROGRAMS;

/// Scripts of deploy/deb that dpkg runs.
pub const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Packs the statically linked programs of a folder, for `arch`, as Debian calls it, into `folder`; yields the package.
///
/// # Errors
/// dpkg-deb is missing or refuses; the folder cannot be written.
pub fn assemble(programs: &Path, arch: &str, folder: &Path) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let repository = crate::root();
    for name in PROGRAMS {
        place(&programs.join(name), &root.join("usr/bin").join(name), 0o755)?;
    }
    let unit = crate::folder().join("systemd/vip-agent.service");
    place(&unit, &root.join("usr/lib/systemd/system/vip-agent.service"), 0o644)?;
    let docs = root.join("usr/share/doc/viplane");
    place(&repository.join("README.md"), &docs.join("README.md"), 0o644)?;
    for example in examples(&repository)? {
        let name = example.file_name().context("an example has a name")?;
        place(&example, &docs.join("examples").join(name), 0o644)?;
    }
    write(&docs.join("copyright"), &copyright(&repository)?, 0o644)?;
    for script in SCRIPTS {
        place(&crate::folder().join("deb").join(script), &root.join("DEBIAN").join(script), 0o755)?;
    }
    write(&root.join("DEBIAN/control"), &control(version, arch, programs)?, 0o644)?;

    let package = folder.join(format!("viplane_{version}_{arch}.deb"));
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "--build"]).arg(&root).arg(&package).stdin(Stdio::null());
    let packed = pack.output().context("cannot start dpkg-deb: packages are made on Debian and its kin")?;
    if !packed.status.success() {
        bail!("dpkg-deb: {}", String::from_utf8_lossy(&packed.stderr).trim());
    }
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    Ok(package)
}

/// What dpkg knows of it. It depends on nothing: the programs are linked statically.
fn control(version: &str, arch: &str, programs: &Path) -> Result<String> {
    let mut size = 0;
    for name in PROGRAMS {
        let program = programs.join(name);
        size += fs::metadata(&program).with_context(|| format!("cannot read {}", program.display()))?.len();
    }
    Ok(format!(
        "Package: viplane
Version: {version}
Architecture: {arch}
Maintainer: The viplane authors <viplane@users.noreply.github.com>
Homepage: {}
Section: net
Priority: optional
Installed-Size: {}
Description: virtual IPs answered in XDP, elected by VRRP
 Virtual IPs for bare-metal nodes: an XDP program answers ARP and neighbour
 discovery for them, VRRPv3 with health probes elects their owner, and a move
 is one word in memory. In place of the VRRP part of keepalived.
",
        env!("CARGO_PKG_REPOSITORY"),
        size.div_ceil(1024),
    ))
}

fn copyright(repository: &Path) -> Result<String> {
    let read =
        |name: &str| fs::read_to_string(repository.join(name)).with_context(|| format!("cannot read {name}"));
    Ok(format!(
        "viplane is licensed under MIT or Apache-2.0, as you like.\n\n{}\n\n{}",
        read("LICENSE-MIT")?,
        read("LICENSE-APACHE")?
    ))
}

/// The configurations of docs/examples that are one file.
fn examples(repository: &Path) -> Result<Vec<PathBuf>> {
    let folder = repository.join("docs/examples");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml");
    Ok(files.flatten().map(|entry| entry.path()).filter(is_yaml).collect())
}

fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &bytes, mode)
}

fn write(to: &Path, bytes: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    let folder = to.parent().context("a file needs a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot chmod {}", to.display()))
}
