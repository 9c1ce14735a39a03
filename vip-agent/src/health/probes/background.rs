//! What may hang in the kernel, in threads of its own: a file on a dead NFS server, a name without a name server.
//!
//! Not tokio's pool of such threads: ending the runtime waits for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

/// Threads, or commands, of one probe that may hang at once.
pub(super) const MOST: usize = 4;

/// Enough for the name resolver, and for certificates in a debug build.
const STACK: usize = 512 << 10;

/// One probe's threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Background {
    seats: Seats,
}

/// As many as may hang at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(Arc<AtomicUsize>);

/// One of them, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Seats);

impl Seats {
    /// `None`: all are taken.
    pub(super) fn take(&self) -> Option<Seat> {
        let seat = Seat(self.clone());
        (self.0.fetch_add(1, Ordering::Relaxed) < MOST).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Background {
    /// Does something elsewhere. Who stops waiting leaves the thread to its fate.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let seat = self.seats.take().ok_or_else(|| format!("{MOST} earlier looks still hang"))?;
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name("probe".into()).stack_size(STACK);
        let started = thread.spawn(move || {
            let _seat = seat;
            let _ = tell.send(work());
        });
        started.map_err(|error| format!("no thread for it: {error}"))?;
        told.await.map_err(|_| "the look itself failed".to_owned())
    }
}
