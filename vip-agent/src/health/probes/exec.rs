//! `exec`: whether a command ends with exit status 0.
//!
//! It runs in a process group of its own, which is killed as a whole when the command has ended, when its time is over,
//! and when nobody wants to know any more; and reaped as a whole, as in a container nobody else might be there for what it
//! leaves behind. What it says goes to the log at debug.

#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpgid};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

use super::Limit;
use super::background::{Background, MOST, Seat, Seats};
use crate::config::CommandLine;
use crate::privilege;

/// What is kept of a command's output; the rest is read and forgotten.
const MOST_OUTPUT: usize = 4096;

/// Read at once: what a pipe holds.
const GULP: usize = 64 << 10;

/// Between two of those: who never stops talking has neither the runtime for itself, nor a CPU.
const BREATH: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Asker {
    probe: String,
    command: CommandLine,
    background: Background,
    /// Of groups that are not gone yet.
    seats: Seats,
}

impl Asker {
    pub(super) fn new(probe: &str, command: CommandLine) -> Self {
        Self { probe: probe.to_owned(), command, background: Background::default(), seats: Seats::default() }
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
        let seat =
            self.seats.take().ok_or_else(|| format!("{MOST} earlier ones are killed, but not gone"))?;
        // Elsewhere: a program on a dead file server hangs whoever starts it.
        let start = self.background.run(move || Group::start(&command, seat));
        let started = limit.on(&format!("starting {program}"), start).await??;
        let (mut group, reader) = started.map_err(cannot)?;
        let ending = group.ending().map_err(cannot)?;
        let reader = Receiver::from_owned_fd(reader).map_err(cannot)?;
        let end = async {
            let mut open = true;
            loop {
                tokio::select! {
                    biased;
                    ready = ending.readable() => return ready.map(drop),
                    ready = reader.readable(), if open => {
                        ready?;
                        match output.read(&reader)? {
                            Left::Nothing => {}
                            // Waiting for what is ready already costs none of tokio's budget: it would never yield.
                            Left::More => tokio::time::sleep(BREATH).await,
                            Left::End => open = false,
                        }
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
    /// Until it is gone.
    seat: Option<Seat>,
}

impl Group {
    /// Begins a command; what it says comes by the descriptor.
    ///
    /// To be called in a thread that does nothing else: it keeps no more rights than the command is to have.
    fn start(command: &CommandLine, seat: Seat) -> std::io::Result<(Self, OwnedFd)> {
        privilege::become_command()?;
        let (reader, writer) = std::io::pipe()?;
        let mut process = Command::new(&command.program);
        process.args(&command.arguments).process_group(0);
        process.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = process.spawn()?;
        // `process` goes here, and with it our copies of the command's end of the pipe.
        let leader = Pid::from_child(&child);
        Ok((Self { leader, child: Some(child), ended: None, seat: Some(seat) }, reader.into()))
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
        let (leader, seat) = (self.leader, self.seat.take());
        let _ = kill_process_group(leader, Signal::KILL);
        // If it has left its own group.
        let _ = child.kill();
        self.ended = child.try_wait().ok().flatten();
        if self.ended.is_none() || !reap(leader, WaitOptions::NOHANG) {
            // One that hangs in the kernel dies when that lets go of it.
            let reaper = std::thread::Builder::new().name("reaper".into()).stack_size(64 << 10);
            let _ = reaper.spawn(move || {
                let _ = child.wait();
                reap(leader, WaitOptions::empty());
                drop(seat);
            });
        }
    }
}

/// Reaps what a killed group has left to us, which is nothing unless we are init (PID 1 of a container); whether all of it is
/// gone.
fn reap(group: Pid, how: WaitOptions) -> bool {
    loop {
        match waitpgid(group, how) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return false,
            Err(_) => return true,
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

/// What is left in a pipe.
enum Left {
    Nothing,
    More,
    /// Nobody can write to it any more.
    End,
}

impl Output {
    /// Reads what is there, up to [`GULP`].
    fn read(&mut self, pipe: &Receiver) -> std::io::Result<Left> {
        let mut chunk = [0; 4096];
        for _ in 0..GULP / chunk.len() {
            match pipe.try_read(&mut chunk) {
                Ok(0) => return Ok(Left::End),
                Ok(read) => {
                    let fits = read.min(MOST_OUTPUT - self.kept.len());
                    self.kept.extend_from_slice(&chunk[..fits]);
                    self.dropped += read - fits;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Left::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Left::More)
    }
}
