//! What the leader says of objects beside pools: how VirtualIPs are, and that a Service has no address any more.

use vip_kube_api::Condition;

use super::{Write, condition};
use crate::cluster::Cluster;
use crate::model::claims::written;
use crate::model::{About, Remark, Settings, Trouble};
use crate::pools::{VirtualIp, Wants};

/// The status of VirtualIPs where it should be another.
pub(super) fn of_virtual_ips(cluster: &Cluster, remarks: &[Remark], now: &str) -> Vec<Write> {
    let live = cluster.virtual_ips.iter().filter(|(_, object)| !object.leaving);
    let writes = live.filter_map(|(name, object)| {
        let about = About::VirtualIp(name.clone());
        let remarks: Vec<&Remark> = remarks.iter().filter(|remark| remark.about == about).collect();
        let address = match &object.wants {
            Ok(Wants::Address(vip)) => Some(vip.address.to_string()),
            Ok(Wants::OfPool(_)) => given(cluster, &object.age.uid).map(|address| address.to_string()),
            Err(_) => None,
        };
        let conditions = conditions(object, &remarks, now);
        let differs = object.status.address != address || object.status.conditions != conditions;
        differs.then(|| Write::VirtualIp {
            name: name.clone(),
            version: object.version.clone(),
            address,
            conditions,
        })
    });
    writes.collect()
}

/// Services that are said to have addresses and have none. What others have written there stays: it is taken away as what we have applied.
pub(super) fn of_services(cluster: &Cluster, settings: &Settings) -> Vec<Write> {
    if !settings.kubernetes.sources.service {
        return Vec::new();
    }
    let class = &settings.kubernetes.load_balancer_class;
    let without = cluster.services.iter().filter(|(_, service)| {
        let is_ours = !service.load_balancer || class.includes(service.class.as_deref());
        let has_address = service.load_balancer
            && (written(service).is_some() || given(cluster, &service.age.uid).is_some());
        is_ours && !has_address && !service.ingress.is_empty()
    });
    without
        .map(|(name, service)| Write::Clear { service: name.clone(), ingress: service.ingress.clone() })
        .collect()
}

fn given(cluster: &Cluster, uid: &str) -> Option<std::net::IpAddr> {
    let all = cluster.pools.values().flat_map(|pool| &pool.assignments);
    all.filter(|given| !given.released).find(|given| given.holder.uid == uid).map(|given| given.address)
}

fn conditions(object: &VirtualIp, remarks: &[&Remark], now: &str) -> Vec<Condition> {
    let former = &object.status.conditions;
    let of = |trouble| remarks.iter().find(|remark| remark.trouble == trouble);
    let ready = match (remarks.first(), &object.status.node) {
        (Some(remark), _) => (false, remark.trouble.to_string(), remark.message.clone()),
        (None, None) => (false, "NoOwner".to_owned(), "no node owns it yet".to_owned()),
        (None, Some(node)) => (true, "Owned".to_owned(), format!("{node} owns it")),
    };
    let trouble = |trouble: Trouble, otherwise: &str, why: &str| match of(trouble) {
        Some(remark) => (true, trouble.to_string(), remark.message.clone()),
        None => (false, otherwise.to_owned(), why.to_owned()),
    };
    [
        ("Ready", ready),
        ("Conflict", trouble(Trouble::Conflict, "NoConflict", "nobody else claims its VIP")),
        (
            "Exhausted",
            trouble(Trouble::Exhausted, "NotExhausted", "its pool is not exhausted, as far as it has one"),
        ),
    ]
    .map(|(kind, (is_so, reason, message))| condition(former, kind, is_so, &reason, message, now))
    .into()
}
