//! Two agents that speak VRRP version 2, alone and beside version 3: passwords, odd adverts, shared sockets.

#[path = "support/agents.rs"]
mod agents;

use std::net::Ipv4Addr;

use agents::{Ask as _, SOON, agent, binary, ms, say};
use anyhow::{Context as _, Result, ensure};
use etherparse::{IpNumber, PacketBuilder};
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Node, Stamp};

const VIP: &str = "10.0.0.50";
const PASSWORD_FILE: &str = "/run/lab/vrrp.pass";
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
const STRANGER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 99];

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).clients(1).vips([VIP]).build()
}

/// One instance of version 2, 1 s, priority 200 on node 1, 190 on node 2.
fn version_2(lab: &Lab, number: usize) -> AgentBuilder {
    agent(lab, number).interval(ms(1000)).set_instance("version", json!(2)).grace(ms(0))
}

fn with_password(lab: &Lab, number: usize, password: &str) -> AgentBuilder {
    version_2(lab, number).set_instance("auth", json!({ "password": password }))
}

fn with_password_file(lab: &Lab, number: usize) -> AgentBuilder {
    version_2(lab, number).set_instance("auth", json!({ "password_file": PASSWORD_FILE }))
}

fn put_password(node: &Node, password: &str, mode: &str) -> Result<()> {
    node.write_file(PASSWORD_FILE, password)?;
    node.command("chmod").args([mode, PASSWORD_FILE]).read().map(drop)
}

fn discarded(agent: &Agent) -> Result<Value> {
    Ok(agent.edge_json()?["adverts"]["discarded_by"].clone())
}

/// An advert to the group by a stranger who would take the VIP from anyone: VRID 51, priority 255, `secret12`.
struct Forged {
    message: Vec<u8>,
}

impl Forged {
    fn with(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut forged =
            Self { message: [&[0x21, 51, 255, 1, 1, 1, 0, 0, 10, 0, 0, 50][..], b"secret12"].concat() };
        change(&mut forged.message);
        forged.frame()
    }

    fn frame(mut self) -> Vec<u8> {
        if self.message[6..8] == [0, 0] {
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&self.message).ones_complement();
            self.message[6..8].copy_from_slice(&sum.to_ne_bytes());
        }
        let link = PacketBuilder::ethernet2(STRANGER_MAC, [1, 0, 0x5e, 0, 0, 18]);
        let builder = link.ipv4(STRANGER.octets(), [224, 0, 0, 18], 255);
        let mut frame = Vec::new();
        builder.write(&mut frame, IpNumber::VRRP, &self.message).expect("a frame");
        frame
    }
}

/// Adverts of version 2 that an instance with the password `secret12` must not hear, by the name of the reason.
fn odd_adverts() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("version_mismatch", Forged::with(|message| message[0] = 0x31)),
        ("bad_version", Forged::with(|message| message[0] = 0x41)),
        ("bad_type", Forged::with(|message| message[0] = 0x22)),
        ("wrong_password", Forged::with(|message| message[19] = b'3')),
        ("auth_type_mismatch", Forged::with(|message| message[4] = 0)),
        ("unknown_auth_type", Forged::with(|message| message[4] = 2)),
        ("interval_mismatch", Forged::with(|message| message[5] = 2)),
        ("zero_interval", Forged::with(|message| message[5] = 0)),
        ("bad_checksum", Forged::with(|message| message[6..8].fill(0xaa))),
        ("too_short", Forged::with(|message| message.truncate(12))),
        ("trailing_bytes", Forged::with(|message| message.extend([0; 4]))),
        ("zero_addresses", Forged::with(|message| message[3] = 0)),
    ]
}

#[test]
fn each_odd_advert_is_counted_by_its_kind_reported_and_moves_nothing() -> Result<()> {
    const EACH: u64 = 20;
    let lab = lab()?;
    let owner = with_password(&lab, 1, "secret12").start()?;
    owner.wait_state("active", SOON)?;
    let backup = with_password(&lab, 2, "secret12").start()?;
    backup.wait_state("backup", SOON)?;
    let before = [owner.edge_json()?, backup.edge_json()?];
    for (kind, frame) in odd_adverts() {
        lab.client().inject(std::iter::repeat_n(&frame, EACH as usize), ms(5))?;
        std::thread::sleep(ms(100));
        for agent in [&owner, &backup] {
            ensure!(discarded(agent)?[kind] == EACH, "{kind}: {}", discarded(agent)?);
        }
        // Complaints about one instance are a second apart.
        std::thread::sleep(ms(950));
    }
    for (agent, before) in [&owner, &backup].into_iter().zip(before) {
        let after = agent.edge_json()?;
        ensure!(after["transitions"] == before["transitions"], "{after}");
        ensure!(after["adverts"]["discarded"] == EACH * odd_adverts().len() as u64, "{after}");
        let alarms = agent.status()?.raw["alarms"].clone();
        let alarms = alarms.as_array().context("alarms")?;
        for (kind, _) in odd_adverts() {
            let alarm = alarms.iter().find(|alarm| alarm["kind"] == kind);
            let alarm = alarm.with_context(|| format!("no alarm {kind} in {alarms:?}"))?;
            ensure!(alarm["address"] == "10.0.0.99" && alarm["mac"] == "02:00:00:00:00:63", "{alarm}");
        }
        let log = agent.log();
        ensure!(log.contains("wrong_password") && log.contains("02:00:00:00:00:63"), "{log}");
        ensure!(!log.contains("secret1"), "{log}");
    }
    Ok(())
}

#[test]
fn discarded_adverts_hold_no_backup_back() -> Result<()> {
    let lab = lab()?;
    let owner = with_password(&lab, 1, "secret12").start()?;
    owner.wait_state("active", SOON)?;
    let backup = with_password(&lab, 2, "secret12").start()?;
    backup.wait_state("backup", SOON)?;
    let wire = lab.wire()?;
    let dead = Stamp::now();
    owner.process().kill()?;
    // Each of them, had it been accepted, would hold a Backup of any priority for another 3 s.
    let odd = odd_adverts();
    while wire.adverts(lab.node(2)).is_empty() && Stamp::now() - dead < SOON {
        lab.client().inject(odd.iter().map(|(_, frame)| frame), ms(1))?;
        std::thread::sleep(ms(50));
    }
    backup.wait_state("active", SOON)?;
    let first = wire.adverts(lab.node(2)).first().context("no advert of the heir")?.0;
    // Three intervals and a skew after the last advert, which was before the kill; never, had any been accepted.
    ensure!(first - dead <= ms(6000), "taken over {:?} after the kill", first - dead);
    Ok(())
}

#[test]
fn two_versions_share_an_interface_and_its_sockets() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(1).vips([VIP, "fd00::50"]).build()?;
    let both = |number: usize| {
        agent(&lab, number).instance(json!({
            "name": "old", "virtual_router_id": 52, "interface": "eth0", "version": 2,
            "priority": 210 - 10 * number, "advert_interval": "1s", "vips": ["10.0.0.60/24"],
            "auth": { "password": "secret12" }
        }))
    };
    let wire = lab.wire()?;
    let first = both(1).start()?;
    first.wait_state("active", SOON)?;
    let second = both(2).start()?;
    second.wait_state("backup", SOON)?;
    std::thread::sleep(ms(2500));
    for agent in [&first, &second] {
        for instance in agent.status()?.raw["instances"].as_array().context("instances")? {
            let expected = if instance["name"] == "old" { 2 } else { 3 };
            ensure!(instance["version"] == expected, "{instance}");
            ensure!(instance["adverts"]["discarded"] == 0, "{instance}");
        }
        ensure!(agent.status()?.alarms.is_empty(), "{:?}", agent.status()?.alarms);
        // One that receives for each family, whatever the number of instances and versions.
        ensure!(receivers(agent.node())? == ["0800", "86dd"], "{:?}", receivers(agent.node())?);
    }
    let said = wire.adverts(lab.node(1));
    for (version, vrid) in [(2, 52), (3, 51)] {
        ensure!(said.iter().any(|(_, advert)| (advert.version, advert.vrid) == (version, vrid)));
        ensure!(said.iter().all(|(_, advert)| (advert.version == version) == (advert.vrid == vrid)));
    }
    first.process().kill()?;
    second.wait_state("active", SOON).map(drop)
}

/// Ethertypes of the packet sockets on `eth0` that receive anything.
fn receivers(node: &Node) -> Result<Vec<String>> {
    let index = node.ip("-o link show eth0")?.split(':').next().unwrap_or_default().to_owned();
    // sk, RefCnt, Type, Proto, Iface, ...
    let table = node.command("cat").arg("/proc/net/packet").read()?;
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let mut found: Vec<String> = rows
        .filter(|row| row.get(4) == Some(&index.as_str()) && row.get(3) != Some(&"0000"))
        .filter_map(|row| row.get(3).map(ToString::to_string))
        .collect();
    found.sort();
    Ok(found)
}

#[test]
fn a_password_file_is_read_again_by_a_reload_which_a_bad_one_does_not_survive() -> Result<()> {
    let lab = lab()?;
    put_password(lab.node(1), "secret12\n", "600")?;
    put_password(lab.node(2), "secret12", "400")?;
    let owner = with_password_file(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    let backup = with_password_file(&lab, 2).start()?;
    backup.wait_state("backup", SOON)?;
    let transitions = owner.edge_json()?["transitions"].clone();
    for (password, mode, expected) in [
        (
            "another1",
            "644",
            "/run/lab/vrrp.pass may be read or written by others than its owner (mode 0644): `chmod 600",
        ),
        ("another12", "600", "a password must be 1-8 bytes"),
    ] {
        put_password(lab.node(1), password, mode)?;
        for arguments in [&["reload"][..], &["check", "/run/lab/agent.yaml"]] {
            let said = owner.say(arguments)?;
            ensure!(said.code == Some(1) && said.err.contains(expected), "{said:?}");
            ensure!(said.err.contains("instances[0].auth.password_file: "), "{said:?}");
            ensure!(!said.all().contains("another1"), "{said:?}");
        }
    }
    // Both at once, or each would be a stranger to the other for long enough to matter.
    for agent in [&owner, &backup] {
        put_password(agent.node(), "another1\n", "600")?;
        agent.say(&["reload"])?.ok()?;
    }
    std::thread::sleep(ms(4500));
    ensure!(owner.edge_json()?["transitions"] == transitions, "{}", owner.log());
    ensure!(backup.edge()?.state == "backup", "{}", backup.log());
    let heard = backup.edge_json()?["peers"][0]["last_advert_ms"].clone();
    ensure!(heard.as_u64().is_some_and(|ms| ms < 1500), "heard {heard} ms ago");
    // Of adverts with the old password there was one at most.
    ensure!(discarded(&backup)?["wrong_password"].as_u64().unwrap_or(0) <= 2, "{}", discarded(&backup)?);
    Ok(())
}

#[test]
fn no_password_is_shown_and_what_is_kept_of_it_is_for_its_owner_alone() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1);
    let builder = with_password(&lab, 1, "hunter22").env("VIPLANE_LOG", "trace");
    let agent = builder.start()?;
    agent.wait_state("active", SOON)?;
    let stranger = with_password(&lab, 2, "swordfsh").start()?;
    stranger.wait_state("active", SOON)?;
    agent.wait_for("alarmed", |status| {
        status["alarms"].as_array().is_some_and(|alarms| {
            alarms.iter().any(|alarm| alarm["kind"] == "wrong_password" && alarm["address"] == "10.0.0.2")
        })
    })?;
    let config = agent.say(&["config"])?.ok()?;
    ensure!(config.out.contains("***masked***"), "{config:?}");
    let file = agent.say(&["config", "--config", "/run/lab/agent.yaml"])?.ok()?;
    ensure!(file.out == config.out, "{file:?}");
    let said = [config.all(), agent.say(&["status"])?.all(), agent.say(&["status", "--json"])?.all()];
    for shown in said.iter().chain([&agent.log()]) {
        for password in ["hunter22", "swordfsh"] {
            ensure!(!shown.contains(password), "{shown}");
        }
    }
    let mode = node.command("stat").args(["-c", "%a", "/var/lib/viplane/last-good.yaml"]).read()?;
    ensure!(mode.trim() == "600", "{mode}");
    Ok(())
}

#[test]
fn a_start_without_its_password_file_is_refused() -> Result<()> {
    let lab = lab()?;
    let builder = with_password_file(&lab, 1);
    builder.write_config()?;
    let refused = say(&builder, &["run", "--config", "/run/lab/agent.yaml"])?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(refused.err.contains("/run/lab/vrrp.pass cannot be read: No such file"), "{refused:?}");
    ensure!(refused.err.lines().count() == 1 && binary().exists(), "{refused:?}");
    Ok(())
}
