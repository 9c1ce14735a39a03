//! Coming up: everything that can be wrong is found before anything is changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use vip_common::steering::maglev::RingSize;

use super::file_watch::FileWatch;
use super::housing::{check_clashes, check_places};
use super::owners::Owners;
use super::provenance::Provenance;
use super::succeeding::Predecessor;
use super::watch::Watch;
use super::{Agent, Inputs, Signals};
use crate::api::{Api, View};
use crate::config::{self, LastGood, Loaded, Stale};
use crate::control::ControlServer;
use crate::dataplane::{Dataplane, LoadOptions};
use crate::errors::in_full;
use crate::events::Events;
use crate::health::Tracker;
use crate::health::probes::Probers;
use crate::kube::{self, Kube};
use crate::net::Rtnetlink;
use crate::net::addresses::{Lifetime, LocalAddresses};
use crate::net::connections::Connections;
use crate::net::instance_lock::InstanceLock;
use crate::net::journal::Journal;
use crate::net::links::{DefaultRoutes, LinkWatcher, WatchOptions};
use crate::net::neighbors::{DEFAULT_PERIOD, NeighborKeeper};
use crate::privilege;
use crate::proxy::Proxy;
use crate::supervisor::Supervisor;
use crate::types::MonotonicTime;
use crate::vrrp::driver::Driver;
use crate::watcher::{Lifeline, crash};

/// What `vip-agent run` is told.
#[derive(Debug)]
pub struct StartOptions {
    /// The configuration as read.
    pub loaded: Loaded,
    /// Why it is the last good one, if it is that.
    pub stale: Option<Stale>,
    /// The configuration file: a reload reads it again.
    pub config_file: PathBuf,
    /// The control socket, if not in runtime_dir.
    pub control: Option<PathBuf>,
    /// Whether the last good configuration may be used in the place of one that does not fit.
    pub last_good: bool,
    /// Whether to go on in place of an agent that runs, if one does.
    pub take_over: bool,
}

/// A configuration that is valid, and that a reload would refuse all the same.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the configuration does not fit this host")]
struct Unfit;

/// Makes an agent that owns nothing yet: every instance watches. If the configuration names what this host does not have, as
/// an interface that is not there, it is the last good one's turn, as when the file is broken: a reload would have refused
/// the file and kept the old one.
///
/// # Errors
/// Another agent runs; a privilege, interface or kernel feature is missing; an interface is occupied. Nothing has been
/// changed then.
pub async fn start(options: StartOptions) -> anyhow::Result<(Agent, Inputs)> {
    let StartOptions { loaded, stale, config_file, control, last_good, take_over } = options;
    let allowed = last_good && stale.is_none();
    let (wanted, former) = (loaded.config.clone(), LastGood::in_dir(&loaded.config.state_dir));
    let error = match come_up(loaded, stale, &config_file, control.clone(), take_over).await {
        Err(error) if allowed && error.is::<Unfit>() => error,
        done => return done,
    };
    let Some(kept) = former.load(&config::default_node()).ok().filter(|kept| kept.config != wanted) else {
        return Err(error);
    };
    let stale = Stale::new(format!("{}: {}", config_file.display(), in_full(&error)), &former, &kept);
    // What is wrong with the file is what somebody has to know, also if the other one does not fit either.
    come_up(kept, Some(stale), &config_file, control, take_over).await.map_err(|_| error)
}

async fn come_up(
    loaded: Loaded,
    stale: Option<Stale>,
    config_file: &Path,
    control: Option<PathBuf>,
    take_over: bool,
) -> anyhow::Result<(Agent, Inputs)> {
    let file_watch = FileWatch::new(config_file);
    for line in loaded.warnings.lines() {
        tracing::warn!("{line}");
    }
    let file = loaded.config;
    let (wanted, last_known) = kube::with_last_known(&file);
    crate::dataplane::check_privileges()?;
    let signals = Signals::listen().context("listening to signals")?;
    let socket = control.unwrap_or_else(|| wanted.control_socket());
    let predecessor = if take_over { Predecessor::call(&socket, &wanted).await? } else { None };
    if let Some(stale) = &stale {
        // What runs is served well enough, and whoever upgrades is to hear what is wrong.
        anyhow::ensure!(predecessor.is_none(), stale.why.clone());
        tracing::error!(
            "THE CONFIGURATION FILE IS NOT IN FORCE until it is repaired and reloaded (`vip-agent reload`). In its place: {}, \
             kept by {}. The file is refused:\n{}",
            stale.path.display(),
            stale.about(),
            stale.why
        );
    }
    let config = predecessor.as_ref().map_or_else(|| wanted.clone(), |former| former.serves(&wanted));
    let lock = match &predecessor {
        None => Some(InstanceLock::acquire(&config.runtime_dir)?),
        // Handed over with all else.
        Some(_) => None,
    };
    let journal = Arc::new(Journal::open(&config.state_dir)?);
    let rtnetlink = Rtnetlink::connect()?;
    let watcher = LinkWatcher::start(WatchOptions::default()).await?;
    let options = LoadOptions { pin_dir: config.pin_dir.clone(), xdp_mode: config.xdp_mode };
    let mut dataplane = match &predecessor {
        None => Dataplane::load(&options)?,
        Some(_) => Dataplane::load_as_successor(&options)?,
    };
    let foreign_owners = dataplane.take_events().context("the program's events are taken")?.into_stream()?;
    if let Some(log) = dataplane.take_log() {
        tokio::spawn(log.forward());
    }
    let (links, routes) = (watcher.snapshot(), DefaultRoutes::read(&rtnetlink).await?);
    let fits = [&config.instances, &wanted.instances].into_iter().try_for_each(|instances| {
        let own = instances.iter().filter(|instance| Agent::is_of_file(&file, instance));
        let own: Vec<config::Instance> = own.cloned().collect();
        check_places(&own, &links, &routes, &dataplane)?;
        check_clashes(&own, &links, &routes)
    });
    // Before the first thread. What was looked at above is more than may be looked at from here on: whose a program is,
    // and what ours logs.
    let commands = config.runs_commands() || wanted.runs_commands();
    let services = config.may_steer() || wanted.may_steer();
    let steering = if services { dataplane.load_steering(RingSize::DEFAULT) } else { Ok(()) };
    let loaded_all = fits.context(Unfit).and_then(|()| steering.context("services"));
    if let Err(error) = loaded_all.and_then(|()| Ok(privilege::give_up(wanted.security, commands)?)) {
        if predecessor.is_some() {
            dataplane.abandon();
        }
        return Err(error);
    }
    let lifeline = Arc::new(Lifeline::create().context("making the lifeline to the watcher")?);
    if let Err(error) = crash::handle_fatal_signals() {
        tracing::warn!(%error, "a crash that dumps core is told to the peers only after the dump");
    }
    let driver = Driver::start(Arc::clone(&lifeline)).context("starting the VRRP driver thread")?;
    let events = Events::default();
    let view = View { vitals: Arc::clone(driver.vitals()), events: events.clone() };
    // Nothing listens before all else is known to be right.
    let (api, asks) = Api::start(None, view).context("starting the thread of the HTTP API")?;
    let mut agent = Agent {
        links,
        routes,
        addresses: LocalAddresses::start(Arc::clone(&journal), Lifetime::default())?,
        neighbors: NeighborKeeper::start(DEFAULT_PERIOD)?,
        connections: Connections::connect()?,
        rtnetlink,
        journal,
        dataplane,
        driver,
        watch: Watch::new(lifeline),
        sockets: super::sockets::Sockets::default(),
        instances: Vec::new(),
        listening: BTreeSet::new(),
        detecting: super::detecting::Detecting::default(),
        readiness: super::readiness::Readiness::default(),
        alarms: super::Alarms::telling(events.clone()),
        events,
        meters: super::Meters::default(),
        services: super::services::Services::default(),
        telling: super::telling::Telling::default(),
        api,
        supervisor: Supervisor::from_environment(),
        tracker: Tracker::default(),
        probers: Probers::default(),
        proxy: Proxy::default(),
        turned: None,
        looked_at: MonotonicTime::now(),
        groups: Vec::new(),
        owners: Owners::open(&config),
        signing: super::Signing::in_dir(&config.state_dir),
        inquiries: tokio::task::JoinSet::new(),
        claims: Vec::new(),
        lost_reports: 0,
        behind: false,
        reload: super::reload::Reload::default(),
        stopping: None,
        successor: None,
        source: loaded.source.clone(),
        kube: Kube::new(last_known),
        file,
        behind_cluster: false,
        config,
        config_file: config_file.to_owned(),
        provenance: Provenance::new(stale.as_ref()),
        file_watch,
        lock,
    };
    let succeeds = predecessor.is_some();
    if let Some(predecessor) = predecessor
        && let Err(error) = agent.succeed_to(predecessor).await
    {
        agent.abandon();
        return Err(error);
    }
    let control = ControlServer::listen(&socket)
        .with_context(|| format!("control socket {}: is its directory writable?", socket.display()));
    let begun = match control {
        Ok(control) => {
            agent.say_how_it_runs();
            agent.api.serve(agent.config.api.clone());
            agent.serve_proxied();
            agent.keep_watched().await;
            let begun = if succeeds {
                agent.settle_in(wanted, loaded.source).await
            } else {
                agent.begin(&loaded.source).await
            };
            begun.map(|()| control)
        }
        // Nothing has been changed yet.
        Err(error) if !succeeds => return Err(error),
        Err(error) => Err(error),
    };
    let begun = begun.and_then(|control| agent.tell_flows().map(|()| control));
    match begun {
        Ok(control) => {
            agent.follow_cluster();
            Ok((agent, Inputs { watcher, control, asks, foreign_owners, signals }))
        }
        // The control socket has gone before the lock, as at any end.
        Err(error) => Err(match agent.leave().await {
            Ok(()) => error,
            Err(left) => anyhow::anyhow!("{}; and {}", in_full(&error), in_full(&left)),
        }),
    }
}

impl Agent {
    /// The first changes to the system.
    async fn begin(&mut self, source: &str) -> anyhow::Result<()> {
        // A dead agent's addresses and sysctls; its pins stay until the program is swapped in place.
        for failure in self.journal.undo_all(&self.rtnetlink, |_| Ok(())).await {
            tracing::warn!("what an earlier agent left: {failure}");
        }
        if let Some(pin_dir) = &self.config.pin_dir {
            self.journal.record_pin_dir(pin_dir.clone())?;
        }
        self.prepare_addresses(&self.config.instances).await?;
        self.set_probes();
        self.load_services(&self.config.clone())?;
        self.set_services();
        for instance in self.config.instances.clone() {
            let name = instance.name.clone();
            self.bring_up(instance, false, None).await.with_context(|| format!("instance {name}"))?;
        }
        self.start_groups().await;
        self.follow_inquiries().await;
        self.dataplane.commit()?;
        self.remember(source);
        Ok(())
    }

    /// What a start ends with: the configuration is good, and its file is followed if so asked.
    pub(super) fn remember(&mut self, source: &str) {
        self.file_watch.follow(self.config.reload_on_change);
        if self.provenance.last_good {
            // It says of itself since when it is good.
            return;
        }
        if let Err(error) = LastGood::in_dir(&self.config.state_dir).save(source) {
            tracing::warn!(%error, "cannot keep the configuration in state_dir");
        }
    }

    fn say_how_it_runs(&self) {
        let realtime = self.driver.realtime();
        if let Err(why) = &realtime.scheduling {
            tracing::warn!("no real-time priority, adverts may be late under load: {why}");
        }
        if let Err(why) = &realtime.memory {
            tracing::warn!("memory is not locked: {why}");
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = self.config.node,
            realtime = realtime.scheduling.is_ok(),
            map_memory = self.dataplane.map_memory(),
            "vip-agent runs"
        );
    }
}
