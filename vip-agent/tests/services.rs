//! Services with real servers and clients: VIPs that spread their connections over backends, as those and the owner change.

#[path = "support/agents.rs"]
mod agents;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, times};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Node, WEB_PORT, wait};

/// Nodes 1 and 2 have agents, 3 to 5 are backends of mode dr: the VIPs are on their lo, and they answer nobody's ARP for them.
const BACKENDS: [usize; 3] = [3, 4, 5];

fn lab() -> Result<Lab> {
    // Frames that are steered by generic XDP must not wait for a device to finish their checksums.
    let lab = Lab::builder().nodes(5).clients(1).vips(VIPS).web().checksum_offload(false).build()?;
    for backend in BACKENDS {
        let node = lab.node(backend);
        for interface in ["all", "eth0"] {
            node.set_sysctl(&format!("net.ipv4.conf.{interface}.arp_ignore"), 1)?;
            node.set_sysctl(&format!("net.ipv4.conf.{interface}.arp_announce"), 2)?;
        }
        node.ip("address add 10.0.0.50/32 dev lo scope host")?;
        node.ip("address add fd00::50/128 dev lo nodad preferred_lft 0")?;
    }
    Ok(lab)
}

/// A backend by the number of its node.
fn backend(lab: &Lab, vip: &str, number: usize, weight: u16) -> Value {
    let node = lab.node(number);
    let address = if vip.contains(':') { node.ipv6().to_string() } else { node.ipv4().to_string() };
    json!({"address": address, "weight": weight, "probe": "web"})
}

/// One service for each VIP, over these backends, by node and weight.
fn services(lab: &Lab, mode: &str, backends: &[(usize, u16)]) -> Value {
    let service = |(name, vip): (&str, &str)| {
        let backends: Vec<Value> =
            backends.iter().map(|(number, weight)| backend(lab, vip, *number, *weight)).collect();
        json!({"name": name, "vip": vip, "mode": mode, "ports": [WEB_PORT], "backends": backends})
    };
    Value::from(["four", "six"].into_iter().zip(VIPS).map(service).collect::<Vec<_>>())
}

/// An agent with these services, which asks its backends for a connection.
fn steering(lab: &Lab, number: usize, backends: &[(usize, u16)]) -> AgentBuilder {
    let probe = json!([{"name": "web", "tcp": {"address": format!("{{address}}:{WEB_PORT}")},
                        "interval": "100ms", "timeout": "1s", "fall": 2, "rise": 1}]);
    agent(lab, number)
        .local_address("never")
        .set("probes", probe)
        .set("services", services(lab, "dr", backends))
}

/// How many backends of each service are up.
fn up(status: &Value) -> Vec<usize> {
    let services = status["services"].as_array().cloned().unwrap_or_default();
    let up = |service: &Value| {
        let backends = service["backends"].as_array().cloned().unwrap_or_default();
        backends.iter().filter(|backend| backend["up"] == true).count()
    };
    services.iter().map(up).collect()
}

/// Waits until this many backends of both services are up, and the tables say so.
fn wait_up(agent: &Agent, count: usize) -> Result<()> {
    let settled = |status: &Value| {
        status["services"]
            .as_array()
            .is_some_and(|services| services.iter().all(|service| service["reason"].is_null()))
    };
    agent
        .wait_for(&format!("with {count} backends up"), |status| up(status) == [count; 2] && settled(status))
        .map(drop)
}

/// Conversations with whom each is answered by.
struct Crowd(Vec<(Conversation, String)>);

impl Crowd {
    /// Half of them with each VIP.
    fn open(client: &Node, count: usize) -> Result<Self> {
        let open = |number: usize| -> Result<_> {
            let mut conversation = Conversation::open(client, VIPS[number % 2])?;
            let answers = conversation.ask()?;
            Ok((conversation, answers))
        };
        (0..count).map(open).collect::<Result<_>>().map(Self)
    }

    fn answered_by(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        self.0.iter().for_each(|(_, by)| *counts.entry(by.as_str()).or_default() += 1);
        counts
    }

    /// Asks again: those of these nodes are answered by the same as ever.
    fn goes_on(&mut self, with: &[&str]) -> Result<()> {
        for (conversation, by) in &mut self.0 {
            if with.contains(&by.as_str()) {
                let now = conversation.ask().with_context(|| format!("a conversation with {by} broke"))?;
                ensure!(now == *by, "{by} answered, and now {now}");
            }
        }
        Ok(())
    }
}

#[test]
fn connections_are_spread_over_backends_and_survive_the_changes_of_others() -> Result<()> {
    let lab = lab()?;
    let all = [(3, 1), (4, 1), (5, 1)];
    let first = steering(&lab, 1, &all).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 3)?;
    let mut crowd = Crowd::open(lab.client(), 200)?;
    ensure!(crowd.answered_by().keys().copied().eq(["node3", "node4", "node5"]), "{:?}", crowd.answered_by());
    for _ in 0..times(3, 30) {
        first.reload(&steering(&lab, 1, &[(3, 1), (4, 1)]))?;
        crowd.goes_on(&["node3", "node4"])?;
        first.reload(&steering(&lab, 1, &[(3, 1), (4, 1), (5, 3)]))?;
        crowd.goes_on(&["node3", "node4", "node5"])?;
        first.reload(&steering(&lab, 1, &[(4, 2), (3, 1), (5, 0)]))?;
        crowd.goes_on(&["node3", "node4", "node5"])?;
    }
    let status = first.status()?.raw;
    let service = &status["services"][0];
    ensure!(service["new_flows"].as_u64() >= Some(100) && service["mode"] == "dr", "{service}");
    ensure!(service["outcomes"]["closed"] == 0 && service["outcomes"]["rejected"] == 0, "{service}");
    Ok(())
}

#[test]
fn connections_survive_a_move_of_the_vip_and_the_death_of_its_owner() -> Result<()> {
    let lab = lab()?;
    let all = [(3, 1), (4, 1), (5, 1)];
    let first = steering(&lab, 1, &all).start()?;
    first.wait_state("active", SOON)?;
    let second = steering(&lab, 2, &all).start()?;
    second.wait_state("backup", SOON)?;
    for agent in [&first, &second] {
        wait_up(agent, 3)?;
    }
    let mut crowd = Crowd::open(lab.client(), 60)?;
    let backends = ["node3", "node4", "node5"];
    first.drain()?;
    second.wait_state("active", SOON)?;
    crowd.goes_on(&backends)?;
    first.undrain()?;
    first.wait_state("active", SOON)?;
    crowd.goes_on(&backends)?;
    first.kill()?;
    second.wait_state("active", SOON)?;
    crowd.goes_on(&backends)
}

#[test]
fn connections_survive_an_upgrade_of_the_agent() -> Result<()> {
    let lab = lab()?;
    let first = steering(&lab, 1, &[(3, 1), (4, 1), (5, 1)]).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 3)?;
    let mut crowd = Crowd::open(lab.client(), 60)?;
    // Drained, so that the ring alone would lead elsewhere.
    first.reload(&steering(&lab, 1, &[(3, 0), (4, 1), (5, 1)]))?;
    let second = steering(&lab, 1, &[(3, 0), (4, 1), (5, 1)]).argument("--take-over").start()?;
    ensure!(first.wait(SOON)?.success(), "{}", first.log());
    second.wait_state("active", SOON)?;
    crowd.goes_on(&["node3", "node4", "node5"])?;
    wait_up(&second, 3)?;
    crowd.goes_on(&["node3", "node4", "node5"])?;
    let fresh = Crowd::open(lab.client(), 40)?;
    ensure!(fresh.answered_by().keys().copied().eq(["node4", "node5"]), "{:?}", fresh.answered_by());
    Ok(())
}

#[test]
fn a_drained_backend_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    let lab = lab()?;
    let first = steering(&lab, 1, &[(3, 1), (4, 1)]).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 2)?;
    let mut crowd = Crowd::open(lab.client(), 40)?;
    let draining = crowd.answered_by()["node3"];
    first.reload(&steering(&lab, 1, &[(3, 0), (4, 1)]))?;
    let fresh = Crowd::open(lab.client(), 40)?;
    ensure!(fresh.answered_by().keys().copied().eq(["node4"]), "{:?}", fresh.answered_by());
    crowd.goes_on(&["node3", "node4"])?;
    let node3 = lab.node(3).ipv4().to_string();
    let flows = |arguments: &[&str]| -> Result<Vec<Value>> {
        let said = first.say(&[&["flows", "--json"][..], arguments].concat())?;
        ensure!(said.code == Some(0), "{said:?}");
        let list: Value = serde_json::from_str(&said.out)?;
        Ok(list["flows"].as_array().cloned().unwrap_or_default())
    };
    let of_node3 = flows(&["--backend", &node3])?;
    ensure!(!of_node3.is_empty() && of_node3.len() <= draining, "{of_node3:?}");
    ensure!(
        of_node3.iter().all(|flow| flow["backend"] == node3.as_str() && flow["vip"] == VIPS[0]),
        "{of_node3:?}"
    );
    ensure!(flows(&["--vip", VIPS[1]])?.iter().all(|flow| flow["vip"] == VIPS[1]));
    // Counted in the background.
    first.wait_for("with its flows counted", |status| {
        let counted = status["services"][0]["backends"][0]["active_flows"].as_u64();
        counted == u64::try_from(of_node3.len()).ok()
    })?;
    // Removed, it goes on as long as it has connections.
    first.reload(&steering(&lab, 1, &[(4, 1)]))?;
    crowd.goes_on(&["node3", "node4"])
}

#[test]
fn a_backend_that_is_down_or_out_of_reach_gets_nothing_and_status_says_why() -> Result<()> {
    let lab = lab()?;
    let first = steering(&lab, 1, &[(3, 1), (4, 1)]).start()?;
    first.wait_state("active", SOON)?;
    wait_up(&first, 2)?;
    lab.stop_web(3);
    wait_up(&first, 1)?;
    let fresh = Crowd::open(lab.client(), 20)?;
    ensure!(fresh.answered_by().keys().copied().eq(["node4"]), "{:?}", fresh.answered_by());
    let reasons = |status: &Value| -> BTreeSet<String> {
        let backends = status["services"][0]["backends"].as_array().cloned().unwrap_or_default();
        backends.iter().filter_map(|backend| backend["reason"].as_str().map(str::to_owned)).collect()
    };
    let told = reasons(&first.status()?.raw);
    ensure!(told.iter().any(|why| why.starts_with("probe web@10.0.0.3 is down: cannot connect")), "{told:?}");
    lab.start_web(3)?;
    wait_up(&first, 2)?;
    // Nobody has this address, and nothing asks it: its neighbour entry says so.
    let mut services = services(&lab, "dr", &[(4, 1)]);
    services[0]["backends"].as_array_mut().context("a list")?.push(json!({"address": "10.0.0.99"}));
    services[0]["backends"].as_array_mut().context("a list")?.push(json!({"address": "192.0.2.7"}));
    first.reload(&steering(&lab, 1, &[]).set("services", services))?;
    let status = first.wait_for("with reasons", |status| reasons(status).len() == 2)?;
    let told = reasons(&status);
    let expected = [
        "10.0.0.99 does not answer for its MAC address (ARP, neighbour discovery)",
        "there is no route to it",
    ];
    ensure!(told.iter().map(String::as_str).eq(expected), "{told:?}");
    let fresh = Crowd::open(lab.client(), 10)?;
    ensure!(fresh.answered_by().keys().copied().eq(["node4"]), "{:?}", fresh.answered_by());
    Ok(())
}

#[test]
fn a_port_without_backends_is_refused_at_once_and_services_come_and_go() -> Result<()> {
    let lab = lab()?;
    let first = steering(&lab, 1, &[]).start()?;
    first.wait_state("active", SOON)?;
    let refused = || -> Result<bool> {
        let begun = std::time::Instant::now();
        let refused = Conversation::open(lab.client(), VIPS[0]).is_err();
        Ok(refused && begun.elapsed() < Duration::from_secs(4))
    };
    ensure!(refused()?, "nobody serves, and the client waits");
    first.reload(&steering(&lab, 1, &[(3, 1)]))?;
    wait_up(&first, 1)?;
    wait::until(SOON, || Conversation::open(lab.client(), VIPS[0]).is_ok())?;
    // Without services it is a VIP like others, which this node serves itself.
    first.reload(&steering(&lab, 1, &[]).set("services", json!([])).local_address("active"))?;
    wait::until(SOON, || {
        let answer =
            Conversation::open(lab.client(), VIPS[0]).and_then(|mut conversation| conversation.ask());
        answer.is_ok_and(|by| by == "node1")
    })?;
    first.wait_for("without services", |status| status["services"] == json!([]))?;
    Ok(())
}
