//! What the kernel says of VLANs and changes, without a kernel that has them.

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::*;

fn link(ifindex: u32, name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message
}

/// As the kernel describes it: the interface below in IFLA_LINK, the id in the kind's data.
fn vlan(ifindex: u32, parent: u32, id: u16) -> LinkMessage {
    let mut message = link(ifindex, &format!("vlan{id}"));
    message.attributes.push(LinkAttribute::Link(parent));
    let data = InfoData::Vlan(vec![InfoVlan::Id(id)]);
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)]));
    message
}

fn table(links: impl IntoIterator<Item = LinkMessage>) -> LinkTable {
    let mut table = LinkTable::default();
    for link in links {
        table.apply(RouteNetlinkMessage::NewLink(link));
    }
    table
}

#[test]
fn frames_of_a_vlan_carry_the_lowest_interfaces_tag_outside() {
    let table = table([link(2, "eth0"), vlan(3, 2, 100), vlan(4, 3, 200), vlan(5, 4, 300)]);
    let at = |outer, inner| Ok(AttachPoint { ifindex: 2, outer, inner });
    assert_eq!(table.attach_point(2), at(0, 0));
    assert_eq!(table.attach_point(3), at(100, 0));
    assert_eq!(table.attach_point(4), at(100, 200));
    assert_eq!(table.attach_point(5), Err(AttachError::TooManyTags { name: "vlan300".into() }));
    assert_eq!(table.attach_point(6), Err(AttachError::Missing { ifindex: 6 }));
}

#[test]
fn a_vlan_whose_parent_is_elsewhere_or_unknown_has_no_attach_point() {
    let mut moved = vlan(3, 2, 100);
    moved.attributes.push(LinkAttribute::LinkNetNsId(0));
    let table = table([link(2, "eth0"), moved, vlan(4, 9, 200)]);
    assert_eq!(table.attach_point(3), Err(AttachError::ParentElsewhere { name: "vlan100".into() }));
    assert_eq!(table.attach_point(4), Err(AttachError::Missing { ifindex: 9 }));
}

#[test]
fn parents_in_a_circle_end_the_search() {
    let table = table([vlan(2, 3, 100), vlan(3, 2, 200)]);
    assert_eq!(table.attach_point(2), Err(AttachError::TooManyTags { name: "vlan100".into() }));
}

#[test]
fn a_veths_other_end_is_no_vlan_parent() {
    let mut veth = link(3, "veth0");
    veth.attributes.push(LinkAttribute::Link(2));
    assert_eq!(table([veth]).attach_point(3), Ok(AttachPoint { ifindex: 3, outer: 0, inner: 0 }));
}

#[test]
fn a_port_that_leaves_its_bridge_does_not_vanish() {
    let mut table = table([link(2, "eth0")]);
    let mut left = link(2, "eth0");
    left.header.interface_family = AddressFamily::Bridge;
    assert!(!table.apply(RouteNetlinkMessage::DelLink(left)));
    assert!(table.by_name("eth0").is_some());
    assert!(table.apply(RouteNetlinkMessage::DelLink(link(2, "eth0"))));
    assert!(table.by_name("eth0").is_none());
}

#[test]
fn the_same_news_twice_is_no_news() {
    let mut table = table([link(2, "eth0")]);
    assert!(!table.apply(RouteNetlinkMessage::NewLink(link(2, "eth0"))));
    assert!(table.apply(RouteNetlinkMessage::NewLink(link(2, "lan0"))));
}

#[test]
fn only_a_link_that_stops_carrying_frames_makes_a_table_worse() {
    let before = table([link(2, "eth0"), link(3, "eth1")]);
    let mut down = link(3, "eth1");
    down.header.flags = LinkFlags::Up;
    assert!(table([link(2, "eth0"), down]).is_worse_than(&before));
    assert!(table([link(2, "eth0")]).is_worse_than(&before));
    assert!(!before.is_worse_than(&table([link(2, "eth0")])));
    assert!(!table([link(2, "lan0"), link(3, "eth1")]).is_worse_than(&before));
}
