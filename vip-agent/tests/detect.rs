//! Fast detection in the network: dead hosts are found in milliseconds, and nothing else is taken for one.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/watch.rs"]
mod watch;

use std::time::Duration;

use agents::{Ask as _, SOON, VIPS, agent, ms, pair, times};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::hogs::Hogs;
use vip_lab::wire::Wire;
use vip_lab::{Lab, Node, Stamp};
use watch::Watch;

/// Long beside the detection time.
const INTERVAL: Duration = ms(200);

fn lab(nodes: u8) -> Result<Lab> {
    Lab::builder().nodes(nodes).clients(1).vips(VIPS).build()
}

/// Within 4 ms. Whoever owns goes on owning when the other comes back.
fn fast(lab: &Lab, number: usize) -> AgentBuilder {
    detecting(lab, number).set_instance("detect", json!({ "interval": "1ms", "multiplier": 4 }))
}

/// By heartbeats that may be as late as anything is on a busy machine.
fn patient(lab: &Lab, number: usize) -> AgentBuilder {
    detecting(lab, number).set_instance("detect", json!({ "interval": "20ms", "multiplier": 6 }))
}

/// What holds at any pace: at the fastest in the long run.
fn detecting(lab: &Lab, number: usize) -> AgentBuilder {
    let (interval, multiplier) = if times(0, 1) == 1 { ("1ms", 4) } else { ("20ms", 6) };
    let detect = json!({ "interval": interval, "multiplier": multiplier });
    agent(lab, number).interval(INTERVAL).preempt(false).set_instance("detect", detect)
}

/// The second watches the first: its heartbeats come, and it answers.
fn wait_covered(backup: &Agent) -> Result<Value> {
    backup.wait_for("watching its owner", |status| {
        let peers = status["instances"][0]["peers"].as_array();
        peers.is_some_and(|peers| peers.iter().any(|peer| peer["detect"]["last_ms"].is_number()))
    })
}

/// The first owns, and the second watches it.
fn covered_pair(lab: &Lab, builder: fn(&Lab, usize) -> AgentBuilder) -> Result<[Agent; 2]> {
    let agents = pair(builder(lab, 1), builder(lab, 2))?;
    wait_covered(&agents[1])?;
    Ok(agents)
}

/// The first owns, the others watch it.
fn three(lab: &Lab, interval: Duration) -> Result<[Agent; 3]> {
    let builder = |number| detecting(lab, number).interval(interval);
    let [first, second] = pair(builder(1), builder(2))?;
    let third = builder(3).start()?;
    wait_covered(&second)?;
    wait_covered(&third)?;
    Ok([first, second, third])
}

/// Frames of fast detection that a node sends are lost on their way into the switch: `chance` of them, as nft has it.
fn lose_heartbeats_of(lab: &Lab, number: usize, chance: &str) -> Result<()> {
    let port = lab.node(number).name();
    let rule = format!("type filter hook ingress device {port} priority 0\nether type 0x88b5 {chance} drop");
    let table = "table netdev lab";
    let ruleset = format!("{table}\ndelete {table}\n{table} {{\nchain lab {{\n{rule}\n}}\n}}\n");
    lab.switch().node().nft(&ruleset)
}

fn cause(agent: &Agent) -> Result<Option<String>> {
    Ok(agent.edge()?.last_takeover.map(|takeover| takeover.cause))
}

/// When a node first announced a VIP.
fn announced(wire: &Wire, by: &Node, after: Stamp) -> Result<Stamp> {
    let vip = VIPS[0].parse()?;
    let mac = by.mac();
    let frame = wire.wait_first(after, SOON, |frame| frame.packet.announces(vip) && frame.source == mac)?;
    Ok(frame.at)
}

#[test]
fn a_dead_host_is_found_in_milliseconds() -> Result<()> {
    let lab = lab(2)?;
    let agents = covered_pair(&lab, fast)?;
    let wire = lab.wire()?;
    let mut took = Vec::new();
    for round in 0..times(4, 50) {
        let [owner, heir] = [round % 2, (round + 1) % 2];
        wait_covered(&agents[heir])?;
        // Not always right after a heartbeat.
        std::thread::sleep(Duration::from_micros(137 * round as u64));
        let dies = Stamp::now();
        lab.switch().set_cable(agents[owner].node(), false)?;
        let heard = announced(&wire, agents[heir].node(), dies)?;
        took.push((heard - dies).as_secs_f64() * 1e3);
        agents[heir].wait_state("active", SOON)?;
        ensure!(cause(&agents[heir])?.as_deref() == Some("owner_dead"), "{:?}", agents[heir].edge()?);
        lab.switch().set_cable(agents[owner].node(), true)?;
        agents[owner].wait_state("backup", SOON)?;
    }
    // With the time that cutting a cable takes; what is promised is measured by bench/failover --detect.
    println!("cable cut to first announcement: {took:.2?} ms");
    Ok(())
}

#[test]
fn a_stopped_agent_is_no_dead_host_and_at_no_instant_two_answer() -> Result<()> {
    an_agent_that_fails(|agent| agent.signal(Signal::SIGSTOP), |agent| agent.signal(Signal::SIGCONT))
}

#[test]
fn a_killed_agent_is_no_dead_host_and_at_no_instant_two_answer() -> Result<()> {
    an_agent_that_fails(Agent::crash, rounds::start_again)
}

/// Its program goes on answering for the VIPs until the lease ends, and for the host: adverts decide.
fn an_agent_that_fails(
    fail: impl Fn(&Agent) -> Result<()>,
    bring_back: impl Fn(&mut Agent) -> Result<()>,
) -> Result<()> {
    let lab = lab(2)?;
    let [mut first, second] = covered_pair(&lab, detecting)?;
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    fail(&first)?;
    watch.wait_answers_of(lab.node(2), SOON)?;
    bring_back(&mut first)?;
    first.wait_state("backup", SOON)?;
    ensure!(cause(&second)?.as_deref() == Some("timeout"), "{:?}", second.edge()?);
    let owners = watch.finish(&lab)?;
    ensure!(owners == [lab.node(1).mac(), lab.node(2).mac()], "{owners:?}");
    Ok(())
}

#[test]
fn hosts_die_one_after_the_other_and_the_next_by_priority_takes_over() -> Result<()> {
    let lab = lab(3)?;
    let [first, second, third] = three(&lab, INTERVAL)?;
    for (owner, backups) in [(&first, vec![&second, &third]), (&second, vec![&third])] {
        for backup in &backups {
            wait_covered(backup)?;
        }
        lab.switch().set_cable(owner.node(), false)?;
        backups[0].wait_state("active", SOON)?;
        ensure!(cause(backups[0])?.as_deref() == Some("owner_dead"), "{:?}", backups[0].edge()?);
    }
    // It was never ahead of the second.
    ensure!(third.edge()?.transitions <= 3, "{:?}", third.edge()?);
    Ok(())
}

#[test]
fn a_backup_whose_own_link_is_deaf_takes_nothing_over() -> Result<()> {
    let lab = lab(3)?;
    let [_first, _second, third] = three(&lab, ms(1000))?;
    // Both others are known to answer for a while: a census comes once a second.
    std::thread::sleep(ms(1500));
    let before = third.edge()?.transitions;
    // The switch forwards nothing from or to its port any more, and its carrier stays.
    lab.switch().set_forwarding(third.node(), false)?;
    std::thread::sleep(ms(500));
    lab.switch().set_forwarding(third.node(), true)?;
    let edge = third.edge()?;
    ensure!((edge.state.as_str(), edge.transitions) == ("backup", before), "{edge:?}\n{}", third.log());
    wait_covered(&third)?;
    Ok(())
}

#[test]
fn lost_heartbeats_alone_and_hogs_move_nothing() -> Result<()> {
    let lab = lab(2)?;
    let [first, second] = covered_pair(&lab, fast)?;
    let before = [first.edge()?.transitions, second.edge()?.transitions];
    let _hogs = Hogs::start(16)?;
    // Heartbeats and answers alike.
    lose_heartbeats_of(&lab, 1, "numgen random mod 10 < 1")?;
    std::thread::sleep(Duration::from_secs(times(3, 600) as u64));
    let after = [first.edge()?.transitions, second.edge()?.transitions];
    ensure!(before == after, "{before:?} {after:?}\n{}", second.log());
    wait_covered(&second)?;
    Ok(())
}

#[test]
fn a_backup_whose_questions_are_lost_takes_nothing_over() -> Result<()> {
    let lab = lab(2)?;
    // Until the Backup knows that its questions are lost, the owner must not be late.
    let [_first, second] = covered_pair(&lab, patient)?;
    let before = second.edge()?.transitions;
    lose_heartbeats_of(&lab, 2, "")?;
    // Longer than an owner is trusted to answer.
    second.wait_for("watching nobody", |status| status["instances"][0]["peers"][0]["detect"].is_null())?;
    ensure!(second.edge()?.transitions == before, "{:?}\n{}", second.edge()?, second.log());
    Ok(())
}

#[test]
fn nothing_moves_while_all_is_well() -> Result<()> {
    let lab = lab(2)?;
    let [first, second] = covered_pair(&lab, fast)?;
    let before = [first.edge()?.transitions, second.edge()?.transitions];
    std::thread::sleep(Duration::from_secs(times(1, 600) as u64));
    let after = [first.edge()?.transitions, second.edge()?.transitions];
    ensure!(before == after, "{before:?} {after:?}\n{}", second.log());
    Ok(())
}

#[test]
fn a_peer_without_detection_is_waited_for_as_ever() -> Result<()> {
    let lab = lab(2)?;
    let [first, second] = pair(agent(&lab, 1).interval(ms(100)), detecting(&lab, 2).interval(ms(100)))?;
    std::thread::sleep(ms(300));
    let peer = second.edge_json()?["peers"][0].clone();
    ensure!(peer["detect"].is_null(), "{peer}");
    let dies = Stamp::now();
    lab.switch().set_cable(first.node(), false)?;
    second.wait_state("active", SOON)?;
    ensure!(cause(&second)?.as_deref() == Some("timeout"), "{:?}", second.edge()?);
    // Its last advert may have been 100 ms old.
    ensure!(Stamp::now() - dies > ms(200), "sooner than its adverts allow");
    Ok(())
}

#[test]
fn nodes_with_different_keys_do_not_watch_each_other() -> Result<()> {
    let lab = lab(2)?;
    let with_key = |number: usize, digit: char| -> Result<AgentBuilder> {
        let path = lab.node(number).file_path("detect.key");
        lab.node(number).write_file(path.clone(), digit.to_string().repeat(32))?;
        lab.node(number).command("chmod").args(["600"]).arg(&path).output()?;
        Ok(detecting(&lab, number)
            .set_instance("detect", json!({ "interval": "20ms", "multiplier": 6, "key_file": path })))
    };
    let [first, second] = pair(with_key(1, 'a')?, with_key(2, 'b')?)?;
    std::thread::sleep(ms(1500));
    ensure!(second.edge_json()?["peers"][0]["detect"].is_null(), "{}", second.edge_json()?);
    drop((first, second));
    let [_first, second] = pair(with_key(1, 'c')?, with_key(2, 'c')?)?;
    wait_covered(&second)?;
    Ok(())
}

#[test]
fn a_reload_turns_detection_on_and_off() -> Result<()> {
    let lab = lab(2)?;
    let without = |number| agent(&lab, number).interval(INTERVAL).preempt(false);
    let [first, second] = pair(without(1), without(2))?;
    ensure!(!second.keeps_cpus_ready()?);
    first.reload(&detecting(&lab, 1))?;
    second.reload(&detecting(&lab, 2))?;
    wait_covered(&second)?;
    ensure!(second.keeps_cpus_ready()?, "idle CPUs may sleep as they like");
    second.reload(&without(2))?;
    second.wait_for("watching nobody", |status| status["instances"][0]["peers"][0]["detect"].is_null())?;
    ensure!(!second.keeps_cpus_ready()?, "idle CPUs wait for nobody");
    ensure!(second.edge()?.transitions == 1, "{:?}", second.edge()?);
    Ok(())
}
