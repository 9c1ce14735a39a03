//! What holds for all clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

/// Few names, VIPs, keys and ports, so that they meet.
fn any_service() -> impl Strategy<Value = Service> {
    let vips = prop::sample::subsequence(vec!["10.0.0.70", "10.0.0.71", "fd00::70", "10.0.0.72"], 0..3);
    let key = prop::option::of(prop::sample::select(vec!["a", "b"]));
    (0..4_i64, vips, key, 80..83_u16, any::<[bool; 3]>(), prop::sample::select(vec!["x", "y"])).prop_map(
        |(created, vips, key, port_number, [local, active, annotated], app)| {
            let mut made = service(created, &[]);
            let place = if annotated { claims::INGRESS_VIP } else { claims::VIPS };
            made.annotations.insert(place.into(), vips.join(","));
            made.annotations.extend(key.map(|key| (claims::SHARING_KEY.into(), key.into())));
            if active {
                made.annotations.insert(claims::LOCAL_ADDRESS.into(), "active".into());
            }
            made.ports = [port(port_number)].into();
            made.selector = [("app".to_owned(), app.to_owned())].into();
            Service { local, ..made }
        },
    )
}

fn any_cluster() -> impl Strategy<Value = Cluster> {
    let nodes = vec!["node1", "node2", "node3"];
    let endpoints = vec((prop::sample::select(nodes), any::<bool>()), 0..4);
    let services = btree_map(0..6_u8, (any_service(), endpoints), 0..6);
    let map = prop::option::of(prop::sample::subsequence(vec!["10.0.0.70", "10.0.0.73", "fd00--70"], 0..3));
    let flags = vec(any::<(bool, bool)>(), 3);
    (services, map, flags).prop_map(|(services, map, flags)| {
        let mut cluster = cluster();
        for (n, (mut service, endpoints)) in services {
            service.age.uid = format!("uid-{n}");
            cluster.services.insert(name(&format!("default/s{n}")), service);
            cluster.slices.extend([slice(&format!("s{n}"), &endpoints)]);
        }
        cluster.config_map =
            map.map(|keys| config_map(&keys.iter().map(|key| (*key, "")).collect::<Vec<_>>()));
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
