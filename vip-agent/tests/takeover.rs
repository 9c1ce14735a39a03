//! Three agents share a VIP: who answers for it, and what moves it.

#[path = "support/watch.rs"]
mod watch;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vip_lab::agent::Agent;
use vip_lab::wire::{Frame, Packet};
use vip_lab::{Lab, Stamp};
use watch::Watch;

const SOON: Duration = Duration::from_secs(5);
const VIPS: [&str; 2] = ["10.0.0.50", "fd00::50"];

fn agent_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vip-agent"))
}

/// Node 1 has the highest priority; all are up, and it owns.
fn three_agents(lab: &Lab, interval: Duration) -> Result<Vec<Agent>> {
    let agents: Vec<Agent> = (1..=3)
        .map(|n| {
            lab.agent(n, agent_binary()).priority(210 - 10 * n as u8).interval(interval).vips(VIPS).start()
        })
        .collect::<Result<_>>()?;
    agents[0].wait_state("active", SOON)?;
    agents[1].wait_state("backup", SOON)?;
    agents[2].wait_state("backup", SOON)?;
    Ok(agents)
}

#[test]
fn the_next_in_priority_takes_over_from_a_killed_owner() -> Result<()> {
    let lab = Lab::builder().nodes(3).clients(1).vips(VIPS).web().build()?;
    let agents = three_agents(&lab, Duration::from_millis(100))?;
    let requests = lab.requests().start()?;
    std::thread::sleep(Duration::from_millis(500));
    agents[0].crash()?;
    let status = agents[1].wait_state("active", SOON)?;
    std::thread::sleep(Duration::from_millis(500));
    let report = requests.stop();
    println!(
        "{status:#?} lost={:?} gap={:?} by={:?}",
        report.lost().count(),
        report.gap(),
        report.answered_by()
    );
    Ok(())
}

#[test]
fn order_of_a_takeover_is_adverts_word_announcements_and_replies_before_requests() -> Result<()> {
    let lab = Lab::builder().nodes(3).clients(1).vips(VIPS).build()?;
    let agents = three_agents(&lab, Duration::from_millis(100))?;
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    let (heir, wire, killed) = (lab.node(2), &watch.wire, Stamp::now());
    agents[0].crash()?;
    watch.wait_answers_of(heir, SOON)?;

    let first = |what: &str, wanted: &dyn Fn(&Frame) -> bool| {
        let wanted = |frame: &Frame| frame.is_from(heir) && wanted(frame);
        wire.wait_first(killed, SOON, wanted).map(|frame| frame.at).with_context(|| what.to_owned())
    };
    let is_advert = |ipv4: bool| {
        move |frame: &Frame| frame.advert().is_some_and(|advert| advert.source.is_ipv4() == ipv4)
    };
    let adverts = [first("advert", &is_advert(true))?, first("advert over IPv6", &is_advert(false))?];
    for vip in VIPS {
        let vip: IpAddr = vip.parse()?;
        let answer = first("answer", &|frame| frame.packet.answers(vip))?;
        let announcement = first("announcement", &|frame| frame.packet.announces(vip))?;
        // Who answers has stored its word, and who has stored it has said so.
        ensure!(adverts.iter().all(|&advert| advert < answer && advert < announcement), "{vip}: too early");
    }
    let arp = |operation: u16| {
        move |frame: &Frame| {
            let announces = VIPS.iter().any(|vip| vip.parse().is_ok_and(|vip| frame.packet.announces(vip)));
            announces && matches!(&frame.packet, Packet::Arp(arp) if arp.operation == operation)
        }
    };
    ensure!(first("gratuitous reply", &arp(2))? < first("gratuitous request", &arp(1))?);
    ensure!(watch.finish(&lab)? == [lab.node(1).mac(), heir.mac()], "not one owner after the other");
    Ok(())
}
