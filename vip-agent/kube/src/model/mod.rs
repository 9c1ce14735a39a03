//! From what is known of the cluster to the virtual routers of this node: a pure function.
//!
//! Nodes do not talk about it. Each computes the same from the same objects:
//!
//! 1. Objects *claim* VIPs (`claims`): keys of the ConfigMap, annotated Services, Services of type LoadBalancer, VirtualIPs. Those that have an
//!    address of a VipPool have it by the pool's status (`pools`), which is written by one of all nodes (`allocate.rs`).
//! 2. Claims are heard in the order of the objects' age (`units`): the older object keeps a VIP, unless both agree to share it. VIPs
//!    that hang together become one unit, which moves as a whole.
//! 3. Units are given virtual routers (`seats`), again the older ones first, so that no newcomer moves anybody.
//! 4. Of those, a node takes part in what it can serve (`routers`), with a priority that follows from its name and its object.
//! 5. Where objects ask for it, traffic to their VIPs is steered to their endpoints (`steering`).
//!
//! # Virtual routers
//! From `kubernetes.virtual_router_id` (*V*) on:
//!
//! | VRID | whose |
//! |---|---|
//! | *V* | the ConfigMap's VIPs, as kube-keepalived-vip has it |
//! | *V*+1 ... *V*+8 | VIPs of Services that any node can serve, spread by a hash of the unit's first VIP; no local address |
//! | *V*+9 ... *V*+16 | the same with a local address |
//! | *V*+17 ... 255 | units that only some nodes can serve, or whose VIPs every node has as addresses, one each, from a place that a hash of the first VIP names |
//!
//! What is taken or full is passed over for the next one. VRIDs of the configuration file's own instances count as taken.

pub(crate) mod claims;
mod endpoints;
mod hash;
pub(crate) mod pools;
mod remark;
mod router;
mod routers;
mod seats;
mod service;
mod steering;
mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU8;

use vip_kube_protocol::{Kubernetes, Order, Steering};

pub use self::claims::ANNOTATIONS;
pub use self::remark::{About, Remark, Trouble};
pub use self::router::{LocalAddress, Router, Unicast};
pub use self::service::{Affinity, Mode, Protocol, ProxyProtocol, Service, ServicePort};
use crate::cluster::{Cluster, ConfigMap};

/// What this node is, and what its configuration file leaves to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's name, which is that of its Node object.
    pub node: String,
    /// `kubernetes`.
    pub kubernetes: Kubernetes,
    /// VRIDs of the file's instances.
    pub taken_ids: BTreeSet<NonZeroU8>,
    /// VIPs of the file's instances.
    pub taken_vips: BTreeSet<IpAddr>,
    /// Whether traffic can be steered.
    pub steering: Steering,
}

impl Settings {
    /// As ordered.
    pub fn of(order: Order) -> Self {
        let Order { revision: _, node, kubernetes, taken_ids, taken_vips, steering, active: _ } = order;
        Self { node, kubernetes, taken_ids, taken_vips, steering }
    }
}

/// What the cluster wants of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Virtual routers, by name.
    pub instances: Vec<Router>,
    /// Services of type LoadBalancer, and VirtualIPs, that these move the VIPs of.
    pub served: Vec<Served>,
    /// What of their traffic, and of the ConfigMap's VIPs, is steered, the oldest object's first.
    pub steered: Vec<Service>,
    /// What somebody should know of the objects, by object.
    pub remarks: Vec<Remark>,
}

/// An object that has its VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which.
    pub about: About,
    /// What moves its VIPs.
    pub router: String,
    /// Its VIPs.
    pub vips: Vec<IpAddr>,
}

/// The VIPs that a ConfigMap names.
pub(crate) fn config_map_vips(map: &ConfigMap) -> impl Iterator<Item = IpAddr> {
    map.data.keys().filter_map(|key| claims::vip_of_key(key).ok()).map(|vip| vip.address)
}

/// What a node has to do.
pub fn desired(cluster: &Cluster, settings: &Settings) -> Desired {
    let mut remarks = Vec::new();
    let claims = claims::claims(cluster, settings, &mut remarks);
    let units = units::units(claims, settings, &mut remarks);
    let seats = seats::seats(units, settings, &mut remarks);
    let (instances, served) = routers::routers(&seats, cluster, settings, &mut remarks);
    let steered = steering::services(&seats, &instances, cluster, settings, &mut remarks);
    remarks.sort();
    remarks.dedup();
    Desired { instances, served, steered, remarks }
}
