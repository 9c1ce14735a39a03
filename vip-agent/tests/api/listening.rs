//! Where it listens, and what becomes of an agent that cannot.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::agents::{self, Ask as _, SOON};
use crate::client::{API, alone, connect, get, wait_status};

#[test]
fn an_address_in_use_is_named_and_taken_when_it_is_free_while_the_vips_are_served() -> Result<()> {
    let lab = agents::lab().nodes(1).build()?;
    let agent = agents::agent(&lab, 1);
    let other = lab.node(1).run(|| TcpListener::bind(API))?;
    let agent = agent.start()?;
    agent.wait_state("active", SOON)?;
    let why = "cannot listen on 127.0.0.1:9870: Address already in use";
    agent.wait_for("in trouble with its API", |status| {
        status["api"]["reason"].as_str().is_some_and(|reason| reason.contains(why))
    })?;
    ensure!(agent.log().matches(why).count() == 1, "{}", agent.log());
    let table = agent.say(&["status"])?.ok()?.out;
    ensure!(table.contains(&format!("HTTP API: {why}")), "{table}");
    drop(other);
    wait_status(agent.node(), "/healthz", 200)?;
    ensure!(agent.status()?.raw["api"]["reason"].is_null());
    Ok(())
}

#[test]
fn another_address_restarts_the_listener_alone_and_null_ends_it() -> Result<()> {
    let (_lab, agent) = alone()?;
    let node = agent.node();
    let before = agent.edge()?.transitions;
    let elsewhere = "127.0.0.1:9871".parse()?;
    agent.reload(&agent.builder().set("api", json!({"listen": "127.0.0.1:9871"})))?;
    vip_lab::wait::until(SOON, || connect(node, elsewhere).is_ok() && connect(node, API).is_err())?;
    agent.reload(&agent.builder().set("api", Value::Null))?;
    vip_lab::wait::until(SOON, || connect(node, elsewhere).is_err())?;
    ensure!(agent.status()?.raw["api"].is_null());
    agent.reload(&agent.builder())?;
    wait_status(node, "/healthz", 200)?;
    ensure!(get(node, "/readyz")?.status == 200);
    ensure!(agent.edge()?.transitions == before, "the instance was touched\n{}", agent.log());
    Ok(())
}
