//! The HTTP API: `/metrics`, `/healthz`, `/readyz`, `/status`, `/events` and a page at `/`. It shows, and changes nothing.
//!
//! It runs on a thread of its own, so that strangers' requests and TLS handshakes cost the agent's runtime nothing, and so that
//! `/healthz` can tell when that runtime or the driver hangs. What it does not know itself it asks the agent for ([`Ask`]).

mod ask;
mod conversation;
mod events;
mod health;
mod listener;
mod metrics;
mod page;
mod respond;
mod routes;
mod status;
mod tls;
mod token;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

pub use self::ask::{Ask, Asks, Readiness};
pub use self::tls::{IdentityError, ServerIdentity};
pub use self::token::{Token, TokenError};
use crate::config;
use crate::events::Events;
use crate::status::ApiStatus;
use crate::vrrp::driver::Vitals;

/// Its stack: rustls and hyper want some, unoptimised ones more. Only what is touched takes memory.
const STACK: usize = 1 << 20;

/// The agent's end. Dropping it ends the thread and all connections.
#[derive(Debug)]
pub struct Api {
    wanted: watch::Sender<Option<config::Api>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What endpoints show without asking anybody.
#[derive(Clone, Debug)]
pub struct View {
    /// Signs of life.
    pub vitals: Arc<Vitals>,
    /// What happens.
    pub events: Events,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    view: View,
    agent: ask::Agent,
    readers: events::Readers,
    /// Why nothing listens where something should.
    trouble: Mutex<Option<String>>,
}

impl Api {
    /// Serves what is wanted, and hands out the questions that the agent has to answer. An address that cannot be had is
    /// logged and tried again: VIPs matter more than their metrics.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(wanted: Option<config::Api>, view: View) -> io::Result<(Self, Asks)> {
        let (asks, questions) = mpsc::channel(ask::WAITING);
        let shared = Arc::new(Shared {
            view,
            agent: ask::Agent::new(asks),
            readers: events::Readers::default(),
            trouble: Mutex::default(),
        });
        let (wanted, wishes) = watch::channel(wanted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("api".into()).stack_size(STACK);
        let thread = thread.spawn(move || runtime.block_on(listener::run(wishes, theirs)))?;
        Ok((Self { wanted, shared, thread: Some(thread) }, Asks::new(questions)))
    }

    /// Serves this from now on. Connections of before end; the listener stays if its address does.
    pub fn serve(&self, wanted: Option<config::Api>) {
        self.wanted.send_replace(wanted);
    }

    /// How it is; `None`: it is not wanted.
    pub fn status(&self) -> Option<ApiStatus> {
        let listen = self.wanted.borrow().as_ref()?.listen;
        Some(ApiStatus { listen, reason: self.shared.trouble().clone() })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // The thread ends when nobody can want anything any more.
        self.wanted = watch::Sender::new(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
