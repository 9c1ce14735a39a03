//! What may hang in the kernel, in threads of its own: a file on a dead NFS server, a name without a name server.
//!
//! Not tokio's pool of such threads: ending the runtime waits for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

/// Threads of one probe that may hang at once.
const MOST: usize = 4;

/// Enough for the name resolver, and for certificates in a debug build.
const STACK: usize = 512 << 10;

/// One probe's threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Background {
    busy: Arc<AtomicUsize>,
}

/// Counts a thread out, however it ends.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Background {
    /// Does something elsewhere. Who stops waiting leaves the thread to its fate.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        if self.busy.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.busy.fetch_sub(1, Ordering::Relaxed);
            return Err(format!("{MOST} earlier looks still hang"));
        }
        let busy = Busy(Arc::clone(&self.busy));
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name("probe".into()).stack_size(STACK);
        let started = thread.spawn(move || {
            let _busy = busy;
            let _ = tell.send(work());
        });
        started.map_err(|error| format!("no thread for it: {error}"))?;
        told.await.map_err(|_| "the look itself failed".to_owned())
    }
}
