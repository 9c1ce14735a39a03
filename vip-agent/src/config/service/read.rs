//! The schema of one service.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::super::field::{Field, Mapping};
use super::super::model::Name;
use super::super::node;
use super::super::tree::Value;
use super::ports::{PortRange, Transport, entry};
use super::{Backend, DEFAULT_AFFINITY_TIMEOUT, NoBackend, ProxyProtocol, Service, ServiceMode};

const KEYS: [&str; 10] = [
    "name",
    "vip",
    "ports",
    "mode",
    "proxy_protocol",
    "affinity",
    "affinity_timeout",
    "source_ranges",
    "no_backend",
    "backends",
];

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A service of the file: what was valid of that which concerns others, and the whole if all was.
#[derive(Default)]
pub(in super::super) struct Draft<'a> {
    pub(super) name: Option<(Field<'a>, Name)>,
    pub(super) vip: Option<(Field<'a>, IpAddr)>,
    pub(super) ports: Vec<(Field<'a>, PortRange)>,
    pub(super) mode: ServiceMode,
    pub(super) backends: Vec<(Field<'a>, IpAddr)>,
    pub(super) probes: Vec<(Field<'a>, Name)>,
    service: Option<Service>,
}

impl<'a> Draft<'a> {
    /// The probes that its backends name.
    pub(in super::super) fn probes(&self) -> impl Iterator<Item = &(Field<'a>, Name)> {
        self.probes.iter()
    }

    /// The service, if nothing in it was wrong.
    pub(in super::super) fn finish(self) -> Option<Service> {
        self.service
    }
}

/// All services; `None` where the list itself was refused.
pub(in super::super) fn services<'a>(file: &Mapping<'a>) -> Option<Vec<Draft<'a>>> {
    let Some(field) = file.get("services").filter(|field| !field.is_null()) else { return Some(Vec::new()) };
    Some(field.list()?.iter().map(service).collect())
}

fn service<'a>(field: &Field<'a>) -> Draft<'a> {
    let Some(mapping) = field.mapping(&KEYS) else { return Draft::default() };
    let name = mapping.required("name").and_then(|field| {
        let name = field.accept(Name::of("a service's name", field.text()?))?;
        Some((field, name))
    });
    let vip = mapping.required("vip").and_then(|field| {
        let vip = field.accept(node(field.text()?))?;
        Some((field, vip))
    });
    let mode = mode(&mapping);
    let (ports, all_ports) = ports(&mapping, mode);
    let affinity = affinity(&mapping);
    let vip_address = vip.as_ref().map(|(_, vip)| *vip);
    let source_ranges = source_ranges(&mapping, vip_address);
    let no_backend = mapping.or("no_backend", NoBackend::default(), |field| {
        field.choice(&[("reject", NoBackend::Reject), ("drop", NoBackend::Drop), ("pass", NoBackend::Pass)])
    });
    let read = backends(&mapping, vip_address, mode);
    let mut draft = Draft {
        name,
        vip,
        ports,
        mode: mode.unwrap_or_default(),
        backends: read.addresses,
        probes: read.probes,
        service: None,
    };
    if let (
        Some((_, name)),
        Some(vip),
        Some(ports),
        Some(mode),
        Some(affinity),
        Some(source_ranges),
        Some(no_backend),
        Some(backends),
    ) = (&draft.name, vip_address, all_ports, mode, affinity, source_ranges, no_backend, read.all)
    {
        let name = name.clone();
        draft.service =
            Some(Service { name, vip, ports, mode, affinity, source_ranges, no_backend, backends });
    }
    draft
}

/// `mode`, and `proxy_protocol` that goes with one of them.
fn mode(mapping: &Mapping<'_>) -> Option<ServiceMode> {
    let mode = mapping.or("mode", ServiceMode::default(), |field| {
        field.choice(&[
            ("local", ServiceMode::Local),
            ("dr", ServiceMode::Direct),
            ("nat", ServiceMode::Nat),
            ("tunnel", ServiceMode::Tunnel),
            ("proxy", ServiceMode::Proxy(None)),
        ])
    });
    let protocol = mapping.or("proxy_protocol", None, |field| match field.is_null() {
        true => Some(None),
        false => field.choice(&[("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)]).map(Some),
    });
    match (mode?, protocol?) {
        (ServiceMode::Proxy(_), protocol) => Some(ServiceMode::Proxy(protocol)),
        (mode, None) => Some(mode),
        (mode, Some(_)) => mapping
            .get("proxy_protocol")?
            .refuse(format_args!("needs `mode: proxy`: mode {mode} leaves what clients send as it is")),
    }
}

/// The valid ports, and all of them if none was refused.
fn ports<'a>(
    mapping: &Mapping<'a>,
    mode: Option<ServiceMode>,
) -> (Vec<(Field<'a>, PortRange)>, Option<Vec<PortRange>>) {
    let Some(field) = mapping.required("ports") else { return (Vec::new(), None) };
    let fields = match &field.node.value {
        Value::List(_) => field.list().unwrap_or_default(),
        _ => vec![field.clone()],
    };
    if fields.is_empty() {
        field.error("needs at least one port");
    }
    let mut whole = !fields.is_empty();
    let mut valid: Vec<(Field<'a>, PortRange)> = Vec::new();
    for field in fields {
        let read = entry(&field).filter(|ranges| mode.is_none_or(|mode| goes_with(&field, ranges, mode)));
        match read {
            Some(ranges) => valid.extend(ranges.into_iter().map(|range| (field.clone(), range))),
            None => whole = false,
        }
    }
    let all = whole.then(|| valid.iter().map(|(_, range)| *range).collect());
    (valid, all)
}

/// Reports ports that the mode cannot serve.
fn goes_with(field: &Field<'_>, ranges: &[PortRange], mode: ServiceMode) -> bool {
    let mapped = ranges.iter().find(|range| range.shift() != 0);
    if let Some(range) = mapped {
        if range.transport() == Transport::Sctp {
            field.error("SCTP keeps its ports: its checksum covers the whole packet; leave `target` out");
            return false;
        }
        if mode == ServiceMode::Local {
            field.warn("`target` has no effect: mode local leaves ports as they are");
        } else if !mode.maps_ports() {
            field.error(format_args!(
                "mode {mode} leaves ports as they are: leave `target` out, or take `mode: nat`"
            ));
            return false;
        }
    }
    if let ServiceMode::Proxy(_) = mode {
        if ranges.iter().any(PortRange::is_all) {
            field.error("mode proxy listens on each port: name them");
            return false;
        }
        if ranges.iter().any(|range| range.transport() != Transport::Tcp) {
            field.error("mode proxy is for tcp alone");
            return false;
        }
    }
    true
}

fn affinity(mapping: &Mapping<'_>) -> Option<Option<Duration>> {
    let by_client =
        mapping.or("affinity", false, |field| field.choice(&[("none", false), ("client_ip", true)]));
    let timeout = mapping.or("affinity_timeout", DEFAULT_AFFINITY_TIMEOUT, |field| {
        let timeout = field.duration_within(SECOND..=DAY)?;
        match timeout.subsec_nanos() {
            0 => Some(timeout),
            _ => field.refuse("must be whole seconds"),
        }
    });
    let (by_client, timeout) = (by_client?, timeout?);
    if !by_client
        && timeout != DEFAULT_AFFINITY_TIMEOUT
        && let Some(field) = mapping.get("affinity_timeout")
    {
        field.warn("has no effect without `affinity: client_ip`");
    }
    Some(by_client.then_some(timeout))
}

fn source_ranges(mapping: &Mapping<'_>, vip: Option<IpAddr>) -> Option<Vec<IpNet>> {
    let Some(field) = mapping.get("source_ranges").filter(|field| !field.is_null()) else {
        return Some(Vec::new());
    };
    let fields = field.list()?;
    let (written, mut ranges) = (fields.len(), Vec::new());
    for field in fields {
        let Some(range) = field.text().and_then(|text| source_range(&field, text)) else { continue };
        if vip.is_some_and(|vip| vip.is_ipv4() != range.addr().is_ipv4()) {
            field.error(format_args!("{range} is of another family than the VIP: nobody would be in it"));
        } else if ranges.contains(&range) {
            field.error(format_args!("{range} stands already in this list"));
        } else {
            ranges.push(range);
        }
    }
    (ranges.len() == written).then_some(ranges)
}

/// `10.0.0.0/8`, or an address alone.
fn source_range(field: &Field<'_>, text: &str) -> Option<IpNet> {
    let read = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(range) = read else {
        return field
            .refuse(format_args!("must be a range as in \"10.0.0.0/8\" or \"fd00::/8\", not {text:?}"));
    };
    if range != range.trunc() {
        return field.refuse(format_args!("{range} has bits beyond its prefix: write {}", range.trunc()));
    }
    Some(range)
}

/// What was valid of the backends.
#[derive(Default)]
struct Backends<'a> {
    addresses: Vec<(Field<'a>, IpAddr)>,
    probes: Vec<(Field<'a>, Name)>,
    all: Option<Vec<Backend>>,
}

fn backends<'a>(mapping: &Mapping<'a>, vip: Option<IpAddr>, mode: Option<ServiceMode>) -> Backends<'a> {
    let mut read = Backends::default();
    let field = mapping.get("backends").filter(|field| !field.is_null());
    let fields = match &field {
        None => Some(Vec::new()),
        Some(field) => field.list(),
    };
    let Some(fields) = fields else { return read };
    if let (Some(mode), Some(field)) = (mode, field.as_ref().or(Some(&mapping.field))) {
        match (mode.has_backends(), fields.is_empty()) {
            (true, true) => field.warn("there is no backend: nobody will serve it"),
            (false, false) => field.warn("have no effect: in mode local this node serves by itself"),
            _ => {}
        }
    }
    let (written, mut all) = (fields.len(), Vec::with_capacity(fields.len()));
    let mut seen = std::collections::HashSet::with_capacity(fields.len());
    for field in fields {
        let Some(backend) = backend(&field, &mut read) else { continue };
        let address = backend.address;
        if !seen.insert(address) {
            field.error(format_args!("{address} stands already in this list"));
            continue;
        }
        if let (Some(vip), Some(mode)) = (vip, mode)
            && !mode.reaches(&vip, &address)
        {
            field.error(format_args!(
                "mode {mode} cannot bring what is sent to {vip} to {address}: {}",
                hint(mode)
            ));
            continue;
        }
        all.push(backend);
    }
    read.all = (all.len() == written).then_some(all);
    read
}

fn hint(mode: ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Tunnel => "IPv6 goes in IPv6 tunnels only",
        _ => "they are of different families (`mode: proxy` translates between them)",
    }
}

fn backend<'a>(field: &Field<'a>, read: &mut Backends<'a>) -> Option<Backend> {
    let mapping = field.mapping(&["address", "weight", "probe"])?;
    let address = mapping.required("address").and_then(|field| {
        let address = field.accept(node(field.text()?))?;
        read.addresses.push((field, address));
        Some(address)
    });
    let weight = mapping.or("weight", 1, |field| field.integer(0..=u16::MAX));
    let probe = mapping.or("probe", None, |field| {
        if field.is_null() {
            return Some(None);
        }
        let name = field.accept(Name::of("a probe's name", field.text()?))?;
        read.probes.push((field.clone(), name.clone()));
        Some(Some(name))
    });
    Some(Backend { address: address?, weight: weight?, probe: probe? })
}
