//! The process `vip-kube`, and the pipes to it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::unix::pipe::{Receiver, Sender};
use vip_kube_protocol::PROTOCOL;

use crate::config::{Log, LogFormat};

/// Beside the agent's own program.
const PROGRAM: &str = "vip-kube";

/// How long a killed process may take to go, in steps of a millisecond.
const FAREWELL: u32 = 200;

/// How it logs: as the agent does, to the same place.
#[derive(Clone, Debug)]
pub(super) struct Logging {
    level: String,
    json: bool,
}

impl Logging {
    pub(super) fn of(log: &Log) -> Self {
        let asked = std::env::var("VIPLANE_LOG").ok();
        let level = asked.unwrap_or_else(|| log.level.as_str().to_owned());
        Self { level, json: matches!(log.format, LogFormat::Json) }
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// Somebody has installed a part of the package.
    #[error(
        "{} does not exist: `kubernetes` needs this program, which belongs to the same package as vip-agent. Install all of the package, \
         or leave `kubernetes` out",
        .0.display()
    )]
    Missing(PathBuf),
    /// The system refuses.
    #[error("cannot start {}: {source}", program.display())]
    Refused {
        /// What.
        program: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

/// Where the program is.
pub(crate) fn program() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(PROGRAM)
}

/// A running `vip-kube`. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    pub(super) orders: Sender,
    pub(super) reports: Receiver,
}

impl Child {
    /// Starts one. It ends with the calling thread, which is its parent to the kernel (PR_SET_PDEATHSIG); to be called within a tokio
    /// runtime.
    pub(super) fn start(logging: &Logging) -> Result<Self, StartError> {
        let program = program();
        Self::spawn(&program, logging).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StartError::Missing(program),
            _ => StartError::Refused { program, source },
        })
    }

    fn spawn(program: &Path, logging: &Logging) -> io::Result<Self> {
        let (their_orders, orders) = io::pipe()?;
        let (reports, their_reports) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(["--protocol", &PROTOCOL.to_string(), "--agent", &std::process::id().to_string()]);
        command.args(["--log", &logging.level]).args(logging.json.then_some("--json"));
        // A Ctrl-C in a terminal is for the agent, which may need it for some time yet.
        command.process_group(0).current_dir("/").stdin(their_orders).stdout(their_reports);
        let process = command.stderr(Stdio::inherit()).spawn()?;
        // Its ends are closed here, so that its death is heard.
        drop(command);
        Ok(Self {
            orders: Sender::from_owned_fd(OwnedFd::from(orders))?,
            reports: Receiver::from_owned_fd(OwnedFd::from(reports))?,
            process,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, after its end of the pipes was closed; killed, if it did not end by itself.
    pub(super) fn end(mut self) -> String {
        let ended = self.process.try_wait().ok().flatten().or_else(|| self.kill());
        ended.map_or_else(|| "cannot be waited for".to_owned(), |status| status.to_string())
    }

    /// `None`: it hangs in the kernel, and is dead to all others when that lets go of it.
    fn kill(&mut self) -> Option<ExitStatus> {
        // It may have ended just now.
        let _ = self.process.kill();
        for _ in 0..FAREWELL {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
