//! A virtual router as a configuration file has it: what the agent reads, by its own checks.

use std::net::IpAddr;
use std::num::NonZeroU8;

use serde::Serialize;
use vip_kube_protocol::VipAddress;

/// An entry of `instances`. What is not said here is the agent's default, and `interface` the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Router {
    /// 1-63 of `A-Z a-z 0-9 . _ -`: part of file names and metric labels.
    pub name: String,
    /// VRID.
    pub virtual_router_id: NonZeroU8,
    /// 1-254.
    pub priority: u8,
    /// Whether a node of higher priority takes over from one that serves.
    pub preempt: bool,
    /// How long a node that ought to own waits before it does: seconds, as `5s`.
    pub preempt_delay: &'static str,
    /// Adverts by address; left out: by multicast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unicast: Option<Unicast>,
    /// At least one.
    pub vips: Vec<VipAddress>,
    /// When the VIPs are addresses of their node.
    pub local_address: LocalAddress,
}

/// `unicast`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unicast {
    /// This node's own address of each family that the VIPs have.
    pub source: Vec<IpAddr>,
    /// The other nodes' ones: at least one of each of these families, each once.
    pub peers: Vec<IpAddr>,
}

/// `local_address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalAddress {
    /// While the node is Active.
    Active,
    /// Never: kube-proxy serves the VIP.
    Never,
    /// Also while it is not: as endpoints of mode `dr` need it.
    Always,
}
