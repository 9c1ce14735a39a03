//! The edges of services with real hosts: UDP and its fragments, ports, who is served, what becomes of the others, ICMP.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/steered.rs"]
mod steered;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use agents::{Conversation, SOON, VIPS, ms};
use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4};
use serde_json::json;
use steered::{
    ECHO_PORT, Echo, Transfer, addresses, hold_vips, lab, outcome, reaches, service, steering, wait_up,
    web_port,
};
use vip_lab::{Lab, Node, WEB_PORT, wait};

/// A UDP server on a VIP, which sends back what it gets behind its node's name. It stops on drop.
struct Datagrams {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Datagrams {
    fn start(node: &Node, vip: &str, port: u16) -> Result<Self> {
        let (place, name) = (SocketAddr::new(vip.parse()?, port), format!("{:<8}", node.name()));
        let socket = node.run(move || UdpSocket::bind(place))?;
        socket.set_read_timeout(Some(ms(50)))?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = node.thread("datagrams", move || {
            let mut buffer = vec![0; 64 << 10];
            while !stopped.load(Ordering::Relaxed) {
                // A time-out is the chance to stop.
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let _ = socket.send_to(&[name.as_bytes(), &buffer[..length]].concat(), client);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A client's socket, connected to a port of a VIP.
fn connected(client: &Node, vip: &str, port: u16) -> Result<UdpSocket> {
    let target = SocketAddr::new(vip.parse()?, port);
    let socket = client.run(move || -> std::io::Result<UdpSocket> {
        let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(target)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(socket)
}

/// Sends a datagram of this length and gets it back: whose name is in front.
fn asked(socket: &UdpSocket, length: usize) -> Result<String> {
    let sent: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let mut buffer = vec![0; 64 << 10];
    // The network may lose one, the first above all: neighbours are looked up meanwhile.
    for _ in 0..3 {
        socket.send(&sent)?;
        match socket.recv(&mut buffer) {
            Ok(got) => {
                let (name, back) = buffer[..got].split_at_checked(8).context("no name")?;
                ensure!(back == sent, "{} bytes of {length} came back, or others", back.len());
                return Ok(String::from_utf8(name.to_vec())?.trim_end().to_owned());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("no answer to {length} bytes")
}

const BACKENDS: [usize; 2] = [3, 4];
const NAMES: [&str; 2] = ["node3", "node4"];

#[test]
fn datagrams_fragments_and_ranges_of_ports_reach_their_backends() -> Result<()> {
    let lab = lab().build()?;
    hold_vips(&lab, &BACKENDS)?;
    let mut servers = Vec::new();
    for number in BACKENDS {
        for vip in VIPS {
            for port in [53, 8000, 8010, 8011] {
                servers.push(Datagrams::start(lab.node(number), vip, port)?);
            }
        }
    }
    let _echoes = [Echo::start(lab.node(3), 9000)?, Echo::start(lab.node(4), ECHO_PORT)?];
    let [four, six] = VIPS.map(|vip| addresses(&lab, vip, &BACKENDS));
    let (ports, rest) = (json!(["53/udp", "8000-8010/udp"]), json!(["all/tcp"]));
    let services = [
        service("udp4", VIPS[0], "dr", ports.clone(), &four, json!({})),
        service("udp6", VIPS[1], "dr", ports, &six, json!({})),
        // Of which the other has one.
        service("all4", VIPS[0], "dr", rest.clone(), &four[..1], json!({})),
        service("echo4", VIPS[0], "dr", json!([ECHO_PORT]), &four[1..], json!({})),
        service("all6", VIPS[1], "dr", rest, &six[..1], json!({})),
    ];
    let first = steering(&lab, 1, &services).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 7)?;
    let client = lab.client();
    for vip in VIPS {
        let mut seen = BTreeSet::new();
        for port in [53, 8000, 8010] {
            for _ in 0..6 {
                let socket = connected(client, vip, port)?;
                let name = asked(&socket, 100)?;
                // Fragments go where the flow goes, and never elsewhere.
                for length in [1400, 1500, 4000, 20_000] {
                    let fragmented = asked(&socket, length).with_context(|| format!("{vip} port {port}"))?;
                    ensure!(NAMES.contains(&fragmented.as_str()), "{fragmented}");
                }
                ensure!(asked(&socket, 101)? == name, "the flow went elsewhere");
                seen.insert(name);
            }
        }
        ensure!(seen.iter().eq(NAMES), "{vip}: only {seen:?}");
        // One beyond the range: the client is told.
        let closed = connected(client, vip, 8011)?;
        let refused = asked(&closed, 10).err().context("somebody answers")?;
        let kind = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        ensure!(kind == Some(ErrorKind::ConnectionRefused), "{refused:?}");
        let transfer = |port| Transfer::begin(client, vip, port, 100_000, Duration::ZERO)?.finish();
        ensure!(transfer(9000)? == "node3", "not by the service that has all ports");
    }
    let by_port = Transfer::begin(client, VIPS[0], ECHO_PORT, 100_000, Duration::ZERO)?.finish()?;
    ensure!(by_port == "node4", "{by_port} has another service's port");
    for name in ["udp4", "udp6"] {
        ensure!(outcome(&first, name, "fragment_steered")? > 0, "{name}: no fragment was seen");
        ensure!(outcome(&first, name, "fragment_unknown")? == 0, "{name}: fragments were lost");
    }
    Ok(())
}

/// One service of each family on the web servers' port.
fn web(lab: &Lab, backends: &[usize], more: &serde_json::Value) -> [serde_json::Value; 2] {
    let service = |name: &str, vip| {
        let keys = more.get(name).unwrap_or(more).clone();
        service(name, vip, "dr", web_port(), &addresses(lab, vip, backends), keys)
    };
    [service("four", VIPS[0]), service("six", VIPS[1])]
}

#[test]
fn who_is_not_on_the_list_gets_no_answer_and_is_counted() -> Result<()> {
    let lab = lab().clients(2).build()?;
    hold_vips(&lab, &BACKENDS)?;
    let ranges = json!({"four": {"source_ranges": ["10.0.0.201/32", "192.0.2.0/24"]},
                        "six": {"source_ranges": ["fd00::c9/128"]}});
    let first = steering(&lab, 1, &web(&lab, &BACKENDS, &ranges)).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 4)?;
    for (name, vip) in ["four", "six"].into_iter().zip(VIPS) {
        ensure!(reaches(&lab.clients()[0], vip, WEB_PORT, SOON)?, "{vip}: refused who is on the list");
        ensure!(outcome(&first, name, "not_allowed")? == 0, "{vip}: counted who is on the list");
        ensure!(!reaches(&lab.clients()[1], vip, WEB_PORT, ms(300))?, "{vip}: served who is not on the list");
        ensure!(outcome(&first, name, "not_allowed")? > 0, "{vip}: counted nobody");
    }
    // The list goes, and with it what it forbade.
    first.reload(&steering(&lab, 1, &web(&lab, &BACKENDS, &json!({}))))?;
    wait_up(&first, 4)?;
    for vip in VIPS {
        ensure!(reaches(&lab.clients()[1], vip, WEB_PORT, SOON)?, "{vip}");
    }
    Ok(())
}

#[test]
fn a_client_keeps_its_backend_while_others_come() -> Result<()> {
    let lab = lab().clients(8).build()?;
    hold_vips(&lab, &[3, 4, 5])?;
    let affine = json!({"affinity": "client_ip", "affinity_timeout": "1h"});
    let first = steering(&lab, 1, &web(&lab, &BACKENDS, &affine)).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 4)?;
    let answers = |client: &Node, vip: &str| -> Result<String> {
        let names: BTreeSet<String> =
            (0..5).map(|_| Conversation::open(client, vip)?.ask()).collect::<Result<_>>()?;
        ensure!(names.len() == 1, "{}: answered by {names:?}", client.name());
        names.into_iter().next().context("nobody answers")
    };
    let all = || -> Result<Vec<String>> {
        let each = |client| VIPS.map(|vip| answers(client, vip));
        lab.clients().iter().flat_map(each).collect()
    };
    let before = all()?;
    ensure!(before.iter().collect::<BTreeSet<_>>().len() == 2, "all clients have one backend: {before:?}");
    first.reload(&steering(&lab, 1, &web(&lab, &[5, 3, 4], &affine)))?;
    wait_up(&first, 6)?;
    let after = all()?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

#[test]
fn without_backends_packets_are_dropped_or_passed_as_configured() -> Result<()> {
    let lab = lab().build()?;
    let none = |what: &str| web(&lab, &[], &json!({"no_backend": what}));
    let with = |what: &str| steering(&lab, 1, &none(what)).local_address("active");
    let first = with("drop").start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 0)?;
    for (name, vip) in ["four", "six"].into_iter().zip(VIPS) {
        ensure!(!reaches(lab.client(), vip, WEB_PORT, ms(300))?, "{vip}: somebody answers");
        ensure!(outcome(&first, name, "closed")? > 0, "{vip}: nothing was counted");
    }
    first.reload(&with("pass"))?;
    wait_up(&first, 0)?;
    for vip in VIPS {
        let answer = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(answer == "node1", "{answer}, and not this node's own server");
    }
    first.reload(&with("reject"))?;
    wait_up(&first, 0)?;
    for (name, vip) in ["four", "six"].into_iter().zip(VIPS) {
        ensure!(Conversation::open(lab.client(), vip).is_err(), "{vip}: somebody answers");
        ensure!(outcome(&first, name, "rejected")? > 0, "{vip}: nobody was told");
    }
    Ok(())
}

#[test]
fn modes_local_and_dr_share_a_vip_and_its_owner_answers_pings() -> Result<()> {
    let lab = lab().build()?;
    hold_vips(&lab, &BACKENDS)?;
    let _echo = Echo::start(lab.node(1), ECHO_PORT)?;
    let mut services = web(&lab, &BACKENDS, &json!({})).to_vec();
    let never = steering(&lab, 1, &services);
    for (name, vip) in ["own4", "own6"].into_iter().zip(VIPS) {
        services.push(service(name, vip, "local", json!([ECHO_PORT]), &[], json!({})));
    }
    let first = steering(&lab, 1, &services).local_address("active").start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 4)?;
    let pinged =
        |vip: &str| lab.client().command("ping").args(["-c", "2", "-i", "0.2", "-W", "2", vip]).read();
    for vip in VIPS {
        let own = Transfer::begin(lab.client(), vip, ECHO_PORT, 1 << 20, Duration::ZERO)?.finish()?;
        ensure!(own == "node1", "{own}");
        let steered = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(NAMES.contains(&steered.as_str()), "{steered}");
        pinged(vip)?;
    }
    // The stack has no such address any more, so the program answers.
    first.reload(&never)?;
    wait_up(&first, 4)?;
    for vip in VIPS {
        pinged(vip)?;
        ensure!(!reaches(lab.client(), vip, ECHO_PORT, Duration::from_secs(2))?, "{vip}: its port is open");
        let steered = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(NAMES.contains(&steered.as_str()), "{steered}");
    }
    Ok(())
}

/// A datagram of a backend from the VIP to the client, as a router quotes it, in the router's error to the VIP: too big for 1300.
fn too_big(lab: &Lab, vip: &str, ports: (u16, u16)) -> Result<Vec<u8>> {
    let (client, router) = (lab.client(), &lab.clients()[1]);
    let link = PacketBuilder::ethernet2(router.mac().0, lab.node(1).mac().0);
    let (mut quoted, mut frame) = (Vec::new(), Vec::new());
    match vip.parse()? {
        IpAddr::V4(vip) => {
            let inner = PacketBuilder::ipv4(vip.octets(), client.ipv4().octets(), 63).udp(ports.0, ports.1);
            inner.write(&mut quoted, &[0; 1400])?;
            let header = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
            let error = Icmpv4Type::DestinationUnreachable(header);
            link.ipv4(router.ipv4().octets(), vip.octets(), 64)
                .icmpv4(error)
                .write(&mut frame, &quoted[..64])?;
        }
        IpAddr::V6(vip) => {
            let inner = PacketBuilder::ipv6(vip.octets(), client.ipv6().octets(), 63).udp(ports.0, ports.1);
            inner.write(&mut quoted, &[0; 1400])?;
            let error = Icmpv6Type::PacketTooBig { mtu: 1300 };
            link.ipv6(router.ipv6().octets(), vip.octets(), 64)
                .icmpv6(error)
                .write(&mut frame, &quoted[..88])?;
        }
    }
    Ok(frame)
}

#[test]
fn a_routers_error_about_a_flow_reaches_the_backend_of_that_flow() -> Result<()> {
    let lab = lab().clients(2).build()?;
    hold_vips(&lab, &BACKENDS)?;
    let mut servers = Vec::new();
    for number in BACKENDS {
        for vip in VIPS {
            servers.push(Datagrams::start(lab.node(number), vip, 53)?);
        }
    }
    let [four, six] = VIPS.map(|vip| addresses(&lab, vip, &BACKENDS));
    let services = [
        service("four", VIPS[0], "dr", json!(["53/udp"]), &four, json!({})),
        service("six", VIPS[1], "dr", json!(["53/udp"]), &six, json!({})),
    ];
    let first = steering(&lab, 1, &services).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 4)?;
    for (service, vip) in ["four", "six"].into_iter().zip(VIPS) {
        let socket = connected(lab.client(), vip, 53)?;
        let name = asked(&socket, 10)?;
        let client = lab.client().address_like(vip.parse()?);
        lab.clients()[1].inject([too_big(&lab, vip, (53, socket.local_addr()?.port()))?], Duration::ZERO)?;
        let learned = |number: usize| {
            let route = lab.node(number).ip(&format!("route get {client} from {vip}"));
            route.is_ok_and(|route| route.contains("mtu 1300"))
        };
        let [its, other] = if name == "node3" { [3, 4] } else { [4, 3] };
        wait::until(SOON, || learned(its))
            .with_context(|| format!("{name} did not hear of the path to {client}"))?;
        ensure!(!learned(other), "{vip}: another backend heard of it too");
        ensure!(outcome(&first, service, "error_steered")? == 1);
    }
    Ok(())
}
