//! What each endpoint says.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::agents::{self, Ask as _, VIPS};
use crate::client::{Stream, alone, exchange, get, get_with, value, wait_status};

#[test]
fn every_endpoint_answers_and_says_what_it_is() -> Result<()> {
    let (_lab, agent) = alone()?;
    let node = agent.node();
    ensure!(get(node, "/healthz")?.body == "ok\n");
    ensure!(wait_status(node, "/readyz", 200)?.body == "ok\n");
    let page = get(node, "/")?;
    ensure!(page.status == 200 && page.headers.contains("content-type: text/html"), "{page:?}");
    ensure!(
        page.body.contains("<td>edge<td class=\"active\">active") && page.body.contains(VIPS[1]),
        "{page:?}"
    );
    for (accept, kind, end) in [
        ("", "text/plain; version=0.0.4", ""),
        ("Accept: application/openmetrics-text;version=1.0.0\r\n", "application/openmetrics-text", "# EOF\n"),
    ] {
        let metrics = get_with(node, "/metrics", accept)?;
        ensure!(
            metrics.status == 200 && metrics.headers.contains(&format!("content-type: {kind}")),
            "{metrics:?}"
        );
        ensure!(metrics.body.ends_with(end) && metrics.body.contains(end), "{metrics:?}");
        ensure!(value(&metrics.body, "viplane_instance_state{instance=\"edge\",state=\"active\"}")? == 1.0);
    }
    for (request, status) in [
        ("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET /status HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 413),
        ("GET /status HTTP/1.0\r\n\r\n", 200),
        ("nonsense\r\n\r\n", 400),
    ] {
        let answer = exchange(node, request)?;
        ensure!(answer.status == status, "{request}: {answer:?}");
        ensure!(status != 405 || answer.headers.contains("allow: get, head"), "{answer:?}");
        ensure!(!request.starts_with("HEAD") || answer.body.is_empty(), "{answer:?}");
    }
    Ok(())
}

/// What differs from one moment to the next.
fn timeless(mut status: Value) -> Value {
    for instance in status["instances"].as_array_mut().into_iter().flatten() {
        for key in ["lease_ms", "adverts", "peers"] {
            instance[key] = Value::Null;
        }
    }
    status
}

#[test]
fn status_is_what_the_control_socket_says() -> Result<()> {
    let (_lab, agent) = alone()?;
    agent.wait_watcher(agents::SOON)?;
    let answer = get(agent.node(), "/status")?;
    ensure!(answer.headers.contains("content-type: application/json"), "{answer:?}");
    let (over_http, over_socket) = (serde_json::from_str(&answer.body)?, agent.status()?.raw);
    ensure!(timeless(over_http) == timeless(over_socket.clone()), "{} and {over_socket}", answer.body);
    ensure!(over_socket["api"] == json!({"listen": "127.0.0.1:9870", "reason": null}), "{over_socket}");
    Ok(())
}

#[test]
fn what_happens_is_told_and_told_on_to_who_was_cut_off() -> Result<()> {
    let lab = agents::lab().nodes(1).build()?;
    let probe = json!([{"name": "uplink", "interface": {"name": "uplink"}}]);
    let agent =
        agents::agent(&lab, 1).set("probes", probe).set_instance("track", json!(["uplink"])).start()?;
    let node = agent.node();
    agent.wait_state("fault", agents::SOON)?;
    let mut stream = Stream::open(node, "")?;

    node.ip("link add uplink type veth peer name other")?;
    node.ip("link set other up")?;
    node.ip("link set uplink up")?;
    let (_, verdict) = stream.event("verdict")?;
    ensure!(verdict["probe"] == "uplink" && verdict["up"] == true, "{verdict}");
    let (id, moved) = stream.event("transition")?;
    ensure!(
        moved["instance"] == "edge" && moved["cause"] == "recovered" && moved["to"] == "backup",
        "{moved}"
    );

    drop(stream);
    agent.wait_state("active", agents::SOON)?;
    agent.reload(&agent.builder())?;
    let mut stream = Stream::open(node, &format!("Last-Event-ID: {id}\r\n"))?;
    let (_, next) = stream.event("transition")?;
    ensure!(next["from"] == "backup" && next["to"] == "active" && next["detect_us"].is_u64(), "{next}");
    let (_, reload) = stream.event("reload")?;
    ensure!(reload["applied"] == true, "{reload}");

    node.write_file(agent.builder().config_path(), "instances: [{}]")?;
    ensure!(agent.say(&["reload"])?.code == Some(1));
    let (_, refused) = stream.event("reload")?;
    ensure!(
        refused["applied"] == false
            && refused["error"].as_str().is_some_and(|why| why.contains("is missing")),
        "{refused}"
    );
    Ok(())
}

#[test]
fn an_instance_that_is_held_down_is_not_ready_until_it_takes_part() -> Result<()> {
    let lab = agents::lab().nodes(1).build()?;
    let agent = agents::agent(&lab, 1).set_instance("hold_down", json!("1s")).start()?;
    let node = agent.node();
    let held = wait_status(node, "/readyz", 503)?;
    ensure!(held.body.contains("edge: is in initialize"), "{held:?}");
    ensure!(get(node, "/healthz")?.status == 200);
    wait_status(node, "/readyz", 200)?;
    ensure!(agent.edge()?.state != "initialize");
    Ok(())
}

#[test]
fn no_counter_falls_when_instances_come_and_go() -> Result<()> {
    let lab = agents::lab().nodes(1).build()?;
    let extra = json!({"name": "extra", "virtual_router_id": 52, "interface": "eth0", "priority": 200,
                       "advert_interval": "100ms", "grace": "100ms", "vips": ["10.0.0.60/24"]});
    let without = agents::agent(&lab, 1);
    let with = without.clone().instance(extra);
    let agent = with.clone().start()?;
    agent.wait_state("active", agents::SOON)?;
    let counted = || -> Result<[f64; 2]> {
        let metrics = get(agent.node(), "/metrics")?.body;
        Ok([
            value(&metrics, "viplane_adverts_total{direction=\"sent\",result=\"ok\"}")?,
            value(&metrics, "viplane_xdp_packets_total{interface=\"eth0\",reason=\"arp_answered\"}")?,
        ])
    };
    let mut last = counted()?;
    for changed in [&without, &with, &without] {
        agent.reload(changed)?;
        agent.wait_state("active", agents::SOON)?;
        let now = counted()?;
        ensure!(last.iter().zip(now).all(|(last, now)| *last <= now), "{last:?} -> {now:?}");
        last = now;
    }
    agent.reload(&with)?;
    agent.wait_state("active", agents::SOON)?;
    let metrics = get(agent.node(), "/metrics")?.body;
    let taken = "viplane_transitions_total{instance=\"extra\",to=\"active\",cause=\"timeout\"}";
    ensure!(value(&metrics, taken)? == 3.0, "{metrics}");
    Ok(())
}
