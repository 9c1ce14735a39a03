//! Judges where an instance would live: its interfaces, its VIPs on this node, its sockets. Pure.

use std::net::IpAddr;

use super::report::{Check, Finding};
use crate::agent::place::{Misplaced, Place};
use crate::config;
use crate::net::links::LinkTable;
use crate::types::Priority;

/// The name of an instance in findings.
pub(super) fn subject(instance: &config::Instance) -> String {
    format!("instance {}", instance.name)
}

/// Whether it has a place; `off_subnet`: those of its VIPs that lie in no subnet of the interface.
pub(super) fn interface(
    instance: &config::Instance,
    place: &Result<Place, Misplaced>,
    off_subnet: &[IpAddr],
) -> Finding {
    let subject = subject(instance);
    let place = match place {
        Ok(place) => place,
        Err(misplaced) => {
            return Finding::error(Check::Interface, subject, misplaced.to_string(), remedy(misplaced));
        }
    };
    if let Some(vip) = off_subnet.first() {
        let (count, interface) = (off_subnet.len(), &place.vip);
        return Finding::warning(
            Check::Interface,
            subject,
            format!(
                "{vip} lies in no subnet of {interface} ({count} such VIPs): only hosts with a route to it ask for it there"
            ),
            format!(
                "set `vip_interface` to the interface of its subnet, or see that hosts have that route by {interface}"
            ),
        );
    }
    let sources: Vec<String> = place.sources.iter().map(IpAddr::to_string).collect();
    let found = format!("adverts by {} from {}; VIPs on {}", place.advert, sources.join(" and "), place.vip);
    Finding::ok(Check::Interface, subject, found)
}

fn remedy(misplaced: &Misplaced) -> String {
    match misplaced {
        Misplaced::Unresolved(_) => "name an interface that exists: `ip -br address` lists them".to_owned(),
        Misplaced::Unattachable(_) => "use an interface whose frames XDP can see".to_owned(),
        Misplaced::NotEthernet(_) => {
            "use an Ethernet interface: ARP and neighbour discovery need one".to_owned()
        }
        Misplaced::Down(name) => format!("`ip link set {name} up`"),
        Misplaced::NoCarrier(_) => "check the cable, the switch port, or the other end".to_owned(),
        Misplaced::NoSource { interface, what } => {
            format!("give {interface} an address: `ip address add ... dev {interface}` (there is no {what})")
        }
        Misplaced::TooManyVips { .. } => "spread the VIPs over several instances".to_owned(),
        Misplaced::OnlyItsMac { .. } => "set `virtual_mac: false`, or use the parent interface".to_owned(),
        Misplaced::ForeignSource { interface, .. } => {
            format!("set `unicast.source` to an address of {interface}")
        }
    }
}

/// VIPs that an administrator, or a killed keepalived, has put on an interface of this node. The address owner has them
/// there by definition (RFC 9568, 1.7); on lo they are ours.
pub(super) fn vip_here(instance: &config::Instance, links: &LinkTable) -> Finding {
    let subject = subject(instance);
    let held = instance.vips.iter().find_map(|vip| {
        let holder = links.holders(vip.address).map(|(link, _)| link).find(|link| !link.loopback)?;
        Some((vip.address, holder.name.as_str()))
    });
    match held {
        None => Finding::ok(Check::VipHere, subject, "no interface of this node has one"),
        Some((vip, name)) if instance.priority == Priority::OWNER => {
            Finding::ok(Check::VipHere, subject, format!("{name} has {vip}, as the address owner should"))
        }
        Some((vip, name)) => Finding::warning(
            Check::VipHere,
            subject,
            format!("{name} has {vip}: without the program this node's kernel answers for it, owner or not"),
            format!("`ip address del {vip} dev {name}` with its prefix length; the agent keeps VIPs on lo"),
        ),
    }
}

/// Whether two instances are one virtual router.
pub(super) fn clash(checked: Result<(), String>) -> Finding {
    match checked {
        Ok(()) => Finding::ok(Check::Clash, "host", "each instance is a virtual router of its own"),
        Err(why) => Finding::error(Check::Clash, "host", why, "give one of them another virtual_router_id"),
    }
}

/// Whether its sockets could be opened.
pub(super) fn sockets(instance: &config::Instance, opened: Result<usize, String>) -> Finding {
    match opened {
        Ok(families) => {
            Finding::ok(Check::Sockets, subject(instance), format!("opened for {families} IP version(s)"))
        }
        Err(why) => Finding::error(
            Check::Sockets,
            subject(instance),
            why,
            "solve it: the agent needs the same sockets",
        ),
    }
}

/// Whether the interface does multicast at all, for an instance that needs it.
pub(super) fn multicast_flag(instance: &config::Instance, interface: &str, on: bool) -> Option<Finding> {
    (!on && instance.unicast.is_none()).then(|| {
        Finding::warning(
            Check::Multicast,
            subject(instance),
            format!("{interface} is set not to do multicast: its driver may keep groups out, IPv6 may find no route to them"),
            format!("`ip link set {interface} multicast on`, or use `unicast`"),
        )
    })
}

/// Whether this host's firewall lets an advert out: `None` where that cannot be tried without sending one.
pub(super) fn firewall(instance: &config::Instance, rehearsed: Option<Result<(), String>>) -> Finding {
    let subject = subject(instance);
    match rehearsed {
        Some(Ok(())) => Finding::ok(Check::Firewall, subject, "lets adverts out"),
        Some(Err(why)) => Finding::error(
            Check::Firewall,
            subject,
            why,
            "`nft add rule inet filter output meta l4proto 112 accept`, or its like",
        ),
        None => Finding::ok(
            Check::Firewall,
            subject,
            "not tried: only IPv4 multicast can be sent without leaving the host; protocol 112 must be allowed out",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::edge as instance;

    #[test]
    fn an_interface_that_is_down_is_an_error_with_the_command() {
        let down = Err(Misplaced::Down("eth0".to_owned()));
        let finding = interface(&instance(""), &down, &[]);
        assert_eq!(finding.verdict.word(), "error");
        assert_eq!(finding.verdict.remedy(), Some("`ip link set eth0 up`"));
        assert_eq!(finding.subject, "instance edge");
    }

    #[test]
    fn a_firewall_that_cannot_be_tried_is_not_called_good() {
        assert_eq!(firewall(&instance(""), Some(Ok(()))).found, "lets adverts out");
        assert_eq!(firewall(&instance(""), Some(Err("EPERM".to_owned()))).verdict.word(), "error");
        assert!(firewall(&instance(""), None).found.starts_with("not tried"));
    }

    #[test]
    fn multicast_matters_to_those_who_use_it() {
        assert!(multicast_flag(&instance(""), "eth0", false).is_some());
        assert!(multicast_flag(&instance(""), "eth0", true).is_none());
        let unicast = instance(", unicast: {source: 10.0.0.1, peers: [10.0.0.2]}");
        assert!(multicast_flag(&unicast, "eth0", false).is_none());
    }
}
