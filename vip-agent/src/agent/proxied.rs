//! Services with `mode: proxy`: what the proxy is told of them, from the configuration and the verdicts of probes.

use std::num::NonZeroU16;

use super::Agent;
use crate::config::{self, ProxyProtocol, Service, ServiceMode, Transport};
use crate::proxy::{HeaderVersion, Limits, PortMap, ProxyBackend, ProxyService};
use crate::status::ServiceStatus;

impl Agent {
    /// Has connections passed on as the configuration and the probes say now.
    pub(super) fn serve_proxied(&mut self) {
        let services: Vec<ProxyService> =
            self.config.services.iter().filter_map(|service| self.proxied(service)).collect();
        if let Err(error) = self.proxy.serve(services) {
            tracing::error!("{error}");
        }
    }

    /// What the program does not see of connections that end here, and why a port is not listened on.
    pub(super) fn with_proxied(&self, mut statuses: Vec<ServiceStatus>) -> Vec<ServiceStatus> {
        let (counts, troubles) = (self.proxy.counts(), self.proxy.troubles());
        for counted in counts {
            let Some(status) = statuses.iter_mut().find(|status| status.name == counted.name) else {
                continue;
            };
            let trouble = troubles.iter().find(|(address, _)| address.ip() == status.vip);
            status.reason = status.reason.take().or_else(|| trouble.map(|(_, why)| why.clone()));
            (status.new_flows, status.active_flows) = (counted.new_flows, counted.active_flows);
            let reasons = counted.failed.iter().chain(&counted.broken);
            status.outcomes.extend(reasons.map(|(name, count)| ((*name).to_owned(), *count)));
            for backend in &mut status.backends {
                let Some(seen) = counted.backends.get(&backend.address) else { continue };
                backend.active_flows = seen.active_flows;
                backend.reason = backend.reason.take().or_else(|| seen.last_error.clone());
            }
        }
        statuses
    }

    /// `None`: of another mode.
    fn proxied(&self, service: &Service) -> Option<ProxyService> {
        let ServiceMode::Proxy(protocol) = service.mode else { return None };
        let backend = |backend: &config::Backend| ProxyBackend {
            address: backend.address,
            weight: backend.weight,
            up: self.probe_of(backend).is_none_or(|view| view.up),
        };
        let instance = self
            .config
            .instances
            .iter()
            .find(|instance| instance.vips.iter().any(|vip| vip.address == service.vip));
        Some(ProxyService {
            name: service.name.as_str().to_owned(),
            vip: service.vip,
            ports: ports(service),
            backends: service.backends.iter().map(backend).collect(),
            header: protocol.map(|version| match version {
                ProxyProtocol::V1 => HeaderVersion::V1,
                ProxyProtocol::V2 => HeaderVersion::V2,
            }),
            affinity: service.affinity,
            source_ranges: service.source_ranges.clone(),
            grace: instance.map(|instance| instance.grace).unwrap_or_default(),
            limits: Limits::default(),
        })
    }
}

/// Each port by itself: all of them are refused by the configuration's check, as are those of other protocols.
fn ports(service: &Service) -> Vec<PortMap> {
    let ranges = service.ports.iter().filter(|range| range.transport() == Transport::Tcp && !range.is_all());
    let map = |port: u16, shift: u16| {
        Some(PortMap { port: NonZeroU16::new(port)?, target: NonZeroU16::new(port.wrapping_add(shift))? })
    };
    ranges.flat_map(|range| range.numbers().filter_map(move |port| map(port, range.shift()))).collect()
}
