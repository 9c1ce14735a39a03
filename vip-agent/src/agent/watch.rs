//! The watcher over this agent: kept alive, told what to say for each instance, shown in status.
//!
//! The agent works on without one: its lease silences it, and peers wait out Active_Down.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Agent;
use crate::config::LogFormat;
use crate::dataplane::RouterSlot;
use crate::errors::in_full;
use crate::status::WatcherStatus;
use crate::vrrp::driver::{Binding, Command};
use crate::watcher::{Event, Lifeline, Ready, Watcher};

/// Between two starts; doubles while watchers do not last, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A watcher that lived for so long is no sign that the next one will not.
const LASTING: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    lifeline: Arc<Lifeline>,
    watcher: Option<Watcher>,
    /// What it said of itself.
    ready: Option<Ready>,
    starts: u64,
    started: Instant,
    pause: Duration,
    /// Why there is none.
    reason: Option<String>,
}

impl Watch {
    pub(super) fn new(lifeline: Arc<Lifeline>) -> Self {
        Self {
            lifeline,
            watcher: None,
            ready: None,
            starts: 0,
            started: Instant::now(),
            pause: Duration::ZERO,
            reason: None,
        }
    }

    /// What is heard of it next; never, while there is none.
    pub(super) async fn event(&self) -> Event {
        match &self.watcher {
            Some(watcher) => watcher.event().await,
            None => std::future::pending().await,
        }
    }

    /// Sends it away: nothing is to be said when this process ends.
    pub(super) fn dismiss(&mut self) {
        self.watcher = None;
    }

    /// There is nothing to be said any more for the router in this slot.
    pub(super) fn forget(&mut self, slot: RouterSlot) {
        self.tell(|watcher| watcher.forget(slot));
    }

    pub(super) fn status(&self) -> WatcherStatus {
        let missing = self.ready.map(|ready| match ready {
            Ready { scheduling: true, memory: true } => None,
            Ready { scheduling: false, memory: true } => Some("without real-time priority"),
            Ready { scheduling: true, memory: false } => Some("without locked memory"),
            Ready { scheduling: false, memory: false } => {
                Some("without real-time priority and locked memory")
            }
        });
        WatcherStatus {
            pid: self.watcher.as_ref().filter(|_| self.ready.is_some()).map(Watcher::pid),
            starts: self.starts,
            reason: missing.map_or_else(|| self.reason.clone(), |missing| missing.map(str::to_owned)),
        }
    }

    fn tell(&mut self, what: impl FnOnce(&Watcher) -> io::Result<()>) {
        if let Some(Err(error)) = self.watcher.as_ref().map(what) {
            self.lost(&format!("it does not listen: {error}"));
        }
    }

    /// A watcher that is gone, or that is of no use: what it had to say is told to the next one.
    fn lost(&mut self, why: &str) {
        tracing::warn!("the watcher is lost, another one is started soon: {why}");
        self.reason = Some(why.to_owned());
        self.ready = None;
        self.watcher = None;
        let lasted = self.started.elapsed() >= LASTING;
        self.pause = if lasted { PAUSE } else { (self.pause * 2).clamp(PAUSE, LONGEST_PAUSE) };
    }

    fn is_due(&self) -> bool {
        self.watcher.is_none() && self.started.elapsed() >= self.pause
    }
}

impl Agent {
    /// Starts a watcher where there is none and it is time for one.
    pub(super) async fn keep_watched(&mut self) {
        if !self.watch.is_due() || self.stopping.is_some() {
            return;
        }
        let json = self.config.log.format == LogFormat::Json;
        let watch = &mut self.watch;
        watch.started = Instant::now();
        let deadlines = self.dataplane.deadlines().ok_or_else(|| io::Error::other("no deadlines"));
        let started = deadlines.and_then(|deadlines| Watcher::start(&watch.lifeline, deadlines, json));
        match started {
            Ok(watcher) => {
                tracing::debug!(pid = watcher.pid(), "a watcher was started");
                watch.watcher = Some(watcher);
                watch.starts += 1;
                watch.reason = Some("starting".to_owned());
            }
            Err(error) => {
                watch.pause = (watch.pause * 2).clamp(PAUSE, LONGEST_PAUSE);
                let why = format!("cannot be started: {error}");
                if watch.reason.as_ref() != Some(&why) {
                    tracing::warn!("no watcher, peers wait out Active_Down should this agent die: it {why}");
                }
                watch.reason = Some(why);
                return;
            }
        }
        for index in 0..self.instances.len() {
            // Sockets and adverts are with the driver: it gets new ones.
            if let Err(error) = self.rebind(index, &[], &[]).await {
                tracing::debug!(
                    instance = self.instances[index].name(),
                    "not watched yet: {}",
                    in_full(&error)
                );
            }
        }
    }

    pub(super) fn on_watcher(&mut self, event: Event) {
        match event {
            Event::Ready(ready) => {
                self.watch.ready = Some(ready);
                self.watch.reason = None;
                tracing::debug!(?ready, "the watcher watches");
            }
            Event::Gone => self.watch.lost("it has ended, or was killed"),
        }
    }

    /// Hands a binding to the driver, and to the watcher before, so that it knows what to say of all that is ever owned.
    pub(super) async fn give(&mut self, index: usize, mut binding: Box<Binding>) {
        binding.sign_farewells();
        let managed = &self.instances[index];
        let (id, slot) = (managed.id, managed.slot);
        self.watch.tell(|watcher| watcher.prepare(slot, managed.name(), &binding));
        self.driver.send(Command::Bind(id, Some(binding))).await;
    }
}
