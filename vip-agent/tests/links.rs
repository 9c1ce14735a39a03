//! What happens to an instance when its interface goes, changes or comes back.

#[path = "support/agents.rs"]
mod agents;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, lab, ms, neighbor, pair};
use anyhow::{Result, ensure};
use vip_lab::agent::Agent;
use vip_lab::{Lab, Mac, Node, wait};

/// It is in the fault state, and says `why`.
fn faulty(agent: &Agent, why: &str) -> Result<()> {
    let status = agent.wait_state("fault", SOON)?;
    let edge = &status.instances[0];
    ensure!(edge.reason.as_deref().is_some_and(|reason| reason.contains(why)), "{edge:?}");
    ensure!(!edge.owned, "{edge:?}");
    ensure!(agent.log().contains(why), "{}", agent.log());
    Ok(())
}

/// Sets the interface up, with the address that the kernel forgot when it was set down: it keeps IPv4 ones only.
fn set_up(node: &Node) -> Result<()> {
    node.set_link(true)?;
    node.ip("address replace fd00::1/64 dev eth0 nodad").map(drop)
}

/// Clients reach node `number` by both families.
fn served_by(lab: &Lab, number: usize) -> Result<()> {
    for vip in VIPS {
        let name = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(name == lab.node(number).name(), "{vip} is served by {name}");
    }
    Ok(())
}

#[test]
fn an_interface_that_is_set_down_is_a_fault_and_back_it_preempts() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    lab.node(1).set_link(false)?;
    faulty(&first, "eth0 is down: `ip link set eth0 up`")?;
    second.wait_state("active", SOON)?;
    served_by(&lab, 2)?;
    set_up(lab.node(1))?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    ensure!(first.log().contains("can serve again"), "{}", first.log());
    served_by(&lab, 1)
}

#[test]
fn a_backup_whose_interface_was_down_is_backup_again() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    lab.node(2).set_link(false)?;
    faulty(&second, "eth0 is down")?;
    lab.node(2).set_link(true)?;
    second.wait_state("backup", SOON)?;
    ensure!(first.edge()?.state == "active");
    Ok(())
}

#[test]
fn a_lost_carrier_is_a_fault() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    lab.switch().set_cable(lab.node(1), false)?;
    faulty(&first, "eth0 has no carrier: check the cable or the switch port")?;
    second.wait_state("active", SOON)?;
    served_by(&lab, 2)?;
    lab.switch().set_cable(lab.node(1), true)?;
    first.wait_state("active", SOON)?;
    served_by(&lab, 1)
}

#[test]
fn an_agent_that_starts_without_a_carrier_waits_for_it() -> Result<()> {
    let lab = lab().build()?;
    lab.switch().set_cable(lab.node(1), false)?;
    let first = agent(&lab, 1).start()?;
    faulty(&first, "eth0 has no carrier")?;
    lab.switch().set_cable(lab.node(1), true)?;
    first.wait_state("active", SOON)?;
    served_by(&lab, 1)
}

#[test]
fn an_agent_that_starts_with_its_interface_down_waits_for_it() -> Result<()> {
    let lab = lab().build()?;
    lab.node(1).set_link(false)?;
    let first = agent(&lab, 1).start()?;
    faulty(&first, "eth0 is down")?;
    set_up(lab.node(1))?;
    first.wait_state("active", SOON)?;
    served_by(&lab, 1)
}

/// Takes `eth0` of node 1 away and makes another one, with another index.
fn replace_eth0(lab: &Lab) -> Result<()> {
    let (node, switch) = (lab.node(1), lab.switch().node());
    let index = |()| node.ip("-o link show eth0").map(|line| line.split(':').next().map(str::to_owned));
    let before = index(())?;
    node.ip("link delete eth0")?;
    std::thread::sleep(ms(300));
    switch.ip(&format!(
        "link add node1 type veth peer name eth0 address {} netns {}",
        node.mac(),
        node.netns_path().display()
    ))?;
    switch.ip("link set node1 master br0 up")?;
    node.ip("address add 10.0.0.1/24 dev eth0")?;
    node.ip("address add fd00::1/64 dev eth0 nodad")?;
    node.set_link(true)?;
    ensure!(index(())? != before, "the interface is the old one");
    Ok(())
}

#[test]
fn an_interface_that_is_replaced_is_attached_anew() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    for _ in 0..2 {
        replace_eth0(&lab)?;
        wait::until(SOON, || first.log().contains("no interface fits"))?;
        first.wait_state("active", SOON)?;
        second.wait_state("backup", SOON)?;
        served_by(&lab, 1)?;
    }
    // The pin is the new link's: a killed agent's program stays, and keeps the kernel from answering.
    ensure!(lab.node(1).exists("/sys/fs/bpf/viplane/links/eth0"), "the new link is not pinned");
    ensure!(lab.node(1).sysctl("net.ipv4.conf.eth0.arp_ignore")? == "3");
    Ok(())
}

#[test]
fn another_mac_is_announced() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    served_by(&lab, 1)?;
    let fresh = Mac([2, 0, 0, 0, 1, 1]);
    lab.node(1).ip(&format!("link set eth0 address {fresh}"))?;
    for vip in VIPS {
        wait::until(SOON, || neighbor(lab.client(), vip).is_ok_and(|mac| mac == Some(fresh)))?;
    }
    served_by(&lab, 1)
}

#[test]
fn the_source_of_adverts_follows_the_addresses() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).vips(["10.0.0.50"]).start()?;
    first.wait_state("active", SOON)?;
    lab.node(1).ip("address add 10.0.0.31/24 dev eth0")?;
    lab.node(1).ip("address delete 10.0.0.1/24 dev eth0")?;
    if !lab.node(1).ip("address show dev eth0")?.contains("10.0.0.31") {
        // With its primary address the kernel takes the secondary ones away.
        lab.node(1).ip("address add 10.0.0.31/24 dev eth0")?;
    }
    first.wait_for("on the new address", |status| {
        status["instances"][0]["active_router"] == "10.0.0.31" && status["instances"][0]["state"] == "active"
    })?;
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node1");
    Ok(())
}

#[test]
fn without_an_ipv4_address_there_is_nothing_to_send_from() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    lab.node(1).ip("address delete 10.0.0.1/24 dev eth0")?;
    faulty(&first, "eth0 has no IPv4 address: advertisements need it as their source")?;
    second.wait_state("active", SOON)?;
    lab.node(1).ip("address add 10.0.0.1/24 dev eth0")?;
    first.wait_state("active", SOON)?;
    served_by(&lab, 1)
}

/// Instances that live elsewhere do not notice.
#[test]
fn a_fault_of_one_interface_leaves_the_other_alone() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(1);
    node.ip("link add eth1 type veth peer name eth1p")?;
    node.ip("link set eth1p up")?;
    node.ip("link set eth1 up")?;
    node.ip("address add 10.0.9.1/24 dev eth1")?;
    let first = agent(&lab, 1)
        .instance(serde_json::json!({"name": "extra", "virtual_router_id": 52, "interface": "eth1",
            "advert_interval": "100ms", "vips": ["10.0.9.60/24"]}))
        .start()?;
    first.wait_state("active", SOON)?;
    node.ip("link delete eth1")?;
    let status = first.wait_for("faulty", |status| status["instances"][1]["state"] == "fault")?;
    ensure!(
        status["instances"][0]["state"] == "active" && status["instances"][0]["transitions"] == 2,
        "{status}"
    );
    served_by(&lab, 1)
}
