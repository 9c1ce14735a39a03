//! `kubernetes`.

use super::super::{Kubernetes, LoadBalancerClass, OUR_CLASS};
use super::{config, edge, errors, warnings};

fn kubernetes(keys: &str) -> Kubernetes {
    config(&format!("kubernetes: {{{keys}}}")).kubernetes.expect("it is there")
}

#[test]
fn it_is_off_unless_it_is_there() {
    assert_eq!(config(&edge("")).kubernetes, None);
    assert_eq!(config(&format!("kubernetes: null\n{}", edge(""))).kubernetes, None);
    assert_eq!(kubernetes(""), Kubernetes::default());
}

#[test]
fn with_it_a_file_needs_no_instances() {
    assert!(config("kubernetes: {}").instances.is_empty());
    assert_eq!(warnings("kubernetes: {}\ninstances: []"), [""; 0]);
    assert_eq!(errors("kubernetes: null"), ["1:1: instances: is missing"]);
}

#[test]
fn what_is_left_out_is_as_the_predecessors_had_it() {
    let default = kubernetes("");
    assert_eq!(default.virtual_router_id.get(), 50);
    assert_eq!(default.configmap.to_string(), "kube-system/vip-configmap");
    assert!(default.unicast && default.watch_namespace.is_none() && default.kubeconfig.is_none());
    let sources = default.sources;
    assert!(sources.configmap && sources.annotation && sources.service && sources.pool);
    assert_eq!(default.load_balancer_class, LoadBalancerClass::Named(OUR_CLASS.into()));
}

#[test]
fn a_class_is_ours_by_name_or_by_default() {
    let table = [
        ("", Some("viplane.dev/vip"), true),
        ("", Some("internal"), false),
        ("", None, false),
        ("load_balancer_class: any", None, true),
        ("load_balancer_class: any", Some("viplane.dev/vip"), true),
        ("load_balancer_class: any", Some("internal"), false),
        ("load_balancer_class: internal", Some("internal"), true),
        ("load_balancer_class: internal", None, false),
    ];
    for (key, class, ours) in table {
        assert_eq!(kubernetes(key).load_balancer_class.includes(class), ours, "{key} {class:?}");
    }
}

#[test]
fn traffic_can_be_steered_where_a_source_may_ask_for_it_unless_it_is_off() {
    for (keys, steers) in [
        ("", true),
        ("steering: false", false),
        ("sources: [annotation]", false),
        ("sources: [configmap]", true),
        ("sources: [annotation, service], steering: false", false),
    ] {
        assert_eq!(kubernetes(keys).steering, steers, "{keys}");
    }
    let found = warnings("kubernetes: {sources: [annotation], steering: true}");
    assert!(
        found.len() == 1 && found[0].contains("kubernetes.steering: warning: has no effect"),
        "{found:?}"
    );
}

#[test]
fn what_no_cluster_has_is_refused() {
    let table = [
        ("kubeconfig: admin.conf", "kubeconfig: must be an absolute path, not \"admin.conf\""),
        ("apiserver: \"10.0.0.1:6443\"", "apiserver: must begin with http:// or https://"),
        ("sources: []", "sources: needs at least one source"),
        ("sources: [service, dns]", "sources[1]: must be `configmap` or `annotation` or `service` or `pool`"),
        ("watch_namespace: Web", "watch_namespace: a namespace must be 1-63 of a-z"),
        ("configmap: vip-configmap", "configmap: an object must be `namespace/name`"),
        ("configmap: a/b/c", "configmap: an object must be `namespace/name`"),
        ("load_balancer_class: \"a b\"", "load_balancer_class: must be `any` or a class"),
        ("virtual_router_id: 0", "virtual_router_id: a virtual router id must be 1-255"),
        ("virtual_router_id: 239", "virtual_router_id: must be 1-238, not 239"),
        ("unicast: 1", "unicast: must be true or false"),
        ("steering: nat", "steering: must be true or false"),
        ("vrid: 50", "vrid: unknown key"),
    ];
    for (key, expected) in table {
        let found = errors(&format!("kubernetes: {{{key}}}"));
        let fits = found.len() == 1 && found[0].contains(&format!("kubernetes.{expected}"));
        assert!(fits, "{key}: {found:?}");
    }
}

#[test]
fn a_token_in_the_clear_is_pointed_out() {
    let found = warnings("kubernetes: {apiserver: \"http://10.0.0.1:8080\"}");
    assert!(found.len() == 1 && found[0].contains("in the clear"), "{found:?}");
}
