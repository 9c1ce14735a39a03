//! `services`: ports of a VIP and the backends that serve them, as types that hold no value which a check refused.

mod checks;
mod ports;
mod read;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

pub(crate) use self::checks::MOST_BACKENDS;
pub(super) use self::checks::across_services;
pub use self::ports::{PortRange, Transport};
pub(super) use self::read::{Draft, services};
use super::duration::Span;
use super::model::Name;

/// One service. Its name is its identity: another name is another service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique in the file.
    pub name: Name,
    /// A VIP of an instance that accepts traffic.
    pub vip: IpAddr,
    /// Its ports: at least one, none of which another service of the VIP has.
    pub ports: Vec<PortRange>,
    /// How packets get to backends.
    pub mode: ServiceMode,
    /// `affinity: client_ip`: a client keeps its backend for this long after its last new flow (1 s to 24 h, whole seconds).
    pub affinity: Option<Duration>,
    /// Who is served, all of the VIP's family, each once; empty = everybody.
    pub source_ranges: Vec<IpNet>,
    /// What becomes of packets while nobody can serve them.
    pub no_backend: NoBackend,
    /// Who serves, each address once, of a family that the mode can reach.
    pub backends: Vec<Backend>,
}

/// One backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Where it is: a host's own address, never a VIP.
    pub address: IpAddr,
    /// Its share of new flows relative to the others; 0 = it keeps the flows that it has and gets no new ones.
    pub weight: u16,
    /// The probe whose verdict takes it out and in; `None`: none does.
    pub probe: Option<Name>,
}

/// `mode`: how packets get to backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceMode {
    /// Up this node's stack, to whoever listens there.
    #[default]
    Local,
    /// `dr`: to the backend's MAC, all else untouched. Backends are on the VIP's network and have the VIP on lo.
    Direct,
    /// To the backend's address and port.
    Nat,
    /// In a tunnel to the backend, which takes the packet out.
    Tunnel,
    /// By connections of this node's own.
    Proxy(Option<ProxyProtocol>),
}

impl ServiceMode {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Direct => "dr",
            Self::Nat => "nat",
            Self::Tunnel => "tunnel",
            Self::Proxy(_) => "proxy",
        }
    }

    /// Whether backends are asked to serve; in mode `local` this node alone does.
    pub const fn has_backends(self) -> bool {
        !matches!(self, Self::Local)
    }

    /// Whether the XDP program chooses backends, by a ring.
    pub const fn is_steered(self) -> bool {
        matches!(self, Self::Direct | Self::Nat | Self::Tunnel)
    }

    /// Whether a backend may be asked at another port than the client did.
    pub const fn maps_ports(self) -> bool {
        matches!(self, Self::Nat | Self::Proxy(_))
    }

    /// Whether backends of this family can serve a VIP of that one.
    pub const fn reaches(self, vip: &IpAddr, backend: &IpAddr) -> bool {
        match self {
            Self::Direct | Self::Nat => vip.is_ipv4() == backend.is_ipv4(),
            // Both families go in IPv6, IPv4 alone in IPv4.
            Self::Tunnel => vip.is_ipv4() || backend.is_ipv6(),
            Self::Local | Self::Proxy(_) => true,
        }
    }
}

impl fmt::Display for ServiceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `proxy_protocol`: the header by which a backend learns who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// `no_backend`: what becomes of packets to a service that has nobody to serve it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoBackend {
    /// The client is told: a TCP reset, or an ICMP error.
    #[default]
    Reject,
    /// Nobody hears of them.
    Drop,
    /// Up this node's stack.
    Pass,
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let proxy_protocol = match self.mode {
            ServiceMode::Proxy(protocol) => protocol,
            _ => None,
        };
        let mut service = serializer.serialize_struct("Service", 10)?;
        service.serialize_field("name", &self.name)?;
        service.serialize_field("vip", &self.vip)?;
        service.serialize_field("ports", &self.ports)?;
        service.serialize_field("mode", self.mode.as_str())?;
        service.serialize_field("proxy_protocol", &proxy_protocol)?;
        service.serialize_field("affinity", if self.affinity.is_some() { "client_ip" } else { "none" })?;
        let timeout = Span(self.affinity.unwrap_or(DEFAULT_AFFINITY_TIMEOUT));
        service.serialize_field("affinity_timeout", &timeout.to_string())?;
        service.serialize_field("source_ranges", &self.source_ranges)?;
        service.serialize_field("no_backend", &self.no_backend)?;
        service.serialize_field("backends", &self.backends)?;
        service.end()
    }
}

/// `affinity_timeout` where the file has none.
const DEFAULT_AFFINITY_TIMEOUT: Duration = Duration::from_secs(3 * 3600);
