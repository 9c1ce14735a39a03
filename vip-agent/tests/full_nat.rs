//! Mode `nat` to backends on other nodes, with real servers and clients: both families, TCP and UDP, and who is told why not.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/echoed.rs"]
mod echoed;

use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, UdpSocket};

use agents::{Ask as _, SOON, VIPS, agent};
use anyhow::{Context as _, Result, ensure};
use echoed::{tcp, udp};
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Node};

/// What the servers listen on.
const PORT: u16 = 7007;
/// A thousand segments.
const LARGE: usize = 1 << 20;
const FORWARDING: [&str; 2] = ["net.ipv4.conf.eth0.forwarding", "net.ipv6.conf.eth0.forwarding"];

/// Node 1 has an agent, nodes 2 and 3 are backends that know nothing of VIPs.
fn lab() -> Result<Lab> {
    // Frames that are translated by generic XDP must not wait for a device to finish their checksums.
    let lab = Lab::builder().nodes(3).clients(1).vips(VIPS).checksum_offload(false).build()?;
    // As Linux has it: what is left beside it is full NAT's.
    lab.node(1).command("sysctl").args(["-qw", "net.ipv4.ip_local_port_range=32768 60999"]).read()?;
    for backend in [2, 3] {
        echo(lab.node(backend))?;
    }
    Ok(lab)
}

fn forward(node: &Node) -> Result<()> {
    FORWARDING.iter().try_for_each(|setting| node.set_sysctl(setting, 1))
}

/// Says again what it hears.
fn echo(node: &Node) -> Result<()> {
    let any = SocketAddr::new(IpAddr::from([0_u16; 8]), PORT);
    let (tcp, udp) =
        node.run(move || -> Result<_> { Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?)) })?;
    node.thread("echo", move || {
        for stream in tcp.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut back = stream.try_clone()?;
                std::io::copy(&mut &stream, &mut back)?;
                stream.shutdown(Shutdown::Write)
            });
        }
    })?;
    node.thread("echo-udp", move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            drop(udp.send_to(&buffer[..length], from));
        }
    })
    .map(drop)
}

fn agent_with(lab: &Lab, backends: &[usize]) -> AgentBuilder {
    let service = |(name, vip): (&str, &str)| {
        let address = |number: &usize| {
            let node = lab.node(*number);
            let address: IpAddr = if vip.contains(':') { node.ipv6().into() } else { node.ipv4().into() };
            json!({"address": address.to_string()})
        };
        let backends: Vec<Value> = backends.iter().map(address).collect();
        let ports = json!([format!("{PORT}/tcp"), format!("{PORT}/udp")]);
        json!({"name": name, "vip": vip, "mode": "nat", "ports": ports, "backends": backends})
    };
    let services: Vec<Value> = ["four", "six"].into_iter().zip(VIPS).map(service).collect();
    agent(lab, 1).local_address("never").set("services", Value::from(services))
}

fn backends(status: &Value) -> Vec<Value> {
    let services = status["services"].as_array().cloned().unwrap_or_default();
    services.iter().flat_map(|service| service["backends"].as_array().cloned().unwrap_or_default()).collect()
}

fn wait_up(agent: &Agent, count: usize) -> Result<()> {
    let settled = |status: &Value| {
        status["services"].as_array().is_some_and(|all| all.iter().all(|one| one["reason"].is_null()))
    };
    let up = |status: &Value| backends(status).iter().filter(|backend| backend["up"] == true).count();
    agent.wait_for(&format!("with {count} up"), |status| up(status) == count && settled(status)).map(drop)
}

fn at(vip: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(vip.parse()?, PORT))
}

#[test]
fn tcp_and_udp_reach_backends_on_other_nodes_and_come_back_as_the_vips() -> Result<()> {
    let lab = lab()?;
    forward(lab.node(1))?;
    let agent = agent_with(&lab, &[2, 3]).start()?;
    agent.wait_state("active", SOON)?;
    wait_up(&agent, 4)?;
    for vip in VIPS {
        // The first client of all: nobody on this link has asked for its MAC yet.
        tcp(lab.client(), at(vip)?, LARGE).with_context(|| agent.log())?;
        udp(lab.client(), at(vip)?, 8)?;
    }
    let status = agent.status()?.raw;
    for service in status["services"].as_array().context("a list")? {
        ensure!(service["outcomes"]["returned"].as_u64() > Some(100), "{service}");
    }
    let listed = agent.say(&["flows", "--json"])?;
    let listed: Value = serde_json::from_str(&listed.out)?;
    ensure!(listed["total"].as_u64() >= Some(4), "{listed}");
    agent
        .wait_for("with its flows counted", |status| {
            let flows = |backend: &Value| backend["active_flows"].as_u64().unwrap_or_default();
            backends(status).iter().map(flows).sum::<u64>() >= 4
        })
        .map(drop)
}

#[test]
fn an_interface_that_does_not_forward_keeps_them_out_and_status_says_which_setting() -> Result<()> {
    let lab = lab()?;
    for setting in FORWARDING {
        lab.node(1).set_sysctl(setting, 0)?;
    }
    let agent = agent_with(&lab, &[2]).start()?;
    agent.wait_state("active", SOON)?;
    let told = |status: &Value| -> Vec<String> {
        backends(status).iter().filter_map(|one| one["reason"].as_str().map(str::to_owned)).collect()
    };
    let names = |told: &[String]| {
        told.len() == 2 && FORWARDING.iter().zip(told).all(|(setting, why)| why.contains(setting))
    };
    agent.wait_for("with reasons", |status| names(&told(status)))?;
    forward(lab.node(1))?;
    wait_up(&agent, 2)?;
    VIPS.iter().try_for_each(|vip| tcp(lab.client(), at(vip)?, 10))
}

#[test]
fn large_transfers_are_whole_on_narrow_paths_to_backends_and_to_clients() -> Result<()> {
    const MTU: usize = 1400;
    let lab = lab()?;
    let owner = lab.node(1);
    forward(owner)?;
    // As routes that routers told of would be: to the backend by what comes from the client, and back by what goes there.
    for host in [lab.node(2), lab.client()] {
        owner.ip(&format!("route replace {}/32 dev eth0 mtu {MTU}", host.ipv4()))?;
        owner.ip(&format!("-6 route replace {}/128 dev eth0 mtu {MTU}", host.ipv6()))?;
    }
    let agent = agent_with(&lab, &[2]).start()?;
    agent.wait_state("active", SOON)?;
    wait_up(&agent, 2)?;
    for vip in VIPS {
        tcp(lab.client(), at(vip)?, 4 * LARGE).with_context(|| agent.log())?;
    }
    let too_big = |status: &Value| -> Vec<u64> {
        let services = status["services"].as_array().cloned().unwrap_or_default();
        services.iter().filter_map(|service| service["outcomes"]["too_big"].as_u64()).collect()
    };
    // Both ends were told, in either family.
    let told = too_big(&agent.status()?.raw);
    ensure!(told.len() == 2 && told.iter().all(|count| *count >= 2), "{told:?}");
    Ok(())
}
