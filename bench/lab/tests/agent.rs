//! The agent's handle, with a stand-in that keeps to the command line's contract.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;
use vip_lab::Lab;

const SOON: Duration = Duration::from_secs(5);
const BINARY: &str = "/run/lab/stand-in";
const STAND_IN: &str = r#"#!/bin/sh
state=/run/lab/state
case "$1" in
run)
    echo "arguments: $*"
    grep CapEff /proc/self/status
    echo active > $state
    trap 'echo bye; exit 0' TERM
    while :; do sleep 0.01; done ;;
status)
    echo '{"node": "node1", "instances": [{"name": "edge", "state": "'$(cat $state)'", "reason": null, "owned": true, "lease_ms": 287,
        "active_router": "10.0.0.1", "since": "2026-11-21T12:00:00.000000Z", "transitions": 1, "last_takeover": {"cause": "timeout", "detect_us": 1, "decide_us": 2, "flip_us": 3, "announce_us": 4.5}}],
        "alarms": [{"kind": "foreign_owner", "instance": "edge", "address": "10.0.0.50", "mac": "02:00:00:00:00:02", "count": 3}], "later": 1}' ;;
drain) echo draining > $state ;;
undrain) echo "no such instance" >&2; exit 1 ;;
reload) grep priority /run/lab/agent.yaml > /run/lab/reloaded ;;
esac
"#;

fn lab_with_stand_in() -> Result<Lab> {
    let lab = Lab::builder().nodes(3).vips(["10.0.0.50", "fd00::50"]).build()?;
    lab.node(1).write_file(BINARY, STAND_IN)?;
    lab.node(1).command("chmod").args(["+x", BINARY]).read()?;
    Ok(lab)
}

#[test]
fn its_configuration_is_what_the_builder_was_told() -> Result<()> {
    let lab = Lab::builder().nodes(3).vips(["10.0.0.50", "fd00::50"]).build()?;
    let builder =
        lab.agent(1, "vip-agent").priority(200).interval(Duration::from_millis(10)).unicast().unpinned();
    let builder = builder
        .grace(Duration::from_secs(5))
        .set_instance("announce", json!({ "repeat": 2 }))
        .yaml("xdp_mode: skb\n");
    let config: serde_json::Value = serde_saphyr::from_str(&builder.config()?)?;
    assert_eq!(
        config,
        json!({
            "node": "node1", "pin_dir": null, "xdp_mode": "skb",
            "instances": [{
                "name": "edge", "virtual_router_id": 51, "interface": "eth0", "priority": 200, "advert_interval": "10ms",
                "vips": ["10.0.0.50/24", "fd00::50/64"], "grace": "5000ms", "announce": { "repeat": 2 },
                "unicast": { "source": "10.0.0.1", "peers": ["10.0.0.2", "10.0.0.3"] },
            }],
        })
    );
    Ok(())
}

#[test]
fn it_runs_reports_obeys_and_ends() -> Result<()> {
    let lab = lab_with_stand_in()?;
    let agent = lab.agent(1, BINARY).argument("--take-over").start()?;
    let status = agent.wait_state("active", SOON)?;
    let takeover = status.instances[0].last_takeover.as_ref().expect("phases");
    assert_eq!((takeover.cause.as_str(), takeover.announce_us), ("timeout", 4.5));
    assert_eq!((status.alarms[0].count, &status.raw["later"]), (3, &json!(1)));
    assert!(
        agent.log().contains("arguments: run --config /run/lab/agent.yaml --take-over"),
        "{}",
        agent.log()
    );

    agent.drain()?;
    agent.wait_state("draining", SOON)?;
    let refusal = format!("{:#}", agent.undrain().unwrap_err());
    assert!(refusal.contains("node1") && refusal.contains("no such instance"), "{refusal}");
    agent.reload(&agent.builder().priority(7))?;
    assert_eq!(lab.node(1).read_file("/run/lab/reloaded")?.trim(), "priority: 7");

    agent.signal(Signal::SIGTERM)?;
    assert!(agent.wait(SOON)?.success());
    assert!(agent.log().ends_with("bye\n"));
    let error = format!("{:#}", agent.wait_state("active", SOON).unwrap_err());
    assert!(error.contains("is not active"), "{error}");
    Ok(())
}

#[test]
fn it_runs_without_a_capability_if_told_so() -> Result<()> {
    const SYS_NICE: u32 = 23;
    let lab = lab_with_stand_in()?;
    for (builder, expected) in
        [(lab.agent(1, BINARY), 1), (lab.agent(1, BINARY).without_capability("sys_nice"), 0)]
    {
        let agent = builder.start()?;
        agent.process().wait_log("CapEff", SOON)?;
        let log = agent.log();
        let mask = log.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("the line");
        assert_eq!(u64::from_str_radix(mask.trim(), 16)? >> SYS_NICE & 1, expected);
    }
    Ok(())
}

#[test]
fn logs_stay_on_the_host_if_there_is_a_place_for_them() -> Result<()> {
    let place = tempfile::tempdir()?;
    let lab = Lab::builder().nodes(1).logs(place.path()).build()?;
    let process = lab.node(1).command("echo").arg("hello").spawn("greeting")?;
    process.wait(SOON)?;
    drop((process, lab));
    assert_eq!(std::fs::read_to_string(place.path().join("node1-greeting.log"))?, "hello\n");
    Ok(())
}

#[test]
fn a_missing_binary_shows_in_the_log() -> Result<()> {
    let lab = Lab::builder().nodes(1).vips(["10.0.0.50"]).build()?;
    let agent = lab.agent(1, Path::new("/nowhere/vip-agent")).start()?;
    let error = format!("{:#}", agent.wait_state("active", SOON).unwrap_err());
    assert!(error.contains("/nowhere/vip-agent"), "{error}");
    assert_eq!(agent.wait(SOON)?.code(), Some(127));
    Ok(())
}
