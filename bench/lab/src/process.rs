//! Processes inside a node: killed with the lab, logged to a file, signalled by name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::Node;
use crate::wait::until;

/// A command to run inside a node, built like [`std::process::Command`].
pub struct NodeCommand {
    node: Node,
    program: OsString,
    command: Command,
}

/// A process inside a node. Killed on drop, with its process group, and reaped.
#[derive(Debug)]
pub struct Process {
    node: Node,
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    log: File,
    /// Where in the log this process began.
    log_start: u64,
}

// === impl NodeCommand ===

impl NodeCommand {
    pub(crate) fn new(node: Node, program: &OsStr) -> Self {
        // setpriv becomes the program by exec: same pid, and no unsafe code between fork and exec here.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        // Its own process group: Ctrl-C at the terminal is for the lab, whose end is everybody's end.
        command.process_group(0);
        Self { node, program: program.to_owned(), command }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It could not be started. A failure of the program itself is in the output's status.
    pub fn output(mut self) -> Result<Output> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (program, child) = self.start()?;
        child.wait_with_output().with_context(|| format!("wait for {}", program.display()))
    }

    /// Runs it to its end and returns its standard output.
    ///
    /// # Errors
    /// It could not be started, or failed: with what it said.
    pub fn read(self) -> Result<String> {
        let (name, line) = (self.node.name().to_owned(), format!("{:?}", self.command));
        let output = self.output()?;
        if !output.status.success() {
            bail!(
                "{name}: {line} failed ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it with `input` on its standard input.
    ///
    /// # Errors
    /// It could not be started, or failed: with what it said.
    pub fn feed(mut self, input: &str) -> Result<()> {
        use std::io::Write;
        self.command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let name = self.node.name().to_owned();
        let (program, mut child) = self.start()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input.as_bytes())
                .with_context(|| format!("{name}: feed {}", program.display()))?;
        }
        let output = child.wait_with_output().with_context(|| format!("wait for {}", program.display()))?;
        if !output.status.success() {
            bail!(
                "{name}: {} refused ({}): {}\n{input}",
                program.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Starts it in the background, both outputs to the log `NAME.log` (which a later process of that name continues).
    ///
    /// # Errors
    /// The log cannot be written, or setpriv is missing. A missing program shows in the log and as exit status 127.
    pub fn spawn(mut self, name: &str) -> Result<Process> {
        let node = self.node.clone();
        let log = node.open_log(name)?;
        let duplicate = || log.try_clone().context("duplicate the log's handle");
        self.command.stdin(Stdio::null()).stdout(duplicate()?).stderr(duplicate()?);
        let log_start = log.metadata().context("look at the log")?.len();
        let (_, child) = self.start()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id is positive")?);
        Ok(Process { node, name: name.to_owned(), pid, child: Mutex::new(child), log, log_start })
    }

    fn start(self) -> Result<(OsString, Child)> {
        let Self { node, program, mut command } = self;
        let name = node.name().to_owned();
        // On the node's own thread: it is the parent whose end kills the child.
        let child = node.run(move || command.spawn()).with_context(|| {
            format!("{name}: start {} by setpriv (Debian: util-linux)", program.display())
        })?;
        Ok((program, child))
    }
}

// === impl Process ===

impl Process {
    /// The node it runs in.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has exited.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child();
        // Under the lock and not yet reaped: the pid cannot be another's.
        if let Some(status) = child.try_wait()? {
            bail!(
                "{}: {} cannot get {signal}: it has exited ({status})\n{}",
                self.node.name(),
                self.name,
                self.last_words()
            );
        }
        kill(self.pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Whether it has not exited yet.
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Waits for its exit.
    ///
    /// # Errors
    /// It still runs after `timeout`: with its log.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child().try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "{}: {} still runs after {timeout:?}\n{}",
                    self.node.name(),
                    self.name,
                    self.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child();
        child.kill().and_then(|()| child.wait()).map(drop).with_context(|| format!("kill {}", self.name))
    }

    /// Kills it with all of its process group at one instant, and waits until it is gone: what it has started itself gets no
    /// chance to act on its death.
    ///
    /// # Errors
    /// It cannot be reaped, or has exited.
    pub fn kill_group(&self) -> Result<()> {
        let mut child = self.child();
        // Not yet reaped: the group cannot be another's.
        if let Some(status) = child.try_wait()? {
            bail!("{}: {} has exited ({status})\n{}", self.node.name(), self.name, self.last_words());
        }
        killpg(self.pid, Signal::SIGKILL).with_context(|| format!("kill the group of {}", self.name))?;
        child.wait().map(drop).with_context(|| format!("kill {}", self.name))
    }

    /// All that it wrote to its log so far.
    pub fn log(&self) -> String {
        read_from(&self.log, self.log_start)
    }

    /// The end of its log, for error messages: what many virtual routers have to say would bury the message.
    pub fn last_words(&self) -> String {
        const LINES: usize = 200;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let Some(earlier) = lines.len().checked_sub(LINES + 1) else { return log };
        format!("... ({} lines before)\n{}\n", earlier + 1, lines[earlier + 1..].join("\n"))
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// It does not after `timeout`: with the end of the log.
    pub fn wait_log(&self, text: &str, timeout: Duration) -> Result<()> {
        until(timeout, || self.log().contains(text)).with_context(|| {
            format!(
                "{}: {} did not say {text:?} within {timeout:?}\n{}",
                self.node.name(),
                self.name,
                self.last_words()
            )
        })
    }

    /// Resident memory in KiB (`VmRSS`).
    ///
    /// # Errors
    /// It has exited.
    pub fn resident_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .with_context(|| format!("{path} has no VmRSS: it has exited"))?;
        line.split_whitespace()
            .next()
            .unwrap_or_default()
            .parse()
            .with_context(|| format!("read VmRSS in {path}"))
    }

    /// CPU time that it has taken so far, by thread name: interrupts that it was there for are in there.
    ///
    /// # Errors
    /// It has exited.
    pub fn cpu_time(&self) -> Result<BTreeMap<String, Duration>> {
        cpu_time(self.pid)
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // With all that it has started. An exited process is reaped already, and nothing is left to do.
        let _ = self.kill_group();
    }
}

/// See [`Process::cpu_time`]; for a process that another one started.
///
/// # Errors
/// There is none of this id.
pub fn cpu_time(pid: Pid) -> Result<BTreeMap<String, Duration>> {
    let mut times = BTreeMap::<String, Duration>::new();
    let threads = format!("/proc/{pid}/task");
    for thread in std::fs::read_dir(&threads).with_context(|| format!("read {threads}"))? {
        let path = thread?.path();
        // A thread may end while we look.
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let nanos = read("schedstat").split(' ').next().and_then(|nanos| nanos.parse().ok());
        *times.entry(read("comm").trim().to_owned()).or_default() +=
            Duration::from_nanos(nanos.unwrap_or_default());
    }
    Ok(times)
}

/// Reads to the end without moving the offset at which the process writes.
fn read_from(log: &File, start: u64) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(read @ 1..) = log.read_at(&mut chunk, start + bytes.len() as u64) {
        bytes.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
