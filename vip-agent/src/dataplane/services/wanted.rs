//! What the steering tables are to say, and how it stands in them.

use std::net::IpAddr;

use ipnet::IpNet;
use vip_common::steering::maglev::RingSize;
use vip_common::steering::tables::{
    Backend, Closed, Mode, Service, ServiceKey, ServicePort, backend_flags, service_flags,
};

use super::slots::BackendSlot;
use crate::config::PortRange;
use crate::types::MacAddr;

/// The size of all rings.
pub(super) const RING: RingSize = RingSize::DEFAULT;

/// A service. Its name is its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Unique.
    pub name: String,
    /// Its VIP.
    pub vip: IpAddr,
    /// Its ports, none of which another service of the VIP has.
    pub ports: Vec<PortRange>,
    /// How packets get to its backends.
    pub mode: Mode,
    /// Seconds for which a client keeps its backend after its last new flow; 0 = it does not.
    pub affinity: u32,
    /// What becomes of packets while no backend is up.
    pub no_backend: Closed,
    /// Who is served; empty = everybody.
    pub source_ranges: Vec<IpNet>,
    /// Each address once; none in mode `local`.
    pub backends: Vec<WantedBackend>,
}

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedBackend {
    /// Where it is, or the end of its tunnel.
    pub address: IpAddr,
    /// Share of new flows; 0 = none, it keeps those that it has.
    pub weight: u16,
    /// How it is reached; `None`: nothing may go to it now.
    pub way: Option<Way>,
}

/// How a backend is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Up the stack: it is on this node.
    Here,
    /// By a next hop.
    Via {
        /// The interface (a VLAN counts as itself).
        ifindex: u32,
        /// The next hop's MAC.
        mac: MacAddr,
        /// The interface's.
        own: MacAddr,
        /// Largest IP packet that gets there in one piece.
        mtu: u16,
        /// The address by which this node sends there: its end of a tunnel.
        source: Option<IpAddr>,
    },
}

/// An address in 16 bytes: an IPv4 one in the first four.
pub(super) fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The address in a table.
pub(super) fn address(bytes: [u8; 16], family: u8) -> IpAddr {
    match (family, bytes) {
        (4, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(bytes),
    }
}

/// By which rings tell backends apart.
pub(super) fn identity(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

pub(super) const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

impl Wanted {
    /// `full_nat`: whether packets may go to backends on other nodes.
    pub(super) fn value(&self, full_nat: bool) -> Service {
        let ranges = if self.source_ranges.is_empty() { 0 } else { service_flags::SOURCE_RANGES };
        let full_nat = if full_nat { service_flags::FULL_NAT } else { 0 };
        Service {
            ring_size: RING.get(),
            affinity: self.affinity,
            mode: self.mode as u8,
            no_backend: self.no_backend as u8,
            flags: ranges | full_nat,
            reserved: [0; 5],
        }
    }
}

/// The entries of `SERVICE_PORTS` for these ports of a service.
pub(super) fn ports(
    vip: IpAddr,
    ranges: &[PortRange],
    service: u16,
) -> impl Iterator<Item = (ServiceKey, ServicePort)> + '_ {
    ranges.iter().flat_map(move |range| {
        range.numbers().map(move |port| {
            let key = ServiceKey {
                vip: bytes(vip),
                port: port.to_be_bytes(),
                protocol: range.transport().number(),
                family: family(vip),
            };
            (key, ServicePort { service, shift: range.shift() })
        })
    })
}

impl WantedBackend {
    /// One that is not wanted any more: it keeps its flows as long as there is a way to it.
    pub(super) const fn leaving(address: IpAddr, way: Option<Way>) -> Self {
        Self { address, weight: 0, way }
    }

    pub(super) fn value(&self, slot: BackendSlot, service: u16) -> Backend {
        let up = if self.way.is_some() { backend_flags::UP } else { 0 };
        let draining = if self.weight == 0 { backend_flags::DRAINING } else { 0 };
        let here = if self.way == Some(Way::Here) { backend_flags::LOCAL } else { 0 };
        let mut value = Backend {
            address: bytes(self.address),
            generation: slot.generation,
            service,
            flags: up | draining | here,
            family: family(self.address),
            ..gone(slot)
        };
        if let Some(Way::Via { ifindex, mac, own, mtu, source }) = self.way {
            value.ifindex = ifindex;
            value.mac = mac.0;
            value.own = own.0;
            value.mtu = mtu;
            value.source = source.map(bytes).unwrap_or_default();
        }
        value
    }
}

/// What stands in a slot that nobody has any more.
pub(super) const fn gone(slot: BackendSlot) -> Backend {
    Backend {
        address: [0; 16],
        source: [0; 16],
        ifindex: 0,
        mac: [0; 6],
        own: [0; 6],
        mtu: 0,
        generation: slot.generation,
        service: 0,
        flags: 0,
        family: 0,
        source_bits: 0,
        reserved: [0; 7],
    }
}
