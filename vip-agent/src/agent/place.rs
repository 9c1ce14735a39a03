//! Where an instance can live: its configuration against the links that exist. Pure.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::{self, InterfaceSelector, LinkView, ResolveError};
use crate::net::links::{AttachError, AttachPoint, DefaultRoutes, LinkState, LinkTable};
use crate::types::{Family, MacAddr};
use crate::vrrp::codec;
use crate::vrrp::socket::Interface;
use crate::vrrp::trailer;

/// All that an instance takes from its interfaces. When any of it changes, sockets and frames are made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where advertisements go.
    pub(crate) advert: Interface,
    /// Its MAC.
    pub(crate) advert_mac: MacAddr,
    /// Source of the advertisements, for each family of the VIPs: IPv4 first.
    pub(crate) sources: Vec<IpAddr>,
    /// Where VIPs are answered.
    pub(crate) vip: Interface,
    /// The MAC of `vip`: it answers, unless a virtual one does.
    pub(crate) mac: MacAddr,
    /// Where rivals for IPv6 VIPs are asked from.
    pub(crate) link_local: Option<Ipv6Addr>,
    /// An interface below that sees the same questions, which XDP does not keep from it: the parent of a macvlan.
    pub(crate) below: Option<Interface>,
    /// Where XDP sits to see the frames of `vip`.
    pub(crate) attach: Interface,
    /// The tags between the two.
    pub(crate) tags: AttachPoint,
}

impl Place {
    /// The interfaces whose kernel side must not answer ARP for VIPs on lo.
    pub(crate) fn to_silence(&self) -> impl Iterator<Item = &str> {
        [Some(&self.vip), self.below.as_ref()].into_iter().flatten().map(|interface| &*interface.name)
    }

    /// The virtual MACs that answer for the instance's VIPs; none, if the interface's own does.
    pub(crate) fn virtual_macs(&self, instance: &config::Instance) -> Vec<MacAddr> {
        let families = self.sources.iter().map(|source| Family::of(*source)).filter(|_| instance.virtual_mac);
        families.map(|family| MacAddr::of_virtual_router(instance.virtual_router_id, family)).collect()
    }
}

/// Why an instance has no place now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misplaced {
    /// No interface, or several.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    /// XDP cannot see its frames.
    #[error("{0}")]
    Unattachable(String),
    /// ARP, neighbour discovery and VRRP need Ethernet.
    #[error("{0} is no Ethernet interface")]
    NotEthernet(String),
    /// Administratively down.
    #[error("{0} is down: `ip link set {0} up`")]
    Down(String),
    /// No cable, or the other end is down.
    #[error("{0} has no carrier: check the cable or the switch port")]
    NoCarrier(String),
    /// Nothing to send from.
    #[error("{interface} has no {what}: advertisements need it as their source")]
    NoSource {
        /// The interface.
        interface: String,
        /// What it lacks.
        what: &'static str,
    },
    /// An advertisement is one packet.
    #[error(
        "{count} {family} VIPs do not fit an advertisement on {interface}, whose MTU has room for {room}: use several instances"
    )]
    TooManyVips {
        /// How many there are.
        count: usize,
        /// Of which family.
        family: Family,
        /// The interface.
        interface: String,
        /// How many there may be.
        room: usize,
    },
    /// Frames to a virtual MAC go to its parent.
    #[error(
        "{interface} is of kind {kind} and takes frames to its own MAC only, so `virtual_mac: true` cannot work on it: use its \
         parent, or a macvlan of mode passthru"
    )]
    OnlyItsMac {
        /// The interface.
        interface: String,
        /// The driver's name for its kind.
        kind: String,
    },
    /// A unicast source that is not ours.
    #[error("unicast.source {address} is no address of {interface}, which has {present}")]
    ForeignSource {
        /// As configured.
        address: IpAddr,
        /// The interface.
        interface: String,
        /// What it has instead.
        present: String,
    },
}

impl Misplaced {
    /// Whether an administrator has to change the configuration or the host; other faults pass by themselves.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Unresolved(_)
                | Self::Unattachable(_)
                | Self::NotEthernet(_)
                | Self::TooManyVips { .. }
                | Self::OnlyItsMac { .. }
                | Self::ForeignSource { .. }
        )
    }
}

/// Finds an instance's place.
pub(crate) fn place(
    instance: &config::Instance,
    links: &LinkTable,
    routes: &DefaultRoutes,
) -> Result<Place, Misplaced> {
    let advert = choose(&instance.interface, instance, links, routes)?;
    let vip = choose(&instance.vip_interface, instance, links, routes)?;
    let tags = links
        .attach_point(vip.ifindex)
        .map_err(|error: AttachError| Misplaced::Unattachable(error.to_string()))?;
    let parent = links.get(tags.ifindex).unwrap_or(vip);
    if let Some(link) = [vip, parent].into_iter().find(|link| instance.virtual_mac && link.only_its_mac) {
        let kind = link.kind.clone().unwrap_or_default();
        return Err(Misplaced::OnlyItsMac { interface: link.name.clone(), kind });
    }
    for link in [advert, vip, parent] {
        passable(link)?;
    }
    let sources = sources(instance, advert)?;
    Ok(Place {
        advert: interface(advert),
        advert_mac: advert.mac,
        sources,
        vip: interface(vip),
        mac: vip.mac,
        link_local: vip.link_local(),
        below: vip.parent.and_then(|parent| links.get(parent)).map(interface),
        attach: interface(parent),
        tags,
    })
}

/// VIPs that lie in no subnet of the interface: legal, but hosts ask their router for them instead of ARP.
pub(crate) fn off_subnet<'a>(
    instance: &'a config::Instance,
    place: &Place,
    links: &LinkTable,
) -> impl Iterator<Item = IpAddr> + use<'a> {
    let link = links.get(place.vip.index).cloned();
    instance.vips.iter().map(|vip| vip.address).filter(move |&vip| {
        let link_local = matches!(vip, IpAddr::V6(vip) if vip.is_unicast_link_local());
        !link_local && link.as_ref().is_some_and(|link| !link.is_on_link(vip))
    })
}

/// The interface that a selector means.
pub(crate) fn choose<'a>(
    selector: &InterfaceSelector,
    instance: &config::Instance,
    links: &'a LinkTable,
    routes: &DefaultRoutes,
) -> Result<&'a LinkState, Misplaced> {
    let candidates: Vec<&LinkState> = links.iter().filter(|link| !link.loopback).collect();
    let views: Vec<LinkView> = candidates
        .iter()
        .map(|link| LinkView {
            name: link.name.clone(),
            ifindex: link.ifindex,
            addresses: link.addresses.iter().map(|address| address.net).collect(),
            default_route: routes.v4.contains(&link.ifindex) || routes.v6.contains(&link.ifindex),
        })
        .collect();
    Ok(candidates[config::resolve(selector, &instance.vips, &views)?])
}

fn passable(link: &LinkState) -> Result<(), Misplaced> {
    if !link.ethernet {
        Err(Misplaced::NotEthernet(link.name.clone()))
    } else if !link.up {
        Err(Misplaced::Down(link.name.clone()))
    } else if !link.carrier {
        Err(Misplaced::NoCarrier(link.name.clone()))
    } else {
        Ok(())
    }
}

/// The source address for each family of the VIPs, IPv4 first.
fn sources(instance: &config::Instance, link: &LinkState) -> Result<Vec<IpAddr>, Misplaced> {
    let count = |family| instance.vips.iter().filter(|vip| Family::of(vip.address) == family).count();
    let families = [Family::V4, Family::V6].into_iter().filter(|&family| count(family) > 0);
    families
        .map(|family| {
            let trailer = if instance.auth_trailer.is_some() { trailer::LEN } else { 0 };
            let room = codec::capacity(
                instance.protocol.version(),
                family,
                usize::try_from(link.mtu).unwrap_or(usize::MAX).saturating_sub(trailer),
            );
            if count(family) > room {
                let interface = link.name.clone();
                return Err(Misplaced::TooManyVips { count: count(family), family, interface, room });
            }
            source(instance, link, family)
        })
        .collect()
}

fn source(instance: &config::Instance, link: &LinkState, family: Family) -> Result<IpAddr, Misplaced> {
    if let Some(unicast) = &instance.unicast {
        let configured = unicast.sources().find(|&source| Family::of(source) == family);
        // The configuration has one for each family of the VIPs.
        let Some(source) = configured else { return Err(no_source(link, "unicast source of this family")) };
        return if link.has_address(source) { Ok(source) } else { Err(foreign_source(link, source)) };
    }
    match family {
        Family::V4 => link.primary_ipv4().map(IpAddr::V4).ok_or_else(|| no_source(link, "IPv4 address")),
        Family::V6 => {
            let link_local: Option<Ipv6Addr> = link.link_local();
            link_local.map(IpAddr::V6).ok_or_else(|| no_source(link, "usable IPv6 link-local address"))
        }
    }
}

fn no_source(link: &LinkState, what: &'static str) -> Misplaced {
    Misplaced::NoSource { interface: link.name.clone(), what }
}

fn foreign_source(link: &LinkState, address: IpAddr) -> Misplaced {
    // An address that is still being checked for duplicates will be usable soon.
    if link.addresses.iter().any(|known| known.net.addr() == address) {
        return no_source(link, "unicast source past its duplicate address detection");
    }
    let present: Vec<String> = link.addresses.iter().map(|known| known.net.addr().to_string()).collect();
    let present = if present.is_empty() { "none".into() } else { present.join(", ") };
    Misplaced::ForeignSource { address, interface: link.name.clone(), present }
}

fn interface(link: &LinkState) -> Interface {
    Interface { index: link.ifindex, name: link.name.as_str().into() }
}
