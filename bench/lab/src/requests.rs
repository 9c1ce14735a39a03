//! A client that asks on schedule, whether or not earlier answers have come: what a move of the VIP costs its users.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Stamp;
use crate::clock::longest_gap;
use crate::node::Node;
use crate::stats::Sample;

/// How to ask: every 1 ms, 3 s patience, no delay, a new TCP connection per request, unless said otherwise.
#[derive(Clone, Debug)]
pub struct RequestsBuilder {
    client: Node,
    targets: Vec<SocketAddr>,
    every: Duration,
    delay: Duration,
    patience: Duration,
    keep_alive: bool,
}

/// A running client. It stops on drop.
#[derive(Debug)]
pub struct Requests {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    done: Mutex<Vec<Request>>,
    in_flight: AtomicUsize,
    stop: AtomicBool,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whom it asked.
    pub target: SocketAddr,
    /// When it began to connect.
    pub start: Stamp,
    /// When it had its answer, or gave up.
    pub end: Stamp,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By this node's complete answer.
    Answered(Arc<str>),
    /// No complete answer in time.
    TimedOut,
    /// The connection was reset.
    Reset,
    /// The connection was refused.
    Refused,
    /// Otherwise: what the system, or the incomplete answer, said.
    Failed(String),
}

/// Requests that have ended, by the time they started.
#[derive(Clone, Debug, Default)]
pub struct Report {
    requests: Vec<Request>,
}

// === impl RequestsBuilder ===

impl RequestsBuilder {
    pub(crate) fn new(client: Node) -> Self {
        Self {
            client,
            targets: Vec::new(),
            every: Duration::from_millis(1),
            delay: Duration::ZERO,
            patience: Duration::from_secs(3),
            keep_alive: false,
        }
    }

    /// Asks from another client.
    pub fn from(mut self, client: &Node) -> Self {
        self.client = client.clone();
        self
    }

    /// Whom to ask, in turn.
    pub fn targets(mut self, targets: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.targets = targets.into_iter().collect();
        self
    }

    /// Time between requests, whole milliseconds: with two targets each is asked half as often.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// How long the server shall take, whole milliseconds: `delay / every` requests are in flight.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// When to give a request up. A lost SYN is sent again after a second: such a request is slow, not lost.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Uses idle connections again.
    pub fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    /// Starts asking.
    ///
    /// # Errors
    /// There is no target, or no time between requests.
    pub fn start(self) -> Result<Requests> {
        ensure!(!self.targets.is_empty(), "requests need a target: a lab with VIPs has some by itself");
        ensure!(
            self.every >= Duration::from_millis(1),
            "requests come at most every millisecond, not every {:?}",
            self.every
        );
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let client = self.client.clone();
        let thread = client.thread("requests", move || run(self, theirs))?;
        Ok(Requests { shared, thread: Some(thread) })
    }
}

// === impl Requests ===

impl Requests {
    /// What has ended so far.
    pub fn report(&self) -> Report {
        Report::new(self.shared.done.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Those that have ended after the first `seen`, in the order of their ends: for watching while they run.
    pub fn since(&self, seen: usize) -> Vec<Request> {
        let done = self.shared.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.get(seen..).unwrap_or_default().to_vec()
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Starts no more requests, waits for those in flight, and reports.
    pub fn stop(mut self) -> Report {
        self.finish();
        self.report()
    }

    fn finish(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.finish();
    }
}

// === impl Request ===

impl Request {
    /// From start to end.
    pub fn latency(&self) -> Duration {
        self.end - self.start
    }

    /// Whether it got its answer.
    pub fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered(_))
    }
}

// === impl Report ===

impl Report {
    fn new(mut requests: Vec<Request>) -> Self {
        requests.sort_by_key(|request| request.start);
        Self { requests }
    }

    /// All of them, by the time they started.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Those that `wanted` likes: of one family, or of one event.
    pub fn only(&self, mut wanted: impl FnMut(&Request) -> bool) -> Self {
        Self { requests: self.requests.iter().filter(|request| wanted(request)).cloned().collect() }
    }

    /// Those that started from `from` on, before `to`.
    pub fn started_between(&self, from: Stamp, to: Stamp) -> Self {
        self.only(|request| from <= request.start && request.start < to)
    }

    /// Those that got no answer.
    pub fn lost(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| !request.is_answered())
    }

    /// Those that got an answer, but only after more than `limit`.
    pub fn slow(&self, limit: Duration) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(move |request| request.is_answered() && request.latency() > limit)
    }

    /// How many each node answered.
    pub fn answered_by(&self) -> BTreeMap<Arc<str>, usize> {
        let mut counts = BTreeMap::new();
        for request in &self.requests {
            if let Outcome::Answered(node) = &request.outcome {
                *counts.entry(Arc::clone(node)).or_default() += 1;
            }
        }
        counts
    }

    /// The longest time in which no answer arrived, between the first answer and the last.
    pub fn gap(&self) -> Duration {
        self.gap_around(Stamp::MIN, Stamp::MAX)
    }

    /// The longest time without an answer that has a part in `from` to `to`.
    pub fn gap_around(&self, from: Stamp, to: Stamp) -> Duration {
        let answered = self.requests.iter().filter(|request| request.is_answered());
        let mut ends: Vec<Stamp> = answered.map(|request| request.end).collect();
        ends.sort_unstable();
        longest_gap(&ends, from, to)
    }

    /// Latencies of answered requests in milliseconds.
    pub fn latencies(&self) -> Sample {
        Sample::millis(self.requests.iter().filter(|request| request.is_answered()).map(Request::latency))
    }
}

// === the client's thread ===

/// What all requests of a client share.
struct Asker {
    shared: Arc<Shared>,
    question: String,
    patience: Duration,
    /// Idle connections, if they are kept.
    idle: Option<Mutex<Vec<(SocketAddr, TcpStream)>>>,
}

fn run(builder: RequestsBuilder, shared: Arc<Shared>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the client's runtime")?;
    let connection = if builder.keep_alive { "keep-alive" } else { "close" };
    let asker = Arc::new(Asker {
        shared,
        question: format!(
            "GET /?delay_ms={} HTTP/1.1\r\nHost: vip\r\nConnection: {connection}\r\n\r\n",
            builder.delay.as_millis()
        ),
        patience: builder.patience,
        idle: builder.keep_alive.then(Mutex::default),
    });
    runtime.block_on(async move {
        let mut tick = interval(builder.every);
        // After a pause what was due is asked: the schedule does not wait for anybody.
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for &target in builder.targets.iter().cycle() {
            tick.tick().await;
            if asker.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            asker.shared.in_flight.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(ask(Arc::clone(&asker), target));
        }
        while asker.shared.in_flight.load(Ordering::Relaxed) > 0 {
            tick.tick().await;
        }
    });
    Ok(())
}

async fn ask(asker: Arc<Asker>, target: SocketAddr) {
    let start = Stamp::now();
    let outcome = match timeout(asker.patience, asker.converse(target)).await {
        Ok(Ok(node)) => Outcome::Answered(node.into()),
        Ok(Err(error)) => Outcome::of(&error),
        Err(_) => Outcome::TimedOut,
    };
    let request = Request { target, start, end: Stamp::now(), outcome };
    asker.shared.done.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    asker.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
}

impl Asker {
    /// Connects, asks, and returns the body: the node's name.
    async fn converse(&self, target: SocketAddr) -> io::Result<String> {
        let mut stream = match self.take_idle(target) {
            Some(stream) => stream,
            None => TcpStream::connect(target).await?,
        };
        stream.write_all(self.question.as_bytes()).await?;
        let mut answer = Vec::with_capacity(512);
        loop {
            if let Some(body) = complete_body(&answer)? {
                if let Some(idle) = &self.idle {
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push((target, stream));
                }
                return Ok(body);
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection ended before the answer did",
                ));
            }
        }
    }

    fn take_idle(&self, target: SocketAddr) -> Option<TcpStream> {
        let mut idle = self.idle.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let position = idle.iter().position(|(address, _)| *address == target)?;
        Some(idle.swap_remove(position).1)
    }
}

impl Outcome {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            // The kernel's own patience with SYNs, or with an unacknowledged question.
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// The body of a whole HTTP/1.1 answer with a Content-Length; none while it is incomplete.
fn complete_body(answer: &[u8]) -> io::Result<Option<String>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| invalid("the answer's head is no text"))?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(invalid(head.lines().next().unwrap_or_default()));
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length
        .and_then(|(_, length)| length.trim().parse::<usize>().ok())
        .ok_or_else(|| invalid("no Content-Length"))?;
    let body = answer.get(end + 4..end + 4 + length);
    Ok(body.map(|body| String::from_utf8_lossy(body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(list: &[(u64, u64, bool)]) -> Report {
        let at = |ms: u64| Stamp::from_nanos(ms * 1_000_000);
        let request = |&(start, end, answered): &(u64, u64, bool)| Request {
            target: SocketAddr::from(([10, 0, 0, 50], 80)),
            start: at(start),
            end: at(end),
            outcome: if answered { Outcome::Answered("node1".into()) } else { Outcome::Reset },
        };
        Report::new(list.iter().map(request).collect())
    }

    #[test]
    fn the_gap_is_between_answers_not_between_requests() {
        // The request at 2 ms hangs until the VIP is back at 40 ms; the one at 3 ms is lost.
        let report = report(&[(0, 1, true), (1, 2, true), (2, 40, true), (3, 4, false), (40, 41, true)]);
        assert_eq!(report.gap(), Duration::from_millis(38));
        assert_eq!(report.lost().count(), 1);
        assert_eq!(report.slow(Duration::from_millis(10)).count(), 1);
    }

    #[test]
    fn a_gap_elsewhere_does_not_count_for_an_event() {
        let report = report(&[(0, 1, true), (50, 51, true), (51, 52, true), (60, 61, true)]);
        let at = |ms: u64| Stamp::from_nanos(ms * 1_000_000);
        assert_eq!(report.gap_around(at(52), at(100)), Duration::from_millis(9));
        assert_eq!(report.gap_around(at(20), at(30)), Duration::from_millis(50));
    }

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nnode1";
        assert_eq!(complete_body(answer).unwrap().as_deref(), Some("node1"));
        for cut in 0..answer.len() {
            assert_eq!(complete_body(&answer[..cut]).unwrap(), None, "cut at {cut}");
        }
        assert!(complete_body(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
    }
}
