//! The threads: the first one listens and follows orders, and each serves its share of the connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::Shared;
use super::connection::{Guest, serve};
use super::control::{self, Order};
use super::sockets::allow_descriptors;

/// More threads than this would be more than a node can have to spare for other people's bytes.
const MOST: usize = 4;

/// Only what is touched takes memory.
const STACK: usize = 512 << 10;

/// Who serves connections. Threads end when all clones are gone.
#[derive(Clone, Debug)]
pub(super) struct Workers {
    guests: Arc<[UnboundedSender<Guest>]>,
    next: Arc<AtomicUsize>,
}

// === impl Workers ===

impl Workers {
    /// Hands a client to the thread whose turn it is. The queue is bounded by the places that guests have.
    pub(super) fn give(&self, guest: Guest) {
        let turn = self.next.fetch_add(1, Relaxed) % self.guests.len();
        // A thread that has ended has taken the others with it: the agent ends.
        let _ = self.guests[turn].send(guest);
    }
}

/// Starts the threads.
///
/// # Errors
/// The system has none left, or no epoll(7); those that were started have ended then.
pub(super) fn start(
    orders: UnboundedReceiver<Order>,
    shared: &Arc<Shared>,
) -> io::Result<Vec<JoinHandle<()>>> {
    allow_descriptors();
    let count = thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST));
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded_channel()).unzip();
    let workers = Workers { guests: senders.into(), next: Arc::default() };
    let control = control::run(orders, Arc::clone(shared), workers);
    let mut receivers = receivers.into_iter().enumerate();
    let mut threads = Vec::with_capacity(count);
    let Some((_, first)) = receivers.next() else { return Ok(threads) };
    let runtime = runtime()?;
    threads.push(spawn(0, move || {
        runtime.block_on(async {
            // Its end is the end of all: what is dropped then is reset.
            tokio::select! {
                () = control => {}
                () = work(first) => {}
            }
        });
    })?);
    for (number, guests) in receivers {
        let runtime = self::runtime()?;
        threads.push(spawn(number, move || runtime.block_on(work(guests)))?);
    }
    Ok(threads)
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn spawn(number: usize, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("proxy-{number}")).stack_size(STACK).spawn(work)
}

/// Serves connections until nobody can bring more.
async fn work(mut guests: UnboundedReceiver<Guest>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            guest = guests.recv() => match guest {
                Some(guest) => drop(connections.spawn(serve(guest))),
                None => return,
            },
            Some(ended) = connections.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a connection of `mode: proxy` has failed in us");
            },
        }
    }
}
