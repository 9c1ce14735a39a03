//! What the HTTP API asks for: status, metrics, readiness.

use std::time::UNIX_EPOCH;

use super::Agent;
use super::instance::{Exit, Managed};
use crate::api::{Ask, Readiness};
use crate::health::Measured;
use crate::metrics;
use crate::types::MonotonicTime;
use crate::vrrp::machine::State;

impl Agent {
    pub(super) async fn on_ask(&mut self, ask: Ask) {
        // Whoever asked may have gone meanwhile.
        match ask {
            Ask::Status(answer) => drop(answer.send(self.status().await)),
            Ask::Metrics(answer) => drop(answer.send(self.metrics().await)),
            Ask::Readiness(answer) => drop(answer.send(self.readiness())),
        }
    }

    async fn metrics(&mut self) -> metrics::Snapshot {
        let now = MonotonicTime::now();
        let (mut instances, mut silent) = (Vec::new(), false);
        for index in 0..self.instances.len() {
            let snapshot = self.inspect_next(self.instances[index].id, &mut silent).await;
            let managed = &mut self.instances[index];
            if let Some(snapshot) = &snapshot {
                managed.adverts = snapshot.adverts;
            }
            instances.push(metrics::Instance {
                name: managed.name().to_owned(),
                state: managed.state,
                lease: snapshot.map(|snapshot| snapshot.lease_until.since(now)),
            });
        }
        let known = |name: &str| instances.iter().any(|instance| instance.name == name);
        let transitions = self.meters.transitions().iter().filter(|((name, ..), _)| known(name));
        let transitions = transitions.map(|(key, count)| (key.clone(), *count)).collect();
        metrics::Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            node: self.config.node.clone(),
            config_current: self.provenance.refused.is_none(),
            config_applied: self.provenance.applied.duration_since(UNIX_EPOCH).unwrap_or_default(),
            transitions,
            phases: self.meters.phases().clone(),
            lateness: self.driver.vitals().lateness(),
            adverts: self.meters.adverts(self.instances.iter().map(|managed| &managed.adverts)),
            probes: self.tracker.measured().map(probe).collect(),
            packets: self.meters.packets(self.packets()),
            services: self.service_metrics(),
            alarms: self.alarms.totals(),
            attached: self
                .dataplane
                .attached()
                .map(|(_, name, attached)| (name.to_owned(), attached.mode))
                .collect(),
            instances,
        }
    }

    /// What the program counted on each interface that it is on.
    fn packets(&self) -> impl Iterator<Item = (&str, Vec<crate::dataplane::LinkCounter>)> {
        let counters = self.dataplane.counters().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the program's counters");
            Vec::new()
        });
        self.dataplane.attached().map(move |(ifindex, name, _)| {
            (name, counters.iter().filter(|counter| counter.ifindex == ifindex).copied().collect())
        })
    }

    /// Keeps what was counted of an instance that is about to be removed.
    pub(super) async fn note_counts(&mut self, index: usize) {
        if let Some(snapshot) = self.inspect(self.instances[index].id).await {
            self.instances[index].adverts = snapshot.adverts;
        }
        self.meters.instance_goes(&self.instances[index].adverts);
    }

    /// Keeps what was counted on an interface that the program is about to be taken off.
    pub(super) fn note_packets(&mut self, ifindex: u32) {
        let Some((_, name, _)) = self.dataplane.attached().find(|(attached, ..)| *attached == ifindex) else {
            return;
        };
        match self.dataplane.counters() {
            Ok(mut counters) => {
                counters.retain(|counter| counter.ifindex == ifindex);
                self.meters.interface_goes(name, &counters);
            }
            Err(error) => tracing::warn!(%error, "what was counted on {name} is lost"),
        }
    }

    fn readiness(&self) -> Readiness {
        if self.stopping.is_some() {
            return Readiness { missing: vec!["the agent is ending".to_owned()] };
        }
        let arriving =
            self.reload.arriving().map(|name| format!("{name}: waits for another instance to leave"));
        let staying = self.instances.iter().filter(|managed| managed.exit == Exit::None);
        Readiness { missing: staying.filter_map(missing).chain(arriving).collect() }
    }
}

/// One probe. Whoever is told and does not ask takes no time.
fn probe((name, up, measured): (&str, bool, &Measured)) -> metrics::Probe {
    metrics::Probe { name: name.to_owned(), up, took: measured.last.filter(|took| !took.is_zero()) }
}

/// What an instance lacks to take part.
fn missing(managed: &Managed) -> Option<String> {
    let name = managed.name();
    let attached = managed.home.as_ref().is_some_and(|home| home.mode.is_some());
    if !attached {
        let why = managed.fault.as_deref().unwrap_or("the program is not attached");
        return Some(format!("{name}: {why}"));
    }
    (managed.state == State::Initialize).then(|| format!("{name}: is in initialize (hold_down?)"))
}
