//! Network namespaces that this thread enters in turn, and commands inside of them.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;

/// A network namespace without a name: it ends with what holds it.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// A new one, which the calling thread is in from now on.
    pub(crate) fn new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("no network namespace (root is needed)")?;
        Self::current()
    }

    /// The calling thread's.
    fn current() -> Result<Self> {
        File::open("/proc/thread-self/ns/net")
            .map(Self)
            .context("cannot open this thread's network namespace")
    }

    /// Takes an interface over from the calling thread's namespace.
    pub(crate) fn adopt(&self, interface: &str) -> Result<()> {
        // `ip` opens what it is given; this process's descriptor is reached by its number.
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        run("ip", &format!("link set {interface} netns {path}"))
    }

    /// The calling thread is in it from now on.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
    }
}

/// Sender, node and receiver share a CPU: what is compared is work, not how it is spread. Returns where the thread was.
pub(crate) fn stay_on_one_cpu() -> Result<Namespace> {
    let mut cpu = CpuSet::new();
    cpu.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpu).context("cannot stay on CPU 0")?;
    Namespace::current()
}

/// Runs a command with these words, in this thread's namespace.
pub(crate) fn run(program: &str, words: &str) -> Result<()> {
    let output = Command::new(program)
        .args(words.split_whitespace())
        .output()
        .with_context(|| format!("cannot run {program}: is it installed?"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {words}: {}", said.trim());
    Ok(())
}

/// Sets a kernel setting of this thread's namespace by its path below /proc/sys/net.
pub(crate) fn set(path: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{path}");
    fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
}
