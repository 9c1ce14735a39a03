//! Services: keeps the steering tables as the configuration, the next hops and the probes of backends say.
//!
//! Whoever owns the VIPs, backups fill their tables too: a new owner steers from its first packet on. Changes are planned here
//! (pure, `dataplane::services`) and carried out by a thread of their own, one at a time; what changes meanwhile waits.

mod flows;
mod full_nat;
mod judge;
mod observe;
mod tunnel_ends;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vip_common::maps::vip_flags;
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::maglev::RingSize;
use vip_common::steering::tables::{Closed, Mode};

pub(super) use self::flows::Which;
use self::judge::Carrier;
use super::Agent;
use crate::config::{self, LocalAddress, NoBackend, Service, ServiceMode};
use crate::dataplane::DataplaneError;
use crate::dataplane::services::{
    Book, FlowCounts, ServiceTables, Step, Unfinished, Wanted, WantedBackend, Way,
};
use crate::errors::in_full;
use crate::net::next_hops::{NextHops, Reached, Unreached};
use crate::net::sysctl;

/// How long after the start tables may wait for next hops: nobody is to be taken out because it is not known yet.
const FIRST_HOPS: Duration = Duration::from_secs(1);

/// The same of a backend that has just come: its route takes less than a millisecond to be found, and a change that is written at once
/// would be written twice, with the former backend gone and the new one not there yet in between.
const NEW_HOPS: Duration = Duration::from_millis(30);

/// How often flows are counted, at most; and how much longer than a count the rest after it is.
const COUNT_EVERY: Duration = Duration::from_secs(2);
const COUNT_REST: u32 = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// `None`: nothing was ever configured.
    tables: Option<Arc<ServiceTables>>,
    /// Only while there are backends.
    hops: Option<NextHops>,
    book: Book,
    /// Whether something has changed since the last plan.
    stale: bool,
    hold: Option<Hold>,
    work: Option<JoinHandle<Result<(), Unfinished>>>,
    /// What has to be done before the next plan, as an earlier one failed.
    left: Vec<Step>,
    /// Why the tables are not as they are to be.
    failure: Option<String>,
    /// VIPs whose bit is set: their services stand in the tables.
    steered: BTreeSet<IpAddr>,
    counting: Option<JoinHandle<(u64, Result<FlowCounts, DataplaneError>)>>,
    counts: FlowCounts,
    /// Not before then.
    count_next: Option<Instant>,
    /// How long the last one took.
    count_took: Duration,
    past: observe::Past,
    full_nat: full_nat::FullNat,
    ends: tunnel_ends::Ends,
}

/// Next hops are waited for.
#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Instant,
    /// Until all can be reached, and not just until it is known whether they can.
    reached: bool,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    Hops,
    Written(Result<(), Unfinished>),
    Counted(u64, Result<FlowCounts, DataplaneError>),
}

impl Services {
    /// What happens next; never, while there are no services.
    pub(super) async fn event(&mut self) -> Event {
        let Self { hops, work, counting, hold, .. } = self;
        tokio::select! {
            written = finished(work) => Event::Written(written.unwrap_or_else(|| Err(Unfinished::died()))),
            Some((epoch, counts)) = finished(counting) => Event::Counted(epoch, counts),
            () = changed(hops) => Event::Hops,
            () = over(*hold) => Event::Hops,
        }
    }

    /// Something is different: the next plan will see what.
    pub(super) fn touch(&mut self) {
        self.stale = self.tables.is_some();
    }

    /// The bits of a VIP's value that say how it is steered.
    pub(super) fn flags(&self, vip: IpAddr, instance: &config::Instance) -> u16 {
        if !self.steered.contains(&vip) {
            return 0;
        }
        // Where it is no address of the stack, nobody else answers.
        let steered = match instance.stands_on_lo() {
            LocalAddress::Never => vip_flags::SERVICES | vip_flags::ECHO | vip_flags::CLOSED_REJECT,
            LocalAddress::Active | LocalAddress::Always => vip_flags::SERVICES,
        };
        if self.full_nat.has(vip) { steered | vip_flags::FULL_NAT } else { steered }
    }

    /// The tables, once services were configured.
    pub(super) fn tables(&self) -> Option<Arc<ServiceTables>> {
        self.tables.clone()
    }

    /// What stands in them.
    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// The ports that flows to other nodes may have, once those are known.
    pub(super) fn nat_ports(&self) -> Option<Ports> {
        self.full_nat.ports()
    }

    /// Whether a change is on its way into the tables.
    pub(super) fn is_settling(&self) -> bool {
        self.work.is_some() || (self.stale && self.failure.is_none())
    }

    /// The slots of the tables that a successor goes on with.
    pub(super) fn estate(&self) -> BTreeMap<String, u16> {
        self.book.indices().map(|(name, index)| (name.to_owned(), index)).collect()
    }

    /// Waits until nothing is being written: for a successor, which reads the tables.
    pub(super) async fn rest(&mut self) {
        if self.work.is_some() {
            let _ = finished(&mut self.work).await;
            // Whether it failed or not, the next plan writes everything.
            self.book.distrust();
            self.stale = true;
        }
    }

    fn reached(&self) -> Arc<Reached> {
        self.hops.as_ref().map(NextHops::snapshot).unwrap_or_default()
    }
}

/// The outcome of a task that has ended; never, if there is none. `None` if it panicked.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task else { return std::future::pending().await };
    let outcome = running.await;
    *task = None;
    outcome.ok()
}

/// Waits until there is no more to be waited for; for ever, if nothing is.
async fn over(hold: Option<Hold>) {
    match hold {
        Some(hold) => tokio::time::sleep_until(hold.until).await,
        None => std::future::pending().await,
    }
}

async fn changed(hops: &mut Option<NextHops>) {
    match hops {
        Some(hops) => drop(hops.changed().await),
        None => std::future::pending().await,
    }
}

impl Agent {
    /// Loads what services need, if there may be any and it was not done before: to be called before privileges are given up.
    ///
    /// # Errors
    /// The kernel refuses, and the configuration has services of its own.
    pub(super) fn load_services(&mut self, config: &config::Config) -> anyhow::Result<()> {
        if !config.may_steer() || self.services.tables.is_some() {
            return Ok(());
        }
        let loaded = self.dataplane.load_steering(RingSize::DEFAULT).context(
            "services: their programs cannot be loaded. An agent that was started without any gives up the privilege for it: \
             start it anew (`vip-agent run --take-over` loses nothing)",
        );
        match loaded {
            Ok(()) => self.services.tables = Some(Arc::new(ServiceTables::open(&self.dataplane)?)),
            // Those of a cluster may come or not.
            Err(error) if config.services.is_empty() => {
                tracing::warn!("nothing of Kubernetes is steered: {}", in_full(&error));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether there is what steering takes.
    pub(super) fn can_steer(&self) -> bool {
        self.services.tables.is_some()
    }

    /// Serves what the configuration says from now on.
    pub(super) fn set_services(&mut self) {
        self.serve_proxied();
        if self.services.tables.is_none() {
            return;
        }
        self.services.stale = true;
        self.follow_hops();
        self.keep_services();
        self.keep_tunnel_ends();
    }

    /// Goes on with the tables that a former agent filled.
    pub(super) fn inherit_services(&mut self, indices: BTreeMap<String, u16>) -> anyhow::Result<()> {
        let Some(tables) = &self.services.tables else { return Ok(()) };
        self.services.book = tables.adopt(indices)?;
        self.services.steered = self.config.services.iter().map(|service| service.vip).collect();
        self.services.full_nat.inherit(&self.config.services);
        self.services.stale = true;
        self.follow_hops();
        Ok(())
    }

    /// Asks for the next hops of all backends.
    fn follow_hops(&mut self) {
        let steered = self.config.services.iter().filter(|service| service.mode.is_steered());
        let mut hosts: BTreeSet<IpAddr> =
            steered.flat_map(|service| &service.backends).map(|backend| backend.address).collect();
        hosts.extend(self.services.book.addresses());
        if hosts.is_empty() {
            self.services.hops = None;
            return;
        }
        if self.services.hops.is_none() {
            match NextHops::start() {
                Ok(hops) => self.services.hops = Some(hops),
                Err(error) => {
                    tracing::error!(%error, "cannot find the next hops of backends: nothing is steered");
                    self.services.failure = Some(error.to_string());
                    return;
                }
            }
            self.services.hold = Some(Hold { until: Instant::now() + FIRST_HOPS, reached: true });
        }
        if let Some(hops) = &self.services.hops {
            let known = hops.snapshot();
            let is_new = hosts.iter().any(|host| !known.contains_key(host));
            if is_new && self.services.hold.is_none() {
                self.services.hold = Some(Hold { until: Instant::now() + NEW_HOPS, reached: false });
            }
            hops.set(hosts);
        }
    }

    /// Whether tables wait for next hops that are being looked up.
    fn waits_for_hops(&mut self) -> bool {
        let Some(hold) = self.services.hold else { return false };
        let reached = self.services.reached();
        let steered = self.config.services.iter().filter(|service| service.mode.is_steered());
        let mut backends = steered.flat_map(|service| &service.backends);
        let known = backends.all(|backend| match reached.get(&backend.address) {
            Some(Ok(_)) => true,
            None | Some(Err(Unreached::Unknown)) => false,
            Some(Err(_)) => !hold.reached,
        });
        let waits = !known && Instant::now() < hold.until;
        if !waits {
            self.services.hold = None;
        }
        waits
    }

    /// Brings the tables to where they should be, if they are not.
    pub(super) fn keep_services(&mut self) {
        let idle = self.services.work.is_none() && self.is_being_succeeded().is_none();
        if !self.services.stale || !idle || self.waits_for_hops() {
            return;
        }
        let Some(tables) = self.services.tables.clone() else { return };
        self.prepare_full_nat();
        let carriers = self.carriers();
        self.services.stale = false;
        let reached = self.services.reached();
        let wanted = self.wanted_services(&reached, &carriers);
        let vips: BTreeSet<IpAddr> = wanted.iter().map(|service| service.vip).collect();
        // What goes is not steered any more before it is gone.
        let going: BTreeSet<IpAddr> = self.services.steered.difference(&vips).copied().collect();
        if !going.is_empty() {
            self.services.steered.retain(|vip| vips.contains(vip));
            self.mark_vips(&going);
        }
        let before = self.services.past.holders(&self.services.book);
        let links = Arc::clone(&self.links);
        let modes: BTreeMap<&str, ServiceMode> =
            self.config.services.iter().map(|service| (service.name.as_str(), service.mode)).collect();
        let way = |service: &Wanted, address: IpAddr| {
            let carrier = carriers.get(&service.vip).copied();
            judge::way(*modes.get(service.name.as_str())?, carrier, reached.get(&address), &links).ok()
        };
        match self.services.book.plan(&wanted, way) {
            Ok(steps) => {
                self.services.past.note(&tables, before, &self.services.book);
                let mut all = std::mem::take(&mut self.services.left);
                all.extend(steps);
                let writes: usize = all.iter().map(Step::len).sum();
                self.begin_full_nat();
                tracing::debug!(writes, "writing the tables of services");
                self.services.work = Some(tokio::task::spawn_blocking(move || tables.apply(all)));
            }
            Err(error) => {
                tracing::error!(%error, "the tables of services stay as they are");
                self.services.failure = Some(error.to_string());
            }
        }
    }

    pub(super) fn on_services(&mut self, event: Event) {
        match event {
            Event::Hops => {
                self.services.stale = true;
                self.services.hold.take_if(|hold| hold.until <= Instant::now());
            }
            Event::Written(Ok(())) => {
                if self.services.failure.take().is_some() {
                    tracing::info!("the tables of services are as they should be again");
                }
                // What is newer than what was written waits for its turn.
                let current = !self.services.stale;
                let vips: BTreeSet<IpAddr> = self.config.services.iter().map(|service| service.vip).collect();
                let coming: BTreeSet<IpAddr> = vips.difference(&self.services.steered).copied().collect();
                if current && !coming.is_empty() {
                    self.services.steered.extend(&coming);
                    self.mark_vips(&coming);
                }
                if current {
                    self.end_full_nat();
                }
                self.services.stale |= self.services.book.is_behind();
                // Those that went without flows need no next hop any more.
                self.follow_hops();
                // The first services may come with a reload.
                if let Err(error) = self.tell_flows() {
                    tracing::error!("peers do not hear of flows: {}", in_full(&error));
                }
            }
            Event::Written(Err(Unfinished { error, left })) => {
                let error = in_full(&error.into());
                if self.services.failure.as_ref() != Some(&error) {
                    tracing::error!(
                        "the tables of services are not as they should be, trying again: {error}"
                    );
                }
                self.services.failure = Some(error);
                self.services.left = left;
                self.services.book.distrust();
                // Again by the next look, not at once.
                return self.answer_reload();
            }
            Event::Counted(epoch, Ok(counts)) => self.counted(epoch, counts),
            Event::Counted(_, Err(error)) => tracing::warn!(%error, "cannot count the flows of services"),
        }
        self.keep_services();
        self.answer_reload();
    }

    /// Once a second.
    pub(super) fn look_after_services(&mut self) {
        if self.services.failure.is_some() && self.services.work.is_none() {
            self.services.stale = true;
        }
        self.look_after_full_nat();
        self.keep_services();
        self.keep_tunnel_ends();
        self.count_flows();
    }

    pub(super) fn count_flows(&mut self) {
        let Some(tables) = &self.services.tables else { return };
        let due = self.services.count_next.is_none_or(|next| next <= Instant::now());
        // Not while a ring may still lead to a backend that leaves.
        let busy = self.services.counting.is_some() || self.services.work.is_some();
        if busy || !due || self.services.book.is_empty() {
            return;
        }
        let (tables, epoch) = (Arc::clone(tables), self.services.book.epoch());
        self.services.count_next = Some(Instant::now());
        self.services.counting = Some(tokio::task::spawn_blocking(move || (epoch, tables.count_flows())));
    }

    /// Backends that left go when their last flow has ended.
    fn counted(&mut self, epoch: u64, counts: FlowCounts) {
        let begun = self.services.count_next.unwrap_or_else(Instant::now);
        self.services.count_took = begun.elapsed();
        let rest = COUNT_EVERY.max(self.services.count_took * COUNT_REST);
        self.services.count_next = Some(Instant::now() + rest);
        self.services.counts = counts;
        self.resolve_strangers();
        let busy = self.services.work.is_some() || self.is_being_succeeded().is_some();
        if busy || !self.services.book.is_draining() {
            return;
        }
        let Some(tables) = self.services.tables.clone() else { return };
        let before = self.services.past.holders(&self.services.book);
        let Services { book, counts, .. } = &mut self.services;
        let steps = book.release(epoch, |slot| counts.of(slot) > 0);
        if !steps.is_empty() {
            self.services.past.note(&tables, before, &self.services.book);
            self.services.work = Some(tokio::task::spawn_blocking(move || tables.apply(steps)));
        }
    }

    /// Tells the program which VIPs are steered.
    fn mark_vips(&mut self, vips: &BTreeSet<IpAddr>) {
        for index in 0..self.instances.len() {
            let managed = &self.instances[index];
            let Some(home) =
                managed.home.as_ref().filter(|home| home.vips.iter().any(|vip| vips.contains(vip)))
            else {
                continue;
            };
            let router = sysctl::forwards_ipv6(&home.place.vip.name).unwrap_or(false);
            if let Err(error) = self.change_vips(index, &[], &[], router) {
                tracing::error!(instance = self.instances[index].name(), "{}", in_full(&error));
            }
        }
    }

    /// What the tables are to say.
    fn wanted_services(&self, reached: &Reached, carriers: &BTreeMap<IpAddr, Carrier>) -> Vec<Wanted> {
        self.config.services.iter().map(|service| self.wanted_of(service, reached, carriers)).collect()
    }

    fn wanted_of(
        &self,
        service: &Service,
        reached: &Reached,
        carriers: &BTreeMap<IpAddr, Carrier>,
    ) -> Wanted {
        let backend = |backend: &config::Backend| {
            // What it has it keeps until its probe says that it is down: it may have been left out and come back.
            let unproven = self.probe_of(backend).is_some_and(|view| !view.up && !view.proven);
            let way = if unproven {
                self.judged(service, backend.address, reached, carriers)
            } else {
                self.way_to(service, backend, reached, carriers)
            };
            let weight = if unproven { 0 } else { backend.weight };
            WantedBackend { address: backend.address, weight, way: way.ok() }
        };
        let (mode, backends) = match service.mode {
            // A proxy is a local listener to the program.
            ServiceMode::Local | ServiceMode::Proxy(_) => (Mode::Local, Vec::new()),
            ServiceMode::Direct => (Mode::Direct, service.backends.iter().map(backend).collect()),
            ServiceMode::Nat => (Mode::Nat, service.backends.iter().map(backend).collect()),
            ServiceMode::Tunnel => (Mode::Tunnel, service.backends.iter().map(backend).collect()),
        };
        Wanted {
            name: service.name.as_str().to_owned(),
            vip: service.vip,
            ports: service.ports.clone(),
            mode,
            affinity: service.affinity.and_then(|timeout| u32::try_from(timeout.as_secs()).ok()).unwrap_or(0),
            no_backend: match service.no_backend {
                NoBackend::Reject => Closed::Reject,
                NoBackend::Drop => Closed::Drop,
                NoBackend::Pass => Closed::Pass,
            },
            source_ranges: service.source_ranges.clone(),
            backends,
        }
    }

    /// How a backend is reached, or why it is out: its probe has the first word.
    fn way_to(
        &self,
        service: &Service,
        backend: &config::Backend,
        reached: &Reached,
        carriers: &BTreeMap<IpAddr, Carrier>,
    ) -> Result<Way, String> {
        if let Some(view) = self.probe_of(backend)
            && !view.up
        {
            let why = view.last_error.unwrap_or("not up for long enough");
            return Err(format!("probe {} is down: {why}", view.name));
        }
        if !service.mode.is_steered() {
            // By the kernel's routes, as any connection of this node.
            return Ok(Way::Here);
        }
        self.judged(service, backend.address, reached, carriers)
    }

    /// What is known of the probe that a backend names.
    pub(super) fn probe_of(&self, backend: &config::Backend) -> Option<crate::health::View<'_>> {
        let name = backend.probe.as_ref()?;
        let probe = self.config.probes.iter().find(|probe| probe.name == *name)?;
        self.tracker.view(probe.at(backend.address).name())
    }
}

/// All probes that are to be asked: those of the file, and for each backend that names one with `{address}` its own.
pub(super) fn asked(config: &config::Config) -> Vec<config::Probe> {
    let mut asked: Vec<config::Probe> =
        config.probes.iter().filter(|probe| !probe.is_of_backends()).cloned().collect();
    let templates: BTreeMap<&config::Name, &config::Probe> = config
        .probes
        .iter()
        .filter(|probe| probe.is_of_backends())
        .map(|probe| (&probe.name, probe))
        .collect();
    let steered = config.services.iter().filter(|service| service.mode.has_backends());
    let pairs: BTreeSet<(&config::Name, IpAddr)> = steered
        .flat_map(|service| &service.backends)
        .filter_map(|backend| Some((backend.probe.as_ref()?, backend.address)))
        .collect();
    asked.extend(pairs.into_iter().filter_map(|(name, address)| Some(templates.get(name)?.at(address))));
    asked
}
