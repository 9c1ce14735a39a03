//! What holds for every configuration and for every text.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU16};
use std::path::PathBuf;
use std::time::Duration;

use hyper::http::Method;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use regex_lite::Regex;

use super::super::{
    AllFailed, Announce, Api, Auth, AuthTrailer, Backend, BodyMatch, Capabilities, Check, CommandLine,
    Config, FlowSync, Headers, HostHeader, Http, Identity, Instance, InstanceName, InterfaceName,
    InterfacePattern, InterfaceSelector, Kubernetes, Label, LoadBalancerClass, LocalAddress, Log, LogFormat,
    LogLevel, Name, NoBackend, ObjectName, OnConflict, Polling, PortRange, Preset, Probe, Protocol, Question,
    Secrets, Security, Service, ServiceMode, Sources, StatusSet, TokenFile, Transport, Unicast, Url,
    VipAddress, XdpModeChoice, diff, effective, parse, parse_with,
};
use super::edge;
use crate::api::Token;
use crate::health::{Thresholds, Weight};
use crate::types::{Centiseconds, ChecksumMode, Priority, Seconds, VirtualRouterId};
use crate::vrrp::auth::Password;
use crate::vrrp::trailer::KeyRing;

/// Text that YAML would read as something else, were it not quoted.
fn tricky_word() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &["true", "no", "null", "1e3", "0x1F", "1_000", "007", "1.5", "2026-11-21", "y"];
    prop_oneof![select(WORDS).prop_map(str::to_owned), "[a-z0-9][a-zA-Z0-9._-]{0,14}"]
}

fn path() -> impl Strategy<Value = PathBuf> {
    "(/[^/\\pC\\pZ]{1,12}( [#:'\"])?){1,4}".prop_map(PathBuf::from)
}

fn span(most: Duration) -> impl Strategy<Value = Duration> {
    (0..=u64::try_from(most.as_micros()).expect("fits")).prop_map(Duration::from_micros)
}

fn interface() -> impl Strategy<Value = InterfaceSelector> {
    prop_oneof![
        tricky_word().prop_map(|name| InterfaceSelector::Name(InterfaceName::new(&name).expect("valid"))),
        Just(InterfaceSelector::VipSubnet),
        Just(InterfaceSelector::DefaultRoute),
        select(&["^en", "eth[0-9]+$", "a: b", "#", "'", "\\d"][..])
            .prop_map(|text| InterfaceSelector::Pattern(InterfacePattern::new(text).expect("valid"))),
    ]
}

fn kubernetes() -> impl Strategy<Value = Kubernetes> {
    let label = || "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?";
    let sources = any::<[bool; 4]>().prop_filter("at least one", |on| on.contains(&true));
    let class = prop_oneof![
        Just(LoadBalancerClass::Any),
        select(&["viplane.dev/vip", "internal", "example.com/a.b_c"][..])
            .prop_map(|class| LoadBalancerClass::Named(class.to_owned())),
    ];
    let server = option::of(select(&["https://10.0.0.1:6443", "http://[fd00::1]:8080/x"][..]));
    let flags = any::<(bool, bool)>();
    let rest = (option::of(path()), server, option::of(label()), label(), label(), 1..=238_u8, flags);
    (sources, class, rest).prop_map(|([configmap, annotation, service, pool], load_balancer_class, rest)| {
        let (kubeconfig, server, watched, namespace, name, id, (unicast, steering)) = rest;
        Kubernetes {
            kubeconfig,
            apiserver: server.map(str::to_owned),
            sources: Sources { configmap, annotation, service, pool },
            watch_namespace: watched.map(|label| Label::new(&label).expect("valid")),
            configmap: ObjectName { namespace, name },
            load_balancer_class,
            virtual_router_id: NonZeroU8::new(id).expect("1 at least"),
            unicast,
            steering,
        }
    })
}

/// Addresses of 10.0.0.0/8 and fd00::/64 without the ends of a /24.
fn v4() -> impl Strategy<Value = IpAddr> {
    (any::<u8>(), any::<u8>(), 1..255_u8).prop_map(|(b, c, d)| Ipv4Addr::new(10, b, c, d).into())
}

fn v6() -> impl Strategy<Value = IpAddr> {
    (1..=u64::MAX).prop_map(|host| Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(host)).into())
}

/// VIPs of either family or both, and unicast routers that fit them.
fn vips_and_unicast() -> impl Strategy<Value = (Vec<VipAddress>, Option<Unicast>)> {
    let addresses = (btree_set(v4(), 3..9), btree_set(v6(), 3..9));
    (addresses, 0..3_u8, option::of(option::of(1..=255_u8)), any::<bool>()).prop_map(
        |((v4, v6), families, unicast, prefix)| {
            let mut of_v4: Vec<_> = v4.into_iter().filter(|_| families != 1).collect();
            let mut of_v6: Vec<_> = v6.into_iter().filter(|_| families != 2).collect();
            let (source_v4, source_v6) = (of_v4.pop(), of_v6.pop());
            let peers: Vec<_> = of_v4.pop().into_iter().chain(of_v6.pop()).collect();
            let vip = |address: IpAddr| {
                let length = if address.is_ipv4() { 24 } else { 64 };
                VipAddress { address, prefix: prefix.then_some(length) }
            };
            let vips = of_v4.into_iter().chain(of_v6).map(vip).collect();
            let unicast = unicast.map(|min_ttl| Unicast {
                source_v4: source_v4
                    .and_then(|source| if let IpAddr::V4(source) = source { Some(source) } else { None }),
                source_v6: source_v6
                    .and_then(|source| if let IpAddr::V6(source) = source { Some(source) } else { None }),
                peers,
                min_ttl,
            });
            (vips, unicast)
        },
    )
}

prop_compose! {
    fn timing()(
        priority in 1..=255_u8,
        delays in [span(Duration::from_secs(3600)), span(Duration::from_secs(3600)), span(Duration::from_secs(3600))],
        repeat in 0..=100_u16,
        interval in 10_000..3_600_000_000_u64,
        refresh in option::of(1_000_000..86_400_000_000_u64),
    ) -> (Priority, [Duration; 3], Announce) {
        let announce = Announce {
            repeat,
            interval: Duration::from_micros(interval),
            refresh: refresh.map(Duration::from_micros),
        };
        (Priority::new(priority).expect("valid"), delays, announce)
    }
}

fn version_3() -> impl Strategy<Value = Protocol> {
    let checksum = select(&[ChecksumMode::Pseudo, ChecksumMode::Rfc9568, ChecksumMode::OldUnicast][..]);
    (1..=4095_u16, checksum).prop_map(|(interval, checksum)| Protocol::V3 {
        advert_interval: Centiseconds::new(interval).expect("valid"),
        checksum,
    })
}

/// What every password file says; a password that the configuration holds is masked in its effective form.
fn password() -> Password {
    Password::new("secret12").expect("valid")
}

fn version_2() -> impl Strategy<Value = Protocol> {
    let auth = option::of(path().prop_map(|path| Auth::PasswordFile { path, password: password() }));
    (1_u8.., auth).prop_map(|(interval, auth)| Protocol::V2 {
        advert_interval: Seconds::new(interval).expect("valid"),
        auth,
    })
}

/// What every key file says.
fn keys() -> KeyRing {
    KeyRing::parse(&"5e".repeat(32)).expect("valid")
}

fn flow_sync() -> impl Strategy<Value = Option<FlowSync>> {
    let sync = (v4(), 1..=u16::MAX, path(), option::of(btree_set(v4(), 0..3)));
    option::of(sync.prop_map(|(own, port, key_file, mut peers)| {
        if let Some(peers) = &mut peers {
            peers.remove(&own);
        }
        FlowSync { listen: (own, port).into(), key_file, keys: keys(), peers }
    }))
}

fn auth_trailer() -> impl Strategy<Value = Option<AuthTrailer>> {
    let trailer = (path(), any::<bool>());
    option::of(trailer.prop_map(|(key_file, accept_unsigned)| AuthTrailer {
        key_file,
        keys: keys(),
        accept_unsigned,
    }))
}

prop_compose! {
    fn instance()(
        name in tricky_word(),
        virtual_router_id in 1..=255_u8,
        (interface, vip_interface) in (interface(), interface()),
        (priority, [preempt_delay, hold_down, grace], announce) in timing(),
        protocols in (version_2(), version_3()), version in 2..=3,
        (preempt, accept, strict, virtual_mac) in any::<(bool, bool, bool, bool)>(),
        local_address in select(&[LocalAddress::Active, LocalAddress::Always, LocalAddress::Never][..]),
        (vips, unicast) in vips_and_unicast(),
        auth_trailer in auth_trailer(),
        all_failed in select(&[AllFailed::Close, AllFailed::Open][..]),
        on_conflict in select(&[OnConflict::Alarm, OnConflict::Fault][..]),
    ) -> Instance {
        let ipv4_alone = vips.iter().all(|vip: &VipAddress| vip.address.is_ipv4());
        let protocol = if version == 2 && ipv4_alone { protocols.0 } else { protocols.1 };
        Instance {
            name: InstanceName::new(&name).expect("valid"),
            virtual_router_id: VirtualRouterId::new(virtual_router_id).expect("valid"),
            interface, vip_interface, protocol, priority, preempt, preempt_delay, hold_down, accept, strict,
            virtual_mac, unicast, vips, auth_trailer, on_conflict, local_address, announce, grace,
            track: Vec::new(), all_failed, sync_group: None, detect: None,
        }
    }
}

fn http() -> impl Strategy<Value = Http> {
    let url =
        select(&["http://127.0.0.1:10254/healthz", "https://[fd00::1]:6443/a?b=c", "https://a.example"][..])
            .prop_map(|url| url.parse::<Url>().expect("valid"));
    let method = select(&[Method::GET, Method::POST, Method::OPTIONS][..]);
    let host = option::of(Just("a.example:80".parse::<HostHeader>().expect("valid")));
    let header = ("x-[a-d]{1,4}", tricky_word());
    let headers = proptest::collection::btree_map(header.0, header.1, 0..3).prop_map(|entries| {
        let mut headers = Headers::default();
        entries.iter().for_each(|(name, value)| headers.push(name, value).expect("valid"));
        headers
    });
    let status = vec((100..=999_u16).prop_flat_map(|first| (Just(first), first..=999)), 1..4)
        .prop_map(|ranges| StatusSet::new(ranges.into_iter().map(|(a, b)| a..=b).collect()).expect("valid"));
    let body = option::of(prop_oneof![
        tricky_word().prop_map(BodyMatch::Text),
        Just(BodyMatch::Pattern(Regex::new("^o: k$").expect("valid"))),
    ]);
    let identity = (path(), path()).prop_map(|(cert_file, key_file)| Identity { cert_file, key_file });
    let files = (option::of(path()), option::of(identity), option::of(path()), any::<bool>());
    (url, method, host, headers, status, body, files).prop_map(
        |(url, method, host, headers, status, body, (ca_file, identity, token_file, insecure))| Http {
            url,
            method,
            host,
            headers,
            status,
            body,
            ca_file,
            identity,
            token_file,
            insecure,
        },
    )
}

fn question() -> impl Strategy<Value = Question> {
    let addresses = ["127.0.0.1:80", "[fd00::1]:443"].map(|text| text.parse().expect("valid"));
    let presets = Preset::ALL.map(|(_, preset)| preset);
    prop_oneof![
        http().prop_map(|http| Question::Http(Box::new(http))),
        select(addresses.to_vec()).prop_map(Question::Tcp),
        (tricky_word(), vec(tricky_word(), 0..3))
            .prop_map(|(program, arguments)| Question::Exec(CommandLine { program, arguments })),
        path().prop_map(Question::File),
        select(presets.to_vec()).prop_map(Question::Preset),
    ]
}

prop_compose! {
    fn polling()(
        interval in 10_000..3_600_000_000_u64,
        timeout in 10_000..3_600_000_000_u64,
        jitter in span(Duration::from_secs(3600)),
        (fall, rise) in (1..=1000_u16, 1..=1000_u16),
        initially_up in any::<bool>(),
    ) -> Polling {
        let times = |times| NonZeroU16::new(times).expect("valid");
        Polling {
            interval: Duration::from_micros(interval),
            timeout: Duration::from_micros(timeout),
            jitter,
            thresholds: Thresholds { fall: times(fall), rise: times(rise), initially_up },
        }
    }
}

fn check() -> impl Strategy<Value = Check> {
    prop_oneof![
        tricky_word().prop_map(|name| Check::Interface(InterfaceName::new(&name).expect("valid"))),
        (question(), polling()).prop_map(|(question, polling)| Check::Polled(question, polling)),
    ]
}

prop_compose! {
    fn probe()(name in tricky_word(), check in check(), weight in -254..=254_i64) -> Probe {
        Probe {
            name: Name::new(&name).expect("valid"),
            check,
            weight: Weight::try_from(weight).expect("valid"),
        }
    }
}

/// Some track some probes, and some are in a sync group, which agrees in what it must.
fn track_and_group(instances: &mut [Instance], probes: &[Probe], tracks: usize, group: Option<String>) {
    let group = group.map(|name| Name::new(&name).expect("valid"));
    let Some(model) = instances.first().cloned() else { return };
    for (index, instance) in instances.iter_mut().enumerate() {
        instance.track = probes.iter().skip(index).take(tracks).map(|probe| probe.name.clone()).collect();
        let ipv4_alone = instance.vips.iter().all(|vip| vip.address.is_ipv4());
        let speaks_it = ipv4_alone || matches!(model.protocol, Protocol::V3 { .. });
        if index % 2 == 0 && group.is_some() && speaks_it {
            instance.priority = model.priority;
            instance.protocol.clone_from(&model.protocol);
            instance.preempt = model.preempt;
            instance.preempt_delay = model.preempt_delay;
            instance.hold_down = model.hold_down;
            instance.all_failed = AllFailed::Close;
            instance.sync_group.clone_from(&group);
        }
    }
}

fn token() -> Token {
    Token::new("0123456789abcdef").expect("valid")
}

/// Without TLS: its files are not made up.
fn api() -> impl Strategy<Value = Api> {
    let listen = (any::<IpAddr>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    let token = option::of(path().prop_map(|path| TokenFile { path, token: token() }));
    (listen, token).prop_map(|(listen, token)| Api { listen, tls: None, token })
}

/// What a service is made of: its ports, how they are served, and how many backends there are of what weight.
type Asked = (Vec<(u16, u16)>, ServiceMode, Option<u64>, NoBackend, Vec<u16>);

fn asked() -> impl Strategy<Value = Asked> {
    let modes = [ServiceMode::Local, ServiceMode::Direct, ServiceMode::Nat, ServiceMode::Tunnel];
    let closed = [NoBackend::Reject, NoBackend::Drop, NoBackend::Pass];
    (
        btree_set(0..200_u16, 1..4)
            .prop_map(|firsts| firsts.into_iter().map(|first| (first * 300 + 1, first)).collect()),
        select(modes.to_vec()),
        option::of(1..86_400_u64),
        select(closed.to_vec()),
        vec(any::<u16>(), 0..4),
    )
}

/// One for each VIP that takes traffic, as long as there are any.
fn services(instances: &[Instance], probes: &[Probe], asked: Vec<Asked>) -> Vec<Service> {
    let vips = instances.iter().filter(|instance| instance.accepts()).flat_map(|instance| &instance.vips);
    let service = |(number, (vip, asked)): (usize, (&VipAddress, Asked))| {
        let (ports, mode, affinity, no_backend, weights) = asked;
        let port = |number| NonZeroU16::new(number).expect("not 0");
        let range = |(first, more): (u16, u16)| {
            let (last, target) = (first + more, if mode.maps_ports() { first / 2 + 1 } else { first });
            PortRange::new(Transport::Udp, port(first), port(last), port(target)).expect("fits")
        };
        // Of networks that have no VIP.
        let backend = |(host, weight): (u16, u16)| Backend {
            address: match vip.address {
                IpAddr::V4(_) => Ipv4Addr::from_bits(0xac10_0001 + u32::from(host)).into(),
                IpAddr::V6(_) => Ipv6Addr::from_bits((0xfc00 << 112) + 1 + u128::from(host)).into(),
            },
            weight,
            probe: probes.get(usize::from(host)).map(|probe| probe.name.clone()),
        };
        Service {
            name: Name::new(&format!("s{number}")).expect("valid"),
            vip: vip.address,
            ports: ports.into_iter().map(range).collect(),
            mode,
            affinity: affinity.map(Duration::from_secs),
            source_ranges: if number == 0 { vec![vip.address.into()] } else { Vec::new() },
            no_backend,
            backends: (0..).zip(weights).map(backend).collect(),
        }
    };
    vips.zip(asked).enumerate().map(service).collect()
}

prop_compose! {
    fn any_config()(
        (node, flow_sync) in (tricky_word(), flow_sync()),
        (runtime_dir, state_dir, pin_dir) in (path(), path(), option::of(path())),
        level in select(&[LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace][..]),
        api in option::of(api()),
        format in select(&[LogFormat::Text, LogFormat::Json][..]),
        xdp_mode in select(&[XdpModeChoice::Auto, XdpModeChoice::Driver, XdpModeChoice::Skb][..]),
        capabilities in select(&[Capabilities::Drop, Capabilities::Keep][..]),
        (seccomp, reload_on_change) in (any::<bool>(), any::<bool>()),
        (interface, kubernetes) in (interface(), option::of(kubernetes())),
        mut instances in vec(instance(), 0..5),
        (mut probes, tracks, group) in (vec(probe(), 0..4), 0..3_usize, option::of(tricky_word())),
        asked in vec(asked(), 0..4),
    ) -> Config {
        let (mut names, mut ids, mut vips) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        instances.retain(|instance: &Instance| {
            names.insert(instance.name.clone())
                & ids.insert(instance.virtual_router_id)
                & instance.vips.iter().all(|vip| vips.insert(vip.address))
        });
        let mut probe_names = BTreeSet::new();
        probes.retain(|probe| probe_names.insert(probe.name.clone()));
        track_and_group(&mut instances, &probes, tracks, group);
        let log = Log { level, format };
        let services = services(&instances, &probes, asked);
        Config {
            node,
            runtime_dir,
            state_dir,
            pin_dir,
            log,
            api,
            security: Security { capabilities, seccomp },
            reload_on_change,
            xdp_mode,
            interface,
            flow_sync,
            probes,
            instances,
            kubernetes,
            services,
        }
    }
}

proptest! {
    #[test]
    fn the_effective_form_reads_back_as_the_same_configuration(config in any_config()) {
        let text = effective(&config);
        let secrets = Secrets {
            password_file: &|_| Ok(password()),
            key_file: &|_| Ok(keys()),
            token_file: &|_| Ok(token()),
            ..Secrets::NONE
        };
        let read = parse_with(&text, "effective", "another-node", &secrets);
        prop_assert!(read.is_ok(), "{}\n{}", read.unwrap_err(), text);
        prop_assert_eq!(read.unwrap().0, config);
    }

    #[test]
    fn two_configurations_differ_if_and_only_if_they_are_unequal(old in any_config(), new in any_config()) {
        prop_assert!(diff(&old, &old).is_empty());
        prop_assert_eq!(diff(&old, &new).is_empty(), old == new);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*|[\\[\\]{}:,&*!|>'\"\\-# \\n\\ta-b0-9]*") {
        let _ = parse(&text, "f", "n");
    }

    #[test]
    fn no_edit_of_a_valid_file_makes_it_panic(at in 0..400_usize, length in 0..20_usize, put in "\\PC{0,4}|[\\[\\]{}:*&\\n\\t ]{0,4}") {
        let text = edge("unicast: {source: [10.0.0.1, \"fd00::1\"], peers: [10.0.0.2, \"fd00::2\"]}\nannounce: {repeat: 3}\ngrace: 5s");
        let (at, end) = (at.min(text.len()), (at + length).min(text.len()));
        let edited = format!("{}{put}{}", &text[..at], &text[end..]);
        if let Err(problems) = parse(&edited, "f", "n") {
            for line in problems.lines() {
                prop_assert!(!line.contains('\n') && line.starts_with("f:"), "{line:?}");
            }
        }
    }
}
