//! What is seen of services: status and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vip_common::steering::reason::Outcome;

use super::super::Agent;
use super::Services;
use crate::config::{self, Service};
use crate::dataplane::services::{BackendSlot, Book, Holder, ServiceTables};
use crate::metrics::{self, Counted};
use crate::status::{BackendStatus, ServiceStatus};

/// Of backends whose slots were given back, by service and address: so that no counter falls while their service is there.
#[derive(Debug, Default)]
pub(super) struct Past(BTreeMap<(String, IpAddr), Counted>);

/// Slots and who has them.
pub(super) type Holders = BTreeMap<(String, IpAddr), BackendSlot>;

impl Past {
    pub(super) fn holders(&self, book: &Book) -> Holders {
        let names: Vec<&str> = book.indices().map(|(name, _)| name).collect();
        let of = |name: &'_ str| -> Vec<((String, IpAddr), BackendSlot)> {
            book.holders(name).map(|holder| ((name.to_owned(), holder.address), holder.slot)).collect()
        };
        names.into_iter().flat_map(of).collect()
    }

    /// Keeps what was counted of holders that have gone since; forgets services that are not there any more.
    pub(super) fn note(&mut self, tables: &ServiceTables, before: Holders, book: &Book) {
        let now = self.holders(book);
        for (key, slot) in before {
            if now.get(&key) == Some(&slot) {
                continue;
            }
            match tables.backend_counters(slot.number.get()) {
                Ok(counters) => {
                    let past = self.0.entry(key).or_default();
                    past.packets += counters.packets;
                    past.bytes += counters.bytes;
                }
                Err(error) => tracing::warn!(%error, "what was counted of a backend is lost"),
            }
        }
        let services: BTreeSet<&str> = book.indices().map(|(name, _)| name).collect();
        self.0.retain(|(service, _), _| services.contains(service.as_str()));
    }
}

/// A name for each outcome, as in status and metrics.
pub(super) const OUTCOMES: [(Outcome, &str); Outcome::COUNT] = [
    (Outcome::Steered, "steered"),
    (Outcome::NewFlow, "new_flow"),
    (Outcome::Unnoted, "unnoted"),
    (Outcome::ErrorSteered, "error_steered"),
    (Outcome::FragmentSteered, "fragment_steered"),
    (Outcome::FragmentUnknown, "fragment_unknown"),
    (Outcome::Passed, "passed"),
    (Outcome::Closed, "closed"),
    (Outcome::Rejected, "rejected"),
    (Outcome::NotAllowed, "not_allowed"),
    (Outcome::TooBig, "too_big"),
    (Outcome::Expired, "expired"),
    (Outcome::Silent, "silent"),
    (Outcome::Echoed, "echoed"),
    (Outcome::OtherLink, "other_link"),
    (Outcome::Loop, "loop"),
    (Outcome::Returned, "returned"),
    (Outcome::NoPort, "no_port"),
    (Outcome::NoWayBack, "no_way_back"),
    (Outcome::Unmapped, "unmapped"),
];

impl Agent {
    /// `services` of status.
    pub(in super::super) fn service_statuses(&self) -> Vec<ServiceStatus> {
        let (reached, carriers) = (self.services.reached(), self.carriers());
        let status = |service: &Service| {
            let counters = self.services.counters(service.name.as_str());
            let holders: BTreeMap<IpAddr, Holder> = self
                .services
                .book
                .holders(service.name.as_str())
                .map(|holder| (holder.address, holder))
                .collect();
            let seen = |address: IpAddr| {
                let slot = holders.get(&address)?.slot;
                let counted = self.services.tables.as_ref()?.backend_counters(slot.number.get()).ok()?;
                Some((counted.packets, self.services.counts.of(slot)))
            };
            let backend = |backend: &config::Backend| {
                let way = self.way_to(service, backend, &reached, &carriers);
                let (packets, active_flows) = seen(backend.address).unwrap_or_default();
                BackendStatus {
                    address: backend.address,
                    weight: backend.weight,
                    up: way.is_ok(),
                    reason: way
                        .err()
                        .or_else(|| (backend.weight == 0).then(|| "draining: weight 0".to_owned())),
                    packets,
                    active_flows,
                }
            };
            let leaving = holders.values().filter(|holder| holder.leaving).map(|holder| {
                let (packets, active_flows) = seen(holder.address).unwrap_or_default();
                BackendStatus {
                    address: holder.address,
                    weight: 0,
                    up: true,
                    reason: Some("removed: goes when its last flow has ended".to_owned()),
                    packets,
                    active_flows,
                }
            });
            let configured = service.backends.iter().filter(|_| service.mode.has_backends());
            let backends: Vec<_> = configured.map(backend).chain(leaving).collect();
            ServiceStatus {
                name: service.name.as_str().to_owned(),
                vip: service.vip,
                mode: service.mode.as_str().to_owned(),
                ports: service.ports.iter().map(ToString::to_string).collect(),
                reason: self.services.failure.clone().or_else(|| {
                    self.services.is_settling().then(|| "a change is on its way into the tables".to_owned())
                }),
                packets: counters.packets,
                bytes: counters.bytes,
                new_flows: counters.outcomes.get("new_flow").copied().unwrap_or_default(),
                active_flows: backends.iter().map(|backend| backend.active_flows).sum(),
                outcomes: counters
                    .outcomes
                    .iter()
                    .map(|(name, count)| ((*name).to_owned(), *count))
                    .collect(),
                backends,
            }
        };
        self.config.services.iter().map(status).collect()
    }

    /// Services of metrics.
    pub(in super::super) fn service_metrics(&self) -> Vec<metrics::Service> {
        let service = |service: &Service| {
            let name = service.name.as_str();
            let total = self.services.counters(name);
            let mut backends: BTreeMap<String, Counted> = BTreeMap::new();
            for ((of, address), past) in &self.services.past.0 {
                if of == name {
                    backends.insert(address.to_string(), *past);
                }
            }
            for holder in self.services.book.holders(name) {
                let counted = backends.entry(holder.address.to_string()).or_default();
                counted.flows = Some(self.services.counts.of(holder.slot));
                let now = self
                    .services
                    .tables
                    .as_ref()
                    .and_then(|tables| tables.backend_counters(holder.slot.number.get()).ok());
                if let Some(now) = now {
                    counted.packets += now.packets;
                    counted.bytes += now.bytes;
                }
            }
            let rest =
                |all: u64, of: fn(&Counted) -> u64| all.saturating_sub(backends.values().map(of).sum());
            // Up the stack, to the client, or nowhere.
            let none = Counted {
                packets: rest(total.packets, |counted| counted.packets),
                bytes: rest(total.bytes, |counted| counted.bytes),
                flows: None,
            };
            backends.insert(String::new(), none);
            metrics::Service { name: name.to_owned(), backends, outcomes: total.outcomes }
        };
        self.config.services.iter().map(service).collect()
    }
}

/// What was counted of a service.
#[derive(Debug, Default)]
struct Total {
    packets: u64,
    bytes: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

impl Services {
    fn counters(&self, service: &str) -> Total {
        let read = || {
            let (tables, index) = (self.tables.as_ref()?, self.book.index(service)?);
            tables.service_counters(index).ok()
        };
        let Some(counters) = read() else { return Total::default() };
        let of = |(outcome, name): (Outcome, &'static str)| {
            (name, counters.outcomes.get(outcome as usize).copied().unwrap_or_default())
        };
        Total {
            packets: counters.outcomes.iter().sum(),
            bytes: counters.bytes,
            outcomes: OUTCOMES.map(of).into(),
        }
    }
}
