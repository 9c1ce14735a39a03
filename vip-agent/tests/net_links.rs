//! The link table follows what happens to the interfaces of its network namespace.

#[path = "support/sandbox.rs"]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use support::{Sandbox, eventually, sandbox};
use vip_agent::net::Rtnetlink;
use vip_agent::net::links::{
    AttachError, AttachPoint, DefaultRoutes, LinkState, LinkTable, LinkWatcher, WatchOptions,
};

async fn table() -> LinkTable {
    LinkTable::read(&Rtnetlink::connect().expect("netlink")).await.expect("links")
}

async fn watcher() -> LinkWatcher {
    LinkWatcher::start(WatchOptions::default()).await.expect("a watcher")
}

async fn wait_for(
    watcher: &mut LinkWatcher,
    what: &str,
    condition: impl Fn(&LinkTable) -> bool,
) -> Arc<LinkTable> {
    let mut table = watcher.snapshot();
    while !condition(&table) {
        table = tokio::time::timeout(Duration::from_secs(30), watcher.changed()).await.expect(what);
    }
    table
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_link_is_read_with_its_address_mac_and_mtu() {
    sandbox(async |host: Sandbox| {
        host.ip("link add eth0 address 02:00:00:00:00:07 mtu 1400 type veth peer name eth1");
        host.ip("address add 10.0.0.1/24 dev eth0");
        host.ip("address add 10.0.0.2/24 dev eth0");
        let table = table().await;
        let eth0 = table.by_name("eth0").expect("eth0");
        assert_eq!(eth0.mac.to_string(), "02:00:00:00:00:07");
        assert_eq!(eth0.mtu, 1400);
        assert_eq!(eth0.kind.as_deref(), Some("veth"));
        assert!(eth0.ethernet && !eth0.loopback && !eth0.up && !eth0.carrier);
        assert_eq!(eth0.primary_ipv4(), Some("10.0.0.1".parse().expect("an address")));
        assert!(eth0.has_address(ip("10.0.0.2")) && !eth0.has_address(ip("10.0.0.3")));
        assert!(eth0.is_on_link(ip("10.0.0.200")) && !eth0.is_on_link(ip("10.0.1.1")));
        assert!(table.by_name("lo").expect("lo").loopback);
    });
}

#[test]
fn a_link_that_goes_down_or_loses_carrier_is_seen_without_waiting_for_more_news() {
    sandbox(async |host: Sandbox| {
        host.connect_to("peer");
        let slow = WatchOptions { debounce: Duration::from_secs(3600), ..WatchOptions::default() };
        eventually("carrier", || async {
            table().await.by_name("eth0").is_some_and(LinkState::is_operational)
        })
        .await;
        let mut watcher = LinkWatcher::start(slow).await.expect("a watcher");
        host.ip("-n peer link set eth0 down");
        let table = wait_for(&mut watcher, "loss of carrier", |table| {
            !table.by_name("eth0").is_some_and(LinkState::is_operational)
        })
        .await;
        let eth0 = table.by_name("eth0").expect("eth0");
        assert!(eth0.up && !eth0.carrier);
    });
}

#[test]
fn a_link_that_vanishes_and_comes_back_under_its_name_has_another_index() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        let mut watcher = watcher().await;
        let before = watcher.snapshot().by_name("eth0").expect("eth0").ifindex;
        host.ip("link del eth0");
        wait_for(&mut watcher, "the removal", |table| table.by_name("eth0").is_none()).await;
        host.link("eth0");
        host.ip("address add 10.0.0.1/24 dev eth0");
        let table = wait_for(&mut watcher, "the new link's address", |table| {
            table.by_name("eth0").is_some_and(|eth0| eth0.has_address(ip("10.0.0.1")))
        })
        .await;
        assert_ne!(table.by_name("eth0").expect("eth0").ifindex, before);
        assert!(table.get(before).is_none());
    });
}

#[test]
fn a_renamed_link_keeps_its_index_and_addresses() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        host.ip("address add 10.0.0.1/24 dev eth0");
        let mut watcher = watcher().await;
        let before = watcher.snapshot().by_name("eth0").expect("eth0").clone();
        host.ip("link set eth0 name lan0");
        let table = wait_for(&mut watcher, "the new name", |table| table.by_name("lan0").is_some()).await;
        let lan0 = table.by_name("lan0").expect("lan0");
        assert_eq!((lan0.ifindex, &lan0.addresses), (before.ifindex, &before.addresses));
    });
}

#[test]
fn a_removed_address_leaves_the_table() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        host.ip("address add 10.0.0.1/24 dev eth0");
        let mut watcher = watcher().await;
        assert!(watcher.snapshot().holders(ip("10.0.0.1")).next().is_some());
        host.ip("address del 10.0.0.1/24 dev eth0");
        wait_for(&mut watcher, "the removal", |table| table.holders(ip("10.0.0.1")).next().is_none()).await;
    });
}

#[test]
fn an_ipv6_address_is_usable_only_after_duplicate_address_detection() {
    sandbox(async |host: Sandbox| {
        host.connect_to("peer");
        let mut watcher = watcher().await;
        host.ip("address add fd00::1/64 dev eth0");
        wait_for(&mut watcher, "a tentative address", |table| {
            table.holders(ip("fd00::1")).any(|(_, address)| address.tentative && !address.is_usable())
        })
        .await;
        let table = wait_for(&mut watcher, "the end of detection", |table| {
            table
                .by_name("eth0")
                .is_some_and(|eth0| eth0.has_address(ip("fd00::1")) && eth0.link_local().is_some())
        })
        .await;
        assert!(table.holders(ip("fd00::1")).all(|(_, address)| !address.tentative && !address.dad_failed));
    });
}

#[test]
fn an_ipv6_address_that_another_node_has_is_not_usable() {
    sandbox(async |host: Sandbox| {
        host.connect_to("peer");
        host.ip("-n peer address add fd00::1/64 dev eth0 nodad");
        let mut watcher = watcher().await;
        host.ip("address add fd00::1/64 dev eth0");
        let table = wait_for(&mut watcher, "a failed detection", |table| {
            table.holders(ip("fd00::1")).any(|(_, address)| address.dad_failed)
        })
        .await;
        assert!(!table.by_name("eth0").expect("eth0").has_address(ip("fd00::1")));
    });
}

#[test]
fn a_vlan_interface_attaches_on_its_parent_with_its_tags() {
    sandbox(async |host: Sandbox| {
        if !host.knows_vlans() {
            return;
        }
        host.link("eth0");
        host.ip("link add link eth0 name eth0.100 type vlan id 100");
        host.ip("link add link eth0 name outer type vlan proto 802.1ad id 7");
        host.ip("link add link outer name inner type vlan id 200");
        host.ip("link add link inner name third type vlan id 300");
        let table = table().await;
        let index = |name: &str| table.by_name(name).expect(name).ifindex;
        let parent = index("eth0");
        let at = |outer, inner| Ok(AttachPoint { ifindex: parent, outer, inner });
        assert_eq!(table.attach_point(parent), at(0, 0));
        assert_eq!(table.attach_point(index("eth0.100")), at(100, 0));
        assert_eq!(table.attach_point(index("inner")), at(7, 200));
        assert_eq!(
            table.attach_point(index("third")),
            Err(AttachError::TooManyTags { name: "third".into() })
        );
        assert_eq!(table.attach_point(9999), Err(AttachError::Missing { ifindex: 9999 }));
    });
}

#[test]
fn a_vlan_interface_with_its_parent_in_another_namespace_is_refused() {
    sandbox(async |host: Sandbox| {
        if !host.knows_vlans() {
            return;
        }
        host.connect_to("peer");
        host.ip("-n peer link add link eth0 name lan0 type vlan id 5");
        host.ip(&format!(
            "-n peer link set lan0 netns /proc/{}/task/{}/ns/net",
            std::process::id(),
            nix::unistd::gettid()
        ));
        let table = table().await;
        let lan0 = table.by_name("lan0").expect("lan0");
        // The parent's index is valid here too, but another interface.
        assert_eq!(
            table.attach_point(lan0.ifindex),
            Err(AttachError::ParentElsewhere { name: "lan0".into() })
        );
    });
}

#[test]
fn the_link_whose_subnet_holds_a_vip_is_found_longest_prefix_first() {
    sandbox(async |host: Sandbox| {
        for (name, net) in [("wide", "10.0.0.1/8"), ("narrow", "10.1.0.1/24"), ("single", "10.1.0.50/32")] {
            host.link(name);
            host.ip(&format!("address add {net} dev {name}"));
        }
        let table = table().await;
        let names =
            |vip| table.with_subnet_of(ip(vip)).iter().map(|link| link.name.clone()).collect::<Vec<_>>();
        assert_eq!(names("10.1.0.50"), ["narrow", "wide"]);
        assert_eq!(names("10.2.0.1"), ["wide"]);
        assert!(names("192.0.2.1").is_empty());
        assert!(names("127.0.0.5").is_empty());
    });
}

#[test]
fn the_interfaces_of_the_default_routes_are_found_by_metric_and_family() {
    sandbox(async |host: Sandbox| {
        for (name, net) in [("first", "10.1.0.1/24"), ("second", "10.2.0.1/24"), ("third", "10.3.0.1/24")] {
            host.link(name);
            host.ip(&format!("link set {name} up"));
            host.ip(&format!("address add {net} dev {name}"));
        }
        host.ip("route add default via 10.3.0.2 metric 300");
        host.ip("route add default metric 100 nexthop via 10.2.0.2 nexthop via 10.1.0.2");
        host.ip("route add default via 10.3.0.2 metric 1 table 77");
        host.ip("route add 192.0.2.0/24 via 10.3.0.2");
        host.ip("route add blackhole default metric 1");
        host.ip("-6 route add default dev second metric 5");
        let rtnetlink = Rtnetlink::connect().expect("netlink");
        let routes = DefaultRoutes::read(&rtnetlink).await.expect("routes");
        let table = table().await;
        let index = |name: &str| table.by_name(name).expect(name).ifindex;
        assert_eq!(routes.v4, [index("second"), index("first"), index("third")]);
        assert_eq!(routes.v6, [index("second")]);
        host.ip("route flush table main");
        host.ip("-6 route flush table main");
        assert_eq!(DefaultRoutes::read(&rtnetlink).await.expect("routes"), DefaultRoutes::default());
    });
}

#[test]
fn events_that_the_kernel_could_not_deliver_are_made_up_for_by_reading_all_again() {
    sandbox(async |host: Sandbox| {
        let small = WatchOptions { receive_buffer: 4096, ..WatchOptions::default() };
        let mut watcher = LinkWatcher::start(small).await.expect("a watcher");
        let mut script = String::new();
        for number in 0..100 {
            writeln!(
                script,
                "link add veth{number} type veth peer name other{number}\naddress add 10.9.{number}.1/24 dev veth{number}"
            )
            .expect("a line");
        }
        fs::write(host.dir().join("batch"), script).expect("a file");
        // Nothing reads the events meanwhile: this blocks the runtime.
        host.ip(&format!("-batch {}", host.dir().join("batch").display()));
        let complete = |table: &LinkTable| {
            (0..100).all(|number| {
                let link = table.by_name(&format!("veth{number}"));
                link.is_some_and(|link| link.has_address(ip(&format!("10.9.{number}.1"))))
            })
        };
        wait_for(&mut watcher, "all the links", complete).await;
        assert!(watcher.resyncs() > 0, "the buffer was large enough, so this showed nothing");
        // It goes on after that.
        host.ip("link del veth50");
        wait_for(&mut watcher, "the next event", |table| table.by_name("veth50").is_none()).await;
    });
}
