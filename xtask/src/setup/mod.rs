//! `cargo xtask setup`: gets what a command needs and this system lacks, says so first, and is quick when nothing is missing.

mod helm;
pub(crate) mod linker;
mod lints;
pub(crate) mod packages;
mod rustup;
pub(crate) mod toolchain;

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Result, bail};

use toolchain::{Search, Toolchain};

/// What a command needs beside cargo and the BPF toolchain, which all need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The programs that tests, demo and benchmarks start.
    Lab,
    /// The programs that tests alone start.
    Peers,
    /// What builds and runs a Kubernetes control plane.
    ControlPlane,
    /// What renders the chart.
    Helm,
    /// What makes images.
    Image,
    /// What boots other kernels.
    Machine,
    /// rustfmt and clippy, for the workspace and for the BPF program.
    Lints,
}

/// Whether to ask before installing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Ask, if there is a terminal.
    Ask,
    /// Given beforehand.
    Given,
}

/// Gets the BPF toolchain and what is missing of `needs`.
///
/// # Errors
/// When something cannot be had: what, and how to get it otherwise.
pub(crate) fn ensure(needs: &[Need], consent: Consent) -> Result<Toolchain> {
    if std::env::consts::OS != "linux" {
        bail!("viplane is built and run on Linux only, and this is {}", std::env::consts::OS);
    }
    let search = toolchain::find();
    let lab = needs.contains(&Need::Lab).then_some(&packages::LAB[..]);
    let peers = needs.contains(&Need::Peers).then_some(&packages::PEERS[..]);
    let control_plane = needs.contains(&Need::ControlPlane).then_some(&packages::CONTROL_PLANE[..]);
    let image = needs.contains(&Need::Image).then_some(&packages::IMAGE[..]);
    let machine = needs.contains(&Need::Machine).then_some(&packages::MACHINE[..]);
    let programs: Vec<_> = [lab, peers, control_plane, image, machine]
        .into_iter()
        .flatten()
        .flat_map(packages::missing)
        .collect();
    let tools = if needs.contains(&Need::Lints) { lints::missing(search.found()) } else { Vec::new() };

    let mut lines: Vec<String> = Vec::new();
    match &search {
        Search::Found(toolchain) => lines.extend(toolchain.missing_linker().map(|linker| linker.to_string())),
        Search::Nothing(_) => lines.push(toolchain::BOTH_WAYS.to_owned()),
    }
    lines.extend(tools.iter().map(ToString::to_string));
    lines.extend(programs.iter().map(ToString::to_string));
    let renders = needs.contains(&Need::Helm) && !helm::is_installed();
    lines.extend(renders.then(|| helm::WHAT.to_owned()));
    if let (true, Search::Found(toolchain)) = (lines.is_empty(), &search) {
        return Ok(toolchain.clone());
    }
    eprintln!("set-up: to be installed, because it is missing here:\n  {}", lines.join("\n  "));
    ask(consent)?;

    packages::install(&programs.iter().map(|program| program.package.to_owned()).collect::<Vec<_>>())?;
    if renders {
        helm::install()?;
    }
    let toolchain = match search {
        Search::Found(toolchain) => toolchain,
        Search::Nothing(rejected) => toolchain::obtain(&rejected)?,
    };
    if needs.contains(&Need::Lints) {
        // Asked again: a compiler that has just come may lack its clippy.
        lints::install(&lints::missing(Some(&toolchain)))?;
    }
    if let Some(linker) = toolchain.missing_linker() {
        linker.install()?;
    }
    eprintln!("set-up: done");
    Ok(toolchain)
}

/// Asks for leave, where somebody is there to be asked.
fn ask(consent: Consent) -> Result<()> {
    let attended =
        io::stdin().is_terminal() && io::stderr().is_terminal() && std::env::var_os("CI").is_none();
    if consent == Consent::Given || !attended {
        return Ok(());
    }
    eprint!("Go ahead? [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer)?;
    if read == 0 || !matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes") {
        bail!("nothing was installed");
    }
    Ok(())
}
