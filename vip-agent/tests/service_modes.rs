//! What goes through services of modes dr and tunnel arrives whole: long transfers, narrow paths, owners that change meanwhile.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/steered.rs"]
mod steered;
#[path = "support/tunnel_end.rs"]
mod tunnel_end;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use agents::{SOON, VIPS, ms, times};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use steered::{
    ECHO_PORT, Echo, Transfer, addresses, hold_vips, lab, outcome, service, steering, wait_up, web_port,
};
use tunnel_end::TunnelEnd;
use vip_lab::agent::Agent;
use vip_lab::{Lab, Node, Process, wait};

const BACKENDS: [usize; 2] = [3, 4];
/// The port of the service that brings IPv4 in IPv6.
const MIXED_PORT: u16 = 8;
const MIB: usize = 1 << 20;

/// What a mode needs on its backends.
struct Backends {
    _echoes: Vec<Echo>,
    ends: Vec<TunnelEnd>,
}

impl Backends {
    fn start(lab: &Lab, mode: &str) -> Result<Self> {
        hold_vips(lab, &BACKENDS)?;
        let nodes = || BACKENDS.map(|number| lab.node(number)).into_iter();
        let ports = [ECHO_PORT, MIXED_PORT];
        let echoes = nodes().flat_map(|node| ports.map(|port| Echo::start(node, port)));
        let ends = nodes().filter(|_| mode == "tunnel").map(TunnelEnd::start);
        Ok(Self { _echoes: echoes.collect::<Result<_>>()?, ends: ends.collect::<Result<_>>()? })
    }

    /// The longest packet that came out of a tunnel, all of which were right.
    fn longest(&self) -> Result<usize> {
        let mut longest = 0;
        for end in &self.ends {
            let seen = end.seen();
            ensure!(seen.wrong.is_none(), "{seen:?}");
            longest = longest.max(seen.longest);
        }
        Ok(longest)
    }
}

/// A service for each VIP; of mode tunnel one more, which brings IPv4 in IPv6.
fn services(lab: &Lab, mode: &str) -> Vec<Value> {
    let [four, six] = VIPS.map(|vip| addresses(lab, vip, &BACKENDS));
    let echo = json!([ECHO_PORT]);
    let mut services = vec![
        service("four", VIPS[0], mode, echo.clone(), &four, json!({})),
        service("six", VIPS[1], mode, echo, &six, json!({})),
    ];
    if mode == "tunnel" {
        services.push(service("mixed", VIPS[0], mode, json!([MIXED_PORT]), &six, json!({})));
    }
    services
}

/// The owner, with all backends up.
fn owner(lab: &Lab, number: usize, mode: &str) -> Result<Agent> {
    let services = services(lab, mode);
    let count = services.len() * BACKENDS.len();
    let agent = steering(lab, number, &services).start()?;
    agent.wait_state(if number == 1 { "active" } else { "backup" }, SOON)?;
    wait_up(&agent, count)?;
    Ok(agent)
}

/// Where transfers of a mode go.
fn targets(mode: &str) -> Vec<(&'static str, u16)> {
    let all = [(VIPS[0], ECHO_PORT), (VIPS[1], ECHO_PORT), (VIPS[0], MIXED_PORT)];
    all.into_iter().filter(|(_, port)| mode == "tunnel" || *port == ECHO_PORT).collect()
}

/// Forgets what hosts have learned of paths.
fn forget_paths(node: &Node) -> Result<()> {
    for family in ["-4", "-6"] {
        node.ip(&format!("{family} route flush cache"))?;
    }
    Ok(())
}

#[test]
fn large_transfers_go_through_tunnels_of_narrow_paths() -> Result<()> {
    if times(0, 1) == 0 {
        println!("skipped: part of `cargo xtask test --full`");
        return Ok(());
    }
    let lab = lab().build()?;
    let backends = Backends::start(&lab, "tunnel")?;
    let first = owner(&lab, 1, "tunnel")?;
    let mut told = 0;
    for mtu in [1500, 1400] {
        for backend in BACKENDS {
            let node = lab.node(backend);
            lab.node(1).ip(&format!("route replace {}/32 dev eth0 mtu {mtu}", node.ipv4()))?;
            lab.node(1).ip(&format!("-6 route replace {}/128 dev eth0 mtu {mtu}", node.ipv6()))?;
        }
        forget_paths(lab.client())?;
        // Those of before are not to be taken for those of now.
        backends.ends.iter().for_each(TunnelEnd::forget);
        for (vip, port) in targets("tunnel") {
            wait_for_mtu(&lab, &backends, (vip, port), mtu)?;
            Transfer::begin(lab.client(), vip, port, 32 * MIB, Duration::ZERO)?.finish()?;
        }
        let longest = backends.longest()?;
        // TCP fills its segments, but not to the last byte: options, and IPv6 headers of 40 bytes.
        ensure!((mtu - 80..=mtu).contains(&longest), "{longest} bytes on a path of {mtu}");
        let now = ["four", "six", "mixed"].map(|name| outcome(&first, name, "too_big"));
        let now: u64 = now.into_iter().sum::<Result<u64>>()?;
        ensure!(now > told, "nobody was told that packets are too big for {mtu}");
        told = now;
    }
    Ok(())
}

/// Addresses of backend 3 for tunnels, behind node 5, which is a router with a narrow link.
const FAR: [&str; 2] = ["10.7.0.3", "fd07::3"];

fn put_behind_a_narrow_link(lab: &Lab, mtu: usize) -> Result<()> {
    let [owner, backend, router] = [1, 3, 5].map(|number| lab.node(number));
    for interface in ["all", "eth0"] {
        // Who hears of the shorter way would take it.
        router.set_sysctl(&format!("net.ipv4.conf.{interface}.send_redirects"), 0)?;
        for family in ["ipv4", "ipv6"] {
            owner.set_sysctl(&format!("net.{family}.conf.{interface}.accept_redirects"), 0)?;
        }
    }
    router.set_sysctl("net.ipv4.ip_forward", 1)?;
    router.set_sysctl("net.ipv6.conf.all.forwarding", 1)?;
    for (far, [via, next], length, family) in [
        (FAR[0], [router.ipv4().to_string(), backend.ipv4().to_string()], 32, "-4"),
        (FAR[1], [router.ipv6().to_string(), backend.ipv6().to_string()], 128, "-6"),
    ] {
        backend.ip(&format!("address add {far}/{length} dev lo"))?;
        owner.ip(&format!("{family} route add {far}/{length} via {via}"))?;
        router.ip(&format!("{family} route add {far}/{length} via {next} mtu lock {mtu}"))?;
    }
    Ok(())
}

#[test]
fn what_a_router_on_a_tunnels_way_says_of_its_mtu_reaches_the_clients() -> Result<()> {
    const MTU: usize = 1380;
    let lab = lab().build()?;
    let backends = Backends::start(&lab, "tunnel")?;
    put_behind_a_narrow_link(&lab, MTU)?;
    let far = |index: usize| -> Result<_> { Ok([FAR[index].parse()?]) };
    let services = [
        service("four", VIPS[0], "tunnel", json!([ECHO_PORT]), &far(0)?, json!({})),
        service("six", VIPS[1], "tunnel", json!([ECHO_PORT]), &far(1)?, json!({})),
        service("mixed", VIPS[0], "tunnel", json!([MIXED_PORT]), &far(1)?, json!({})),
    ];
    let first = steering(&lab, 1, &services).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 3)?;
    for (vip, port) in targets("tunnel") {
        let transfer = Transfer::begin(lab.client(), vip, port, 2 * MIB, Duration::ZERO)?;
        transfer.finish().with_context(|| format!("{vip} port {port}"))?;
    }
    let longest = backends.longest()?;
    ensure!((MTU - 80..=MTU).contains(&longest), "{longest} bytes on a path of {MTU}");
    for name in ["four", "six"] {
        ensure!(outcome(&first, name, "too_big")? > 0, "{name}: the client was not told");
    }
    Ok(())
}

/// Waits until the tables know a route's MTU: what is longer does not come out of the tunnel any more.
fn wait_for_mtu(lab: &Lab, backends: &Backends, (vip, port): (&str, u16), mtu: usize) -> Result<()> {
    wait::until(SOON, || {
        backends.ends.iter().for_each(TunnelEnd::forget);
        let transfer = Transfer::begin(lab.client(), vip, port, 256 << 10, Duration::ZERO);
        transfer.and_then(Transfer::finish).is_ok() && backends.longest().is_ok_and(|longest| longest <= mtu)
    })
    .with_context(|| format!("a path of {mtu} to {vip}"))
}

/// What happens to an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    Handover,
    Death,
}

/// Long transfers of a mode while their owner changes.
fn transfers_survive(mode: &str, blow: Blow) -> Result<()> {
    let lab = lab().build()?;
    let backends = Backends::start(&lab, mode)?;
    let [first, second] = [owner(&lab, 1, mode)?, owner(&lab, 2, mode)?];
    // More than a second long.
    let begin = |(vip, port)| Transfer::begin(lab.client(), vip, port, times(4, 30) * MIB, ms(5));
    let under_way = |transfers: &[Transfer]| transfers.iter().all(Transfer::is_under_way);
    let transfers: Vec<Transfer> =
        targets(mode).into_iter().cycle().take(6).map(begin).collect::<Result<_>>()?;
    wait::until(SOON, || under_way(&transfers))?;
    match blow {
        Blow::Handover => first.drain()?,
        Blow::Death => first.kill()?,
    }
    second.wait_state("active", SOON)?;
    ensure!(under_way(&transfers), "too short to tell");
    if blow == Blow::Handover && times(0, 1) > 0 {
        first.undrain()?;
        first.wait_state("active", SOON)?;
        ensure!(under_way(&transfers), "too short to tell");
        first.kill()?;
        second.wait_state("active", SOON)?;
    }
    let names: BTreeSet<String> = transfers.into_iter().map(Transfer::finish).collect::<Result<_>>()?;
    ensure!(names.iter().all(|name| ["node3", "node4"].contains(&name.as_str())), "{names:?}");
    backends.longest().map(drop)
}

#[test]
fn transfers_of_mode_dr_survive_a_handover() -> Result<()> {
    transfers_survive("dr", Blow::Handover)?;
    if times(0, 1) > 0 { transfers_survive("dr", Blow::Death) } else { Ok(()) }
}

#[test]
fn transfers_through_tunnels_survive_the_death_of_their_owner() -> Result<()> {
    transfers_survive("tunnel", Blow::Death)?;
    if times(0, 1) > 0 { transfers_survive("tunnel", Blow::Handover) } else { Ok(()) }
}

#[test]
fn transfers_of_mode_dr_are_whole_while_devices_are_to_finish_checksums() -> Result<()> {
    // Not of mode tunnel: what its end here takes out has lost the note that something is yet to be finished.
    let lab = lab().checksum_offload(true).build()?;
    let _backends = Backends::start(&lab, "dr")?;
    let _first = owner(&lab, 1, "dr")?;
    for (vip, port) in targets("dr") {
        Transfer::begin(lab.client(), vip, port, 2 * MIB, Duration::ZERO)?.finish()?;
    }
    Ok(())
}

/// nginx on the web servers' port, with a directory that takes files.
fn nginx(node: &Node) -> Result<Process> {
    let files = node.file_path("nginx").display().to_string();
    node.command("mkdir").arg(&files).read()?;
    node.command("truncate").args(["-s", "3M", &format!("{files}/large")]).read()?;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {files}/.{kind};"))
        .join(" ");
    let config = format!(
        "daemon off; user root; pid {files}/.pid; error_log stderr; events {{}}\nhttp {{ access_log off; {temporary}\n\
         client_max_body_size 100m; server {{ listen 8080; listen [::]:8080; root {files}; dav_methods PUT; }} }}\n"
    );
    let path = node.file_path("nginx.conf");
    node.write_file(&path, config)?;
    let path = path.display().to_string();
    let nginx = node.command("nginx").args(["-p", &files, "-c", &path]).spawn("nginx")?;
    let listening = SocketAddr::new(node.ipv4().into(), 8080);
    wait::until(SOON, || node.run(move || TcpStream::connect(listening).is_ok())).context("nginx listens")?;
    Ok(nginx)
}

#[test]
fn curl_and_nginx_exchange_files_by_either_mode() -> Result<()> {
    let lab = lab().build()?;
    let _backends = Backends::start(&lab, "tunnel")?;
    let _servers = BACKENDS.map(|number| nginx(lab.node(number))).into_iter().collect::<Result<Vec<_>>>()?;
    let by = |mode: &str| {
        let service = |(name, vip)| {
            service(name, vip, mode, json!([8080]), &addresses(&lab, vip, &BACKENDS), json!({}))
        };
        let services: Vec<Value> = ["four", "six"].into_iter().zip(VIPS).map(service).collect();
        steering(&lab, 1, &services)
    };
    let first = by("dr").start()?;
    first.wait_state("active", SOON)?;
    let client = lab.client();
    let file = client.file_path("upload").display().to_string();
    client.command("head").args(["-c", "3M", "/dev/urandom"]).output().and_then(|made| {
        let path = file.clone();
        client.run(move || std::fs::write(path, made.stdout)).context("write the file")
    })?;
    for mode in ["dr", "tunnel"] {
        first.reload(&by(mode))?;
        wait_up(&first, 4)?;
        for vip in ["10.0.0.50", "[fd00::50]"] {
            let curl = |arguments: &[&str]| {
                client.command("curl").args(["-gsSf", "-m", "20"]).args(arguments).read()
            };
            let name = format!("{mode}{}", vip.len());
            curl(&["-T", &file, &format!("http://{vip}:8080/{name}")]).context("PUT")?;
            let size =
                curl(&["-o", "/dev/null", "-w", "%{size_download}", &format!("http://{vip}:8080/large")])?;
            ensure!(size == (3 * MIB).to_string(), "{size} bytes came");
            let sum = client.command("sha256sum").arg(&file).read()?;
            let stored = BACKENDS.map(|number| {
                let node = lab.node(number);
                node.command("sha256sum").arg(node.file_path(&format!("nginx/{name}"))).read().ok()
            });
            let right = |stored: &&Option<String>| {
                stored.as_ref().is_some_and(|stored| stored.split(' ').next() == sum.split(' ').next())
            };
            ensure!(stored.iter().filter(right).count() == 1, "{sum} became {stored:?}");
        }
    }
    Ok(())
}

#[test]
fn a_vip_of_a_vlan_is_steered() -> Result<()> {
    let lab = lab().build()?;
    for (place, host) in [(lab.node(1), 1), (lab.node(3), 3), (lab.client(), 201)] {
        let added =
            place.command("ip").args("link add link eth0 name eth0.5 type vlan id 5".split(' ')).output()?;
        let said = String::from_utf8_lossy(&added.stderr).into_owned();
        if said.contains("Unknown device type") {
            println!("skipped: this kernel has no 8021q (`modprobe 8021q`, or build it in)");
            return Ok(());
        }
        ensure!(added.status.success(), "{said}");
        place.ip(&format!("address add 10.9.0.{host}/24 dev eth0.5"))?;
        place.ip("link set eth0.5 up")?;
    }
    let backend = lab.node(3);
    for interface in ["all", "eth0/5"] {
        backend.set_sysctl(&format!("net.ipv4.conf.{interface}.arp_ignore"), 1)?;
    }
    backend.ip("address add 10.9.0.50/32 dev lo scope host")?;
    let web = service("web", "10.9.0.50", "dr", web_port(), &["10.9.0.3".parse()?], json!({}));
    let builder = steering(&lab, 1, &[web]).vips(["10.9.0.50/24"]).set_instance("interface", json!("eth0.5"));
    let first = builder.start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 1)?;
    let answer = agents::Conversation::open(lab.client(), "10.9.0.50").and_then(|mut open| open.ask())?;
    ensure!(answer == "node3", "{answer} answers");
    Ok(())
}
