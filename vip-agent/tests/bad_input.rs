//! What is wrong is named, with its place and a remedy, and nothing is changed.

#[path = "support/agents.rs"]
mod agents;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "support/bpf.rs"]
mod bpf;
#[path = "support/footprint.rs"]
mod footprint;

use std::path::Path;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, binary, lab, ms, pair, say};
use anyhow::{Result, ensure};
use footprint::{changes, footprint};
use nix::sys::signal::Signal;
use serde_json::json;
use vip_lab::Lab;
use vip_lab::agent::AgentBuilder;

/// The agent does not start, says all of `expected`, exits with 1, and nothing is different.
fn refused(builder: AgentBuilder, lab: &Lab, expected: &[&str]) -> Result<()> {
    let before = footprint(lab.node(1))?;
    let agent = builder.start()?;
    let status = agent.wait(SOON)?;
    let log = agent.log();
    ensure!(status.code() == Some(1), "{status}: {log}");
    for expected in expected {
        ensure!(log.contains(expected), "{expected:?} is not in {log}");
    }
    // One clear line, or one for each error; no backtrace.
    ensure!(log.lines().count() <= 6 && !log.contains("panicked"), "{log}");
    let changes = changes(&before, &footprint(lab.node(1))?);
    ensure!(changes.is_empty(), "{changes:#?}\n{log}");
    Ok(())
}

fn one() -> Result<Lab> {
    lab().nodes(2).build()
}

#[test]
fn mistakes_in_the_file_are_named_with_their_place() -> Result<()> {
    let lab = one()?;
    let good = || agent(&lab, 1);
    let place = "/run/lab/agent.yaml:";
    refused(good().yaml("flavour: vanilla\n"), &lab, &[place, ":1: flavour: unknown key"])?;
    refused(
        good().vips([VIPS[0], VIPS[0]]),
        &lab,
        &[place, "instances[0].vips[1]: 10.0.0.50 stands already at instances[0].vips[0]"],
    )?;
    let second =
        json!({"name": "other", "virtual_router_id": 51, "interface": "eth0", "vips": ["10.0.0.60/24"]});
    refused(
        good().instance(second),
        &lab,
        &[place, "instances[1].virtual_router_id: 51 stands already at instances[0]"],
    )?;
    for interval in ["5ms", "41s", "15ms", "0s"] {
        let wrong = good().set_instance("advert_interval", json!(interval));
        refused(wrong, &lab, &[place, "instances[0].advert_interval: must be 10ms to 40.95s"])?;
    }
    refused(good().set_instance("priority", json!(256)), &lab, &[place, "instances[0].priority"])?;
    refused(good().yaml("instances: ]\n"), &lab, &[place])?;
    Ok(())
}

#[test]
fn empty_broken_and_missing_files_are_named() -> Result<()> {
    let lab = one()?;
    let node = lab.node(1);
    let builder = agent(&lab, 1);
    let before = footprint(node)?;
    for (text, expected) in [
        ("", "/run/lab/wrong.yaml:1:1: "),
        ("instances: [", "/run/lab/wrong.yaml:1:"),
        ("\tnode: a\n", "/run/lab/wrong.yaml:1:"),
        ("just words", "/run/lab/wrong.yaml:1:1: "),
        ("node: \u{0}\n", "/run/lab/wrong.yaml:1:"),
    ] {
        node.write_file("/run/lab/wrong.yaml", text)?;
        for command in [&["run", "--config", "/run/lab/wrong.yaml"][..], &["check", "/run/lab/wrong.yaml"]] {
            let said = say(&builder, command)?;
            ensure!(said.code == Some(1) && said.err.starts_with(expected), "{text:?}: {said:?}");
        }
    }
    for command in [&["run", "--config", "/run/lab/none.yaml"][..], &["check", "/run/lab/none.yaml"]] {
        let said = say(&builder, command)?;
        ensure!(said.code == Some(1), "{said:?}");
        ensure!(said.err.contains("/run/lab/none.yaml: cannot be read: No such file"), "{said:?}");
    }
    let said = say(&builder, &["run"])?;
    ensure!(said.code == Some(1) && said.err.contains("/etc/viplane/config.yaml does not exist"), "{said:?}");
    ensure!(changes(&before, &footprint(node)?).is_empty());
    Ok(())
}

#[test]
fn interfaces_and_addresses_that_are_not_there_are_named() -> Result<()> {
    let lab = one()?;
    let good = || agent(&lab, 1);
    let absent = good().set_instance("interface", json!("eth7"));
    refused(absent, &lab, &["instance edge", "no interface fits `eth7`; there are eth0"])?;
    let peers = json!({"source": "10.0.0.99", "peers": ["10.0.0.2"]});
    refused(
        good().vips(["10.0.0.50"]).set_instance("unicast", peers),
        &lab,
        &["instance edge", "unicast.source 10.0.0.99 is no address of eth0, which has 10.0.0.1"],
    )?;
    refused(good().set_instance("interface", json!("lo")), &lab, &["instance edge"])
}

#[test]
fn a_vip_in_no_subnet_is_worth_a_warning_only() -> Result<()> {
    let lab = one()?;
    let odd = agent(&lab, 1).vips(["192.0.2.7", "10.0.0.50"]).start()?;
    odd.wait_state("active", SOON)?;
    ensure!(odd.log().contains("WARN 192.0.2.7 lies in no subnet of eth0"), "{}", odd.log());
    ensure!(!odd.log().contains("10.0.0.50 lies"), "{}", odd.log());
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node1");
    Ok(())
}

#[test]
fn an_occupied_interface_is_refused_with_who_holds_it() -> Result<()> {
    let lab = one()?;
    let program = lab.node(1).run(|| -> Result<_> {
        let mut ebpf = bpf::other_program();
        let id = bpf::pass(&mut ebpf).info()?.id();
        bpf::pass(&mut ebpf).attach("eth0", aya::programs::XdpMode::Skb)?;
        Ok((ebpf, id))
    });
    let (ebpf, id) = program?;
    let holder = format!("(id {id}, skb mode");
    let remedy = format!("pid {}", std::process::id());
    refused(
        agent(&lab, 1),
        &lab,
        &["instance edge: eth0 already runs XDP program `pass`", &holder, &remedy],
    )?;
    drop(ebpf);
    // An unpinned link is detached by a kernel worker, a moment later.
    vip_lab::wait::until(SOON, || {
        lab.node(1).ip("-d link show eth0").is_ok_and(|shown| !shown.contains("xdp"))
    })?;
    let free = agent(&lab, 1).start()?;
    free.wait_state("active", SOON).map(drop)
}

#[test]
fn a_second_agent_is_told_about_the_first() -> Result<()> {
    let lab = one()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let holder = format!("vip-agent (pid {}) runs already on this host", first.process().pid());
    // Over and over: no try may take anything from the first.
    for _ in 0..3 {
        refused(agent(&lab, 1), &lab, &[&holder])?;
        let elsewhere = agent(&lab, 1)
            .set("runtime_dir", json!("/run/other"))
            .set("state_dir", json!("/run/other-state"))
            .set("pin_dir", json!(null));
        refused(elsewhere, &lab, &[&holder])?;
    }
    first.signal(Signal::SIGSTOP)?;
    refused(agent(&lab, 1), &lab, &[&holder])?;
    first.signal(Signal::SIGCONT)?;
    first.wait_state("active", SOON)?;
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node1");
    Ok(())
}

#[test]
fn directories_that_do_not_serve_are_named() -> Result<()> {
    let lab = one()?;
    let good = || agent(&lab, 1);
    let tmpfs = good().set("pin_dir", json!("/run/pins"));
    refused(
        tmpfs,
        &lab,
        &["/run: not on a BPF file system: `mount -t bpf bpf /sys/fs/bpf`, or set `pin_dir: null`"],
    )?;
    let runtime = good().set("runtime_dir", json!("/proc/viplane"));
    refused(runtime, &lab, &["/proc/viplane"])?;
    let state = good().set("state_dir", json!("/proc/viplane"));
    refused(state, &lab, &["/proc/viplane", "state_dir must be a writable directory"])?;
    let control = good().argument("--control").argument("/nowhere/agent.sock");
    refused(control, &lab, &["control socket /nowhere/agent.sock"])
}

#[test]
fn missing_privileges_are_named() -> Result<()> {
    let lab = one()?;
    let without = |capabilities: &[&str]| {
        capabilities.iter().fold(agent(&lab, 1), |builder, capability| builder.without_capability(capability))
    };
    refused(without(&["sys_admin", "bpf"]), &lab, &["missing CAP_BPF: run as root, or grant"])?;
    refused(without(&["sys_admin", "net_admin"]), &lab, &["missing CAP_NET_ADMIN: run as root"])?;
    refused(without(&["sys_admin", "perfmon"]), &lab, &["missing CAP_PERFMON: run as root"])?;
    refused(without(&["net_raw"]), &lab, &["missing CAP_NET_RAW: run as root"])?;
    refused(without(&["net_admin"]), &lab, &["missing CAP_NET_ADMIN: run as root"])?;
    agent(&lab, 1).write_config()?;
    let before = footprint(lab.node(1))?;
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let run = lab.node(1).command("setpriv").args(nobody).arg(binary());
    let output = run.args(["run", "--config", "/run/lab/agent.yaml"]).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains("missing CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON and CAP_NET_RAW"), "{said}");
    ensure!(changes(&before, &footprint(lab.node(1))?).is_empty());
    Ok(())
}

#[test]
fn what_an_earlier_agent_left_and_somebody_spoiled_is_named() -> Result<()> {
    let lab = one()?;
    let node = lab.node(1);
    let killed = agent(&lab, 1).start()?;
    killed.wait_state("active", SOON)?;
    killed.crash()?;
    // A dead agent's lock is nobody's: whoever takes it removes it.
    node.run(|| std::fs::remove_file("/run/viplane/agent.lock"))?;
    let journal = node.read_file("/var/lib/viplane/journal.json")?;
    for spoiled in ["{", "", "{\"version\": 1}", "[]"] {
        node.write_file("/var/lib/viplane/journal.json", spoiled)?;
        refused(agent(&lab, 1), &lab, &["/var/lib/viplane/journal.json is corrupt"])?;
        ensure!(node.read_file("/var/lib/viplane/journal.json")? == spoiled, "it was overwritten");
        let cleanup = killed.say(&["cleanup"])?;
        ensure!(cleanup.code == Some(1) && cleanup.err.contains("is corrupt"), "{cleanup:?}");
    }
    node.write_file("/var/lib/viplane/journal.json", "{\"version\": 9}")?;
    refused(agent(&lab, 1), &lab, &["was written by a newer vip-agent (version 9"])?;
    node.write_file("/var/lib/viplane/journal.json", journal)?;

    let spoil = || {
        std::fs::remove_file("/sys/fs/bpf/viplane/links/eth0")
            .and_then(|()| std::fs::create_dir("/sys/fs/bpf/viplane/links/eth0"))
    };
    node.run(spoil)?;
    vip_lab::wait::until(SOON, || node.ip("-d link show eth0").is_ok_and(|shown| !shown.contains("xdp")))?;
    refused(
        agent(&lab, 1),
        &lab,
        &[
            "/sys/fs/bpf/viplane/links/eth0: expected the XDP link of a `viplane` program, found a directory",
            "`vip-agent cleanup`",
        ],
    )?;
    killed.say(&["cleanup"])?.ok()?;
    let healed = agent(&lab, 1).start()?;
    healed.wait_state("active", SOON).map(drop)
}

#[test]
fn sysctls_that_cannot_be_written_are_worth_a_warning() -> Result<()> {
    let lab = one()?;
    let node = lab.node(1);
    node.command("mount").args(["--bind", "/proc/sys", "/proc/sys"]).read()?;
    node.command("mount").args(["-o", "remount,ro,bind", "/proc/sys"]).read()?;
    let limited = agent(&lab, 1).start()?;
    limited.wait_state("active", SOON)?;
    let log = limited.log();
    ensure!(log.contains("WARN") && log.contains("net.ipv4.conf.eth0.arp_ignore"), "{log}");
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node1");
    limited.signal(Signal::SIGTERM)?;
    ensure!(limited.wait(SOON)?.success(), "{}", limited.log());
    Ok(())
}

// === commands ===

#[test]
fn exit_codes_tell_failure_from_wrong_usage() -> Result<()> {
    let lab = one()?;
    let builder = agent(&lab, 1);
    builder.write_config()?;
    let code = |arguments: &[&str]| say(&builder, arguments).map(|said| said.code);
    ensure!(code(&["--help"])? == Some(0) && code(&["--version"])? == Some(0));
    ensure!(code(&["check", "/run/lab/agent.yaml"])? == Some(0));
    for usage in [&["frobnicate"][..], &[], &["run", "--nonsense"], &["check"], &["drain", "a", "b"]] {
        ensure!(code(usage)? == Some(2), "{usage:?}");
    }
    for command in ["status", "drain", "undrain", "reload", "config"] {
        let said = say(&builder, &[command])?;
        ensure!(said.code == Some(1), "{said:?}");
        ensure!(said.err.contains("no vip-agent listens at /run/viplane/agent.sock"), "{said:?}");
        ensure!(said.out.is_empty() && said.err.lines().count() == 1, "{said:?}");
    }
    let elsewhere = say(&builder, &["--control", "/run/x.sock", "status"])?;
    ensure!(elsewhere.err.contains("no vip-agent listens at /run/x.sock"), "{elsewhere:?}");
    Ok(())
}

#[test]
fn check_and_config_show_what_the_agent_makes_of_a_file() -> Result<()> {
    let lab = one()?;
    let builder = agent(&lab, 1);
    builder.write_config()?;
    let checked = say(&builder, &["check", "/run/lab/agent.yaml"])?.ok()?;
    ensure!(checked.all().is_empty(), "{checked:?}");
    let of_file = say(&builder, &["config", "--config", "/run/lab/agent.yaml"])?.ok()?;
    ensure!(
        of_file.out.contains("advert_interval: 100ms") && of_file.out.contains("grace: 5s"),
        "{of_file:?}"
    );
    // What is shown can be used.
    lab.node(1).write_file("/run/lab/shown.yaml", of_file.out.clone())?;
    say(&builder, &["check", "/run/lab/shown.yaml"])?.ok()?;
    let running = builder.start()?;
    running.wait_state("active", SOON)?;
    let effective = running.say(&["config"])?.ok()?;
    ensure!(effective.out.trim() == of_file.out.trim(), "{effective:?}");
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() -> Result<()> {
    let lab = one()?;
    let running = agent(&lab, 1).start()?;
    running.wait_state("active", SOON)?;
    for what in ["status", "status --json", "status --watch", "config"] {
        // The pipe's reader has gone by the time.
        let script = format!("{{ sleep 0.2; {} {what}; }} | true", binary().display());
        let shell = lab.node(1).command("bash").args(["-o", "pipefail", "-c", &script]).output()?;
        let complaints = String::from_utf8_lossy(&shell.stderr);
        ensure!(shell.status.success() && complaints.is_empty(), "{what}: {}: {complaints}", shell.status);
    }
    Ok(())
}

#[test]
fn status_is_a_table_json_and_a_watch() -> Result<()> {
    let lab = one()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let table = first.say(&["status"])?.ok()?.out;
    let header = table.lines().find(|line| line.starts_with("INSTANCE")).unwrap_or_default();
    for column in ["STATE", "OWNER", "PRIO", "VRID", "INTERFACE", "VIPS"] {
        ensure!(header.contains(column), "{table}");
    }
    let row = table.lines().find(|line| line.starts_with("edge ")).unwrap_or_default();
    for cell in ["active", "10.0.0.1", "200", "51", "eth0 (skb)", "10.0.0.50 fd00::50"] {
        ensure!(row.contains(cell), "{cell} in {table}");
    }
    second.wait_for("a listener", |status| {
        status["instances"][0]["peers"].as_array().is_some_and(|peers| peers.len() == 2)
    })?;
    let backup = second.say(&["status"])?.ok()?;
    ensure!(backup.out.contains("edge: 10.0.0.1 is active"), "{backup:?}");
    let status = first.status()?.raw;
    ensure!(status["node"] == "node1" && status["version"].is_string() && status["alarms"] == json!([]));
    let edge = &status["instances"][0];
    for key in [
        "name",
        "state",
        "reason",
        "priority",
        "effective_priority",
        "virtual_router_id",
        "vips",
        "active_router",
        "since",
        "transitions",
        "interface",
        "xdp_mode",
        "owned",
        "lease_ms",
        "peers",
        "probes",
        "last_takeover",
    ] {
        ensure!(edge.get(key).is_some(), "{key} is missing in {edge}");
    }
    ensure!(edge["lease_ms"].as_u64().is_some_and(|lease| (1..=300).contains(&lease)), "{edge}");
    ensure!(edge["xdp_mode"] == "skb" && edge["reason"].is_null() && edge["owned"] == true, "{edge}");
    for arguments in [&["status", "--watch"][..], &["status", "--watch", "--json"]] {
        let watch = first.builder().command(arguments).spawn("watch")?;
        vip_lab::wait::until(SOON, || watch.log().matches("node1").count() >= 3)?;
        ensure!(!watch.log().contains('\x1b'), "escapes in a file");
        watch.kill()?;
    }
    Ok(())
}

#[test]
fn only_root_may_ask_the_agent() -> Result<()> {
    let lab = one()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let mode = lab.node(1).command("stat").args(["-c", "%a %F", "/run/viplane/agent.sock"]).read()?;
    ensure!(mode.trim() == "600 socket", "{mode}");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let output = lab.node(1).command("setpriv").args(nobody).arg(binary()).arg("status").output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && said.contains("Permission denied"), "{said}");
    Ok(())
}

#[test]
fn nonsense_on_the_control_socket_is_answered_and_harms_nobody() -> Result<()> {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;
    let lab = one()?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    let socket = Path::new("/run/viplane/agent.sock");
    let answer = lab.node(1).run(move || -> Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ms(5000)))?;
        stream.write_all(b"{\"command\":\"explode\"}\n")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        // Half a request, and then nobody.
        UnixStream::connect(socket)?.write_all(b"{\"comm")?;
        Ok(line)
    })?;
    ensure!(answer.contains("not a request that this agent knows"), "{answer}");
    // Those who connect and say nothing keep nobody else waiting.
    let idle = lab
        .node(1)
        .run(move || (0..16).map(|_| UnixStream::connect(socket)).collect::<Result<Vec<_>, _>>())?;
    first.wait_state("active", SOON)?;
    drop(idle);
    Ok(())
}
