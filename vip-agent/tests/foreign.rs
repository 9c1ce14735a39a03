//! Others on the wire: stations that claim our VIPs, caches that must follow, announcements that get lost.

#[path = "support/agents.rs"]
mod agents;

use std::net::IpAddr;
use std::time::Duration;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, lab, ms, neighbor, pair};
use anyhow::{Result, ensure};
use serde_json::json;
use vip_lab::wire::{Frame, Packet};
use vip_lab::{Mac, Stamp, wait};

const ALARM: &str = "another station answers for a VIP that we own";

#[test]
fn a_station_that_answers_for_our_vip_is_an_alarm_with_its_mac() -> Result<()> {
    let lab = lab().build()?;
    let owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    let rogue = lab.node(2);
    ensure!(owner.status()?.alarms.is_empty());
    rogue.ip("address add 10.0.0.50/32 dev eth0")?;
    // Announces it by ARP replies to everybody, several times.
    rogue.command("arping").args(["-A", "-I", "eth0", "-c", "3", "-w", "4", "10.0.0.50"]).output()?;
    rogue.set_sysctl("net.ipv6.conf.eth0.ndisc_notify", 1)?;
    rogue.ip("address add fd00::50/128 dev eth0 nodad")?;
    for _ in 0..2 {
        // A change of MAC, even to the same, is announced.
        rogue.ip(&format!("link set eth0 address {}", rogue.mac()))?;
        std::thread::sleep(ms(1200));
    }
    let status = owner.wait_for("alarmed twice", |status| {
        let alarms = status["alarms"].as_array().map_or(&[][..], Vec::as_slice);
        VIPS.iter().all(|vip| {
            alarms.iter().any(|alarm| alarm["address"] == *vip && alarm["count"].as_u64() >= Some(2))
        })
    })?;
    for alarm in status["alarms"].as_array().into_iter().flatten() {
        ensure!(alarm["kind"] == "foreign_owner" && alarm["instance"] == "edge", "{alarm}");
        ensure!(alarm["mac"] == rogue.mac().to_string() && alarm["since"].is_string(), "{alarm}");
    }
    let log = owner.log();
    ensure!(log.matches(ALARM).count() == 2, "one line for each VIP: {log}");
    ensure!(log.contains(&rogue.mac().to_string()), "{log}");
    ensure!(
        owner
            .say(&["status"])?
            .ok()?
            .out
            .contains("ALARM edge: foreign_owner 10.0.0.50 by 02:00:00:00:00:02")
    );
    Ok(())
}

#[test]
fn a_planned_move_is_no_alarm() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    for _ in 0..3 {
        first.drain()?;
        second.wait_state("active", SOON)?;
        first.undrain()?;
        first.wait_state("active", SOON)?;
    }
    // Claims are judged some time after they were made.
    std::thread::sleep(ms(500));
    for agent in [&first, &second] {
        ensure!(agent.status()?.alarms.is_empty(), "{:?}", agent.status()?.alarms);
    }
    Ok(())
}

#[test]
fn a_backup_learns_the_new_owner_by_its_announcements() -> Result<()> {
    let lab = lab().nodes(3).build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let third = agent(&lab, 3).start()?;
    third.wait_state("backup", SOON)?;
    let watcher = lab.node(3);
    for vip in VIPS {
        ensure!(Conversation::open(watcher, vip)?.ask()? == "node1");
        ensure!(neighbor(watcher, vip)? == Some(lab.node(1).mac()));
    }
    first.drain()?;
    second.wait_state("active", SOON)?;
    for vip in VIPS {
        // By the announcements alone: nobody asks.
        wait::until(SOON, || neighbor(watcher, vip).is_ok_and(|mac| mac == Some(lab.node(2).mac())))?;
        ensure!(Conversation::open(watcher, vip)?.ask()? == "node2");
    }
    Ok(())
}

fn operation(frame: &Frame) -> Option<u16> {
    if let Packet::Arp(arp) = &frame.packet { Some(arp.operation) } else { None }
}

#[test]
fn announcements_are_made_at_once_repeated_and_refreshed_as_configured() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let wire = lab.wire()?;
    let announce = json!({"repeat": 3, "interval": "300ms", "refresh": "2s"});
    let owner = agent(&lab, 1).set_instance("announce", announce).start()?;
    owner.wait_state("active", SOON)?;
    let vips: [IpAddr; 2] = [VIPS[0].parse()?, VIPS[1].parse()?];
    let first = wire.wait_first(Stamp::MIN, SOON, |frame| frame.packet.announces(vips[0]))?.at;
    std::thread::sleep(ms(3600));
    ensure!(wire.lost() == 0);
    let mac = lab.node(1).mac();
    let mut rounds: Vec<Duration> = Vec::new();
    let v4 = wire.announcements_of(vips[0]);
    for frame in &v4 {
        ensure!(frame.destination == Mac::BROADCAST && frame.source == mac, "{frame:?}");
        let Packet::Arp(arp) = &frame.packet else { anyhow::bail!("{frame:?}") };
        ensure!(arp.sender_mac == mac, "{arp:?}");
        if arp.operation == 2 {
            rounds.push(frame.at - first);
        }
    }
    // At the takeover, three repeats 300 ms apart, and a refresh 2 s after the last.
    let expected = [0, 300, 600, 900, 2900].map(ms);
    let close = |(at, wanted): (&Duration, &Duration)| at.abs_diff(*wanted) < ms(150);
    ensure!(rounds.len() == 5 && rounds.iter().zip(&expected).all(close), "{rounds:?}");
    let requests = v4.iter().filter(|frame| operation(frame) == Some(1)).count();
    ensure!(requests == 5, "each reply goes with a request: {requests}");
    ensure!(operation(&v4[0]) == Some(2), "the replies go first");
    let v6 = wire.announcements_of(vips[1]);
    ensure!(v6.len() == 5, "{v6:?}");
    for frame in &v6 {
        let Packet::NeighborAdvertisement(na) = &frame.packet else { anyhow::bail!("{frame:?}") };
        ensure!(na.overrides && !na.solicited && !na.router, "{na:?}");
        ensure!(na.target_mac == Some(mac) && na.destination.to_string() == "ff02::1", "{na:?}");
        ensure!(frame.destination == Mac([0x33, 0x33, 0, 0, 0, 1]), "{frame:?}");
    }
    Ok(())
}

#[test]
fn an_announcement_that_was_lost_is_made_up_for() -> Result<()> {
    let lab = lab().build()?;
    let announce = json!({"repeat": 2, "interval": "1500ms", "refresh": "2s"});
    let builder = |n| agent(&lab, n).set_instance("announce", announce.clone());
    let [first, second] = pair(builder(1), builder(2))?;
    let client = lab.client();
    for vip in VIPS {
        ensure!(Conversation::open(client, vip)?.ask()? == "node1");
    }
    // While the cable is out the client misses the first announcements.
    lab.switch().set_cable(client, false)?;
    first.drain()?;
    second.wait_state("active", SOON)?;
    std::thread::sleep(ms(100));
    lab.switch().set_cable(client, true)?;
    let stale = lab.node(1).mac();
    for vip in VIPS {
        client.ip(&format!("neighbour replace {vip} lladdr {stale} dev eth0 nud stale"))?;
    }
    for vip in VIPS {
        wait::until(SOON, || neighbor(client, vip).is_ok_and(|mac| mac == Some(lab.node(2).mac())))?;
    }
    // And those that go wrong much later, by the refresh.
    std::thread::sleep(ms(3500));
    for vip in VIPS {
        client.ip(&format!("neighbour replace {vip} lladdr {stale} dev eth0 nud stale"))?;
        wait::until(SOON, || neighbor(client, vip).is_ok_and(|mac| mac == Some(lab.node(2).mac())))?;
    }
    Ok(())
}
