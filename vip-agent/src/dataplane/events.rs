//! What the program reports by itself: other stations that answer for our VIPs, and its rare log lines.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use futures_util::Stream;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vip_common::maps::ForeignOwner;

use super::DataplaneError;
use super::world::{EVENT, Maps};

/// Reports that somebody else answers for a VIP of ours, at the rate that the program allows.
pub struct ForeignOwnerEvents {
    ring: RingBuf<MapData>,
}

impl ForeignOwnerEvents {
    pub(super) fn take(maps: &mut Maps) -> Result<Self, DataplaneError> {
        Ok(Self { ring: maps.take("EVENTS")? })
    }

    /// The next report, if one is there.
    pub fn poll_now(&mut self) -> Option<ForeignOwner> {
        while let Some(record) = self.ring.next() {
            // Records of another size are another version's: none is ever written, none is believed.
            if record.len() == EVENT {
                return bytemuck::try_pod_read_unaligned(&record).ok();
            }
        }
        None
    }

    /// Registers with the running tokio runtime.
    ///
    /// # Errors
    /// The descriptor cannot be registered.
    pub fn into_stream(self) -> io::Result<ForeignOwnerStream> {
        Ok(ForeignOwnerStream { events: readable(EventsFd(self))? })
    }
}

impl std::fmt::Debug for ForeignOwnerEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForeignOwnerEvents")
    }
}

struct EventsFd(ForeignOwnerEvents);

impl AsRawFd for EventsFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.ring.as_raw_fd()
    }
}

/// Registers a ring buffer with the runtime. Private to this module, whose two types keep their one descriptor open.
fn readable<T: AsRawFd>(ring: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both callers' types own a map's descriptor, which is opened before and closed with them, and never
    // exchanged in between.
    Ok(unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?)
}

/// [`ForeignOwnerEvents`] as a stream. It never ends.
pub struct ForeignOwnerStream {
    events: AsyncFd<EventsFd>,
}

impl std::fmt::Debug for ForeignOwnerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForeignOwnerStream")
    }
}

impl Stream for ForeignOwnerStream {
    type Item = io::Result<ForeignOwner>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.events.get_mut().0.poll_now() {
                return Poll::Ready(Some(Ok(event)));
            }
            let mut ready = ready!(self.events.poll_read_ready_mut(context))?;
            // Looked again after readiness is taken back: a record that came in between is not forgotten.
            ready.clear_ready();
            if let Some(event) = ready.get_inner_mut().0.poll_now() {
                return Poll::Ready(Some(Ok(event)));
            }
        }
    }
}

/// Log lines of the program (aya-log), passed on to `tracing`.
pub struct ProgramLog {
    logger: EbpfLogger<ToTracing>,
}

impl ProgramLog {
    pub(super) fn new(logger: EbpfLogger<ToTracing>) -> Self {
        Self { logger }
    }

    /// Passes on what has been logged so far.
    pub fn flush(&mut self) {
        self.logger.flush();
    }

    /// Passes on lines as they come; to be spawned on the tokio runtime.
    ///
    /// # Errors
    /// The descriptor cannot be registered with the runtime.
    pub async fn forward(self) -> io::Result<()> {
        let mut log = readable(self.logger)?;
        loop {
            let mut ready = log.readable_mut().await?;
            ready.clear_ready();
            ready.get_inner_mut().flush();
        }
    }
}

impl std::fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProgramLog")
    }
}

/// The bridge from the `log` crate, which aya-log speaks.
pub(super) struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let message = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: "viplane::xdp", "{message}"),
            log::Level::Warn => tracing::warn!(target: "viplane::xdp", "{message}"),
            log::Level::Info => tracing::info!(target: "viplane::xdp", "{message}"),
            log::Level::Debug | log::Level::Trace => tracing::debug!(target: "viplane::xdp", "{message}"),
        }
    }

    fn flush(&self) {}
}
