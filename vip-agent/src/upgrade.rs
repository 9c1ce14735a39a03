//! `vip-agent upgrade`: starts the program on disk, which takes over from the agent that runs, and waits until it has.
//!
//! For `ExecReload=`: what is started here lives on in the service's control group.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::control::{self, ControlError, Request};

/// How long the new agent may take: loading a program is quick, but machines may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The agent with this process id was this very program.
    IsThis(u32),
    /// This one has taken over.
    TakenOver(u32),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsThis(pid) => write!(f, "the agent that runs (pid {pid}) is this program: nothing to do"),
            Self::TakenOver(pid) => write!(f, "pid {pid} has taken over"),
        }
    }
}

/// Why the agent that ran goes on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// There is none, or it does not answer.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The program cannot be started.
    #[error("cannot start this program again: {0}")]
    Start(#[source] io::Error),
    /// It ended before it had taken over.
    #[error("the new agent ended ({0}), and the old one goes on: the reason is above, or in the log")]
    Ended(ExitStatus),
    /// It hangs.
    #[error("the new agent has not taken over after {PATIENCE:?} and was killed; the old one goes on")]
    Late,
}

/// Has this program take over from the agent that listens at `control`; `arguments` adds those of `run --take-over`.
///
/// # Errors
/// The agent that ran goes on, or there was none.
pub fn upgrade(control: &Path, arguments: impl FnOnce(&mut Command)) -> Result<Outcome, UpgradeError> {
    let running = pid_at(control)?;
    if let Some(pid) = running.filter(|pid| is_this_program(*pid)) {
        return Ok(Outcome::IsThis(pid));
    }
    let mut command = Command::new("/proc/self/exe");
    // As `ps` shows agents, and not as the link in /proc.
    command.arg0(std::env::args_os().next().unwrap_or_else(|| "vip-agent".into()));
    arguments(&mut command);
    let mut agent = command.stdin(Stdio::null()).spawn().map_err(UpgradeError::Start)?;
    let begun = Instant::now();
    loop {
        if let Some(status) = agent.try_wait().map_err(UpgradeError::Start)? {
            return Err(UpgradeError::Ended(status));
        }
        // While they change places neither may answer.
        if matches!(pid_at(control), Ok(Some(pid)) if pid == agent.id()) {
            return Ok(Outcome::TakenOver(agent.id()));
        }
        if begun.elapsed() > PATIENCE {
            let _ = agent.kill();
            let _ = agent.wait();
            return Err(UpgradeError::Late);
        }
        std::thread::sleep(LOOK);
    }
}

fn pid_at(control: &Path) -> Result<Option<u32>, ControlError> {
    let status = control::ask(control, &Request::Status)?;
    Ok(status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()))
}

/// Whether a process runs the file that this one runs: not one that was replaced since, by the same version even.
fn is_this_program(pid: u32) -> bool {
    let identity = |path: String| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let own = identity("/proc/self/exe".to_owned());
    own.is_some() && own == identity(format!("/proc/{pid}/exe"))
}
