//! The program and an API server that is slow, fails, forgets and refuses: what the agent hears of it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vip_api_server::objects::{NODES, SERVICES, SLICES, node, service, slice};
use vip_api_server::{ApiServer, Faults};
use vip_kube_protocol::{
    Backend, Kubernetes, Order, PROTOCOL, Report, Room, Steering, Telling, View, encode,
};

/// Longer than anything takes, pauses after failures included.
const SOON: Duration = Duration::from_secs(30);

/// A server and the program that follows it.
struct Cluster {
    server: ApiServer,
    child: Child,
    views: Receiver<View>,
    _kubeconfig: tempfile::NamedTempFile,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Of node1 and what else `fill` has there.
    fn start(fill: impl FnOnce(&ApiServer)) -> Self {
        let server = ApiServer::serve(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("a server");
        server.put(NODES, node("node1", &["10.0.0.1".parse().expect("an address")]));
        fill(&server);
        let mut kubeconfig = tempfile::NamedTempFile::new().expect("a file");
        kubeconfig.write_all(server.kubeconfig().as_bytes()).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_vip-kube"))
            .args([
                "--protocol",
                &PROTOCOL.to_string(),
                "--agent",
                &std::process::id().to_string(),
                "--log",
                "error",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is there");
        let order = order(kubeconfig.path());
        // Its end stays open with the child.
        child.stdin.as_mut().expect("a pipe").write_all(&order).expect("it reads");
        let (said, views) = channel();
        let reports = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in reports.lines().map_while(Result::ok) {
                if let Ok(Report::View(view)) = serde_json::from_str(&line)
                    && said.send(view).is_err()
                {
                    return;
                }
            }
        });
        Self { server, child, views, _kubeconfig: kubeconfig }
    }

    /// Waits until it says that.
    fn hears(&self, what: &str, mut wanted: impl FnMut(&View) -> bool) -> View {
        let deadline = Instant::now() + SOON;
        let mut last = None;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Ok(view) = self.views.recv_timeout(left) else { break };
            if wanted(&view) {
                return view;
            }
            last = Some(view);
        }
        panic!("not {what}: {last:#?}");
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

fn order(kubeconfig: &std::path::Path) -> Vec<u8> {
    let room = Room { services: 4096, ports: 65_536, backends: 16_000, sources: 65_536, ..Room::default() };
    encode(&Order {
        revision: 1,
        node: "node1".to_owned(),
        kubernetes: Kubernetes { kubeconfig: Some(kubeconfig.into()), ..Kubernetes::default() },
        taken_ids: [].into(),
        taken_vips: [].into(),
        steering: Steering::On(room),
        active: [].into(),
    })
    .expect("a short order")
}

/// Service `sNUMBER` at a VIP of its own; steered, if it has a mode.
fn numbered(number: u16, mode: Option<&str>) -> Value {
    let [high, low] = number.to_be_bytes();
    let mut annotations = json!({"viplane.dev/vips": format!("10.1.{high}.{low}")});
    if let Some(mode) = mode {
        annotations["viplane.dev/mode"] = json!(mode);
    }
    let mut made = service(&format!("s{number}"), &annotations);
    // By their numbers: older ones have the room that there is.
    let time = format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3600, number / 60 % 60, number % 60);
    made["metadata"]["creationTimestamp"] = json!(time);
    made
}

/// Three endpoints of it on this node; the last one's address ends with that.
fn three(number: u16, last: u8) -> Value {
    let [high, low] = number.to_be_bytes();
    let address = |n: u8| std::net::Ipv4Addr::new(10, 128 + n, high, low).into();
    slice(&format!("s{number}"), 8080, &[1, 2, last].map(|n| (address(n), "node1", true)))
}

fn fill(server: &ApiServer, count: u16, steered: u16) {
    server.put_all(SERVICES, (1..=count).map(|n| numbered(n, (n <= steered).then_some("nat"))));
    server.put_all(SLICES, (1..=count).map(|n| three(n, 3)));
}

/// Services of a document.
fn services(view: &View) -> usize {
    match &view.telling {
        Telling::Document(document) => document.services.as_array().map_or(0, Vec::len),
        _ => 0,
    }
}

#[test]
fn another_endpoint_is_told_alone() {
    let cluster = Cluster::start(|server| fill(server, 2, 2));
    cluster.hears("two services", |view| services(view) == 2 && view.in_sync);
    cluster.server.put(SLICES, three(2, 4));
    let view = cluster.hears("other backends", |view| matches!(view.telling, Telling::Backends(_)));
    let Telling::Backends(backends) = view.telling else { panic!("backends") };
    let addresses = |all: &Vec<Backend>| all.iter().map(|one| one.address.to_string()).collect::<Vec<_>>();
    let told: Vec<_> = backends.services.iter().map(|(name, all)| (name.as_str(), addresses(all))).collect();
    let expected = ["10.129.0.2", "10.130.0.2", "10.132.0.2"].map(str::to_owned).to_vec();
    assert_eq!(told, [("kube-default.s2-10.1.0.2", expected)]);
}

#[test]
fn a_server_that_forgets_is_listed_anew() {
    let cluster = Cluster::start(|server| fill(server, 1, 1));
    cluster.hears("one service", |view| services(view) == 1);
    cluster.server.expire();
    // Whatever comes while nobody watches.
    fill(&cluster.server, 3, 3);
    cluster.server.delete(SERVICES, "default", "s1");
    cluster.hears("two services", |view| services(view) == 2 && view.troubles.is_empty());
}

#[test]
fn what_is_known_stays_while_a_server_fails_and_is_followed_again_when_it_does_not() {
    let cluster = Cluster::start(|server| fill(server, 1, 1));
    cluster.hears("one service", |view| services(view) == 1);
    cluster.server.set_faults(Faults { status: Some(500), ..Faults::default() });
    cluster.server.expire();
    let fails = |view: &View| view.troubles.iter().any(|line| line.contains("answers 500"));
    let failing = cluster.hears("told of failures", fails);
    assert!(failing.in_sync && !matches!(failing.telling, Telling::Nothing), "{failing:?}");
    fill(&cluster.server, 2, 2);
    cluster.server.set_faults(Faults::default());
    let mut seen = 0;
    cluster.hears("well again", |view| {
        seen = seen.max(services(view));
        seen == 2 && view.troubles.is_empty()
    });
}

#[test]
fn a_slow_server_is_waited_for() {
    let cluster = Cluster::start(|server| {
        server.set_faults(Faults { delay: Duration::from_millis(700), ..Faults::default() });
        fill(server, 1, 1);
    });
    cluster.hears("one service", |view| services(view) == 1 && view.troubles.is_empty());
    cluster.server.put(SLICES, three(1, 9));
    cluster.hears("other backends", |view| matches!(view.telling, Telling::Backends(_)));
}

#[test]
fn a_permission_that_is_missing_is_named_and_all_else_is_followed() {
    let cluster = Cluster::start(|server| {
        server.set_faults(Faults { forbidden: Some("endpointslices".to_owned()), ..Faults::default() });
        fill(server, 1, 1);
    });
    let view = cluster.hears("told what it may not", |view| !view.troubles.is_empty());
    let trouble = view.troubles.first().expect("one");
    assert!(
        trouble.contains("list and watch endpointslices.discovery.k8s.io") && trouble.contains("ClusterRole"),
        "{trouble}"
    );
    assert!(!view.in_sync);
    cluster.server.set_faults(Faults::default());
    cluster.hears("one service", |view| services(view) == 1 && view.troubles.is_empty());
}

#[test]
fn a_thousand_services_at_once_are_told_as_one_document_or_few() {
    let cluster = Cluster::start(|_| {});
    cluster.hears("nothing yet", |view| view.in_sync);
    let begun = Instant::now();
    fill(&cluster.server, 1000, 1000);
    let (mut documents, mut complete) = (BTreeSet::new(), false);
    cluster.hears("a thousand services with endpoints", |view| {
        if let Telling::Document(document) = &view.telling {
            documents.insert(document.number);
            let all = document.services.as_array().cloned().unwrap_or_default();
            complete = all.len() == 1000 && all.iter().all(|service| service["backends"][2].is_object());
        }
        complete
    });
    println!("1000 services: {:?}, {} documents", begun.elapsed(), documents.len());
    assert!(documents.len() < 100, "{} documents", documents.len());
}

#[test]
fn thousands_of_services_take_little_memory() {
    let full = std::env::var_os("VIPLANE_FULL").is_some();
    let counts: &[(u16, u16, u64)] = if full {
        &[(100, 0, 24), (100, 100, 24), (5000, 0, 64), (5000, 2000, 64)]
    } else {
        &[(100, 100, 24)]
    };
    for (count, steered, limit_mib) in counts {
        let cluster = Cluster::start(|server| fill(server, *count, *steered));
        cluster.hears("all services", |view| view.in_sync && services(view) == usize::from(*steered));
        // What a change takes, too.
        for last in 4..14 {
            cluster.server.put(SLICES, three(1, last));
        }
        if *steered > 0 {
            cluster.hears("other backends", |view| matches!(view.telling, Telling::Backends(_)));
        }
        let resident = cluster.resident_kib();
        println!("{count} services, {steered} of them steered: vip-kube has {resident} KiB resident");
        let limit = if cfg!(debug_assertions) { 2 * limit_mib } else { *limit_mib };
        assert!(resident < limit * 1024, "{resident} KiB with {count} services");
    }
}
