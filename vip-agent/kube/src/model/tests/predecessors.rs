//! The ConfigMap and the annotation of the systems that were here before.

use super::*;

fn with_map(entries: &[(&str, &str)]) -> Cluster {
    Cluster { config_map: Some(config_map(entries)), ..cluster() }
}

#[test]
fn an_empty_value_makes_a_vip_and_nothing_else() {
    let made = desired(&with_map(&[("10.0.0.50", "")]), &settings());
    assert_eq!(made.lines(), ["kube-configmap 50: 10.0.0.50"]);
    assert_eq!(made.troubles(), [""; 0]);
}

#[test]
fn a_vip_of_services_is_there_while_one_of_them_has_a_ready_endpoint() {
    let mut cluster = with_map(&[("10.0.0.50", "default/web:DR, default/mail")]);
    let vips = |cluster: &Cluster| desired(cluster, &settings()).vips();
    assert!(vips(&cluster).is_empty(), "no Service");
    cluster.services.insert(name("default/web"), Service::default());
    assert!(vips(&cluster).is_empty(), "no endpoint");
    cluster.slices.extend([slice("web", &[("node2", false)])]);
    assert!(vips(&cluster).is_empty(), "none ready");
    cluster.slices.extend([slice("web", &[("node2", true)])]);
    assert_eq!(vips(&cluster), ["10.0.0.50"]);
    cluster.slices.clear();
    cluster.services.insert(name("default/mail"), Service::default());
    cluster.slices.extend([slice("mail", &[("node3", true)])]);
    assert_eq!(vips(&cluster), ["10.0.0.50"], "the other one");
}

#[test]
fn what_withdraws_a_vip_is_said() {
    let mut map = with_map(&[("10.0.0.50", "default/web")]);
    let troubles = desired(&map, &settings()).troubles();
    assert_eq!(
        troubles,
        ["ConfigMap kube-system/vip-configmap: Pending: 10.0.0.50: there is no Service default/web"]
    );
    map.services.insert(name("default/web"), Service::default());
    assert!(desired(&map, &settings()).troubles()[0].ends_with("Service default/web has no ready endpoint"));
}

#[test]
fn an_ipv6_vip_is_written_without_colons() {
    let made = desired(&with_map(&[("fd00--50", ""), ("fd00_0_0_0_0_0_0_51", "")]), &settings());
    assert_eq!(made.vips(), ["fd00::50", "fd00::51"]);
}

#[test]
fn one_bad_line_costs_nobody_else_the_vip() {
    let entries = [
        ("10.0.0.50", ""),
        ("10.0.0.51", "default/web:IPVS"),
        ("10.0.0.52", "web"),
        ("127.0.0.1", ""),
        ("ten", ""),
    ];
    let made = desired(&with_map(&entries), &settings());
    assert_eq!(made.vips(), ["10.0.0.50"]);
    let troubles = made.troubles();
    assert_eq!(troubles.len(), 4, "{troubles:?}");
    assert!(troubles.iter().all(|line| line.contains(": Invalid: ")), "{troubles:?}");
}

#[test]
fn the_first_virtual_router_is_the_one_that_is_configured() {
    let mut settings = settings();
    settings.kubernetes.virtual_router_id = 120_u8.try_into().unwrap();
    assert_eq!(
        desired(&with_map(&[("10.0.0.50", "")]), &settings).lines(),
        ["kube-configmap 120: 10.0.0.50"]
    );
}

/// A Service with the predecessors' annotation.
fn annotated(created: i64, vip: &str) -> Service {
    Service { load_balancer: false, ..service(created, &[(claims::INGRESS_VIP, vip)]) }
}

#[test]
fn the_pods_behind_an_annotated_service_elect_a_holder_ready_or_not() {
    let mut cluster = cluster();
    cluster.services.insert(name("default/ingress"), annotated(1, "10.0.0.60"));
    assert!(desired(&cluster, &settings()).has(Trouble::Pending, "Service default/ingress"));
    cluster.slices.extend([slice("ingress", &[("node1", false), ("node2", true)])]);
    for (node, vips) in [("node1", 1), ("node2", 1), ("node3", 0)] {
        assert_eq!(desired(&cluster, &on(node)).vips().len(), vips, "{node}");
    }
    let made = desired(&cluster, &settings());
    let peers = &made.instances[0].unicast.as_ref().unwrap().peers;
    assert_eq!(peers, &["10.0.0.2".parse::<std::net::IpAddr>().unwrap()], "only those that can hold it");
}

#[test]
fn sources_that_are_off_claim_nothing() {
    let mut cluster = with_map(&[("10.0.0.50", "")]);
    cluster.services.insert(name("default/ingress"), annotated(1, "10.0.0.60"));
    cluster.services.insert(name("default/web"), wants(2, "10.0.0.70"));
    cluster.slices.extend([slice("ingress", &[("node1", true)])]);
    assert_eq!(desired(&cluster, &settings()).vips(), ["10.0.0.50", "10.0.0.60", "10.0.0.70"]);
    let mut only = settings();
    only.kubernetes.sources =
        vip_kube_protocol::Sources { configmap: false, annotation: true, service: false, pool: false };
    assert_eq!(desired(&cluster, &only).vips(), ["10.0.0.60"]);
}
