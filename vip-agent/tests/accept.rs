//! `accept: false`: an Active router that is not the address owner answers for the VIPs and takes nothing that is sent to
//! them (RFC 9568, 6.1 and 6.4.3).

#[path = "support/agents.rs"]
mod agents;

use std::net::{IpAddr, SocketAddr, TcpStream};

use agents::{Ask as _, Conversation, SOON, VIPS, agent, is_on_lo, lab, ms, neighbor};
use anyhow::{Result, ensure};
use serde_json::json;
use vip_lab::agent::AgentBuilder;
use vip_lab::{Lab, WEB_PORT, wait};

fn refusing(lab: &Lab) -> AgentBuilder {
    agent(lab, 1).set_instance("accept", json!(false))
}

/// Whether an echo request is answered.
fn pings(lab: &Lab, vip: &str) -> Result<bool> {
    let output = lab.client().command("ping").args(["-c", "1", "-W", "1", vip]).output()?;
    Ok(output.status.success())
}

/// Whether a TCP connection comes about within a second; a refusal is an answer, too.
fn connects(lab: &Lab, vip: &str) -> Result<bool> {
    let target = SocketAddr::new(vip.parse::<IpAddr>()?, WEB_PORT);
    let connected = lab.client().run(move || TcpStream::connect_timeout(&target, ms(1000)));
    Ok(!matches!(connected, Err(error) if error.kind() == std::io::ErrorKind::TimedOut))
}

/// Nothing that is sent to the VIPs is answered, but who asks for them is.
fn is_silent_but_known(lab: &Lab) -> Result<()> {
    for vip in VIPS {
        ensure!(!pings(lab, vip)?, "{vip} answers echo requests");
        ensure!(!connects(lab, vip)?, "{vip} answers TCP");
        ensure!(neighbor(lab.client(), vip)? == Some(lab.node(1).mac()), "{vip} is not resolved");
    }
    Ok(())
}

fn serves(lab: &Lab) -> Result<()> {
    for vip in VIPS {
        ensure!(pings(lab, vip)?, "{vip} answers no echo requests");
        ensure!(Conversation::open(lab.client(), vip)?.ask()? == "node1");
    }
    Ok(())
}

#[test]
fn ping_and_tcp_get_nothing_while_arp_and_neighbour_discovery_resolve() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = refusing(&lab).start()?;
    alone.wait_state("active", SOON)?;
    is_silent_but_known(&lab)?;
    for vip in VIPS {
        ensure!(!is_on_lo(&alone, vip)?, "{vip} is an address of the node");
    }
    // The node itself is not the VIP.
    ensure!(pings(&lab, "10.0.0.1")?);
    Ok(())
}

#[test]
fn what_it_accepts_changes_while_it_owns() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = agent(&lab, 1).start()?;
    alone.wait_state("active", SOON)?;
    serves(&lab)?;
    alone.reload(&refusing(&lab))?;
    is_silent_but_known(&lab)?;
    ensure!(!is_on_lo(&alone, VIPS[0])? && !is_on_lo(&alone, VIPS[1])?);
    alone.reload(&agent(&lab, 1))?;
    wait::until(SOON, || VIPS.iter().all(|vip| is_on_lo(&alone, vip).unwrap_or(false)))?;
    serves(&lab)?;
    ensure!(lab.node(1).sysctl("net.ipv4.conf.eth0.arp_ignore")? == "3");
    ensure!(alone.edge()?.transitions == 2, "it left its state: {:?}", alone.edge()?);
    Ok(())
}

#[test]
fn the_address_owner_accepts_in_any_case() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = refusing(&lab).priority(255).start()?;
    alone.wait_state("active", SOON)?;
    serves(&lab)
}

#[test]
fn traffic_by_the_virtual_mac_is_not_accepted_either() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = refusing(&lab).set_instance("virtual_mac", json!(true)).start()?;
    alone.wait_state("active", SOON)?;
    for vip in VIPS {
        ensure!(!pings(&lab, vip)? && !connects(&lab, vip)?, "{vip} answers");
        ensure!(neighbor(lab.client(), vip)?.is_some(), "{vip} is not resolved");
    }
    Ok(())
}

/// The gateway of hosts does not take what is sent to it, but what is sent through it.
#[test]
fn a_gateway_that_accepts_nothing_forwards_all_the_same() -> Result<()> {
    for virtual_mac in [false, true] {
        let lab = lab().nodes(2).build()?;
        // Node 2 is the world beyond: node 1 forwards to it.
        lab.node(1).set_sysctl("net.ipv4.ip_forward", 1)?;
        lab.node(2).ip("address add 192.0.2.1/32 dev lo")?;
        lab.node(1).ip("route add 192.0.2.1/32 via 10.0.0.2")?;
        let alone = refusing(&lab).set_instance("virtual_mac", json!(virtual_mac)).start()?;
        alone.wait_state("active", SOON)?;
        lab.client().ip("route add 192.0.2.1/32 via 10.0.0.50")?;
        ensure!(pings(&lab, "192.0.2.1")?, "virtual_mac {virtual_mac}: nothing is forwarded");
        ensure!(!pings(&lab, VIPS[0])?);
    }
    Ok(())
}
