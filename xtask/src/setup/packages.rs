//! Packages of Debian and its kin: which programs come from where, and how they get here without starting a service.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{fmt, fs};

use anyhow::{Context as _, Result, bail};

use super::toolchain::{OLDEST, Version};
use crate::elevate;
use crate::workspace::{find_program, output};

/// A program that the lab starts, and the package that brings it.
pub(crate) struct Program {
    /// As it is called.
    pub(crate) name: &'static str,
    /// Debian's and Ubuntu's package.
    pub(crate) package: &'static str,
    /// What tests and demo use it for.
    pub(crate) purpose: &'static str,
}

/// All that tests, demo and benchmarks start beside their own binaries.
pub(crate) const LAB: [Program; 7] = [
    Program { name: "ip", package: "iproute2", purpose: "namespaces, links, addresses" },
    Program {
        name: "keepalived",
        package: "keepalived",
        purpose: "the VRRP peer to meet and to measure beside",
    },
    Program { name: "nginx", package: "nginx", purpose: "a web server with TLS for health probes" },
    Program { name: "nft", package: "nftables", purpose: "host firewalls that mute adverts" },
    Program { name: "ethtool", package: "ethtool", purpose: "offloads of the links between namespaces" },
    Program { name: "setpriv", package: "util-linux", purpose: "agents without a capability" },
    Program { name: "unshare", package: "util-linux", purpose: "private mounts" },
];

/// What tests alone start: no demo shall wait for it to be installed.
pub(crate) const PEERS: [Program; 2] = [
    Program { name: "prometheus", package: "prometheus", purpose: "the scraper that reads our metrics" },
    Program { name: "openssl", package: "openssl", purpose: "certificates for HTTPS" },
];

/// What builds and runs a Kubernetes control plane. Programs that have no place in `PATH` are named by theirs.
pub(crate) const CONTROL_PLANE: [Program; 6] = [
    Program { name: "etcd", package: "etcd-server", purpose: "the store of a Kubernetes control plane" },
    Program { name: "curl", package: "curl", purpose: "requests to its API server" },
    Program { name: "openssl", package: "openssl", purpose: "keys of its service accounts" },
    Program {
        name: "dpkg-source",
        package: "dpkg-dev",
        purpose: "unpacking the source package of Kubernetes",
    },
    Program { name: "/usr/lib/go-1.19/bin/go", package: "golang-1.19-go", purpose: "building it" },
    Program {
        name: "/usr/share/gocode/src/github.com/modern-go/reflect2/reflect2.go",
        package: "golang-github-modern-go-reflect2-dev",
        purpose: "a library of it that is newer",
    },
];
/// What makes images, without a Docker engine.
pub(crate) const IMAGE: [Program; 1] =
    [Program { name: "buildah", package: "buildah", purpose: "container images without a Docker engine" }];

/// What boots other kernels.
pub(crate) const MACHINE: [Program; 3] = [
    Program {
        name: "qemu-system-x86_64",
        package: "qemu-system-x86",
        purpose: "machines with other kernels",
    },
    Program { name: "strip", package: "binutils", purpose: "small programs for them" },
    Program { name: "xz", package: "xz-utils", purpose: "their modules" },
];

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "package {} ({}: {})", self.package, self.name, self.purpose)
    }
}

/// Those that are not on this system.
pub(crate) fn missing(programs: &'static [Program]) -> impl Iterator<Item = &'static Program> {
    let is_there = |name: &str| match name.starts_with('/') {
        true => Path::new(name).exists(),
        false => find_program(name).is_some(),
    };
    programs.iter().filter(move |program| !is_there(program.name))
}

/// Installs packages as root.
///
/// # Errors
/// Without apt, or when apt fails; the message names the packages.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    require_apt(packages)?;
    refresh_lists()?;
    let mut shell = elevate::command("sh")?;
    shell.args(["-eu", "-c", include_str!("apt-install.sh"), "sh"]).args(packages).stdin(Stdio::null());
    if !shell.status().context("cannot start sh")?.success() {
        bail!("apt could not install {}: its messages above say why", packages.join(" "));
    }
    Ok(())
}

/// One clear line where there is no apt.
pub(crate) fn require_apt(packages: &[String]) -> Result<()> {
    if find_program("apt-get").is_some() {
        return Ok(());
    }
    bail!(
        "set-up installs packages with apt only, and this system has no apt-get: install what Debian calls {} by this \
         system's own means, then run this again",
        packages.join(", ")
    )
}

/// The names under which a compiler and its library sources come: Debian's for browsers, which is kept new in stable
/// releases, and the plain ones.
const COMPILERS: [[&str; 2]; 2] = [["rustc-web", "rust-web-src"], ["rustc", "rust-src"]];

/// The packages of the first compiler that is at least [`OLDEST`], by what apt knows now.
pub(crate) fn packaged_compiler() -> Option<[String; 2]> {
    let plain = COMPILERS.map(|names| names.map(str::to_owned));
    let known = output(Command::new("apt-cache").args(["pkgnames", "rustc-1."])).unwrap_or_default();
    // Ubuntu's rustc-1.95 and rust-1.95-src
    let numbered = known
        .lines()
        .filter_map(|name| Some([name.to_owned(), format!("rust-{}-src", name.strip_prefix("rustc-")?)]));
    let fits = |package: &String| candidate(package).is_some_and(|version| version >= OLDEST);
    plain.into_iter().chain(numbered).find(|names| names.iter().all(fits))
}

/// The version that apt would install.
fn candidate(package: &str) -> Option<Version> {
    let policy = output(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
    let line = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?;
    // Without an epoch, which no rustc has had.
    Version::parse(line)
}

/// Fetches apt's lists where they are missing, or more than a day old.
pub(crate) fn refresh_lists() -> Result<()> {
    let lists = Path::new("/var/lib/apt/lists");
    let fresh = fs::read_dir(lists).into_iter().flatten().flatten().any(|file| {
        let index = file.file_name().to_string_lossy().contains("_Packages");
        let age = file.metadata().and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
        index && age.is_some_and(|age| age.as_secs() < 24 * 3600)
    });
    if !fresh {
        // A source that is out of reach is no reason to stop: what is missing in the end, apt-get install will say.
        elevate::command("apt-get")?.args(["update", "-qq"]).status().context("cannot start apt-get")?;
    }
    Ok(())
}
