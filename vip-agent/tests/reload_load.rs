//! Reloads under load: whatever comes and goes, nothing is lost on what stays.

#[path = "support/agents.rs"]
mod agents;

use agents::{SOON, VIPS, agent, lab, ms, pair, times};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, WEB_PORT, wait};

/// What a restart of the instance under load would change.
fn life(agent: &Agent) -> Result<(Value, Value)> {
    let status = agent.status()?.raw;
    let list = status["instances"].as_array().context("no instances")?;
    let edge = list.iter().find(|instance| instance["name"] == "edge").context("no instance edge")?;
    Ok((edge["since"].clone(), edge["transitions"].clone()))
}

/// The `round`th configuration: beside the VIPs under load others come and go, with instances, probes and the API's
/// listener, each in a rhythm of its own.
fn configuration(lab: &Lab, number: usize, round: usize) -> AgentBuilder {
    let every = |rhythm: usize| round % rhythm == rhythm - 1;
    let mut vips: Vec<String> = VIPS.iter().map(|vip| (*vip).to_owned()).collect();
    // Other VIPs of the same instance.
    vips.extend((0..round % 4).map(|n| format!("10.0.0.{}", 60 + n)));
    vips.extend((0..round % 3).map(|n| format!("fd00::6{n}")));
    let mut builder = agent(lab, number).vips(vips).grace(ms(1000));
    // Other instances, one of them with another virtual router id each time: it starts anew.
    if every(2) {
        let vrid = 60 + round % 5;
        builder = builder
            .instance(json!({"name": "restarted", "virtual_router_id": vrid, "interface": "eth0",
            "advert_interval": "100ms", "vips": ["10.0.0.70", "fd00::70"]}));
    }
    if every(3) {
        builder = builder.instance(json!({"name": "guest", "virtual_router_id": 70, "interface": "eth0",
            "advert_interval": "100ms", "vips": ["10.0.0.80"], "track": ["file"]}));
    }
    let mut probes =
        vec![json!({"name": "file", "file": {"path": "/proc/self/status"}, "interval": "100ms"})];
    let mut tracked = Vec::new();
    if every(2) {
        let url = format!("http://127.0.0.1:{WEB_PORT}/");
        probes.push(json!({"name": "web", "interval": "100ms", "initial": "up", "fall": 1 + round % 3, "http": {"url": url}}));
        tracked.push("web");
    }
    if every(4) {
        probes.push(
            json!({"name": "true", "interval": "200ms", "initial": "up", "exec": {"command": ["/bin/true"]}}),
        );
        tracked.push("true");
    }
    let listen = format!("127.0.0.1:{}", 9870 + round % 2);
    builder
        .set("probes", json!(probes))
        .set_instance("track", json!(tracked))
        .set("api", if every(5) { Value::Null } else { json!({"listen": listen}) })
}

#[test]
fn reloads_lose_no_request_on_what_stays() -> Result<()> {
    let lab = lab().build()?;
    let reloads = times(20, 200);
    let agents = pair(configuration(&lab, 1, 0), configuration(&lab, 2, 0))?;
    let lives = [life(&agents[0])?, life(&agents[1])?];
    let load = lab.requests().every(ms(4)).delay(ms(2)).start()?;
    wait::until(SOON, || !load.report().requests().is_empty())?;
    for round in 1..=reloads {
        // Requests are under way in each round, and not so many that the machine cannot keep up with them at all.
        wait::until(2 * SOON, || (1..100).contains(&load.in_flight()))?;
        for (agent, number) in agents.iter().zip(1..) {
            agent.reload(&configuration(&lab, number, round)).with_context(|| format!("reload {round}"))?;
        }
    }
    let report = load.stop();
    let lost: Vec<_> = report.lost().collect();
    println!(
        "{reloads} reloads of both nodes: {} requests, {} lost, latencies {:?} ms, by {:?}",
        report.requests().len(),
        lost.len(),
        report.latencies().summary(),
        report.answered_by(),
    );
    ensure!(lost.is_empty(), "lost {}: {:?}", lost.len(), &lost[..lost.len().min(20)]);
    // A lost SYN is sent again after a second: that is slow, and not lost.
    let kept_up = report.latencies().quantile(0.9).is_some_and(|latency| latency < 300.0);
    ensure!(report.slow(ms(900)).count() == 0 || !kept_up, "SYNs were lost");
    ensure!(report.answered_by().len() == 1, "the VIPs moved: {:?}", report.answered_by());
    ensure!([life(&agents[0])?, life(&agents[1])?] == lives, "the instance was restarted");
    Ok(())
}
