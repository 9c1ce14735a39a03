//! Services of type LoadBalancer: whose they are, what they get, with whom they share it.

use super::*;
use crate::model::LocalAddress;

fn with(services: impl IntoIterator<Item = (&'static str, Service)>) -> Cluster {
    let services = services.into_iter().map(|(text, service)| (name(text), service)).collect();
    Cluster { services, ..cluster() }
}

#[test]
fn a_service_gets_the_address_that_it_asks_for() {
    let by_field = Service { load_balancer_ip: Some("10.0.0.71".into()), ..service(2, &[]) };
    let made = desired(&with([("default/a", wants(1, "10.0.0.70")), ("default/b", by_field)]), &settings());
    assert_eq!(made.vips(), ["10.0.0.70", "10.0.0.71"]);
    assert_eq!(made.troubles(), [""; 0]);
}

#[test]
fn a_service_without_an_address_is_told_how_to_ask_for_one() {
    let made = desired(&with([("default/a", service(1, &[]))]), &settings());
    assert!(made.has(Trouble::Pending, "Service default/a"));
    assert!(made.troubles()[0].contains("viplane.dev/vips"), "{:?}", made.troubles());
}

#[test]
fn a_class_says_whose_a_service_is() {
    let of_class = |class: Option<&str>, created| {
        let vips = format!("10.0.0.{}", 70 + created);
        Service { class: class.map(str::to_owned), ..wants(created, &vips) }
    };
    let cluster = with([
        ("default/none", of_class(None, 0)),
        ("default/ours", of_class(Some("viplane.dev/vip"), 1)),
        ("default/other", of_class(Some("example.com/lb"), 2)),
    ]);
    let mut settings = settings();
    assert_eq!(desired(&cluster, &settings).vips(), ["10.0.0.70", "10.0.0.71"], "any");
    settings.kubernetes.load_balancer_class = LoadBalancerClass::default();
    assert_eq!(desired(&cluster, &settings).vips(), ["10.0.0.71"]);
    settings.kubernetes.load_balancer_class = LoadBalancerClass::Named("example.com/lb".into());
    assert_eq!(desired(&cluster, &settings).vips(), ["10.0.0.72"]);
}

#[test]
fn a_service_that_is_no_load_balancer_any_more_lets_go() {
    let former = Service { load_balancer: false, ..wants(1, "10.0.0.70") };
    assert!(desired(&with([("default/a", former)]), &settings()).vips().is_empty());
}

#[test]
fn the_older_service_keeps_the_vip_and_the_younger_one_is_told() {
    let cluster = with([("default/young", wants(9, "10.0.0.70")), ("default/old", wants(1, "10.0.0.70"))]);
    let made = desired(&cluster, &settings());
    assert_eq!(made.vips(), ["10.0.0.70"]);
    assert!(made.has(Trouble::Conflict, "Service default/young"), "{:?}", made.troubles());
    assert!(!made.has(Trouble::Conflict, "Service default/old"));
    assert!(made.troubles()[0].contains("older Service default/old"), "{:?}", made.troubles());
}

#[test]
fn what_the_configuration_file_serves_is_no_services() {
    let mut settings = settings();
    settings.taken_vips.insert("10.0.0.70".parse().unwrap());
    let made = desired(&with([("default/a", wants(1, "10.0.0.70, 10.0.0.71"))]), &settings);
    assert_eq!(made.vips(), ["10.0.0.71"]);
    assert!(made.has(Trouble::Conflict, "Service default/a"));
}

/// A Service that shares 10.0.0.70 under a key, on its own port.
fn sharer(created: i64, key: &str, own_port: u16) -> Service {
    let annotations = [(claims::VIPS, "10.0.0.70"), (claims::SHARING_KEY, key)];
    Service { ports: [port(own_port)].into(), ..service(created, &annotations) }
}

#[test]
fn services_of_one_key_share_a_vip() {
    let cluster = with([("default/web", sharer(1, "edge", 80)), ("other/mail", sharer(2, "edge", 25))]);
    let made = desired(&cluster, &settings());
    assert_eq!(made.vips(), ["10.0.0.70"]);
    assert_eq!(made.troubles(), [""; 0]);
}

#[test]
fn neither_another_key_nor_a_port_in_use_is_shared() {
    for younger in [sharer(2, "core", 25), sharer(2, "", 25), sharer(2, "edge", 80), wants(2, "10.0.0.70")] {
        let cluster = with([("default/web", sharer(1, "edge", 80)), ("default/mail", younger.clone())]);
        let made = desired(&cluster, &settings());
        assert!(made.has(Trouble::Conflict, "Service default/mail"), "{younger:?}");
    }
}

#[test]
fn who_shares_a_vip_of_local_traffic_has_the_same_pods() {
    let local = |created, own_port, app: &str| Service {
        local: true,
        selector: [("app".to_owned(), app.to_owned())].into(),
        ..sharer(created, "edge", own_port)
    };
    let mut cluster = with([("default/web", local(1, 80, "nginx")), ("default/tls", local(2, 443, "nginx"))]);
    cluster.slices.extend([slice("web", &[("node1", true)]), slice("tls", &[("node1", true)])]);
    assert_eq!(desired(&cluster, &settings()).troubles(), [""; 0]);
    for other in [local(2, 443, "envoy"), sharer(2, "edge", 443)] {
        cluster.services.insert(name("default/tls"), other);
        assert!(desired(&cluster, &settings()).has(Trouble::Conflict, "Service default/tls"));
    }
}

#[test]
fn both_families_of_a_service_move_together() {
    let made = desired(&with([("default/a", wants(1, "10.0.0.70,fd00::70"))]), &settings());
    assert_eq!(made.instances.len(), 1);
    assert_eq!(made.vips(), ["10.0.0.70", "fd00::70"]);
}

#[test]
fn a_family_that_the_service_lacks_gets_no_vip() {
    let single = Service { families: [crate::cluster::Family::V4].into(), ..wants(1, "10.0.0.70,fd00::70") };
    let made = desired(&with([("default/a", single)]), &settings());
    assert_eq!(made.vips(), ["10.0.0.70"]);
    assert!(made.has(Trouble::Invalid, "Service default/a"));
}

#[test]
fn local_traffic_goes_where_there_is_a_ready_endpoint() {
    let mut cluster = with([("default/a", Service { local: true, ..wants(1, "10.0.0.70") })]);
    assert!(desired(&cluster, &settings()).has(Trouble::Pending, "Service default/a"));
    cluster.slices.extend([slice("a", &[("node1", true), ("node2", false), ("node3", true)])]);
    for (node, count) in [("node1", 1), ("node2", 0), ("node3", 1)] {
        assert_eq!(desired(&cluster, &on(node)).instances.len(), count, "{node}");
    }
}

#[test]
fn kube_proxy_serves_the_vip_unless_a_local_listener_is_to() {
    let of = |annotations: &[(&str, &str)]| {
        let made = desired(&with([("default/a", service(1, annotations))]), &settings());
        made.instances.first().map(|instance| instance.local_address)
    };
    let vip = (claims::VIPS, "10.0.0.70");
    assert_eq!(of(&[vip]), Some(LocalAddress::Never));
    assert_eq!(of(&[vip, (claims::LOCAL_ADDRESS, "active")]), Some(LocalAddress::Active));
    assert_eq!(of(&[vip, (claims::LOCAL_ADDRESS, "sometimes")]), None);
}

#[test]
fn a_thousand_services_have_a_thousand_vips_in_few_routers() {
    let services = (0..1000_u16).map(|n| {
        let vip = format!("10.1.{}.{}", n / 250, 1 + n % 250);
        (name(&format!("default/s{n}")), wants(n.into(), &vip))
    });
    let cluster = Cluster { services: services.collect(), ..cluster() };
    let made = desired(&cluster, &settings());
    assert_eq!(made.vips().len(), 1000);
    assert!(made.instances.len() <= 8, "{}", made.instances.len());
    assert_eq!(made.troubles(), [""; 0]);
}

#[test]
fn who_finds_no_router_is_told_and_older_services_stay() {
    // Each needs one of the 189 that are there for VIPs of some nodes only.
    let services = (0..200_u16).map(|n| {
        let vip = format!("10.1.0.{}", 1 + n);
        (name(&format!("default/s{n}")), Service { local: true, ..wants(n.into(), &vip) })
    });
    let mut cluster = Cluster { services: services.collect(), ..cluster() };
    cluster.slices.extend((0..200).map(|n| slice(&format!("s{n}"), &[("node1", true)])));
    let made = desired(&cluster, &settings());
    assert_eq!(made.instances.len(), 189);
    assert!(made.has(Trouble::Exhausted, "Service default/s199"));
    assert!(!made.has(Trouble::Exhausted, "Service default/s188"));
}
