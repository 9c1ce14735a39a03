//! Upgrades: another process takes over from the agent that runs, and nobody notices.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/load.rs"]
mod load;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, is_on_lo, lab, ms, pair, times};
use anyhow::{Context as _, Result, ensure};
use load::{load, nothing_was_lost};
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::process::Process;
use vip_lab::{Lab, Stamp, wait};

const KEY_FILE: &str = "/run/lab/edge.key";
const CONTROL: &str = "/run/viplane/agent.sock";

/// A successor that says what it is told to, and then does what it is told to: it has everything of the protocol but an agent
/// behind it.
const FAKE: &str = r#"
import json, socket, sys, time
said, then = sys.argv[1].split(), sys.argv[2]
agent = socket.socket(socket.AF_UNIX)
agent.connect("/run/viplane/agent.sock")
lines = agent.makefile("r")
for step in said:
    agent.sendall((json.dumps(step if step != "take_over" else {"command": step, "protocol": 1}) + "\n").encode())
    print(list(json.loads(lines.readline()))[0], step, flush=True)
time.sleep(float(then))
"#;

/// Lets a process say these, and live for some seconds then.
fn fake(lab: &Lab, said: &str, lives: Duration) -> Result<Process> {
    let seconds = lives.as_secs_f64().to_string();
    let fake = lab.node(1).command("/usr/bin/python3").args(["-c", FAKE, said, &seconds]).spawn("fake")?;
    let last = said.split_whitespace().last().unwrap_or_default();
    fake.wait_log(&format!("ok {last}"), SOON)?;
    Ok(fake)
}

/// The agent that takes over from the one of this builder.
fn successor(builder: AgentBuilder) -> Result<Agent> {
    builder.argument("--take-over").start()
}

/// Waits until `old` has ended, and `new` answers in its place.
fn wait_succession(old: &Agent, new: &Agent) -> Result<Value> {
    let ended =
        old.wait(SOON).with_context(|| format!("the old one: {}\nthe new one: {}", old.log(), new.log()))?;
    ensure!(ended.success(), "the old agent ended with {ended}:\n{}", old.log());
    new.wait_for("in charge", |status| status["pid"].as_i64() == Some(new.process().pid().as_raw().into()))
}

/// What a move would change.
fn life(agent: &Agent) -> Result<(String, String, u64)> {
    let edge = agent.edge()?;
    Ok((edge.state, edge.since, edge.transitions))
}

fn owner_is_upgraded(interval: Duration, rounds: usize) -> Result<()> {
    let lab = lab().build()?;
    // Its verdict is not to be "down until the first answer" again.
    let probe = json!([{"name": "there", "file": {"path": "/proc/self"}, "interval": "5s", "jitter": "3s"}]);
    let build = |number| {
        let tracking = agent(&lab, number).set("probes", probe.clone());
        tracking.set_instance("track", json!(["there"])).interval(interval)
    };
    let [first, second] = pair(build(1), build(2))?;
    let (before, watching) = (life(&first)?, life(&second)?);
    let load = load(&lab, ms(5))?;
    let wire = lab.wire()?;
    let begun = Stamp::now();
    let mut owner = first;
    for _ in 0..rounds {
        let new = successor(build(1))?;
        wait_succession(&owner, &new)?;
        ensure!(is_on_lo(&new, VIPS[0])? && is_on_lo(&new, VIPS[1])?);
        let log = new.log();
        let silence = log.split_whitespace().find(|word| word.starts_with("silence_us="));
        println!("{interval:?}: {}", silence.unwrap_or_default());
        owner = new;
    }
    std::thread::sleep(interval * 4);
    nothing_was_lost(load)?;
    let adverts = wire.frames(|frame| frame.at >= begun && frame.advert().is_some());
    let others = adverts.iter().filter(|frame| !frame.is_from(lab.node(1)));
    ensure!(others.count() == 0, "somebody else took over");
    let said: Vec<_> = adverts.iter().filter_map(|frame| frame.advert()).collect();
    ensure!(said.iter().all(|advert| advert.priority == 200), "somebody resigned: {said:?}");
    let last = said.last().map(|advert| advert.interval_cs);
    ensure!(last == Some(u16::try_from(interval.as_millis() / 10)?), "{last:?}");
    ensure!(life(&owner)? == before, "{:?} was {before:?}", life(&owner)?);
    ensure!(life(&second)? == watching, "the other node moved");
    Ok(())
}

fn an_owner_with_1_s_adverts_is_upgraded_and_nobody_notices() -> Result<()> {
    owner_is_upgraded(ms(1000), times(2, 20))
}

fn an_owner_with_100_ms_adverts_is_upgraded_and_nobody_notices() -> Result<()> {
    owner_is_upgraded(ms(100), times(2, 20))
}

fn a_backup_is_upgraded_and_knows_its_owner() -> Result<()> {
    let lab = lab().build()?;
    let build = |number| agent(&lab, number).preempt(false);
    let [first, second] = pair(build(1), build(2))?;
    let (owning, watching) = (life(&first)?, life(&second)?);
    let new = successor(build(2))?;
    wait_succession(&second, &new)?;
    ensure!(life(&new)? == watching && life(&first)? == owning, "somebody moved");
    first.crash()?;
    new.wait_state("active", SOON)?;
    ensure!(new.edge()?.last_takeover.is_some_and(|takeover| takeover.cause == "timeout"));
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node2");
    Ok(())
}

fn version_2_is_upgraded_within_its_lease_and_nothing_moves() -> Result<()> {
    let lab = lab().vips(["10.0.0.50"]).build()?;
    let build = |number| agent(&lab, number).interval(ms(1000)).set_instance("version", json!(2));
    let [first, second] = pair(build(1), build(2))?;
    let (before, watching) = (life(&first)?, life(&second)?);
    let load = load(&lab, ms(5))?;
    let new = successor(build(1))?;
    wait_succession(&first, &new)?;
    std::thread::sleep(ms(1500));
    nothing_was_lost(load)?;
    ensure!(life(&new)? == before && life(&second)? == watching, "somebody moved");
    Ok(())
}

fn keepalived_learns_the_longer_interval_and_stays_backup() -> Result<()> {
    let lab = lab().vips(["10.0.0.50"]).build()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let peer = lab.keepalived(2).interval(ms(100)).priority(100).start()?;
    peer.wait_state("BACKUP", SOON)?;
    // Ten times what it waits for by our own interval; less than by the longer one.
    let fake = fake(&lab, "take_over yield", ms(1500))?;
    let wire = lab.wire()?;
    let silent = Stamp::now();
    fake.wait(SOON)?;
    first.process().wait_log("this one goes on", SOON)?;
    std::thread::sleep(ms(300));
    let others = wire.frames(|frame| frame.advert().is_some() && frame.is_from(lab.node(2)));
    ensure!(others.is_empty(), "keepalived took over");
    let spoke = wire.wait_first(silent, SOON, |frame| frame.advert().is_some())?;
    ensure!(spoke.at - silent > ms(500), "it was not silent");
    let new = successor(agent(&lab, 1))?;
    wait_succession(&first, &new)?;
    ensure!(wire.frames(|frame| frame.advert().is_some() && frame.is_from(lab.node(2))).is_empty());
    ensure!(peer.complaints().is_empty(), "{:?}", peer.complaints());
    Ok(())
}

fn a_successor_that_dies_gives_everything_back() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let (before, watching) = (life(&first)?, life(&second)?);
    let load = load(&lab, ms(5))?;
    let idle = fake(&lab, "take_over", ms(500))?;
    ensure!(first.say(&["reload"])?.err.contains("is taking over"), "a reload in between");
    idle.wait(SOON)?;
    first.process().wait_log("this one goes on as ever", SOON)?;
    first.say(&["reload"])?.ok()?;
    fake(&lab, "take_over yield", ms(400))?.wait(SOON)?;
    first.process().wait_log("did not take over, and this one goes on", SOON)?;
    nothing_was_lost(load)?;
    ensure!(life(&first)? == before && life(&second)? == watching, "somebody moved");
    // And it can still be succeeded.
    wait_succession(&first, &successor(agent(&lab, 1))?)?;
    Ok(())
}

fn a_successor_that_hangs_is_killed_before_the_lease_ends() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let (before, watching) = (life(&first)?, life(&second)?);
    let load = load(&lab, ms(5))?;
    let fake = fake(&lab, "take_over yield", ms(60_000))?;
    first.process().wait_log("this one goes on", SOON)?;
    ensure!(!fake.wait(SOON)?.success());
    std::thread::sleep(ms(500));
    nothing_was_lost(load)?;
    ensure!(life(&first)? == before && life(&second)? == watching, "somebody moved");
    Ok(())
}

fn if_both_die_at_the_worst_moment_peers_take_over_when_the_longer_lease_has_ended() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let wire = lab.wire()?;
    let fake = fake(&lab, "take_over yield", ms(60_000))?;
    first.crash()?;
    fake.kill()?;
    second.wait_state("active", SOON)?;
    let adverts = |number| wire.adverts(lab.node(number));
    let (last, advert) = adverts(1).pop().context("no advert")?;
    ensure!(advert.interval_cs == 100 && advert.priority == 200, "{advert:?}");
    let (taken, _) = adverts(2).into_iter().next().context("no advert of the heir")?;
    ensure!((ms(3000)..ms(4500)).contains(&(taken - last)), "after {:?}", taken - last);
    Ok(())
}

fn a_sync_group_with_signed_adverts_is_upgraded_and_believed() -> Result<()> {
    let lab = lab().build()?;
    let build = |number: usize| -> Result<AgentBuilder> {
        let node = lab.node(number);
        node.write_file(KEY_FILE, "5e".repeat(32))?;
        node.command("chmod").args(["600", KEY_FILE]).read()?;
        let trailer = json!({"key_file": KEY_FILE});
        let other = json!({"name": "other", "virtual_router_id": 52, "interface": "eth0",
                           "priority": 210 - 10 * number, "advert_interval": "100ms", "vips": ["10.0.0.60/24"],
                           "sync_group": "both", "auth_trailer": trailer, "virtual_mac": true});
        let edge = agent(&lab, number).set_instance("sync_group", json!("both"));
        Ok(edge.set_instance("auth_trailer", trailer).instance(other))
    };
    let [first, second] = pair(build(1)?, build(2)?)?;
    let watching = second.status()?.raw["instances"].clone();
    let load = load(&lab, ms(5))?;
    fake(&lab, "take_over yield", ms(300))?.wait(SOON)?;
    first.process().wait_log("did not take over, and this one goes on", SOON)?;
    let new = successor(build(1)?)?;
    wait_succession(&first, &new)?;
    std::thread::sleep(ms(500));
    nothing_was_lost(load)?;
    ensure!(Conversation::open(lab.client(), "10.0.0.60")?.ask()? == "node1");
    let now = second.status()?.raw["instances"].clone();
    for index in 0..2 {
        ensure!(now[index]["since"] == watching[index]["since"], "{now}");
        ensure!(now[index]["adverts"]["discarded"] == watching[index]["adverts"]["discarded"], "{now}");
    }
    Ok(())
}

fn a_better_router_that_came_meanwhile_gets_the_vips() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let fake = fake(&lab, "take_over yield", ms(700))?;
    second.reload(&agent(&lab, 2).priority(220))?;
    second.wait_state("active", SOON)?;
    fake.wait(SOON)?;
    first.wait_state("backup", SOON)?;
    ensure!(second.edge()?.state == "active");
    // An agent that really takes over hears of it as well.
    let new = successor(agent(&lab, 1))?;
    wait_succession(&first, &new)?;
    ensure!(new.edge()?.state == "backup");
    Ok(())
}

fn what_cannot_be_taken_over_is_refused_with_a_remedy_and_the_old_agent_goes_on() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let before = life(&first)?;
    let refused = |changed: AgentBuilder, why: &str| -> Result<()> {
        let new = successor(changed)?;
        let ended = new.wait(SOON)?;
        ensure!(ended.code() == Some(1) && new.log().contains(why), "{why}: {ended}\n{}", new.log());
        ensure!(life(&first)? == before, "the old one was touched: {why}");
        Ok(())
    };
    refused(agent(&lab, 1).yaml("flavour: vanilla\n"), "flavour")?;
    refused(agent(&lab, 1).set_instance("interface", json!("eth7")), "eth7")?;
    if times(0, 1) == 1 {
        refused(agent(&lab, 1).set("pin_dir", json!("/sys/fs/bpf/elsewhere")), "pin_dir")?;
        refused(agent(&lab, 1).set("xdp_mode", json!("driver")), "xdp_mode")?;
    }
    // What a reload has read of them does not hold before the next start.
    let elsewhere = agent(&lab, 1).set("pin_dir", json!("/sys/fs/bpf/elsewhere"));
    first.reload(&elsewhere)?;
    refused(elsewhere, "pin_dir was changed since this agent started")?;
    first.reload(&agent(&lab, 1))?;
    let another = fake(&lab, "take_over", ms(60_000))?;
    refused(agent(&lab, 1), "is taking over")?;
    another.kill()?;
    // One of another version.
    let answer = lab.node(1).run(|| -> Result<String> {
        let mut stream = UnixStream::connect(CONTROL)?;
        stream.write_all(b"{\"command\":\"take_over\",\"protocol\":77}\n")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        Ok(line)
    })?;
    ensure!(answer.contains("by protocol 1, not 77: stop it"), "{answer}");
    let last_good = lab.node(1).read_file("/var/lib/viplane/last-good.yaml")?;
    ensure!(last_good.ends_with(&agent(&lab, 1).config()?), "{last_good}");
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node1");
    Ok(())
}

fn another_configuration_is_applied_by_difference() -> Result<()> {
    let lab = lab().build()?;
    let other = |vrid: u8, vip: &str| {
        json!({"name": format!("other{vrid}"), "virtual_router_id": vrid, "interface": "eth0", "priority": 200,
               "advert_interval": "100ms", "vips": [format!("{vip}/24")]})
    };
    let first = agent(&lab, 1).instance(other(52, "10.0.0.60")).start()?;
    first.wait_state("active", SOON)?;
    let before = life(&first)?;
    let load = load(&lab, ms(5))?;
    let new = successor(agent(&lab, 1).instance(other(53, "10.0.0.61")))?;
    wait_succession(&first, &new)?;
    let status = new.wait_state("active", SOON)?;
    let names: Vec<&str> = status.instances.iter().map(|instance| instance.name.as_str()).collect();
    ensure!(names == ["edge", "other53"], "{names:?}");
    ensure!(Conversation::open(lab.client(), "10.0.0.61")?.ask()? == "node1");
    ensure!(Conversation::open(lab.client(), "10.0.0.60").is_err(), "it is still answered for");
    nothing_was_lost(load)?;
    ensure!(life(&new)? == before, "edge was touched");
    // It leaves nothing behind, though it has not put everything there itself.
    new.signal(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(new.wait(SOON)?.success(), "{}", new.log());
    let left = lab.node(1).ip("-o address show dev lo")?;
    ensure!(!left.contains("10.0.0.5") && !left.contains("10.0.0.6"), "{left}");
    ensure!(lab.node(1).sysctl("net.ipv4.conf.eth0.arp_ignore")? == "0");
    ensure!(!lab.node(1).ip("-d link show eth0")?.contains("xdp"), "the program is still on eth0");
    Ok(())
}

fn without_an_agent_it_is_an_ordinary_start() -> Result<()> {
    let lab = lab().build()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    first.crash()?;
    let new = successor(agent(&lab, 1))?;
    new.wait_state("active", SOON)?;
    ensure!(
        new.log().contains("no agent listens at /run/viplane/agent.sock: an ordinary start"),
        "{}",
        new.log()
    );
    Ok(())
}

fn fast_detection_takes_no_upgrade_for_a_death() -> Result<()> {
    let lab = lab().build()?;
    let build = |number| {
        let detect = json!({"interval": "20ms", "multiplier": 3});
        agent(&lab, number).preempt(false).set_instance("detect", detect)
    };
    let [first, second] = pair(build(1), build(2))?;
    let covered = |status: &Value| status["instances"][0]["peers"][0]["detect"]["last_ms"].is_number();
    second.wait_for("watching its owner", covered)?;
    let watching = life(&second)?;
    let new = successor(build(1))?;
    wait_succession(&first, &new)?;
    second.wait_for("watching its new owner", covered)?;
    ensure!(life(&second)? == watching, "the other node moved");
    // What watches is the new one.
    new.crash()?;
    second.wait_state("active", SOON)?;
    Ok(())
}

fn the_service_manager_is_told_who_the_service_is_now() -> Result<()> {
    let lab = lab().nodes(1).build()?;
    let path = lab.node(1).file_path("notify");
    let socket = path.clone();
    let manager = lab.node(1).run(move || UnixDatagram::bind(socket))?;
    manager.set_read_timeout(Some(SOON))?;
    let next = || -> Result<String> {
        let mut message = [0; 256];
        loop {
            let length = manager.recv(&mut message).context("the service manager hears nothing")?;
            let said = String::from_utf8(message[..length].to_vec())?;
            if said != "WATCHDOG=1" {
                return Ok(said);
            }
        }
    };
    let first = agent(&lab, 1)
        .env("NOTIFY_SOCKET", &path.to_string_lossy())
        .env("WATCHDOG_USEC", "1000000")
        .start()?;
    first.wait_state("active", SOON)?;
    ensure!(next()? == "READY=1");
    // Not started by it, and told nothing of it.
    let same = first.say(&["upgrade"])?.ok()?;
    ensure!(same.out.contains("nothing to do"), "{same:?}");
    let copy = tempfile::Builder::new()
        .prefix("vip-agent")
        .tempfile_in(env!("CARGO_TARGET_TMPDIR"))?
        .into_temp_path();
    // By another process: what this one has open to write, a child of another thread may still hold when it is run (ETXTBSY).
    let copied =
        std::process::Command::new("cp").arg("--preserve=mode").arg(agents::binary()).arg(&copy).status()?;
    ensure!(copied.success(), "cp: {copied}");
    let config = first.builder().config_path();
    // The new agent keeps its standard error, so that is not waited for.
    let upgrading =
        lab.node(1).command(&copy).arg("upgrade").arg("--config").arg(&config).spawn("upgrade")?;
    ensure!(upgrading.wait(SOON)?.success(), "{}", upgrading.log());
    let pid = first.status()?.raw["pid"].as_i64().context("no pid")?;
    ensure!(pid != i64::from(first.process().pid().as_raw()));
    let told = [next()?, next()?];
    ensure!(told == [format!("MAINPID={pid}"), "READY=1".to_owned()], "{told:?}");
    let mut message = [0; 256];
    let length = manager.recv(&mut message).context("the watchdog is not fed")?;
    ensure!(&message[..length] == b"WATCHDOG=1");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    wait::until(SOON, || first.status().is_err())
}

type Play = fn() -> Result<()>;

/// Plays these at once, each in a lab of its own: what they do most is wait.
fn at_once(plays: &[(&str, Play)]) -> Result<()> {
    std::thread::scope(|scope| {
        let plays: Vec<_> = plays.iter().map(|(name, play)| (name, scope.spawn(play))).collect();
        let mut failures = Vec::new();
        for (name, play) in plays {
            match play.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(format!("{name}: {error:?}")),
                Err(_) => failures.push(format!("{name}: panicked")),
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    })
}

macro_rules! at_once {
    ($($play:ident)*) => { at_once(&[$((stringify!($play), $play)),*]) };
}

#[test]
fn whatever_an_agent_is_it_is_upgraded_and_nobody_notices() -> Result<()> {
    at_once! {
        an_owner_with_1_s_adverts_is_upgraded_and_nobody_notices
        an_owner_with_100_ms_adverts_is_upgraded_and_nobody_notices
        version_2_is_upgraded_within_its_lease_and_nothing_moves
        a_backup_is_upgraded_and_knows_its_owner
    }
}

#[test]
fn whatever_belongs_to_an_instance_goes_along() -> Result<()> {
    at_once! {
        a_sync_group_with_signed_adverts_is_upgraded_and_believed
        fast_detection_takes_no_upgrade_for_a_death
        another_configuration_is_applied_by_difference
        the_service_manager_is_told_who_the_service_is_now
    }
}

#[test]
fn what_comes_in_between_costs_no_request() -> Result<()> {
    at_once! {
        a_successor_that_dies_gives_everything_back
        a_successor_that_hangs_is_killed_before_the_lease_ends
        if_both_die_at_the_worst_moment_peers_take_over_when_the_longer_lease_has_ended
        a_better_router_that_came_meanwhile_gets_the_vips
    }
}

#[test]
fn what_is_not_as_usual_is_found_beforehand() -> Result<()> {
    at_once! {
        keepalived_learns_the_longer_interval_and_stays_backup
        what_cannot_be_taken_over_is_refused_with_a_remedy_and_the_old_agent_goes_on
        without_an_agent_it_is_an_ordinary_start
    }
}
