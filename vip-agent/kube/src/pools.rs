//! What is known of VipPools and VirtualIPs, and what is to be understood by what they say. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vip_kube_api::{
    self as api, AddressRange, FINALIZER, HolderKind, LocalAddress, VipPoolStatus, VirtualIPStatus,
};
use vip_kube_protocol::{ObjectName, VipAddress, vip};

use crate::cluster::{Age, Node};
use crate::convert;

/// A VipPool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How old it is.
    pub age: Age,
    /// What a conditional write names: any other write makes it another one.
    pub version: String,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// What has to happen before it is gone.
    pub finalizers: Vec<String>,
    /// Its addresses; why they cannot be understood.
    pub offer: Result<Offer, String>,
    /// Who has which address.
    pub assignments: Vec<Assignment>,
    /// As it is written.
    pub status: VipPoolStatus,
}

/// What a pool gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// At least one, none of which overlap.
    pub ranges: Vec<AddressRange>,
    /// Whether who names no pool is given addresses of this one.
    pub auto_assign: bool,
    /// Whether those that end in .0 or .255 are left out.
    pub avoid_buggy: bool,
    /// Labels of nodes that may own them.
    pub nodes: BTreeMap<String, String>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment {
    /// Which.
    pub address: IpAddr,
    /// Who.
    pub holder: Holder,
    /// Whether it is on its way back: no node serves it for this holder any more.
    pub released: bool,
}

/// An object that has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Of which kind.
    pub kind: HolderKind,
    /// Its name.
    pub name: ObjectName,
    /// What tells it from a later one of that name.
    pub uid: String,
}

/// A VirtualIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualIp {
    /// How old it is.
    pub age: Age,
    /// What a conditional write names.
    pub version: String,
    /// Whether it is being deleted: it has let go of its VIP already.
    pub leaving: bool,
    /// What has to happen before it is gone.
    pub finalizers: Vec<String>,
    /// What it asks for; why that cannot be understood.
    pub wants: Result<Wants, String>,
    /// Labels of nodes that may own it.
    pub nodes: BTreeMap<String, String>,
    /// When the VIP is an address of its node.
    pub local_address: LocalAddress,
    /// As it is written.
    pub status: VirtualIPStatus,
}

/// What a VirtualIP asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// This VIP.
    Address(VipAddress),
    /// One of this pool.
    OfPool(String),
}

impl Pool {
    /// What counts of an object.
    pub fn of(pool: api::VipPool) -> Self {
        let status = pool.status.unwrap_or_default();
        let metadata = pool.metadata;
        Self {
            age: convert::age(&metadata),
            version: metadata.resource_version.unwrap_or_default(),
            leaving: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            offer: Offer::of(&pool.spec),
            assignments: status.assignments.iter().filter_map(Assignment::of).collect(),
            status,
        }
    }

    /// Whether it stays until its last address is released.
    pub fn is_guarded(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }

    /// Whether it is written that it may give no addresses, as an older pool has some of them. What is written, and not what the objects
    /// come to, is what another pool may rely on: it changes together with the version that a conditional write names.
    pub fn is_sealed(&self) -> bool {
        let conflict = self.status.conditions.iter().find(|condition| condition.kind == "Conflict");
        conflict.is_some_and(|condition| condition.status == api::Truth::True)
    }

    /// Whether it can be given by this pool.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.offer.as_ref().is_ok_and(|offer| offer.includes(address))
    }
}

impl Offer {
    fn of(spec: &api::VipPoolSpec) -> Result<Self, String> {
        let mut ranges: Vec<AddressRange> = Vec::new();
        for text in &spec.addresses {
            let range = AddressRange::parse(text).map_err(|error| format!("spec.addresses: {error}"))?;
            if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
                return Err(format!("spec.addresses: {range} and {other} have addresses in common"));
            }
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Err("spec.addresses: there is none".to_owned());
        }
        Ok(Self {
            ranges,
            auto_assign: spec.auto_assign,
            avoid_buggy: spec.avoid_buggy_addresses,
            nodes: spec.node_selector.clone(),
        })
    }

    /// Whether an address is one of these.
    pub fn includes(&self, address: IpAddr) -> bool {
        self.ranges
            .iter()
            .any(|range| range.contains(address) && !(self.avoid_buggy && api::is_buggy(address)))
    }

    /// How many there are.
    pub fn count(&self) -> u128 {
        self.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.count(self.avoid_buggy)))
    }

    /// Whether an address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ranges.iter().any(|range| other.ranges.iter().any(|other| range.overlaps(other)))
    }
}

impl Assignment {
    /// `None`: somebody has written what is no address.
    fn of(written: &api::Assignment) -> Option<Self> {
        let name = ObjectName { namespace: written.namespace.clone(), name: written.name.clone() };
        let holder = Holder { kind: written.kind, name, uid: written.uid.clone() };
        Some(Self { address: written.address.parse().ok()?, holder, released: written.released })
    }

    /// As an object has it.
    pub fn written(&self) -> api::Assignment {
        let Holder { kind, name, uid } = &self.holder;
        api::Assignment {
            address: self.address.to_string(),
            kind: *kind,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            uid: uid.clone(),
            released: self.released,
        }
    }
}

impl VirtualIp {
    /// What counts of an object.
    pub fn of(object: api::VirtualIP) -> Self {
        let wants = match (&object.spec.address, &object.spec.pool) {
            (Some(address), None) => {
                vip(address).map(Wants::Address).map_err(|error| format!("spec.address: {error}"))
            }
            (None, Some(pool)) => Ok(Wants::OfPool(pool.clone())),
            _ => Err("it must have spec.address, or spec.pool, and not both".to_owned()),
        };
        let metadata = object.metadata;
        Self {
            age: convert::age(&metadata),
            version: metadata.resource_version.unwrap_or_default(),
            leaving: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            wants,
            nodes: object.spec.node_selector,
            local_address: object.spec.local_address,
            status: object.status.unwrap_or_default(),
        }
    }

    /// Whether it stays until its address is released.
    pub fn is_guarded(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }
}

/// Whether a node has all of these labels.
pub fn selects(selector: &BTreeMap<String, String>, node: &Node) -> bool {
    selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
}
