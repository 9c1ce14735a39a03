//! Whether a backend can be served by its mode, and how it is reached: from what is known of routes and links. Pure.

use std::net::IpAddr;

use crate::config::ServiceMode;
use crate::dataplane::services::Way;
use crate::net::links::{LinkState, LinkTable};
use crate::net::next_hops::{NextHop, Unreached};
use crate::net::sysctl::{Setting, Sysctl};

/// The interface that carries a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Carrier {
    pub(super) ifindex: u32,
    /// The setting that keeps it from forwarding packets of the VIP's family; `None`: it forwards, or nobody needs that.
    pub(super) closed: Option<Setting>,
}

/// The way to a backend, or why it is out.
///
/// `carrier`: the interface that carries the VIP, if it has one now.
pub(super) fn way(
    mode: ServiceMode,
    carrier: Option<Carrier>,
    hop: Option<&Result<NextHop, Unreached>>,
    links: &LinkTable,
) -> Result<Way, String> {
    let (ifindex, mac, router, source, mtu) = match hop.unwrap_or(&Err(Unreached::Unknown)) {
        Err(unreached) => return Err(unreached.to_string()),
        Ok(NextHop::Here) => return Ok(Way::Here),
        Ok(NextHop::Via { ifindex, mac, router, source, mtu }) => (*ifindex, *mac, *router, *source, *mtu),
    };
    let carrier = carrier.ok_or("the VIP has no interface now")?;
    let link = links.get(ifindex).ok_or("its interface is gone")?;
    if !link.is_operational() {
        return Err(format!("{} is down", link.name));
    }
    let name = |ifindex| links.get(ifindex).map_or_else(|| "another".to_owned(), |link| link.name.clone());
    match mode {
        ServiceMode::Nat if is_of_this_node(link, carrier.ifindex, router) => return Ok(Way::Here),
        ServiceMode::Direct => {
            if let Some(router) = router {
                return Err(format!("is behind the router {router}: mode dr needs it on the VIP's network"));
            }
        }
        ServiceMode::Nat | ServiceMode::Tunnel | ServiceMode::Local | ServiceMode::Proxy(_) => {}
    }
    if ifindex != carrier.ifindex {
        return Err(format!(
            "is reached by {}, and not by {}, which carries the VIP",
            link.name,
            name(carrier.ifindex)
        ));
    }
    if !link.ethernet {
        return Err(format!("{} is no Ethernet interface", link.name));
    }
    let full_nat = matches!(mode, ServiceMode::Nat);
    if full_nat && let Some(setting) = carrier.closed {
        // The kernel is asked for the way back to clients as if it forwarded their packets.
        return Err(format!(
            "is on another node, and {0} does not forward: `sysctl -w {1}=1` lets the way back to clients be found",
            link.name,
            Sysctl::new(&link.name, setting)
        ));
    }
    // Its answers are to come back to the VIP's owner: our address in what goes there is the VIP.
    let source = source.filter(|_| !full_nat);
    let mtu = mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
    Ok(Way::Via { ifindex, mac, own: link.mac, mtu: u16::try_from(mtu).unwrap_or(u16::MAX), source })
}

/// A pod or a container: behind a veth or a bridge other than what carries the VIP, without a router. What the kernel
/// forwards there comes back through this node.
fn is_of_this_node(link: &LinkState, carrier: u32, router: Option<IpAddr>) -> bool {
    let of_containers =
        matches!(link.kind.as_deref(), Some("veth" | "bridge" | "dummy" | "ipvlan" | "macvlan"));
    link.ifindex != carrier && router.is_none() && of_containers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MacAddr;

    const CARRIER: u32 = 2;
    const FORWARDING: Carrier = Carrier { ifindex: CARRIER, closed: None };
    const POD: u32 = 7;
    const OTHER: u32 = 3;

    fn links() -> LinkTable {
        let link = |ifindex, name: &str, kind: Option<&str>| LinkState {
            ifindex,
            name: name.to_owned(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            ethernet: true,
            loopback: false,
            up: true,
            carrier: true,
            mtu: 1500,
            kind: kind.map(str::to_owned),
            parent: None,
            only_its_mac: false,
            vlan: None,
            master: None,
            addresses: Vec::new(),
        };
        let down = LinkState { carrier: false, ..link(9, "eth9", None) };
        LinkTable::of([
            link(CARRIER, "eth0", None),
            link(OTHER, "eth1", None),
            link(POD, "veth1", Some("veth")),
            down,
        ])
    }

    fn hop(ifindex: u32, router: Option<&str>) -> Result<NextHop, Unreached> {
        let router = router.map(|router| router.parse().unwrap());
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        Ok(NextHop::Via { ifindex, mac, router, source: None, mtu: Some(1400) })
    }

    fn judged(mode: ServiceMode, hop: Result<NextHop, Unreached>) -> Result<Way, String> {
        way(mode, Some(FORWARDING), Some(&hop), &links())
    }

    #[test]
    fn a_neighbour_on_the_vips_network_is_reached_by_its_mac() {
        let (mac, own) = (MacAddr([2, 0, 0, 0, 0, 9]), MacAddr([2, 0, 0, 0, 0, 1]));
        let expected = Way::Via { ifindex: CARRIER, mac, own, mtu: 1400, source: None };
        assert_eq!(judged(ServiceMode::Direct, hop(CARRIER, None)), Ok(expected));
        assert_eq!(judged(ServiceMode::Tunnel, hop(CARRIER, Some("10.0.0.254"))), Ok(expected));
    }

    #[test]
    fn what_a_mode_cannot_reach_is_out_and_said() {
        for (mode, hop, why) in [
            (
                ServiceMode::Direct,
                hop(CARRIER, Some("10.0.0.254")),
                "is behind the router 10.0.0.254: mode dr needs it on the VIP's network",
            ),
            (
                ServiceMode::Direct,
                hop(OTHER, None),
                "is reached by eth1, and not by eth0, which carries the VIP",
            ),
            (ServiceMode::Tunnel, hop(9, None), "eth9 is down"),
            (ServiceMode::Tunnel, hop(99, None), "its interface is gone"),
            (
                ServiceMode::Nat,
                hop(OTHER, None),
                "is reached by eth1, and not by eth0, which carries the VIP",
            ),
            (ServiceMode::Nat, Err(Unreached::NoRoute), "there is no route to it"),
        ] {
            assert_eq!(judged(mode, hop), Err(why.to_owned()));
        }
        assert_eq!(
            way(ServiceMode::Direct, None, Some(&hop(CARRIER, None)), &links()),
            Err("the VIP has no interface now".into())
        );
        assert_eq!(
            way(ServiceMode::Direct, Some(FORWARDING), None, &links()),
            Err("its route is not known yet".into())
        );
    }

    #[test]
    fn nat_reaches_other_nodes_from_the_vip_where_the_interface_forwards() {
        let (mac, own) = (MacAddr([2, 0, 0, 0, 0, 9]), MacAddr([2, 0, 0, 0, 0, 1]));
        let source = Some("10.0.0.1".parse().unwrap());
        let by = |router: Option<&str>| match hop(CARRIER, router) {
            Ok(NextHop::Via { ifindex, mac, router, mtu, .. }) => {
                Ok(NextHop::Via { ifindex, mac, router, source, mtu })
            }
            other => other,
        };
        let expected = Way::Via { ifindex: CARRIER, mac, own, mtu: 1400, source: None };
        assert_eq!(judged(ServiceMode::Nat, by(None)), Ok(expected));
        assert_eq!(judged(ServiceMode::Nat, by(Some("10.0.0.254"))), Ok(expected));
        let closed = |setting| Carrier { closed: Some(setting), ..FORWARDING };
        for (setting, sysctl) in [
            (Setting::Ipv4Forwarding, "net.ipv4.conf.eth0.forwarding"),
            (Setting::Ipv6Forwarding, "net.ipv6.conf.eth0.forwarding"),
        ] {
            let refused = way(ServiceMode::Nat, Some(closed(setting)), Some(&by(None)), &links());
            assert!(refused.is_err_and(|why| why.contains(&format!("`sysctl -w {sysctl}=1`"))));
            // Nobody else needs it.
            let others = way(ServiceMode::Direct, Some(closed(setting)), Some(&by(None)), &links());
            assert!(others.is_ok());
        }
    }

    #[test]
    fn this_node_and_its_pods_are_here() {
        for mode in [ServiceMode::Direct, ServiceMode::Nat, ServiceMode::Tunnel] {
            assert_eq!(judged(mode, Ok(NextHop::Here)), Ok(Way::Here));
        }
        assert_eq!(judged(ServiceMode::Nat, hop(POD, None)), Ok(Way::Here));
    }
}
