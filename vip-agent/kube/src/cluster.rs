//! What is known of the cluster: the few fields that count, of the objects that count. Pure.
//!
//! Watchers hand in whole objects (`watch.rs`), which shrink to these at once: of a Service of some kilobytes a few hundred
//! bytes stay, so that a node can follow thousands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use vip_kube_protocol::ObjectName;

use crate::pools::{Pool, VirtualIp};

/// Everything that this node's VIPs follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The ConfigMap of VIPs.
    pub config_map: Option<ConfigMap>,
    /// The Services that may have a VIP, and those that the ConfigMap may name.
    pub services: BTreeMap<ObjectName, Service>,
    /// The slices of their endpoints.
    pub slices: BTreeMap<ObjectName, Slice>,
    /// The nodes, by name.
    pub nodes: BTreeMap<String, Node>,
    /// The VipPools, by name.
    pub pools: BTreeMap<String, Pool>,
    /// The VirtualIPs.
    pub virtual_ips: BTreeMap<ObjectName, VirtualIp>,
    /// The agents' pods, and the nodes that they run on; `None`: unknown, so any node may run one.
    pub agents: Option<BTreeMap<String, String>>,
}

/// When an object was made, and what tells it from others of the same second: the order in which objects get what they claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    /// Seconds since 1970.
    pub created: i64,
    /// The API server's name of it, which no other object ever has.
    pub uid: String,
}

/// The ConfigMap of VIPs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// How old it is.
    pub age: Age,
    /// Its keys and values as written.
    pub data: BTreeMap<String, String>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// How old it is.
    pub age: Age,
    /// Whether it is of type LoadBalancer, and not being deleted.
    pub load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// `spec.loadBalancerIP`.
    pub load_balancer_ip: Option<String>,
    /// Those that are about us.
    pub annotations: BTreeMap<String, String>,
    /// Which pods it stands for.
    pub selector: BTreeMap<String, String>,
    /// What it serves.
    pub ports: BTreeSet<Port>,
    /// The families that it serves; empty: not said.
    pub families: BTreeSet<Family>,
    /// `ipFamilyPolicy: RequireDualStack`.
    pub dual_stack: bool,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// `status.loadBalancer.ingress`: addresses that it is said to have.
    pub ingress: Vec<IpAddr>,
    /// What counts where its traffic is steered.
    pub traffic: Traffic,
}

/// What a Service says of its traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The names by which slices say where ports are at the endpoints; those without one are not in it.
    pub port_names: BTreeMap<Port, String>,
    /// `sessionAffinity: ClientIP`: for how many seconds.
    pub affinity: Option<u32>,
    /// `loadBalancerSourceRanges` as written.
    pub source_ranges: Vec<String>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// As clients see it.
    pub port: u16,
}

/// `IPv4` or `IPv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each says itself")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The one that it is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// An EndpointSlice: a part of a Service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The Service's name, in the same namespace.
    pub service: String,
    /// Where the endpoints have the Service's ports.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Which port of the Service it is; empty: the one without a name.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Where they listen.
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is: the first of its addresses, which are all of one pod or host.
    pub address: Option<IpAddr>,
    /// The node that it runs on.
    pub node: Option<String>,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Whether it ends, and serves what it has until then.
    pub draining: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotation `viplane.dev/priority`, as written.
    pub priority: Option<String>,
    /// Whether a label keeps VIPs from it.
    pub excluded: bool,
    /// `spec.unschedulable`.
    pub cordoned: bool,
}

impl Node {
    /// Its internal address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| Family::of(*address) == family)
    }
}
