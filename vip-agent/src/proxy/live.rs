//! A service that is being served: what new connections go by, and what outlives a change of that.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{Semaphore, watch};
use vip_common::steering::maglev::Refused;

use super::choose::{Memory, Ring};
use super::counters::{BackendCounts, Endings, Failures, Flows, ServiceCounts};
use super::service::ProxyService;

/// See the module.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) name: String,
    pub(super) vip: IpAddr,
    plan: RwLock<Arc<Plan>>,
    memory: Mutex<Memory>,
    pub(super) flows: Flows,
    pub(super) failures: Failures,
    pub(super) endings: Endings,
    /// Counts how often all connections of a moment were cut.
    cuts: watch::Sender<u64>,
    /// Connections that may still be opened.
    pub(super) places: Arc<Semaphore>,
}

/// What new connections go by.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) service: ProxyService,
    pub(super) ring: Ring,
    /// In the order of the service's backends.
    pub(super) counters: Vec<Arc<BackendCounters>>,
}

/// Of a backend, for as long as it is one of the service's.
#[derive(Debug, Default)]
pub(super) struct BackendCounters {
    pub(super) flows: Flows,
    pub(super) failures: Failures,
    last_error: Mutex<Option<String>>,
}

// === impl Live ===

impl Live {
    /// # Errors
    /// The backends make no ring.
    pub(super) fn new(service: ProxyService) -> Result<Self, Refused> {
        let (name, vip, connections) = (service.name.clone(), service.vip, service.limits.connections);
        let plan = Plan::new(service, &BTreeMap::new())?;
        Ok(Self {
            name,
            vip,
            plan: RwLock::new(Arc::new(plan)),
            memory: Mutex::default(),
            flows: Flows::default(),
            failures: Failures::default(),
            endings: Endings::default(),
            cuts: watch::Sender::new(0),
            places: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
        })
    }

    /// What new connections go by from now on.
    ///
    /// # Errors
    /// The backends make no ring: all stays as it was.
    pub(super) fn change(&self, service: ProxyService) -> Result<(), Refused> {
        let before = self.plan();
        if before.service == service {
            return Ok(());
        }
        let known = before.service.backends.iter().map(|backend| backend.address);
        let known = known.zip(before.counters.iter().cloned()).collect();
        let plan = Plan::new(service, &known)?;
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
        Ok(())
    }

    pub(super) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets all connections that there are.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Whether it has connections.
    pub(super) fn is_open(&self) -> bool {
        self.flows.active.load(Relaxed) > 0
    }

    /// Tells of the next [`Self::cut`].
    pub(super) fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }

    pub(super) fn counts(&self) -> ServiceCounts {
        let plan = self.plan();
        let backends = plan.service.backends.iter().zip(&plan.counters);
        ServiceCounts {
            name: self.name.clone(),
            new_flows: self.flows.new.load(Relaxed),
            active_flows: self.flows.active.load(Relaxed),
            received: self.flows.received.load(Relaxed),
            sent: self.flows.sent.load(Relaxed),
            failed: self.failures.read(),
            broken: self.endings.read(),
            backends: backends.map(|(backend, counters)| (backend.address, counters.read())).collect(),
        }
    }
}

// === impl Plan ===

impl Plan {
    fn new(service: ProxyService, known: &BTreeMap<IpAddr, Arc<BackendCounters>>) -> Result<Self, Refused> {
        let ring = Ring::new(&service.backends)?;
        let counters = service.backends.iter();
        let counters = counters.map(|backend| known.get(&backend.address).cloned().unwrap_or_default());
        Ok(Self { counters: counters.collect(), ring, service })
    }

    /// Whether this client is served.
    pub(super) fn allows(&self, client: IpAddr) -> bool {
        let ranges = &self.service.source_ranges;
        ranges.is_empty() || ranges.iter().any(|range| range.contains(&client))
    }

    /// Where a backend listens for what came to `port` of the VIP.
    pub(super) fn backend(&self, index: usize, port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.service.backends.get(index)?.address, self.service.target(port)?))
    }
}

// === impl BackendCounters ===

impl BackendCounters {
    pub(super) fn note_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn read(&self) -> BackendCounts {
        BackendCounts {
            new_flows: self.flows.new.load(Relaxed),
            active_flows: self.flows.active.load(Relaxed),
            received: self.flows.received.load(Relaxed),
            sent: self.flows.sent.load(Relaxed),
            failed: self.failures.read(),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
