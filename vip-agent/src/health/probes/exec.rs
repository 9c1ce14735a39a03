//! `exec`: whether a command ends with exit status 0.
//!
//! It runs in a process group of its own, which is killed as a whole when the command has ended, when its time is over,
//! and when nobody wants to know any more. What it says goes to the log at debug.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

use super::Limit;
use super::background::Background;
use crate::config::CommandLine;

/// What is kept of a command's output; the rest is read and forgotten.
const MOST_OUTPUT: usize = 4096;

#[derive(Debug)]
pub(super) struct Asker {
    probe: String,
    command: CommandLine,
    background: Background,
}

impl Asker {
    pub(super) fn new(probe: &str, command: CommandLine) -> Self {
        Self { probe: probe.to_owned(), command, background: Background::default() }
    }

    pub(super) async fn ask(&self, limit: Limit) -> Result<(), String> {
        let mut output = Output::default();
        let ended = self.run(limit, &mut output).await;
        let said = String::from_utf8_lossy(&output.kept);
        for line in said.lines() {
            tracing::debug!(probe = self.probe, "said: {line}");
        }
        if output.dropped > 0 {
            tracing::debug!(probe = self.probe, "said {} bytes more", output.dropped);
        }
        match ended? {
            status if status.success() => Ok(()),
            status => Err(match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => status.to_string(),
            }),
        }
    }

    async fn run(&self, limit: Limit, output: &mut Output) -> Result<ExitStatus, String> {
        let program = &self.command.program;
        let cannot = |error: std::io::Error| format!("cannot run {program}: {error}");
        let command = self.command.clone();
        // Elsewhere: a program on a dead file server hangs whoever starts it.
        let start = self.background.run(move || Group::start(&command));
        let started = limit.on(&format!("starting {program}"), start).await??;
        let (mut group, reader) = started.map_err(cannot)?;
        let ending = group.ending().map_err(cannot)?;
        let reader = Receiver::from_owned_fd(reader).map_err(cannot)?;
        let end = async {
            let mut open = true;
            loop {
                tokio::select! {
                    ready = ending.readable() => return ready.map(drop),
                    ready = reader.readable(), if open => {
                        ready?;
                        open = output.read(&reader)?;
                    }
                }
            }
        };
        limit.on(&format!("{program} still ran, and was killed"), end).await?.map_err(cannot)?;
        group.kill();
        // What it said last. What left the group may hold the pipe open, and is not waited for.
        let _ = output.read(&reader);
        group.ended.ok_or_else(|| format!("{program} ended, but not how is known"))
    }
}

/// A command and all that it began.
struct Group {
    leader: Pid,
    /// Until it is killed.
    child: Option<Child>,
    ended: Option<ExitStatus>,
}

impl Group {
    /// Begins a command; what it says comes by the descriptor.
    fn start(command: &CommandLine) -> std::io::Result<(Self, OwnedFd)> {
        let (reader, writer) = std::io::pipe()?;
        let mut process = Command::new(&command.program);
        process.args(&command.arguments).process_group(0);
        process.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = process.spawn()?;
        // `process` goes here, and with it our copies of the command's end of the pipe.
        Ok((Self { leader: Pid::from_child(&child), child: Some(child), ended: None }, reader.into()))
    }

    /// Becomes readable when the command has ended.
    fn ending(&self) -> std::io::Result<AsyncFd<OwnedFd>> {
        let pidfd = pidfd_open(self.leader, PidfdFlags::empty())?;
        // SAFETY: an OwnedFd stays the same open descriptor until it is dropped, and the result owns it.
        Ok(unsafe { AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE) }?)
    }

    /// Kills what is left of it. The command is not reaped before: until then nobody else's group can have its number.
    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process_group(self.leader, Signal::KILL);
        self.ended = child.try_wait().ok().flatten();
        if self.ended.is_none() {
            // One that hangs in the kernel dies when that lets go of it.
            let reaper = std::thread::Builder::new().name("reaper".into()).stack_size(64 << 10);
            let _ = reaper.spawn(move || child.wait());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a command says, as far as it is kept.
#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    dropped: usize,
}

impl Output {
    /// Reads what is there; false at the end.
    fn read(&mut self, pipe: &Receiver) -> std::io::Result<bool> {
        let mut chunk = [0; 4096];
        // Somebody who never stops talking must not keep the runtime.
        for _ in 0..16 {
            match pipe.try_read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    let fits = read.min(MOST_OUTPUT - self.kept.len());
                    self.kept.extend_from_slice(&chunk[..fits]);
                    self.dropped += read - fits;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
