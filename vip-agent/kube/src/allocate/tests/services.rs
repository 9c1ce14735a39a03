//! Services and VirtualIPs: what they get, keep and give back.

use super::*;
use crate::model::claims::{SHARING_KEY, VIPS};
use crate::model::pools::POOL;

fn edge() -> Store {
    let mut store = Store::default();
    store.pool("edge", 1, &["10.0.0.0-10.0.0.3"], json!({}));
    store
}

#[test]
fn the_oldest_is_given_the_first_address() {
    let mut store = edge();
    store.service("default/young", service(9)).service("default/old", service(3)).settle();
    assert_eq!(store.given(), ["10.0.0.0 default/old", "10.0.0.1 default/young"]);
    assert_eq!((store.status("edge").allocated, store.status("edge").available), (2, 2));
}

#[test]
fn a_service_with_an_address_of_its_own_gets_none_and_others_do_not_get_that() {
    let mut store = edge();
    store.service("default/a", with(service(1), &[(VIPS, "10.0.0.0, 10.0.0.1")]));
    store.service("default/b", service(2)).settle();
    assert_eq!(store.given(), ["10.0.0.2 default/b"]);
    assert_eq!(store.status("edge").available, 1);
}

#[test]
fn an_address_of_a_node_is_nobodys_vip() {
    let mut store = edge();
    store.service("default/a", service(1));
    let mut cluster = store.cluster();
    let node = Node { addresses: vec![[10, 0, 0, 0].into()], ..Node::default() };
    cluster.nodes.insert("node1".into(), node);
    // The finalizer comes first.
    store.apply(&plan(&cluster, &settings(), &|_, _| true, NOW)[0]);
    let nodes = std::mem::take(&mut cluster.nodes);
    let cluster = Cluster { nodes, ..store.cluster() };
    plan(&cluster, &settings(), &|_, _| true, NOW).iter().for_each(|write| assert!(store.apply(write)));
    assert_eq!(store.given(), ["10.0.0.1 default/a"]);
}

#[test]
fn a_pool_that_is_named_is_the_one_and_others_give_to_who_names_none() {
    let mut store = edge();
    store.pool("shop", 0, &["10.0.1.0/30"], json!({"autoAssign": false}));
    store.service("default/a", service(1));
    store.service("default/b", with(service(2), &[(POOL, "shop")]));
    store.service("default/c", with(service(3), &[(POOL, "moon")])).settle();
    assert_eq!(store.given(), ["10.0.0.0 default/a", "10.0.1.0 default/b"]);
}

#[test]
fn buggy_addresses_are_left_out_if_so_asked() {
    let mut store = Store::default();
    store.pool("edge", 1, &["10.0.0.255-10.0.1.1"], json!({"avoidBuggyAddresses": true}));
    store.service("default/a", service(1)).settle();
    assert_eq!(store.given(), ["10.0.1.1 default/a"]);
    assert!(store.is("edge", "Exhausted"));
}

#[test]
fn both_families_are_given_as_far_as_there_are() {
    let mut store = edge();
    store.service("default/both", dual(service(1), false));
    store.service("default/all", dual(service(2), true)).settle();
    assert_eq!(store.given(), ["10.0.0.0 default/both"], "who needs both gets none before");
    store.pool("six", 2, &["fd00::/126"], json!({})).settle();
    let expected =
        ["10.0.0.0 default/both", "10.0.0.1 default/all", "fd00:: default/both", "fd00::1 default/all"];
    assert_eq!(store.given(), expected);
}

#[test]
fn a_service_of_one_family_gets_that() {
    let mut store = edge();
    store.pool("six", 2, &["fd00::/126"], json!({}));
    store.service("default/a", Service { families: [Family::V6].into(), ..service(1) }).settle();
    assert_eq!(store.given(), ["fd00:: default/a"]);
}

#[test]
fn services_of_a_key_are_given_one_address_unless_their_ports_meet() {
    let mut store = edge();
    let sharer = |created, port| Service {
        ports: [Port { protocol: "TCP".into(), port }].into(),
        ..with(service(created), &[(SHARING_KEY, "web")])
    };
    store.service("default/a", sharer(1, 80)).service("default/b", sharer(2, 443));
    store.service("default/c", sharer(3, 80)).service("default/d", sharer(4, 25)).settle();
    let expected = ["10.0.0.0 default/a", "10.0.0.0 default/b", "10.0.0.1 default/c", "10.0.0.0 default/d"];
    assert_eq!(store.given(), expected);
    assert_eq!((store.status("edge").allocated, store.status("edge").available), (2, 2));
    // One of them goes: the others keep it, and it is nobody's business that it was shared.
    store.services.remove(&name("default/a"));
    store.settle_with(false).settle_with(false);
    assert_eq!(store.given(), ["10.0.0.0 default/b", "10.0.0.1 default/c", "10.0.0.0 default/d"]);
    // A port that is in use parts them.
    store.service("default/d", sharer(4, 443)).settle();
    assert_eq!(store.given(), ["10.0.0.0 default/b", "10.0.0.1 default/c", "10.0.0.1 default/d"]);
}

#[test]
fn what_is_released_is_nobodys_until_nodes_have_let_go_of_it() {
    let mut store = Store::default();
    store.pool("edge", 1, &["10.0.0.7"], json!({}));
    store.service("default/a", service(1)).service("default/b", service(2)).settle();
    assert!(store.is("edge", "Exhausted"));
    store.nodes.push("node1");
    store.own("edge", "10.0.0.7", "node1");
    store.services.remove(&name("default/a"));
    store.settle_with(false);
    assert_eq!(store.given(), ["-10.0.0.7 default/a"]);
    store.settle_with(true);
    assert_eq!(store.given(), ["-10.0.0.7 default/a"], "node1 may still have it");
    store.nodes.clear();
    store.settle_with(true);
    assert_eq!(store.given(), ["10.0.0.7 default/b"]);
    assert_eq!(store.status("edge").owners, [], "whose node is gone");
}

#[test]
fn a_freed_address_goes_to_the_oldest_that_waits() {
    let mut store = Store::default();
    store.pool("edge", 1, &["10.0.0.7"], json!({}));
    store.service("default/a", service(1)).service("default/c", service(3)).settle();
    store.service("default/b", service(2)).services.remove(&name("default/a"));
    store.settle();
    assert_eq!(store.given(), ["10.0.0.7 default/b"]);
}

#[test]
fn who_wants_it_again_in_time_keeps_it() {
    let mut store = edge();
    store.service("default/a", service(1)).service("default/b", service(2)).settle();
    store.service("default/a", Service { load_balancer: false, ..service(1) }).settle_with(false);
    assert_eq!(store.given(), ["-10.0.0.0 default/a", "10.0.0.1 default/b"]);
    store.service("default/a", service(1)).settle_with(false);
    assert_eq!(store.given(), ["10.0.0.0 default/a", "10.0.0.1 default/b"]);
}

#[test]
fn a_service_of_the_same_name_is_another_one() {
    let mut store = edge();
    store.service("default/a", service(1)).settle();
    store.service("default/a", service(8)).settle_with(false);
    assert_eq!(store.given(), ["-10.0.0.0 default/a", "10.0.0.1 default/a"]);
}

#[test]
fn objects_of_a_namespace_that_is_not_watched_keep_theirs() {
    let mut store = edge();
    store.service("shop/a", service(1)).settle();
    store.services.clear();
    let mut settings = settings();
    settings.kubernetes.watch_namespace = Some(vip_kube_protocol::Label::new("default").unwrap());
    assert_eq!(plan(&store.cluster(), &settings, &|_, _| true, NOW), []);
}

#[test]
fn a_virtual_ip_stays_until_its_address_is_released() {
    let mut store = edge();
    store.virtual_ip("default/vip", 1, "edge");
    store.settle();
    assert_eq!(store.given(), ["10.0.0.0 default/vip"]);
    let object = store.virtual_ips.get_mut("default/vip").unwrap();
    assert_eq!(object.metadata.finalizers, Some(vec![super::super::FINALIZER.to_owned()]));
    object.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    store.settle_with(false);
    assert_eq!((store.given(), store.virtual_ips.len()), (vec!["-10.0.0.0 default/vip".to_owned()], 1));
    store.settle();
    assert_eq!((store.given().len(), store.virtual_ips.len()), (0, 0));
}
