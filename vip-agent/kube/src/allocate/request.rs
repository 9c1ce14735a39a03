//! Who wants an address of a pool.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vip_kube_api::HolderKind;

use crate::cluster::{Age, Cluster, Family, Service};
use crate::model::claims::{INGRESS_VIP, LOCAL_ADDRESS, Sharing, VIPS, sharing, written};
use crate::model::pools::named;
use crate::model::{Settings, config_map_vips};
use crate::pools::{Holder, Offer, Wants};

/// An object that wants addresses.
#[derive(Clone, Debug)]
pub(super) struct Request<'a> {
    pub(super) holder: Holder,
    pub(super) age: &'a Age,
    /// By name; empty: any that gives to who names none.
    pub(super) pools: Vec<&'a str>,
    pub(super) families: Families,
    pub(super) sharing: Option<Sharing>,
    /// As written: whoever shares an address has it the same way.
    local_address: Option<&'a str>,
}

/// Of which families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Families {
    /// One address, of IPv4 if there is one.
    One,
    /// One of each, as far as there are.
    Each(BTreeSet<Family>),
    /// One of each, or none.
    All(BTreeSet<Family>),
}

impl Families {
    /// Those that are yet to be found by who has these.
    pub(super) fn missing(&self, held: &BTreeSet<Family>) -> Vec<Family> {
        match self {
            Self::One if held.is_empty() => vec![Family::V4, Family::V6],
            Self::One => Vec::new(),
            Self::Each(families) | Self::All(families) => families.difference(held).copied().collect(),
        }
    }

    fn includes(&self, family: Family) -> bool {
        match self {
            Self::One => true,
            Self::Each(families) | Self::All(families) => families.contains(&family),
        }
    }
}

impl Request<'_> {
    /// Whether both may have the same address.
    pub(super) fn may_share_with(&self, other: &Self) -> bool {
        let (Some(ours), Some(theirs)) = (&self.sharing, &other.sharing) else { return false };
        ours.key == theirs.key
            && ours.pods == theirs.pods
            && ours.ports.is_disjoint(&theirs.ports)
            && self.local_address == other.local_address
    }

    /// Whether it is to be given what this pool has.
    pub(super) fn may_have(&self, pool: &str, offer: &Offer) -> bool {
        self.pools.contains(&pool) || (self.pools.is_empty() && offer.auto_assign)
    }

    /// Whether it may keep what this pool gave it. What was given stays, until somebody names others.
    pub(super) fn wants(&self, pool: &str, address: IpAddr) -> bool {
        let accepted = self.pools.is_empty() || self.pools.contains(&pool);
        accepted && self.families.includes(Family::of(address))
    }
}

/// All of them, the oldest first.
pub(super) fn requests<'a>(cluster: &'a Cluster, settings: &Settings) -> Vec<Request<'a>> {
    let kubernetes = &settings.kubernetes;
    let is_ours = |service: &Service| {
        service.load_balancer && kubernetes.load_balancer_class.includes(service.class.as_deref())
    };
    let services = cluster
        .services
        .iter()
        .filter(|(_, service)| kubernetes.sources.service && is_ours(service) && written(service).is_none());
    let of_services = services.map(|(name, service)| Request {
        holder: Holder { kind: HolderKind::Service, name: name.clone(), uid: service.age.uid.clone() },
        age: &service.age,
        pools: named(service).collect(),
        families: match service.families.len() {
            0 => Families::One,
            2 if service.dual_stack => Families::All(service.families.clone()),
            _ => Families::Each(service.families.clone()),
        },
        sharing: sharing(name, service),
        local_address: service.annotations.get(LOCAL_ADDRESS).map(String::as_str),
    });
    let of_virtual_ips = cluster.virtual_ips.iter().filter(|(_, object)| !object.leaving);
    let of_virtual_ips = of_virtual_ips.filter_map(|(name, object)| match &object.wants {
        Ok(Wants::OfPool(pool)) => Some(Request {
            holder: Holder { kind: HolderKind::VirtualIP, name: name.clone(), uid: object.age.uid.clone() },
            age: &object.age,
            pools: vec![pool],
            families: Families::One,
            sharing: None,
            local_address: None,
        }),
        Ok(Wants::Address(_)) | Err(_) => None,
    });
    let mut requests: Vec<_> = of_services.chain(of_virtual_ips).collect();
    requests.sort_by(|a, b| (a.age, &a.holder).cmp(&(b.age, &b.holder)));
    requests
}

/// Addresses that are somebody's, whatever pools they are in.
pub(super) fn taken(cluster: &Cluster, settings: &Settings) -> BTreeSet<IpAddr> {
    let kubernetes = &settings.kubernetes;
    let mut taken: BTreeSet<IpAddr> = settings.taken_vips.clone();
    taken.extend(cluster.config_map.iter().flat_map(config_map_vips));
    taken.extend(cluster.nodes.values().flat_map(|node| &node.addresses));
    for service in cluster.services.values() {
        let texts = [INGRESS_VIP, VIPS].into_iter().filter_map(|key| service.annotations.get(key));
        let texts = texts.chain(&service.load_balancer_ip).flat_map(|text| text.split([',', ' ']));
        taken
            .extend(texts.filter_map(|word| vip_kube_protocol::vip(word.trim()).ok()).map(|vip| vip.address));
        // Those of another load balancer, where pools are moved over from it.
        if service.load_balancer && !kubernetes.load_balancer_class.includes(service.class.as_deref()) {
            taken.extend(&service.ingress);
        }
    }
    taken.extend(cluster.virtual_ips.values().filter_map(|object| match &object.wants {
        Ok(Wants::Address(vip)) => Some(vip.address),
        _ => None,
    }));
    taken
}
