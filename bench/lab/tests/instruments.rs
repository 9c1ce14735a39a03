//! What watches the network sees what is there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use vip_lab::arping::Arping;
use vip_lab::hogs::Hogs;
use vip_lab::pulse::Pulse;
use vip_lab::requests::Outcome;
use vip_lab::web::Web;
use vip_lab::wire::{Direction, Packet, Wire};
use vip_lab::{Lab, Node, Stamp, WEB_PORT, wait};

const SOON: Duration = Duration::from_secs(5);
const MILLISECOND: Duration = Duration::from_millis(1);
const VIP4: &str = "10.0.0.50";
const VIP6: &str = "fd00::50";

fn add_vips(node: &Node) -> Result<()> {
    node.ip(&format!("addr add {VIP4}/24 dev eth0"))?;
    node.ip(&format!("addr add {VIP6}/64 dev eth0 nodad")).map(drop)
}

fn lab() -> Result<Lab> {
    let lab = Lab::builder().nodes(2).vips([VIP4, VIP6]).web().build()?;
    add_vips(lab.node(1))?;
    Ok(lab)
}

#[test]
fn requests_of_ten_milliseconds_every_millisecond_are_all_answered_by_the_owner() -> Result<()> {
    let lab = lab()?;
    let load = lab.requests().delay(Duration::from_millis(10)).start()?;
    wait::until(SOON, || load.in_flight() >= 10)?;
    wait::until(SOON, || load.report().requests().len() > 300)?;
    let report = load.stop();
    assert_eq!(report.lost().count(), 0, "{:?}", report.lost().next());
    assert_eq!(report.answered_by().keys().map(AsRef::as_ref).collect::<Vec<_>>(), ["node1"]);
    assert!(report.requests().iter().all(|request| request.latency() >= Duration::from_millis(10)));
    let ipv6 = report.only(|request| request.target.is_ipv6()).requests().len();
    assert!(ipv6 * 2 >= report.requests().len() - 1 && ipv6 < report.requests().len(), "{ipv6} were IPv6");
    Ok(())
}

#[test]
fn kept_connections_are_used_again() -> Result<()> {
    let lab = lab()?;
    let load = lab.requests().keep_alive().every(Duration::from_millis(20)).start()?;
    wait::until(SOON, || load.report().requests().len() > 50)?;
    let listing = lab.client().command("ss").args(["-Htn", "state", "established"]).read()?;
    let report = load.stop();
    let (connections, requests) = (listing.lines().count(), report.requests().len());
    assert!(connections > 0 && connections < requests, "{connections} connections for {requests} requests");
    assert_eq!(report.lost().count(), 0);
    Ok(())
}

#[test]
fn requests_tell_refused_from_timed_out_and_answers_from_losses() -> Result<()> {
    let lab = lab()?;
    lab.stop_web(2);
    let patience = Duration::from_millis(300);
    let closed = SocketAddr::from((lab.node(2).ipv4(), WEB_PORT));
    let refused = lab.requests().targets([closed]).start()?;
    wait::until(SOON, || !refused.report().requests().is_empty())?;
    assert!(refused.stop().requests().iter().all(|request| request.outcome == Outcome::Refused));

    lab.switch().set_forwarding(lab.node(1), false)?;
    let silent = lab.requests().patience(patience).start()?;
    wait::until(SOON, || !silent.report().requests().is_empty())?;
    let report = silent.stop();
    assert!(
        report.requests().iter().all(|request| request.outcome == Outcome::TimedOut),
        "{:?}",
        report.requests()[0]
    );
    assert_eq!(report.lost().count(), report.requests().len());
    Ok(())
}

#[test]
fn a_server_that_is_already_there_is_an_error() -> Result<()> {
    let lab = lab()?;
    let error = format!("{:#}", Web::start(lab.node(1), WEB_PORT).unwrap_err());
    assert!(error.contains("0.0.0.0:80") && error.contains("in use"), "{error}");
    Ok(())
}

#[test]
fn a_pulse_is_echoed_from_the_vip_in_both_families_and_measures_an_outage() -> Result<()> {
    let lab = lab()?;
    for vip in lab.vips() {
        let pulse = Pulse::start(lab.client(), *vip, MILLISECOND)?;
        wait::until(SOON, || pulse.report().echoed_by().values().sum::<usize>() > 100)?;
        let cut = Stamp::now();
        lab.switch().set_forwarding(lab.node(1), false)?;
        std::thread::sleep(Duration::from_millis(100));
        lab.switch().set_forwarding(lab.node(1), true)?;
        let mended = Stamp::now();
        wait::until(SOON, || {
            pulse.report().beats().iter().any(|beat| beat.sent > mended && beat.echoed_by.is_some())
        })?;
        let report = pulse.stop();
        assert!(report.lost() > 10, "{} lost", report.lost());
        assert!(report.gap_around(cut, mended) >= Duration::from_millis(100), "{:?}", report.gap());
        assert_eq!(report.echoed_by().keys().map(AsRef::as_ref).collect::<Vec<_>>(), ["node1"]);
    }
    Ok(())
}

#[test]
fn the_wire_shows_who_answered_at_which_port_and_when() -> Result<()> {
    let lab = lab()?;
    let wire = lab.wire()?;
    let before = Stamp::now();
    lab.client().command("ping").args(["-n", "-c", "1", VIP4]).read()?;
    lab.client().command("ping").args(["-n", "-c", "1", VIP6]).read()?;
    let after = Stamp::now();
    for vip in lab.vips() {
        let answer = wire.wait_first(before, SOON, |frame| frame.packet.answers(*vip))?;
        assert!(answer.is_from(lab.node(1)) && answer.at > before && answer.at < after);
        assert_eq!(wire.answers_for(*vip).owners(), [lab.node(1).mac()]);
    }
    let question =
        wire.first(before, |frame| matches!(&frame.packet, Packet::Arp(arp) if arp.operation == 1));
    assert!(question.is_some_and(|question| question.is_from(lab.client())));
    assert_eq!(wire.lost(), 0);
    Ok(())
}

#[test]
fn the_wire_shows_gratuitous_arp_resets_and_on_demand_the_way_to_the_nodes() -> Result<()> {
    let lab = lab()?;
    let (wire, both) = (lab.wire()?, Wire::start_both_ways(lab.switch())?);
    let before = Stamp::now();
    // No listener on port 9, so both stacks reset.
    for vip in lab.vips() {
        let url = format!("http://{}/", SocketAddr::new(*vip, 9));
        assert!(!lab.client().command("curl").args(["-s", "-m", "2", &url]).output()?.status.success());
        wire.wait_first(before, SOON, |frame| {
            matches!(&frame.packet, Packet::TcpReset(reset) if reset.source == SocketAddr::new(*vip, 9))
        })?;
    }
    lab.node(2).command("arping").args(["-U", "-c", "1", "-I", "eth0", "10.0.0.2"]).output()?;
    let own = IpAddr::from(lab.node(2).ipv4());
    wire.wait_first(before, SOON, |frame| frame.packet.announces(own) && frame.is_from(lab.node(2)))?;
    assert!(wire.frames(|frame| frame.direction == Direction::ToNode).is_empty());
    both.wait_first(before, SOON, |frame| {
        frame.packet.announces(own) && frame.direction == Direction::ToNode && *frame.port == *"node1"
    })?;
    Ok(())
}

#[test]
fn the_prober_sees_one_owner_then_both_when_both_hold_the_vip() -> Result<()> {
    let lab = lab()?;
    for vip in lab.vips() {
        let prober = Arping::start(lab.client(), *vip, MILLISECOND)?;
        wait::until(SOON, || prober.answers().all().len() > 100)?;
        assert_eq!(prober.answers().owners(), [lab.node(1).mac()]);
        assert_eq!(prober.answers().double(), []);
        assert_eq!(prober.lost(), 0);
        assert!(prober.questions() >= 100);
    }
    let wire = lab.wire()?;
    add_vips(lab.node(2))?;
    for vip in lab.vips() {
        let prober = Arping::start(lab.client(), *vip, MILLISECOND)?;
        wait::until(SOON, || prober.answers().double().len() > 10)?;
        let double = prober.stop()?.double();
        assert!(double.iter().all(|question| question.macs.len() == 2), "{double:?}");
        assert!(wire.answers_for(*vip).double().len() > 10, "the ports saw less than the client");
    }
    Ok(())
}

#[test]
fn hogs_take_the_processor_until_they_are_dropped() -> Result<()> {
    let ticks = || -> Result<u64> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        Ok(fields[11].parse()?)
    };
    let before = ticks()?;
    let hogs = Hogs::start(4)?;
    wait::until(Duration::from_secs(20), || ticks().is_ok_and(|now| now > before + 20))?;
    drop(hogs);
    Ok(())
}
