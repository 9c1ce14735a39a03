//! Addresses of pools: who has one as the pools' status says, and why others have none. Nothing is allocated here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vip_kube_api as api;
use vip_kube_protocol::{ObjectName, VipAddress};

use super::claims::{Claim, Eligible, Kind};
use super::remark::{About, Remark, Trouble};
use super::{LocalAddress, Settings};
use crate::cluster::{Cluster, Service};
use crate::pools::{Pool, VirtualIp, Wants, selects};

/// The VipPools, separated by commas, that a Service is to be given an address of.
pub(crate) const POOL: &str = "viplane.dev/pool";

/// Who has which address of which pool.
pub(super) struct Given<'a> {
    cluster: &'a Cluster,
    /// By the holder's uid.
    by_holder: BTreeMap<&'a str, Vec<(IpAddr, &'a Pool)>>,
}

/// What a holder has.
pub(super) struct Gift {
    pub(super) vips: Vec<VipAddress>,
    /// Which nodes the pools are for.
    pub(super) eligible: Eligible,
}

/// The pools that a Service names; empty: any that gives to those who name none.
pub(crate) fn named(service: &Service) -> impl Iterator<Item = &str> {
    let text = service.annotations.get(POOL).map_or("", String::as_str);
    text.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty())
}

impl<'a> Given<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Self {
        let mut by_holder: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for pool in cluster.pools.values() {
            for given in pool.assignments.iter().filter(|given| !given.released) {
                by_holder.entry(&given.holder.uid).or_default().push((given.address, pool));
            }
        }
        Self { cluster, by_holder }
    }

    /// What somebody has, IPv4 first.
    pub(super) fn to(&self, uid: &str) -> Option<Gift> {
        let mut given = self.by_holder.get(uid)?.clone();
        given.sort_by_key(|(address, _)| *address);
        let mut eligible = Eligible::Any;
        for offer in given.iter().filter_map(|(_, pool)| pool.offer.as_ref().ok()) {
            eligible.and(&nodes(&offer.nodes, self.cluster));
        }
        let vips = given.into_iter().map(|(address, _)| VipAddress { address, prefix: None });
        Some(Gift { vips: vips.collect(), eligible })
    }
}

/// Those that have all of these labels.
fn nodes(selector: &BTreeMap<String, String>, cluster: &Cluster) -> Eligible {
    if selector.is_empty() {
        return Eligible::Any;
    }
    let selected = cluster.nodes.iter().filter(|(_, node)| selects(selector, node));
    Eligible::Nodes(selected.map(|(name, _)| name.clone()).collect())
}

/// Why a Service without an address of its own has none of a pool.
pub(super) fn why_waiting(service: &Service, cluster: &Cluster, settings: &Settings) -> (Trouble, String) {
    if !settings.kubernetes.sources.pool {
        let message = format!("has no address: say which by {} or spec.loadBalancerIP", super::claims::VIPS);
        return (Trouble::Pending, message);
    }
    let named: Vec<&str> = named(service).collect();
    if named.is_empty() {
        let gives = |pool: &Pool| pool.offer.as_ref().is_ok_and(|offer| offer.auto_assign);
        let pools: Vec<_> = cluster.pools.iter().filter(|(_, pool)| gives(pool)).collect();
        if pools.is_empty() {
            let message = format!(
                "has no address, and no VipPool gives one to who names none: say which by {}, spec.loadBalancerIP or {POOL}, \
                 or make a VipPool",
                super::claims::VIPS
            );
            return (Trouble::Pending, message);
        }
        return why_without(pools.iter().map(|(name, pool)| (name.as_str(), Some(*pool))));
    }
    why_without(named.iter().map(|name| (*name, cluster.pools.get(*name))))
}

/// Why somebody who may have an address of these pools has none.
fn why_without<'a>(pools: impl Iterator<Item = (&'a str, Option<&'a Pool>)>) -> (Trouble, String) {
    let mut reasons = Vec::new();
    let mut trouble = Trouble::Exhausted;
    for (name, pool) in pools {
        let (kind, reason) = match pool {
            None => (Trouble::Pending, format!("there is no VipPool {name}")),
            Some(pool) if pool.leaving => (Trouble::Pending, format!("VipPool {name} is being deleted")),
            Some(Pool { offer: Err(_), .. }) => (Trouble::Pending, format!("VipPool {name} is not valid")),
            Some(pool) if pool.is_sealed() => {
                (Trouble::Pending, format!("VipPool {name} overlaps with an older one"))
            }
            Some(pool) if is_exhausted(pool) => {
                (Trouble::Exhausted, format!("VipPool {name} has no free address"))
            }
            Some(_) => (Trouble::Pending, format!("VipPool {name} is to give it an address")),
        };
        if kind == Trouble::Pending {
            trouble = kind;
        }
        reasons.push(reason);
    }
    (trouble, format!("waits for an address: {}", reasons.join("; ")))
}

fn is_exhausted(pool: &Pool) -> bool {
    let condition = pool.status.conditions.iter().find(|condition| condition.kind == "Exhausted");
    condition.is_some_and(|condition| condition.status == api::Truth::True)
}

/// What is wrong with pools.
pub(super) fn of_pools(cluster: &Cluster, remarks: &mut Vec<Remark>) {
    for (name, pool) in &cluster.pools {
        let mut remark = |trouble, message: &str| {
            remarks.push(Remark {
                about: About::VipPool(name.clone()),
                trouble,
                message: message.to_owned(),
            });
        };
        if let Err(why) = &pool.offer {
            remark(Trouble::Invalid, why);
        }
        for condition in
            pool.status.conditions.iter().filter(|condition| condition.status == api::Truth::True)
        {
            match condition.kind.as_str() {
                "Conflict" => remark(Trouble::Conflict, &condition.message),
                "Exhausted" => remark(Trouble::Exhausted, &condition.message),
                _ => {}
            }
        }
    }
}

/// What a VirtualIP claims.
pub(super) fn of_virtual_ip(
    name: &ObjectName,
    object: &VirtualIp,
    given: &Given<'_>,
    remarks: &mut Vec<Remark>,
) -> Option<Claim> {
    if object.leaving {
        return None;
    }
    let about = About::VirtualIp(name.clone());
    let mut remark =
        |trouble, message: String| remarks.push(Remark { about: about.clone(), trouble, message });
    let mut eligible = nodes(&object.nodes, given.cluster);
    let vips = match &object.wants {
        Err(why) => {
            remark(Trouble::Invalid, why.clone());
            return None;
        }
        Ok(Wants::Address(vip)) => vec![*vip],
        Ok(Wants::OfPool(pool)) => {
            let Some(gift) = given.to(&object.age.uid) else {
                let pool = (pool.as_str(), given.cluster.pools.get(pool));
                let (trouble, message) = why_without([pool].into_iter());
                remark(trouble, message);
                return None;
            };
            eligible.and(&gift.eligible);
            gift.vips
        }
    };
    if matches!(&eligible, Eligible::Nodes(nodes) if nodes.is_empty()) {
        remark(Trouble::Pending, "no node has the labels of its nodeSelector, and of its pool's".to_owned());
        return None;
    }
    let local_address = match object.local_address {
        api::LocalAddress::Active => LocalAddress::Active,
        api::LocalAddress::Never => LocalAddress::Never,
    };
    Some(Claim {
        about,
        age: object.age.clone(),
        vips,
        eligible,
        sharing: None,
        local_address,
        kind: Kind::VirtualIp,
    })
}
