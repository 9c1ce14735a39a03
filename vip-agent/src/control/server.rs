//! The agent's side: accepts, reads one request per line, and passes it on with a place for the answer.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::succession::Conversation;
use super::{Answer, MAX_LINE, Request};

/// Clients served at a time; more wait in the socket's backlog.
const CLIENTS: usize = 32;

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Pending {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes. The client may have gone.
    pub answer: oneshot::Sender<Answer>,
    /// The connection itself, of one that stays: then nothing is answered but by it.
    pub(crate) successor: Option<Conversation>,
}

/// The socket; dropping it removes the file.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    requests: mpsc::Receiver<Pending>,
    accepting: tokio::task::JoinHandle<()>,
}

impl ControlServer {
    /// Listens at `path`. A file that a dead agent left there is replaced: that no living one has it is known from the
    /// lock beside it.
    ///
    /// # Errors
    /// The directory is missing or may not be written.
    pub fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Only for us from the first moment on, not just after a chmod.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(mask);
        let listener = listener?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let (sender, requests) = mpsc::channel(CLIENTS);
        let accepting = tokio::spawn(accept(listener, sender));
        Ok(Self { path: path.into(), requests, accepting })
    }

    /// The next request.
    pub async fn request(&mut self) -> Pending {
        match self.requests.recv().await {
            Some(pending) => pending,
            // The accepting task never ends by itself.
            None => std::future::pending().await,
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Pending>) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = serve(stream, requests).await {
                        tracing::debug!(%error, "control client");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket: cannot accept");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, requests: mpsc::Sender<Pending>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(MAX_LINE));
    while read.read_line(&mut line).await? > 0 {
        let answer = match serde_json::from_str(&line) {
            Ok(request @ Request::TakeOver { .. }) => {
                let stream = read.into_inner().into_inner().reunite(write).map_err(io::Error::other)?;
                let (answer, _) = oneshot::channel();
                let successor = Some(Conversation::new(stream));
                // An agent that ends closes the connection, which says enough.
                let _ = requests.send(Pending { request, answer, successor }).await;
                return Ok(());
            }
            Ok(request) => answer(request, &requests).await,
            Err(error) => Answer::Error(format!("not a request that this agent knows: {error}")),
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        write.write_all(text.as_bytes()).await?;
        line.clear();
        read.get_mut().set_limit(MAX_LINE);
    }
    Ok(())
}

async fn answer(request: Request, requests: &mpsc::Sender<Pending>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let ending = || Answer::Error("the agent is ending".into());
    if requests.send(Pending { request, answer, successor: None }).await.is_err() {
        return ending();
    }
    answered.await.unwrap_or_else(|_| ending())
}
