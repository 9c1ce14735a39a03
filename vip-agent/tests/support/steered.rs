//! What the suites of services share: backends with the VIPs, ends of tunnels, transfers that are compared byte for byte.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, LabBuilder, Node, WEB_PORT};

use crate::agents::{Ask as _, VIPS, agent};

/// The port of [`Echo`].
pub const ECHO_PORT: u16 = 7;

/// Nodes 1 and 2 have agents, 3 to 5 are backends.
pub fn lab() -> LabBuilder {
    // Frames that are steered by generic XDP must not wait for a device to finish their checksums.
    Lab::builder().nodes(5).clients(1).vips(VIPS).web().checksum_offload(false)
}

/// Has nodes serve the VIPs, which they answer nobody's ARP for.
pub fn hold_vips(lab: &Lab, backends: &[usize]) -> Result<()> {
    for &backend in backends {
        let node = lab.node(backend);
        for interface in ["all", "eth0"] {
            node.set_sysctl(&format!("net.ipv4.conf.{interface}.arp_ignore"), 1)?;
            node.set_sysctl(&format!("net.ipv4.conf.{interface}.arp_announce"), 2)?;
        }
        node.ip("address add 10.0.0.50/32 dev lo scope host")?;
        node.ip("address add fd00::50/128 dev lo nodad preferred_lft 0")?;
    }
    Ok(())
}

/// A service over these backends, with whatever else is said of it.
pub fn service(name: &str, vip: &str, mode: &str, ports: Value, backends: &[IpAddr], more: Value) -> Value {
    let backends: Vec<Value> = backends.iter().map(|address| json!({"address": address})).collect();
    let mut service = json!({"name": name, "vip": vip, "mode": mode, "backends": backends});
    service["ports"] = ports;
    if let (Some(service), Value::Object(more)) = (service.as_object_mut(), more) {
        service.extend(more);
    }
    service
}

/// An agent with these services.
pub fn steering(lab: &Lab, number: usize, services: &[Value]) -> AgentBuilder {
    agent(lab, number).local_address("never").set("services", Value::from(services.to_vec()))
}

/// Waits until as many backends in all are up, and the tables say so.
pub fn wait_up(agent: &Agent, count: usize) -> Result<()> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let settled = |status: &Value| {
        let services = list(&status["services"]);
        let backends: Vec<Value> = services.iter().flat_map(|service| list(&service["backends"])).collect();
        services.iter().all(|service| service["reason"].is_null())
            && backends.iter().filter(|backend| backend["up"] == true).count() == count
    };
    agent.wait_for(&format!("with {count} backends up"), settled).map(drop)
}

/// What was counted of a service.
pub fn outcome(agent: &Agent, service: &str, outcome: &str) -> Result<u64> {
    let status = agent.status()?.raw;
    let services = status["services"].as_array().context("a list of services")?;
    let found = services.iter().find(|listed| listed["name"] == service).context("the service")?;
    found["outcomes"][outcome].as_u64().with_context(|| format!("no outcome {outcome}"))
}

/// A TCP server that says which node it is and sends back what it gets.
#[derive(Debug)]
pub struct Echo(Vec<TcpListener>);

impl Echo {
    pub fn start(node: &Node, port: u16) -> Result<Self> {
        let listeners = node.run(move || -> Result<Vec<TcpListener>> {
            let any = [IpAddr::from([0; 4]), IpAddr::from([0u16; 8])];
            any.into_iter().map(|address| listen(SocketAddr::new(address, port))).collect()
        })?;
        for listener in &listeners {
            let (listener, name) = (listener.try_clone()?, format!("{:<8}", node.name()));
            node.thread("echo", move || {
                for stream in listener.incoming() {
                    let (Ok(stream), name) = (stream, name.clone()) else { return };
                    std::thread::spawn(move || send_back(stream, &name));
                }
            })?;
        }
        Ok(Self(listeners))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Wakes who accepts.
        self.0.iter().for_each(|listener| drop(SockRef::from(listener).shutdown(Shutdown::Both)));
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn send_back(mut stream: TcpStream, name: &str) {
    let Ok(mut back) = stream.try_clone() else { return };
    // Whoever is gone wants nothing any more.
    let _ = back.write_all(name.as_bytes());
    let _ = std::io::copy(&mut stream, &mut back);
    let _ = back.shutdown(Shutdown::Write);
}

/// Bytes on their way through an [`Echo`] and back.
#[derive(Debug)]
pub struct Transfer {
    length: usize,
    returned: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    hurry: Arc<AtomicBool>,
    thread: JoinHandle<Result<String>>,
}

impl Transfer {
    /// Sends as many bytes, 16 KiB at a time with a pause behind each.
    pub fn begin(client: &Node, vip: &str, port: u16, length: usize, pause: Duration) -> Result<Self> {
        const CHUNK: usize = 16 << 10;
        let target = SocketAddr::new(vip.parse()?, port);
        let stream = client.run(move || TcpStream::connect_timeout(&target, Duration::from_secs(5)));
        let mut stream = stream.with_context(|| format!("connect to {target}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (returned, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (seen, stopped) = (Arc::clone(&returned), Arc::clone(&stop));
        let hurry = Arc::<AtomicBool>::default();
        let hurried = Arc::clone(&hurry);
        let mut sending = stream.try_clone()?;
        std::thread::spawn(move || {
            for (chunk, at) in (0..length).step_by(CHUNK).enumerate() {
                let bytes: Vec<u8> = (at..length.min(at + CHUNK)).map(pattern).collect();
                if stopped.load(Ordering::Relaxed) || sending.write_all(&bytes).is_err() {
                    return;
                }
                if chunk > 0 && !hurried.load(Ordering::Relaxed) {
                    std::thread::sleep(pause);
                }
            }
            let _ = sending.shutdown(Shutdown::Write);
        });
        let thread = std::thread::spawn(move || {
            let mut name = [0; 8];
            stream.read_exact(&mut name).context("the server said nothing")?;
            let (mut got, mut buffer) = (0, vec![0; 64 << 10]);
            loop {
                let read = stream.read(&mut buffer).with_context(|| format!("broke after {got} bytes"))?;
                let right = buffer[..read].iter().enumerate().all(|(n, byte)| *byte == pattern(got + n));
                ensure!(right, "what came back after {got} bytes is not what was sent");
                got += read;
                seen.store(got, Ordering::Relaxed);
                if read == 0 {
                    ensure!(got == length, "{got} bytes of {length} came back");
                    return Ok(String::from_utf8(name.to_vec())?.trim_end().to_owned());
                }
            }
        });
        Ok(Self { length, returned, stop, hurry, thread })
    }

    /// How many bytes are back.
    pub fn returned(&self) -> usize {
        self.returned.load(Ordering::Relaxed)
    }

    /// Whether some are back and some are not.
    pub fn is_under_way(&self) -> bool {
        (1..self.length).contains(&self.returned())
    }

    /// The rest goes without pauses.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Waits until all is back; who sent it.
    pub fn finish(self) -> Result<String> {
        self.thread.join().map_err(|_| anyhow!("the transfer panicked"))?
    }
}

/// What a byte is, by its place: no two runs of it are alike.
const fn pattern(at: usize) -> u8 {
    let [a, ..] = ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).to_le_bytes();
    a
}

/// Connects to the web server behind a VIP within this time, or not.
pub fn reaches(client: &Node, vip: &str, port: u16, within: Duration) -> Result<bool> {
    let target = SocketAddr::new(vip.parse()?, port);
    Ok(client.run(move || TcpStream::connect_timeout(&target, within)).is_ok())
}

/// The backends' own addresses, of the VIP's family.
pub fn addresses(lab: &Lab, vip: &str, backends: &[usize]) -> Vec<IpAddr> {
    let own = |number: &usize| {
        let node = lab.node(*number);
        if vip.contains(':') { node.ipv6().into() } else { node.ipv4().into() }
    };
    backends.iter().map(own).collect()
}

/// The web servers' port, as configurations have it.
pub fn web_port() -> Value {
    json!([WEB_PORT])
}
