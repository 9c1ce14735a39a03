//! The demo itself, played short: what it shows, writes and returns.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The agent of this build: `cargo build --package vip-agent` makes it, and so does `cargo xtask test`.
fn agent() -> Result<PathBuf> {
    let agent = Path::new(env!("CARGO_BIN_EXE_vip-demo")).with_file_name("vip-agent");
    ensure!(agent.is_file(), "there is no {}: run `cargo build --package vip-agent`", agent.display());
    Ok(agent)
}

fn demo(out: &Path, options: &[&str]) -> Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vip-demo"));
    command.arg("--agent").arg(agent()?).arg("--out").arg(out).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What the keys of each event are: scripts rely on them.
const EVENT_KEYS: [&str; 23] = [
    "announce_us",
    "at_ms",
    "decide_us",
    "detect_us",
    "did",
    "double_answers",
    "event_to_announcement_ms",
    "event_to_answer_ms",
    "failures",
    "flip_us",
    "foreign_answers",
    "from",
    "gap_limit_ms",
    "gap_ms",
    "kind",
    "last_advert_to_announcement_ms",
    "lost",
    "lost_limit",
    "overlap_limit_ms",
    "overlap_ms",
    "requests",
    "round",
    "to",
];

#[test]
fn every_event_moves_the_vip_and_is_told_in_table_data_and_picture() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = demo(folder.path(), &["--quick"])?.output()?;
    let said = said(&output);
    ensure!(output.status.success(), "{said}");
    ensure!(said.contains("ok: 4 moves") && said.contains("kill -9 node1  node1 -> node2"), "{said}");
    ensure!(!said.contains('\x1b'), "escapes where there is no terminal: {said:?}");

    let run: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("demo.json"))?)?;
    ensure!(
        run["schema"] == 1 && run["ok"] == true && run["failures"] == Value::Array(Vec::new()),
        "{run:#}"
    );
    let events = run["events"].as_array().context("events")?;
    let moves: Vec<[&str; 3]> = events
        .iter()
        .map(|event| ["kind", "from", "to"].map(|key| event[key].as_str().unwrap_or("?")))
        .collect();
    assert_eq!(
        moves,
        [
            ["crash", "node1", "node2"],
            ["drain", "node2", "node3"],
            ["link_cut", "node3", "node2"],
            ["return", "node2", "node1"],
        ]
    );
    for event in events {
        let keys: Vec<&String> = event.as_object().context("an event")?.keys().collect();
        assert_eq!(keys, EVENT_KEYS);
        ensure!(event["detect_us"].is_number() && event["event_to_answer_ms"].is_number(), "{event:#}");
    }
    for planned in [1, 3] {
        ensure!(events[planned]["lost"] == 0, "{:#}", events[planned]);
    }
    ensure!(
        run["client"]["requests"].as_u64().is_some_and(|requests| requests > 1000),
        "{:#}",
        run["client"]
    );

    let picture = fs::read_to_string(folder.path().join("timeline.svg"))?;
    let parsed = roxmltree::Document::parse(&picture)?;
    let texts: Vec<&str> = parsed.descendants().filter_map(|node| node.text()).collect();
    for title in ["kill -9 node1", "drain node2", "cut node3", "node1 returns", "client"] {
        ensure!(texts.contains(&title), "the picture has no {title:?}");
    }
    Ok(())
}

#[test]
fn an_agent_that_does_not_work_fails_the_demo_with_its_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broken = folder.path().join("broken");
    fs::copy("/bin/false", &broken)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_vip-demo"));
    let output = command.arg("--agent").arg(&broken).arg("--out").arg(folder.path()).output()?;
    ensure!(output.status.code() == Some(1), "{}", said(&output));
    ensure!(said(&output).contains("error: logs: "), "{}", said(&output));
    Ok(())
}

/// Processes whose parent, or parent's parent and so on, is `ancestor`.
fn descendants(ancestor: u32) -> Vec<Pid> {
    let children = |parent: u32| -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    };
    let own = children(ancestor);
    own.iter()
        .map(|&pid| Pid::from_raw(pid.cast_signed()))
        .chain(own.iter().flat_map(|&pid| descendants(pid)))
        .collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        ensure!(Instant::now() < end, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn ctrl_c_ends_it_and_all_that_it_started() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let child: Child = demo(folder.path(), &["--pause", "20s"])?.spawn()?;
    let demo = child.id();
    wait_until("three agents", || descendants(demo).len() >= 3)?;
    let started = descendants(demo);
    kill(Pid::from_raw(demo.cast_signed()), Signal::SIGINT)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.code() == Some(130) && output.status.signal().is_none(), "{:?}", output.status);
    ensure!(said(&output).contains("the lab is gone"), "{}", said(&output));
    ensure!(!folder.path().join("demo.json").exists());
    wait_until("no agents", || started.iter().all(|&pid| kill(pid, None).is_err()))
}
