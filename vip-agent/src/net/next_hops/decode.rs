//! What netlink says of routes and neighbours, as our types.

use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Route;
use crate::types::MacAddr;

/// RT_TABLE_LOCAL (linux/rtnetlink.h).
const LOCAL_TABLE: u8 = 255;

/// Which way to an address.
pub(super) fn get_route(to: IpAddr) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    let (family, length, to) = match to {
        IpAddr::V4(to) => (AddressFamily::Inet, 32, RouteAddress::Inet(to)),
        IpAddr::V6(to) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(to)),
    };
    route.header.address_family = family;
    route.header.destination_prefix_length = length;
    route.attributes.push(RouteAttribute::Destination(to));
    RouteNetlinkMessage::GetRoute(route)
}

/// All neighbours of a family.
pub(super) fn list_neighbors(family: AddressFamily) -> RouteNetlinkMessage {
    let mut request = NeighbourMessage::default();
    request.header.family = family;
    RouteNetlinkMessage::GetNeighbour(request)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The way that an answer describes; `None` if it leads nowhere.
pub(super) fn route(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    match route.header.kind {
        RouteType::Local => return Some(Route::Here),
        RouteType::Unicast => {}
        _ => return None,
    }
    let (mut interface, mut router, mut source, mut mtu) = (None, None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => interface = Some(*ifindex),
            RouteAttribute::Gateway(address) => router = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => router = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => router = Some((*address).into()),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Route::Via { ifindex: interface?, router, source, mtu })
}

/// Whether a change of the tables is that of one local address alone, and of which: VIPs come and go on lo by the thousand.
pub(super) fn of_local_address(message: &RouteMessage) -> Option<IpAddr> {
    let local = message.header.kind == RouteType::Local && message.header.table == LOCAL_TABLE;
    let host = matches!(
        (message.header.address_family, message.header.destination_prefix_length),
        (AddressFamily::Inet, 32) | (AddressFamily::Inet6, 128)
    );
    message.attributes.iter().filter(|_| local && host).find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })
}

/// Whose entry it is, and the MAC if it has one that is in use or could be.
pub(super) fn neighbor(message: &NeighbourMessage) -> Option<((u32, IpAddr), Option<MacAddr>)> {
    if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        // A bridge speaks of the stations behind its ports with the same messages.
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr);
            }
            _ => {}
        }
    }
    let unknown = matches!(
        message.header.state,
        NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::Noarp
    );
    Some(((message.header.ifindex, address?), mac.filter(|_| !unknown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteNetlinkMessage {
        let mut route = RouteMessage::default();
        route.header.kind = kind;
        route.attributes = attributes;
        RouteNetlinkMessage::NewRoute(route)
    }

    #[test]
    fn a_route_leads_here_to_a_neighbour_or_nowhere() {
        let router = "10.0.0.254".parse().unwrap();
        let attributes = vec![
            RouteAttribute::Oif(3),
            RouteAttribute::Gateway(RouteAddress::Inet(router)),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]),
        ];
        assert_eq!(route(&answer(RouteType::Local, attributes.clone())), Some(Route::Here));
        assert_eq!(route(&answer(RouteType::BlackHole, attributes.clone())), None);
        let via = Route::Via { ifindex: 3, router: Some(router.into()), source: None, mtu: Some(1400) };
        assert_eq!(route(&answer(RouteType::Unicast, attributes)), Some(via));
        assert_eq!(route(&answer(RouteType::Unicast, Vec::new())), None);
    }

    #[test]
    fn a_neighbour_without_a_usable_mac_has_none() {
        let entry = |state| {
            let mut message = NeighbourMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.ifindex = 3;
            message.header.state = state;
            message.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet("10.0.0.7".parse().unwrap())),
                NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 7]),
            ];
            neighbor(&message)
        };
        let (key, mac) = ((3, "10.0.0.7".parse().unwrap()), MacAddr([2, 0, 0, 0, 0, 7]));
        for state in [
            NeighbourState::Reachable,
            NeighbourState::Stale,
            NeighbourState::Probe,
            NeighbourState::Permanent,
        ] {
            assert_eq!(entry(state), Some((key, Some(mac))));
        }
        for state in [NeighbourState::Failed, NeighbourState::Incomplete] {
            assert_eq!(entry(state), Some((key, None)));
        }
    }
}
