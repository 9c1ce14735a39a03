//! What the verdicts of probes make of the VIPs.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/servers.rs"]
mod servers;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use agents::{Ask as _, SOON, VIPS, agent, ms};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use servers::Server;
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::arping::Arping;
use vip_lab::{Lab, Stamp, WEB_PORT, wait};

/// How a server answers.
const WELL: u8 = 0;
const ILL: u8 = 1;
const FLICKERS: u8 = 2;

/// As quick as it is asked for where seconds count.
fn quick(name: &str, kind: &str, particulars: Value) -> Value {
    let Value::Object(mut probe) = json!({"name": name, "interval": "100ms", "timeout": "500ms"}) else {
        unreachable!()
    };
    probe.insert(kind.to_owned(), particulars);
    Value::Object(probe)
}

/// Whether the node's own web server answers.
fn web() -> Value {
    quick("web", "http", json!({"url": format!("http://127.0.0.1:{WEB_PORT}/")}))
}

/// An agent that tracks these probes.
fn tracking(lab: &Lab, number: usize, probes: &[Value]) -> AgentBuilder {
    let names: Vec<&Value> = probes.iter().map(|probe| &probe["name"]).collect();
    agent(lab, number).set("probes", json!(probes)).set_instance("track", json!(names))
}

/// Agents on all nodes; the first owns, and each has found its probes up.
fn start<const N: usize>(builders: [AgentBuilder; N]) -> Result<[Agent; N]> {
    let agents: Vec<Agent> = builders.map(AgentBuilder::start).into_iter().collect::<Result<_>>()?;
    agents[0].wait_state("active", SOON)?;
    for backup in &agents[1..] {
        backup.wait_state("backup", SOON)?;
    }
    Ok(agents.try_into().expect("as many as there were"))
}

/// Waits until a probe is as wanted.
fn is(agent: &Agent, probe: &str, up: bool, why: &str) -> Result<()> {
    let wanted = |status: &Value| {
        let probes = status["instances"][0]["probes"].as_array().cloned().unwrap_or_default();
        probes.iter().any(|found| {
            let error = found["last_error"].as_str().unwrap_or_default();
            found["name"] == probe && found["up"] == up && error.contains(why)
        })
    };
    agent.wait_for(&format!("{probe}: up {up}, {why:?}"), wanted).map(drop)
}

// === what the verdicts move ===

#[test]
fn a_service_that_dies_on_the_owner_is_served_elsewhere_and_the_probe_is_named() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(1).vips(VIPS).web().build()?;
    let [first, second] = start([1, 2].map(|number| tracking(&lab, number, &[web()])))?;
    let load = lab.requests().every(ms(2)).delay(ms(1)).patience(ms(200)).start()?;
    let by = |load: &vip_lab::requests::Requests, node: &str| {
        load.report().answered_by().iter().any(|(name, count)| &**name == node && *count > 5)
    };
    wait::until(SOON, || by(&load, "node1"))?;
    let wire = lab.wire()?;
    let died = Instant::now();
    lab.stop_web(1);
    wait::until(SOON, || by(&load, "node2"))?;
    println!("from the service's death to requests served elsewhere: {:?}", died.elapsed());
    second.wait_state("active", SOON)?;
    first.wait_state("fault", SOON)?;

    let loser = first.edge_json()?;
    let release = &loser["last_release"];
    println!("the loser: {release}");
    ensure!(release["cause"] == "fault" && release["probe"] == "web", "{loser}");
    for phase in ["verdict_us", "detect_us", "decide_us", "flip_us", "announce_us"] {
        ensure!(release[phase].is_u64(), "no {phase}: {release}");
    }
    // Two answers, an interval apart, made the verdict.
    ensure!(release["verdict_us"].as_u64() >= Some(50_000), "{release}");
    let reason = loser["reason"].as_str().unwrap_or_default();
    ensure!(reason.starts_with("probe web is down: cannot connect to 127.0.0.1:80"), "{loser}");
    let log = first.log();
    ensure!(log.contains("active -> fault") && log.contains("probe=\"web\""), "{log}");
    let winner = second.edge_json()?;
    println!("the winner: {}", winner["last_takeover"]);
    ensure!(winner["last_takeover"]["cause"] == "priority_zero", "{winner}");
    let [one, two] = [lab.node(1), lab.node(2)];
    let said = |priority: u8| {
        move |frame: &vip_lab::wire::Frame| frame.advert().is_some_and(|advert| advert.priority == priority)
    };
    let farewell = wire.wait_first(Stamp::MIN, SOON, |frame| frame.is_from(one) && said(0)(frame))?.at;
    let taken = wire.wait_first(farewell, SOON, |frame| frame.is_from(two) && said(190)(frame))?.at;
    println!(
        "from priority 0 to the new owner's first advert, of which 25.8 ms are its skew: {:?}",
        taken - farewell
    );

    lab.start_web(1)?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    let back = first.edge_json()?;
    ensure!(back["last_takeover"]["cause"] == "preempt" && back["last_takeover"]["probe"] == "web", "{back}");
    Ok(())
}

#[test]
fn a_weighted_probe_moves_the_vips_to_who_is_better_and_back_without_loss() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(1).vips(VIPS).web().build()?;
    let ready = lab.node(1).file_path("ready");
    lab.node(1).write_file(&ready, "")?;
    let mut probe = quick("ready", "file", json!({"path": ready}));
    probe["weight"] = json!(-40);
    let [first, second] = start([tracking(&lab, 1, &[probe]), agent(&lab, 2)])?;
    let load = lab.requests().every(ms(2)).delay(ms(5)).start()?;
    wait::until(SOON, || load.in_flight() > 0)?;
    let path = ready.clone();
    lab.node(1).run(move || std::fs::remove_file(path))?;
    second.wait_state("active", SOON)?;
    let edge = first.edge_json()?;
    ensure!(edge["state"] == "backup" && edge["effective_priority"] == 160, "{edge}");
    let release = &edge["last_release"];
    ensure!(release["cause"] == "higher_priority" && release["probe"] == "ready", "{edge}");
    lab.node(1).write_file(&ready, "")?;
    first.wait_state("active", SOON)?;
    ensure!(first.edge_json()?["effective_priority"] == 200);
    second.wait_state("backup", SOON)?;
    let lost = load.stop().lost().count();
    ensure!(lost == 0, "{lost} requests were lost");
    Ok(())
}

// === all_failed ===

/// Three nodes that track their web servers, as they fail one after the other, the owner first.
fn all_fail(lab: &Lab, all_failed: &str) -> Result<[Agent; 3]> {
    let tracking = |number| tracking(lab, number, &[web()]).set_instance("all_failed", json!(all_failed));
    let agents = start([tracking(1), tracking(2), tracking(3)])?;
    for number in 1..=3 {
        agents[number - 1].wait_state("active", SOON)?;
        lab.stop_web(number);
        is(&agents[number - 1], "web", false, "cannot connect")?;
        if number < 3 {
            agents[number - 1].wait_state("fault", SOON)?;
        }
    }
    Ok(agents)
}

#[test]
fn closed_nobody_answers_when_all_fail_and_the_first_that_recovers_does() -> Result<()> {
    let lab = Lab::builder().nodes(3).clients(1).vips(VIPS).web().build()?;
    let agents = all_fail(&lab, "close")?;
    agents[2].wait_state("fault", SOON)?;
    let asking = Arping::start(lab.client(), VIPS[0].parse()?, ms(5))?;
    wait::until(SOON, || asking.questions() > 50)?;
    let answers = asking.stop()?;
    ensure!(answers.all().is_empty(), "somebody answers: {answers:?}");
    lab.start_web(2)?;
    agents[1].wait_state("active", SOON).map(drop)
}

#[test]
fn open_the_last_owner_goes_on_answering_and_yields_to_the_first_that_recovers() -> Result<()> {
    let lab = Lab::builder().nodes(3).clients(1).vips(VIPS).web().build()?;
    let asking = Arping::start(lab.client(), VIPS[0].parse()?, ms(5))?;
    let agents = all_fail(&lab, "open")?;
    let keeps = |status: &Value| {
        let edge = &status["instances"][0];
        edge["state"] == "active" && edge["owned"] == true && edge["effective_priority"] == 2
    };
    let edge = agents[2].wait_for("the last resort", keeps)?["instances"][0].clone();
    let reason = edge["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains("keeps the VIPs because nobody took them") && reason.contains("probe web"),
        "{edge}"
    );
    ensure!(
        edge["last_takeover"]["cause"] == "no_heir" && edge["last_release"]["cause"] == "fault",
        "{edge}"
    );
    let seen = asking.questions();
    wait::until(SOON, || asking.questions() > seen + 100)?;
    let answers = asking.answers();
    let owner = answers.all().last().context("nobody answers")?.mac;
    ensure!(owner == lab.node(3).mac(), "{owner} answers");
    // The lowest of all that are well is better than one that is not.
    lab.start_web(2)?;
    agents[1].wait_state("active", SOON)?;
    agents[2].wait_state("fault", SOON)?;
    let answers = asking.stop()?;
    println!("the longest silence in all of it: {:?}", answers.longest_silence());
    ensure!(answers.double().is_empty(), "two answered: {:?}", answers.double());
    Ok(())
}

#[test]
fn an_owner_whose_backups_failed_before_it_keeps_the_vips_if_open_and_gives_them_up_if_closed() -> Result<()>
{
    let lab = Lab::builder().nodes(3).clients(1).vips(VIPS).web().build()?;
    let tracking = |number| tracking(&lab, number, &[web()]).set_instance("all_failed", json!("open"));
    let agents = start([tracking(1), tracking(2), tracking(3)])?;
    let asking = Arping::start(lab.client(), VIPS[0].parse()?, ms(5))?;
    for number in [2, 3] {
        lab.stop_web(number);
        agents[number - 1].wait_state("fault", SOON)?;
    }
    lab.stop_web(1);
    let keeps = |status: &Value| {
        let edge = &status["instances"][0];
        edge["state"] == "active" && edge["effective_priority"] == 2
    };
    agents[0].wait_for("the last resort", keeps)?;
    // Its own service is well again: it is itself, and nothing moves.
    lab.start_web(1)?;
    agents[0].wait_for("itself", |status| status["instances"][0]["effective_priority"] == 200)?;
    let answers = asking.stop()?;
    ensure!(answers.all().iter().all(|answer| answer.mac == lab.node(1).mac()), "{answers:?}");

    for (number, agent) in (1..).zip(&agents) {
        agent.reload(&self::tracking(&lab, number, &[web()]))?;
    }
    lab.stop_web(1);
    for agent in &agents {
        agent.wait_state("fault", SOON)?;
    }
    // Those that cannot serve are passed over, and take their places again when they can.
    lab.start_web(3)?;
    agents[2].wait_state("active", SOON)?;
    lab.start_web(2)?;
    agents[1].wait_state("active", SOON)?;
    agents[2].wait_state("backup", SOON)?;
    lab.start_web(1)?;
    agents[0].wait_state("active", SOON)?;
    agents[1].wait_state("backup", SOON).map(drop)
}

// === how many answers, and how much they weigh ===

#[test]
fn a_flicker_moves_nothing_and_only_a_row_of_answers_is_a_verdict() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(0).vips(["10.0.0.50"]).build()?;
    let (asked, mood) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU8::new(WELL)));
    let (counter, moody) = (Arc::clone(&asked), Arc::clone(&mood));
    let server = Server::answering(lab.node(1), [127, 0, 0, 1].into(), move |stream, _| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        let well = match moody.load(Ordering::SeqCst) {
            // Two bad ones in a row, and a good one.
            FLICKERS => number.is_multiple_of(3),
            mood => mood == WELL,
        };
        let status = if well { "200 OK" } else { "503 No" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    })?;
    let mut probe = quick("moody", "http", json!({"url": server.url()}));
    (probe["fall"], probe["rise"]) = (json!(3), json!(4));
    let agent = tracking(&lab, 1, &[probe]).start()?;
    agent.wait_state("active", SOON)?;
    let turn = |to: u8| {
        mood.store(to, Ordering::SeqCst);
        asked.load(Ordering::SeqCst)
    };
    let transitions = agent.edge()?.transitions;
    let since = turn(FLICKERS);
    wait::until(SOON, || asked.load(Ordering::SeqCst) >= since + 12)?;
    ensure!(agent.edge()?.transitions == transitions, "a flicker is a verdict: {}", agent.log());
    turn(ILL);
    agent.wait_state("fault", SOON)?;
    // The third came two intervals after the first.
    let verdict = agent.edge_json()?["last_release"]["verdict_us"].as_u64();
    ensure!(verdict > Some(150_000), "{verdict:?}");
    let since = turn(WELL);
    agent.wait_state("active", SOON)?;
    let answers = asked.load(Ordering::SeqCst) - since;
    ensure!(answers >= 4, "{answers} good answers were enough");
    Ok(())
}

#[test]
fn weights_add_up_and_choose_among_three_nodes() -> Result<()> {
    let lab = Lab::builder().nodes(3).clients(0).vips(VIPS).build()?;
    let weighted = |number: usize, name: &str, weight: i16| {
        let mut probe = quick(name, "file", json!({"path": lab.node(number).file_path(name)}));
        probe["weight"] = json!(weight);
        probe
    };
    let put = |number: usize, name: &str| lab.node(number).write_file(lab.node(number).file_path(name), "");
    let take = |number: usize, name: &str| -> Result<()> {
        let path = lab.node(number).file_path(name);
        Ok(lab.node(number).run(move || std::fs::remove_file(path))?)
    };
    put(1, "a")?;
    put(1, "b")?;
    let agents = start([
        tracking(&lab, 1, &[weighted(1, "a", -15), weighted(1, "b", -10)]),
        agent(&lab, 2),
        tracking(&lab, 3, &[weighted(3, "c", 25)]),
    ])?;
    let priority = |number: usize, wanted: u8| {
        let is = |status: &Value| status["instances"][0]["effective_priority"] == wanted;
        agents[number - 1].wait_for(&format!("priority {wanted}"), is).map(drop)
    };
    priority(3, 180)?;
    // 200 - 15 < 190.
    take(1, "a")?;
    agents[1].wait_state("active", SOON)?;
    take(1, "b")?;
    priority(1, 175)?;
    // 180 + 25 > 190.
    put(3, "c")?;
    agents[2].wait_state("active", SOON)?;
    priority(3, 205)?;
    put(1, "a")?;
    put(1, "b")?;
    priority(1, 200)?;
    agents[2].wait_state("active", SOON)?;
    // Of two that are better now, the best.
    take(3, "c")?;
    agents[0].wait_state("active", SOON)?;
    agents[2].wait_state("backup", SOON)?;
    agents[1].wait_state("backup", SOON).map(drop)
}

// === reload ===

#[test]
fn a_reload_changes_probes_and_leaves_the_others_alone() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(0).vips(["10.0.0.50"]).web().build()?;
    let agent = tracking(&lab, 1, &[web()]).start()?;
    agent.wait_state("active", SOON)?;
    let before = agent.edge()?.transitions;
    let mut down = quick("down", "tcp", json!({"address": "127.0.0.1:1"}));
    down["weight"] = json!(-50);
    agent.reload(&tracking(&lab, 1, &[web(), down.clone()]))?;
    is(&agent, "down", false, "Connection refused")?;
    agent.wait_for("lower", |status| status["instances"][0]["effective_priority"] == 150)?;
    is(&agent, "web", true, "")?;
    agent.reload(&tracking(&lab, 1, &[web()]))?;
    agent.wait_for("itself", |status| status["instances"][0]["effective_priority"] == 200)?;
    ensure!(agent.edge()?.transitions == before, "the instance moved");
    // A probe that fails becomes a fault, and its going ends it.
    down["weight"] = json!(0);
    agent.reload(&tracking(&lab, 1, &[web(), down]))?;
    agent.wait_state("fault", SOON)?;
    agent.reload(&tracking(&lab, 1, &[web()]))?;
    agent.wait_state("active", SOON).map(drop)
}
