//! The driver thread: joins machines, sockets, clock and ownership words.
//!
//! One thread, one event loop, real-time where the system allows. It never waits for anything but its sockets and its
//! timer: no netlink, no files, no locks, no allocation once an instance is in place. The tokio runtime prepares all
//! that it needs and hands it over as a [`Command`]; what happens comes back as a [`Report`].

mod event_loop;
mod realtime;
mod router;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{Notify, oneshot};

pub use self::realtime::Realtime;
pub use self::router::{AdvertCounts, Binding, Family, Mismatch, Phases, Router, Snapshot, SnapshotPeer};
use crate::types::{Family as IpFamily, MonotonicTime};
use crate::vrrp::machine::{Event, Parameters, Transition};
use crate::vrrp::socket::{PacketReceiver, SendError};

/// Commands and reports that can wait in their queues. A takeover of 255 instances makes about 1000 reports.
const QUEUE: usize = 4096;

/// Longer than the driver ever takes for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// An instance within the driver: stable from [`Command::Add`] to [`Command::Remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u16);

/// What the runtime asks of the driver.
#[derive(Debug)]
pub enum Command {
    /// Take an instance in. It stays in Initialize until it is bound and told [`Event::Startup`].
    Add(InstanceId, Box<Router>),
    /// Let go of an instance; it comes back as [`Retired::Router`].
    Remove(InstanceId),
    /// Use these sockets and frames from now on; what was used before comes back as [`Retired::Binding`].
    Bind(InstanceId, Option<Box<Binding>>),
    /// Announce the VIPs again if the instance is Active: some are new.
    Announce(InstanceId),
    /// Use these parameters and this grace time from now on.
    Reconfigure(InstanceId, Parameters, Duration),
    /// Something happened to the instance.
    Tell(InstanceId, Event),
    /// Listen on an interface (one socket per interface and family, shared by its instances).
    Listen(Box<PacketReceiver>),
    /// Stop listening for this family on the interface with this index.
    Unlisten(u32, IpFamily),
    /// Say how the instance is.
    Inspect(InstanceId, oneshot::Sender<Snapshot>),
    /// End the thread.
    Stop,
}

/// What the driver tells the runtime.
#[derive(Debug)]
pub enum Report {
    /// The state changed.
    Moved {
        /// Which instance.
        id: InstanceId,
        /// How and why.
        transition: Transition,
        /// How long each step took.
        phases: Phases,
        /// CLOCK_MONOTONIC time of the decision.
        at: MonotonicTime,
    },
    /// Local addresses are to be put in place; answer with [`Event::Staged`].
    Stage(InstanceId),
    /// Local addresses are to be taken away, now or after the grace time.
    Unstage(InstanceId, Unstage),
    /// An advertisement could not be sent; nothing was renewed.
    Refused(InstanceId, SendError),
    /// Another router's advertisement does not fit ours.
    Mismatch(InstanceId, Mismatch),
    /// Something to be dropped outside of the driver thread: closing a socket may take the routing lock.
    Retired(Retired),
    /// The thread ended by itself: the agent must end too.
    Died(String),
}

/// When local addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstage {
    /// At once.
    Now,
    /// When the grace time is over.
    AfterGrace,
}

/// See [`Report::Retired`].
#[derive(Debug)]
pub enum Retired {
    /// An instance that was removed.
    Router(Box<Router>),
    /// Sockets and frames that were replaced.
    Binding(Box<Binding>),
    /// A socket that is no longer listened to.
    Receiver(Box<PacketReceiver>),
}

/// The runtime's end: commands in, reports out.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    realtime: Realtime,
}

/// What both threads hold.
#[derive(Debug)]
struct Shared {
    commands: ArrayQueue<Command>,
    command_waits: OwnedFd,
    reports: ArrayQueue<Report>,
    report_waits: Notify,
    lost_reports: AtomicU64,
    /// Counted up by the runtime: a sign of life (see [`Driver::beat`]).
    beats: AtomicU64,
}

impl Driver {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no file descriptors or threads left.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            commands: ArrayQueue::new(QUEUE),
            command_waits: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            reports: ArrayQueue::new(QUEUE),
            report_waits: Notify::new(),
            lost_reports: AtomicU64::new(0),
            beats: AtomicU64::new(0),
        });
        let event_loop = event_loop::EventLoop::new(Arc::clone(&shared))?;
        let obituary = Obituary(Arc::clone(&shared));
        let (started, realtime) = std::sync::mpsc::sync_channel(1);
        let thread =
            std::thread::Builder::new().name("vrrp".into()).stack_size(realtime::STACK).spawn(move || {
                let _obituary = obituary;
                let _ = started.send(Realtime::enter());
                event_loop.run();
            })?;
        let realtime = realtime.recv().map_err(io::Error::other)?;
        Ok(Self { shared, thread: Some(thread), realtime })
    }

    /// Whether the thread runs with real-time priority and locked memory, or why not.
    pub fn realtime(&self) -> &Realtime {
        &self.realtime
    }

    /// Hands a command over. Waits while the queue is full.
    pub async fn send(&self, command: Command) {
        let mut command = command;
        while let Err(back) = self.shared.commands.push(command) {
            command = back;
            self.wake();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.wake();
    }

    /// The next report.
    pub async fn report(&self) -> Report {
        loop {
            let waits = self.shared.report_waits.notified();
            if let Some(report) = self.shared.reports.pop() {
                return report;
            }
            waits.await;
        }
    }

    /// How an instance is; `None` if the driver does not know it, or does not answer within a second.
    pub async fn inspect(&self, id: InstanceId) -> Option<Snapshot> {
        let (answer, snapshot) = oneshot::channel();
        self.send(Command::Inspect(id, answer)).await;
        tokio::time::timeout(ANSWER_TIME, snapshot).await.ok()?.ok()
    }

    /// Shows the driver that the runtime lives. Silence for 3 s is a fault of every instance: verdicts and local
    /// addresses are no longer looked after.
    pub fn beat(&self) {
        self.shared.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports that were dropped because the runtime did not fetch them.
    pub fn lost_reports(&self) -> u64 {
        self.shared.lost_reports.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        // The counter saturates only after 2^64 - 2 unread wake-ups: it cannot fail otherwise.
        let _ = rustix::io::write(&self.shared.command_waits, &1u64.to_ne_bytes());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The queue may be full of commands nobody needs any more.
        let mut stop = Command::Stop;
        while let Err(back) = self.shared.commands.push(stop) {
            stop = back;
            drop(self.shared.commands.pop());
        }
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells that the thread panicked: an agent without its driver must not stay.
struct Obituary(Arc<Shared>);

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.report(Report::Died("the VRRP driver panicked".to_owned()));
        }
    }
}

impl Shared {
    fn report(&self, report: Report) {
        if self.reports.push(report).is_err() {
            self.lost_reports.fetch_add(1, Ordering::Relaxed);
        }
        self.report_waits.notify_one();
    }
}
