//! What a running agent, its watcher and the commands of its probes may do: what docs/security.md says, and no more.

#[path = "support/agents.rs"]
mod agents;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "support/bpf.rs"]
mod bpf;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use agents::{Ask as _, SOON, agent};
use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Node, wait};

/// By number, from 0.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Who may do something, by the column of the table in docs/security.md.
#[derive(Clone, Copy)]
enum Who {
    Agent = 2,
    AgentWithCommands = 3,
    Commands = 4,
    Watcher = 5,
}

/// The capabilities that the documentation lists.
fn documented(who: Who) -> BTreeSet<String> {
    let page = include_str!("../../docs/security.md");
    let rows = page.lines().filter(|line| line.starts_with("| `CAP_"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|cells| cells[who as usize] == "yes")
        .map(|cells| cells[1].trim_matches('`').trim_start_matches("CAP_").to_owned())
        .collect()
}

/// A line of proc(5)'s `status`.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn set(status: &str, name: &str) -> Result<BTreeSet<String>> {
    let bits =
        u64::from_str_radix(&field(status, name), 16).with_context(|| format!("{name} of {status}"))?;
    let held = CAPABILITIES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    Ok(held.map(|(_, name)| (*name).to_owned()).collect())
}

/// `status` of each of a process's threads.
fn threads(pid: Pid) -> Result<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    tasks.map(|task| Ok(fs::read_to_string(task?.path().join("status"))?)).collect()
}

/// Confined as the documentation says.
fn is_confined(status: &str, who: Who) -> Result<()> {
    let name = field(status, "Name");
    let expected = documented(who);
    for kind in ["CapEff", "CapPrm"] {
        ensure!(
            set(status, kind)? == expected,
            "{name}: {kind} is {:?}, not {expected:?}",
            set(status, kind)?
        );
    }
    let bound = match who {
        Who::Agent | Who::Watcher => documented(Who::Agent),
        Who::AgentWithCommands | Who::Commands => documented(Who::AgentWithCommands),
    };
    ensure!(set(status, "CapBnd")? == bound, "{name}: CapBnd is {:?}, not {bound:?}", set(status, "CapBnd")?);
    ensure!(field(status, "NoNewPrivs") == "1", "{name}: {status}");
    ensure!(field(status, "Seccomp") == "2", "{name}: {status}");
    Ok(())
}

/// A probe that runs a shell script, and what it says of itself in a file.
fn script(lab: &Lab, name: &str, script: &str) -> (Value, std::path::PathBuf) {
    let said = lab.node(1).file_path(name);
    let script = format!("{{ {script}; }} > {0}.new 2>&1; mv {0}.new {0}", said.display());
    let probe = json!({"name": name, "interval": "200ms", "timeout": "5s", "exec": {"command": ["/bin/sh", "-c", script]}});
    (probe, said)
}

fn said(node: &Node, file: &std::path::Path) -> Result<String> {
    wait::until(SOON, || node.exists(file))?;
    node.read_file(file)
}

fn active(builder: AgentBuilder) -> Result<Agent> {
    let agent = builder.start()?;
    agent.wait_state("active", SOON)?;
    Ok(agent)
}

fn one() -> Result<Lab> {
    Lab::builder().nodes(1).clients(1).vips(agents::VIPS).web().build()
}

#[test]
fn every_thread_and_the_watcher_may_do_what_the_documentation_lists() -> Result<()> {
    let lab = one()?;
    let probes = json!([{"name": "web", "interval": "100ms", "http": {"url": "http://localhost/"}}]);
    let agent = active(agent(&lab, 1).set("probes", probes).set_instance("track", json!(["web"])))?;
    let watcher = agent.wait_watcher(SOON)?;
    let all = threads(agent.process().pid())?;
    for name in ["vip-agent", "vrrp", "api"] {
        ensure!(all.iter().any(|status| field(status, "Name") == name), "no thread {name}");
    }
    all.iter().try_for_each(|status| is_confined(status, Who::Agent))?;
    for status in threads(watcher)? {
        is_confined(&status, Who::Watcher)?;
        // Its own filter on top of the agent's.
        let filters = |status: &str| field(status, "Seccomp_filters").parse::<u32>().unwrap_or_default();
        ensure!(filters(&status) == filters(&all[0]) + 1, "{status}");
    }
    // A second one, which a confined agent has started.
    nix::sys::signal::kill(watcher, nix::sys::signal::Signal::SIGKILL)?;
    let status = agent.wait_for("watched anew", |status| {
        status["watcher"]["starts"] == 2 && status["watcher"]["pid"].is_i64()
    })?;
    ensure!(status["watcher"]["reason"].is_null(), "{status}");
    Ok(())
}

#[test]
fn check_scripts_do_what_scripts_do_and_nothing_dangerous() -> Result<()> {
    let lab = one()?;
    let ordinary = "cat /proc/self/status; ip route get 10.0.0.9; nft list tables; pgrep -x vrrp-none; \
        for n in 1 2 3; do (sleep 0.01) & done; wait; \
        setpriv --reuid=4242 --regid=4242 --clear-groups sleep 0.2 & sleep 0.1; kill -0 $!; wait; \
        runuser -u nobody -- id -u; timeout 1 true && echo ordinary done";
    let dangerous: String = [
        "unshare --user true",
        "unshare --net true",
        "mount -t tmpfs none /mnt",
        "chroot / true",
        "nsenter --net=/proc/self/ns/net true",
        "bpftool prog list",
        "chrt -f 10 true",
        "touch /proc/sys/kernel/hostname && hostname other",
    ]
    .map(|command| format!("({command}) && echo DID {command}; "))
    .concat();
    let (probe, confined) = script(&lab, "ordinary", ordinary);
    let (other, refused) = script(&lab, "dangerous", &format!("{dangerous} echo tried"));
    let running = active(agent(&lab, 1).set("probes", json!([probe, other])))?;
    threads(running.process().pid())?
        .iter()
        .filter(|status| field(status, "Name") != "probe")
        .try_for_each(|status| is_confined(status, Who::AgentWithCommands))?;
    let ordinary = said(lab.node(1), &confined)?;
    is_confined(&ordinary, Who::Commands)?;
    ensure!(
        ordinary.contains("10.0.0.9 dev eth0") && ordinary.contains("65534\nordinary done"),
        "{ordinary}"
    );
    ensure!(!ordinary.contains("not permitted") && !ordinary.contains("not found"), "{ordinary}");
    let refused = said(lab.node(1), &refused)?;
    ensure!(!refused.contains("DID") && !refused.contains("not found"), "{refused}");
    ensure!(refused.contains("not permitted") && refused.ends_with("tried\n"), "{refused}");
    Ok(())
}

#[test]
fn commands_that_come_with_a_reload_run_and_what_they_lack_until_the_next_start_is_said() -> Result<()> {
    let lab = one()?;
    let (probe, file) = script(&lab, "later", "cat /proc/self/status");
    let running = active(agent(&lab, 1))?;
    agent(&lab, 1).set("probes", json!([probe])).write_config()?;
    let reloaded = running.say(&["reload"])?.ok()?;
    ensure!(
        reloaded
            .out
            .contains("that commands of probes may become another user takes effect at the next start"),
        "{reloaded:?}"
    );
    let expected = documented(Who::Commands).intersection(&documented(Who::Agent)).cloned().collect();
    let status = said(lab.node(1), &file)?;
    ensure!(set(&status, "CapEff")? == expected, "{status}");
    Ok(())
}

#[test]
fn files_of_other_owners_and_low_ports_are_had_after_a_reload_as_at_the_start() -> Result<()> {
    let lab = one()?;
    let key = lab.node(1).file_path("key");
    lab.node(1).write_file(&key, "00".repeat(32))?;
    let theirs = key.clone();
    lab.node(1).run(move || -> Result<()> {
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o600))?;
        Ok(chown(&theirs, Some(4242), Some(4242))?)
    })?;
    let plain = agent(&lab, 1);
    let signed = plain
        .clone()
        .set_instance("auth_trailer", json!({"key_file": key}))
        .set("api", json!({"listen": "127.0.0.1:81"}));
    let running = active(plain)?;
    running.reload(&signed)?;
    let listens = |status: &Value| {
        status["api"]["reason"].is_null() && status["instances"][0]["auth_trailer"]["signing_key"].is_string()
    };
    running.wait_for("signs, and listens on port 81", listens)?;
    drop(running);
    active(signed)?.wait_for("the same at a start", listens).map(drop)
}

#[test]
fn an_interface_that_is_taken_later_is_named_although_its_owner_cannot_be() -> Result<()> {
    let lab = one()?;
    let node = lab.node(1);
    node.ip("link add eth1 type veth peer name eth1p")?;
    node.ip("link set eth1p up")?;
    node.ip("link set eth1 up")?;
    node.ip("address add 10.0.9.1/24 dev eth1")?;
    let other = json!({"name": "other", "virtual_router_id": 52, "interface": "eth1", "vips": ["10.0.9.50"]});
    let running = active(agent(&lab, 1))?;
    // An agent of another pin_dir and namespace would do as well; ip(8) has no program of its own to attach.
    let program = node.run(|| -> Result<_> {
        let mut ebpf = bpf::other_program();
        bpf::pass(&mut ebpf).attach("eth1", aya::programs::XdpMode::Skb)?;
        Ok(ebpf)
    })?;
    agent(&lab, 1).instance(other).write_config()?;
    let said = running.say(&["reload"])?;
    ensure!(said.code == Some(1) && said.err.contains("eth1 already runs an XDP program (id "), "{said:?}");
    ensure!(
        said.err.contains("that is not ours; `vip-agent preflight`, as root, says whose it is"),
        "{said:?}"
    );
    drop(program);
    Ok(())
}

#[test]
fn an_operator_can_have_it_all_kept() -> Result<()> {
    let lab = one()?;
    let (probe, file) = script(&lab, "own", "cat /proc/self/status");
    let own = fs::read_to_string("/proc/self/status")?;
    let kept = json!({"capabilities": "keep", "seccomp": false});
    let agent = active(agent(&lab, 1).set("probes", json!([probe])).set("security", kept))?;
    agent.wait_watcher(SOON)?;
    for status in threads(agent.process().pid())?.iter().chain([&said(lab.node(1), &file)?]) {
        ensure!(set(status, "CapEff")? == set(&own, "CapEff")?, "{status}");
        ensure!(
            field(status, "NoNewPrivs") == "0" && field(status, "Seccomp") == field(&own, "Seccomp"),
            "{status}"
        );
    }
    let log = agent.log();
    ensure!(
        log.contains("WARN capabilities are kept") && log.contains("WARN system calls are not filtered"),
        "{log}"
    );
    Ok(())
}

#[test]
fn the_unit_grants_what_the_documentation_lists() {
    let unit = include_str!("../../deploy/systemd/vip-agent.service");
    let granted = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let granted: BTreeSet<String> = granted
        .unwrap_or_default()
        .split(' ')
        .map(|name| name.trim_start_matches("CAP_").to_owned())
        .collect();
    // What loading the program takes is given up after that.
    let mut expected = documented(Who::AgentWithCommands);
    expected.insert("PERFMON".to_owned());
    assert_eq!(granted, expected);
}
