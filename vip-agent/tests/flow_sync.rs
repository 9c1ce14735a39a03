//! `flow_sync`: connections through full NAT go on when their owner does not.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/steered.rs"]
mod steered;

use std::time::Duration;

use agents::{Ask as _, SOON, VIPS, ms, times};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use steered::{ECHO_PORT, Echo, Transfer, addresses, lab, service, steering, wait_up};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Node, wait};

/// Where peers listen.
const PORT: u16 = 9871;
const KEY: &str = "5e";
const OTHER_KEY: &str = "6f";
const BACKEND: usize = 3;
const MIB: usize = 1 << 20;

/// A node that may own: full NAT to a backend on another node for either VIP.
fn nat(lab: &Lab, number: usize) -> Result<AgentBuilder> {
    let node = lab.node(number);
    for family in ["ipv4", "ipv6"] {
        node.set_sysctl(&format!("net.{family}.conf.eth0.forwarding"), 1)?;
    }
    // As Linux has it. No client has a port that full NAT would leave to it, and so to any owner.
    for node in [node, lab.client()] {
        node.command("sysctl").args(["-qw", "net.ipv4.ip_local_port_range=32768 60999"]).read()?;
    }
    let service = |(name, vip): (&str, &str)| {
        service(name, vip, "nat", json!([ECHO_PORT]), &addresses(lab, vip, &[BACKEND]), json!({}))
    };
    let services: Vec<Value> = ["four", "six"].into_iter().zip(VIPS).map(service).collect();
    Ok(steering(lab, number, &services))
}

/// Likewise, one that tells its peers, whom nobody names to it.
fn telling(lab: &Lab, number: usize, key: &str) -> Result<AgentBuilder> {
    let node = lab.node(number);
    let key_file = put_key(node, key)?;
    let listen = format!("{}:{PORT}", node.ipv4());
    Ok(nat(lab, number)?.set("flow_sync", json!({"listen": listen, "key_file": key_file})))
}

fn put_key(node: &Node, key: &str) -> Result<String> {
    let path = node.file_path("flows.key").display().to_string();
    node.write_file(&path, key.repeat(32))?;
    node.command("chmod").args(["600", &path]).read()?;
    Ok(path)
}

fn started(builder: AgentBuilder, state: &str) -> Result<Agent> {
    let agent = builder.start()?;
    agent.wait_state(state, SOON)?;
    wait_up(&agent, 2)?;
    Ok(agent)
}

/// Connections by both VIPs, on which bytes go to and fro for ten seconds, or until they are to hurry.
fn transfers(lab: &Lab, count: usize) -> Result<Vec<Transfer>> {
    // The first of a client waits for its MAC.
    for vip in VIPS {
        Transfer::begin(lab.client(), vip, ECHO_PORT, 1, Duration::ZERO)?.finish()?;
    }
    let begin = |vip| Transfer::begin(lab.client(), vip, ECHO_PORT, times(4, 30) * MIB, ms(40));
    let transfers: Vec<Transfer> = VIPS.into_iter().cycle().take(count).map(begin).collect::<Result<_>>()?;
    wait::until(SOON, || under_way(&transfers)).context("bytes come back")?;
    Ok(transfers)
}

/// All bytes of all of them come back.
fn finish(transfers: Vec<Transfer>) -> Result<()> {
    transfers.iter().for_each(Transfer::hurry);
    transfers.into_iter().try_for_each(|transfer| transfer.finish().map(drop))
}

fn under_way(transfers: &[Transfer]) -> bool {
    transfers.iter().all(Transfer::is_under_way)
}

fn is_for_later() -> bool {
    if times(0, 1) == 0 {
        println!("skipped: part of `cargo xtask test --full`");
    }
    times(0, 1) == 0
}

fn noted(status: &Value) -> u64 {
    status["flow_sync"]["noted"]["yes"].as_u64().unwrap_or_default()
}

fn wait_noted(agent: &Agent, count: u64) -> Result<()> {
    agent.wait_for(&format!("with {count} flows of its peer"), |status| noted(status) >= count).map(drop)
}

/// What happens to an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    Handover,
    Death,
}

impl Blow {
    fn strike(self, agent: &Agent) -> Result<()> {
        match self {
            Self::Handover => agent.drain(),
            // Nobody says a word, and nothing of it answers.
            Self::Death => agent.crash().and_then(|()| agent.node().set_link(false)),
        }
    }
}

fn transfers_survive(blow: Blow) -> Result<()> {
    let lab = lab().build()?;
    let _echo = Echo::start(lab.node(BACKEND), ECHO_PORT)?;
    let first = started(telling(&lab, 1, KEY)?, "active")?;
    let second = started(telling(&lab, 2, KEY)?, "backup")?;
    let transfers = transfers(&lab, 4)?;
    wait_noted(&second, 6)?;
    blow.strike(&first)?;
    second.wait_state("active", SOON)?;
    ensure!(under_way(&transfers), "too short to tell");
    finish(transfers).with_context(|| second.log())
}

#[test]
fn transfers_by_full_nat_survive_the_death_of_their_owner() -> Result<()> {
    transfers_survive(Blow::Death)
}

#[test]
fn transfers_by_full_nat_survive_a_handover() -> Result<()> {
    if is_for_later() {
        return Ok(());
    }
    transfers_survive(Blow::Handover)
}

#[test]
fn they_break_where_nobody_was_told_of_them() -> Result<()> {
    let lab = lab().build()?;
    let _echo = Echo::start(lab.node(BACKEND), ECHO_PORT)?;
    let first = started(nat(&lab, 1)?, "active")?;
    let second = started(nat(&lab, 2)?, "backup")?;
    let transfers = transfers(&lab, 2)?;
    Blow::Death.strike(&first)?;
    second.wait_state("active", SOON)?;
    transfers.iter().for_each(Transfer::hurry);
    for transfer in transfers {
        ensure!(transfer.finish().is_err(), "it was told by nobody, and knew all the same");
    }
    // New ones begin.
    let vip = VIPS[0];
    Transfer::begin(lab.client(), vip, ECHO_PORT, MIB, Duration::ZERO)?.finish().map(drop)
}

#[test]
fn who_has_another_key_is_refused_and_counted_and_who_was_away_hears_everything() -> Result<()> {
    let lab = lab().build()?;
    let _echo = Echo::start(lab.node(BACKEND), ECHO_PORT)?;
    let first = started(telling(&lab, 1, KEY)?, "active")?;
    let second = started(telling(&lab, 2, OTHER_KEY)?, "backup")?;
    let _transfers = transfers(&lab, 6)?;
    let refused = |status: &Value| status["flow_sync"]["refused"].as_u64() > Some(2);
    first.wait_for("refusing", refused)?;
    let status = first.wait_for("telling its flows", |status| status["flow_sync"]["flows"] == 8)?;
    ensure!(status["flow_sync"]["reason"].is_null(), "{status}");
    ensure!(noted(&second.status()?.raw) == 0, "it took in what it has no key for");
    let listed = |agent: &Agent| -> Result<u64> {
        let listed: Value = serde_json::from_str(&agent.say(&["flows", "--json"])?.out)?;
        listed["total"].as_u64().context("a number")
    };
    ensure!(listed(&second)? == 0, "flows of nobody");
    second.crash()?;
    let second = started(telling(&lab, 2, KEY)?, "backup")?;
    wait_noted(&second, 8)?;
    ensure!(listed(&second)? == 8, "{} flows", listed(&second)?);
    // It dies and comes back with empty tables.
    second.crash()?;
    let second = started(second.builder(), "backup")?;
    wait_noted(&second, 8)?;
    let peer = |status: &Value| {
        let peers = status["flow_sync"]["peers"].as_array().cloned().unwrap_or_default();
        peers.iter().any(|peer| peer["address"] == lab.node(2).ipv4().to_string() && peer["behind"] == 0)
    };
    first.wait_for("with a peer that knows all", peer).map(drop)
}

/// Transfers by a client that goes on sending to the former owner, as a switch or a host would that has not heard of the new one.
fn to_the_former_owner(lab: &Lab, grace: Duration) -> Result<([Agent; 2], Vec<Transfer>)> {
    let first = started(telling(lab, 1, KEY)?.grace(grace), "active")?;
    let second = started(telling(lab, 2, KEY)?.grace(grace), "backup")?;
    // Else its kernel, which forwards, would send the frames on to the new owner.
    let closed = "add table inet closed; add chain inet closed way { type filter hook forward priority 0; policy drop; }";
    lab.node(1).command("nft").arg(closed).read()?;
    for vip in VIPS {
        let mac = lab.node(1).mac();
        lab.client().ip(&format!("neighbour replace {vip} lladdr {mac} dev eth0 nud permanent"))?;
    }
    let transfers = transfers(lab, 2)?;
    wait_noted(&second, 4)?;
    first.drain()?;
    second.wait_state("active", SOON)?;
    ensure!(under_way(&transfers), "too short to tell");
    Ok(([first, second], transfers))
}

#[test]
fn the_former_owner_steers_who_has_not_heard_of_the_new_one_for_the_grace_time() -> Result<()> {
    let lab = lab().build()?;
    let _echo = Echo::start(lab.node(BACKEND), ECHO_PORT)?;
    let (agents, transfers) = to_the_former_owner(&lab, Duration::from_secs(60))?;
    finish(transfers).with_context(|| agents[0].log())
}

#[test]
fn and_no_longer_than_that() -> Result<()> {
    if is_for_later() {
        return Ok(());
    }
    let lab = lab().build()?;
    let _echo = Echo::start(lab.node(BACKEND), ECHO_PORT)?;
    let (_agents, transfers) = to_the_former_owner(&lab, Duration::ZERO)?;
    // What was on its way is there.
    std::thread::sleep(ms(500));
    let returned = || -> Vec<usize> { transfers.iter().map(Transfer::returned).collect() };
    let before = returned();
    std::thread::sleep(ms(500));
    ensure!(returned() == before && under_way(&transfers), "{before:?} became {:?}", returned());
    Ok(())
}
