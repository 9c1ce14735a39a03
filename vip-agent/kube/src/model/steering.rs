//! Which traffic to VIPs is steered, and to whom: Services and their endpoints become `services` of the agent.
//!
//! Older Services come first: to a port of a VIP that several name, and to the room that there is. That and what is wrong is decided
//! from the objects alone, before a node looks at which VIPs are its own, so that all nodes come to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vip_kube_protocol::{ObjectName, Room, Steering};

use super::claims::{Kind, service_of_value, vip_of_key, words};
use super::endpoints::{Candidate, Endpoints, Serving, backends};
use super::remark::{About, Remark, Trouble};
use super::seats::Seat;
use super::service::{Affinity, Mode, Protocol, ProxyProtocol, Service, ServicePort};
use super::{Router, Settings, hash};
use crate::cluster::{self, Cluster, Family, Port};

/// How traffic to a Service of type LoadBalancer gets to its endpoints: a mode of `services`. Without it nothing is steered.
pub(super) const MODE: &str = "viplane.dev/mode";
/// In mode `proxy`: the header by which endpoints learn who the client is, `v1` or `v2`.
pub(super) const PROXY_PROTOCOL: &str = "viplane.dev/proxy-protocol";

/// Of a service's name in a configuration.
const LONGEST_NAME: usize = 63;
/// What the configuration takes for `affinity_timeout`, as the API server does for its own.
const LONGEST_AFFINITY: u32 = 24 * 3600;

/// How traffic is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forwarding {
    mode: Mode,
    proxy_protocol: Option<ProxyProtocol>,
}

impl Forwarding {
    /// kube-keepalived-vip's where its ConfigMap does not say.
    const DEFAULT: Self = Self { mode: Mode::Nat, proxy_protocol: None };

    /// By kube-keepalived-vip's word for it.
    pub(super) fn of_predecessors(word: &str) -> Option<Self> {
        let (mode, proxy_protocol) = match word.to_ascii_uppercase().as_str() {
            "NAT" => (Mode::Nat, None),
            "DR" => (Mode::Dr, None),
            // Its proxy told the client's address always, in the first version.
            "PROXY" => (Mode::Proxy, Some(ProxyProtocol::V1)),
            _ => return None,
        };
        Some(Self { mode, proxy_protocol })
    }

    /// As a Service's annotations say; `None`: nothing is to be steered.
    fn of_annotations(service: &cluster::Service) -> Result<Option<Self>, String> {
        let said = |key| service.annotations.get(key).map(String::as_str);
        let mode = match said(MODE) {
            None => None,
            Some(word) => Some(Mode::of(word).ok_or_else(|| {
                format!("{MODE} must be `local`, `dr`, `nat`, `tunnel` or `proxy`, not {word:?}: nothing is steered")
            })?),
        };
        let proxy_protocol = match (said(PROXY_PROTOCOL), mode) {
            (None, _) => None,
            (Some("v1"), Some(Mode::Proxy)) => Some(ProxyProtocol::V1),
            (Some("v2"), Some(Mode::Proxy)) => Some(ProxyProtocol::V2),
            (Some(_), Some(Mode::Proxy)) => {
                return Err(format!("{PROXY_PROTOCOL} must be `v1` or `v2`: nothing is steered"));
            }
            (Some(_), _) => {
                return Err(format!("{PROXY_PROTOCOL} needs `{MODE}: proxy`: nothing is steered"));
            }
        };
        Ok(mode.map(|mode| Self { mode, proxy_protocol }))
    }
}

/// The mode that a Service asks for, if it is one.
pub(super) fn mode(service: &cluster::Service) -> Option<Mode> {
    Forwarding::of_annotations(service).ok().flatten().map(|forwarding| forwarding.mode)
}

/// A Service whose traffic to a VIP is to be steered.
struct Asked<'a> {
    name: &'a ObjectName,
    service: &'a cluster::Service,
    vip: IpAddr,
    forwarding: Forwarding,
    /// `externalTrafficPolicy: Local`.
    local: bool,
    /// Whether somebody wrote that it is to be steered.
    explicit: bool,
}

impl Asked<'_> {
    fn remark(&self, trouble: Trouble, message: &str) -> Remark {
        Remark {
            about: About::Service(self.name.clone()),
            trouble,
            message: format!("{}: {message}", self.vip),
        }
    }
}

/// What this node, which has these routers, has to steer.
pub(super) fn services(
    seats: &[Seat],
    instances: &[Router],
    cluster: &Cluster,
    settings: &Settings,
    remarks: &mut Vec<Remark>,
) -> Vec<Service> {
    let mut asked = asked(seats, cluster, remarks);
    let room = match &settings.steering {
        Steering::On(room) => room,
        without => {
            let explicit = asked.iter().filter(|asked| asked.explicit);
            remarks.extend(explicit.map(|asked| asked.remark(Trouble::Pending, why_not(without))));
            return Vec::new();
        }
    };
    asked.sort_by(|a, b| (&a.service.age, a.name, a.vip).cmp(&(&b.service.age, b.name, b.vip)));
    let ours: BTreeSet<IpAddr> =
        instances.iter().flat_map(|instance| &instance.vips).map(|vip| vip.address).collect();
    let units = seats.iter().flat_map(|seat| &seat.units);
    let vips = units.flat_map(|unit| &unit.vips).map(|vip| vip.address);
    let mut planner = Planner {
        endpoints: Endpoints::of(cluster),
        vips: vips.chain(settings.taken_vips.iter().copied()).collect(),
        left: room.clone(),
        ports: BTreeMap::new(),
        remarks,
    };
    let mut services = Vec::new();
    for asked in &asked {
        let groups = planner.groups(asked);
        if !ours.contains(&asked.vip) {
            continue;
        }
        let only = (asked.local && asked.forwarding.mode != Mode::Local).then_some(settings.node.as_str());
        services.extend(groups.into_iter().map(|group| service(asked, group, only)));
    }
    services
}

fn why_not(steering: &Steering) -> &'static str {
    match steering {
        Steering::Off => "is not steered: `kubernetes.steering` is false in the agents' configuration",
        Steering::Unloaded | Steering::On(_) => {
            "is not steered: this agent was started without `kubernetes.steering`; start it anew (`vip-agent run --take-over` \
             loses nothing)"
        }
    }
}

// === who asks ===

fn asked<'a>(seats: &[Seat], cluster: &'a Cluster, remarks: &mut Vec<Remark>) -> Vec<Asked<'a>> {
    let of_map = of_map(cluster);
    let mut all = Vec::new();
    for unit in seats.iter().flat_map(|seat| &seat.units) {
        match unit.kind {
            Kind::ConfigMap => {
                let vips = unit.vips.iter().filter_map(|vip| of_map.get(&vip.address));
                all.extend(vips.flat_map(|(vip, value)| listed(*vip, value, cluster)));
            }
            Kind::LoadBalancer => {
                for (about, vips) in &unit.holders {
                    let About::Service(name) = about else { continue };
                    let Some((name, service)) = cluster.services.get_key_value(name) else { continue };
                    match Forwarding::of_annotations(service) {
                        Ok(None) => {}
                        Ok(Some(forwarding)) => all.extend(vips.iter().map(|vip| Asked {
                            name,
                            service,
                            vip: *vip,
                            forwarding,
                            local: service.local,
                            explicit: true,
                        })),
                        Err(message) => {
                            remarks.push(Remark { about: about.clone(), trouble: Trouble::Invalid, message });
                        }
                    }
                }
            }
            Kind::Annotation | Kind::VirtualIp => {}
        }
    }
    all
}

/// The ConfigMap's values by VIP.
fn of_map(cluster: &Cluster) -> BTreeMap<IpAddr, (IpAddr, &str)> {
    let mut values = BTreeMap::new();
    for (key, value) in cluster.config_map.iter().flat_map(|map| &map.data) {
        if let Ok(vip) = vip_of_key(key) {
            // Two ways to write the same one: the first has it.
            values.entry(vip.address).or_insert((vip.address, value.as_str()));
        }
    }
    values
}

/// The Services of a VIP of the ConfigMap. What cannot be read of its value was said where the VIP was claimed.
fn listed<'a>(vip: IpAddr, value: &str, cluster: &'a Cluster) -> Vec<Asked<'a>> {
    let named = words(value).filter_map(|word| service_of_value(word).ok());
    let mut seen = BTreeSet::new();
    named
        .filter_map(|(name, forwarding)| {
            let (name, service) = cluster.services.get_key_value(&name)?;
            seen.insert(name).then(|| Asked {
                name,
                service,
                vip,
                forwarding: forwarding.unwrap_or(Forwarding::DEFAULT),
                local: false,
                explicit: forwarding.is_some(),
            })
        })
        .collect()
}

// === what they get ===

/// Ports of a Service that the same endpoints serve.
struct Group<'a> {
    /// What tells it from other groups of the Service; `None`: the one with the first port.
    suffix: Option<String>,
    ports: Vec<ServicePort>,
    candidates: Vec<Candidate<'a>>,
    sources: Vec<IpNet>,
}

struct Planner<'a, 'r> {
    endpoints: Endpoints<'a>,
    /// All that there are: no backend is one.
    vips: BTreeSet<IpAddr>,
    left: Room,
    /// Who has a port.
    ports: BTreeMap<(IpAddr, &'a Port), &'a ObjectName>,
    remarks: &'r mut Vec<Remark>,
}

impl<'a> Planner<'a, '_> {
    /// What becomes of one; nothing, if there is no room.
    fn groups(&mut self, asked: &Asked<'a>) -> Vec<Group<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for port in &asked.service.ports {
            let Some((served, candidates)) = self.port(asked, port) else { continue };
            match groups.iter_mut().find(|group| group.candidates == candidates) {
                Some(group) => group.ports.push(served),
                None => groups.push(Group {
                    suffix: (!groups.is_empty())
                        .then(|| format!("_{}_{}", served.protocol.word(), served.port)),
                    ports: vec![served],
                    candidates,
                    sources: Vec::new(),
                }),
            }
        }
        let sources = self.sources(asked);
        groups.iter_mut().for_each(|group| group.sources.clone_from(&sources));
        if !self.has_room_for(asked, &groups) {
            return Vec::new();
        }
        for port in &asked.service.ports {
            let served = |group: &Group<'_>| group.ports.iter().any(|served| is(served, port));
            if groups.iter().any(served) {
                self.ports.insert((asked.vip, port), asked.name);
            }
        }
        groups
    }

    /// A port of it and who serves that; `None`: it is not steered.
    fn port(&mut self, asked: &Asked<'a>, port: &'a Port) -> Option<(ServicePort, Vec<Candidate<'a>>)> {
        let Port { protocol: word, port: number } = port;
        if let Some(holder) = self.ports.get(&(asked.vip, port)) {
            let message = format!("{word} port {number} is served by the older Service {holder}");
            self.remarks.push(asked.remark(Trouble::Conflict, &message));
            return None;
        }
        let mode = asked.forwarding.mode;
        let protocol = Protocol::of(word)?;
        if mode == Mode::Proxy && protocol != Protocol::Tcp {
            let message = format!("{word} port {number} is not served: mode proxy is for TCP alone");
            self.remarks.push(asked.remark(Trouble::Invalid, &message));
            return None;
        }
        if mode == Mode::Local {
            return Some((ServicePort { port: *number, target: None, protocol }, Vec::new()));
        }
        let Serving { number: target, candidates, others } = self.serving(asked, port);
        for (other, count) in others {
            let message = format!(
                "{word} port {number}: {count} endpoints listen on port {other} and not on {}, as most do: they are left out",
                target.unwrap_or(*number)
            );
            self.remarks.push(asked.remark(Trouble::Invalid, &message));
        }
        let target = target.filter(|target| target != number);
        if let Some(target) = target.filter(|_| !mode.maps_ports(protocol)) {
            let message = format!(
                "{word} port {number} is not served: mode {} leaves ports as they are, and targetPort is {target}",
                mode.word()
            );
            self.remarks.push(asked.remark(Trouble::Invalid, &message));
            return None;
        }
        Some((ServicePort { port: *number, target, protocol }, candidates))
    }

    /// The endpoints that serve a port, of a family that the mode can reach.
    fn serving(&mut self, asked: &Asked<'a>, port: &Port) -> Serving<'a> {
        let own = Family::of(asked.vip);
        // A proxy's connections to endpoints are its own.
        let foreign = asked.forwarding.mode == Mode::Proxy && !self.endpoints.has(asked.name, own);
        let family = if foreign { own.other() } else { own };
        let name = asked.service.traffic.port_names.get(port).map_or("", String::as_str);
        let mut serving = self.endpoints.serving(asked.name, (port, name), family);
        let vips = &self.vips;
        // A packet to a VIP that is sent to a VIP would go round.
        let (turning, candidates) =
            serving.candidates.into_iter().partition(|candidate| vips.contains(&candidate.address));
        serving.candidates = candidates;
        let turning: Vec<Candidate<'_>> = turning;
        for candidate in turning {
            let message = format!("its endpoint {} is a VIP: it is left out", candidate.address);
            self.remarks.push(asked.remark(Trouble::Invalid, &message));
        }
        if serving.candidates.is_empty() {
            let word = if family == Family::V4 { "IPv4" } else { "IPv6" };
            let message = format!(
                "nobody serves {} port {}: there is no ready {word} endpoint",
                port.protocol, port.port
            );
            self.remarks.push(asked.remark(Trouble::Pending, &message));
        }
        serving
    }

    /// Who is served. Ranges of the other family say nothing of this one, and nobody is left of a list that has none of its own.
    fn sources(&mut self, asked: &Asked<'_>) -> Vec<IpNet> {
        let written = &asked.service.traffic.source_ranges;
        if written.is_empty() {
            return Vec::new();
        }
        let mut ranges = BTreeSet::new();
        for text in written {
            match text.trim().parse::<IpNet>() {
                Ok(range) if range.addr().is_ipv4() == asked.vip.is_ipv4() => {
                    ranges.insert(range.trunc());
                }
                Ok(_) => {}
                Err(_) => {
                    let message =
                        format!("loadBalancerSourceRanges: {text:?} is no range, and allows nobody");
                    self.remarks.push(asked.remark(Trouble::Invalid, &message));
                }
            }
        }
        if ranges.is_empty() {
            let message = "loadBalancerSourceRanges has no range of its family: nobody is served";
            self.remarks.push(asked.remark(Trouble::Invalid, message));
            ranges.insert(nobody(asked.vip));
        }
        ranges.into_iter().collect()
    }

    fn has_room_for(&mut self, asked: &Asked<'_>, groups: &[Group<'_>]) -> bool {
        let has_slots = !matches!(asked.forwarding.mode, Mode::Local | Mode::Proxy);
        let sum = |of: fn(&Group<'_>) -> usize| groups.iter().map(of).sum();
        let needs = [
            groups.len(),
            sum(|group| group.ports.len()),
            if has_slots { sum(|group| group.candidates.len()) } else { 0 },
            sum(|group| group.sources.len()),
        ]
        .map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let Room { taken_names, services, ports, backends, sources } = &self.left;
        let left = [*services, *ports, *backends, *sources];
        let taken = groups.iter().map(|group| name(asked, group)).find(|name| taken_names.contains(name));
        if let Some(name) = taken {
            let message = format!("{name} is a service of this node's own configuration file");
            self.remarks.push(asked.remark(Trouble::Conflict, &message));
            return false;
        }
        let what = ["services", "ports of services", "backends", "source ranges"];
        for (what, (needs, left)) in what.into_iter().zip(needs.into_iter().zip(left)) {
            if needs > left {
                let message = format!("is not steered: {needs} more {what} are needed, and {left} fit");
                self.remarks.push(asked.remark(Trouble::Exhausted, &message));
                return false;
            }
        }
        let Room { services, ports, backends, sources, .. } = &mut self.left;
        for (left, needs) in [services, ports, backends, sources].into_iter().zip(needs) {
            *left -= needs;
        }
        true
    }
}

fn is(served: &ServicePort, port: &Port) -> bool {
    served.port == port.port && Protocol::of(&port.protocol) == Some(served.protocol)
}

/// A range that no packet comes from: this host.
fn nobody(vip: IpAddr) -> IpNet {
    let loopback: IpAddr = if vip.is_ipv4() {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        std::net::Ipv6Addr::LOCALHOST.into()
    };
    loopback.into()
}

fn service(asked: &Asked<'_>, group: Group<'_>, only: Option<&str>) -> Service {
    let timeout = asked.service.traffic.affinity.map(|seconds| seconds.clamp(1, LONGEST_AFFINITY));
    let chooses = asked.forwarding.mode != Mode::Local;
    let timeout = timeout.filter(|_| chooses);
    Service {
        name: name(asked, &group),
        vip: asked.vip,
        mode: asked.forwarding.mode,
        proxy_protocol: asked.forwarding.proxy_protocol,
        affinity: timeout.map(|_| Affinity::ClientIp),
        affinity_timeout: timeout.map(|seconds| format!("{seconds}s")),
        backends: backends(&group.candidates, only),
        ports: group.ports,
        source_ranges: group.sources,
    }
}

/// `kube-NAMESPACE.NAME-VIP`, with a hash in the place of what is too long. No two are alike: neither a namespace nor a VIP has what ends it
/// here, and no Service's name an underscore.
fn name(asked: &Asked<'_>, group: &Group<'_>) -> String {
    let ObjectName { namespace, name } = asked.name;
    let suffix = group.suffix.as_deref().unwrap_or_default();
    let vip = asked.vip.to_string().replace(':', "_");
    let full = format!("kube-{namespace}.{name}{suffix}-{vip}");
    if full.len() <= LONGEST_NAME {
        return full;
    }
    let hash = format!("-{:016x}", hash::hash(&[full.as_bytes()]));
    format!("{}{hash}", &full[..LONGEST_NAME - hash.len()])
}
