//! What one virtual router takes while nothing happens, with and without 10 probes, viplane's beside keepalived's: CPU and
//! memory of all their processes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::Serialize;
use serde_json::{Value, json};
use vip_lab::agent::Agent;
use vip_lab::keepalived::Keepalived;
use vip_lab::machine::Machine;
use vip_lab::{Lab, Node, Process, WEB_PORT};

use crate::record::Contender;

/// Longer than a start takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Starting is over by then, late announcements (1.1 s apart) too.
const SETTLING: Duration = Duration::from_secs(8);
const INTERVAL: Duration = Duration::from_millis(100);
const PROBES: [usize; 2] = [0, 10];

/// All of it.
#[derive(Serialize)]
pub(crate) struct Results {
    machine: Machine,
    rows: Vec<Row>,
}

/// One contender with so many probes.
#[derive(Serialize)]
struct Row {
    contender: Contender,
    probes: usize,
    seconds: f64,
    owner: Share,
    backup: Share,
}

/// What a node's processes take.
#[derive(Serialize)]
struct Share {
    /// Of one CPU, in percent.
    own_percent: f64,
    /// Of that the commands that it ran for probes, on top.
    commands_percent: f64,
    /// Resident (VmRSS), all processes, in KiB.
    resident_kib: u64,
    /// Of that not shared with a file (RssAnon).
    anonymous_kib: u64,
}

/// A router, and the servers that its probes ask.
struct Running {
    router: Router,
    _nginx: Option<Process>,
}

enum Router {
    Viplane(Agent),
    Keepalived(Keepalived),
}

/// Measures each for so long.
///
/// # Errors
/// One of them does not start, or ends.
pub(crate) fn measure(agent: &Path, only: Option<Contender>, watch: Duration) -> Result<Results> {
    let mut results = Results { machine: Machine::describe(agent), rows: Vec::new() };
    for probes in PROBES {
        for contender in Contender::BOTH.into_iter().filter(|own| only.is_none_or(|only| only == *own)) {
            eprintln!("{contender}, {probes} probes");
            results.rows.push(row(agent, contender, probes, watch)?);
        }
    }
    results.machine.finish();
    Ok(results)
}

fn row(agent: &Path, contender: Contender, probes: usize, watch: Duration) -> Result<Row> {
    let lab = Lab::builder().nodes(2).clients(0).vips(["10.0.0.50"]).web().build()?;
    let start = |number| start(&lab, agent, contender, number, probes);
    let owner = start(1)?;
    owner.router.wait("active", "MASTER")?;
    let backup = start(2)?;
    backup.router.wait("backup", "BACKUP")?;
    std::thread::sleep(SETTLING.min(watch));
    let both = [&owner.router, &backup.router];
    let (begun, before) = (Instant::now(), [both[0].cpu_time()?, both[1].cpu_time()?]);
    std::thread::sleep(watch);
    let (span, after) = (begun.elapsed(), [both[0].cpu_time()?, both[1].cpu_time()?]);
    let share = |at: usize| -> Result<Share> {
        let percent = |of: fn(&CpuTime) -> Duration| {
            of(&after[at]).saturating_sub(of(&before[at])).as_secs_f64() / span.as_secs_f64() * 100.0
        };
        Ok(Share {
            own_percent: percent(|time| time.own),
            commands_percent: percent(|time| time.commands),
            resident_kib: both[at].memory("VmRSS:")?,
            anonymous_kib: both[at].memory("RssAnon:")?,
        })
    };
    // They must still be what they were.
    owner.router.wait("active", "MASTER")?;
    backup.router.wait("backup", "BACKUP")?;
    let (owner, backup) = (share(0)?, share(1)?);
    Ok(Row { contender, probes, seconds: span.as_secs_f64(), owner, backup })
}

fn start(lab: &Lab, agent: &Path, contender: Contender, number: usize, probes: usize) -> Result<Running> {
    let (node, priority) = (lab.node(number), if number == 1 { 200 } else { 100 });
    match contender {
        Contender::Viplane => {
            let builder = lab.agent(number, agent).priority(priority).interval(INTERVAL);
            let (builder, nginx) = if probes > 0 {
                let (list, nginx) = ten_probes(node)?;
                let names: Vec<Value> = list.iter().map(|probe| probe["name"].clone()).collect();
                (builder.set("probes", json!(list)).set_instance("track", json!(names)), Some(nginx))
            } else {
                (builder, None)
            };
            Ok(Running { router: Router::Viplane(builder.start()?), _nginx: nginx })
        }
        Contender::Keepalived => {
            let builder = lab.keepalived(number).terse().priority(priority).interval(INTERVAL);
            let check = node.file_path("check");
            node.write_file(&check, format!("#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{WEB_PORT}\n"))?;
            node.command("chmod").arg("755").arg(&check).read()?;
            let tracking =
                (0..probes).fold(builder, |builder, probe| builder.track(&format!("check{probe}"), &check));
            Ok(Running { router: Router::Keepalived(tracking.start()?), _nginx: None })
        }
    }
}

/// One of each kind and more: four `http`, two of them with TLS, two `tcp`, an `exec`, two `file`, an `interface`; each second.
fn ten_probes(node: &Node) -> Result<(Vec<Value>, Process)> {
    let file = |name: &str| node.file_path(name).display().to_string();
    let (cert, key, config) = (file("own.pem"), file("own.key"), file("nginx.conf"));
    let openssl =
        node.command("openssl").args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    let openssl = openssl.args(["-subj", "/CN=probed", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-keyout", &key, "-out", &cert]).read().context("openssl")?;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", file("nginx-files")))
        .join(" ");
    node.command("mkdir").arg(file("nginx-files")).read()?;
    node.write_file(
        &config,
        format!(
            "daemon off; user root; pid {}; error_log stderr; events {{}}\nhttp {{ access_log off; {temporary}\n\
             server {{ listen 127.0.0.1:8443 ssl; ssl_certificate {cert}; ssl_certificate_key {key}; \
             location / {{ return 200 'all well'; }} }} }}\n",
            file("nginx.pid")
        ),
    )?;
    let nginx = node.command("nginx").args(["-c", &config]).spawn("nginx")?;
    node.write_file(file("ready"), "")?;
    let plain = json!({"http": {"url": format!("http://127.0.0.1:{WEB_PORT}/")}});
    let tls = json!({"http": {"url": "https://127.0.0.1:8443/", "ca_file": cert, "body": "all well"}});
    let tcp = json!({"tcp": {"address": format!("127.0.0.1:{WEB_PORT}")}});
    let command = json!({"exec": {"command": ["true"]}});
    let there = json!({"file": {"path": file("ready")}});
    let link = json!({"interface": {"name": "eth0"}});
    let kinds = [&plain, &plain, &tls, &tls, &tcp, &tcp, &command, &there, &there, &link];
    let probes = kinds.into_iter().enumerate().map(|(number, kind)| {
        let mut probe = kind.clone();
        probe["name"] = json!(format!("probe{number}"));
        if kind != &link {
            probe["interval"] = json!("1s");
        }
        probe
    });
    Ok((probes.collect(), nginx))
}

/// CPU time so far.
struct CpuTime {
    /// Of the processes that stay.
    own: Duration,
    /// Of commands that have ended.
    commands: Duration,
}

impl Router {
    fn wait(&self, ours: &str, theirs: &str) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.wait_state(ours, PATIENCE).map(drop),
            Self::Keepalived(keepalived) => keepalived.wait_state(theirs, PATIENCE),
        }
    }

    /// The agent and its watcher, or keepalived's parent and child.
    fn processes(&self) -> Result<[Pid; 2]> {
        match self {
            Self::Viplane(agent) => Ok([agent.process().pid(), agent.wait_watcher(PATIENCE)?]),
            Self::Keepalived(keepalived) => Ok([keepalived.process().pid(), keepalived.child()]),
        }
    }

    /// By /proc/PID/stat: threads that have ended are in there.
    fn cpu_time(&self) -> Result<CpuTime> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no length of a tick")?;
        let mut time = CpuTime { own: Duration::ZERO, commands: Duration::ZERO };
        for pid in self.processes()? {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let (_, fields) = stat.rsplit_once(") ").context("a stat file without a name")?;
            let fields: Vec<&str> = fields.split(' ').collect();
            // proc_pid_stat(5): the first here is 3, the state.
            let span = |number: usize| -> Result<Duration> {
                let count: u64 = fields.get(number - 3).context("a short stat file")?.parse()?;
                Ok(Duration::from_secs_f64(count as f64 / ticks as f64))
            };
            let [utime, stime, cutime, cstime] = [14, 15, 16, 17];
            time.own += span(utime)? + span(stime)?;
            time.commands += span(cutime)? + span(cstime)?;
        }
        Ok(time)
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let of = |pid: Pid| -> Result<u64> {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let size = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            size.with_context(|| format!("no {field} of {pid}"))
        };
        self.processes()?.into_iter().map(of).sum()
    }
}

/// The figures as Markdown.
pub(crate) fn markdown(results: &Results) -> String {
    let Machine { kernel, cpu, cpus, memory_mib, viplane, keepalived, date, load_before, load_after, .. } =
        &results.machine;
    let mut text = format!(
        "{cpus} x {cpu}, {memory_mib} MiB, Linux {kernel} · {viplane} · {keepalived} · {date} · load before {load_before}, after \
         {load_after}\n\n### At rest\n\n\
         One VIP, adverts every 100 ms. `CPU`: share of one CPU of all its processes, and on top that of the commands that probes \
         ran; on veths a sender also does the work of the receiving side's interrupt. `resident`: VmRSS of both processes, in \
         brackets what is shared with no file. The 10 probes, each second: viplane's are four `http` (two with TLS), two `tcp`, an \
         `exec`, two `file` and an `interface`; keepalived's are ten `vrrp_script`s that connect by bash.\n\n\
         | | probes | CPU owner | commands | CPU Backup | commands | resident owner | for |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n"
    );
    let mib = |kib: u64| kib as f64 / 1024.0;
    for Row { contender, probes, seconds, owner, backup } in &results.rows {
        let _ = writeln!(
            text,
            "| {contender} | {probes} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.1} ({:.1}) MiB | {seconds:.0} s |",
            owner.own_percent,
            owner.commands_percent,
            backup.own_percent,
            backup.commands_percent,
            mib(owner.resident_kib),
            mib(owner.anonymous_kib),
        );
    }
    text
}

/// Where the JSON goes.
pub(crate) fn path(output: &Path) -> PathBuf {
    output.join("idle.json")
}
