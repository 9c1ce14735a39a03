//! Traffic that is steered: which ports, by which mode, to whom.

use std::net::IpAddr;

use super::*;
use crate::cluster::{SlicePort, Traffic};
use crate::model::{LocalAddress, Service as Steered, steering};

/// `default/web` at 10.0.0.70, port 80, by a mode.
fn web(mode: &str) -> Service {
    service(1, &[(claims::VIPS, "10.0.0.70"), (steering::MODE, mode)])
}

fn with(services: impl IntoIterator<Item = (&'static str, Service)>) -> Cluster {
    let services = services.into_iter().map(|(text, service)| (name(text), service)).collect();
    Cluster { services, ..cluster() }
}

/// A port of endpoints.
fn at(name: &str, protocol: &str, port: u16) -> SlicePort {
    SlicePort { name: name.into(), protocol: protocol.into(), port }
}

/// An endpoint: `10.2.0.1@node1`, ready; `10.2.0.1@node1 ends`, terminating; `... down`, not ready.
fn endpoint(text: &str) -> Endpoint {
    let (place, state) = text.split_once(' ').unwrap_or((text, ""));
    let (address, node) = place.split_once('@').unwrap();
    Endpoint {
        address: Some(address.parse().unwrap()),
        node: Some(node.to_owned()),
        ready: state.is_empty(),
        draining: state == "ends",
    }
}

/// A slice of `default/SERVICE`; `id` tells it from others.
fn endpoints(service: &str, id: &str, ports: &[SlicePort], endpoints: &[&str]) -> (ObjectName, Slice) {
    let endpoints = endpoints.iter().map(|text| endpoint(text)).collect();
    let slice = Slice { service: service.to_owned(), ports: ports.to_vec(), endpoints };
    (name(&format!("default/{service}-{id}")), slice)
}

/// `default/web` with these endpoints at port 8080.
fn served(mode: &str, all: &[&str]) -> Cluster {
    let mut cluster = with([("default/web", web(mode))]);
    cluster.slices.extend([endpoints("web", "a", &[at("", "TCP", 8080)], all)]);
    cluster
}

/// `MODE VIP PORT[>TARGET]/PROTOCOL...: BACKEND[=WEIGHT]...`
fn line(service: &Steered) -> String {
    let port = |port: &crate::model::ServicePort| {
        let target = port.target.map(|target| format!(">{target}")).unwrap_or_default();
        format!("{}{target}/{}", port.port, port.protocol.word())
    };
    let backend = |backend: &vip_kube_protocol::Backend| match backend.weight {
        1 => backend.address.to_string(),
        weight => format!("{}={weight}", backend.address),
    };
    let ports: Vec<String> = service.ports.iter().map(port).collect();
    let backends: Vec<String> = service.backends.iter().map(backend).collect();
    format!("{} {} {}: {}", service.mode.word(), service.vip, ports.join(","), backends.join(" "))
}

fn lines(cluster: &Cluster, settings: &Settings) -> Vec<String> {
    desired(cluster, settings).steered.iter().map(line).collect()
}

fn one(cluster: &Cluster) -> String {
    let all = lines(cluster, &settings());
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

// === modes ===

#[test]
fn a_service_is_steered_by_the_mode_that_it_names_and_not_without_one() {
    let all = ["10.2.0.1@node1", "10.2.0.2@node2"];
    assert_eq!(one(&served("nat", &all)), "nat 10.0.0.70 80>8080/tcp: 10.2.0.1 10.2.0.2");
    assert_eq!(one(&served("proxy", &all)), "proxy 10.0.0.70 80>8080/tcp: 10.2.0.1 10.2.0.2");
    assert_eq!(one(&served("local", &all)), "local 10.0.0.70 80/tcp: ");
    let mut unsteered = served("nat", &all);
    unsteered.services.insert(name("default/web"), wants(1, "10.0.0.70"));
    let made = desired(&unsteered, &settings());
    assert_eq!((made.steered.len(), made.vips()), (0, vec!["10.0.0.70".to_owned()]));
}

#[test]
fn modes_that_leave_ports_as_they_are_need_endpoints_on_the_same_port() {
    for mode in ["dr", "tunnel"] {
        let mut cluster = served(mode, &["10.0.0.2@node2"]);
        let made = desired(&cluster, &settings());
        assert!(made.steered.is_empty() && made.has(Trouble::Invalid, "Service default/web"));
        assert!(made.troubles()[0].contains("targetPort is 8080"), "{:?}", made.troubles());
        cluster.slices.extend([endpoints("web", "a", &[at("", "TCP", 80)], &["10.0.0.2@node2"])]);
        assert_eq!(one(&cluster), format!("{mode} 10.0.0.70 80/tcp: 10.0.0.2"));
    }
}

#[test]
fn what_is_no_mode_steers_nothing_and_takes_no_vip_away() {
    for annotations in [
        vec![(steering::MODE, "ipvs")],
        vec![(steering::MODE, "")],
        vec![(steering::PROXY_PROTOCOL, "v1")],
        vec![(steering::MODE, "nat"), (steering::PROXY_PROTOCOL, "v1")],
        vec![(steering::MODE, "proxy"), (steering::PROXY_PROTOCOL, "v3")],
    ] {
        let mut all = vec![(claims::VIPS, "10.0.0.70")];
        all.extend(annotations);
        let made = desired(&with([("default/web", service(1, &all))]), &settings());
        assert!(made.steered.is_empty() && made.has(Trouble::Invalid, "Service default/web"), "{all:?}");
        assert_eq!(made.vips(), ["10.0.0.70"]);
    }
}

#[test]
fn a_proxy_ends_connections_on_its_node_which_needs_the_vip_for_that() {
    let with_more = |more: &[(&str, &str)]| {
        let mut all = vec![(claims::VIPS, "10.0.0.70"), (steering::MODE, "proxy")];
        all.extend(more);
        desired(&with([("default/web", service(1, &all))]), &settings())
    };
    assert_eq!(with_more(&[]).instances[0].local_address, LocalAddress::Active);
    assert_eq!(
        with_more(&[(steering::PROXY_PROTOCOL, "v2")]).steered[0].proxy_protocol,
        Some(crate::model::ProxyProtocol::V2)
    );
    let refused = with_more(&[(claims::LOCAL_ADDRESS, "never")]);
    assert!(refused.vips().is_empty() && refused.has(Trouble::Invalid, "Service default/web"));
    let mut udp = web("proxy");
    udp.ports.insert(Port { protocol: "UDP".into(), port: 53 });
    let made = desired(&with([("default/web", udp)]), &settings());
    assert_eq!(made.steered[0].ports.len(), 1);
    assert!(made.troubles().iter().any(|line| line.contains("UDP port 53")), "{:?}", made.troubles());
}

#[test]
fn who_needs_the_vip_on_every_node_has_a_router_of_its_own() {
    let always = |created, vip: &str| {
        service(created, &[(claims::VIPS, vip), (claims::LOCAL_ADDRESS, "always"), (steering::MODE, "dr")])
    };
    let made = desired(
        &with([("default/a", always(1, "10.0.0.70")), ("default/b", always(2, "10.0.0.71"))]),
        &settings(),
    );
    let on_lo: Vec<_> =
        made.instances.iter().map(|router| (router.vips.len(), router.local_address)).collect();
    assert_eq!(on_lo, [(1, LocalAddress::Always); 2]);
}

// === ports ===

#[test]
fn a_named_port_is_where_its_slice_has_it() {
    let ports = [port(80), port(443)];
    let names = [(port(80), "http".to_owned()), (port(443), "https".to_owned())];
    let traffic = Traffic { port_names: names.into(), ..Traffic::default() };
    let mut cluster = with([("default/web", Service { ports: ports.into(), traffic, ..web("nat") })]);
    let both =
        [at("https", "TCP", 8443), at("http", "TCP", 8080), at("metrics", "TCP", 9090), at("http", "UDP", 1)];
    cluster.slices.extend([endpoints("web", "a", &both, &["10.2.0.1@node1"])]);
    assert_eq!(one(&cluster), "nat 10.0.0.70 80>8080/tcp,443>8443/tcp: 10.2.0.1");
    // Pods of which some have no https.
    cluster.slices.extend([endpoints("web", "b", &[at("http", "TCP", 8080)], &["10.2.0.2@node1"])]);
    let made = desired(&cluster, &settings()).steered;
    let lines: Vec<_> = made.iter().map(line).collect();
    assert_eq!(
        lines,
        ["nat 10.0.0.70 80>8080/tcp: 10.2.0.1 10.2.0.2", "nat 10.0.0.70 443>8443/tcp: 10.2.0.1"]
    );
    let names: Vec<_> = made.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["kube-default.web-10.0.0.70", "kube-default.web_tcp_443-10.0.0.70"]);
}

#[test]
fn of_several_numbers_of_a_port_most_endpoints_decide_and_the_others_are_said() {
    let mut cluster = served("nat", &["10.2.0.1@node1"]);
    cluster.slices.extend([endpoints(
        "web",
        "b",
        &[at("", "TCP", 9090)],
        &["10.2.0.2@node1", "10.2.0.3@node1"],
    )]);
    assert_eq!(one(&cluster), "nat 10.0.0.70 80>9090/tcp: 10.2.0.2 10.2.0.3");
    assert!(desired(&cluster, &settings()).troubles()[0].contains("1 endpoints listen on port 8080"));
    cluster.slices.extend([endpoints(
        "web",
        "a",
        &[at("", "TCP", 8080)],
        &["10.2.0.1@node1", "10.2.0.4@node1"],
    )]);
    assert_eq!(one(&cluster), "nat 10.0.0.70 80>8080/tcp: 10.2.0.1 10.2.0.4", "of equals the lowest");
    // One that takes no traffic does not count, and is not said either.
    cluster.slices.extend([endpoints("web", "b", &[at("", "TCP", 9090)], &["10.2.0.2@node1 down"])]);
    assert_eq!(desired(&cluster, &settings()).troubles(), [""; 0]);
}

#[test]
fn each_protocol_has_its_own_ports_and_sctp_keeps_them() {
    let udp = Port { protocol: "UDP".into(), port: 80 };
    let sctp = Port { protocol: "SCTP".into(), port: 80 };
    let ports = [port(80), udp, sctp].into();
    let mut cluster = with([("default/web", Service { ports, ..web("nat") })]);
    let all = [at("", "TCP", 8080), at("", "UDP", 8053), at("", "SCTP", 80)];
    cluster.slices.extend([endpoints("web", "a", &all, &["10.2.0.1@node1"])]);
    assert_eq!(one(&cluster), "nat 10.0.0.70 80/sctp,80>8080/tcp,80>8053/udp: 10.2.0.1");
    cluster.slices.extend([endpoints("web", "a", &[at("", "SCTP", 81)], &["10.2.0.1@node1"])]);
    assert!(
        desired(&cluster, &settings())
            .troubles()
            .iter()
            .any(|line| line.contains("SCTP port 80 is not served"))
    );
}

// === endpoints ===

#[test]
fn who_ends_keeps_its_flows_and_who_is_not_ready_is_out() {
    let all = ["10.2.0.1@node1", "10.2.0.2@node2 ends", "10.2.0.3@node3 down"];
    assert_eq!(one(&served("nat", &all)), "nat 10.0.0.70 80>8080/tcp: 10.2.0.1 10.2.0.2=0");
    // Rather those that end than nobody, as kube-proxy has it.
    assert_eq!(one(&served("nat", &all[1..])), "nat 10.0.0.70 80>8080/tcp: 10.2.0.2");
    let nobody = served("nat", &all[2..]);
    assert_eq!(one(&nobody), "nat 10.0.0.70 80/tcp: ");
    let troubles = desired(&nobody, &settings()).troubles();
    assert!(troubles[0].contains("no ready IPv4 endpoint"), "{troubles:?}");
}

#[test]
fn one_that_moves_from_a_slice_to_another_is_one_and_as_ready_as_it_is_anywhere() {
    let mut cluster = served("nat", &["10.2.0.1@node1 ends"]);
    cluster.slices.extend([endpoints("web", "b", &[at("", "TCP", 8080)], &["10.2.0.1@node1"])]);
    assert_eq!(one(&cluster), "nat 10.0.0.70 80>8080/tcp: 10.2.0.1");
}

#[test]
fn local_traffic_goes_to_the_nodes_own_endpoints_alone() {
    let all = ["10.2.0.1@node1", "10.2.0.2@node2", "10.2.0.3@node1 ends", "10.2.0.4@node3 ends"];
    let mut cluster = served("nat", &all);
    cluster.services.insert(name("default/web"), Service { local: true, ..web("nat") });
    assert_eq!(lines(&cluster, &on("node1")), ["nat 10.0.0.70 80>8080/tcp: 10.2.0.1 10.2.0.3=0"]);
    assert_eq!(lines(&cluster, &on("node2")), ["nat 10.0.0.70 80>8080/tcp: 10.2.0.2"]);
    assert_eq!(lines(&cluster, &on("node3")), [""; 0], "the VIP is not its to hold");
}

#[test]
fn each_family_has_the_endpoints_of_its_slices() {
    let both = service(1, &[(claims::VIPS, "10.0.0.70,fd00::70"), (steering::MODE, "nat")]);
    let mut cluster = with([("default/web", both)]);
    cluster.slices.extend([
        endpoints("web", "4", &[at("", "TCP", 80)], &["10.2.0.1@node1"]),
        endpoints("web", "6", &[at("", "TCP", 8080)], &["fd02::1@node1"]),
    ]);
    assert_eq!(
        lines(&cluster, &settings()),
        ["nat 10.0.0.70 80/tcp: 10.2.0.1", "nat fd00::70 80>8080/tcp: fd02::1"]
    );
    cluster.slices.remove(&name("default/web-6"));
    assert_eq!(lines(&cluster, &settings())[1], "nat fd00::70 80/tcp: ");
    // A proxy's connections are its own: of any family, where there is no other.
    let both = service(1, &[(claims::VIPS, "10.0.0.70,fd00::70"), (steering::MODE, "proxy")]);
    cluster.services.insert(name("default/web"), both);
    assert_eq!(lines(&cluster, &settings())[1], "proxy fd00::70 80/tcp: 10.2.0.1");
}

#[test]
fn an_endpoint_that_is_a_vip_is_left_out() {
    let mut cluster =
        served("nat", &["10.0.0.70@node1", "10.0.0.71@node1", "10.0.0.72@node1", "10.2.0.1@node1"]);
    cluster.services.insert(name("default/other"), wants(2, "10.0.0.71"));
    let mut settings = settings();
    settings.taken_vips = [IpAddr::from([10, 0, 0, 72])].into();
    assert_eq!(lines(&cluster, &settings), ["nat 10.0.0.70 80>8080/tcp: 10.2.0.1"]);
    let troubles = desired(&cluster, &settings).troubles();
    assert_eq!(
        troubles.iter().filter(|line| line.contains("is a VIP: it is left out")).count(),
        3,
        "{troubles:?}"
    );
}

// === clients ===

#[test]
fn a_client_keeps_its_endpoint_for_as_long_as_the_service_says() {
    let of = |affinity| {
        let traffic = Traffic { affinity, ..Traffic::default() };
        let made = desired(&with([("default/web", Service { traffic, ..web("nat") })]), &settings()).steered;
        (made[0].affinity.is_some(), made[0].affinity_timeout.clone())
    };
    assert_eq!(of(None), (false, None));
    assert_eq!(of(Some(10_800)), (true, Some("10800s".to_owned())));
    assert_eq!(of(Some(100_000)), (true, Some("86400s".to_owned())));
}

#[test]
fn ranges_of_clients_are_those_of_the_vips_family_and_nobody_is_served_by_none() {
    let of = |ranges: &[&str]| {
        let traffic = Traffic {
            source_ranges: ranges.iter().map(|text| (*text).to_owned()).collect(),
            ..Traffic::default()
        };
        let made = desired(&with([("default/web", Service { traffic, ..web("local") })]), &settings());
        let ranges: Vec<String> = made.steered[0].source_ranges.iter().map(ToString::to_string).collect();
        (ranges.join(" "), made.troubles().len())
    };
    assert_eq!(of(&[]), (String::new(), 0));
    assert_eq!(
        of(&["192.168.1.7/16", " 10.0.0.0/8", "fd00::/8", "10.0.0.0/8"]),
        ("10.0.0.0/8 192.168.0.0/16".into(), 0)
    );
    assert_eq!(of(&["fd00::/8"]), ("127.0.0.1/32".into(), 1));
    assert_eq!(of(&["ten", "10.0.0.0/8"]), ("10.0.0.0/8".into(), 1));
    assert_eq!(of(&["ten"]), ("127.0.0.1/32".into(), 2));
}

// === the ConfigMap ===

fn with_map(entries: &[(&str, &str)]) -> Cluster {
    let mut cluster = served("", &["10.2.0.1@node1", "10.2.0.2@node2"]);
    cluster.services.insert(name("default/web"), Service { load_balancer: false, ..service(1, &[]) });
    cluster.config_map = Some(config_map(entries));
    cluster
}

#[test]
fn services_of_the_config_map_are_steered_by_its_words_and_translated_without_one() {
    for (value, expected) in [
        ("default/web:NAT", "nat 10.0.0.50 80>8080/tcp: 10.2.0.1 10.2.0.2"),
        ("default/web", "nat 10.0.0.50 80>8080/tcp: 10.2.0.1 10.2.0.2"),
        ("default/web:proxy", "proxy 10.0.0.50 80>8080/tcp: 10.2.0.1 10.2.0.2"),
    ] {
        assert_eq!(one(&with_map(&[("10.0.0.50", value)])), expected);
    }
    let made = desired(&with_map(&[("10.0.0.50", "default/web:PROXY")]), &settings());
    assert_eq!(made.steered[0].proxy_protocol, Some(crate::model::ProxyProtocol::V1));
    assert_eq!(lines(&with_map(&[("10.0.0.50", "")]), &settings()), [""; 0]);
    assert_eq!(lines(&with_map(&[("10.0.0.50", "default/web:DR")]), &settings()), [""; 0], "on another port");
}

#[test]
fn of_services_that_share_a_vip_and_a_port_the_older_one_has_it() {
    let mut cluster = with_map(&[("10.0.0.50", "default/young, default/web")]);
    let ports = [port(80), port(25)].into();
    cluster
        .services
        .insert(name("default/young"), Service { ports, load_balancer: false, ..service(9, &[]) });
    let both = [at("", "TCP", 2525)];
    cluster.slices.extend([endpoints("young", "a", &both, &["10.2.0.9@node1"])]);
    let lines = lines(&cluster, &settings());
    assert_eq!(
        lines,
        ["nat 10.0.0.50 80>8080/tcp: 10.2.0.1 10.2.0.2", "nat 10.0.0.50 25>2525/tcp: 10.2.0.9"]
    );
    let troubles = desired(&cluster, &settings()).troubles();
    assert_eq!(
        troubles,
        [
            "Service default/young: Conflict: 10.0.0.50: TCP port 80 is served by the older Service default/web"
        ]
    );
}

// === room ===

#[test]
fn without_what_it_takes_nothing_is_steered_and_who_asked_is_told() {
    for (without, word) in
        [(Steering::Off, "`kubernetes.steering` is false"), (Steering::Unloaded, "start it anew")]
    {
        let settings = Settings { steering: without, ..settings() };
        let made = desired(&served("nat", &["10.2.0.1@node1"]), &settings);
        assert_eq!((made.steered.len(), made.vips()), (0, vec!["10.0.0.70".to_owned()]));
        assert!(made.has(Trouble::Pending, "Service default/web") && made.troubles()[0].contains(word));
        // Who did not say how is served as ever.
        let unsaid = desired(&with_map(&[("10.0.0.50", "default/web")]), &settings);
        assert_eq!(unsaid.troubles(), [""; 0]);
        let said = desired(&with_map(&[("10.0.0.50", "default/web:NAT")]), &settings);
        assert!(said.has(Trouble::Pending, "Service default/web"));
    }
}

#[test]
fn older_services_have_the_room_that_there_is() {
    let with_room = |change: fn(&mut Room)| {
        let mut settings = settings();
        let Steering::On(room) = &mut settings.steering else { panic!("it steers") };
        change(room);
        let traffic = || Traffic { source_ranges: vec!["10.0.0.0/8".into()], ..Traffic::default() };
        let young =
            Service { age: Age { created: 9, uid: "young".into() }, traffic: traffic(), ..web("nat") };
        let young = Service {
            annotations: [(claims::VIPS.into(), "10.0.0.71".into()), (steering::MODE.into(), "nat".into())]
                .into(),
            ..young
        };
        let mut cluster = served("nat", &["10.2.0.1@node1", "10.2.0.2@node2"]);
        cluster.services.insert(name("default/web"), Service { traffic: traffic(), ..web("nat") });
        // By its name it would be the first.
        cluster.services.insert(name("default/a"), young);
        cluster.slices.extend([endpoints("a", "a", &[at("", "TCP", 80)], &["10.2.0.1@node1"])]);
        let made = desired(&cluster, &settings);
        (
            made.steered.len(),
            made.has(Trouble::Exhausted, "Service default/a"),
            made.has(Trouble::Exhausted, "Service default/web"),
        )
    };
    assert_eq!(with_room(|_| {}), (2, false, false));
    for change in [
        (|room| room.services = 1) as fn(&mut Room),
        |room| room.ports = 1,
        |room| room.backends = 2,
        |room| room.sources = 1,
    ] {
        assert_eq!(with_room(change), (1, true, false));
    }
}

#[test]
fn a_name_of_the_files_own_services_stays_the_files() {
    let mut settings = settings();
    let Steering::On(room) = &mut settings.steering else { panic!("it steers") };
    room.taken_names.insert("kube-default.web-10.0.0.70".to_owned());
    let made = desired(&served("nat", &["10.2.0.1@node1"]), &settings);
    assert!(made.steered.is_empty() && made.has(Trouble::Conflict, "Service default/web"));
}

#[test]
fn names_are_short_and_different() {
    let long = "x".repeat(60);
    let mut cluster = cluster();
    for (n, (namespace, service)) in
        [(&long, "a"), (&long, "b"), (&"x".repeat(61), "a")].into_iter().enumerate()
    {
        let named = ObjectName { namespace: namespace.clone(), name: service.to_owned() };
        let vips = format!("10.0.0.{},fd00:1111:2222:3333:4444:5555:6666:{n}", 70 + n);
        let annotations = [(claims::VIPS, vips.as_str()), (steering::MODE, "local")];
        cluster.services.insert(named, super::service(i64::try_from(n).unwrap(), &annotations));
    }
    let made = desired(&cluster, &settings()).steered;
    let names: BTreeSet<_> = made.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names.len(), 6);
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
}
