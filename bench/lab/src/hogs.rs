//! CPU hogs: threads that want a core for themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Busy threads of ordinary priority; they stop on drop.
#[derive(Debug)]
pub struct Hogs {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    /// Hogs stop by themselves after this, should they be forgotten.
    pub const LONGEST: Duration = Duration::from_secs(600);

    /// Starts `count` of them.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(count: usize) -> Result<Self> {
        let mut hogs = Self { stop: Arc::default(), threads: Vec::with_capacity(count) };
        for _ in 0..count {
            let stop = Arc::clone(&hogs.stop);
            let hog = thread::Builder::new()
                .name("hog".to_owned())
                .spawn(move || hog(&stop))
                .context("start a CPU hog")?;
            hogs.threads.push(hog);
        }
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn hog(stop: &AtomicBool) {
    let end = Instant::now() + Hogs::LONGEST;
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        for _ in 0..10_000 {
            std::hint::spin_loop();
        }
    }
}
