//! `services`: what is accepted, what is refused and where, and what stands for what.

use std::time::Duration;

use super::super::{Backend, Config, NoBackend, PortRange, ServiceMode, Transport, effective};
use super::{config, edge_with_vips, errors, warnings};

/// A file with an instance that has two VIPs, a probe of backends, and these services from line 8 on.
fn with(services: &str) -> String {
    let probes = "probes:\n  - {name: tcp80, tcp: {address: \"{address}:80\"}}\n";
    let services: String = services.lines().map(|line| format!("  {line}\n")).collect();
    format!("{probes}{}services:\n{services}", edge_with_vips("10.0.0.50, \"fd00::50\"", ""))
}

/// One service named web at 10.0.0.50, with these keys.
fn web(keys: &str) -> String {
    with(&format!("- {{name: web, vip: 10.0.0.50, {keys}}}"))
}

/// What is wrong with it, without the place of the service.
fn wrong(keys: &str) -> Vec<String> {
    let cut = |line: String| line.split_once("services[0]").map_or(line.clone(), |(_, rest)| rest.to_owned());
    errors(&web(keys)).into_iter().map(cut).collect()
}

fn ports(keys: &str) -> Vec<String> {
    let Config { services, .. } = config(&web(keys));
    let ports = services[0].ports.iter();
    ports.map(|range| format!("{range}+{}", range.shift())).collect()
}

const BACKEND: &str = "backends: [{address: 10.0.0.7}]";

#[test]
fn the_example_of_the_manual_is_read() {
    let file = with(
        "- name: web\n  vip: 10.0.0.50\n  ports: [{port: 80, target: 8080, protocol: tcp}]\n  mode: nat\n  \
         proxy_protocol: null\n  affinity: client_ip\n  affinity_timeout: 3h\n  source_ranges: [10.0.0.0/8]\n  \
         no_backend: drop\n  backends: [{address: 10.0.1.7, weight: 3, probe: tcp80}]",
    );
    let service = &config(&file).services[0];
    assert_eq!((service.name.as_str(), service.vip.to_string()), ("web", "10.0.0.50".to_owned()));
    assert_eq!((service.mode, service.no_backend), (ServiceMode::Nat, NoBackend::Drop));
    assert_eq!(service.affinity, Some(Duration::from_secs(10_800)));
    let Backend { address, weight, probe } = &service.backends[0];
    assert_eq!((address.to_string().as_str(), *weight), ("10.0.1.7", 3));
    assert_eq!(probe.as_ref().map(super::super::Name::as_str), Some("tcp80"));
    assert_eq!(warnings(&file), [""; 0]);
}

#[test]
fn what_is_not_said_has_defaults() {
    let file = web("ports: [80]");
    let service = &config(&file).services[0];
    assert_eq!((service.mode, service.no_backend), (ServiceMode::Local, NoBackend::Reject));
    assert!(service.affinity.is_none() && service.source_ranges.is_empty() && service.backends.is_empty());
    let one = config(&web(&format!("ports: 80, mode: dr, {BACKEND}")));
    assert_eq!((one.services[0].backends[0].weight, &one.services[0].backends[0].probe), (1, &None));
}

#[test]
fn ports_are_one_a_range_or_all_of_a_protocol() {
    for (written, read) in [
        ("ports: 80", &["80/tcp+0"][..]),
        ("ports: [80, 443]", &["80/tcp+0", "443/tcp+0"]),
        ("ports: \"8000-8100\"", &["8000-8100/tcp+0"]),
        ("ports: [53/udp, 53/tcp]", &["53/udp+0", "53/tcp+0"]),
        ("ports: all", &["all/tcp+0", "all/udp+0", "all/sctp+0"]),
        ("ports: [all/udp]", &["all/udp+0"]),
        ("ports: [{port: all, protocol: tcp}]", &["all/tcp+0"]),
        ("ports: [{port: \"8000-8100\", protocol: udp}]", &["8000-8100/udp+0"]),
        ("mode: nat, ports: [{port: 80, target: 8080}]", &["80/tcp+8000"]),
        ("mode: nat, ports: [{port: \"80-89\", target: \"70-79\"}]", &["80-89/tcp+65526"]),
        ("mode: nat, ports: [{port: \"80-89\", target: 8080}]", &["80-89/tcp+8000"]),
        ("ports: [1, 65535]", &["1/tcp+0", "65535/tcp+0"]),
        ("ports: \"1-65535\"", &["1-65535/tcp+0"]),
    ] {
        assert_eq!(ports(written), read, "{written}");
    }
}

#[test]
fn ports_that_are_none_or_do_not_fit_are_refused() {
    let none = ".ports[0]: must be a port (1-65535), a range of them as in \"8000-8100\", or `all`, not";
    for (written, expected) in [
        ("ports: [0]", format!("{none} \"0\"")),
        ("ports: [65536]", format!("{none} \"65536\"")),
        ("ports: [-1]", format!("{none} \"-1\"")),
        ("ports: [http]", format!("{none} \"http\"")),
        ("ports: [80/icmp]", format!("{none} \"80/icmp\"")),
        ("ports: [true]", format!("{none} true")),
        ("ports: [90-80]", ".ports[0]: ends at 80, before it begins at 90".to_owned()),
        ("ports: []", ".ports: needs at least one port".to_owned()),
        ("mode: dr", ".ports: is missing".to_owned()),
        (
            "mode: nat, ports: [{port: \"1000-2000\", target: 65000}]",
            ".ports[0]: the backends' ports would go beyond 65535".to_owned(),
        ),
        (
            "mode: nat, ports: [{port: \"80-89\", target: \"80-81\"}]",
            ".ports[0].target: has 2 ports for 10: they are mapped one to one".to_owned(),
        ),
        (
            "mode: nat, ports: [{port: all, target: 80}]",
            ".ports[0].target: must be left out: all ports stay as they are".to_owned(),
        ),
        (
            "mode: nat, ports: [{port: 80/tcp, protocol: udp}]",
            ".ports[0].port: names tcp, and `protocol` udp".to_owned(),
        ),
    ] {
        let found: Vec<_> = wrong(written).into_iter().filter(|line| !line.contains("warning")).collect();
        assert_eq!(found, [expected], "{written}");
    }
}

#[test]
fn a_mode_serves_what_it_can() {
    for (keys, expected) in [
        (
            format!("mode: dr, ports: [{{port: 80, target: 81}}], {BACKEND}"),
            ".ports[0]: mode dr leaves ports as they are: leave `target` out, or take `mode: nat`",
        ),
        (
            format!("mode: tunnel, ports: [{{port: 80, target: 81}}], {BACKEND}"),
            ".ports[0]: mode tunnel leaves ports as they are: leave `target` out, or take `mode: nat`",
        ),
        (
            format!("mode: nat, ports: [{{port: 80, target: 81, protocol: sctp}}], {BACKEND}"),
            ".ports[0]: SCTP keeps its ports: its checksum covers the whole packet; leave `target` out",
        ),
        (
            format!("mode: dr, proxy_protocol: v2, ports: 80, {BACKEND}"),
            ".proxy_protocol: needs `mode: proxy`: mode dr leaves what clients send as it is",
        ),
        (
            "mode: dr, ports: 80, backends: [{address: \"fd00::7\"}]".to_owned(),
            ".backends[0]: mode dr cannot bring what is sent to 10.0.0.50 to fd00::7: they are of different families \
             (`mode: proxy` translates between them)",
        ),
    ] {
        assert_eq!(wrong(&keys), [expected], "{keys}");
    }
    config(&web(&format!("mode: nat, ports: [{{port: 80, protocol: sctp}}], {BACKEND}")));
    config(&web("mode: tunnel, ports: 80, backends: [{address: \"fd00::7\"}]"));
    let v6 =
        with("- {name: web, vip: \"fd00::50\", ports: 80, mode: tunnel, backends: [{address: 10.0.0.7}]}");
    assert!(errors(&v6)[0].ends_with("IPv6 goes in IPv6 tunnels only"));
}

#[test]
fn a_vip_of_a_service_is_one_that_takes_traffic() {
    let other = with("- {name: web, vip: 10.0.0.51, ports: 80}");
    assert_eq!(
        errors(&other),
        ["9:22: services[0].vip: 10.0.0.51 is no instance's VIP: add it to the `vips` of one"]
    );
    let closed = web("ports: 80").replace("vips:", "accept: false\n    vips:");
    assert_eq!(
        errors(&closed),
        ["10:22: services[0].vip: 10.0.0.50: instance edge takes no traffic to it (`accept: false`)"]
    );
}

#[test]
fn a_port_belongs_to_one_service() {
    let two = |first: &str, second: &str| {
        with(&format!(
            "- {{name: a, vip: 10.0.0.50, ports: {first}}}\n- {{name: b, vip: 10.0.0.50, ports: {second}}}"
        ))
    };
    for (first, second, expected) in [
        (
            "80",
            "80",
            "10:38: services[1].ports: 80/tcp of 10.0.0.50 is taken already at services[0].ports (80/tcp)",
        ),
        (
            "[\"8000-8100\"]",
            "[7000, \"8100-8200\"]",
            "10:45: services[1].ports[1]: 8100-8200/tcp of 10.0.0.50 is taken already at services[0].ports[0] (8000-8100/tcp)",
        ),
        (
            "all/tcp",
            "all/tcp",
            "10:38: services[1].ports: all/tcp of 10.0.0.50 is taken already at services[0].ports (all/tcp)",
        ),
        (
            "[80, \"1-1000\"]",
            "443/udp",
            "9:43: services[0].ports[1]: 1-1000/tcp of 10.0.0.50 is taken already at services[0].ports[0] (80/tcp)",
        ),
    ] {
        assert_eq!(errors(&two(first, second)), [expected], "{first} {second}");
    }
    for (first, second) in [("80", "80/udp"), ("all/tcp", "80"), ("[\"80-89\"]", "[\"90-99\"]")] {
        config(&two(first, second));
    }
    config(&with("- {name: a, vip: 10.0.0.50, ports: 80}\n- {name: b, vip: \"fd00::50\", ports: 80}"));
}

#[test]
fn names_backends_and_probes_are_checked() {
    let twice = with("- {name: a, vip: 10.0.0.50, ports: 80}\n- {name: a, vip: 10.0.0.50, ports: 81}");
    assert_eq!(errors(&twice), ["10:12: services[1].name: a stands already at services[0].name"]);
    for (backends, expected) in [
        ("[{address: 10.0.0.7}, {address: 10.0.0.7}]", ".backends[1]: 10.0.0.7 stands already in this list"),
        (
            "[{address: 10.0.0.50}]",
            ".backends[0].address: 10.0.0.50 is a VIP: a backend is named by an address of its own",
        ),
        ("[{address: 10.0.0.7, probe: web}]", ".backends[0].probe: web is no probe; there are: tcp80"),
        (
            "[{address: 10.0.0.7, weight: 65536}]",
            ".backends[0].weight: must be a whole number, 0-65535, not the number 65536",
        ),
        ("[{address: a}]", ".backends[0].address: \"a\" is not an IP address"),
        ("[{weight: 1}]", ".backends[0].address: is missing"),
    ] {
        assert_eq!(wrong(&format!("mode: nat, ports: 80, backends: {backends}")), [expected], "{backends}");
    }
}

#[test]
fn source_ranges_are_ranges_of_the_vips_family() {
    for (ranges, expected) in [
        ("[10.0.0.1/8]", ".source_ranges[0]: 10.0.0.1/8 has bits beyond its prefix: write 10.0.0.0/8"),
        (
            "[\"fd00::/8\"]",
            ".source_ranges[0]: fd00::/8 is of another family than the VIP: nobody would be in it",
        ),
        ("[10.0.0.0/8, 10.0.0.0/8]", ".source_ranges[1]: 10.0.0.0/8 stands already in this list"),
        (
            "[10.0.0.0/33]",
            ".source_ranges[0]: must be a range as in \"10.0.0.0/8\" or \"fd00::/8\", not \"10.0.0.0/33\"",
        ),
    ] {
        assert_eq!(wrong(&format!("ports: 80, source_ranges: {ranges}")), [expected], "{ranges}");
    }
    let one = config(&web("ports: 80, source_ranges: [10.1.2.3, 0.0.0.0/0]"));
    assert_eq!(
        one.services[0].source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.1.2.3/32", "0.0.0.0/0"]
    );
}

#[test]
fn a_probe_of_backends_is_for_backends_alone() {
    let tracked = web("ports: 80").replace("vips:", "track: [tcp80]\n    vips:");
    let expected = "tcp80 asks `{address}`, which backends have: only their `probe` can name it";
    assert!(errors(&tracked)[0].ends_with(expected));
    assert!(warnings(&web("ports: 80"))[0].ends_with("no instance tracks tcp80"));
    let probed = web("mode: nat, ports: 80, backends: [{address: 10.0.0.7, probe: tcp80}]");
    assert_eq!(warnings(&probed), [""; 0]);
}

#[test]
fn what_has_no_effect_is_pointed_out() {
    for (keys, expected) in [
        (
            format!("ports: [{{port: 80, target: 8080}}], {BACKEND}"),
            &[
                ".ports[0]: warning: `target` has no effect: mode local leaves ports as they are",
                ".backends: warning: have no effect: in mode local this node serves by itself",
            ][..],
        ),
        ("ports: 80, mode: dr".to_owned(), &[": warning: there is no backend: nobody will serve it"]),
        (
            "ports: 80, affinity_timeout: 1h".to_owned(),
            &[".affinity_timeout: warning: has no effect without `affinity: client_ip`"],
        ),
    ] {
        let found: Vec<String> = warnings(&web(&keys))
            .iter()
            .filter_map(|line| Some(line.split_once("services[0]")?.1.to_owned()))
            .collect();
        assert_eq!(found, expected, "{keys}");
    }
}

#[test]
fn a_thousand_services_with_ten_backends_each_are_a_file_like_another() {
    let service = |number: u32| {
        let backends: String =
            (0..10).map(|backend| format!("{{address: 10.1.{}.{}}},", number % 250, backend + 1)).collect();
        format!(
            "- {{name: s{number}, vip: 10.0.0.50, ports: {}, mode: dr, backends: [{backends}]}}\n",
            1000 + number
        )
    };
    let config = config(&with(&(0..1000).map(service).collect::<String>()));
    assert_eq!(config.services.iter().map(|service| service.backends.len()).sum::<usize>(), 10_000);
}

#[test]
fn the_effective_configuration_says_the_same_again() {
    let file = with(
        "- {name: a, vip: 10.0.0.50, ports: [80, \"8000-8100\", all/udp], mode: nat, affinity: client_ip, affinity_timeout: \
         1m, source_ranges: [10.0.0.0/8], no_backend: pass, backends: [{address: 10.0.0.7, weight: 0, probe: tcp80}]}\n\
         - {name: b, vip: \"fd00::50\", ports: [{port: 80}], mode: tunnel, backends: [{address: \"fd00::7\"}]}",
    );
    let read = config(&file);
    assert_eq!(config(&effective(&read)), read);
}

#[test]
fn all_ports_overlap_with_no_single_one() {
    let all = PortRange::all(Transport::Tcp);
    let one = |number: u16| {
        let number = std::num::NonZeroU16::new(number).unwrap();
        PortRange::new(Transport::Tcp, number, number, number).unwrap()
    };
    assert!(!all.overlaps(&one(1)) && all.overlaps(&all) && one(1).overlaps(&one(1)));
    assert!(!all.overlaps(&PortRange::all(Transport::Udp)));
}
