//! `cargo xtask image`: static programs, and the image of them that vip-deploy assembles.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::elevate;
use crate::workspace::{cargo, find_program, root, run};

/// What to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Image {
    /// The processors it is for: amd64 or arm64 [default: this machine's]. Another one's takes its cross compiler
    /// (gcc-aarch64-linux-gnu) and `rustup target add`
    #[arg(long)]
    arch: Option<String>,
    /// Its name [default: viplane:VERSION]
    #[arg(long)]
    tag: Option<String>,
}

/// A processor: Docker's and Debian's name of it, and Rust's.
pub(crate) const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];

/// Builds programs and image.
pub(crate) fn build(image: &Image) -> Result<()> {
    let own = std::env::consts::ARCH;
    let wanted = image.arch.as_deref();
    let found = ARCHITECTURES
        .into_iter()
        .find(|(docker, rust)| wanted.map_or(*rust == own, |wanted| wanted == *docker));
    let Some((docker, rust)) = found else {
        bail!("an image is for amd64 or arm64, not {}", wanted.unwrap_or(own));
    };
    let programs = static_programs(rust)?;
    let mut deploy = cargo();
    // As root: whatever is in the image belongs to root, and no user may map that.
    deploy.args(["run", "--quiet"]).args(elevate::cargo_runner()?);
    deploy.args(["--package", "vip-deploy", "--", "image", "--arch", docker, "--programs"]).arg(programs);
    deploy.args(image.tag.iter().flat_map(|tag| ["--tag", tag]));
    run(&mut deploy, "making the image")
}

/// The folder of the agent and its `vip-kube` as programs that need no library of the system that they run on, for `arch` as Rust calls it.
pub(crate) fn static_programs(arch: &str) -> Result<PathBuf> {
    // One after the other: what the one needs of a library must not make the other larger.
    static_program("vip-agent", arch)?;
    static_program("vip-kube", arch)
}

fn static_program(name: &str, arch: &str) -> Result<PathBuf> {
    let target = format!("{arch}-unknown-linux-gnu");
    let variable = |name: &str| format!("CARGO_TARGET_{}_{name}", target.to_uppercase().replace('-', "_"));
    let mut build = cargo();
    // By a target of its own, so that build scripts are none of its business.
    build.args(["rustc", "--release", "--package", name, "--bin", name, "--target", &target]);
    // Names of functions stay, for backtraces; lines are three quarters of the file.
    build.args(["--", "-Cstrip=debuginfo"]);
    build.env(variable("RUSTFLAGS"), "-Ctarget-feature=+crt-static");
    if arch != std::env::consts::ARCH {
        let compiler = format!("{arch}-linux-gnu-gcc");
        if find_program(&compiler).is_none() {
            bail!("there is no {compiler}: apt install gcc-{arch}-linux-gnu; and rustup target add {target}");
        }
        build.env(variable("LINKER"), &compiler);
    }
    run(&mut build, "building a static program")?;
    Ok(root().join("target").join(target).join("release"))
}
