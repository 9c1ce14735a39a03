//! What the figures were taken on and with.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The machine, the software and the moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// `uname -r`.
    pub kernel: String,
    /// Model of the first CPU.
    pub cpu: String,
    /// How many CPUs this process may use.
    pub cpus: usize,
    /// RAM in MiB.
    pub memory_mib: u64,
    /// First line of `vip-agent --version`, and the commit where it is known.
    pub viplane: String,
    /// First line of `keepalived --version`.
    pub keepalived: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// As given.
    pub command_line: Vec<String>,
    /// Load averages of 1, 5 and 15 minutes before the first round.
    pub load_before: String,
    /// After the last one; the benchmark's own load is in there.
    pub load_after: String,
}

impl Machine {
    /// Of now; `agent` is the binary that is measured.
    pub fn describe(agent: &Path) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let memory = read("/proc/meminfo").lines().find_map(|line| {
            let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
            kib.parse::<u64>().ok()
        });
        let version = first_line(Command::new(agent).arg("--version"));
        let commit = first_line(Command::new("git").args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
        ]));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned()),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory.unwrap_or_default() / 1024,
            viplane: format!("{version} {commit}").trim().to_owned(),
            keepalived: first_line(Command::new("keepalived").arg("--version")),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command_line: std::env::args().skip(1).collect(),
            load_before: loads(),
            load_after: String::new(),
        }
    }

    /// Notes the load at the end.
    pub fn finish(&mut self) {
        self.load_after = loads();
    }
}

/// Load average of the last minute.
pub fn load() -> f64 {
    loads().split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

fn loads() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Nothing where there is nothing: none of it is worth failing for.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// keepalived writes its version to standard error.
fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return String::new() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
