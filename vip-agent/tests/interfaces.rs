//! Every kind of interface that an instance can live on, every way to choose one, and VIPs on another one than adverts.
//!
//! Kinds that the running kernel has no driver for are skipped with its name.

#[path = "support/agents.rs"]
mod agents;

use std::net::IpAddr;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, lab, ms, neighbor, pair};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Mac, Node, wait};

/// Whether this kernel makes interfaces of a kind; says which driver is missing if it does not.
fn kernel_has(node: &Node, kind: &str, module: &str) -> Result<bool> {
    let arguments = format!("link add probe {kind}");
    let output = node.command("ip").args(arguments.split_whitespace()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        node.ip("link delete probe")?;
        return Ok(true);
    }
    ensure!(said.contains("Unknown device type") || said.contains("not supported"), "ip {arguments}: {said}");
    println!("skipped: this kernel has no {module} (`modprobe {module}`, or build it in)");
    Ok(false)
}

/// Moves the addresses of `eth0` to another interface, which is set up.
fn move_addresses(node: &Node, to: &str) -> Result<()> {
    for address in [format!("{}/24", node.ipv4()), format!("{}/64", node.ipv6())] {
        node.ip(&format!("address delete {address} dev eth0"))?;
    }
    node.ip(&format!("link set {to} up"))?;
    node.ip(&format!("address add {}/24 dev {to}", node.ipv4()))?;
    node.ip(&format!("address add {}/64 dev {to} nodad", node.ipv6()))?;
    Ok(())
}

fn on(builder: AgentBuilder, interface: &str) -> AgentBuilder {
    builder.set_instance("interface", json!(interface))
}

/// The MAC of an interface.
fn mac_of(node: &Node, interface: &str) -> Result<Mac> {
    let listed = node.ip(&format!("-o link show {interface}"))?;
    let mut words = listed.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).context("no Ethernet")?.parse()
}

fn served_by(lab: &Lab, number: usize) -> Result<()> {
    for vip in VIPS {
        let name = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(name == lab.node(number).name(), "{vip} is served by {name}");
    }
    Ok(())
}

/// Node 1 owns on `interface`, answers by its MAC, hands over to node 2 on its own and back.
fn serves_and_moves_on(lab: &Lab, interface: &str) -> Result<[Agent; 2]> {
    let [first, second] = pair(on(agent(lab, 1), interface), on(agent(lab, 2), interface))?;
    ensure!(first.edge_json()?["interface"] == interface, "{}", first.edge_json()?);
    served_by(lab, 1)?;
    for vip in VIPS {
        ensure!(neighbor(lab.client(), vip)? == Some(mac_of(lab.node(1), interface)?), "{vip}");
    }
    let mut open = Conversation::open(lab.client(), VIPS[0])?;
    ensure!(open.ask()? == "node1");
    first.drain()?;
    second.wait_state("active", SOON)?;
    served_by(lab, 2)?;
    ensure!(open.ask()? == "node1", "an open connection was not forwarded");
    first.undrain()?;
    first.wait_state("active", SOON)?;
    served_by(lab, 1)?;
    Ok([first, second])
}

// === kinds ===

#[test]
fn a_macvlan_serves_and_is_attached_anew_when_it_is_replaced() -> Result<()> {
    let lab = lab().build()?;
    if !kernel_has(lab.node(1), "link eth0 type macvlan", "macvlan")? {
        return Ok(());
    }
    let add = |node: &Node| node.ip("link add link eth0 name upper type macvlan mode bridge").map(drop);
    for node in lab.nodes() {
        add(node)?;
        move_addresses(node, "upper")?;
    }
    let [first, second] = serves_and_moves_on(&lab, "upper")?;
    let node = lab.node(1);
    node.ip("link delete upper")?;
    second.wait_state("active", SOON)?;
    add(node)?;
    node.ip("link set upper up")?;
    node.ip("address add 10.0.0.1/24 dev upper")?;
    node.ip("address add fd00::1/64 dev upper nodad")?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    served_by(&lab, 1)
}

#[test]
fn a_macvlan_that_has_its_parent_to_itself_can_have_virtual_macs() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let node = lab.node(1);
    if !kernel_has(node, "link eth0 type macvlan", "macvlan")? {
        return Ok(());
    }
    node.ip("link add link eth0 name upper type macvlan mode passthru")?;
    move_addresses(node, "upper")?;
    let alone = on(agent(&lab, 1), "upper").set_instance("virtual_mac", json!(true)).start()?;
    alone.wait_state("active", SOON)?;
    served_by(&lab, 1)?;
    ensure!(neighbor(lab.client(), VIPS[0])? == Some(Mac([0, 0, 0x5e, 0, 1, 51])));
    Ok(())
}

#[test]
fn a_bridge_with_the_nodes_address_serves_with_its_own_and_with_virtual_macs() -> Result<()> {
    let lab = lab().build()?;
    for node in lab.nodes() {
        node.ip("link add br9 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        node.ip("link set eth0 master br9")?;
        move_addresses(node, "br9")?;
    }
    let agents = serves_and_moves_on(&lab, "br9")?;
    drop(agents);
    let alone = on(agent(&lab, 1), "br9").set_instance("virtual_mac", json!(true)).start()?;
    alone.wait_state("active", SOON)?;
    for vip in VIPS {
        wait::until(SOON, || {
            neighbor(lab.client(), vip).is_ok_and(|mac| mac.is_some_and(|mac| mac.0[..3] == [0, 0, 0x5e]))
        })?;
    }
    served_by(&lab, 1)
}

#[test]
fn a_bond_serves_and_goes_on_when_it_loses_a_member() -> Result<()> {
    let lab = lab().build()?;
    if !kernel_has(lab.node(1), "type bond", "bonding")? {
        return Ok(());
    }
    for node in lab.nodes() {
        let mac = node.mac();
        node.ip("link add bond0 type bond mode active-backup miimon 20")?;
        node.ip("link set eth0 down")?;
        node.ip("link set eth0 master bond0")?;
        node.ip(&format!("link set bond0 address {mac}"))?;
        move_addresses(node, "bond0")?;
    }
    let [first, second] = serves_and_moves_on(&lab, "bond0")?;
    lab.switch().set_cable(lab.node(1), false)?;
    second.wait_state("active", SOON)?;
    lab.switch().set_cable(lab.node(1), true)?;
    first.wait_state("active", SOON)?;
    served_by(&lab, 1)
}

#[test]
fn a_vlan_serves_by_its_parents_program() -> Result<()> {
    let lab = lab().build()?;
    if !kernel_has(lab.node(1), "link eth0 type vlan id 100", "8021q")? {
        return Ok(());
    }
    let client = lab.client();
    // veth carries a tag beside the frame, where XDP does not see it, unless both ends are told not to.
    for node in lab.nodes().iter().chain(lab.clients()) {
        for (place, interface) in [(node, "eth0"), (lab.switch().node(), node.name())] {
            place.command("ethtool").args(["-K", interface, "rxvlan", "off", "txvlan", "off"]).read()?;
        }
        node.ip("link add link eth0 name eth0.100 type vlan id 100")?;
        move_addresses(node, "eth0.100")?;
    }
    let agents = serves_and_moves_on(&lab, "eth0.100")?;
    ensure!(lab.node(1).ip("link show eth0")?.contains("xdp"), "the program sits on the parent");
    drop(agents);
    let alone = on(agent(&lab, 1), "eth0.100").set_instance("virtual_mac", json!(true)).start()?;
    alone.wait_state("active", SOON)?;
    client.ip("neighbour flush all")?;
    served_by(&lab, 1)?;
    ensure!(neighbor(client, VIPS[0])? == Some(Mac([0, 0, 0x5e, 0, 1, 51])));
    Ok(())
}

/// Where nobody is to ask for them, as keepalived's users do with addresses that routing brings to the node.
#[test]
fn vips_may_be_on_a_dummy_beside_the_adverts_interface() -> Result<()> {
    let lab = lab().build()?;
    if !kernel_has(lab.node(1), "type dummy", "dummy")? {
        return Ok(());
    }
    for node in lab.nodes() {
        node.ip("link add svc type dummy")?;
        node.ip("address add 10.7.0.1/24 dev svc")?;
        node.ip("link set svc up")?;
    }
    let builder = |n| agent(&lab, n).vips(["10.7.0.50/24"]).set_instance("vip_interface", json!("svc"));
    let [first, second] = pair(builder(1), builder(2))?;
    ensure!(first.edge_json()?["interface"] == "svc");
    lab.client().ip("route add 10.7.0.50/32 via 10.0.0.1")?;
    ensure!(Conversation::open(lab.client(), "10.7.0.50")?.ask()? == "node1");
    first.drain()?;
    second.wait_state("active", SOON).map(drop)
}

#[test]
fn what_is_no_ethernet_is_refused() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    if !kernel_has(lab.node(1), "type ipip local 10.0.0.1 remote 10.0.0.2", "ipip")? {
        return Ok(());
    }
    lab.node(1).ip("link add tun9 type ipip local 10.0.0.1 remote 10.0.0.2")?;
    lab.node(1).ip("link set tun9 up")?;
    let refused = on(agent(&lab, 1), "tun9").start()?;
    ensure!(!refused.wait(SOON)?.success());
    ensure!(refused.log().contains("tun9 is no Ethernet interface"), "{}", refused.log());
    Ok(())
}

// === choice ===

/// The agent finds `eth0` by `selector`, and again when it has another name; returns its log.
fn chosen(selector: &Value, renamed_too: bool) -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let node = lab.node(1);
    node.ip("link add eth7 type veth peer name eth7p")?;
    node.ip("link set eth7p up")?;
    node.ip("link set eth7 up")?;
    node.ip("address add 10.77.0.1/24 dev eth7")?;
    node.ip("route add default via 10.0.0.254 dev eth0")?;
    let alone = agent(&lab, 1).set_instance("interface", selector.clone()).start()?;
    alone.wait_state("active", SOON).with_context(|| selector.to_string())?;
    ensure!(alone.edge_json()?["interface"] == "eth0", "{selector}");
    served_by(&lab, 1)?;
    rename(node, "eth0", "lan0")?;
    if renamed_too {
        alone.wait_for("at home under the new name", |status| {
            status["instances"][0]["interface"] == "lan0" && status["instances"][0]["state"] == "active"
        })?;
        served_by(&lab, 1)?;
        // A restart finds its own program on the interface, whatever the pin was called.
        alone.signal(nix::sys::signal::Signal::SIGKILL)?;
        alone.wait(SOON)?;
        let again = alone.builder().start()?;
        again.wait_state("active", SOON)?;
    } else {
        // Down first, then of another name: it tells what there is.
        alone.wait_for("in fault, with the name that there is", |status| {
            let instance = &status["instances"][0];
            instance["state"] == "fault"
                && instance["reason"].as_str().is_some_and(|why| why.contains("lan0"))
        })?;
        rename(node, "lan0", "eth0")?;
        alone.wait_state("active", SOON)?;
    }
    served_by(&lab, 1)
}

/// The kernel renames only what is down (before 6.2), and forgets IPv6 addresses and routes meanwhile.
fn rename(node: &Node, from: &str, to: &str) -> Result<()> {
    node.ip(&format!("link set {from} down"))?;
    node.ip(&format!("link set {from} name {to}"))?;
    node.ip(&format!("link set {to} up"))?;
    node.ip(&format!("address replace {}/64 dev {to} nodad", node.ipv6()))?;
    node.ip(&format!("route replace default via 10.0.0.254 dev {to}")).map(drop)
}

#[test]
fn an_interface_is_chosen_by_name_and_missed_under_another() -> Result<()> {
    chosen(&json!("eth0"), false)
}

#[test]
fn an_interface_is_chosen_by_a_regular_expression_whatever_it_is_called() -> Result<()> {
    chosen(&json!({"regex": "^(eth0|lan[0-9])$"}), true)
}

#[test]
fn an_interface_is_chosen_by_the_subnet_of_its_vips_whatever_it_is_called() -> Result<()> {
    chosen(&json!({"subnet": "vip"}), true)
}

#[test]
fn an_interface_is_chosen_by_the_default_route_whatever_it_is_called() -> Result<()> {
    chosen(&json!({"default_route": true}), true)
}

// === two interfaces ===

/// VIPs of the second network.
const SECOND: [&str; 2] = ["10.9.0.50", "fd09::50"];

/// A second network `eth1` beside the first, with a switch of its own.
fn second_network(lab: &Lab) -> Result<()> {
    let switch = lab.switch().node();
    switch.ip("link add br1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    switch.ip("link set br1 up")?;
    for node in lab.nodes().iter().chain(lab.clients()) {
        let [.., last] = node.mac().0;
        let port = format!("{}b", node.name());
        let (mac, netns) = (Mac([2, 0, 0, 0, 9, last]), node.netns_path());
        switch.ip(&format!(
            "link add {port} type veth peer name eth1 address {mac} netns {}",
            netns.display()
        ))?;
        switch.ip(&format!("link set {port} master br1 up"))?;
        node.ip(&format!("address add 10.9.0.{last}/24 dev eth1"))?;
        node.ip(&format!("address add fd09::{last:x}/64 dev eth1 nodad"))?;
        node.ip("link set eth1 up")?;
    }
    let usable =
        |node: &Node| node.ip("-6 address show dev eth1 scope link").is_ok_and(|all| all.contains("fe80"));
    wait::until(SOON, || lab.nodes().iter().all(usable))
}

fn split(lab: &Lab, number: usize) -> AgentBuilder {
    let vips = SECOND.map(|vip| format!("{vip}/{}", if vip.contains(':') { 64 } else { 24 }));
    agent(lab, number).vips(vips).set_instance("vip_interface", json!("eth1"))
}

fn second_served_by(lab: &Lab, number: usize, mac: impl Fn(bool) -> Mac) -> Result<()> {
    for vip in SECOND {
        let name = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(name == lab.node(number).name(), "{vip} is served by {name}");
        let expected = mac(vip.parse::<IpAddr>()?.is_ipv6());
        ensure!(neighbor(lab.client(), vip)? == Some(expected), "{vip}: {:?}", neighbor(lab.client(), vip)?);
    }
    Ok(())
}

/// Heartbeats go where adverts go.
#[test]
fn a_dead_host_is_found_by_the_adverts_interface_wherever_the_vips_are() -> Result<()> {
    let lab = lab().build()?;
    second_network(&lab)?;
    let detect = json!({ "interval": "20ms", "multiplier": 6 });
    let builder = |number| split(&lab, number).interval(ms(1000)).set_instance("detect", detect.clone());
    let [first, second] = pair(builder(1), builder(2))?;
    second.wait_for("watching its owner", |status| {
        !status["instances"][0]["peers"][0]["detect"]["last_ms"].is_null()
    })?;
    lab.switch().set_cable(first.node(), false)?;
    second.wait_state("active", SOON)?;
    let cause = second.edge()?.last_takeover.map(|takeover| takeover.cause);
    ensure!(cause.as_deref() == Some("owner_dead"), "{cause:?}");
    Ok(())
}

/// Adverts by one network do not tell the former owner's MAC on the other.
#[test]
fn vips_on_another_interface_than_adverts_move_with_their_connections() -> Result<()> {
    let lab = lab().build()?;
    second_network(&lab)?;
    let wire = lab.wire()?;
    let [first, second] = pair(split(&lab, 1), split(&lab, 2))?;
    ensure!(first.edge_json()?["interface"] == "eth1");
    second_served_by(&lab, 1, |_| Mac([2, 0, 0, 0, 9, 1]))?;
    ensure!(!wire.adverts(lab.node(1)).is_empty(), "adverts go by eth0");
    // Until node 2 knows whom it would forward to.
    std::thread::sleep(ms(2000));
    let mut open = Conversation::open(lab.client(), SECOND[0])?;
    ensure!(open.ask()? == "node1");
    first.drain()?;
    second.wait_state("active", SOON)?;
    second_served_by(&lab, 2, |_| Mac([2, 0, 0, 0, 9, 2]))?;
    ensure!(open.ask()? == "node1", "an open connection was not forwarded");
    Ok(())
}

#[test]
fn with_virtual_macs_on_two_interfaces_nothing_is_forwarded_where_nobody_knows_whereto() -> Result<()> {
    let lab = lab().build()?;
    second_network(&lab)?;
    let builder = |n| split(&lab, n).set_instance("virtual_mac", json!(true));
    let [first, second] = pair(builder(1), builder(2))?;
    let virtual_mac = |v6| Mac([0, 0, 0x5e, 0, 1 + u8::from(v6), 51]);
    second_served_by(&lab, 1, virtual_mac)?;
    first.drain()?;
    second.wait_state("active", SOON)?;
    second_served_by(&lab, 2, virtual_mac)
}

#[test]
fn a_fault_of_the_vips_interface_is_a_fault_though_adverts_could_go_out() -> Result<()> {
    let lab = lab().build()?;
    second_network(&lab)?;
    let [first, second] = pair(split(&lab, 1), split(&lab, 2))?;
    lab.node(1).ip("link set eth1 down")?;
    let fault = first.wait_state("fault", SOON)?;
    ensure!(fault.instances[0].reason.as_deref().is_some_and(|why| why.contains("eth1 is down")));
    second.wait_state("active", SOON)?;
    lab.node(1).ip("link set eth1 up")?;
    lab.node(1).ip("address replace fd09::1/64 dev eth1 nodad")?;
    first.wait_state("active", SOON)?;
    second_served_by(&lab, 1, |_| Mac([2, 0, 0, 0, 9, 1]))
}

#[test]
fn two_instances_whose_virtual_macs_would_meet_on_one_interface_are_refused() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    second_network(&lab)?;
    let other = json!({"name": "other", "virtual_router_id": 51, "interface": "eth1", "vip_interface": "eth1",
        "virtual_mac": true, "vips": ["10.9.0.60/24"]});
    let refused = split(&lab, 1).set_instance("virtual_mac", json!(true)).instance(other).start()?;
    ensure!(!refused.wait(SOON)?.success());
    ensure!(
        refused.log().contains("both have the virtual MAC 00:00:5e:00:01:33 on eth1"),
        "{}",
        refused.log()
    );
    Ok(())
}
