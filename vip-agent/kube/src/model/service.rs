//! A service as a configuration file has it: what the agent reads, by its own checks.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use vip_kube_protocol::Backend;

/// An entry of `services`. What is not said here is the agent's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// 1-63 of `A-Z a-z 0-9 . _ -`; the same as long as the object has the VIP.
    pub name: String,
    /// A VIP of a router of this node.
    pub vip: IpAddr,
    /// At least one.
    pub ports: Vec<ServicePort>,
    /// How packets get to backends.
    pub mode: Mode,
    /// In mode `proxy`: how backends are told who the client is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whether a client keeps its backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// For how long: `10800s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_timeout: Option<String>,
    /// Who is served; empty = everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<IpNet>,
    /// Each address once, sorted.
    pub backends: Vec<Backend>,
}

/// An entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServicePort {
    /// As clients see it.
    pub port: u16,
    /// Where backends have it, if elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<u16>,
    /// Whose port it is.
    pub protocol: Protocol,
}

/// `protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each says itself")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// By the API's word.
    pub(super) fn of(word: &str) -> Option<Self> {
        match word {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Up this node's stack.
    Local,
    /// To the endpoint's MAC.
    Dr,
    /// To the endpoint's address and port.
    Nat,
    /// In a tunnel to the endpoint.
    Tunnel,
    /// By connections of this node's own.
    Proxy,
}

impl Mode {
    /// By its word in the annotation.
    pub(super) fn of(word: &str) -> Option<Self> {
        match word {
            "local" => Some(Self::Local),
            "dr" => Some(Self::Dr),
            "nat" => Some(Self::Nat),
            "tunnel" => Some(Self::Tunnel),
            "proxy" => Some(Self::Proxy),
            _ => None,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Dr => "dr",
            Self::Nat => "nat",
            Self::Tunnel => "tunnel",
            Self::Proxy => "proxy",
        }
    }

    /// Whether an endpoint may be asked at another port than the client did.
    pub(super) const fn maps_ports(self, protocol: Protocol) -> bool {
        match self {
            // The checksum of SCTP covers the whole packet.
            Self::Nat => !matches!(protocol, Protocol::Sctp),
            Self::Local | Self::Proxy => true,
            Self::Dr | Self::Tunnel => false,
        }
    }
}

/// `proxy_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// `affinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// By the client's address.
    ClientIp,
}
