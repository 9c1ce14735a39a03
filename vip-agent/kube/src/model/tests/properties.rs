//! What holds for all clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::cluster::{SlicePort, Traffic};
use crate::model::steering;

/// Few names, VIPs, keys and ports, so that they meet.
fn any_service() -> impl Strategy<Value = Service> {
    let vips = prop::sample::subsequence(vec!["10.0.0.70", "10.0.0.71", "fd00::70", "10.0.0.72"], 0..3);
    let key = prop::option::of(prop::sample::select(vec!["a", "b"]));
    (0..4_i64, vips, key, 80..83_u16, any::<[bool; 3]>(), prop::sample::select(vec!["x", "y"]), any_traffic())
        .prop_map(
            |(
                created,
                vips,
                key,
                port_number,
                [local, active, annotated],
                app,
                (mode, protocol, traffic),
            )| {
                let mut made = service(created, &[]);
                let place = if annotated { claims::INGRESS_VIP } else { claims::VIPS };
                made.annotations.insert(place.into(), vips.join(","));
                made.annotations.extend(key.map(|key| (claims::SHARING_KEY.into(), key.into())));
                if active {
                    made.annotations.insert(claims::LOCAL_ADDRESS.into(), "active".into());
                }
                made.annotations.extend(mode.map(|mode| (steering::MODE.into(), mode.into())));
                made.ports = [Port { protocol: protocol.into(), port: port_number }, port(80)].into();
                made.selector = [("app".to_owned(), app.to_owned())].into();
                Service { local, traffic, ..made }
            },
        )
}

/// A mode or none, a protocol, and what else a Service says of its traffic.
fn any_traffic() -> impl Strategy<Value = (Option<&'static str>, &'static str, Traffic)> {
    let mode = prop::option::of(prop::sample::select(vec!["local", "dr", "nat", "tunnel", "proxy", "ipvs"]));
    let protocol = prop::sample::select(vec!["TCP", "UDP", "SCTP", "QUIC"]);
    let ranges = prop::sample::subsequence(vec!["10.0.0.0/8", "10.1.2.3/16", "fd00::/8", "ten"], 0..4);
    (mode, protocol, prop::option::of(0..100_000_u32), ranges).prop_map(
        |(mode, protocol, affinity, ranges)| {
            let source_ranges = ranges.into_iter().map(str::to_owned).collect();
            (mode, protocol, Traffic { affinity, source_ranges, ..Traffic::default() })
        },
    )
}

/// A slice of the three nodes' endpoints, some of which are VIPs, in one family or both.
fn any_slice() -> impl Strategy<Value = (Vec<SlicePort>, Vec<Endpoint>)> {
    let address =
        prop::sample::select(vec!["10.2.0.1", "10.2.0.2", "10.0.0.70", "10.0.0.73", "fd02::1", "fd00::70"]);
    let node = prop::option::of(prop::sample::select(vec!["node1", "node2", "node3"]));
    let endpoint = (address, node, any::<(bool, bool)>()).prop_map(|(address, node, (ready, draining))| {
        Endpoint { address: address.parse().ok(), node: node.map(str::to_owned), ready, draining }
    });
    let number = prop::sample::select(vec![80_u16, 81, 8080]);
    let ports = (number, prop::sample::select(vec!["TCP", "UDP", "SCTP"]))
        .prop_map(|(port, protocol)| SlicePort { name: String::new(), protocol: protocol.into(), port });
    (vec(ports, 0..3), vec(endpoint, 0..5))
}

fn any_cluster() -> impl Strategy<Value = Cluster> {
    let services = btree_map(0..6_u8, (any_service(), vec(any_slice(), 0..3)), 0..6);
    let entries = vec![
        ("10.0.0.70", ""),
        ("10.0.0.73", "default/s0, default/s1:DR default/s1"),
        ("fd00--70", "default/s2:PROXY"),
        ("fd00_0_0_0_0_0_0_70", "default/s3"),
    ];
    let map = prop::option::of(prop::sample::subsequence(entries, 0..4));
    let flags = vec(any::<(bool, bool)>(), 3);
    (services, map, flags).prop_map(|(services, map, flags)| {
        let mut cluster = cluster();
        for (n, (mut service, slices)) in services {
            service.age.uid = format!("uid-{n}");
            cluster.services.insert(name(&format!("default/s{n}")), service);
            for (id, (ports, endpoints)) in slices.into_iter().enumerate() {
                let slice = Slice { service: format!("s{n}"), ports, endpoints };
                cluster.slices.insert(name(&format!("default/s{n}-{id}")), slice);
            }
        }
        cluster.config_map = map.map(|entries| config_map(&entries));
        for (node, (excluded, cordoned)) in cluster.nodes.values_mut().zip(flags) {
            (node.excluded, node.cordoned) = (excluded, cordoned);
        }
        cluster
    })
}

fn everywhere(cluster: &Cluster) -> [Desired; 3] {
    ["node1", "node2", "node3"].map(|node| desired(cluster, &on(node)))
}

/// Of the family that has more.
fn count(peers: &[IpAddr]) -> usize {
    let ipv4 = peers.iter().filter(|peer| peer.is_ipv4()).count();
    ipv4.max(peers.len() - ipv4)
}

proptest! {
    #[test]
    fn no_vip_and_no_router_stands_twice(cluster in any_cluster()) {
        for made in everywhere(&cluster) {
            let (vips, ids) = (made.vips(), made.instances.iter().map(|one| one.virtual_router_id));
            prop_assert_eq!(vips.iter().collect::<BTreeSet<_>>().len(), vips.len());
            prop_assert_eq!(ids.collect::<BTreeSet<_>>().len(), made.instances.len());
        }
    }

    #[test]
    fn nodes_agree_on_what_a_router_is(cluster in any_cluster()) {
        let mut routers = BTreeMap::new();
        for instance in everywhere(&cluster).into_iter().flat_map(|made| made.instances) {
            let shared = (instance.name, instance.vips, instance.local_address, instance.unicast.is_some());
            let known = routers.entry(instance.virtual_router_id).or_insert_with(|| shared.clone());
            prop_assert_eq!(&*known, &shared);
        }
    }

    #[test]
    fn nodes_agree_on_who_is_in_trouble(cluster in any_cluster()) {
        let [one, two, three] = everywhere(&cluster).map(|made| made.remarks);
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(&one, &three);
    }

    /// But for the endpoints of local traffic, whoever owns a VIP steers what comes to it alike.
    #[test]
    fn nodes_agree_on_what_is_steered(cluster in any_cluster()) {
        let mut known = BTreeMap::new();
        for (node, made) in everywhere(&cluster).into_iter().enumerate() {
            let vips = made.vips();
            for service in made.steered {
                prop_assert!(vips.contains(&service.vip.to_string()), "node {node} does not have {}", service.vip);
                let local = |other: &Service| other.local && service.name.starts_with("kube-default.s");
                let mut shared = service.clone();
                if cluster.services.values().any(local) {
                    shared.backends.clear();
                }
                let known = known.entry(service.name).or_insert_with(|| shared.clone());
                prop_assert_eq!(&*known, &shared);
            }
        }
    }

    /// Or the agent would refuse all of it.
    #[test]
    fn the_agent_takes_whatever_is_told(cluster in any_cluster()) {
        for made in everywhere(&cluster) {
            let text = serde_json::json!({"instances": made.instances, "services": made.steered}).to_string();
            let read = vip_agent::config::parse(&text, "vip-kube", "node1");
            prop_assert!(read.is_ok(), "{}\n{text}", read.unwrap_err());
        }
    }

    /// A peer speaks to whoever speaks to it, and each hears the same ones.
    #[test]
    fn peers_are_mutual(cluster in any_cluster()) {
        let made = everywhere(&cluster);
        for (n, node) in made.iter().enumerate() {
            for instance in &node.instances {
                let Some(unicast) = &instance.unicast else { continue };
                let takes_part = |other: &Desired| other.instances.iter().any(|one| one.name == instance.name);
                let others = made.iter().enumerate().filter(|(m, other)| *m != n && takes_part(other)).count();
                prop_assert_eq!(count(&unicast.peers), others);
            }
        }
    }

    /// What comes later takes nothing from who is there, and moves nobody to another router.
    #[test]
    fn a_newcomer_disturbs_nobody(cluster in any_cluster(), newcomer in any_service()) {
        let mut grown = cluster.clone();
        let age = Age { created: 100, uid: "new".into() };
        grown.services.insert(name("default/new"), Service { age, ..newcomer });
        for (before, after) in everywhere(&cluster).into_iter().zip(everywhere(&grown)) {
            for instance in &before.instances {
                let same = after.instances.iter().find(|other| other.name == instance.name);
                prop_assert!(same.is_some_and(|same| same.virtual_router_id == instance.virtual_router_id
                    && instance.vips.iter().all(|vip| same.vips.contains(vip))), "{:?}", instance.name);
            }
        }
    }
}
