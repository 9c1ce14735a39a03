//! Reloading: what did not change is not touched, what is invalid is not applied.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/load.rs"]
mod load;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, is_on_lo, lab, ms, pair};
use anyhow::{Context as _, Result, ensure};
use load::{load, nothing_was_lost};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Stamp, wait};

const THIRD: &str = "10.0.0.60";
const LAST_GOOD: &str = "/var/lib/viplane/last-good.yaml";

fn extra(vrid: u8, priority: u8) -> Value {
    json!({"name": "extra", "virtual_router_id": vrid, "interface": "eth0", "priority": priority,
           "advert_interval": "100ms", "vips": [format!("{THIRD}/24")]})
}

fn status_of(agent: &Agent, instance: &str) -> Result<Value> {
    let status = agent.status()?.raw;
    let list = status["instances"].as_array().context("no instances")?;
    let found = list.iter().find(|known| known["name"] == instance);
    found.cloned().with_context(|| format!("no instance {instance} in {status}"))
}

/// What a restart of an instance would change.
fn life(agent: &Agent, instance: &str) -> Result<(Value, Value)> {
    let status = status_of(agent, instance)?;
    Ok((status["since"].clone(), status["transitions"].clone()))
}

/// The last good configuration without the line that says since when it is that.
fn text_of(kept: &str) -> &str {
    kept.split_once('\n').map_or("", |(_, text)| text)
}

#[test]
fn a_vip_comes_and_goes_while_the_others_are_served() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let before = life(&first, "edge")?;
    let load = load(&lab, ms(2))?;
    for _ in 0..3 {
        // Adverts of the two must not differ for longer than a reload takes.
        for (agent, number) in [(&first, 1), (&second, 2)] {
            agent.reload(&self::agent(&lab, number).vips([VIPS[0], VIPS[1], THIRD]))?;
        }
        ensure!(is_on_lo(&first, THIRD)? && !is_on_lo(&second, THIRD)?);
        ensure!(Conversation::open(lab.client(), THIRD)?.ask()? == "node1");
        for (agent, number) in [(&first, 1), (&second, 2)] {
            agent.reload(&self::agent(&lab, number))?;
        }
        ensure!(!is_on_lo(&first, THIRD)?);
        lab.client().ip("neighbour flush dev eth0 to 10.0.0.60")?;
        ensure!(Conversation::open(lab.client(), THIRD).is_err(), "{THIRD} is still answered for");
    }
    nothing_was_lost(load)?;
    ensure!(life(&first, "edge")? == before, "it was restarted");
    Ok(())
}

#[test]
fn an_instance_comes_and_goes_while_the_other_is_served() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let before = life(&first, "edge")?;
    let load = load(&lab, ms(2))?;
    for _ in 0..2 {
        first.reload(&agent(&lab, 1).instance(extra(52, 200)))?;
        first.wait_state("active", SOON)?;
        ensure!(Conversation::open(lab.client(), THIRD)?.ask()? == "node1");
        // And again while its local address lingers.
        first.reload(&agent(&lab, 1))?;
        ensure!(Conversation::open(lab.client(), THIRD).is_err() || is_on_lo(&first, THIRD)?);
        first.reload(&agent(&lab, 1).instance(extra(52, 200)))?;
        first.wait_state("active", SOON)?;
        ensure!(Conversation::open(lab.client(), THIRD)?.ask()? == "node1");
        first.reload(&agent(&lab, 1).instance(extra(52, 200)).grace(ms(4000)))?;
        first.reload(&agent(&lab, 1))?;
        wait::until(SOON, || !is_on_lo(&first, THIRD).unwrap_or(true))?;
    }
    nothing_was_lost(load)?;
    ensure!(life(&first, "edge")? == before, "it was restarted");
    ensure!(first.status()?.instances.len() == 1);
    Ok(())
}

#[test]
fn a_higher_priority_preempts_without_a_restart() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let transitions = second.edge()?.transitions;
    let load = load(&lab, ms(2))?;
    second.reload(&agent(&lab, 2).priority(220))?;
    second.wait_state("active", SOON)?;
    first.wait_state("backup", SOON)?;
    nothing_was_lost(load)?;
    let status = second.edge()?;
    ensure!(status.transitions == transitions + 1, "{status:?}");
    ensure!(status.last_takeover.is_some_and(|takeover| takeover.cause == "preempt"));
    ensure!(second.edge_json()?["effective_priority"] == 220);
    Ok(())
}

#[test]
fn another_interval_is_announced_at_once() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let (before, watching) = (life(&first, "edge")?, life(&second, "edge")?);
    let wire = lab.wire()?;
    let changed = Stamp::now();
    first.reload(&agent(&lab, 1).interval(ms(1000)))?;
    let advert = wire.wait_first(changed, ms(800), |frame| {
        frame.is_from(lab.node(1)) && frame.advert().is_some_and(|advert| advert.interval_cs == 100)
    });
    ensure!(advert.is_ok(), "peers still wait for the shorter interval");
    std::thread::sleep(ms(2500));
    ensure!(life(&first, "edge")? == before && life(&second, "edge")? == watching, "the VIPs moved");
    Ok(())
}

#[test]
fn another_virtual_router_id_restarts_that_instance_alone() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).instance(extra(52, 200)).start()?;
    first.wait_state("active", SOON)?;
    let (edge, other) = (life(&first, "edge")?, life(&first, "extra")?);
    let load = load(&lab, ms(2))?;
    let mut open = Conversation::open(lab.client(), THIRD)?;
    ensure!(open.ask()? == "node1");
    first.reload(&agent(&lab, 1).instance(extra(53, 200)))?;
    first.wait_state("active", SOON)?;
    nothing_was_lost(load)?;
    ensure!(life(&first, "edge")? == edge, "the other instance was touched");
    ensure!(life(&first, "extra")? != other);
    ensure!(status_of(&first, "extra")?["virtual_router_id"] == 53);
    ensure!(open.ask()? == "node1", "an open connection did not outlive the restart");
    Ok(())
}

#[test]
fn another_interface_moves_that_instance_alone() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(1);
    node.ip("link add eth1 type veth peer name eth1p")?;
    node.ip("link set eth1p up")?;
    node.ip("link set eth1 up")?;
    node.ip("address add 10.0.9.1/24 dev eth1")?;
    let on = |interface: &str| {
        let mut extra = extra(52, 200);
        extra["interface"] = json!(interface);
        agent(&lab, 1).instance(extra)
    };
    let first = on("eth0").start()?;
    first.wait_state("active", SOON)?;
    let edge = life(&first, "edge")?;
    first.reload(&on("eth1"))?;
    first.wait_state("active", SOON)?;
    ensure!(status_of(&first, "extra")?["interface"] == "eth1");
    ensure!(life(&first, "edge")? == edge, "the other instance was touched");
    ensure!(node.sysctl("net.ipv4.conf.eth1.arp_ignore")? == "3");
    first.reload(&on("eth0"))?;
    first.wait_state("active", SOON)?;
    ensure!(node.sysctl("net.ipv4.conf.eth1.arp_ignore")? == "0", "eth1 is not as it was");
    ensure!(!node.ip("-d link show eth1")?.contains("xdp"), "the program is still on eth1");
    Ok(())
}

#[test]
fn a_vip_moves_from_one_instance_to_another() -> Result<()> {
    let lab = lab().build()?;
    let with = |edge: &[&str], other: &[&str]| {
        let mut extra = extra(52, 200);
        extra["vips"] = json!(other);
        agent(&lab, 1).vips(edge.iter().copied()).instance(extra)
    };
    let first = with(&[VIPS[0], THIRD], &["10.0.0.61"]).start()?;
    first.wait_state("active", SOON)?;
    for _ in 0..2 {
        first.reload(&with(&[VIPS[0]], &["10.0.0.61", THIRD]))?;
        ensure!(is_on_lo(&first, THIRD)? && Conversation::open(lab.client(), THIRD)?.ask()? == "node1");
        first.reload(&with(&[VIPS[0], THIRD], &["10.0.0.61"]))?;
        ensure!(is_on_lo(&first, THIRD)? && Conversation::open(lab.client(), THIRD)?.ask()? == "node1");
    }
    Ok(())
}

#[test]
fn what_an_operator_drained_stays_drained() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    first.drain()?;
    second.wait_state("active", SOON)?;
    first.reload(&agent(&lab, 1).priority(220))?;
    ensure!(first.edge()?.state == "draining");
    // Even when the instance has to begin anew.
    first.reload(&agent(&lab, 1).vrid(60))?;
    first.wait_state("draining", SOON)?;
    std::thread::sleep(ms(1000));
    ensure!(first.edge()?.state == "draining" && second.edge()?.state == "active");
    Ok(())
}

#[test]
fn an_invalid_file_is_refused_with_its_place_and_the_old_one_stays() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let (before, good) = (life(&first, "edge")?, lab.node(1).read_file(LAST_GOOD)?);
    ensure!(good.starts_with("# kept by ") && text_of(&good) == agent(&lab, 1).config()?, "{good}");
    let unknown = agent(&lab, 1).yaml("flavour: vanilla\n");
    let twice = agent(&lab, 1).vips([VIPS[0], VIPS[0]]);
    let absent = agent(&lab, 1).set_instance("interface", json!("eth7"));
    for (changed, expected) in [(&unknown, "flavour"), (&twice, "10.0.0.50"), (&absent, "eth7")] {
        changed.write_config()?;
        let said = first.say(&["reload"])?;
        ensure!(said.code == Some(1) && said.err.contains(expected), "{said:?}");
        first.signal(Signal::SIGHUP)?;
        wait::until(SOON, || first.log().matches("configuration refused").count() >= 2)?;
    }
    let place = regex_place(&first.log());
    ensure!(place, "no FILE:LINE:COL: in {}", first.log());
    ensure!(life(&first, "edge")? == before);
    ensure!(lab.node(1).read_file(LAST_GOOD)? == good, "a refused file was kept as good");
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node1");
    Ok(())
}

/// Whether a line begins with `/run/lab/agent.yaml:LINE:COLUMN: `.
fn regex_place(log: &str) -> bool {
    log.lines().filter_map(|line| line.strip_prefix("/run/lab/agent.yaml:")).any(|rest| {
        let mut parts = rest.splitn(3, ':');
        let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
        number(parts.next()) && number(parts.next()) && parts.next().is_some_and(|text| text.starts_with(' '))
    })
}

#[test]
fn a_good_file_is_applied_by_sighup_and_kept() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let changed = agent(&lab, 1).priority(111);
    changed.write_config()?;
    first.signal(Signal::SIGHUP)?;
    first.wait_for("changed", |status| status["instances"][0]["priority"] == 111)?;
    wait::until(SOON, || {
        lab.node(1)
            .read_file(LAST_GOOD)
            .is_ok_and(|kept| changed.config().is_ok_and(|new| text_of(&kept) == new))
    })?;
    Ok(())
}

#[test]
fn what_takes_effect_at_the_next_start_is_said() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let changed: AgentBuilder = agent(&lab, 1).set("log", json!({"level": "debug"}));
    changed.write_config()?;
    let said = first.say(&["reload"])?.ok()?;
    ensure!(said.out.contains("log.level takes effect at the next start"), "{said:?}");
    ensure!(first.log().contains("log.level takes effect at the next start"), "{}", first.log());
    let again = first.say(&["reload"])?.ok()?;
    ensure!(
        again.out.contains("log.level takes effect at the next start"),
        "it still does not hold: {again:?}"
    );
    agent(&lab, 1).write_config()?;
    let back = first.say(&["reload"])?.ok()?;
    ensure!(back.out.trim() == "applied", "{back:?}");
    Ok(())
}
