//! Ways from a client to a backend, each on a wire of its own: a veth, at whose one end clients send and backends receive,
//! as on one switch, and at whose other end is the node.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::XdpMode;
use nix::net::if_::if_nametoindex;
use serde::Serialize;

use crate::bench_object::{arrived, load, program_mut};
use crate::generator::{PORT, Traffic, send};
use crate::netns::{Namespace, run, set};
use crate::record::{Cell, Run};
use crate::steering::{self, Steering};

/// The VIP, and a backend's address and MAC.
pub(crate) const VIP: [u8; 4] = [10, 0, 0, 50];
pub(crate) const BACKEND: [u8; 4] = [10, 0, 1, 7];
/// The port that DNAT maps to.
const TARGET: u16 = 8080;

/// Names of the two ends, in namespaces of their own.
const CLIENTS: &str = "clients0";
const ETH0: &str = "eth0";

/// A way from a client to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Contender {
    /// None: the node drops all. Generator and wire alone.
    Discard,
    /// A program that writes two MACs into everything and sends it back: no program that looks at it can be faster.
    Reflect,
    /// viplane, mode `dr`.
    Viplane,
    /// The kernel's forwarding: to the backend's address, without firewall or connection tracking.
    Forward,
    /// nftables DNAT from the VIP to the backend.
    Nftables,
    /// IPVS, direct routing. Only where the kernel has it (bench/pktgen/machine.sh).
    Ipvs,
}

impl Contender {
    pub(crate) const ALL: [Self; 6] =
        [Self::Discard, Self::Reflect, Self::Viplane, Self::Forward, Self::Nftables, Self::Ipvs];

    /// Those that this kernel has.
    pub(crate) fn usual() -> Vec<Self> {
        let has_ipvs = Path::new("/proc/net/ip_vs").exists();
        Self::ALL.into_iter().filter(|contender| *contender != Self::Ipvs || has_ipvs).collect()
    }

    /// Its name in the JSON, and as a class in the picture.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::Reflect => "reflect",
            Self::Viplane => "viplane",
            Self::Forward => "forward",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discard => "generator and wire alone",
            Self::Reflect => "least program that sends",
            Self::Viplane => "viplane, dr",
            Self::Forward => "kernel, forwarding",
            Self::Nftables => "kernel, nftables DNAT",
            Self::Ipvs => "kernel, IPVS dr",
        })
    }
}

/// What is attached at the node's end.
enum Node {
    /// One of the benchmark's programs; `discard` counts what it gets.
    Program(Ebpf),
    /// viplane.
    Steering { _attached: Box<Steering> },
}

/// A wire with a contender at its end.
pub(crate) struct Topology {
    contender: Contender,
    clients: Namespace,
    clients_end: u32,
    /// Generates, and counts what comes to the backend.
    outside: std::cell::RefCell<Ebpf>,
    node: Node,
    _node_namespace: Namespace,
}

// === impl Topology ===

impl Topology {
    /// Makes both namespaces, the wire between them, and what is to run at the node.
    pub(crate) fn build(contender: Contender) -> Result<Self> {
        let clients = Namespace::new()?;
        let node_namespace = Namespace::new()?;
        run("ip", &format!("link add {ETH0} address 02:00:00:00:00:01 type veth peer name {CLIENTS}"))?;
        clients.adopt(CLIENTS)?;
        run("ip", &format!("link set {ETH0} addrgenmode none up"))?;
        let node = Self::node(contender)?;
        clients.enter()?;
        run("ip", &format!("link set {CLIENTS} addrgenmode none up"))?;
        let clients_end = if_nametoindex(CLIENTS)?;
        let mut outside = load(&["generate", "sink"])?;
        program_mut(&mut outside, "sink")?
            .attach(CLIENTS, XdpMode::Driver)
            .context("attaching to the clients' end")?;
        Ok(Self {
            contender,
            clients,
            clients_end,
            outside: outside.into(),
            node,
            _node_namespace: node_namespace,
        })
    }

    pub(crate) const fn contender(&self) -> Contender {
        self.contender
    }

    /// What stands at the node's end. Live frames come in by driver mode only where a program is attached so, whichever.
    fn node(contender: Contender) -> Result<Node> {
        let attached = |name: &str| -> Result<Node> {
            let mut ebpf = load(&[name])?;
            program_mut(&mut ebpf, name)?
                .attach(ETH0, XdpMode::Driver)
                .context("attaching to the node's end")?;
            Ok(Node::Program(ebpf))
        };
        match contender {
            Contender::Discard => attached("discard"),
            Contender::Reflect => attached("reflect"),
            Contender::Viplane => Ok(Node::Steering { _attached: Box::new(steering::attach(ETH0)?) }),
            Contender::Forward => {
                forward()?;
                attached("pass_up")
            }
            Contender::Nftables => {
                forward()?;
                translate()?;
                attached("pass_up")
            }
            Contender::Ipvs => {
                forward()?;
                balance()?;
                attached("pass_up")
            }
        }
    }

    /// Sends so many frames and counts those that arrive.
    pub(crate) fn run(&self, cell: Cell, frames: u32, rate: Option<u64>, round: u32) -> Result<Run> {
        self.clients.enter()?;
        let destination = if self.contender == Contender::Forward { BACKEND } else { VIP };
        let traffic = Traffic { cell, destination, frames, rate };
        let before = self.arrived()?;
        let elapsed = send(&mut self.outside.borrow_mut(), self.clients_end, &traffic)?;
        let in_time = self.arrived()? - before;
        // What is still under way counts as arrived, but not as fast.
        std::thread::sleep(Duration::from_millis(5));
        let in_all = self.arrived()? - before;
        ensure!(in_time > 0, "none of {frames} frames arrived");
        let seconds = elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let per_second = in_time as f64 / seconds;
        Ok(Run {
            contender: self.contender,
            cell,
            round,
            offered_per_second: f64::from(frames) / seconds,
            per_second,
            lost: u64::from(frames).saturating_sub(in_all),
            load: vip_lab::machine::load(),
        })
    }

    fn arrived(&self) -> Result<u64> {
        match &self.node {
            Node::Program(discard) if self.contender == Contender::Discard => arrived(discard),
            Node::Program(_) | Node::Steering { .. } => arrived(&self.outside.borrow()),
        }
    }
}

/// The node forwards, out of the interface by which it came in, to a backend whose MAC it knows.
fn forward() -> Result<()> {
    let [a, b, c, d] = BACKEND;
    set("ipv4/ip_forward", "1")?;
    for interface in ["all", ETH0] {
        set(&format!("ipv4/conf/{interface}/rp_filter"), "0")?;
        set(&format!("ipv4/conf/{interface}/send_redirects"), "0")?;
    }
    run("ip", "link set lo up")?;
    run("ip", &format!("address add 10.0.0.1/24 dev {ETH0}"))?;
    run("ip", &format!("route add {a}.{b}.{c}.0/24 dev {ETH0}"))?;
    run("ip", &format!("neighbour replace {a}.{b}.{c}.{d} lladdr 02:00:00:00:00:bb nud permanent dev {ETH0}"))
}

/// The node's kernel translates the VIP to the backend.
fn translate() -> Result<()> {
    let address = |[a, b, c, d]: [u8; 4]| format!("{a}.{b}.{c}.{d}");
    let (vip, backend) = (address(VIP), address(BACKEND));
    run("nft", "add table ip nat")?;
    run("nft", "add chain ip nat prerouting { type nat hook prerouting priority dstnat ; }")?;
    run(
        "nft",
        &format!("add rule ip nat prerouting ip daddr {vip} udp dport {PORT} dnat to {backend}:{TARGET}"),
    )
}

/// The node's kernel sends the VIP's packets to the backend's MAC.
fn balance() -> Result<()> {
    let address = |[a, b, c, d]: [u8; 4]| format!("{a}.{b}.{c}.{d}");
    let (vip, backend) = (address(VIP), address(BACKEND));
    // It looks at what is for this host.
    run("ip", &format!("address add {vip}/32 dev lo"))?;
    run("ipvsadm", &format!("--add-service --udp-service {vip}:{PORT} --scheduler rr"))?;
    run(
        "ipvsadm",
        &format!("--add-server --udp-service {vip}:{PORT} --real-server {backend}:{PORT} --gatewaying"),
    )
}
