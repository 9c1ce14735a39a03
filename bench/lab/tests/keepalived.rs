//! A pair of real keepaliveds elects and moves: the harness works without the agent.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use vip_lab::keepalived::Keepalived;
use vip_lab::{Lab, Stamp};

const SOON: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(100);

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).vips(["10.0.0.50", "fd00::50"]).web().build()
}

/// node1 with priority 200 is MASTER, node2 with 100 is BACKUP.
fn elected_pair(lab: &Lab, unicast: bool) -> Result<(Keepalived, Keepalived)> {
    let start = |number: usize, priority: u8| {
        let builder = lab.keepalived(number).priority(priority).interval(INTERVAL);
        if unicast { builder.unicast().start() } else { builder.start() }
    };
    let (master, backup) = (start(1, 200)?, start(2, 100)?);
    master.wait_state("MASTER", SOON)?;
    backup.wait_state("BACKUP", SOON)?;
    Ok((master, backup))
}

#[test]
fn a_pair_elects_by_priority_and_moves_on_sigterm() -> Result<()> {
    let lab = lab()?;
    let wire = lab.wire()?;
    let (master, backup) = elected_pair(&lab, false)?;
    let load = lab.requests().start()?;
    vip_lab::wait::until(SOON, || load.report().answered_by().contains_key("node1"))?;

    let stopped = Stamp::now();
    master.stop()?;
    backup.wait_state("MASTER", SOON)?;
    for vip in lab.vips() {
        let goodbye = wire.wait_first(stopped, SOON, |frame| {
            frame.is_from(lab.node(1))
                && frame
                    .advert()
                    .is_some_and(|advert| advert.priority == 0 && advert.source.is_ipv4() == vip.is_ipv4())
        })?;
        let announced = wire
            .wait_first(stopped, SOON, |frame| frame.packet.announces(*vip) && frame.is_from(lab.node(2)))?;
        assert!(announced.at > goodbye.at, "{vip} was announced before its owner left");
    }
    vip_lab::wait::until(SOON, || load.report().answered_by().contains_key("node2"))?;
    let report = load.stop();
    assert!(report.gap_around(stopped, Stamp::MAX) > Duration::ZERO);
    assert!(backup.complaints().is_empty(), "{:?}", backup.complaints());
    Ok(())
}

#[test]
fn its_adverts_on_the_wire_say_what_it_was_configured_for() -> Result<()> {
    let lab = lab()?;
    let wire = lab.wire()?;
    let _pair = elected_pair(&lab, true)?;
    for vip in lab.vips() {
        let frame = wire.wait_first(Stamp::MIN, SOON, |frame| {
            frame.is_from(lab.node(1))
                && frame.advert().is_some_and(|advert| advert.source.is_ipv4() == vip.is_ipv4())
        })?;
        let advert = frame.advert().expect("it is an advert");
        assert_eq!((advert.version, advert.vrid, advert.priority, advert.interval_cs), (3, 51, 200, 10));
        assert_eq!(advert.destination, lab.node(2).address_like(*vip));
        assert_eq!(advert.addresses, [*vip]);
    }
    Ok(())
}

#[test]
fn a_crash_leaves_the_vip_on_the_dead_node_and_says_no_goodbye() -> Result<()> {
    let lab = lab()?;
    let wire = lab.wire()?;
    let (master, backup) = elected_pair(&lab, false)?;
    let crashed = Stamp::now();
    master.crash()?;
    backup.wait_state("MASTER", SOON)?;
    assert!(lab.node(1).ip("addr show dev eth0")?.contains("10.0.0.50"));
    assert!(!wire.adverts(lab.node(1)).iter().any(|(at, advert)| *at > crashed && advert.priority == 0));
    // And it starts again on the same node, as another process.
    let again = master.builder().start()?;
    assert_ne!(again.child(), master.child());
    again.wait_state("MASTER", SOON)
}

#[test]
fn a_peer_with_another_list_of_vips_is_complained_about() -> Result<()> {
    let lab = lab()?;
    let _stranger = lab
        .keepalived(1)
        .priority(200)
        .interval(INTERVAL)
        .vips([(IpAddr::from([10, 0, 0, 60]), 24)])
        .starts_active()
        .start()?;
    let judge = lab.keepalived(2).interval(INTERVAL).vips([(IpAddr::from([10, 0, 0, 50]), 24)]).start()?;
    vip_lab::wait::until(SOON, || judge.complaints().iter().any(|line| line.contains("not present")))
}

#[test]
fn adverts_lost_at_the_switch_promote_the_backup() -> Result<()> {
    let lab = lab()?;
    let wire = lab.wire()?;
    let (_master, backup) = elected_pair(&lab, false)?;
    let lost = Stamp::now();
    lab.switch().lose_adverts(lab.node(1), 100)?;
    backup.wait_state("MASTER", SOON)?;
    assert!(
        wire.adverts(lab.node(1)).iter().any(|(at, _)| *at > lost),
        "the wire is to see what gets lost behind it"
    );
    lab.switch().lose_adverts(lab.node(1), 0)?;
    backup.wait_state("BACKUP", SOON)
}
