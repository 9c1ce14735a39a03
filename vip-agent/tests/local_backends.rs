//! Mode `nat` to a pod behind a veth and to the owner's own process, and the end of a tunnel, with real clients and servers.
#![allow(dead_code, reason = "fixtures of other suites, of which this uses its part")]

#[path = "support/echoed.rs"]
mod echoed;
#[path = "steering/kernel.rs"]
mod kernel;
#[path = "../../vip-common/tests/steering/packets.rs"]
mod packets;
#[path = "../../vip-common/tests/steering/world.rs"]
mod world;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vip_agent::types::MonotonicTime;
use vip_common::maps::{Vip, vip_flags};
use vip_common::steering::tunnel_end::TunnelEndKey;
use vip_lab::{Lab, Node};

use echoed::{tcp, udp};
use kernel::Kernel;
use packets::{ENDS4, ENDS6};
use world::{Member, Plan, World};

const SOON: Duration = Duration::from_secs(10);
const VIPS: [&str; 2] = ["10.0.0.50", "fd00::50"];
const POD: [&str; 2] = ["172.16.0.1", "fc00::1"];
const OWN: [&str; 2] = ["172.16.0.2", "fc00::2"];
/// A thousand segments.
const LARGE: usize = 1 << 20;

fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse::<IpAddr>()?, port))
}

/// Says again what it hears, on a port of both families: TCP, and UDP to these addresses, from which it answers.
fn echo(node: &Node, port: u16, addresses: [&'static str; 2]) -> Result<()> {
    let (tcp, udp) = node.run(move || -> Result<_> {
        let udp = addresses.map(|address| anyhow::Ok(UdpSocket::bind(at(address, port)?)?));
        Ok((TcpListener::bind(at("::", port)?)?, udp))
    })?;
    node.thread("echo", move || {
        for stream in tcp.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut back = stream.try_clone()?;
                std::io::copy(&mut &stream, &mut back)?;
                stream.shutdown(Shutdown::Write)
            });
        }
    })?;
    for socket in udp {
        let socket = socket?;
        node.thread("echo-udp", move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                drop(socket.send_to(&buffer[..length], from));
            }
        })?;
    }
    Ok(())
}

/// Whether who sends a datagram there is told that nobody listens.
fn is_refused(client: &Node, to: SocketAddr) -> Result<()> {
    client.run(move || {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(SOON))?;
        socket.send(b"anybody?")?;
        match socket.recv(&mut [0; 16]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            other => anyhow::bail!("{other:?} from {to}"),
        }
    })
}

fn offload(node: &Node, interface: &str, on: bool) -> Result<()> {
    node.command("ethtool").args(["-K", interface, "tx", if on { "on" } else { "off" }]).read().map(drop)
}

/// Owner, pod and client. The pod is a node whose cable is out, behind a veth of the owner's.
fn owner_with_pod() -> Result<Lab> {
    let lab = Lab::builder().nodes(2).checksum_offload(false).build()?;
    let (owner, pod, client) = (lab.node(1), lab.node(2), lab.client());
    pod.set_link(false)?;
    owner.ip(&format!("link add pod0 type veth peer name pod netns {}", pod.netns_path().display()))?;
    for (node, interface) in [(owner, "pod0"), (pod, "pod")] {
        node.ip(&format!("link set {interface} up"))?;
    }
    for setting in ["ipv4.ip_forward", "ipv6.conf.all.forwarding", "ipv4.conf.all.rp_filter"] {
        owner.set_sysctl(&format!("net.{setting}"), 1)?;
    }
    for (interface, addresses) in
        [("pod0", ["172.16.0.254/24", "fc00::fe/64"]), ("lo", ["172.16.0.2/32", "fc00::2/128"])]
    {
        for address in addresses {
            owner.ip(&format!(
                "address add {address} dev {interface} {}",
                if address.contains(':') { "nodad" } else { "" }
            ))?;
        }
    }
    // Who asks a closed port is told each time.
    pod.set_sysctl("net.ipv4.icmp_ratelimit", 0)?;
    pod.set_sysctl("net.ipv6.icmp.ratelimit", 0)?;
    pod.ip("address add 172.16.0.1/24 dev pod")?;
    pod.ip("address add fc00::1/64 dev pod nodad")?;
    for (node, gateway4, gateway6, to4, to6) in [
        (pod, "172.16.0.254", "fc00::fe", "default", "default"),
        (client, "10.0.0.1", "fd00::1", "172.16.0.0/24", "fc00::/64"),
    ] {
        node.ip(&format!("route add {to4} via {gateway4}"))?;
        node.ip(&format!("-6 route add {to6} via {gateway6}"))?;
    }
    // Connections are tracked, and what belongs to none is dropped: the host must see both directions alike.
    let rules = "add table inet t; add chain inet t f { type filter hook forward priority 0; }; \
                 add chain inet t i { type filter hook input priority 0; }; \
                 add rule inet t f ct state invalid drop; add rule inet t i ct state invalid drop";
    owner.command("nft").args([rules]).read()?;
    for (node, addresses) in [(pod, POD), (owner, OWN)] {
        echo(node, 8080, addresses)?;
    }
    Ok(lab)
}

/// The owner's programs: port 80 of both VIPs is the pod's, 81 is nobody's there, 90 is the owner's own.
fn serve(owner: &Node, by_filter: bool) -> Result<Kernel> {
    let mac = owner.mac().0;
    owner.run(move || {
        let plan = |ends, ports, number| Plan {
            ends,
            ports,
            backends: vec![Member { local: true, ..Member::new(number) }],
            ..Plan::nat()
        };
        let plans = [ENDS4, ENDS6].map(|ends| [plan(ends, (80, 81, 8000), 1), plan(ends, (90, 90, 7990), 2)]);
        let mut kernel = Kernel::with(&World::of(&plans.concat()))?;
        if by_filter {
            kernel.dataplane.attach_by_filters();
        }
        own(&mut kernel, mac)?;
        Ok(kernel)
    })
}

/// Runs it on `eth0`, as an owner of both VIPs.
fn own(kernel: &mut Kernel, mac: [u8; 6]) -> Result<()> {
    let dataplane = &mut kernel.dataplane;
    let ifindex = nix::net::if_::if_nametoindex("eth0")?;
    let slot = dataplane.attach(ifindex, "eth0")?.slot;
    let router = dataplane.allocate_router()?;
    dataplane.words().store(router, MonotonicTime::now() + Duration::from_secs(3600));
    for vip in VIPS {
        let (router, link) = (router.get(), slot.get());
        let value = Vip { router, link, mac, answering: mac, flags: vip_flags::SERVICES };
        dataplane.insert_vip(ifindex, vip.parse()?, value)?;
    }
    Ok(())
}

fn everything_is_answered(client: &Node) -> Result<()> {
    for ((vip, pod), own) in VIPS.into_iter().zip(POD).zip(OWN) {
        tcp(client, at(vip, 80)?, LARGE)?;
        tcp(client, at(vip, 90)?, LARGE)?;
        tcp(client, at(pod, 8080)?, LARGE).context("asked directly")?;
        tcp(client, at(own, 8080)?, 1000).context("asked directly")?;
        udp(client, at(vip, 80)?, 0)?;
        udp(client, at(vip, 90)?, 1000)?;
        udp(client, at(vip, 80)?, 4000).context("in fragments")?;
        udp(client, at(pod, 8080)?, 4000).context("asked directly, in fragments")?;
        is_refused(client, at(vip, 81)?)?;
        is_refused(client, at(pod, 8081)?)?;
    }
    Ok(())
}

#[test]
fn a_pod_and_the_owner_itself_answer_as_the_vip_whoever_sums_up() -> Result<()> {
    let lab = owner_with_pod()?;
    let (owner, pod, client) = (lab.node(1), lab.node(2), lab.client());
    let kernel = serve(owner, false)?;
    for (sender, forwarder) in [(false, false), (true, false), (false, true), (true, true)] {
        offload(pod, "pod", sender)?;
        offload(owner, "eth0", forwarder)?;
        everything_is_answered(client)
            .with_context(|| format!("offload: pod {sender}, owner {forwarder}"))?;
    }
    // Where programs are attached is told by the thread's namespace.
    owner.run(move || drop(kernel));
    Ok(())
}

#[test]
fn a_filter_does_on_older_kernels_what_a_link_does() -> Result<()> {
    let lab = owner_with_pod()?;
    let (owner, pod, client) = (lab.node(1), lab.node(2), lab.client());
    offload(pod, "pod", true)?;
    offload(owner, "eth0", false)?;
    let kernel = serve(owner, true)?;
    everything_is_answered(client)?;
    let filters = || owner.command("tc").args(["filter", "show", "dev", "eth0", "egress"]).read();
    ensure!(filters()?.contains("vip_egress direct-action"), "{}", filters()?);
    owner.run(move || drop(kernel));
    ensure!(filters()?.is_empty(), "{}", filters()?);
    Ok(())
}

/// An owner and a backend's node.
fn owner_with_backend() -> Result<Lab> {
    let lab = Lab::builder().nodes(2).checksum_offload(false).build()?;
    let backend = lab.node(2);
    backend.set_sysctl("net.ipv4.conf.all.rp_filter", 1)?;
    backend.ip("address add 10.0.0.50/32 dev lo")?;
    backend.ip("address add fd00::50/128 dev lo nodad")?;
    // Only the owner answers for the VIP.
    backend.set_sysctl("net.ipv4.conf.eth0.arp_ignore", 1)?;
    for port in [80, 81] {
        echo(backend, port, VIPS)?;
    }
    Ok(lab)
}

/// The owner's programs: port 80 of both VIPs by tunnels of their family, 81 of the IPv4 one by IPv6.
fn start_tunnels(owner: &Node, backend: &Node) -> Result<Kernel> {
    let (own_mac, next) = (owner.mac().0, backend.mac().0);
    let ends = [owner, backend].map(|node| (wide(node.ipv4()), node.ipv6().octets()));
    owner.run(move || {
        let plan = |vip, port| Plan {
            ends: vip,
            protocols: vec![6, 17],
            ports: (port, port, 0),
            backends: vec![Member::new(1)],
            ..Plan::tunnel()
        };
        let mut world = World::of(&[plan(ENDS4, 80), plan(ENDS6, 80), plan(ENDS4, 81)]);
        let ifindex = nix::net::if_::if_nametoindex("eth0")?;
        for backend in world.backends.values_mut() {
            backend.family = if backend.service == 0 { 4 } else { 6 };
            let end = |(end4, end6): ([u8; 16], [u8; 16])| if backend.family == 4 { end4 } else { end6 };
            (backend.source, backend.address) = (end(ends[0]), end(ends[1]));
            (backend.own, backend.mac, backend.ifindex) = (own_mac, next, ifindex);
        }
        let mut kernel = Kernel::with(&world)?;
        own(&mut kernel, own_mac)?;
        Ok(kernel)
    })
}

fn wide(address: Ipv4Addr) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..4].copy_from_slice(&address.octets());
    wide
}

/// The backend's programs, as the end of tunnels for both VIPs.
fn end_tunnels(backend: &Node) -> Result<Kernel> {
    let (end4, end6) = (wide(backend.ipv4()), backend.ipv6().octets());
    backend.run(move || {
        let mut kernel = Kernel::with(&World::of(&[]))?;
        for (end, end_family, vip, vip_family) in
            [(end4, 4, ENDS4, 4), (end6, 6, ENDS6, 6), (end6, 6, ENDS4, 4)]
        {
            let vip = vip.wide().1;
            kernel.end_tunnel(TunnelEndKey { end, vip, end_family, vip_family, reserved: [0; 2] })?;
        }
        kernel.dataplane.attach(nix::net::if_::if_nametoindex("eth0")?, "eth0")?;
        Ok(kernel)
    })
}

#[test]
fn a_backend_serves_what_comes_through_a_tunnel_without_a_device_for_it() -> Result<()> {
    let lab = owner_with_backend()?;
    let (owner, backend, client) = (lab.node(1), lab.node(2), lab.client());
    let steering = start_tunnels(owner, backend)?;
    let ending = end_tunnels(backend)?;
    for (vip, port) in [(VIPS[0], 80), (VIPS[1], 80), (VIPS[0], 81)] {
        tcp(client, at(vip, port)?, LARGE)?;
        udp(client, at(vip, port)?, 4000)?;
    }
    backend.run(move || drop(ending));
    owner.run(move || drop(steering));
    Ok(())
}
