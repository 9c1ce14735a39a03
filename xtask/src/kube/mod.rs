//! `cargo xtask kube`: a real Kubernetes control plane, from packages only; built once, in one to four minutes, then cached in
//! target/tools. The crate vip-control-plane (bench/control-plane) starts it, for people and for tests.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace::{cargo, root, run, tools};

/// What can be done with it.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub(crate) enum Kube {
    /// Build it, unless that was done
    Build,
    /// Start one on the loopback interface, and print where its kubeconfig is
    Up {
        /// Its files
        #[arg(long, default_value = "target/kube")]
        dir: PathBuf,
        /// First of five ports [default: the first that are free from 16443 on]
        #[arg(long)]
        port: Option<u16>,
    },
    /// End it; its files stay, for the next `up`
    Down {
        /// Its files
        #[arg(long, default_value = "target/kube")]
        dir: PathBuf,
    },
}

/// As vip-control-plane's `VERSION`.
const FOLDER: &str = "kubernetes-1.20.2";
const PROGRAMS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Does it.
pub(crate) fn perform(kube: &Kube) -> Result<()> {
    build()?;
    match kube {
        Kube::Build => Ok(()),
        Kube::Up { dir, port } => {
            let port = port.map(|port| format!("--port={port}"));
            start(&["up", &dir.to_string_lossy()], port.as_deref())
        }
        Kube::Down { dir } => start(&["down", &dir.to_string_lossy()], None),
    }
}

fn start(arguments: &[&str], port: Option<&str>) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "vip-control-plane", "--"]).args(arguments).args(port);
    run(&mut command, "the control plane")
}

/// Builds the programs, unless they are there. In a folder of the user's own choice (`VIPLANE_KUBERNETES`) nothing is built.
pub(crate) fn build() -> Result<()> {
    if std::env::var_os("VIPLANE_KUBERNETES").is_some() {
        return Ok(());
    }
    let folder = tools().join(FOLDER);
    if PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
        return Ok(());
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    eprintln!(
        "kube: building Kubernetes from Debian's source package, once: some minutes, 2 GB for that time"
    );
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", include_str!("build.sh"), "sh"]).arg(&folder).current_dir(root());
    run(&mut shell, "building Kubernetes")
}
