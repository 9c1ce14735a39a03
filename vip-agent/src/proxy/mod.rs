//! `mode: proxy`: TCP connections to a VIP, taken over by this process and passed on to backends, with a PROXY protocol header
//! that names the client.
//!
//! It runs on threads of its own, so that traffic costs the agent's runtime nothing, and only once there is something to serve:
//! a [`Proxy`] without services has no thread, no socket and no memory.
//!
//! | What happens when… | Where |
//! |---|---|
//! | services come, go or change | [`service`] says what they are, `control` applies it |
//! | a client connects | `listener` accepts it, a `worker` gets it |
//! | a backend is chosen | `choose`: pure, the rings of the XDP program's services |
//! | a connection lives and ends | `connection` connects and names the client (`header`), `relay` passes bytes on |
//! | something is counted | `counters` |
//!
//! **Listening.** All nodes listen all the time, by IP_FREEBIND on addresses that they may not have, so that a takeover has
//! nothing to do here: the address comes to lo and the socket is there. A listener without its address gets nothing: whether a
//! frame is for this host is decided by its addresses, before any socket is looked for, so a Backup's own processes still
//! reach the Active node. What it does hold is the port against a wildcard listener on the same host; better refused on a Backup
//! in daylight than found at the takeover. Not IP_TRANSPARENT: its connections would go on speaking as the VIP after that
//! has moved (and it wants a privilege).
//!
//! **Moves.** A TCP connection that ends here cannot move. After a planned move the address stays on lo for `grace` and
//! the former owner sees its connections through; whatever is left is reset when the address goes ([`Proxy::cut`]).
//! A process that dies resets its connections (SO_LINGER 0 until both ends have closed): half an answer must not look whole.

mod choose;
mod connection;
mod control;
mod counters;
mod header;
mod listener;
mod live;
mod relay;
pub mod service;
mod sockets;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use self::control::Order;
pub use self::counters::{BackendCounts, Ending, Failure, ServiceCounts};
pub use self::header::HeaderVersion;
use self::live::Live;
pub use self::service::{InvalidService, Limits, PortMap, ProxyBackend, ProxyService};

/// How long a VIP's address may have to wait for the resets of its connections.
const CUT_TIME: Duration = Duration::from_millis(50);

/// The agent's end. Dropping it resets all connections and ends the threads.
#[derive(Debug, Default)]
pub struct Proxy {
    running: Option<Running>,
}

/// Why services are not served.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// They cannot be.
    #[error(transparent)]
    Invalid(#[from] InvalidService),
    /// There are no threads to do it.
    #[error("cannot start a thread for `mode: proxy`: {0}")]
    Threads(#[from] std::io::Error),
}

/// What listens, and what does not.
#[derive(Debug)]
struct Running {
    orders: UnboundedSender<Order>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the agent may look at.
#[derive(Debug, Default)]
struct Shared {
    /// In the order in which they were given.
    services: Mutex<Vec<Arc<Live>>>,
    /// Addresses that cannot be listened on, with the reason.
    troubles: Mutex<BTreeMap<SocketAddr, String>>,
}

impl Proxy {
    /// Serves these from now on, and nothing else. What stays the same is left alone: listeners keep what waits in them, and
    /// connections stay with their backends whatever becomes of those. Connections of services that are gone are served
    /// for their `grace`.
    ///
    /// Returns at once; an address that cannot be listened on is tried again every 3 s ([`Self::troubles`]).
    ///
    /// # Errors
    /// A service cannot be served, or no thread could be started. Nothing has been changed then.
    pub fn serve(&mut self, services: Vec<ProxyService>) -> Result<(), ProxyError> {
        service::check(&services)?;
        if services.is_empty() && self.running.is_none() {
            return Ok(());
        }
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(Running::start()?),
        };
        running.send(Order::Serve(services));
        Ok(())
    }

    /// Resets all connections to these addresses, which this node is about to lose. Later ones are served, should it get
    /// them again.
    ///
    /// Returns when that is done, within 50 ms in any case: a reset of an address that is gone would not leave.
    pub async fn cut(&self, vips: &[IpAddr]) {
        let Some(running) = &self.running else { return };
        running.send(Order::Cut(vips.to_vec()));
        let is_open = |live: &Arc<Live>| vips.contains(&live.vip) && live.is_open();
        let latest = Instant::now() + CUT_TIME;
        while running.shared.services().iter().any(is_open) && Instant::now() < latest {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What was counted, by service.
    pub fn counts(&self) -> Vec<ServiceCounts> {
        let Some(running) = &self.running else { return Vec::new() };
        running.shared.services().iter().map(|live| live.counts()).collect()
    }

    /// Addresses that cannot be listened on now, with the reason.
    pub fn troubles(&self) -> BTreeMap<SocketAddr, String> {
        self.running.as_ref().map(|running| running.shared.troubles().clone()).unwrap_or_default()
    }
}

impl Running {
    fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (orders, received) = unbounded_channel();
        let threads = worker::start(received, &shared)?;
        Ok(Self { orders, shared, threads })
    }

    fn send(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::error!("the threads of `mode: proxy` have ended: restart the agent");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The first thread ends when nobody can order anything any more, and the others after it.
        self.orders = unbounded_channel().0;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn services(&self) -> MutexGuard<'_, Vec<Arc<Live>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
