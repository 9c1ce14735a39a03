//! Which link a selector chooses.

use super::super::{InterfaceName, InterfacePattern, InterfaceSelector, LinkView, VipAddress, resolve};

fn link(name: &str, ifindex: u32, addresses: &[&str]) -> LinkView {
    let addresses = addresses.iter().map(|net| net.parse().expect("a network")).collect();
    LinkView { name: name.to_owned(), ifindex, addresses, default_route: false }
}

/// lo with a staged VIP, two LANs and a link without addresses.
fn links() -> Vec<LinkView> {
    vec![
        link("lo", 1, &["127.0.0.1/8", "::1/128", "10.0.0.50/32", "fd00::50/128"]),
        LinkView { default_route: true, ..link("eth0", 2, &["10.0.0.1/24", "fe80::1/64"]) },
        link("eth1", 3, &["10.1.0.1/16", "fd00::1/64", "fe80::2/64"]),
        link("wlan0", 4, &[]),
    ]
}

fn choose(selector: &InterfaceSelector, vips: &[&str]) -> Result<String, String> {
    let vip = |text: &&str| VipAddress { address: text.parse().expect("an address"), prefix: None };
    let vips: Vec<_> = vips.iter().map(vip).collect();
    let links = links();
    resolve(selector, &vips, &links).map(|index| links[index].name.clone()).map_err(|error| error.to_string())
}

fn name(name: &str) -> InterfaceSelector {
    InterfaceSelector::Name(InterfaceName::new(name).expect("a valid name"))
}

fn pattern(pattern: &str) -> InterfaceSelector {
    InterfaceSelector::Pattern(InterfacePattern::new(pattern).expect("a valid pattern"))
}

fn chosen(name: &str) -> Result<String, String> {
    Ok(name.to_owned())
}

fn refused(why: &str) -> Result<String, String> {
    Err(why.to_owned())
}

#[test]
fn a_name_chooses_that_link_or_names_those_that_exist() {
    assert_eq!(choose(&name("eth1"), &[]), chosen("eth1"));
    assert_eq!(
        choose(&name("eth2"), &[]),
        refused("no interface fits `eth2`; there are lo, eth0, eth1, wlan0")
    );
}

#[test]
fn the_vips_subnet_chooses_the_link_that_is_in_it() {
    let subnet = InterfaceSelector::VipSubnet;
    assert_eq!(choose(&subnet, &["10.0.0.50"]), chosen("eth0"), "a staged VIP on lo is no subnet");
    assert_eq!(choose(&subnet, &["fd00::50"]), chosen("eth1"));
    assert_eq!(choose(&subnet, &["10.1.2.3", "fd00::50"]), chosen("eth1"));
    assert_eq!(choose(&subnet, &["10.0.0.50", "fe80::9"]), chosen("eth0"), "every link is on fe80::/64");
    assert_eq!(
        choose(&subnet, &["10.0.0.50", "fd00::50"]),
        refused("several interfaces fit `{subnet: vip}`: eth0, eth1; name one")
    );
    assert_eq!(
        choose(&subnet, &["192.0.2.1"]),
        refused(
            "no interface fits `{subnet: vip}` (none has an address in a subnet of 192.0.2.1); there are lo, eth0, \
             eth1, wlan0"
        )
    );
}

#[test]
fn the_default_route_chooses_the_link_it_leaves_by() {
    assert_eq!(choose(&InterfaceSelector::DefaultRoute, &[]), chosen("eth0"));
}

#[test]
fn a_pattern_is_found_anywhere_unless_anchored() {
    assert_eq!(choose(&pattern("^wlan"), &[]), chosen("wlan0"));
    assert_eq!(choose(&pattern("1$"), &[]), chosen("eth1"));
    assert_eq!(
        choose(&pattern("th"), &[]),
        refused("several interfaces fit `{regex: \"th\"}`: eth0, eth1; name one")
    );
    assert_eq!(
        choose(&pattern("^en"), &[]),
        refused("no interface fits `{regex: \"^en\"}`; there are lo, eth0, eth1, wlan0")
    );
}
