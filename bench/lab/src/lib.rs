//! The laboratory: nodes, a switch and clients in namespaces of their own, and instruments that watch them.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::time::Duration;
//! let lab = vip_lab::Lab::builder().nodes(3).vips(["10.0.0.50", "fd00::50"]).web().build()?;
//! let agent = lab.agent(1, "target/debug/vip-agent").priority(200).interval(Duration::from_millis(10)).start()?;
//! agent.wait_state("active", Duration::from_secs(1))?;
//! let load = lab.requests().every(Duration::from_millis(1)).delay(Duration::from_millis(10)).start()?;
//! agent.drain()?;
//! assert_eq!(load.stop().lost().count(), 0);
//! # Ok(()) }
//! ```
//!
//! All of it is held by threads and handles of this process: whatever ends the process ends the lab, and dropping the
//! [`Lab`] with what was made from it ends it earlier. Only root can build one.
//!
//! Traps of veth that the lab cannot hide: in driver mode XDP_TX arrives only if the peer (the switch's port) has an XDP
//! program too; TCP crosses with partial checksums unless [`LabBuilder::checksum_offload`] is off.

pub mod agent;
pub mod answers;
pub mod arping;
mod clock;
pub mod firewall;
pub mod hogs;
mod inject;
pub mod keepalived;
mod mac;
pub mod machine;
pub mod node;
mod packet_socket;
pub mod process;
pub mod pulse;
pub mod requests;
pub mod stats;
mod switch;
pub mod wait;
pub mod web;
pub mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use clock::Stamp;
pub use mac::Mac;
pub use node::Node;
pub use process::Process;
pub use switch::Switch;

use agent::AgentBuilder;
use keepalived::KeepalivedBuilder;
use node::Identity;
use requests::RequestsBuilder;
use web::Web;
use wire::Wire;

/// Nodes are 1 to this: their addresses stay below the VIPs' usual 10.0.0.50.
pub const MAX_NODES: u8 = 49;
/// Clients are 1 to this.
pub const MAX_CLIENTS: u8 = 8;
/// Host number of the first client; those of nodes start at 1.
const FIRST_CLIENT: u8 = 201;
/// Host number in the switch's own MAC address.
const SWITCH: u8 = 254;
/// Port of the web servers and of their UDP echo.
pub const WEB_PORT: u16 = 80;

/// A network of nodes and clients on one switch.
#[derive(Debug)]
pub struct Lab {
    // First, so that servers stop before their nodes.
    webs: Mutex<Vec<Web>>,
    nodes: Vec<Node>,
    clients: Vec<Node>,
    switch: Switch,
    vips: Vec<IpAddr>,
    prefix4: u8,
}

/// Says what a [`Lab`] shall have; see its methods for what it has by itself.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    nodes: u8,
    clients: u8,
    vips: Vec<IpAddr>,
    web: bool,
    checksum_offload: bool,
    multicast_snooping: bool,
    logs: Option<PathBuf>,
}

// === impl Lab ===

impl Lab {
    /// Two nodes, one client, no VIPs, no web servers.
    pub fn builder() -> LabBuilder {
        LabBuilder {
            nodes: 2,
            clients: 1,
            vips: Vec::new(),
            web: false,
            checksum_offload: true,
            multicast_snooping: false,
            logs: None,
        }
    }

    /// Node `number`, from 1: `node1` has 10.0.0.1, fd00::1 and 02:00:00:00:00:01.
    ///
    /// # Panics
    /// The lab has no such node.
    pub fn node(&self, number: usize) -> &Node {
        let index = number.checked_sub(1);
        index.and_then(|index| self.nodes.get(index)).unwrap_or_else(|| panic!("the lab has no node{number}"))
    }

    /// All nodes, `node1` first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The first client.
    ///
    /// # Panics
    /// The lab has no client.
    pub fn client(&self) -> &Node {
        self.clients.first().expect("the lab was built with clients")
    }

    /// All clients: `client1` has 10.0.0.201, fd00::c9 and 02:00:00:00:00:c9.
    pub fn clients(&self) -> &[Node] {
        &self.clients
    }

    /// The switch between them.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The VIPs, as given to the builder.
    pub fn vips(&self) -> &[IpAddr] {
        &self.vips
    }

    /// Prefix length of the lab's IPv4 subnet: 24, or as short as it takes to hold all VIPs.
    pub fn prefix4(&self) -> u8 {
        self.prefix4
    }

    /// The node or client of a MAC address.
    pub fn owner_of(&self, mac: Mac) -> Option<&Node> {
        self.nodes.iter().chain(&self.clients).find(|node| node.mac() == mac)
    }

    /// An agent for node `number`, set up for the lab's VIPs; `binary` is the `vip-agent` to run.
    pub fn agent(&self, number: usize, binary: impl AsRef<Path>) -> AgentBuilder {
        AgentBuilder::new(
            self.node(number).clone(),
            binary.as_ref(),
            self.vips_with_prefix(),
            self.peers_of(number),
        )
    }

    /// A keepalived for node `number`, set up for the lab's VIPs.
    pub fn keepalived(&self, number: usize) -> KeepalivedBuilder {
        KeepalivedBuilder::new(self.node(number).clone(), self.vips_with_prefix(), self.peers_of(number))
    }

    /// Requests from the first client to the web servers behind one VIP of each family.
    pub fn requests(&self) -> RequestsBuilder {
        let first = |ipv4: bool| self.vips.iter().find(|vip| vip.is_ipv4() == ipv4);
        let targets =
            [first(true), first(false)].into_iter().flatten().map(|&vip| SocketAddr::new(vip, WEB_PORT));
        RequestsBuilder::new(self.client().clone()).targets(targets)
    }

    /// Starts a capture on all ports.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn wire(&self) -> Result<Wire> {
        Wire::start(self.switch.node())
    }

    fn vips_with_prefix(&self) -> Vec<(IpAddr, u8)> {
        self.vips.iter().map(|&vip| (vip, if vip.is_ipv4() { self.prefix4 } else { 64 })).collect()
    }

    fn peers_of(&self, number: usize) -> Vec<Node> {
        let me = self.node(number).mac();
        self.nodes.iter().filter(|node| node.mac() != me).cloned().collect()
    }
}

// === impl LabBuilder ===

impl LabBuilder {
    /// How many nodes, 1 to [`MAX_NODES`].
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many clients, 0 to [`MAX_CLIENTS`].
    pub fn clients(mut self, clients: u8) -> Self {
        self.clients = clients;
        self
    }

    /// The VIPs: in 10.0.0.0/8 and fd00::/64. Agents and keepaliveds of the lab are set up for them.
    ///
    /// # Panics
    /// One is no IP address.
    pub fn vips<V: AsRef<str>>(mut self, vips: impl IntoIterator<Item = V>) -> Self {
        let parse = |vip: V| {
            let vip = vip.as_ref();
            vip.parse::<IpAddr>().unwrap_or_else(|_| panic!("{vip:?} is no IP address"))
        };
        self.vips = vips.into_iter().map(parse).collect();
        self
    }

    /// As many IPv4 VIPs from 10.0.1.0 on.
    pub fn many_vips(mut self, count: u16) -> Self {
        let first = u32::from(Ipv4Addr::new(10, 0, 1, 0));
        self.vips = (0..u32::from(count)).map(|offset| Ipv4Addr::from(first + offset).into()).collect();
        self
    }

    /// A web server (HTTP and UDP echo on [`WEB_PORT`]) on every node.
    pub fn web(mut self) -> Self {
        self.web = true;
        self
    }

    /// Whether senders may leave TCP and UDP checksums to the device (default: yes, as veth does).
    pub fn checksum_offload(mut self, on: bool) -> Self {
        self.checksum_offload = on;
        self
    }

    /// Whether the switch sends multicast only where it heard a membership report (default: no).
    pub fn multicast_snooping(mut self, on: bool) -> Self {
        self.multicast_snooping = on;
        self
    }

    /// Keeps logs in an existing directory of the host, beyond the lab's end.
    pub fn logs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.logs = Some(directory.into());
        self
    }

    /// Builds the network and waits until every address is usable.
    ///
    /// # Errors
    /// Not root; `ip`, `bridge` (iproute2), `setpriv` (util-linux) or `ethtool` missing; a number or a VIP out of range.
    pub fn build(self) -> Result<Lab> {
        ensure!((1..=MAX_NODES).contains(&self.nodes), "a lab has 1-{MAX_NODES} nodes, not {}", self.nodes);
        ensure!(self.clients <= MAX_CLIENTS, "a lab has 0-{MAX_CLIENTS} clients, not {}", self.clients);
        let prefix4 = subnet_for(&self.vips)?;
        allow_many_files()?;
        let switch = Switch::start(identity("switch", SWITCH), self.multicast_snooping)?;
        let plugged = |name: String, host: u8| -> Result<Node> {
            let node = Node::start(identity(&name, host), self.logs.as_deref())?;
            plug(&node, &switch, prefix4, self.checksum_offload)
                .with_context(|| format!("plug {name} into the switch"))?;
            Ok(node)
        };
        let nodes = (1..=self.nodes).map(|n| plugged(format!("node{n}"), n)).collect::<Result<Vec<_>>>()?;
        let clients = (1..=self.clients)
            .map(|n| plugged(format!("client{n}"), FIRST_CLIENT + n - 1))
            .collect::<Result<Vec<_>>>()?;
        for node in nodes.iter().chain(&clients) {
            wait_usable(node, &switch)?;
        }
        let webs = if self.web {
            nodes.iter().map(|node| Web::start(node, WEB_PORT)).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        Ok(Lab { webs: Mutex::new(webs), nodes, clients, switch, vips: self.vips, prefix4 })
    }
}

impl Lab {
    /// Stops the web server of node `number`, if it has one: its connections end.
    pub fn stop_web(&self, number: usize) {
        let name = self.node(number).name();
        self.webs().retain(|web| web.node().name() != name);
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It runs.
    pub fn start_web(&self, number: usize) -> Result<()> {
        let web = Web::start(self.node(number), WEB_PORT)?;
        self.webs().push(web);
        Ok(())
    }

    fn webs(&self) -> MutexGuard<'_, Vec<Web>> {
        self.webs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(name: &str, host: u8) -> Identity {
    Identity {
        name: name.into(),
        ipv4: Ipv4Addr::new(10, 0, 0, host),
        ipv6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()),
        mac: Mac([2, 0, 0, 0, 0, host]),
    }
}

/// The longest of /24, /16 and /8 at 10.0.0.0 that holds all IPv4 VIPs.
fn subnet_for(vips: &[IpAddr]) -> Result<u8> {
    let mut prefix = 24;
    for vip in vips {
        match vip {
            IpAddr::V4(vip) => match vip.octets() {
                [10, 0, 0, _] => {}
                [10, 0, ..] => prefix = prefix.min(16),
                [10, ..] => prefix = 8,
                _ => bail!("the VIP {vip} is outside of 10.0.0.0/8"),
            },
            IpAddr::V6(vip) => {
                ensure!(vip.segments()[..4] == [0xfd00, 0, 0, 0], "the VIP {vip} is outside of fd00::/64");
            }
        }
    }
    Ok(prefix)
}

fn plug(node: &Node, switch: &Switch, prefix4: u8, checksum_offload: bool) -> Result<()> {
    for scope in ["all", "default"] {
        // Addresses are known to be unique; and nobody here is a router.
        node.set_sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), 0)?;
        node.set_sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), 0)?;
        node.set_sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), 0)?;
    }
    // A client that opens 1000 connections a second must not run out of ports.
    node.set_sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
    node.set_sysctl("net.core.somaxconn", 8192)?;
    switch.plug(node, checksum_offload)?;
    node.ip(&format!("address add {}/{prefix4} brd + dev eth0", node.ipv4()))?;
    node.ip(&format!("address add {}/64 dev eth0 nodad", node.ipv6()))?;
    node.set_link(true)
}

fn wait_usable(node: &Node, switch: &Switch) -> Result<()> {
    let state = PathBuf::from(format!("/sys/class/net/{}/brport/state", node.name()));
    let forwarding = || switch.node().read_file(&state).is_ok_and(|state| state.trim() == "3");
    wait::until(Duration::from_secs(5), || forwarding() && has_link_local(node))
        .with_context(|| format!("{} has no usable link", node.name()))
}

/// Whether `eth0` has its link-local address, and no address is still tentative.
fn has_link_local(node: &Node) -> bool {
    const TENTATIVE: u8 = 0x40;
    // Not /proc/net: that is the main thread's namespace.
    let Ok(addresses) = node.read_file("/proc/thread-self/net/if_inet6") else { return false };
    let mut link_local = false;
    for line in addresses.lines().filter(|line| line.ends_with(" eth0")) {
        let flags = line.split_whitespace().nth(4).and_then(|flags| u8::from_str_radix(flags, 16).ok());
        if flags.is_none_or(|flags| flags & TENTATIVE != 0) {
            return false;
        }
        link_local |= line.starts_with("fe80");
    }
    link_local
}

/// Raises the soft limit of open files to the hard one: requests in flight during an outage each hold a socket.
fn allow_many_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}
