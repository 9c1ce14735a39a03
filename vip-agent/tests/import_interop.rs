//! One file drives keepalived 2.2.7 on one node and, imported, our agent on the other.

#[path = "support/agents.rs"]
mod agents;

use std::net::IpAddr;
use std::time::Duration;

use agents::{SOON, binary, ms};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use vip_lab::keepalived::{Keepalived, KeepalivedBuilder};
use vip_lab::process::Process;
use vip_lab::{Lab, Node, Stamp};

const CONFIG: &str = "/run/lab/imported.yaml";

/// Both began with the same file: ours has the number 1, keepalived 2.
struct Pair {
    lab: Lab,
    ours: Process,
    theirs: Keepalived,
}

/// Of VIPs of one family, by multicast: nothing in the file differs between nodes.
fn pair(vips: &[(IpAddr, u8)], as_well: impl FnOnce(KeepalivedBuilder) -> KeepalivedBuilder) -> Result<Pair> {
    let lab = Lab::builder().nodes(2).build()?;
    let keepalived = lab
        .keepalived(2)
        .vips(vips.to_vec())
        .interval(ms(200))
        .global("vrrp_priority -20")
        .each_instance("garp_master_refresh 30");
    let keepalived = as_well(keepalived);
    let node = lab.node(1);
    node.write_file("/run/lab/keepalived.conf", keepalived.config())?;
    let imported =
        node.command(binary()).args(["import", "keepalived", "/run/lab/keepalived.conf"]).read()?;
    node.write_file(CONFIG, imported)?;
    node.command(binary()).args(["check", CONFIG]).read()?;

    let theirs = keepalived.start()?;
    theirs.wait_state("MASTER", SOON)?;
    let ours = node.command(binary()).args(["run", "--config", CONFIG]).spawn("agent")?;
    Ok(Pair { lab, ours, theirs })
}

impl Pair {
    fn node(&self) -> &Node {
        self.lab.node(1)
    }

    fn wait_state(&self, state: &str) -> Result<()> {
        let mut last = Value::Null;
        let until = Stamp::now() + SOON;
        while Stamp::now() < until && self.ours.is_running() {
            if let Ok(text) = self.node().command(binary()).args(["status", "--json"]).read() {
                last = serde_json::from_str(&text)?;
            }
            if last["instances"][0]["state"] == state {
                return Ok(());
            }
            std::thread::sleep(ms(20));
        }
        Err(anyhow::anyhow!("{last:#}\n{}", self.ours.log())).with_context(|| format!("not {state}"))
    }

    /// With equal priorities who owns goes on, the other takes over when it ends, and neither minds the other's adverts.
    fn elects_one_owner(&self) -> Result<()> {
        self.wait_state("backup")?;
        std::thread::sleep(ms(1000));
        self.wait_state("backup")?;
        self.theirs.stop()?;
        self.wait_state("active")?;
        let again = self.theirs.builder().start()?;
        again.wait_state("BACKUP", SOON)?;
        std::thread::sleep(ms(1000));
        self.wait_state("active")?;
        ensure!(self.theirs.complaints().is_empty(), "{:#?}", self.theirs.complaints());
        ensure!(again.complaints().is_empty(), "{:#?}", again.complaints());
        self.ours.signal(Signal::SIGTERM)?;
        again.wait_state("MASTER", SOON)
    }
}

#[test]
fn one_file_for_keepalived_and_us_elects_one_owner_of_ipv4_addresses() -> Result<()> {
    pair(&[([10, 0, 0, 50].into(), 24), ([10, 0, 0, 51].into(), 24)], |as_it_is| as_it_is)?.elects_one_owner()
}

#[test]
fn one_file_for_keepalived_and_us_elects_one_owner_of_ipv6_addresses() -> Result<()> {
    pair(&[("fe80::5:50".parse()?, 64), ("fd00::50".parse()?, 64)], |as_it_is| as_it_is)?.elects_one_owner()
}

#[test]
fn one_file_of_version_2_with_a_password_elects_one_owner() -> Result<()> {
    let old = |keepalived: KeepalivedBuilder| {
        let password = "authentication {\n auth_type PASS\n auth_pass longer-than-eight\n }";
        keepalived.version(2).interval(Duration::from_secs(1)).each_instance(password)
    };
    pair(&[([10, 0, 0, 50].into(), 24)], old)?.elects_one_owner()
}

#[test]
fn one_file_with_virtual_macs_weights_and_nopreempt_elects_one_owner() -> Result<()> {
    let modes = |keepalived: KeepalivedBuilder| {
        keepalived.virtual_mac().nopreempt().each_instance("track_interface {\n lo weight 10\n }")
    };
    let pair = pair(&[([10, 0, 0, 50].into(), 24)], modes)?;
    pair.wait_state("backup")?;
    let status = pair.node().command(binary()).args(["status", "--json"]).read()?;
    let status: Value = serde_json::from_str(&status)?;
    ensure!(status["instances"][0]["effective_priority"] == 110, "{status:#}");
    let config = pair.node().command(binary()).args(["config", "--config", CONFIG]).read()?;
    for line in ["virtual_mac: true", "preempt: false"] {
        ensure!(config.contains(line), "{config}");
    }
    pair.elects_one_owner()
}
