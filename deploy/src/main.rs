//! `vip-deploy`: makes deploy/manifests of the chart, packs the chart, assembles images and packages. Started by `cargo xtask`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use vip_deploy::image::{self, Image};
use vip_deploy::{Helm, crds, manifests, package};

/// What is deployed
#[derive(Debug, Parser)]
#[command(name = "vip-deploy")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make deploy/chart/crds
    Crds {
        /// Only say which are stale: exit code 1 if any is
        #[arg(long)]
        check: bool,
    },
    /// Make deploy/manifests of the chart
    Manifests {
        /// Only say which are stale: exit code 1 if any is
        #[arg(long)]
        check: bool,
        /// Also pack the chart into this folder
        #[arg(long, value_name = "FOLDER")]
        package: Option<PathBuf>,
    },
    /// Assemble an image of static programs, into target/image
    Image {
        /// The folder of vip-agent and vip-kube
        #[arg(long, value_name = "FOLDER")]
        programs: PathBuf,
        /// The processors it is for, as Docker calls them
        #[arg(long)]
        arch: String,
        /// Its name [default: viplane:VERSION]
        #[arg(long)]
        tag: Option<String>,
    },
    /// Pack a Debian package of static programs, into target/debian
    Deb {
        /// The folder of vip-agent and vip-kube
        #[arg(long, value_name = "FOLDER")]
        programs: PathBuf,
        /// The processors it is for, as Debian calls them
        #[arg(long)]
        arch: String,
    },
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Crds { check } => make_crds(check),
        Command::Manifests { check, package } => make_manifests(check, package),
        Command::Image { programs, arch, tag } => make_image(programs, arch, tag),
        Command::Deb { programs, arch } => {
            let folder = vip_deploy::root().join("target/debian");
            package::assemble(&programs, &arch, &folder).map(|package| {
                println!("{}", package.display());
                ExitCode::SUCCESS
            })
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn make_crds(check: bool) -> Result<ExitCode> {
    Ok(match check {
        true => told("stale", &crds::stale()?),
        false => {
            told("written", &crds::write()?);
            ExitCode::SUCCESS
        }
    })
}

/// Names files; fails if there are any.
fn told(word: &str, files: &[PathBuf]) -> ExitCode {
    files.iter().for_each(|file| println!("{word}: {}", file.display()));
    if files.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn make_manifests(check: bool, package: Option<PathBuf>) -> Result<ExitCode> {
    let mut helm = Helm::start()?;
    if let Some(folder) = package {
        println!("{}", helm.package(&folder)?.display());
    }
    Ok(match check {
        true => told("stale", &manifests::stale(&mut helm)?),
        false => {
            told("written", &manifests::write(&mut helm)?);
            ExitCode::SUCCESS
        }
    })
}

fn make_image(programs: PathBuf, arch: String, tag: Option<String>) -> Result<ExitCode> {
    let folder = vip_deploy::root().join("target/image");
    let tag = tag.unwrap_or_else(|| format!("viplane:{}", env!("CARGO_PKG_VERSION")));
    let image = Image { arch, tag, ..Image::of(programs) };
    let archive = folder.join(format!("viplane-{}.tar", image.arch));
    let sizes = image::assemble(&image, &folder, &archive)?;
    println!(
        "{}: {}, vip-agent {} KiB, vip-kube {} KiB, archive {} KiB",
        image.tag,
        archive.display(),
        sizes.programs[0] >> 10,
        sizes.programs[1] >> 10,
        sizes.archive >> 10
    );
    Ok(ExitCode::SUCCESS)
}
