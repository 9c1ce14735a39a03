//! `cargo xtask`: what this repository needs done, one file per command. Each command does the set-up it needs.

mod bench;
mod build;
mod build_ebpf;
mod crds;
mod deb;
mod demo;
mod elevate;
mod fingerprint;
mod fuzz;
mod image;
mod kernels;
mod kube;
mod manifests;
#[cfg(test)]
mod policy;
mod release;
mod setup;
mod sim;
mod slim;
mod test;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use setup::{Consent, Need};

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "What this repository needs done; each command does the set-up it needs"
)]
struct Arguments {
    /// Install what is missing without asking
    #[arg(short, long)]
    yes: bool,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Get all that builds, tests and demo need and this system lacks
    Setup {
        /// Without asking
        #[arg(short, long)]
        yes: bool,
    },
    /// Build the XDP program into target/bpf
    BuildEbpf,
    /// Build the XDP program, then the workspace
    Build {
        /// Options of cargo build
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Watch a VIP move between three nodes; results in target/demo
    Demo {
        /// Options of the demo: --help lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Run the lints and all tests
    Test(test::Selection),
    /// Play VRRP networks by seed: 2000 of each family, or the one that failed
    Sim {
        /// Options of the simulator: --help lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Measure; results in target/bench
    Bench {
        /// What
        bench: bench::Bench,
        /// Options of the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Build, start and end a real Kubernetes control plane
    #[command(subcommand)]
    Kube(kube::Kube),
    /// Make the definitions of VipPool and VirtualIP, in deploy/chart/crds; --check only says which are stale
    Crds {
        /// Options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Make deploy/manifests of the chart; --check only says which are stale, --package FOLDER packs the chart
    Manifests {
        /// Options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Build static programs and an image of them, without a Docker engine, into target/image
    Image(image::Image),
    /// Build a Debian package into target/debian
    Deb,
    /// Look for inputs that break what must hold for all of them
    Fuzz(fuzz::Fuzz),
    /// Become a command, as root: cargo's runner for privileged binaries
    #[command(hide = true)]
    Elevate {
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: Arguments) -> Result<()> {
    let consent = |yes| if yes { Consent::Given } else { Consent::Ask };
    let set_up = |needs: &[Need]| setup::ensure(needs, consent(arguments.yes));
    let with_program = |needs: &[Need]| {
        let toolchain = set_up(needs)?;
        build_ebpf::refresh(&toolchain)?;
        Ok::<_, anyhow::Error>(toolchain)
    };
    match arguments.command {
        Task::Setup { yes } => {
            setup::ensure(
                &[Need::Lab, Need::Peers, Need::Lints, Need::Helm, Need::Image, Need::ControlPlane],
                consent(yes || arguments.yes),
            )?;
            println!("set-up: nothing is missing");
        }
        Task::BuildEbpf => build_ebpf::build(&set_up(&[])?)?,
        Task::Build { options } => {
            with_program(&[])?;
            build::all(&options)?;
        }
        Task::Demo { options } => {
            with_program(&[Need::Lab])?;
            demo::start(&options)?;
        }
        Task::Test(selection) => {
            let needs = [Need::Lab, Need::Peers, Need::Lints, Need::Helm, Need::Image, Need::ControlPlane];
            let toolchain = with_program(if selection.full { &needs } else { &needs[..5] })?;
            if selection.full {
                kube::build()?;
            }
            test::all(&selection, &toolchain)?;
        }
        Task::Sim { options } => {
            with_program(&[])?;
            sim::play(&options)?;
        }
        Task::Bench { bench, options } => {
            with_program(bench.needs())?;
            bench::measure(bench, &options)?;
        }
        Task::Kube(kube) => {
            set_up(&[Need::ControlPlane])?;
            kube::perform(&kube)?;
        }
        Task::Crds { options } => {
            set_up(&[Need::Helm])?;
            crds::make(&options)?;
        }
        Task::Manifests { options } => {
            set_up(&[Need::Helm])?;
            manifests::make(&options)?;
        }
        Task::Image(image) => {
            with_program(&[Need::Image])?;
            image::build(&image)?;
        }
        Task::Deb => {
            with_program(&[])?;
            deb::build()?;
        }
        Task::Fuzz(fuzz) => {
            with_program(&[])?;
            fuzz::search(&fuzz)?;
        }
        Task::Elevate { command } => {
            elevate::become_root(&command)?;
        }
    }
    Ok(())
}
