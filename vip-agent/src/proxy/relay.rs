//! Passing on what two ends of a connection say to each other, until both have said all, or one breaks off.
//!
//! Bytes go through a buffer of the thread's; only what the other end does not take at once is kept, and nothing more is read
//! until that is gone. So a connection at rest has no buffer, one with a slow reader has one of [`CHUNK`] bytes at most in each
//! direction, and a fast sender is slowed down by its own kernel's window. Not by splice(2): each direction would hold a pipe (two
//! descriptors, and by default 64 KiB in the kernel), and what it saves is a copy of bytes that are in the cache.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::sockets::unacknowledged;

/// What is read at once.
pub(super) const CHUNK: usize = 32 << 10;

/// Chunks that one direction passes on before others have their turn.
const TURN: u32 = 16;

/// What an end said before it broke off is delivered, if the other takes it within this time.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often it is looked at whether it was.
const LOOK: Duration = Duration::from_millis(5);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// One end of what is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both have said all, in order.
    Closed,
    /// One broke off; the other is to be told.
    Reset(Side),
    /// Nothing passed for too long.
    Idle,
}

/// How long nothing may pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) open: Duration,
    pub(super) half_closed: Duration,
}

/// Both ends, with counters of the bytes that they said.
pub(super) struct Ends<'a> {
    pub(super) client: &'a TcpStream,
    pub(super) backend: &'a TcpStream,
    /// Of the client's bytes: the service's and the backend's.
    pub(super) received: [&'a AtomicU64; 2],
    /// Of the backend's.
    pub(super) sent: [&'a AtomicU64; 2],
}

/// Passes on what both say.
pub(super) async fn relay(ends: Ends<'_>, patience: Patience) -> End {
    let Ends { client, backend, received, sent } = ends;
    let pulse = Pulse::start();
    let inward = Direction {
        from: (client, Side::Client),
        to: (backend, Side::Backend),
        count: received,
        pulse: &pulse,
    };
    let outward =
        Direction { from: (backend, Side::Backend), to: (client, Side::Client), count: sent, pulse: &pulse };
    let mut directions: FuturesUnordered<_> = [inward.run(), outward.run()].into_iter().collect();
    let mut limit = patience.open;
    let broke_off = loop {
        tokio::select! {
            ended = directions.next() => match ended {
                None => return End::Closed,
                Some(Ok(())) => limit = patience.half_closed,
                // It is gone, and all that it said is with the other's kernel.
                Some(Err(Broken::Reading(side))) => {
                    delivered(client, backend, side).await;
                    return End::Reset(side);
                }
                // What it has said may be on its way yet.
                Some(Err(Broken::Writing(side))) => break side,
            },
            side = broken_off(client, backend) => break side,
            () = pulse.silence(limit) => return End::Idle,
        }
    };
    let rest = async { while let Some(Ok(())) = directions.next().await {} };
    if timeout(LAST_WORDS, rest).await.is_ok() {
        delivered(client, backend, broke_off).await;
    }
    End::Reset(broke_off)
}

/// Waits until one end's kernel says that the connection is broken, which it does though nobody reads or writes.
async fn broken_off(client: &TcpStream, backend: &TcpStream) -> Side {
    tokio::select! {
        _ = client.ready(Interest::ERROR) => Side::Client,
        _ = backend.ready(Interest::ERROR) => Side::Backend,
    }
}

/// Waits until the other end has what `gone` said: a reset would throw it away.
async fn delivered(client: &TcpStream, backend: &TcpStream, gone: Side) {
    let other = if gone == Side::Client { backend } else { client };
    let latest = Instant::now() + LAST_WORDS;
    while unacknowledged(other) > 0 && Instant::now() < latest {
        tokio::time::sleep(LOOK).await;
    }
}

/// An end that broke off, and what was tried when that was noticed.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Reading(Side),
    Writing(Side),
}

/// From one end to the other.
struct Direction<'a> {
    from: (&'a TcpStream, Side),
    to: (&'a TcpStream, Side),
    count: [&'a AtomicU64; 2],
    pulse: &'a Pulse,
}

/// What became of a chunk.
enum Passed {
    /// There was nothing to read.
    Nothing,
    /// The end has said all.
    End,
    /// So many bytes were read, and these not taken by the other end.
    Bytes(usize, Vec<u8>),
}

// === impl Direction ===

impl Direction<'_> {
    /// Passes on until the end has said all, and says so to the other.
    async fn run(self) -> Result<(), Broken> {
        let ((from, reading), (to, writing)) = (self.from, self.to);
        let mut chunks = 0;
        loop {
            from.readable().await.map_err(|_| Broken::Reading(reading))?;
            match self.pass()? {
                Passed::Nothing => continue,
                Passed::End => break,
                Passed::Bytes(read, rest) => {
                    for count in self.count {
                        count.fetch_add(read as u64, Relaxed);
                    }
                    self.pulse.beat();
                    deliver(to, &rest, self.pulse).await.map_err(|_| Broken::Writing(writing))?;
                }
            }
            chunks += 1;
            if chunks % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        half_close(to).map_err(|_| Broken::Writing(writing))
    }

    /// Reads a chunk and hands it on, as far as it is taken.
    fn pass(&self) -> Result<Passed, Broken> {
        let ((from, reading), (to, writing)) = (self.from, self.to);
        BUFFER.with_borrow_mut(|buffer| {
            let read = match from.try_read(buffer) {
                Ok(0) => return Ok(Passed::End),
                Ok(read) => read,
                Err(error) if is_passing(&error) => return Ok(Passed::Nothing),
                Err(_) => return Err(Broken::Reading(reading)),
            };
            let written = match to.try_write(&buffer[..read]) {
                Ok(written) => written,
                Err(error) if is_passing(&error) => 0,
                Err(_) => return Err(Broken::Writing(writing)),
            };
            Ok(Passed::Bytes(read, buffer[written..read].to_vec()))
        })
    }
}

/// Hands on all of `bytes`.
pub(super) async fn write_all(to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    deliver(to, bytes, &Pulse::start()).await
}

async fn deliver(to: &TcpStream, mut bytes: &[u8], pulse: &Pulse) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => {
                bytes = &bytes[written..];
                pulse.beat();
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says that nothing more comes, and goes on listening. One that has gone in order meanwhile need not hear it.
fn half_close(to: &TcpStream) -> io::Result<()> {
    match socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// When something passed last.
struct Pulse {
    start: Instant,
    /// Milliseconds from then.
    last: AtomicU64,
}

// === impl Pulse ===

impl Pulse {
    fn start() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    fn beat(&self) {
        self.last.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Waits until nothing has passed for `limit`.
    async fn silence(&self, limit: Duration) {
        loop {
            let until = self.start + Duration::from_millis(self.last.load(Relaxed)) + limit;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}
