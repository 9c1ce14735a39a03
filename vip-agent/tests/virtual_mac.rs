//! `virtual_mac: true`: adverts, answers and announcements come from the virtual router's MAC, and a move changes nothing
//! for clients.

#[path = "support/agents.rs"]
mod agents;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, lab, ms, neighbor, pair, times};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::wire::{Frame, Packet, Wire};
use vip_lab::{Lab, Mac, Node, Stamp, wait};

/// Of VRID 51, for each of [`VIPS`].
const VIRTUAL: [Mac; 2] = [Mac([0, 0, 0x5e, 0, 1, 51]), Mac([0, 0, 0x5e, 0, 2, 51])];

/// The time in which a backup finds the real MAC of its owner, and some more.
const FOUND: std::time::Duration = ms(2000);

fn virtual_agent(lab: &Lab, number: usize) -> AgentBuilder {
    agent(lab, number).set_instance("virtual_mac", json!(true))
}

fn virtual_pair(lab: &Lab) -> Result<[Agent; 2]> {
    pair(virtual_agent(lab, 1), virtual_agent(lab, 2))
}

/// Both VIPs are served by node `number`, and the client has the virtual MACs in its cache.
fn served_by(lab: &Lab, number: usize) -> Result<()> {
    for (vip, mac) in VIPS.into_iter().zip(VIRTUAL) {
        let name = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(name == lab.node(number).name(), "{vip} is served by {name}");
        ensure!(neighbor(lab.client(), vip)? == Some(mac), "{vip}: {:?}", neighbor(lab.client(), vip)?);
    }
    Ok(())
}

/// The port by which the switch reaches a MAC.
fn port_of(lab: &Lab, mac: Mac) -> Result<Option<String>> {
    let listed = lab.switch().node().command("bridge").args(["fdb", "show", "br", "br0"]).read()?;
    let line = listed.lines().find(|line| line.starts_with(&mac.to_string()));
    Ok(line.and_then(|line| line.split_whitespace().nth(2)).map(str::to_owned))
}

fn at_port(lab: &Lab, number: usize) -> Result<()> {
    let name = lab.node(number).name();
    for mac in VIRTUAL {
        wait::until(SOON, || port_of(lab, mac).is_ok_and(|port| port.as_deref() == Some(name)))
            .with_context(|| format!("{mac} is at {:?}, not at {name}", port_of(lab, mac)))?;
    }
    Ok(())
}

fn is_virtual(mac: Mac) -> bool {
    VIRTUAL.contains(&mac)
}

/// Adverts from `node` since `since`.
fn adverts_from(wire: &Wire, node: &Node, since: Stamp) -> Vec<Frame> {
    wire.frames(|frame| frame.at >= since && frame.is_from(node) && frame.advert().is_some())
}

#[test]
fn all_that_speaks_for_the_vips_comes_from_the_virtual_mac_and_all_else_does_not() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let wire = lab.wire()?;
    let alone = virtual_agent(&lab, 1).start()?;
    alone.wait_state("active", SOON)?;
    served_by(&lab, 1)?;
    let node = lab.node(1);
    let sent = wire.frames(|frame| frame.is_from(node));
    let (mut adverts, mut announcements, mut answers) = (0, 0, 0);
    for frame in &sent {
        let vip_of = |v6: bool| VIRTUAL[usize::from(v6)];
        match &frame.packet {
            Packet::Vrrp(advert) => {
                ensure!(frame.source == vip_of(advert.source.is_ipv6()), "{frame:?}");
                adverts += 1;
            }
            Packet::Arp(arp) if arp.sender.to_string() == VIPS[0] => {
                ensure!((frame.source, arp.sender_mac) == (VIRTUAL[0], VIRTUAL[0]), "{frame:?}");
                announcements += usize::from(arp.sender == arp.target);
                answers += usize::from(arp.sender != arp.target);
            }
            Packet::NeighborAdvertisement(na) if na.target.to_string() == VIPS[1] => {
                let macs = (frame.source, na.target_mac);
                ensure!(macs == (VIRTUAL[1], Some(VIRTUAL[1])), "{frame:?}");
                announcements += usize::from(!na.solicited);
                answers += usize::from(na.solicited);
            }
            _ => ensure!(frame.source == node.mac(), "{frame:?}"),
        }
    }
    ensure!(adverts > 0 && announcements >= 3 && answers >= 2, "{adverts} {announcements} {answers}");
    // The node's own address is not the router's.
    ensure!(neighbor(lab.client(), "10.0.0.1")?.is_none_or(|mac| mac == node.mac()));
    ensure!(alone.status()?.alarms.is_empty(), "{:?}", alone.status()?.alarms);
    Ok(())
}

#[test]
fn a_move_changes_the_switchs_port_and_no_clients_cache() -> Result<()> {
    let lab = lab().build()?;
    let builder = |n| virtual_agent(&lab, n).preempt(false);
    let agents = pair(builder(1), builder(2))?;
    served_by(&lab, 1)?;
    at_port(&lab, 1)?;
    for n in 0..4 {
        let (from, to) = (&agents[n % 2], &agents[(n + 1) % 2]);
        from.drain()?;
        to.wait_state("active", SOON)?;
        at_port(&lab, (n + 1) % 2 + 1)?;
        served_by(&lab, (n + 1) % 2 + 1)?;
        from.undrain()?;
        from.wait_state("backup", SOON)?;
    }
    for agent in &agents {
        ensure!(agent.status()?.alarms.is_empty(), "{:?}", agent.status()?.alarms);
    }
    Ok(())
}

#[test]
fn a_killed_owners_virtual_mac_is_taken_over() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = virtual_pair(&lab)?;
    served_by(&lab, 1)?;
    first.crash()?;
    second.wait_state("active", SOON)?;
    at_port(&lab, 2)?;
    served_by(&lab, 2)?;
    // The filter goes with the process, the program stays.
    let link = lab.node(1).ip("-d link show eth0")?;
    ensure!(link.contains("promiscuity 0"), "{link}");
    ensure!(link.contains("xdp"), "{link}");
    Ok(())
}

/// The watcher sends the same frames as an agent that leaves: the switch still has the virtual MAC at this port.
#[test]
fn a_dead_agents_watcher_says_priority_0_from_the_virtual_mac_and_the_heir_gets_it() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = virtual_pair(&lab)?;
    let wire = lab.wire()?;
    first.wait_watcher(SOON)?;
    let dies = Stamp::now();
    first.kill()?;
    second.wait_state("active", SOON)?;
    let takeover = second.edge()?.last_takeover.map(|takeover| takeover.cause);
    ensure!(takeover.as_deref() == Some("priority_zero"), "{takeover:?}\n{}", first.log());
    let mut zeros = adverts_from(&wire, lab.node(1), dies);
    zeros.retain(|frame| frame.advert().is_some_and(|advert| advert.priority == 0));
    for (v6, mac) in [false, true].into_iter().zip(VIRTUAL) {
        let of_family = |frame: &&Frame| {
            frame.source == mac
                && frame
                    .advert()
                    .is_some_and(|advert| advert.source.is_ipv6() == v6 && advert.hop_limit == 255)
        };
        ensure!(zeros.iter().filter(of_family).count() == 2, "{zeros:#?}");
    }
    ensure!(zeros.len() == 4, "{zeros:#?}");
    at_port(&lab, 2)?;
    served_by(&lab, 2)
}

/// It asks because there may be an owner, who has the virtual MAC at its port.
#[test]
fn the_question_whether_there_is_an_owner_comes_from_the_interface() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let wire = lab.wire()?;
    let alone = virtual_agent(&lab, 1).preempt(false).start()?;
    alone.wait_state("active", SOON)?;
    served_by(&lab, 1)?;
    let adverts = adverts_from(&wire, lab.node(1), Stamp::from_nanos(0));
    let is_question = |frame: &&Frame| frame.advert().is_some_and(|advert| advert.priority == 1);
    let (questions, others): (Vec<_>, Vec<_>) = adverts.iter().partition(is_question);
    ensure!(questions.len() == 2, "one for each family: {questions:#?}");
    ensure!(questions.iter().all(|frame| frame.source == lab.node(1).mac()), "{questions:#?}");
    ensure!(!others.is_empty() && others.iter().all(|frame| is_virtual(frame.source)), "{others:#?}");
    Ok(())
}

/// 1000 requests a second of 10 ms each, half of them by IPv6: nothing is lost, nothing waits for a SYN to be sent again.
#[test]
fn planned_moves_lose_no_request() -> Result<()> {
    let lab = lab().build()?;
    let builder = |n| virtual_agent(&lab, n).preempt(false);
    let agents = pair(builder(1), builder(2))?;
    std::thread::sleep(FOUND);
    let load = lab.requests().every(ms(1)).delay(ms(10)).start()?;
    let in_full_swing = || wait::until(2 * SOON, || (10..200).contains(&load.in_flight()));
    for n in 0..times(6, 50) {
        in_full_swing()?;
        let (from, to) = (&agents[n % 2], &agents[(n + 1) % 2]);
        from.drain()?;
        to.wait_state("active", SOON)?;
        from.undrain()?;
        from.wait_state("backup", SOON)?;
        std::thread::sleep(FOUND);
    }
    in_full_swing()?;
    let report = load.stop();
    let lost: Vec<_> = report.lost().collect();
    let slow = report.slow(ms(900)).count();
    println!("{} requests, {} lost, {slow} slow", report.requests().len(), lost.len());
    ensure!(lost.is_empty(), "lost {}: {:?}", lost.len(), &lost[..lost.len().min(20)]);
    let kept_up = report.latencies().quantile(0.9).is_some_and(|latency| latency < 300.0);
    ensure!(slow == 0 || !kept_up, "{slow} SYNs were lost");
    ensure!(report.answered_by().len() == 2, "only {:?} served", report.answered_by());
    Ok(())
}

/// Its adverts do not tell the former owner's MAC: the neighbour table does.
#[test]
fn open_connections_go_on_with_the_former_owner_by_its_real_mac() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = virtual_pair(&lab)?;
    std::thread::sleep(FOUND);
    let mut open =
        VIPS.into_iter().map(|vip| Conversation::open(lab.client(), vip)).collect::<Result<Vec<_>>>()?;
    for conversation in &mut open {
        ensure!(conversation.ask()? == "node1");
    }
    first.drain()?;
    second.wait_state("active", SOON)?;
    at_port(&lab, 2)?;
    for conversation in &mut open {
        ensure!(conversation.ask()? == "node1", "an open connection was not forwarded");
    }
    served_by(&lab, 2)
}

#[test]
fn the_loser_of_a_healed_split_does_not_draw_the_virtual_mac_back() -> Result<()> {
    let lab = lab().build()?;
    let wire = lab.wire()?;
    let [first, second] = virtual_pair(&lab)?;
    lab.switch().set_forwarding(lab.node(1), false)?;
    second.wait_state("active", SOON)?;
    lab.switch().set_forwarding(lab.node(1), true)?;
    second.wait_state("backup", SOON)?;
    ensure!(first.edge()?.state == "active");
    at_port(&lab, 1)?;
    let yielded = adverts_from(&wire, lab.node(2), Stamp::from_nanos(0));
    let last =
        |v6| yielded.iter().rfind(|frame| frame.advert().is_some_and(|advert| advert.source.is_ipv6() == v6));
    for v6 in [false, true] {
        let last = last(v6).context("it has advertised")?;
        ensure!(last.source == lab.node(2).mac(), "{last:?}");
    }
    ensure!(yielded.iter().any(|frame| is_virtual(frame.source)), "while it owned it had the virtual MAC");
    served_by(&lab, 1)
}

#[test]
fn unicast_adverts_come_from_the_interface_and_announcements_from_the_virtual_mac() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(1).vips([VIPS[0]]).web().build()?;
    let wire = lab.wire()?;
    let [first, second] = pair(virtual_agent(&lab, 1).unicast(), virtual_agent(&lab, 2).unicast())?;
    let served_by = |number: usize| -> Result<()> {
        let name = Conversation::open(lab.client(), VIPS[0])?.ask()?;
        ensure!(name == lab.node(number).name(), "served by {name}");
        ensure!(neighbor(lab.client(), VIPS[0])? == Some(VIRTUAL[0]));
        ensure!(port_of(&lab, VIRTUAL[0])?.as_deref() == Some(lab.node(number).name()));
        Ok(())
    };
    served_by(1)?;
    let adverts = adverts_from(&wire, lab.node(1), Stamp::from_nanos(0));
    ensure!(!adverts.is_empty() && adverts.iter().all(|advert| advert.source == lab.node(1).mac()));
    let mut open = Conversation::open(lab.client(), VIPS[0])?;
    ensure!(open.ask()? == "node1");
    first.drain()?;
    second.wait_state("active", SOON)?;
    ensure!(open.ask()? == "node1", "an open connection was not forwarded");
    served_by(2)
}

/// Its adverts go past it: what the documentation warns of.
#[test]
fn a_firewall_of_the_host_does_not_mute_adverts_from_a_virtual_mac() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = virtual_pair(&lab)?;
    let ruleset = "add table inet t; add chain inet t c { type filter hook output priority 0; }; \
                   add rule inet t c meta l4proto 112 drop";
    lab.node(1).command("nft").arg(ruleset).read()?;
    std::thread::sleep(ms(1000));
    ensure!(first.edge()?.state == "active" && second.edge()?.state == "backup");
    ensure!(first.edge_json()?["adverts"]["refused"] == 0);
    Ok(())
}

/// What this host refuses renews nothing, whatever socket it is said to.
#[test]
fn an_owner_whose_frames_are_refused_falls_silent() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = virtual_pair(&lab)?;
    // Room for nothing.
    lab.node(1).command("tc").args("qdisc add dev eth0 root bfifo limit 1".split(' ')).read()?;
    second.wait_state("active", SOON)?;
    let edge = first.edge()?;
    ensure!(edge.state == "backup" && !edge.owned, "{edge:?}");
    ensure!(first.log().contains("ENOBUFS"), "{}", first.log());
    at_port(&lab, 2)?;
    served_by(&lab, 2)
}

#[test]
fn a_promiscuous_interface_is_mentioned_and_the_virtual_mac_leaves_it_with_the_instance() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let alone = virtual_agent(&lab, 1).start()?;
    alone.wait_state("active", SOON)?;
    let promiscuous =
        || -> Result<bool> { Ok(!lab.node(1).ip("-d link show eth0")?.contains("promiscuity 0")) };
    ensure!(promiscuous()?);
    ensure!(alone.log().contains("made eth0 promiscuous for the virtual MAC"), "{}", alone.log());
    alone.reload(&virtual_agent(&lab, 1).set_instance("virtual_mac", json!(false)))?;
    alone.wait_state("active", SOON)?;
    wait::until(SOON, || promiscuous().is_ok_and(|promiscuous| !promiscuous))?;
    for vip in VIPS {
        ensure!(Conversation::open(lab.client(), vip)?.ask()? == "node1");
        let mac = lab.node(1).mac();
        wait::until(SOON, || neighbor(lab.client(), vip).is_ok_and(|known| known == Some(mac)))?;
    }
    Ok(())
}

#[test]
fn an_interface_that_cannot_have_a_second_mac_is_refused_and_its_parent_named() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    lab.node(1).ip("link add link eth0 name upper type macvlan mode bridge")?;
    lab.node(1).ip("address add 10.0.0.31/24 dev upper")?;
    lab.node(1).ip("link set upper up")?;
    let builder = virtual_agent(&lab, 1).vips(["10.0.0.50/24"]).set_instance("interface", json!("upper"));
    let refused = builder.start()?;
    let status = refused.wait(SOON)?;
    ensure!(!status.success(), "{status}");
    ensure!(refused.log().contains("upper is of kind macvlan"), "{}", refused.log());
    ensure!(refused.log().contains("use its parent"), "{}", refused.log());
    Ok(())
}

/// A rival that has the same virtual MAC is known by that it is heard at all.
#[test]
fn another_owner_with_the_same_virtual_mac_raises_an_alarm() -> Result<()> {
    let lab = lab().build()?;
    let alone = virtual_agent(&lab, 1).start()?;
    alone.wait_state("active", SOON)?;
    let [.., block, id] = VIRTUAL[0].0;
    let mut claim = vec![0xff; 6];
    claim.extend([
        0, 0, 0x5e, 0, block, id, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 0, 0, 0x5e, 0, block, id, 10, 0, 0, 50,
    ]);
    claim.extend([0, 0, 0x5e, 0, block, id, 10, 0, 0, 50]);
    // Right after a move of ours a claim may be the former owner's last answer: a rival goes on.
    std::thread::sleep(ms(1100));
    ensure!(alone.status()?.alarms.is_empty(), "{:?}", alone.status()?.alarms);
    lab.node(2).inject([claim], ms(0))?;
    alone.wait_for("alarmed", |status| {
        status["alarms"][0]["kind"] == "foreign_owner" && status["alarms"][0]["mac"] == VIRTUAL[0].to_string()
    })?;
    Ok(())
}
