//! Stations that have a VIP when an agent starts: an alarm, or a reason to stay out; owners that advertise are neither.

#[path = "support/agents.rs"]
mod agents;

use agents::{Ask as _, SOON, VIPS, agent, ms, pair};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Node};

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).clients(1).vips(VIPS).build()
}

/// 100 ms adverts, without local addresses that would linger.
fn builder(lab: &Lab, number: usize) -> AgentBuilder {
    agent(lab, number).grace(ms(0))
}

fn cautious(lab: &Lab, number: usize) -> AgentBuilder {
    builder(lab, number).set_instance("on_conflict", json!("fault"))
}

/// A host that somebody gave the VIPs by hand.
fn squat(node: &Node) -> Result<()> {
    node.ip("address add 10.0.0.50/32 dev eth0")?;
    node.ip("address add fd00::50/128 dev eth0 nodad").map(drop)
}

fn conflicts(agent: &Agent) -> Result<Vec<(String, String)>> {
    let alarms = agent.status()?.alarms.into_iter().filter(|alarm| alarm.kind == "address_conflict");
    let shown = |alarm: vip_lab::agent::Alarm| Some((alarm.address?.to_string(), alarm.mac?));
    Ok(alarms.filter_map(shown).collect())
}

#[test]
fn a_station_that_has_the_vips_at_the_start_is_an_alarm_and_stops_nobody() -> Result<()> {
    let lab = lab()?;
    let squatter = lab.node(2);
    squat(squatter)?;
    let owner = builder(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    owner.wait_for("alarmed of both", |_| conflicts(&owner).is_ok_and(|found| found.len() == 2))?;
    let mac = squatter.mac().to_string();
    ensure!(conflicts(&owner)? == VIPS.map(|vip| (vip.to_owned(), mac.clone())), "{:?}", conflicts(&owner)?);
    let log = owner.log();
    ensure!(log.contains("though no router advertises it") && log.contains(&mac), "{log}");
    ensure!(owner.edge()?.state == "active");
    Ok(())
}

#[test]
fn who_is_told_to_stays_out_while_a_station_has_the_vips_and_comes_in_when_it_has_not() -> Result<()> {
    let lab = lab()?;
    let squatter = lab.node(2);
    squat(squatter)?;
    let wire = lab.wire()?;
    let ours = cautious(&lab, 1).start()?;
    let mac = squatter.mac().to_string();
    let status = ours.wait_for("faulty for the station", |status| {
        let edge = &status["instances"][0];
        edge["state"] == "fault" && edge["reason"].as_str().is_some_and(|reason| reason.contains(&mac))
    })?;
    let reason = status["instances"][0]["reason"].as_str().context("a reason")?;
    ensure!(reason.contains("10.0.0.50") && reason.contains("virtual router 51"), "{reason}");
    ensure!(
        conflicts(&ours)?.iter().any(|(vip, by)| vip == VIPS[0] && *by == mac),
        "{:?}",
        conflicts(&ours)?
    );
    ensure!(wire.adverts(lab.node(1)).is_empty(), "it takes part");
    ensure!(ours.log().contains("take the VIP off that station"), "{}", ours.log());
    squatter.ip("address flush dev eth0 to 10.0.0.50")?;
    squatter.ip("address flush dev eth0 to fd00::50")?;
    ours.wait_state("active", SOON)?;
    ensure!(ours.log().contains("no conflict any more"), "{}", ours.log());
    Ok(())
}

#[test]
fn a_reload_can_overrule_the_caution() -> Result<()> {
    let lab = lab()?;
    squat(lab.node(2))?;
    let ours = cautious(&lab, 1).start()?;
    ours.wait_for("faulty", |status| status["alarms"].as_array().is_some_and(|alarms| !alarms.is_empty()))?;
    ours.wait_state("fault", SOON)?;
    ours.reload(&builder(&lab, 1))?;
    ours.wait_state("active", SOON)?;
    Ok(())
}

#[test]
fn an_owner_that_advertises_is_no_conflict_whoever_starts_anew() -> Result<()> {
    for virtual_mac in [false, true] {
        let lab = lab()?;
        let builder = |number| cautious(&lab, number).set_instance("virtual_mac", json!(virtual_mac));
        let [owner, backup] = pair(builder(1), builder(2))?;
        backup.signal(nix::sys::signal::Signal::SIGTERM)?;
        backup.wait(SOON)?;
        let backup = backup.builder().start()?;
        backup.wait_state("backup", SOON)?;
        // The better router comes back, and preempts.
        owner.signal(nix::sys::signal::Signal::SIGTERM)?;
        owner.wait(SOON)?;
        backup.wait_state("active", SOON)?;
        let owner = owner.builder().start()?;
        owner.wait_state("active", SOON)?;
        backup.wait_state("backup", SOON)?;
        std::thread::sleep(ms(600));
        for agent in [&owner, &backup] {
            ensure!(agent.status()?.alarms.is_empty(), "{:?}\n{}", agent.status()?.alarms, agent.log());
        }
    }
    Ok(())
}

#[test]
fn a_keepalived_that_owns_is_no_conflict() -> Result<()> {
    let lab = lab()?;
    let theirs =
        lab.keepalived(2).vips([([10, 0, 0, 50].into(), 24)]).priority(200).interval(ms(200)).start()?;
    theirs.wait_state("MASTER", SOON)?;
    let ours = cautious(&lab, 1).vips(["10.0.0.50/24"]).priority(100).interval(ms(200)).start()?;
    ours.wait_state("backup", SOON)?;
    std::thread::sleep(ms(1500));
    ensure!(ours.edge()?.state == "backup" && conflicts(&ours)?.is_empty(), "{:?}", ours.status()?);
    Ok(())
}

#[test]
fn two_that_start_at_once_do_not_take_each_other_for_a_conflict() -> Result<()> {
    let lab = lab()?;
    let (first, second) = (cautious(&lab, 1).start()?, cautious(&lab, 2).start()?);
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    for agent in [&first, &second] {
        ensure!(agent.status()?.alarms.is_empty(), "{:?}", agent.status()?.alarms);
    }
    Ok(())
}

#[test]
fn the_look_around_costs_a_backup_of_a_living_owner_no_time_at_its_takeover() -> Result<()> {
    let lab = lab()?;
    let [owner, backup] = pair(builder(&lab, 1), builder(&lab, 2))?;
    let backup = {
        backup.signal(nix::sys::signal::Signal::SIGTERM)?;
        backup.wait(SOON)?;
        backup.builder().start()?
    };
    // It is still looking around when the owner dies.
    backup.wait_state("backup", SOON)?;
    let wire = lab.wire()?;
    let died = vip_lab::Stamp::now();
    owner.crash()?;
    let heir =
        wire.wait_first(died, SOON, |frame| frame.is_from(lab.node(2)) && frame.advert().is_some())?.at;
    ensure!(heir - died < ms(500), "taken over {:?} after the crash", heir - died);
    Ok(())
}
