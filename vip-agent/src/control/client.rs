//! The side of `vip-agent status`, `drain` and the like. Blocking: a command asks one thing and ends.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Answer, MAX_LINE, Request};

/// Why there is no answer, or a negative one.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no vip-agent listens at {}: {error}; is it running, and is this its runtime_dir? (--control PATH)", path.display())]
    NoAgent {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It ended before it answered.
    #[error("vip-agent at {} ended before it answered: {error}", path.display())]
    Broken {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It refused, with a reason.
    #[error("{0}")]
    Refused(String),
}

/// Asks the agent at `path` and waits for its answer, however long that takes.
///
/// # Errors
/// See [`ControlError`].
pub fn ask(path: &Path, request: &Request) -> Result<serde_json::Value, ControlError> {
    let mut stream =
        UnixStream::connect(path).map_err(|error| ControlError::NoAgent { path: path.into(), error })?;
    match exchange(&mut stream, request) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(text)) => Err(ControlError::Refused(text)),
        Err(error) => Err(ControlError::Broken { path: path.into(), error }),
    }
}

fn exchange(stream: &mut UnixStream, request: &Request) -> io::Result<Answer> {
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    if BufReader::new(stream.take(MAX_LINE)).read_line(&mut answer)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}
