//! A former owner keeps the VIPs on lo for its open connections, and never draws clients back by that.

#[path = "support/agents.rs"]
mod agents;

use std::net::IpAddr;

use agents::{Conversation, SOON, VIPS, agent, lab, ms, neighbor, pair, vips_256};
use anyhow::{Context as _, Result, ensure};
use vip_lab::arping::Arping;
use vip_lab::wire::Packet;
use vip_lab::{Lab, Stamp};

#[test]
fn looking_for_a_client_it_asks_in_its_own_name() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let mut open = VIPS.map(|vip| Conversation::open(lab.client(), vip));
    let wire = lab.wire()?;
    let moved = Stamp::now();
    first.drain()?;
    second.wait_state("active", SOON)?;
    lab.node(1).ip("neigh flush dev eth0")?;
    for conversation in &mut open {
        let conversation = conversation.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        ensure!(conversation.ask()? == "node1", "an open connection ends where it began");
    }
    let [vip4, vip6] = VIPS.map(|vip| vip.parse::<IpAddr>().expect("an address"));
    let of_node1 = wire.frames(|frame| frame.at > moved && frame.is_from(lab.node(1)));
    let senders: Vec<IpAddr> = of_node1
        .iter()
        .filter_map(|frame| match &frame.packet {
            Packet::Arp(arp) if arp.operation == 1 => Some(arp.sender.into()),
            Packet::NeighborSolicitation(question) => Some(question.source.into()),
            _ => None,
        })
        .collect();
    ensure!(senders.contains(&lab.node(1).ipv4().into()), "it asked for nobody's MAC: {senders:?}");
    ensure!(!senders.contains(&vip4) && !senders.contains(&vip6), "it asked in the VIP's name: {senders:?}");
    for vip in VIPS {
        ensure!(neighbor(lab.client(), vip)? == Some(lab.node(2).mac()), "{vip} was drawn back");
    }
    Ok(())
}

#[test]
fn a_cable_that_is_back_before_the_grace_time_ends_brings_no_second_owner() -> Result<()> {
    // Many VIPs: what is done to one after the other takes long enough to be seen.
    let lab = Lab::builder().nodes(2).clients(1).vips(vips_256()).build()?;
    let [first, second] = pair(agent(&lab, 1).preempt(false), agent(&lab, 2))?;
    let last_ipv4 = *lab.vips().iter().rfind(|vip| vip.is_ipv4()).context("a VIP")?;
    let prober = Arping::start(lab.client(), last_ipv4, ms(1) / 4)?;
    lab.switch().set_cable(lab.node(1), false)?;
    second.wait_state("active", SOON)?;
    lab.switch().set_cable(lab.node(1), true)?;
    first.wait_state("backup", SOON)?;
    std::thread::sleep(ms(300));
    ensure!(prober.lost() == 0);
    let owners = prober.stop()?.owners();
    let of_second_only = [lab.node(2).mac()];
    let of_both = [lab.node(1).mac(), lab.node(2).mac()];
    ensure!(owners == of_both || owners == of_second_only, "answers came from {owners:?}");
    Ok(())
}
