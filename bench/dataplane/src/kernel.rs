//! Whether this kernel takes the programs and runs them: what `cargo xtask bench kernels` asks each of its machines.

use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;
use vip_agent::dataplane::{Dataplane, LoadOptions, XdpMode, XdpModeChoice};
use vip_common::maps::vip_flags;

use crate::answering::ip;
use crate::steering::{self, Node, Verified};

/// What one kernel made of the programs.
#[derive(Serialize)]
pub(crate) struct Acceptance {
    pub(crate) kernel: String,
    /// In the order in which they are loaded; empty if one was refused.
    pub(crate) programs: Vec<Verified>,
    /// Modes in which `viplane` was attached to a veth.
    pub(crate) attached: Vec<XdpMode>,
    /// Frames that came to what they should, by BPF_PROG_TEST_RUN.
    pub(crate) steered: Vec<&'static str>,
    /// The first thing that did not work, in the kernel's words.
    pub(crate) refused: Option<String>,
}

impl Acceptance {
    /// Goes through it all, in a network namespace that ends with it.
    pub(crate) fn of(kernel: String) -> Result<Self> {
        let ask = move || {
            let (programs, attached, steered) = Default::default();
            let mut acceptance = Self { kernel, programs, attached, steered, refused: None };
            acceptance.refused = acceptance.ask().err().map(|error| format!("{error:#}"));
            acceptance
        };
        thread::spawn(ask).join().map_err(|_| anyhow!("the asking thread panicked"))
    }

    fn ask(&mut self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("no network namespace (root is needed)")?;
        ip("link add here type veth peer name there")?;
        lead_somewhere()?;
        let node = Node::new(vip_flags::SERVICES | vip_flags::FULL_NAT)?;
        self.programs = node.verified();
        for case in steering::cases().into_iter().chain(steering::of_full_nat()) {
            node.steer(&case.frame, 1, case.verdict).context(case.name)?;
            self.steered.push(case.name);
        }
        for (choice, mode) in [(XdpModeChoice::Skb, XdpMode::Skb), (XdpModeChoice::Driver, XdpMode::Driver)] {
            let mut dataplane = Dataplane::load(&LoadOptions { xdp_mode: choice, pin_dir: None })?;
            let attached = dataplane.attach(if_nametoindex("here")?, "here")?;
            ensure!(attached.mode == mode, "attached in {} mode instead of {mode}", attached.mode);
            self.attached.push(mode);
        }
        Ok(())
    }
}

/// Full NAT begins no flow whose client no route leads to.
fn lead_somewhere() -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/lo/forwarding");
        fs::write(&path, "1").with_context(|| format!("cannot write {path}"))?;
    }
    for command in [
        "link set lo up",
        "link set there up",
        "link set here up",
        "address add 198.51.100.1/24 dev here",
        "route add default dev here",
        "-6 route add default dev here",
    ] {
        ip(command)?;
    }
    Ok(())
}
