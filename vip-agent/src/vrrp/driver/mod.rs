//! The driver thread: joins machines, sockets, clock and ownership words.
//!
//! One thread, one event loop, real-time where the system allows. It never waits for anything but its sockets and its
//! timer: no netlink, no files, no locks, no allocation once an instance is in place. The tokio runtime prepares all
//! that it needs and hands it over as a [`Command`]; what happens comes back as a [`Report`].

mod announcing;
mod complaints;
mod detecting;
mod event_loop;
mod former;
mod groups;
mod outbox;
pub(crate) mod realtime;
mod router;
mod routers;
mod snapshot;
mod stopwatch;
mod timers;
mod vitals;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use self::detecting::Detection;
pub use self::realtime::Realtime;
pub use self::router::{Binding, Family, Inheritance, Router};
pub use self::snapshot::{AdvertCounts, Mismatch, Snapshot, SnapshotPeer};
pub use self::stopwatch::Phases;
pub use self::vitals::{Silence, Vitals};
use crate::types::{AdvertInterval, Family as IpFamily, MacAddr, MonotonicTime};
use crate::vrrp::machine::{Event, Parameters, Transition};
use crate::vrrp::socket::{PacketReceiver, SendError};
use crate::watcher::{Lifeline, crash};

/// Commands and reports that can wait in their queues. A takeover of 255 instances makes about 1000 reports.
const QUEUE: usize = 4096;

/// Longer than the driver ever takes for an answer.
pub const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Answers to [`Driver::inspect`] that can wait: one is asked for at a time, the others were given up.
const ANSWERS: usize = 4;

/// An instance within the driver: stable from [`Command::Add`] to [`Command::Remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u16);

/// A sync group within the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u16);

/// An instance's place in its sync group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: GroupId,
    /// The member of the lowest rank breaks ties between equal priorities for all: the lowest VIP, as that is the same on
    /// all nodes.
    pub rank: IpAddr,
}

/// Another router that owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenOwner {
    /// Its address.
    pub address: IpAddr,
    /// What it announces.
    pub interval: AdvertInterval,
}

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
    /// Something happened to the instance at this time: the answer of a probe, for example.
    TellOf(InstanceId, Event, MonotonicTime),
    /// The MAC of the router that [`Report::WhereIs`] asked for; `None` = not known.
    Found(InstanceId, IpAddr, Option<MacAddr>),
    /// Listen on an interface (one socket per interface and family, shared by its instances).
    Listen(Box<PacketReceiver>),
    /// Stop listening for this family on the interface with this index.
    Unlisten(u32, IpFamily),
    /// Take part in fast detection on an interface; what did so there before comes back as [`Retired::Detection`].
    Detect(Box<Detection>),
    /// Take no part any more on the interface with this index.
    Undetect(u32),
    /// Begin as what another process's instance was, in place of [`Event::Startup`].
    Resume(InstanceId, Box<Inheritance>),
    /// Have all instances fall silent, so that another process may go on in their place.
    Pause,
    /// Have them go on: none has.
    GoOn,
    /// Say how the instance is, for the question with this number.
    Inspect(InstanceId, u64),
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
    /// The owner, by the source of its advertisements, which do not tell its MAC on the VIPs' link: to be answered with
    /// [`Command::Found`].
    WhereIs(InstanceId, IpAddr),
    /// Another router's advertisement does not fit ours.
    Mismatch(InstanceId, Mismatch),
    /// Another owner, or another interval of it, than was reported before.
    Owner(InstanceId, SeenOwner),
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
    /// Fast detection on an interface that takes part no more.
    Detection(Box<Detection>),
}

/// The runtime's end: commands in, reports out.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    report_waits: AsyncFd<OwnedFd>,
    answer_waits: AsyncFd<OwnedFd>,
    /// Questions asked by [`Driver::inspect`].
    questions: AtomicU64,
    thread: Option<JoinHandle<()>>,
    realtime: Realtime,
}

/// What both threads hold. The driver wakes the runtime by eventfds: the runtime's own means take locks, and whoever holds
/// one may be waiting for a CPU that this thread's equals have taken.
#[derive(Debug)]
struct Shared {
    commands: ArrayQueue<Command>,
    command_waits: OwnedFd,
    reports: ArrayQueue<Report>,
    report_waits: OwnedFd,
    /// By the question's number; `None`: no such instance.
    answers: ArrayQueue<(u64, Option<Snapshot>)>,
    answer_waits: OwnedFd,
    lost_reports: AtomicU64,
    /// Some instance has moved since this was last asked: who owns what is to be looked at anew.
    moved: AtomicBool,
    /// Whether the runtime is to be woken for reports.
    reported: AtomicBool,
    /// Counted up by the runtime: a sign of life (see [`Driver::beat`]).
    beats: AtomicU64,
    /// For others than the two threads.
    vitals: Arc<Vitals>,
}

impl Driver {
    /// Starts the thread, which holds the lifeline from then on: to its death, or until it is told to stop. To be called
    /// within the tokio runtime.
    ///
    /// # Errors
    /// The system has no file descriptors or threads left, or somebody held the lifeline before.
    pub fn start(lifeline: Arc<Lifeline>) -> io::Result<Self> {
        let counter = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            commands: ArrayQueue::new(QUEUE),
            command_waits: counter()?,
            reports: ArrayQueue::new(QUEUE),
            report_waits: counter()?,
            answers: ArrayQueue::new(ANSWERS),
            answer_waits: counter()?,
            lost_reports: AtomicU64::new(0),
            moved: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            beats: AtomicU64::new(0),
            vitals: Arc::default(),
        });
        let report_waits = watch(&shared.report_waits)?;
        let answer_waits = watch(&shared.answer_waits)?;
        let event_loop = event_loop::EventLoop::new(Arc::clone(&shared))?;
        let obituary = Obituary(Arc::clone(&shared));
        let (started, realtime) = std::sync::mpsc::sync_channel(1);
        let thread =
            std::thread::Builder::new().name("vrrp".into()).stack_size(realtime::STACK).spawn(move || {
                let _obituary = obituary;
                let held = match lifeline.hold() {
                    Ok(held) => held,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let _driver = crash::driver_is_this_thread();
                let _ = started.send(Ok(Realtime::enter()));
                if !event_loop.run() {
                    held.until_death();
                }
            })?;
        let realtime = realtime.recv().map_err(io::Error::other)??;
        let questions = AtomicU64::new(0);
        Ok(Self { shared, report_waits, answer_waits, questions, thread: Some(thread), realtime })
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
            if let Some(report) = self.shared.reports.pop() {
                return report;
            }
            if let Err(error) = wait(&self.report_waits).await {
                return Report::Died(format!("waiting for the VRRP driver's reports: {error}"));
            }
        }
    }

    /// The next report, if there is one already.
    pub fn waiting_report(&self) -> Option<Report> {
        self.shared.reports.pop()
    }

    /// How an instance is; `None` if the driver does not know it, or does not answer within a second.
    pub async fn inspect(&self, id: InstanceId) -> Option<Snapshot> {
        let number = self.questions.fetch_add(1, Ordering::Relaxed);
        self.send(Command::Inspect(id, number)).await;
        tokio::time::timeout(ANSWER_TIME, self.answer(number)).await.ok()?
    }

    async fn answer(&self, number: u64) -> Option<Snapshot> {
        loop {
            while let Some((answered, snapshot)) = self.shared.answers.pop() {
                // Nobody waits any more for the answers to earlier questions.
                if answered == number {
                    return snapshot;
                }
            }
            wait(&self.answer_waits).await.ok()?;
        }
    }

    /// Shows the driver that the runtime lives. Silence for 3 s is a fault of every instance: verdicts and local
    /// addresses are no longer looked after.
    pub fn beat(&self) {
        self.shared.beats.fetch_add(1, Ordering::Relaxed);
        self.shared.vitals.beaten();
    }

    /// Signs of life and lateness, for whoever watches over the process.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.shared.vitals
    }

    /// Reports that were dropped because the runtime did not fetch them.
    pub fn lost_reports(&self) -> u64 {
        self.shared.lost_reports.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        count(&self.shared.command_waits);
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
            self.0.wake_runtime();
        }
    }
}

impl Shared {
    /// Leaves a report for the runtime, which hears of it by [`Self::wake_runtime`].
    fn report(&self, report: Report) {
        if let Report::Moved { .. } = report {
            self.moved.store(true, Ordering::Relaxed);
        }
        if self.reports.push(report).is_err() {
            self.lost_reports.fetch_add(1, Ordering::Relaxed);
        }
        self.reported.store(true, Ordering::Relaxed);
    }

    /// Once per turn of the loop, not for each report: a takeover of all instances makes many, and nobody's first
    /// announcement is to wait for the runtime to be woken.
    fn wake_runtime(&self) {
        if self.reported.swap(false, Ordering::Relaxed) {
            count(&self.report_waits);
        }
    }

    fn answer(&self, number: u64, snapshot: Option<Snapshot>) {
        // Of answers that nobody fetched the oldest makes room.
        drop(self.answers.force_push((number, snapshot)));
        count(&self.answer_waits);
    }
}

/// Wakes whoever waits for an eventfd. Its counter saturates only after 2^64 - 2 unread wake-ups: it cannot fail otherwise.
fn count(counter: &OwnedFd) {
    let _ = rustix::io::write(counter, &1u64.to_ne_bytes());
}

/// Registers an eventfd with the runtime.
fn watch(counter: &OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let counter = counter.try_clone()?;
    // SAFETY: an OwnedFd stays the same open descriptor until it is dropped, and the result owns it.
    Ok(unsafe { AsyncFd::register_with_interest(counter, Interest::READABLE) }?)
}

/// Waits until an eventfd was counted up, and resets it.
async fn wait(counter: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut ready = counter.readable().await?;
    // Taken back before the counter is read: what is counted after that makes it ready again.
    ready.clear_ready();
    let _ = rustix::io::read(counter.get_ref(), &mut [0u8; 8]);
    Ok(())
}
