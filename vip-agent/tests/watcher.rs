//! An agent that dies alone: its watcher silences it and tells the peers, at once and once only.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/watch.rs"]
mod watch;

use std::fs;
use std::path::Path;
use std::time::Duration;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, ms, pair, times};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rounds::{Failure, lab, start_again, stays};
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::stats::Sample;
use vip_lab::wire::{Frame, Wire};
use vip_lab::{Lab, Node, Stamp, wait};
use watch::Watch;

// === the agent alone dies ===

/// The peers are told: they need not wait for Active_Down.
fn the_agent_dies(
    rounds: usize,
    builder: impl Fn(&Lab, usize) -> AgentBuilder,
    fail: impl Fn(&Agent) -> Result<()>,
) -> Result<()> {
    rounds::the_owner_fails(
        rounds,
        Failure { builder, fail, bring_back: start_again, cause: "priority_zero" },
    )
}

fn die_of(signal: Signal) -> impl Fn(&Agent) -> Result<()> {
    move |agent| {
        agent.signal(signal)?;
        let status = agent.wait(SOON)?;
        use std::os::unix::process::ExitStatusExt as _;
        ensure!(status.signal() == Some(signal as i32), "{status}, not by {signal}\n{}", agent.log());
        Ok(())
    }
}

#[test]
fn the_heir_of_a_killed_agent_with_pinned_maps_is_told_and_at_no_instant_two_answer() -> Result<()> {
    the_agent_dies(times(8, 50), stays, Agent::kill)
}

#[test]
fn the_heir_of_a_killed_agent_without_pins_is_told_and_at_no_instant_two_answer() -> Result<()> {
    the_agent_dies(times(8, 50), |lab, number| stays(lab, number).unpinned(), Agent::kill)
}

#[test]
fn the_heir_of_a_killed_unicast_agent_is_told() -> Result<()> {
    let unicast = |lab: &Lab, number| stays(lab, number).vips([VIPS[0]]).unicast();
    let lab = lab()?;
    let [first, second] = pair(unicast(&lab, 1), unicast(&lab, 2))?;
    first.wait_watcher(SOON)?;
    first.kill()?;
    second.wait_state("active", SOON)?;
    let takeover = second.edge()?.last_takeover.map(|takeover| takeover.cause);
    ensure!(takeover.as_deref() == Some("priority_zero"), "{takeover:?}");
    Ok(())
}

#[test]
fn the_heir_of_an_agent_that_crashes_is_told() -> Result<()> {
    for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT] {
        the_agent_dies(times(1, 10), stays, die_of(signal)).with_context(|| signal.to_string())?;
    }
    Ok(())
}

/// The kernel keeps threads, locks and descriptors of a process until its dump is written; the peers are told before.
#[test]
fn the_heir_of_an_agent_that_dumps_core_is_told_before_the_dump_is_complete() -> Result<()> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    if pattern.starts_with(['|', '/']) {
        println!("not tested: this host's core files go elsewhere: {pattern}");
        return Ok(());
    }
    let lab = lab()?;
    for signal in [Signal::SIGSEGV, Signal::SIGABRT] {
        let script = r#"cd /run/lab && ulimit -c unlimited && exec "$0" "$@""#;
        let first = stays(&lab, 1).under(["sh", "-c", script]).start()?;
        first.wait_state("active", SOON)?;
        first.wait_watcher(SOON)?;
        // All of its memory, program included: so that the dump takes far longer than the tick of file times.
        fs::write(format!("/proc/{}/coredump_filter", first.process().pid()), "0x7f")?;
        let wire = lab.wire()?;
        let dies = Stamp::now();
        die_of(signal)(&first)?;
        let zero = wire.wait_first(dies, SOON, |frame| is_zero_of(frame, lab.node(1)))?;
        let dumped = lab.node(1).run(|| -> Result<_> {
            let core = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("core");
            let core = fs::read_dir("/run/lab")?.flatten().find(core).context("no core was dumped")?;
            let (written, size) = (core.metadata()?.modified()?, core.metadata()?.len());
            fs::remove_file(core.path())?;
            Ok((written.duration_since(std::time::UNIX_EPOCH)?, size))
        })?;
        let (told, dumped, size) = (zero.at - Stamp::from_nanos(0), dumped.0, dumped.1);
        println!("{signal}: {size} bytes dumped {:?} after the peers were told", dumped.saturating_sub(told));
        ensure!(told < dumped, "{signal}: told at {told:?}, the dump was complete at {dumped:?}");
    }
    Ok(())
}

fn is_zero_of(frame: &Frame, node: &Node) -> bool {
    frame.is_from(node) && frame.advert().is_some_and(|advert| advert.priority == 0)
}

fn zeros_of(wire: &Wire, node: &Node) -> Vec<Frame> {
    wire.frames(|frame| is_zero_of(frame, node))
}

/// DEADLINES of the program that is pinned on a node, by slot.
fn deadlines(node: &Node) -> Result<Vec<u64>> {
    let pins = node.run(|| -> Result<Option<std::path::PathBuf>> {
        let layouts = fs::read_dir("/sys/fs/bpf/viplane")?;
        Ok(layouts.flatten().map(|entry| entry.path().join("maps/DEADLINES")).find(|path| path.exists()))
    })?;
    let pin = pins.context("no pinned DEADLINES")?;
    let dump = node.command("bpftool").args(["-j", "map", "dump", "pinned"]).arg(pin).read()?;
    let entries: Vec<Value> = serde_json::from_str(&dump)?;
    let byte = |byte: &Value| u8::from_str_radix(byte.as_str()?.trim_start_matches("0x"), 16).ok();
    let word = |entry: &Value| {
        let bytes: Option<Vec<u8>> = entry["value"].as_array()?.iter().map(byte).collect();
        Some(u64::from_ne_bytes(bytes?.try_into().ok()?))
    };
    entries.iter().map(|entry| word(entry).with_context(|| format!("no word in {entry}"))).collect()
}

#[test]
fn every_family_says_priority_0_twice_and_every_word_is_zero() -> Result<()> {
    let lab = lab()?;
    let other = json!({"name": "other", "virtual_router_id": 52, "interface": "eth0", "priority": 210,
        "advert_interval": "1s", "vips": ["10.0.0.60/24"]});
    let owner = stays(&lab, 1).interval(ms(1000)).instance(other).start()?;
    owner.wait_state("active", SOON)?;
    owner.wait_watcher(SOON)?;
    ensure!(deadlines(lab.node(1))?.iter().filter(|word| **word != 0).count() == 2, "two own");
    let wire = lab.wire()?;
    owner.kill()?;
    // Before the lease of a second's interval ends by itself.
    wait::until(ms(500), || deadlines(lab.node(1)).is_ok_and(|words| words.iter().all(|word| *word == 0)))
        .context("words are not zeroed")?;
    wait::until(SOON, || zeros_of(&wire, lab.node(1)).len() >= 6)?;
    std::thread::sleep(ms(50));
    let zeros = zeros_of(&wire, lab.node(1));
    let mut said: Vec<(u8, bool)> =
        zeros.iter().filter_map(Frame::advert).map(|advert| (advert.vrid, advert.source.is_ipv4())).collect();
    said.sort_unstable();
    ensure!(said == [(51, false), (51, false), (51, true), (51, true), (52, true), (52, true)], "{said:?}");
    // The same frames that a farewell of its own would have had.
    let golden =
        zeros.iter().filter_map(Frame::advert).all(|advert| advert.hop_limit == 255 && advert.version == 3);
    ensure!(golden, "{zeros:#?}");
    ensure!(
        owner.log().contains("died without a word: silenced edge other; priority 0 sent 6 times"),
        "{}",
        owner.log()
    );
    Ok(())
}

#[test]
fn the_time_from_death_to_priority_0() -> Result<()> {
    let lab = lab()?;
    let wire = lab.wire()?;
    let mut owner = stays(&lab, 1).start()?;
    let (mut to_word, mut to_end) = (Vec::new(), Vec::new());
    for _ in 0..times(8, 50) {
        owner.wait_state("active", SOON)?;
        owner.wait_watcher(SOON)?;
        let dies = Stamp::now();
        owner.kill()?;
        to_end.push((Stamp::now() - dies).as_secs_f64() * 1e6);
        let zero = wire.wait_first(dies, SOON, |frame| is_zero_of(frame, lab.node(1)));
        let zero = zero.with_context(|| owner.log())?;
        to_word.push((zero.at - dies).as_secs_f64() * 1e6);
        owner = owner.builder().start()?;
    }
    let figures = |values: Vec<f64>| {
        let sample: Sample = values.into_iter().collect();
        let of = |part| sample.quantile(part).unwrap_or_default();
        format!("p50 {:.0} us, p99 {:.0} us, max {:.0} us", of(0.5), of(0.99), of(1.0))
    };
    let deaths = to_word.len();
    println!("{deaths} deaths; to priority 0 on the wire: {}", figures(to_word));
    println!("to the end of the process, when a pidfd would fire: {}", figures(to_end));
    Ok(())
}

#[test]
fn requests_in_flight_survive_the_agents_death() -> Result<()> {
    let lab = agents::lab().build()?;
    let [first, second] = pair(agent(&lab, 1).preempt(false), agent(&lab, 2).preempt(false))?;
    first.wait_watcher(SOON)?;
    let mut open: Vec<Conversation> =
        VIPS.iter().map(|vip| Conversation::open(lab.client(), vip)).collect::<Result<_>>()?;
    for conversation in &mut open {
        ensure!(conversation.ask()? == "node1");
    }
    first.kill()?;
    second.wait_state("active", SOON)?;
    // The web server of the dead agent's host lives, and the new owner hands over what it does not know.
    for conversation in &mut open {
        ensure!(conversation.ask()? == "node1");
    }
    for vip in VIPS {
        ensure!(Conversation::open(lab.client(), vip)?.ask()? == "node2");
    }
    Ok(())
}

// === the agent does not die, or not alone ===

#[test]
fn a_stopped_agent_is_not_dead_and_one_killed_later_is_only_silent() -> Result<()> {
    let lab = lab()?;
    let [first, second] = pair(stays(&lab, 1), stays(&lab, 2))?;
    let watcher = first.wait_watcher(SOON)?;
    let wire = lab.wire()?;
    first.signal(Signal::SIGSTOP)?;
    second.wait_state("active", SOON)?;
    ensure!(is_alive(watcher), "the watcher of a stopped agent is gone");
    first.kill()?;
    wait::until(SOON, || !is_alive(watcher))?;
    std::thread::sleep(ms(100));
    ensure!(zeros_of(&wire, lab.node(1)).is_empty(), "a former owner said priority 0");
    let status = second.edge()?;
    ensure!(status.state == "active" && status.transitions == 2, "{status:?}");
    Ok(())
}

#[test]
fn where_both_are_killed_nobody_says_a_word() -> Result<()> {
    let lab = lab()?;
    let [first, second] = pair(stays(&lab, 1), stays(&lab, 2))?;
    let watcher = first.wait_watcher(SOON)?;
    let wire = lab.wire()?;
    first.crash()?;
    wait::until(SOON, || !is_alive(watcher))?;
    second.wait_state("active", SOON)?;
    ensure!(zeros_of(&wire, lab.node(1)).is_empty());
    Ok(())
}

/// The kernel kills all of a PID namespace with its first process, so the watcher as well: a race, and whoever wins it, no
/// two answer.
#[test]
fn an_agent_that_is_the_first_process_of_its_container_leaves_nobody_behind() -> Result<()> {
    let container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
    let lab = lab()?;
    let mut told = 0;
    let rounds = times(4, 20);
    let watch = Watch::start(&lab)?;
    let wire = lab.wire()?;
    for _ in 0..rounds {
        let [first, second] = pair(stays(&lab, 1).under(container), stays(&lab, 2))?;
        first.wait_watcher(SOON)?;
        watch.wait_answers_of(lab.node(1), SOON)?;
        let children = format!("/proc/{0}/task/{0}/children", first.process().pid());
        let agent = Pid::from_raw(fs::read_to_string(children)?.trim().parse()?);
        let dies = Stamp::now();
        kill(agent, Signal::SIGKILL)?;
        first.wait(SOON)?;
        watch.wait_answers_of(lab.node(2), SOON)?;
        told += usize::from(wire.first(dies, |frame| is_zero_of(frame, lab.node(1))).is_some());
        second.crash()?;
        std::thread::sleep(ms(300));
    }
    println!("{told} of {rounds} deaths were told");
    watch.finish(&lab).map(drop)
}

#[test]
fn a_backup_that_dies_says_nothing() -> Result<()> {
    let lab = lab()?;
    let [first, second] = pair(stays(&lab, 1), stays(&lab, 2))?;
    let watcher = second.wait_watcher(SOON)?;
    let wire = lab.wire()?;
    second.kill()?;
    wait::until(SOON, || !is_alive(watcher))?;
    std::thread::sleep(ms(200));
    ensure!(zeros_of(&wire, lab.node(2)).is_empty(), "it owned nothing");
    ensure!(first.edge()?.transitions == 2, "the owner was disturbed");
    Ok(())
}

#[test]
fn signals_to_the_whole_group_end_the_agent_in_good_order_and_the_watcher_after_it() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let lab = lab()?;
        let [first, second] = pair(stays(&lab, 1), stays(&lab, 2))?;
        let watcher = first.wait_watcher(SOON)?;
        let wire = lab.wire()?;
        killpg(first.process().pid(), signal)?;
        ensure!(first.wait(SOON)?.success(), "{}", first.log());
        ensure!(!is_alive(watcher), "the watcher outlives a clean exit");
        second.wait_state("active", SOON)?;
        ensure!(zeros_of(&wire, lab.node(1)).len() == 4, "twice for each family, by the agent itself");
        ensure!(!first.log().contains("died"), "{}", first.log());
    }
    Ok(())
}

#[test]
fn an_agent_that_comes_back_at_once_is_not_disturbed_by_its_predecessors_watcher() -> Result<()> {
    let lab = lab()?;
    let wire = lab.wire()?;
    // The address owner: Active as soon as it runs.
    let mut owner = stays(&lab, 1).priority(255).start()?;
    for _ in 0..times(4, 20) {
        owner.wait_state("active", SOON)?;
        let watcher = owner.wait_watcher(SOON)?;
        wire.clear();
        let begin = Stamp::now();
        owner.kill()?;
        owner = owner.builder().start()?;
        owner.wait_state("active", SOON)?;
        // The dead agent sent no regular advert since then, or nothing that matters here: it was before priority 0.
        let zero = wire.wait_first(begin, SOON, |frame| is_zero_of(frame, lab.node(1)))?;
        let back = wire.wait_first(zero.at, SOON, |frame| {
            frame.is_from(lab.node(1)) && frame.advert().is_some_and(|advert| advert.priority > 0)
        })?;
        std::thread::sleep(ms(100));
        let late = zeros_of(&wire, lab.node(1)).iter().filter(|zero| zero.at > back.at).count();
        ensure!(late == 0, "{late} times priority 0 after the new agent's first advert");
        ensure!(!is_alive(watcher));
        let status = owner.edge()?;
        ensure!(status.state == "active" && status.owned && status.transitions == 1, "{status:?}");
    }
    Ok(())
}

/// A shell in the agent's process group that outlives it: otherwise the kernel lets stopped orphans go on at once.
const SHELL: [&str; 3] = ["sh", "-c", r#""$0" "$@" & wait; exec sleep 60"#];

/// Stops the watcher of an agent in a [`SHELL`], and kills the agent.
fn kill_unseen(agent: &Agent) -> Result<Pid> {
    let watcher = agent.wait_watcher(SOON)?;
    stop(watcher)?;
    let pid = agent.status()?.raw["pid"].as_i64().context("status without pid")?;
    let pid = Pid::from_raw(i32::try_from(pid)?);
    kill(pid, Signal::SIGKILL)?;
    // All of its threads, and reaped by the shell: only then are its locks anybody else's.
    wait::until(SOON, || !Path::new(&format!("/proc/{pid}")).exists())?;
    Ok(watcher)
}

#[test]
fn a_watcher_that_comes_after_the_lease_says_nothing() -> Result<()> {
    let lab = lab()?;
    let [first, second] = pair(stays(&lab, 1).under(SHELL), stays(&lab, 2))?;
    let wire = lab.wire()?;
    let watcher = kill_unseen(&first)?;
    second.wait_state("active", SOON)?;
    kill(watcher, Signal::SIGCONT)?;
    wait::until(SOON, || !is_alive(watcher))?;
    std::thread::sleep(ms(100));
    let zeros = zeros_of(&wire, lab.node(1));
    ensure!(zeros.is_empty(), "{} times\n{}", zeros.len(), first.log());
    let status = second.edge()?;
    ensure!(status.state == "active" && status.transitions == 2, "{status:?}");
    Ok(())
}

#[test]
fn a_watcher_that_comes_after_the_next_agent_says_nothing_and_leaves_its_word_alone() -> Result<()> {
    let lab = lab()?;
    let wire = lab.wire()?;
    // The address owner: Active as soon as it runs. The lease of the dead one runs for 30 s.
    let first = stays(&lab, 1).interval(Duration::from_secs(10)).priority(255).under(SHELL).start()?;
    first.wait_state("active", SOON)?;
    let watcher = kill_unseen(&first)?;
    let again = first.builder().start()?;
    again.wait_state("active", SOON)?;
    kill(watcher, Signal::SIGCONT)?;
    wait::until(SOON, || !is_alive(watcher))?;
    std::thread::sleep(ms(100));
    ensure!(zeros_of(&wire, lab.node(1)).is_empty());
    ensure!(
        first.log().contains("sent 0 times, refused 0 times, then another agent was there"),
        "{}",
        first.log()
    );
    let status = again.edge()?;
    ensure!(status.state == "active" && status.owned && status.transitions == 1, "{status:?}");
    Ok(())
}

// === the watcher's own life ===

#[test]
fn a_killed_watcher_is_noticed_and_replaced_and_the_next_one_works() -> Result<()> {
    let lab = lab()?;
    let [first, second] = pair(stays(&lab, 1), stays(&lab, 2))?;
    let watcher = first.wait_watcher(SOON)?;
    kill(watcher, Signal::SIGKILL)?;
    let status = first.wait_for("watched anew", |status| {
        status["watcher"]["starts"] == 2
            && status["watcher"]["pid"].as_i64() != Some(watcher.as_raw().into())
            && status["watcher"]["pid"].is_i64()
    })?;
    ensure!(status["watcher"]["reason"].is_null(), "{status}");
    ensure!(first.log().contains("the watcher is lost"), "{}", first.log());
    // Nothing else moved.
    ensure!(first.edge()?.transitions == 2 && second.edge()?.transitions == 1);
    let wire = lab.wire()?;
    first.kill()?;
    second.wait_state("active", SOON)?;
    ensure!(!zeros_of(&wire, lab.node(1)).is_empty(), "the second watcher said nothing\n{}", first.log());
    Ok(())
}

#[test]
fn watchers_that_keep_dying_are_not_started_in_a_loop() -> Result<()> {
    let lab = lab()?;
    let first = stays(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let begin = Stamp::now();
    while Stamp::now() - begin < Duration::from_secs(4) {
        if let Some(pid) = first.status()?.raw["watcher"]["pid"].as_i64() {
            // It may be gone by now.
            let _ = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL);
        }
        std::thread::sleep(ms(20));
    }
    let status = first.status()?.raw;
    let starts = status["watcher"]["starts"].as_u64().unwrap_or_default();
    ensure!((2..=4).contains(&starts), "{starts} starts in 4 s");
    ensure!(
        status["instances"][0]["state"] == "active" && status["instances"][0]["transitions"] == 2,
        "{status}"
    );
    Ok(())
}

#[test]
fn the_watcher_is_known_by_its_name_and_holds_little() -> Result<()> {
    let lab = lab()?;
    let first = stays(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let watcher = first.wait_watcher(SOON)?;
    let read = |file: &str| fs::read_to_string(format!("/proc/{watcher}/{file}"));
    let line = read("cmdline")?.replace('\0', " ");
    ensure!(line.trim_end() == format!("vip-agent-watcher {}", first.process().pid()), "{line}");
    ensure!(read("comm")?.trim_end() == "vip-agent-watch");
    let status = read("status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    // CAP_IPC_LOCK, bit 14, and nothing else.
    ensure!(field("CapEff:") == "0000000000004000", "{status}");
    ensure!(field("SigBlk:").chars().filter(|digit| *digit == 'f').count() >= 12, "{status}");
    let scheduling = read("sched").unwrap_or_default();
    let policy = scheduling.lines().find(|line| line.starts_with("policy")).unwrap_or("policy : 1");
    ensure!(policy.ends_with(" 1"), "not SCHED_FIFO: {policy}");
    // No program, link or map but the mapped one stays alive with it.
    let kinds: Vec<String> = fs::read_dir(format!("/proc/{watcher}/fd"))?
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    ensure!(kinds.iter().all(|kind| !kind.contains("bpf")), "{kinds:?}");
    ensure!(
        kinds.iter().filter(|kind| kind.starts_with("socket:")).count() == 4,
        "itself twice, two families: {kinds:?}"
    );
    Ok(())
}

#[test]
fn the_watcher_of_an_unpinned_agent_does_not_keep_its_program() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1);
    let first = stays(&lab, 1).unpinned().start()?;
    first.wait_state("active", SOON)?;
    let watcher = first.wait_watcher(SOON)?;
    stop(watcher)?;
    first.kill()?;
    wait::until(SOON, || node.ip("-d link show eth0").is_ok_and(|shown| !shown.contains("xdp")))?;
    kill(watcher, Signal::SIGCONT)?;
    wait::until(SOON, || !is_alive(watcher))
}

#[test]
fn reloaded_and_removed_instances_are_known_to_the_watcher() -> Result<()> {
    let lab = lab()?;
    let other = |vip: &str| {
        json!({"name": "other", "virtual_router_id": 52, "interface": "eth0", "priority": 210,
            "advert_interval": "100ms", "vips": [vip]})
    };
    let [plain, more, changed] = [
        stays(&lab, 1),
        stays(&lab, 1).instance(other("10.0.0.60/24")),
        stays(&lab, 1).instance(other("10.0.0.61/24")),
    ];
    let owner = plain.clone().start()?;
    owner.wait_state("active", SOON)?;
    owner.wait_watcher(SOON)?;
    for builder in [&more, &plain, &more, &changed] {
        owner.reload(builder)?;
        owner.wait_state("active", SOON)?;
    }
    let wire = lab.wire()?;
    owner.kill()?;
    wait::until(SOON, || zeros_of(&wire, lab.node(1)).len() >= 6)?;
    let zeros = zeros_of(&wire, lab.node(1));
    let listed: Vec<_> = zeros
        .iter()
        .filter_map(Frame::advert)
        .filter(|advert| advert.vrid == 52)
        .flat_map(|advert| advert.addresses.clone())
        .collect();
    ensure!(listed == vec!["10.0.0.61".parse::<std::net::IpAddr>()?; 2], "{listed:?}");
    Ok(())
}

/// Stops all of a process's threads. They do not stop at once.
fn stop(pid: Pid) -> Result<()> {
    kill(pid, Signal::SIGSTOP)?;
    wait::until(SOON, || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads.into_iter().all(|thread| state(&thread.path()) == Some('T'))
    })
}

/// Not yet reaped counts as alive no longer.
fn is_alive(pid: Pid) -> bool {
    state(format!("/proc/{pid}").as_ref()).is_some_and(|state| state != 'Z')
}

/// Its letter in proc(5), by its directory there.
fn state(process: &Path) -> Option<char> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}
