//! The host's links with their addresses, as one snapshot, and the questions that the agent asks of it.
//!
//! By netlink alone: /sys/class/net may show another network namespace than the one that we are in.

mod decode;
mod watch;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{NetlinkError, Rtnetlink};
use crate::types::MacAddr;
pub(super) use decode::address as decode_address;
pub use watch::{LinkWatcher, WatchOptions};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its index: never reused for another interface while the system runs, so it tells a replaced one.
    pub ifindex: u32,
    /// Its name; it may change.
    pub name: String,
    /// Its Ethernet address; all zero on links that have none.
    pub mac: MacAddr,
    /// Whether it is Ethernet (ARPHRD_ETHER): ARP, neighbour discovery and VRRP as we speak them need that.
    pub ethernet: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Whether it has carrier (IFF_LOWER_UP; never so while it is administratively down).
    pub carrier: bool,
    /// Largest payload of a frame, in bytes.
    pub mtu: u32,
    /// The driver's name for its kind ("veth", "bond", "vlan"...); `None` on hardware.
    pub kind: Option<String>,
    /// Of a macvlan or ipvlan: index of the interface below, which sees broadcasts, too; `None` where that lies in another
    /// network namespace.
    pub parent: Option<u32>,
    /// Takes frames to its own MAC only, whatever its filter is told: a macvlan beside others on its parent, an ipvlan.
    pub only_its_mac: bool,
    /// Set on VLAN sub-interfaces.
    pub vlan: Option<VlanLink>,
    /// Index of the bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// Its addresses in the kernel's order, in which the first usable IPv4 one is the primary.
    pub addresses: Vec<LinkAddress>,
}

impl LinkState {
    /// Whether frames can pass: administratively up and with carrier.
    pub fn is_operational(&self) -> bool {
        self.up && self.carrier
    }

    /// The IPv4 address that adverts leave from: the first that is not secondary.
    pub fn primary_ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().filter(|address| address.is_usable() && !address.secondary).find_map(
            |address| match address.net.addr() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            },
        )
    }

    /// The IPv6 link-local address that adverts leave from (RFC 9568, 5.1.2.1): the first that passed duplicate
    /// address detection.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().filter(|address| address.is_usable()).find_map(|address| {
            match address.net.addr() {
                IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
                _ => None,
            }
        })
    }

    /// Whether `ip` is one of its usable addresses.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.is_usable() && address.net.addr() == ip)
    }

    /// Whether `ip` lies in a subnet of the interface, so that it is reached without a router.
    pub fn is_on_link(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.is_subnet() && address.net.contains(&ip))
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The local address with its prefix length.
    pub net: IpNet,
    /// The other end, where the address is of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// Another IPv4 address of the same subnet came first.
    pub secondary: bool,
    /// IPv6 duplicate address detection is under way: nothing may be sent from it (RFC 4862, 5.4).
    pub tentative: bool,
    /// Another node has the address: IPv6 duplicate address detection failed.
    pub dad_failed: bool,
    /// Not to be used for new connections; ours on lo are so.
    pub deprecated: bool,
    /// Seconds that the kernel keeps it from the time it was read; `None` = for ever.
    pub valid_lifetime: Option<u32>,
    /// Who made it (IFA_PROTO, Linux 5.18); 0 where nobody said.
    pub protocol: u8,
}

impl LinkAddress {
    /// Whether it can be sent from.
    pub fn is_usable(&self) -> bool {
        !self.tentative && !self.dad_failed
    }

    fn is_subnet(&self) -> bool {
        self.peer.is_none() && self.net.prefix_len() < self.net.max_prefix_len()
    }

    /// Remaining lifetimes count down: two readings of one address differ in nothing else.
    fn same_but_for_age(&self, other: &Self) -> bool {
        let timeless =
            |address: &Self| Self { valid_lifetime: address.valid_lifetime.map(|_| 0), ..address.clone() };
        timeless(self) == timeless(other)
    }
}

/// What makes an interface a VLAN sub-interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanLink {
    /// Index of the interface below; `None` where that lies in another network namespace.
    pub parent: Option<u32>,
    /// VLAN id, 0-4094.
    pub id: u16,
}

/// Where the XDP program has to sit to see an interface's frames, and the tags they carry there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachPoint {
    /// Index of the interface to attach to: the lowest one, itself no VLAN sub-interface.
    pub ifindex: u32,
    /// VLAN id of the outer tag, 0 where frames carry none.
    pub outer: u16,
    /// VLAN id of the inner tag, 0 where frames carry fewer than two.
    pub inner: u16,
}

/// Why an interface's frames cannot be seen by XDP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// No such index.
    #[error("interface {ifindex} does not exist")]
    Missing {
        /// The index in question.
        ifindex: u32,
    },
    /// XDP does not run on VLAN sub-interfaces, and what is below this one is out of reach.
    #[error(
        "VLAN interface {name} has its parent in another network namespace, where XDP would have to attach; use an \
         interface whose parent is here"
    )]
    ParentElsewhere {
        /// The VLAN interface.
        name: String,
    },
    /// A frame reader that takes at most two tags would not find the payload.
    #[error("interface {name} carries more than two VLAN tags; at most two are supported")]
    TooManyTags {
        /// The interface asked about.
        name: String,
    },
}

/// All links of the network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTable {
    links: BTreeMap<u32, LinkState>,
}

impl LinkTable {
    /// Reads links and addresses.
    ///
    /// # Errors
    /// Only what netlink itself fails with.
    pub async fn read(rtnetlink: &Rtnetlink) -> Result<Self, NetlinkError> {
        let links = rtnetlink.dump("list the links", decode::list_links()).await?;
        let addresses = rtnetlink.dump("list the addresses", decode::list_addresses()).await?;
        let mut table = Self::default();
        for entry in links.into_iter().chain(addresses) {
            table.apply(entry);
        }
        Ok(table)
    }

    /// These links, for tests of other modules.
    #[cfg(test)]
    pub(crate) fn of(links: impl IntoIterator<Item = LinkState>) -> Self {
        Self { links: links.into_iter().map(|link| (link.ifindex, link)).collect() }
    }

    /// All links by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = &LinkState> {
        self.links.values()
    }

    /// The link with this index.
    pub fn get(&self, ifindex: u32) -> Option<&LinkState> {
        self.links.get(&ifindex)
    }

    /// The link with this name.
    pub fn by_name(&self, name: &str) -> Option<&LinkState> {
        self.iter().find(|link| link.name == name)
    }

    /// The links, loopback aside, in one of whose subnets `vip` lies; those with the longest prefix come first.
    pub fn with_subnet_of(&self, vip: IpAddr) -> Vec<&LinkState> {
        let longest = |link: &LinkState| {
            let nets =
                link.addresses.iter().filter(|address| address.is_subnet() && address.net.contains(&vip));
            nets.map(|address| address.net.prefix_len()).max()
        };
        let mut links: Vec<_> = self
            .iter()
            .filter(|link| !link.loopback)
            .filter_map(|link| longest(link).map(|prefix| (prefix, link)))
            .collect();
        links.sort_by_key(|(prefix, _)| std::cmp::Reverse(*prefix));
        links.into_iter().map(|(_, link)| link).collect()
    }

    /// Every link that has `ip`, with the address as it stands there.
    pub fn holders(&self, ip: IpAddr) -> impl Iterator<Item = (&LinkState, &LinkAddress)> {
        self.iter().flat_map(move |link| {
            link.addresses.iter().filter(move |held| held.net.addr() == ip).map(move |held| (link, held))
        })
    }

    /// Where XDP must sit to see the frames of an interface.
    ///
    /// # Errors
    /// No such interface, a VLAN whose parent is out of reach, or more than two tags.
    pub fn attach_point(&self, ifindex: u32) -> Result<AttachPoint, AttachError> {
        let asked = self.get(ifindex).ok_or(AttachError::Missing { ifindex })?;
        let mut link = asked;
        let mut tags = [0; 2];
        let mut depth = 0;
        while let Some(vlan) = link.vlan {
            // Walking down meets the inner tag first: each one found moves those above it inwards.
            if depth == tags.len() {
                return Err(AttachError::TooManyTags { name: asked.name.clone() });
            }
            tags = [vlan.id, tags[0]];
            depth += 1;
            let elsewhere = || AttachError::ParentElsewhere { name: link.name.clone() };
            let parent = vlan.parent.ok_or_else(elsewhere)?;
            link = self.get(parent).ok_or(AttachError::Missing { ifindex: parent })?;
        }
        Ok(AttachPoint { ifindex: link.ifindex, outer: tags[0], inner: tags[1] })
    }

    /// Takes in what the kernel says of one link or address; whether anything is different now.
    fn apply(&mut self, message: RouteNetlinkMessage) -> bool {
        match message {
            RouteNetlinkMessage::NewLink(link) if decode::is_bridge_port(&link) => false,
            RouteNetlinkMessage::DelLink(link) if decode::is_bridge_port(&link) => false,
            RouteNetlinkMessage::NewLink(link) => self.put_link(decode::link(link)),
            RouteNetlinkMessage::DelLink(link) => self.links.remove(&link.header.index).is_some(),
            RouteNetlinkMessage::NewAddress(address) => {
                let ifindex = address.header.index;
                decode::address(&address).is_some_and(|address| self.put_address(ifindex, address))
            }
            RouteNetlinkMessage::DelAddress(address) => {
                let ifindex = address.header.index;
                decode::address(&address).is_some_and(|address| self.take_address(ifindex, &address))
            }
            _ => false,
        }
    }

    /// The links, but nothing of what stands on loopback interfaces.
    fn without_loopback_addresses(mut self) -> Self {
        self.links.values_mut().filter(|link| link.loopback).for_each(|link| link.addresses.clear());
        self
    }

    fn put_link(&mut self, mut link: LinkState) -> bool {
        let old = self.links.get_mut(&link.ifindex);
        link.addresses = old.as_ref().map(|old| old.addresses.clone()).unwrap_or_default();
        if old.as_deref() == Some(&link) {
            return false;
        }
        self.links.insert(link.ifindex, link);
        true
    }

    fn put_address(&mut self, ifindex: u32, address: LinkAddress) -> bool {
        let Some(link) = self.links.get_mut(&ifindex) else { return false };
        match link.addresses.iter_mut().find(|held| held.net == address.net && held.peer == address.peer) {
            Some(held) => {
                let same = held.same_but_for_age(&address);
                *held = address;
                !same
            }
            None => {
                link.addresses.push(address);
                true
            }
        }
    }

    fn take_address(&mut self, ifindex: u32, address: &LinkAddress) -> bool {
        let Some(link) = self.links.get_mut(&ifindex) else { return false };
        let before = link.addresses.len();
        link.addresses.retain(|held| held.net != address.net || held.peer != address.peer);
        link.addresses.len() != before
    }

    /// Whether frames pass less freely than in `before`: something that was operational is not any more.
    fn is_worse_than(&self, before: &Self) -> bool {
        let operational = |link: &&LinkState| link.is_operational();
        before
            .iter()
            .filter(operational)
            .any(|link| !self.get(link.ifindex).is_some_and(LinkState::is_operational))
    }
}

/// How many want an interface to be promiscuous; 0 = it is not.
///
/// # Errors
/// Only what netlink itself fails with; the interface is gone.
pub async fn promiscuity(rtnetlink: &Rtnetlink, ifindex: u32) -> Result<u32, NetlinkError> {
    let answer = rtnetlink.get("look at a link", decode::get_link(ifindex)).await?;
    Ok(answer.as_ref().map_or(0, decode::promiscuity))
}

/// The interface by which this host sends to an address; `None` = there is no route.
///
/// # Errors
/// Only what netlink itself fails with.
pub async fn route_to(rtnetlink: &Rtnetlink, to: Ipv4Addr) -> Result<Option<u32>, NetlinkError> {
    match rtnetlink.get("look up a route", decode::get_route(to)).await {
        Err(error) if error.is_unreachable() => Ok(None),
        answer => Ok(answer?.as_ref().and_then(decode::interface_of)),
    }
}

/// The interfaces that carry a default route of the main table, by family; the preferred one (lowest metric) first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoutes {
    /// Indices of interfaces with an IPv4 default route.
    pub v4: Vec<u32>,
    /// Indices of interfaces with an IPv6 default route.
    pub v6: Vec<u32>,
}

impl DefaultRoutes {
    /// Reads the routing table.
    ///
    /// # Errors
    /// Only what netlink itself fails with.
    pub async fn read(rtnetlink: &Rtnetlink) -> Result<Self, NetlinkError> {
        let mut routes = Self::default();
        for (family, interfaces) in
            [(AddressFamily::Inet, &mut routes.v4), (AddressFamily::Inet6, &mut routes.v6)]
        {
            let entries = match rtnetlink.dump("list the routes", decode::list_routes(family)).await {
                // A namespace that never had a route has no table.
                Err(error) if error.is_not_found() => Vec::new(),
                entries => entries?,
            };
            let mut hops: Vec<_> = entries.iter().flat_map(decode::default_route).collect();
            hops.sort_by_key(|hop| hop.metric);
            for hop in hops {
                if !interfaces.contains(&hop.ifindex) {
                    interfaces.push(hop.ifindex);
                }
            }
        }
        Ok(routes)
    }
}

#[cfg(test)]
#[path = "links/tests.rs"]
mod tests;
