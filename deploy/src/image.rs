//! An image with nothing in it but the agent and its `vip-kube`, assembled by buildah: `FROM scratch`, without a Docker engine.
//!
//! Both are linked statically and need no file of a distribution. It has no shell, so commands of `exec` probes need an
//! image that is made of this one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::PROGRAMS;

/// What goes into an image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The folder of [`crate::PROGRAMS`].
    pub programs: PathBuf,
    /// Further files, and where they go: libraries of programs that are not static.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The processors it is for, as Docker calls them.
    pub arch: String,
    /// Its name.
    pub tag: String,
}

impl Image {
    /// An image of static programs for this machine's processors.
    pub fn of(programs: PathBuf) -> Self {
        let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let tag = format!("viplane:{}", env!("CARGO_PKG_VERSION"));
        Self { programs, files: Vec::new(), arch: arch.to_owned(), tag }
    }
}

/// How large things are, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The programs alone, in the order of [`crate::PROGRAMS`].
    pub programs: [u64; 2],
    /// The archive that is loaded on nodes.
    pub archive: u64,
}

/// Where the programs are in the image.
const FOLDER: &str = "usr/bin";

/// Assembles an image as the archive that `docker load`, `kind load image-archive`, `ctr images import` and k3s read. What is
/// made on the way is in `folder`, and removed.
///
/// # Errors
/// buildah is missing or refuses; this is not root.
pub fn assemble(image: &Image, folder: &Path, archive: &Path) -> Result<Sizes> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let root = folder.join("root");
    lay_out(image, &root)?;
    let store = Store { folder: folder.join("store") };
    let container = store.buildah(&["from", "--arch", &image.arch, "scratch"])?;
    store.buildah(&["copy", "--quiet", &container, &root.display().to_string(), "/"])?;
    let label = |key: &str, value: &str| format!("org.opencontainers.image.{key}={value}");
    store.buildah(&[
        "config",
        "--entrypoint",
        r#"["/usr/bin/vip-agent"]"#,
        "--cmd",
        "run",
        "--env",
        "PATH=/usr/bin:/bin",
        "--stop-signal",
        "SIGTERM",
        "--label",
        &label("title", "viplane"),
        "--label",
        &label("version", env!("CARGO_PKG_VERSION")),
        "--label",
        &label("licenses", "MIT OR Apache-2.0"),
        &container,
    ])?;
    // An archive that is there already is refused.
    let _ = fs::remove_file(archive);
    let to = format!("docker-archive:{}:{}", archive.display(), image.tag);
    // The same programs make the same image.
    store.buildah(&["commit", "--quiet", "--timestamp", "0", &container, &to])?;
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    let size = |path: &Path| {
        fs::metadata(path).map(|file| file.len()).with_context(|| format!("cannot read {}", path.display()))
    };
    let [agent, kube] = PROGRAMS.map(|name| image.programs.join(name));
    Ok(Sizes { programs: [size(&agent)?, size(&kube)?], archive: size(archive)? })
}

/// The image's root file system.
fn lay_out(image: &Image, root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let repository = crate::root();
    let licences = ["LICENSE-MIT", "LICENSE-APACHE"].map(|name| (repository.join(name), PathBuf::from(name)));
    let programs = PROGRAMS.map(|name| (image.programs.join(name), Path::new(FOLDER).join(name)));
    for (from, to) in image.files.iter().cloned().chain(programs).chain(licences) {
        let to = root.join(to.strip_prefix("/").unwrap_or(&to));
        let folder = to.parent().context("a file needs a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    // Where volumes go: a read-only root file system has them beforehand.
    for folder in [
        "etc/viplane",
        "run/viplane",
        "var/lib/viplane",
        "sys/fs/bpf",
        "proc",
        "dev",
        "host/proc/sys/net",
        "tmp",
    ] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(())
}

/// A store of its own, so that nothing of the machine's is touched; removed with what is in it.
struct Store {
    folder: PathBuf,
}

impl Store {
    fn buildah(&self, arguments: &[&str]) -> Result<String> {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(self.folder.join("root")).arg("--runroot").arg(self.folder.join("run"));
        buildah.args(["--storage-driver", "vfs"]).args(arguments).stdin(Stdio::null());
        let output = buildah.output().context("cannot start buildah: cargo xtask setup installs it")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("buildah {}: {}", arguments.first().unwrap_or(&""), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
