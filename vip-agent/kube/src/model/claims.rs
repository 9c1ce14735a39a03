//! What objects claim: VIPs, and which nodes can serve them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vip_kube_protocol::{self as protocol, ObjectName, VipAddress};

use super::endpoints::Endpoints;
use super::pools::{self, Given, POOL};
use super::remark::{About, Remark, Trouble};
use super::steering::{self, Forwarding};
use super::{LocalAddress, Mode, Settings};
use crate::cluster::{Age, Cluster, Family, Port, Service};

/// The predecessors' annotation on a Service.
pub(crate) const INGRESS_VIP: &str = "ingress.alpha.k8s.io/ingress-vip";
/// VIPs of a Service of type LoadBalancer, separated by commas.
pub(crate) const VIPS: &str = "viplane.dev/vips";
/// Services of the same key may share a VIP.
pub(crate) const SHARING_KEY: &str = "viplane.dev/sharing-key";
/// When the VIPs of a Service of type LoadBalancer are addresses of their node: `never`, as kube-proxy serves them, `active` or `always`.
pub(crate) const LOCAL_ADDRESS: &str = "viplane.dev/local-address";

/// Annotations that count.
pub const ANNOTATIONS: [&str; 7] =
    [INGRESS_VIP, VIPS, SHARING_KEY, LOCAL_ADDRESS, POOL, steering::MODE, steering::PROXY_PROTOCOL];

/// What one object, or one key of it, wants.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) about: About,
    pub(super) age: Age,
    /// At least one, each once.
    pub(super) vips: Vec<VipAddress>,
    pub(super) eligible: Eligible,
    /// With whom it shares them; `None`: with nobody.
    pub(super) sharing: Option<Sharing>,
    pub(super) local_address: LocalAddress,
    pub(super) kind: Kind,
}

/// By which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ConfigMap,
    Annotation,
    LoadBalancer,
    VirtualIp,
}

/// Which nodes can serve a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Eligible {
    Any,
    /// Those that have an endpoint.
    Nodes(BTreeSet<String>),
}

impl Eligible {
    pub(super) fn includes(&self, node: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Nodes(nodes) => nodes.contains(node),
        }
    }

    /// Those that can serve both.
    pub(super) fn and(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Any) => {}
            (Self::Any, _) => *self = other.clone(),
            (Self::Nodes(ours), Self::Nodes(theirs)) => ours.retain(|node| theirs.contains(node)),
        }
    }
}

/// What Services that share a VIP have to agree in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    pub(crate) key: String,
    /// No port twice.
    pub(crate) ports: BTreeSet<Port>,
    /// `externalTrafficPolicy: Local`: the same pods for all; `None`: Cluster, for all.
    pub(crate) pods: Option<(String, BTreeMap<String, String>)>,
}

/// All claims, unordered.
pub(super) fn claims(cluster: &Cluster, settings: &Settings, remarks: &mut Vec<Remark>) -> Vec<Claim> {
    let sources = settings.kubernetes.sources;
    let endpoints = Endpoints::of(cluster);
    let known = Known { cluster, settings, endpoints: &endpoints, given: Given::of(cluster) };
    let mut claims = Vec::new();
    if sources.configmap {
        of_config_map(cluster, settings, &endpoints, &mut claims, remarks);
    }
    for (name, service) in &cluster.services {
        let about = About::Service(name.clone());
        if sources.annotation
            && let Some(text) = service.annotations.get(INGRESS_VIP)
        {
            claims.extend(of_annotation(&about, name, service, text, &endpoints, remarks));
        }
        if sources.service
            && service.load_balancer
            && settings.kubernetes.load_balancer_class.includes(service.class.as_deref())
        {
            claims.extend(of_load_balancer(&about, name, service, &known, remarks));
        }
    }
    if sources.pool {
        pools::of_pools(cluster, remarks);
        for (name, object) in &cluster.virtual_ips {
            claims.extend(pools::of_virtual_ip(name, object, &known.given, remarks));
        }
    }
    claims
}

/// What claims of Services follow from.
struct Known<'a> {
    cluster: &'a Cluster,
    settings: &'a Settings,
    endpoints: &'a Endpoints<'a>,
    given: Given<'a>,
}

// === the ConfigMap ===

fn of_config_map(
    cluster: &Cluster,
    settings: &Settings,
    endpoints: &Endpoints<'_>,
    claims: &mut Vec<Claim>,
    remarks: &mut Vec<Remark>,
) {
    let Some(map) = &cluster.config_map else { return };
    let about = About::ConfigMap(settings.kubernetes.configmap.clone());
    for (key, value) in &map.data {
        let mut remark = |trouble, message: String| {
            remarks.push(Remark { about: about.clone(), trouble, message: format!("{key}: {message}") });
        };
        let vip = match vip_of_key(key) {
            Ok(vip) => vip,
            Err(why) => {
                remark(Trouble::Invalid, why);
                continue;
            }
        };
        let mut served = value.trim().is_empty();
        for word in words(value) {
            match service_of_value(word) {
                Err(why) => remark(Trouble::Invalid, why),
                Ok((name, _)) if !cluster.services.contains_key(&name) => {
                    remark(Trouble::Pending, format!("there is no Service {name}{}", watched(settings)));
                }
                Ok((name, _)) if !endpoints.any_ready(&name) => {
                    remark(Trouble::Pending, format!("Service {name} has no ready endpoint"));
                }
                Ok(_) => served = true,
            }
        }
        if served {
            claims.push(Claim {
                about: about.clone(),
                age: map.age.clone(),
                vips: vec![vip],
                eligible: Eligible::Any,
                sharing: None,
                local_address: LocalAddress::Active,
                kind: Kind::ConfigMap,
            });
        }
    }
}

fn watched(settings: &Settings) -> String {
    let namespace = settings.kubernetes.watch_namespace.as_ref();
    namespace
        .map_or_else(String::new, |only| format!(" among those watched (watch_namespace: {})", only.as_str()))
}

/// A key may hold no colon, so an IPv6 address is written with hyphens or underscores in their place: `fd00--50`.
pub(super) fn vip_of_key(key: &str) -> Result<VipAddress, String> {
    protocol::vip(key).or_else(|error| {
        let with_colons = key.replace(['-', '_'], ":");
        protocol::vip(&with_colons).ok().filter(|vip| vip.address.is_ipv6()).ok_or_else(|| {
            format!("{error}; the key is the VIP (of IPv6 with `-` for `:`), the value names its Services")
        })
    })
}

/// The Services that a value names.
pub(super) fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ' ', '\t', '\n', '\r']).filter(|word| !word.is_empty())
}

/// `namespace/service[:NAT|DR|PROXY]`; without a way to forward `None`.
pub(super) fn service_of_value(word: &str) -> Result<(ObjectName, Option<Forwarding>), String> {
    let (name, forwarding) = match word.split_once(':') {
        None => (word, None),
        Some((name, mode)) => {
            let known = Forwarding::of_predecessors(mode);
            (name, Some(known.ok_or_else(|| format!("{mode:?} is no way to forward: NAT, DR or PROXY"))?))
        }
    };
    let name = ObjectName::parse(name)
        .map_err(|error| format!("{error}; write namespace/service[:NAT|DR|PROXY]"))?;
    Ok((name, forwarding))
}

// === Services ===

fn of_annotation(
    about: &About,
    name: &ObjectName,
    service: &Service,
    text: &str,
    endpoints: &Endpoints<'_>,
    remarks: &mut Vec<Remark>,
) -> Option<Claim> {
    let vips = vips(about, INGRESS_VIP, text, remarks)?;
    let nodes = endpoints.nodes(name, |_| true);
    if nodes.is_empty() {
        let message = "no pod runs behind it, so nobody can hold its VIP";
        remarks.push(Remark { about: about.clone(), trouble: Trouble::Pending, message: message.into() });
        return None;
    }
    Some(Claim {
        about: about.clone(),
        age: service.age.clone(),
        vips,
        eligible: Eligible::Nodes(nodes),
        sharing: None,
        local_address: LocalAddress::Active,
        kind: Kind::Annotation,
    })
}

fn of_load_balancer(
    about: &About,
    name: &ObjectName,
    service: &Service,
    sources: &Known<'_>,
    remarks: &mut Vec<Remark>,
) -> Option<Claim> {
    let mut remark =
        |trouble, message: String| remarks.push(Remark { about: about.clone(), trouble, message });
    let ends_here = steering::mode(service) == Some(Mode::Proxy);
    let local_address = match service.annotations.get(LOCAL_ADDRESS).map(String::as_str) {
        Some("never") if ends_here => {
            let message =
                format!("{LOCAL_ADDRESS} must be `active` in mode proxy: its connections end on this node");
            remark(Trouble::Invalid, message);
            return None;
        }
        None if !ends_here => LocalAddress::Never,
        Some("never") => LocalAddress::Never,
        None | Some("active") => LocalAddress::Active,
        Some("always") => LocalAddress::Always,
        Some(other) => {
            let message = format!("{LOCAL_ADDRESS} must be `never`, `active` or `always`, not {other:?}");
            remark(Trouble::Invalid, message);
            return None;
        }
    };
    let (mut vips, mut eligible) = match written(service) {
        Some((place, text)) => (vips(about, place, text, remarks)?, Eligible::Any),
        None => match sources.given.to(&service.age.uid) {
            Some(gift) => (gift.vips, gift.eligible),
            None => {
                let (trouble, message) = pools::why_waiting(service, sources.cluster, sources.settings);
                remark(trouble, message);
                return None;
            }
        },
    };
    vips.retain(|vip| {
        let family = Family::of(vip.address);
        let served = service.families.is_empty() || service.families.contains(&family);
        if !served {
            let message = format!("{} is of a family that spec.ipFamilies does not have", vip.address);
            remarks.push(Remark { about: about.clone(), trouble: Trouble::Invalid, message });
        }
        served
    });
    if vips.is_empty() {
        return None;
    }
    if service.local {
        let nodes = sources.endpoints.nodes(name, |endpoint| endpoint.ready);
        if nodes.is_empty() {
            let message = "externalTrafficPolicy is Local and no node has a ready endpoint".to_owned();
            remarks.push(Remark { about: about.clone(), trouble: Trouble::Pending, message });
            return None;
        }
        eligible.and(&Eligible::Nodes(nodes));
    }
    if matches!(&eligible, Eligible::Nodes(nodes) if nodes.is_empty()) {
        let message = "no node that its pool selects can serve it".to_owned();
        remarks.push(Remark { about: about.clone(), trouble: Trouble::Pending, message });
        return None;
    }
    Some(Claim {
        about: about.clone(),
        age: service.age.clone(),
        vips,
        eligible,
        sharing: sharing(name, service),
        local_address,
        kind: Kind::LoadBalancer,
    })
}

/// The addresses that are written on a Service of type LoadBalancer, and where they are.
pub(crate) fn written(service: &Service) -> Option<(&'static str, &str)> {
    let annotated = service.annotations.get(VIPS).map(|text| (VIPS, text.as_str()));
    annotated.or_else(|| Some(("spec.loadBalancerIP", service.load_balancer_ip.as_deref()?)))
}

/// With whom a Service of type LoadBalancer shares its VIPs.
pub(crate) fn sharing(name: &ObjectName, service: &Service) -> Option<Sharing> {
    let key = service.annotations.get(SHARING_KEY).filter(|key| !key.is_empty())?;
    Some(Sharing {
        key: key.clone(),
        ports: service.ports.clone(),
        pods: service.local.then(|| (name.namespace.clone(), service.selector.clone())),
    })
}

/// A list of VIPs; `None` if there is none that is valid.
fn vips(about: &About, place: &str, text: &str, remarks: &mut Vec<Remark>) -> Option<Vec<VipAddress>> {
    let mut vips: Vec<VipAddress> = Vec::new();
    let mut seen: BTreeSet<IpAddr> = BTreeSet::new();
    for word in text.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()) {
        match protocol::vip(word) {
            Ok(vip) if seen.insert(vip.address) => vips.push(vip),
            Ok(_) => {}
            Err(error) => {
                let message = format!("{place}: {error}");
                remarks.push(Remark { about: about.clone(), trouble: Trouble::Invalid, message });
            }
        }
    }
    (!vips.is_empty()).then_some(vips)
}
