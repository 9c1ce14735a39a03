//! The exchange over UDP: a socket, a clock and the tables, on a thread of their own. Peers listen to the same port.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::codec::{LARGEST, Nonce};
use super::exchange::{Company, Counts, Exchange, PeerView};
use super::table::FlowTable;
use crate::types::MonotonicTime;
use crate::vrrp::trailer::KeyRing;

/// Only what is touched takes memory.
const STACK: usize = 256 << 10;

/// From one reading of the tables to the next: what begins within it before an owner dies, its peers have not heard of.
const READ_EVERY: Duration = Duration::from_millis(200);

/// Reading takes one part in so many of the time at most.
const SHARE: u32 = 20;

/// How often something that had to wait is said.
const TICK: Duration = Duration::from_millis(100);

/// From one try to have the address to the next: it may be that of an interface that is yet to come, or a predecessor's.
const RETRY: Duration = Duration::from_secs(1);

/// Datagrams that are taken in before something else has its turn.
const AT_ONCE: usize = 64;

/// The agent's end. Dropping it ends the thread.
#[derive(Debug)]
pub struct FlowSync {
    wanted: watch::Sender<Option<Company>>,
    shared: Arc<Mutex<View>>,
    thread: Option<JoinHandle<()>>,
}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Why nothing is said or heard, or why the tables are not read.
    pub reason: Option<String>,
    /// In the order of their addresses.
    pub peers: Vec<PeerView>,
    /// Flows that are told.
    pub flows: usize,
    /// Flows that are not, as there are too many.
    pub untold: u64,
    /// What was told, and what came of what was heard.
    pub counts: Counts,
}

impl FlowSync {
    /// Speaks with nobody yet. An address that cannot be had is tried again.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(listen: SocketAddr, keys: KeyRing, table: Box<dyn FlowTable>) -> io::Result<Self> {
        let (wanted, wishes) = watch::channel(Some(Company::default()));
        let shared = Arc::<Mutex<View>>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Worker { exchange: Exchange::new(keys), table, listen, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new().name("flow-sync".into()).stack_size(STACK);
        let thread = thread.spawn(move || runtime.block_on(worker.run(wishes)))?;
        Ok(Self { wanted, shared, thread: Some(thread) })
    }

    /// These are the peers from now on.
    pub fn set_company(&self, company: Company) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&company);
            *wanted = Some(company);
            changed
        });
    }

    /// How it is.
    pub fn view(&self) -> View {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FlowSync {
    fn drop(&mut self) {
        self.wanted.send_replace(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    exchange: Exchange,
    table: Box<dyn FlowTable>,
    listen: SocketAddr,
    shared: Arc<Mutex<View>>,
}

impl Worker {
    /// Until nothing is wanted any more.
    async fn run(mut self, mut wishes: watch::Receiver<Option<Company>>) {
        while wishes.borrow().is_some() {
            match UdpSocket::bind(self.listen).await {
                Ok(socket) => self.serve(&socket, &mut wishes).await,
                Err(error) => {
                    self.show(Some(format!("cannot listen to {}: {error}", self.listen)));
                    let changed = tokio::time::timeout(RETRY, wishes.changed()).await;
                    if matches!(changed, Ok(Err(_))) {
                        return;
                    }
                }
            }
        }
    }

    async fn serve(&mut self, socket: &UdpSocket, wishes: &mut watch::Receiver<Option<Company>>) {
        wishes.mark_changed();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut read_at = Instant::now();
        let mut trouble = None;
        loop {
            tokio::select! {
                changed = wishes.changed() => {
                    let company = wishes.borrow_and_update().clone();
                    match company {
                        Some(company) if changed.is_ok() => self.exchange.set_company(&company, draw),
                        _ => return,
                    }
                }
                readable = socket.readable() => {
                    if readable.is_ok() {
                        self.hear(socket).await;
                    }
                }
                _ = tick.tick() => {}
            }
            if Instant::now() >= read_at {
                let begun = Instant::now();
                let read = self.exchange.read(&mut *self.table, MonotonicTime::now());
                trouble = read.err().map(|error| format!("cannot read the flows: {error}"));
                read_at = Instant::now() + READ_EVERY.max(begun.elapsed() * SHARE);
            }
            for datagram in self.exchange.speak(MonotonicTime::now()) {
                // One that is lost is said again.
                let _ = socket.send_to(&datagram.bytes, (datagram.to, self.listen.port())).await;
            }
            self.show(trouble.clone());
        }
    }

    async fn hear(&mut self, socket: &UdpSocket) {
        // One byte more than anybody of ours sends.
        let mut room = [0; LARGEST + 1];
        for _ in 0..AT_ONCE {
            let (length, from) = match socket.try_recv_from(&mut room) {
                Ok(received) => received,
                // That a datagram was refused by a host is told by the next call.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            let datagram = room.get(..length).unwrap_or_default();
            let from = from.ip().to_canonical();
            let now = MonotonicTime::now();
            if let Some(answer) = self.exchange.hear(from, datagram, &mut *self.table, now, draw) {
                let _ = socket.send_to(&answer.bytes, (answer.to, self.listen.port())).await;
            }
        }
    }

    fn show(&self, reason: Option<String>) {
        let (flows, untold) = self.exchange.flows();
        let view = View {
            reason,
            peers: self.exchange.peers(MonotonicTime::now()).collect(),
            flows,
            untold,
            counts: self.exchange.counts().clone(),
        };
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

/// A number that was never used before: of the system's randomness.
fn draw() -> Nonce {
    loop {
        if let Some(nonce) = Nonce::new(RandomState::new().hash_one(MonotonicTime::now().0)) {
            return nonce;
        }
    }
}
