//! What netlink says of links, addresses and routes, as our types.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage, MacVlanMode,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{LinkAddress, LinkState, VlanLink};
use crate::types::MacAddr;

pub(super) fn list_links() -> RouteNetlinkMessage {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(request)
}

pub(super) fn get_link(ifindex: u32) -> RouteNetlinkMessage {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(request)
}

pub(super) fn list_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

pub(super) fn list_routes(family: AddressFamily) -> RouteNetlinkMessage {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.table = RouteHeader::RT_TABLE_MAIN;
    RouteNetlinkMessage::GetRoute(request)
}

/// A bridge speaks of its ports with the same messages; "port gone" must not be read as "link gone".
pub(super) fn is_bridge_port(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Bridge
}

/// A link without its addresses, which come in messages of their own.
pub(super) fn link(message: LinkMessage) -> LinkState {
    let flags = message.header.flags;
    let mut link = LinkState {
        ifindex: message.header.index,
        name: String::new(),
        mac: MacAddr::default(),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        loopback: flags.contains(LinkFlags::Loopback),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        kind: None,
        parent: None,
        only_its_mac: false,
        vlan: None,
        master: None,
        addresses: Vec::new(),
    };
    let (mut lower, mut lower_is_elsewhere, mut vlan_id) = (None, false, None);
    let mut shares_parent = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().map(MacAddr).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(0) => {}
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Link(ifindex) => lower = Some(ifindex),
            LinkAttribute::LinkNetNsId(_) => lower_is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => {
                            link.only_its_mac |= kind == InfoKind::IpVlan;
                            shares_parent =
                                matches!(kind, InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan);
                            link.kind = Some(kind.to_string());
                        }
                        LinkInfo::Data(InfoData::Vlan(data)) => vlan_id = id_of(&data),
                        LinkInfo::Data(InfoData::MacVlan(data)) => link.only_its_mac = !takes_all(&data),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let lower = lower.filter(|_| !lower_is_elsewhere);
    link.vlan = vlan_id.map(|id| VlanLink { parent: lower, id });
    link.parent = lower.filter(|_| shares_parent);
    link
}

fn id_of(data: &[InfoVlan]) -> Option<u16> {
    data.iter().find_map(|info| match info {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

/// A macvlan that has its parent to itself.
fn takes_all(data: &[InfoMacVlan]) -> bool {
    data.contains(&InfoMacVlan::Mode(MacVlanMode::Passthrough))
}

/// Promiscuity of the interface that a message describes: how many want it so.
pub(super) fn promiscuity(message: &RouteNetlinkMessage) -> u32 {
    let RouteNetlinkMessage::NewLink(link) = message else { return 0 };
    let count = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Promiscuity(count) => Some(*count),
        _ => None,
    });
    count.unwrap_or_default()
}

/// An address; `None` for what has none of the two families.
pub(crate) fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut address, mut valid_lifetime, mut protocol) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::CacheInfo(info) => {
                valid_lifetime = Some(info.ifa_valid).filter(|&seconds| seconds != u32::MAX);
            }
            AddressAttribute::Protocol(maker) => protocol = (*maker).into(),
            _ => {}
        }
    }
    // IFA_ADDRESS is the other end of a point-to-point link; IFA_LOCAL is ours and absent where they are one.
    let ip = local.or(address)?;
    Some(LinkAddress {
        net: IpNet::new(ip, message.header.prefix_len).ok()?,
        peer: address.filter(|&peer| peer != ip),
        secondary: ip.is_ipv4() && flags.contains(AddressFlags::Secondary),
        tentative: flags.contains(AddressFlags::Tentative),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
        deprecated: flags.contains(AddressFlags::Deprecated),
        valid_lifetime,
        protocol,
    })
}

/// Which way to an address, from any source.
pub(super) fn get_route(to: Ipv4Addr) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 32;
    route.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to)));
    RouteNetlinkMessage::GetRoute(route)
}

/// The interface of the route that a message describes.
pub(super) fn interface_of(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}

/// One interface that a default route leaves by.
pub(super) struct DefaultHop {
    pub(super) ifindex: u32,
    pub(super) metric: u32,
}

/// The interfaces of a default route of the main table; none where `message` is anything else.
pub(super) fn default_route(message: &RouteNetlinkMessage) -> Vec<DefaultHop> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return Vec::new() };
    if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let mut table = u32::from(route.header.table);
    let (mut metric, mut interfaces) = (0, Vec::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(ifindex) => interfaces.push(*ifindex),
            RouteAttribute::MultiPath(hops) => interfaces.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return Vec::new();
    }
    interfaces.into_iter().map(|ifindex| DefaultHop { ifindex, metric }).collect()
}
