//! What valid files mean; examples and documentation are among them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::super::schema::KEYS;
use super::super::{
    InterfaceSelector, LocalAddress, LogFormat, LogLevel, Protocol, Secrets, XdpModeChoice, effective, http,
    instance, parse, parse_with, probe,
};
use super::{config, edge, edge_with_vips, warnings};
use crate::types::{Centiseconds, ChecksumMode, Priority};
use crate::vrrp::auth::Password;

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[test]
fn what_a_file_leaves_out_has_the_contracts_default() {
    let config = config(&edge(""));
    assert_eq!(config.node, "this-node");
    assert_eq!(config.control_socket(), PathBuf::from("/run/viplane/agent.sock"));
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/viplane"));
    assert_eq!(config.pin_dir, Some(PathBuf::from("/sys/fs/bpf/viplane")));
    assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Text));
    assert_eq!(config.xdp_mode, XdpModeChoice::Auto);
    let edge = &config.instances[0];
    assert_eq!(edge.vip_interface, edge.interface);
    assert_eq!(edge.priority, Priority::DEFAULT);
    let (advert_interval, checksum) = (Centiseconds::SECOND, ChecksumMode::Pseudo);
    assert_eq!(edge.protocol, Protocol::V3 { advert_interval, checksum });
    assert!(edge.preempt && edge.accept && !edge.strict && !edge.virtual_mac);
    assert_eq!((edge.preempt_delay, edge.hold_down), (Duration::ZERO, Duration::ZERO));
    assert_eq!(edge.unicast, None);
    assert_eq!(edge.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.50/24", "fd00::50"]);
    assert_eq!(edge.local_address, LocalAddress::Active);
    assert_eq!((edge.announce.repeat, edge.announce.interval), (5, Duration::from_millis(1100)));
    assert_eq!(edge.announce.refresh, Some(Duration::from_secs(60)));
    assert_eq!(edge.grace, Duration::from_secs(5));
    assert_eq!(edge.routers(), 2);
}

#[test]
fn an_instances_interface_comes_from_the_file_and_its_vip_interface_from_itself() {
    let no_interface = edge("").replace("    interface: eth0\n", "");
    assert_eq!(config(&no_interface).instances[0].interface, InterfaceSelector::VipSubnet);
    let chosen = config(&format!("interface: {{regex: \"^en\"}}\n{no_interface}"));
    assert_eq!(chosen.instances[0].interface.to_string(), "{regex: \"^en\"}");
    assert_eq!(chosen.instances[0].vip_interface.to_string(), "{regex: \"^en\"}");
    let own = config(&format!("interface: eth9\n{}", edge("vip_interface: {default_route: true}")));
    assert_eq!(own.instances[0].interface.to_string(), "eth0");
    assert_eq!(own.instances[0].vip_interface, InterfaceSelector::DefaultRoute);
}

#[test]
fn zero_refresh_and_null_pin_dir_mean_none() {
    let config = config(&format!("pin_dir: null\n{}", edge("announce: {refresh: 0s}")));
    assert_eq!(config.pin_dir, None);
    assert_eq!(config.instances[0].announce.refresh, None);
}

#[test]
fn a_unicast_source_is_one_address_or_one_of_each_family() {
    let one = "unicast: {source: 10.0.0.1, peers: [10.0.0.2], min_ttl: 254}";
    let config_v4 = config(&edge_with_vips("10.0.0.50", one));
    let unicast = config_v4.instances[0].unicast.as_ref().unwrap();
    assert_eq!(unicast.sources().collect::<Vec<_>>(), ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!((unicast.peers_v4().count(), unicast.peers_v6().count(), unicast.min_ttl), (1, 0, Some(254)));
    let both = "unicast: {source: [\"fd00::1\", 10.0.0.1], peers: [\"fd00::2\", 10.0.0.2, 10.0.0.3]}";
    let config_both = config(&edge(both));
    let unicast = config_both.instances[0].unicast.as_ref().unwrap();
    assert_eq!((unicast.source_v4, unicast.source_v6), ("10.0.0.1".parse().ok(), "fd00::1".parse().ok()));
    assert_eq!((unicast.peers_v4().count(), unicast.peers_v6().count(), unicast.min_ttl), (2, 1, None));
}

#[test]
fn the_address_owner_may_speak_from_its_vip() {
    config(&edge_with_vips("10.0.0.1", "priority: 255\nunicast: {source: 10.0.0.1, peers: [10.0.0.2]}"));
}

#[test]
fn what_is_not_served_yet_is_accepted_where_it_asks_for_nothing() {
    let file = "flow_sync: null\nprobes: []\nservices: []\nkubernetes: null\n";
    let lines = "version: 3\nauth: null\ntrack: []\nall_failed: close\nsync_group: null";
    assert_eq!(config(&format!("{file}{}", edge(lines))), config(&edge("")));
    assert_eq!(warnings(&format!("{file}{}", edge(lines))), [""; 0]);
}

#[test]
fn only_an_owner_of_the_address_accepts_in_any_case() {
    let table = [
        ("accept: true", true, LocalAddress::Active),
        ("accept: false", false, LocalAddress::Never),
        // A backend that somebody else steers to while it is Backup.
        ("accept: false\nlocal_address: always", false, LocalAddress::Always),
        ("accept: false\npriority: 255", true, LocalAddress::Active),
        ("accept: false\nlocal_address: never", false, LocalAddress::Never),
    ];
    for (lines, accepts, on_lo) in table {
        let edge = &config(&edge(lines)).instances[0];
        assert_eq!((edge.accepts(), edge.stands_on_lo()), (accepts, on_lo), "{lines}");
    }
}

#[test]
fn what_is_valid_and_does_nothing_is_pointed_out() {
    let table = [
        (
            "preempt: false\npreempt_delay: 3s",
            "7:20: instances[0].preempt_delay: warning: has no effect without `preempt: true`",
        ),
        (
            "preempt: false\npriority: 255",
            "6:14: instances[0].preempt: warning: has no effect: the address owner (priority 255) always preempts",
        ),
        (
            "accept: false\npriority: 255",
            "6:13: instances[0].accept: warning: has no effect: the address owner (priority 255) always accepts",
        ),
        (
            "accept: false\nlocal_address: active",
            "7:20: instances[0].local_address: warning: has no effect: with `accept: false` this node never serves the VIPs itself",
        ),
        (
            "virtual_mac: true\nannounce: {refresh: 0s}\nunicast: {source: [10.0.0.1, \"fd00::1\"], peers: [10.0.0.2, \"fd00::2\"]}",
            "7:15: instances[0].announce: warning: without a refresh, and with unicast adverts, switches forget the port of the virtual MAC",
        ),
    ];
    for (lines, expected) in table {
        assert_eq!(warnings(&edge(lines)), [expected]);
    }
    assert_eq!(
        warnings("instances: []"),
        ["1:12: instances: warning: there is no instance: this node will hold no VIPs"]
    );
    let many = (1..=91).map(|n| format!("\"fd00::{n}\"")).collect::<Vec<_>>().join(", ");
    assert_eq!(
        warnings(&edge_with_vips(&many, "")),
        [
            "5:11: instances[0].vips: warning: has 91 IPv6 addresses: above 90 their advert needs an MTU of 1504"
        ]
    );
}

#[test]
fn anchors_and_merge_keys_spare_repetition() {
    let text = "instances:\n- &edge {name: a, virtual_router_id: 1, vips: [10.0.0.1], priority: 50}\n\
                - {<<: *edge, name: b, virtual_router_id: 2, vips: [10.0.0.2]}\n";
    assert_eq!(config(text).instance("b").unwrap().priority.get(), 50);
}

#[test]
fn every_example_is_valid_and_says_what_its_effective_form_says() {
    let password = Password::new("secret12").unwrap();
    let secrets = Secrets { password_file: &|_| Ok(password), ..Secrets::NONE };
    let read = |text: &str| parse_with(text, "example", "node", &secrets).unwrap();
    let (mut folders, mut examples) = (vec![docs().join("examples")], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let (config, warnings) = read(&fs::read_to_string(&path).unwrap());
            assert!(warnings.is_empty(), "{}: {warnings}", path.display());
            assert_eq!(read(&effective(&config)).0, config);
            examples += 1;
        }
    }
    assert!(examples >= 7, "{examples} examples");
}

#[test]
fn the_three_nodes_of_the_example_differ_in_priority_only() {
    let read = |node| config(&fs::read_to_string(docs().join("examples/three-nodes").join(node)).unwrap());
    let mut priorities = Vec::new();
    let mut without_priority = ["a.yaml", "b.yaml", "c.yaml"].map(|node| {
        let mut config = read(node);
        priorities.extend(config.instances.iter().map(|instance| instance.priority));
        config.instances.iter_mut().for_each(|instance| instance.priority = Priority::DEFAULT);
        config
    });
    without_priority.sort_by_key(|config| config.node.clone());
    assert_eq!(without_priority[0], without_priority[1]);
    assert_eq!(without_priority[1], without_priority[2]);
    priorities.dedup();
    assert_eq!(priorities.len(), 3);
}

#[test]
fn the_documentation_names_every_key_and_its_first_listing_is_the_defaults() {
    let page = fs::read_to_string(docs().join("configuration.md")).unwrap();
    for key in KEYS.iter().chain(&instance::KEYS).chain(&probe::KEYS) {
        assert!(page.contains(&format!("`{key}`")), "{key} is not documented");
    }
    for key in http::KEYS {
        assert!(page.contains(&format!("`http.{key}`")), "http.{key} is not documented");
    }
    let listing = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let (listed, listing_warnings) = parse(listing, "listing", "this-node").unwrap();
    assert!(listing_warnings.is_empty(), "{listing_warnings}");
    let minimal = "instances: [{name: edge, virtual_router_id: 51, vips: [\"10.0.0.50/24\", \"fd00::50\"]}]";
    assert_eq!(listed, config(minimal));
}
