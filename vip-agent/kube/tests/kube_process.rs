//! The program, started as vip-agent starts it: what it may do, what it says, and when it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use vip_kube_protocol::{Kubernetes, Order, PROTOCOL, Report, Steering, Telling, View, encode};

fn command(protocol: &str, agent: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vip-kube"));
    command.args(["--protocol", protocol, "--agent", agent]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One that this process is the agent of.
fn own() -> Command {
    command(&PROTOCOL.to_string(), &std::process::id().to_string())
}

/// To follow a cluster whose API server is not there.
fn order(kubeconfig: &str) -> Vec<u8> {
    encode(&Order {
        revision: 5,
        node: "node1".to_owned(),
        kubernetes: Kubernetes { kubeconfig: Some(kubeconfig.into()), ..Kubernetes::default() },
        taken_ids: [].into(),
        taken_vips: [].into(),
        steering: Steering::Off,
        active: [].into(),
    })
    .expect("a short order")
}

/// Waits until it says what keeps it from following.
fn trouble(child: &mut Child) -> View {
    let said = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
    said.map(|line| serde_json::from_str(&line.expect("text")).expect("a report"))
        .find_map(|report| match report {
            Report::View(view) if !view.troubles.is_empty() => Some(view),
            Report::View(_) | Report::Alive => None,
        })
        .expect("it says what is wrong")
}

/// Started, and ordered to follow what it cannot.
fn started() -> (Child, ChildStdin) {
    let mut child = own().spawn().expect("the program is there");
    let mut orders = child.stdin.take().expect("a pipe");
    orders.write_all(&order("/nowhere/kubeconfig")).expect("it reads");
    (child, orders)
}

fn last_words(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("it is ours");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn it_says_what_keeps_it_from_following_and_knows_nothing_then() {
    let (mut child, orders) = started();
    let view = trouble(&mut child);
    assert_eq!((view.revision, view.in_sync, view.telling), (5, false, Telling::Nothing));
    assert!(view.troubles.first().unwrap().contains("/nowhere/kubeconfig"), "{:?}", view.troubles);
    drop(orders);
    assert_eq!(last_words(child).0, Some(0), "the end of its orders is its own");
}

#[test]
fn it_has_no_capability_and_gets_none() {
    let (mut child, orders) = started();
    trouble(&mut child);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let value = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().last().unwrap().trim_start_matches('0').to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(value(set), "", "{set}");
    }
    assert_eq!(value("NoNewPrivs:"), "1");
    drop(orders);
    child.wait().unwrap();
}

#[test]
fn it_dies_with_whoever_started_it_though_its_pipes_stay_open() {
    // To the kernel its parent is the thread.
    let (mut child, _orders) = thread::spawn(|| {
        let (mut child, orders) = started();
        trouble(&mut child);
        (child, orders)
    })
    .join()
    .unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn who_speaks_otherwise_is_told_so() {
    let (ours, own) = (PROTOCOL.to_string(), std::process::id().to_string());
    for (protocol, agent, expected) in [
        ("0", own.as_str(), "speaks protocol 2 and the agent 0"),
        (ours.as_str(), "1", "the agent that started this is gone"),
    ] {
        let (code, words) = last_words(command(protocol, agent).spawn().unwrap());
        assert!(code == Some(1) && words.contains(expected), "{code:?}: {words}");
    }
    let (child, mut orders) = started();
    orders.write_all(b"{\"revision\": 6, \"moons\": 2}\n").unwrap();
    let (code, words) = last_words(child);
    assert!(code == Some(1) && words.contains("the agent's orders"), "{code:?}: {words}");
}

#[test]
fn by_hand_it_is_of_no_use_and_says_so() {
    let mut command = own();
    command.stdin(Stdio::null());
    let (code, words) = last_words(command.spawn().unwrap());
    assert!(code == Some(1) && words.contains("is started by vip-agent"), "{code:?}: {words}");
}
