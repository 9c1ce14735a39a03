//! The agent: configuration and links in, instances and dataplane out. Runs on tokio, off the takeover path.
//!
//! One task owns everything. What it prepares goes to the driver thread as commands; what happens there comes back as
//! reports, which it turns into local addresses, log lines and status.

mod alarms;
pub(crate) mod binding;
mod cluster;
mod detecting;
mod drain;
mod file_watch;
mod giving;
mod health;
pub(crate) mod housing;
pub(crate) mod inquiry;
mod instance;
mod linger;
mod meters;
mod observed;
mod owners;
pub(crate) mod place;
mod provenance;
mod proxied;
mod readiness;
mod reload;
mod reports;
mod requests;
mod services;
mod signing;
pub(crate) mod sockets;
mod start;
mod status;
mod succeeding;
mod telling;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::alarms::Alarms;
use self::inquiry::Answers;
use self::instance::{Exit, Managed};
use self::meters::Meters;
use self::owners::Owners;
use self::reports::Claim;
use self::signing::Signing;
use self::watch::Watch;
use crate::api::{Api, Asks};
use crate::config::{self, Config};
use crate::control::ControlServer;
use crate::dataplane::{Dataplane, ForeignOwnerStream};
use crate::events::Events;
use crate::health::Tracker;
use crate::health::probes::Probers;
use crate::kube::Kube;
use crate::net::Rtnetlink;
use crate::net::addresses::LocalAddresses;
use crate::net::connections::Connections;
use crate::net::instance_lock::InstanceLock;
use crate::net::journal::Journal;
use crate::net::links::{DefaultRoutes, LinkTable, LinkWatcher};
use crate::net::neighbors::NeighborKeeper;
use crate::proxy::Proxy;
use crate::supervisor::Supervisor;
use crate::types::{Family, MonotonicTime};
use crate::vrrp::driver::{ANSWER_TIME, Command, Driver, GroupId, InstanceId, Membership, Snapshot};
use crate::vrrp::machine::{DRAIN_MARGIN, Event};

pub use self::start::{StartOptions, start};

/// How often the runtime shows the driver that it lives.
const BEAT: Duration = Duration::from_millis(250);

/// How often an instance that cannot serve tries again: most faults end with news of the links, but not all.
const RETRY: Duration = Duration::from_secs(1);

/// How much longer than its parts the way out may take.
const SLACK: Duration = Duration::from_secs(5);

/// A running agent. Made by [`start`].
#[derive(Debug)]
pub struct Agent {
    /// In force: the file's, completed by what the cluster wants.
    config: Config,
    /// What the file says.
    file: Config,
    kube: Kube,
    /// Whether the cluster wants something that could not be applied when it was heard.
    behind_cluster: bool,
    config_file: PathBuf,
    /// What became of the file when it was read last.
    provenance: provenance::Provenance,
    file_watch: file_watch::FileWatch,
    links: Arc<LinkTable>,
    routes: DefaultRoutes,
    rtnetlink: Rtnetlink,
    journal: Arc<Journal>,
    addresses: LocalAddresses,
    neighbors: NeighborKeeper,
    connections: Connections,
    dataplane: Dataplane,
    driver: Driver,
    watch: Watch,
    /// Shared by instances.
    sockets: sockets::Sockets,
    instances: Vec<Managed>,
    /// What the driver listens to.
    listening: BTreeSet<(u32, Family)>,
    detecting: detecting::Detecting,
    readiness: readiness::Readiness,
    alarms: Alarms,
    /// What happens, for whoever follows it.
    events: Events,
    meters: Meters,
    services: services::Services,
    /// Peers that hear of the flows of services.
    telling: telling::Telling,
    api: Api,
    supervisor: Supervisor,
    tracker: Tracker,
    probers: Probers,
    /// Connections that end here, of services with `mode: proxy`.
    proxy: Proxy,
    /// The probe whose verdict changed last, until that is applied.
    turned: Option<String>,
    /// When verdicts were last looked at for their age.
    looked_at: MonotonicTime,
    /// Sync groups by the driver's ids, which are their places here.
    groups: Vec<config::Name>,
    owners: Owners,
    signing: Signing,
    /// Those that look for other stations with our VIPs.
    inquiries: JoinSet<Answers>,
    claims: Vec<Claim>,
    /// Of the driver, as far as they were made up for.
    lost_reports: u64,
    /// Whether some are yet to be made up for.
    behind: bool,
    /// Instances that a reload is replacing, and who waits for that.
    reload: reload::Reload,
    stopping: Option<Stopping>,
    /// Another process that is about to take over from this one.
    successor: Option<giving::Successor>,
    /// The configuration's text, for that one.
    source: String,
    /// Held until the end: one agent per network namespace. `None` while a predecessor holds it.
    lock: Option<InstanceLock>,
}

/// What the agent listens to besides its driver.
#[derive(Debug)]
pub struct Inputs {
    watcher: LinkWatcher,
    control: ControlServer,
    asks: Asks,
    foreign_owners: ForeignOwnerStream,
    signals: Signals,
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

/// The way out.
#[derive(Debug)]
struct Stopping {
    /// By then all has been handed over and every grace time has ended, or something is wrong.
    latest: Instant,
    /// A second signal: no more waiting for anything.
    at_once: bool,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl Agent {
    /// Runs until a signal ends it; leaves nothing behind.
    ///
    /// # Errors
    /// The driver thread died, or something of ours could not be removed.
    pub async fn run(mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        let outcome = self.serve(&mut inputs).await;
        // The control socket goes before the lock: the next agent makes its own in the same place.
        drop(inputs);
        let left = self.leave().await;
        outcome.and(left)
    }

    async fn serve(&mut self, inputs: &mut Inputs) -> anyhow::Result<()> {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retry = tokio::time::interval(RETRY);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.supervisor.ready();
        while !self.is_finished() {
            // Not only when there is nothing else to do: a flood of reports is no silence.
            self.driver.beat();
            self.feed_watchdog();
            let lingers = self.next_linger().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                // Reports first: local addresses wait for them.
                biased;
                report = self.driver.report() => self.on_reports(report).await?,
                links = inputs.watcher.changed() => self.on_links(links).await,
                _ = inputs.signals.terminate.recv() => self.stop("SIGTERM").await,
                _ = inputs.signals.interrupt.recv() => self.stop("SIGINT").await,
                _ = inputs.signals.reload.recv() => self.reload_by_signal().await,
                () = self.file_watch.changed() => self.reload_by_change().await,
                () = self.kube.changed() => self.on_cluster().await,
                (probe, round) = self.probers.round() => self.on_round(&probe, round).await,
                pending = inputs.control.request() => self.on_request(pending).await,
                said = Self::successor_says(&mut self.successor) => self.on_successor(said).await,
                event = self.watch.event() => self.on_watcher(event),
                event = self.services.event() => self.on_services(event),
                Some(event) = inputs.foreign_owners.next() => self.on_foreign_owner(event),
                Some(Ok(answers)) = self.inquiries.join_next() => self.on_answers(answers).await,
                () = tokio::time::sleep_until(lingers) => self.end_lingering().await,
                _ = beat.tick() => {
                    self.catch_up().await;
                    self.expire_verdicts().await;
                    self.judge_claims();
                    self.follow_inquiries().await;
                    self.answer_drains().await;
                    self.look_for_clients();
                    self.notice_strangers();
                }
                _ = retry.tick() => {
                    self.retry_faults().await;
                    self.catch_up_with_cluster().await;
                    self.keep_watched().await;
                    self.keep_signing().await;
                    self.look_after_services();
                    self.look_for_peers().await;
                    self.alarms.expire();
                }
                // Last, as there is no end of what strangers may ask.
                ask = inputs.asks.next() => self.on_ask(ask).await,
            }
        }
        Ok(())
    }

    /// Hands everything over. The second call ends the waiting.
    async fn stop(&mut self, why: &str) {
        if let Some(stopping) = &mut self.stopping {
            tracing::warn!("{why} again: not waiting any longer");
            stopping.at_once = true;
            return;
        }
        tracing::info!("{why}: handing over");
        self.supervisor.stopping();
        // One that was about to take over is too late.
        self.successor = None;
        let longest = self.instances.iter().map(|managed| {
            let config = &managed.config;
            config.protocol.advert_interval().longest_skew() + DRAIN_MARGIN + config.grace
        });
        let latest = Instant::now() + longest.max().unwrap_or_default() + SLACK;
        self.stopping = Some(Stopping { latest, at_once: false });
        for managed in &mut self.instances {
            managed.exit = Exit::Leaving;
            self.driver.send(Command::Tell(managed.id, Event::Shutdown)).await;
        }
    }

    /// How the driver says that an instance is; `None` if it does not know it, or hangs, which costs no time here.
    async fn inspect(&self, id: InstanceId) -> Option<Snapshot> {
        match self.driver.vitals().driver() {
            Ok(()) => self.driver.inspect(id).await,
            Err(_) => None,
        }
    }

    /// The same for one of several: a driver that did not answer once is not asked again, so that all of them together wait no
    /// longer than one.
    async fn inspect_next(&self, id: InstanceId, silent: &mut bool) -> Option<Snapshot> {
        if *silent {
            return None;
        }
        let begun = Instant::now();
        let snapshot = self.inspect(id).await;
        *silent = snapshot.is_none() && begun.elapsed() >= ANSWER_TIME;
        snapshot
    }

    /// A service manager's watchdog starts us anew if this loop or the driver thread hangs.
    fn feed_watchdog(&mut self) {
        if self.driver.vitals().driver().is_ok() {
            self.supervisor.feed();
        }
    }

    /// An instance's place in its sync group.
    fn membership(&mut self, instance: &config::Instance) -> Option<Membership> {
        let name = instance.sync_group.as_ref()?;
        let known = self.groups.iter().position(|group| group == name);
        let index = known.unwrap_or_else(|| {
            self.groups.push(name.clone());
            self.groups.len() - 1
        });
        let rank = instance.vips.iter().map(|vip| vip.address).min()?;
        Some(Membership { group: GroupId(u16::try_from(index).ok()?), rank })
    }

    /// The lowest id that no instance has.
    fn free_id(&self) -> InstanceId {
        let taken = |id: &InstanceId| self.instances.iter().any(|managed| managed.id == *id);
        (0..=u16::MAX).map(InstanceId).find(|id| !taken(id)).unwrap_or(InstanceId(u16::MAX))
    }

    fn is_finished(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let gone = |managed: &Managed| managed.exit == Exit::Left && managed.linger.is_none();
        if stopping.at_once || self.instances.iter().all(gone) {
            return true;
        }
        let late = stopping.latest <= Instant::now();
        if late {
            tracing::error!("not everything was handed over in time: ending all the same");
        }
        late
    }

    /// Removes everything of ours: the driver and its words first, so that nobody answers for what is being taken apart.
    async fn leave(mut self) -> anyhow::Result<()> {
        self.save_marks().await;
        self.keep_cluster();
        drop(self.api);
        drop(self.driver);
        let words = self.dataplane.words();
        for managed in &self.instances {
            words.clear(managed.slot);
        }
        // From here on there is nothing that a watcher could say.
        drop(self.watch);
        // While its addresses are there: resets have to leave.
        drop(self.proxy);
        let addresses = self.addresses.remove_all().await.context("taking VIPs off lo");
        let mut left = Vec::new();
        for managed in &self.instances {
            if let Some(home) = &managed.home {
                left.push(housing::restore_arp(home.place.to_silence(), &self.journal));
            }
        }
        self.instances.clear();
        let dataplane = self.dataplane.shutdown().context("taking the XDP program off");
        let pins = match &self.config.pin_dir {
            Some(pin_dir) if dataplane.is_ok() => self.journal.forget_pin_dir(pin_dir).map_err(Into::into),
            _ => Ok(()),
        };
        tracing::info!("ended");
        left.into_iter().fold(addresses.and(dataplane).and(pins), Result::and)
    }
}
