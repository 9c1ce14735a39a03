//! A node's own part: the virtual routers that it can serve, its priority in each, and its peers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vip_kube_protocol::VipAddress;

use super::claims::Kind;
use super::hash;
use super::remark::{About, Remark, Trouble};
use super::seats::{Place, Seat};
use super::units::Unit;
use super::{Router, Served, Settings, Unicast};
use crate::cluster::{Cluster, Family, Node};

/// Of a cordoned node: the lowest that there is.
const LOWEST: u8 = 1;
/// Of a node without a preference where nothing is to be spread: VRRP's default.
const DEFAULT: u8 = 100;
/// The highest; 255 is the address owner's.
const HIGHEST: u8 = 254;

/// Lowest priority of a node without a preference where units are spread; 100 from there on.
const LOWEST_SPREAD: u8 = 51;
/// How many there are.
const SPREAD: u8 = 100;
/// How long a node that ought to own waits before it does: others may be on their way.
const PREEMPT_DELAY: &str = "5s";

/// The virtual routers of this node.
pub(super) fn routers(
    seats: &[Seat],
    cluster: &Cluster,
    settings: &Settings,
    remarks: &mut Vec<Remark>,
) -> (Vec<Router>, Vec<Served>) {
    let nodes = candidates(cluster);
    for (name, node) in &cluster.nodes {
        if let Some(text) = node.priority.as_deref().filter(|text| preference(text).is_none()) {
            let message = format!("viplane.dev/priority must be a number, 1-254, not {text:?}");
            remarks.push(Remark { about: About::Node((*name).clone()), trouble: Trouble::Invalid, message });
        }
    }
    if !cluster.nodes.is_empty() && !cluster.nodes.contains_key(&settings.node) {
        let message = "the cluster has no Node of this name, which is this agent's: set NODE_NAME, or `node`";
        let about = About::Node(settings.node.clone());
        remarks.push(Remark { about, trouble: Trouble::Pending, message: message.into() });
    }
    let (mut instances, mut all_served) = (Vec::new(), Vec::new());
    for seat in seats {
        let Some(instance) = router(seat, &nodes, settings) else { continue };
        all_served.extend(served(seat, &instance.name));
        instances.push(instance);
    }
    (instances, all_served)
}

/// The Services of type LoadBalancer, and VirtualIPs, whose VIPs a router moves.
fn served(seat: &Seat, router: &str) -> impl Iterator<Item = Served> {
    let units = seat.units.iter().filter(|unit| matches!(unit.kind, Kind::LoadBalancer | Kind::VirtualIp));
    units.flat_map(|unit| &unit.holders).map(|(about, vips)| Served {
        about: about.clone(),
        router: router.to_owned(),
        vips: vips.clone(),
    })
}

/// The nodes that may take part.
fn candidates(cluster: &Cluster) -> BTreeMap<&str, &Node> {
    let runs_agent =
        |name: &String| cluster.agents.as_ref().is_none_or(|agents| agents.values().any(|node| node == name));
    let nodes = cluster.nodes.iter().filter(|(name, node)| !node.excluded && runs_agent(name));
    nodes.map(|(name, node)| (name.as_str(), node)).collect()
}

fn router(seat: &Seat, nodes: &BTreeMap<&str, &Node>, settings: &Settings) -> Option<Router> {
    let me = *nodes.get(settings.node.as_str())?;
    let first = seat.units.first()?;
    if !first.eligible.includes(&settings.node) {
        return None;
    }
    let place = Place::of(first);
    let name = name(place, seat, first)?;
    let offset = seat.offset;
    let virtual_router_id = settings.kubernetes.virtual_router_id.checked_add(offset)?;
    let vips: Vec<VipAddress> = seat.units.iter().flat_map(|unit| unit.vips.iter().copied()).collect();
    let peers = nodes.iter().filter(|(name, _)| **name != settings.node && first.eligible.includes(name));
    let unicast =
        if settings.kubernetes.unicast { unicast(me, peers.map(|(_, node)| *node), &vips) } else { None };
    Some(Router {
        priority: priority(me, place, &name, &settings.node),
        name,
        virtual_router_id,
        preempt: true,
        preempt_delay: PREEMPT_DELAY,
        unicast,
        vips,
        local_address: first.local_address,
    })
}

/// Names are part of file names and metric labels.
fn name(place: Place, seat: &Seat, first: &Unit) -> Option<String> {
    Some(match place {
        Place::ConfigMap => "kube-configmap".to_owned(),
        Place::Shard(_) => format!("kube-shard-{}", seat.offset),
        Place::Own => format!("kube-{}", first.vips.first()?.address).replace(':', "-"),
    })
}

/// A cordoned node hands over to whoever is there. A preference is the same everywhere; without one, nodes are equals where
/// there is one router, so that ownership stays where it is, and differ by a hash where routers are to be spread: a node that
/// goes moves its own alone.
fn priority(node: &Node, place: Place, router: &str, name: &str) -> u8 {
    if node.cordoned {
        return LOWEST;
    }
    if let Some(preferred) = node.priority.as_deref().and_then(preference) {
        return preferred;
    }
    match place {
        Place::ConfigMap => DEFAULT,
        Place::Shard(_) | Place::Own => {
            let hash = hash::hash(&[router.as_bytes(), name.as_bytes()]);
            LOWEST_SPREAD + hash::within(hash, SPREAD)
        }
    }
}

fn preference(text: &str) -> Option<u8> {
    text.trim().parse().ok().filter(|priority| (LOWEST..=HIGHEST).contains(priority))
}

/// By address, if there is somebody to be addressed and all have an address of each family; else by multicast. The others come to
/// the same conclusion, as they look at the same nodes.
fn unicast<'a>(me: &Node, peers: impl Iterator<Item = &'a Node>, vips: &[VipAddress]) -> Option<Unicast> {
    let has = |family| vips.iter().any(|vip| Family::of(vip.address) == family);
    let families: Vec<Family> = [Family::V4, Family::V6].into_iter().filter(|family| has(*family)).collect();
    let of = |node: &Node| -> Option<Vec<IpAddr>> {
        families.iter().map(|family| node.address(*family)).collect()
    };
    let sources = of(me)?;
    let mut addresses = Vec::new();
    for peer in peers {
        addresses.extend(of(peer)?);
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.retain(|address| !sources.contains(address));
    let covered = |family: &Family| addresses.iter().any(|address| Family::of(*address) == *family);
    // A node's address that is a VIP as well would be a router that moves.
    let moves = |address: &IpAddr| vips.iter().any(|vip| vip.address == *address);
    if !families.iter().all(covered) || sources.iter().chain(&addresses).any(moves) {
        return None;
    }
    Some(Unicast { source: sources, peers: addresses })
}
