//! Listening on one address of a service, and handing over who comes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::Shared;
use super::connection::Guest;
use super::live::Live;
use super::sockets::listen;
use super::worker::Workers;

/// How often an address that cannot be had is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// After an error of accept(2), which may be a lack of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// An address that is to be listened on, and for whom.
pub(super) struct Acceptor {
    pub(super) address: SocketAddr,
    /// Whose the address is. When nobody can say so any more, listening ends.
    pub(super) live: watch::Receiver<Arc<Live>>,
    pub(super) workers: Workers,
    /// Of all services.
    pub(super) places: Arc<Semaphore>,
    pub(super) shared: Arc<Shared>,
}

// === impl Acceptor ===

impl Acceptor {
    /// Listens until it is no longer wanted. Who has been let in by the kernel by then is served.
    pub(super) async fn run(mut self) {
        let Some(listener) = self.open().await else { return };
        loop {
            tokio::select! {
                biased;
                changed = self.live.changed() => if changed.is_err() {
                    break;
                },
                accepted = listener.accept() => self.admit(accepted).await,
            }
        }
        while let Some(Ok(accepted)) = listener.accept().now_or_never() {
            self.admit(Ok(accepted)).await;
        }
    }

    /// The listener, however long it takes to have the address; `None` if it is no longer wanted before that.
    async fn open(&mut self) -> Option<TcpListener> {
        loop {
            match listen(self.address) {
                Ok(listener) => {
                    self.shared.troubles().remove(&self.address);
                    return Some(listener);
                }
                Err(error) => self.complain(&error),
            }
            let unwanted = async { while self.live.changed().await.is_ok() {} };
            if tokio::time::timeout(RETRY, unwanted).await.is_ok() {
                self.shared.troubles().remove(&self.address);
                return None;
            }
        }
    }

    /// Says once what is wrong, not with each attempt.
    fn complain(&self, error: &io::Error) {
        let name = self.live.borrow().name.clone();
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "cannot listen on {}: {error}: a local server listens on this port at all addresses (`ss -ltnp`)",
                self.address
            ),
            _ => format!("cannot listen on {}: {error}", self.address),
        };
        let before = self.shared.troubles().insert(self.address, why.clone());
        if before.as_ref() != Some(&why) {
            tracing::error!(service = name, "{why}; it is tried again every {} s", RETRY.as_secs());
        }
    }

    /// Gives a client its places and a worker. While there are no places nobody else is accepted here.
    async fn admit(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(address = %self.address, %error, "cannot accept a connection");
                tokio::time::sleep(BREATH).await;
                return;
            }
        };
        let live = Arc::clone(&self.live.borrow());
        let cuts = live.cuts();
        let service = Arc::clone(&live.places).acquire_owned().await;
        let process = Arc::clone(&self.places).acquire_owned().await;
        // They are never closed.
        let (Ok(service), Ok(process)) = (service, process) else { return };
        // Workers have their own epoll(7).
        let Ok(stream) = stream.into_std() else { return };
        self.workers.give(Guest {
            stream,
            client,
            vip: self.address,
            live,
            cuts,
            places: [service, process],
        });
    }
}
