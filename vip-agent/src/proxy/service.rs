//! What the proxy is told to serve: plain data.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::IpNet;
use vip_common::steering::packet::protocol;
use vip_common::steering::tables::FlowState;

use super::header::HeaderVersion;

/// Ports that all services listen on together: each is a socket and a task.
pub const MOST_PORTS: usize = 4096;

/// A service that connections are passed on for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyService {
    /// Its name. With `vip` it says which service is the same as before.
    pub name: String,
    /// The address that clients connect to.
    pub vip: IpAddr,
    /// The ports that they connect to: at least one, each once.
    pub ports: Vec<PortMap>,
    /// Where connections go, each address once. Their order does not matter.
    pub backends: Vec<ProxyBackend>,
    /// How backends are told of the client; `None`: they are not.
    pub header: Option<HeaderVersion>,
    /// How long after a client's last new connection it is sent to the same backend again; `None`: no affinity.
    pub affinity: Option<Duration>,
    /// Who may connect; empty: everybody. Others are reset.
    pub source_ranges: Vec<IpNet>,
    /// How long its connections are served when the service is gone.
    pub grace: Duration,
    /// Times and numbers.
    pub limits: Limits,
}

/// A port of the VIP, and of its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMap {
    /// The VIP's.
    pub port: NonZeroU16,
    /// The backends'.
    pub target: NonZeroU16,
}

/// Where connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyBackend {
    /// Its address, of either family.
    pub address: IpAddr,
    /// Its share of new connections relative to the others'; 0 = draining: none, but it keeps those that it has.
    pub weight: u16,
    /// Whether its probe, if it has one, says that it can serve.
    pub up: bool,
}

/// Times and numbers of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. Further ones wait in the kernel's queue until one ends.
    pub connections: usize,
    /// How long a backend may take to accept a connection before the next one is tried. The default leaves room for one
    /// SYN that is lost and sent again after a second.
    pub connect_timeout: Duration,
    /// How long all attempts together may take.
    pub connect_total: Duration,
    /// How long nothing may pass in either direction: as in the flow table of the XDP program.
    pub idle: Duration,
    /// The same once one side has said all that it had to say.
    pub half_closed: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let idle = |state: FlowState| Duration::from_nanos(state.timeout(protocol::TCP));
        Self {
            connections: 10_000,
            connect_timeout: Duration::from_secs(3),
            connect_total: Duration::from_secs(10),
            idle: idle(FlowState::Established),
            half_closed: idle(FlowState::Closing),
        }
    }
}

/// Why a service cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service {service}: {why}")]
pub struct InvalidService {
    /// Its name.
    pub service: String,
    /// What is wrong.
    pub why: String,
}

impl ProxyService {
    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ports.iter().map(|map| SocketAddr::new(self.vip, map.port.get()))
    }

    /// The backends' port for one of the VIP's.
    pub(super) fn target(&self, port: u16) -> Option<u16> {
        self.ports.iter().find(|map| map.port.get() == port).map(|map| map.target.get())
    }

    fn problem(&self) -> Option<String> {
        let mut backends = BTreeSet::new();
        if self.ports.is_empty() {
            return Some("`mode: proxy` needs ports: it cannot listen on all of them".into());
        }
        let twice = self.backends.iter().find(|backend| !backends.insert(backend.address))?;
        Some(format!("the backend {} is there twice", twice.address))
    }
}

/// Whether these can be served beside each other.
pub(super) fn check(services: &[ProxyService]) -> Result<(), InvalidService> {
    let mut addresses = BTreeSet::new();
    let mut names = BTreeSet::new();
    for service in services {
        let invalid = |why| InvalidService { service: service.name.clone(), why };
        if let Some(why) = service.problem() {
            return Err(invalid(why));
        }
        if !names.insert(&service.name) {
            return Err(invalid("there is another of that name".into()));
        }
        if let Some(taken) = service.addresses().find(|address| !addresses.insert(*address)) {
            return Err(invalid(format!("{taken} is there twice: one service can listen on it")));
        }
        if addresses.len() > MOST_PORTS {
            let why = format!(
                "more than {MOST_PORTS} ports for `mode: proxy` on this node: use fewer, or `mode: nat`"
            );
            return Err(invalid(why));
        }
    }
    Ok(())
}
