//! What the steering tables say, as far as this process wrote it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;
use vip_common::steering::tables::{
    Backend, MAX_SERVICES, Service, ServiceKey, ServicePort, backend_flags, service_flags,
};

use super::plan::{Step, Writes};
use super::slots::{BackendSlot, Slots};
use super::wanted::{Wanted, Way, address, gone};
use crate::config::{MOST_BACKENDS, PortRange};

/// More is wanted than fits; the configuration's checks keep that from happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} {what} are wanted, and {limit} fit")]
pub struct NoRoom {
    what: &'static str,
    wanted: usize,
    limit: u32,
}

/// What the tables say, by the names of services.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub(super) services: BTreeMap<String, Entry>,
    pub(super) indices: Indices,
    pub(super) slots: Slots,
    pub(super) epoch: u64,
    /// Whether something has to wait for slots that the last plan frees.
    pub(super) behind: bool,
}

/// What the tables say of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) index: u16,
    /// `None`: to be written, whatever is there.
    pub(super) value: Option<Service>,
    /// Likewise.
    pub(super) ports: Option<(IpAddr, Vec<PortRange>)>,
    /// Ports that may be there besides.
    pub(super) stray: Vec<ServiceKey>,
    pub(super) sources: Vec<IpNet>,
    /// Whether these are known to be there.
    pub(super) sources_stand: bool,
    pub(super) backends: BTreeMap<IpAddr, Held>,
    /// Slots and weights of those in the ring, by address; `None`: to be written, whatever is there.
    pub(super) ring: Option<Vec<(IpAddr, BackendSlot, u16)>>,
}

/// A slot in a service's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) slot: BackendSlot,
    /// `None`: to be written, whatever is there.
    pub(super) value: Option<Backend>,
    /// The plan by which it was to leave, unless it is wanted.
    pub(super) leaving: Option<u64>,
}

/// Slots of `SERVICES`.
#[derive(Clone, Debug, Default)]
pub(super) struct Indices(Vec<bool>);

impl Indices {
    /// The lowest free one.
    pub(super) fn take(&mut self) -> Option<u16> {
        let free = self.0.iter().position(|taken| !taken).unwrap_or(self.0.len());
        let index = u16::try_from(free).ok().filter(|index| u32::from(*index) < MAX_SERVICES)?;
        self.set(index, true);
        Some(index)
    }

    pub(super) fn set(&mut self, index: u16, taken: bool) {
        let at = usize::from(index);
        if self.0.len() <= at {
            self.0.resize(at + 1, false);
        }
        self.0[at] = taken;
    }
}

impl Entry {
    /// Of a slot in which nobody's ring is.
    pub(super) fn new(index: u16) -> Self {
        Self { index, ring: Some(Vec::new()), ..Self::default() }
    }

    /// All ports that may be there.
    pub(super) fn ports(&self) -> impl Iterator<Item = ServiceKey> + '_ {
        let ports =
            self.ports.iter().flat_map(|(vip, ranges)| super::wanted::ports(*vip, ranges, self.index));
        ports.map(|(key, _)| key).chain(self.stray.iter().copied())
    }

    fn is_full_nat(&self) -> bool {
        self.value.is_some_and(|value| value.flags & service_flags::FULL_NAT != 0)
    }

    /// Whether packets may go to other nodes, in mode `nat`. Those that leave keep their flows, and where nobody is up, what there
    /// was before may come back.
    pub(super) fn reaches_others(&self) -> bool {
        let before = self.is_full_nat();
        let elsewhere = |backend: &Backend| {
            !backend.is(backend_flags::LOCAL) && (before || backend.is(backend_flags::UP))
        };
        self.backends.values().filter_map(|held| held.value.as_ref()).any(elsewhere)
    }

    fn distrust(&mut self) {
        self.stray = self.ports().collect();
        (self.ports, self.value, self.ring, self.sources_stand) = (None, None, None, false);
        self.backends.values_mut().for_each(|held| held.value = None);
    }
}

/// A backend that holds a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Where it is.
    pub address: IpAddr,
    /// Its slot.
    pub slot: BackendSlot,
    /// It is not wanted any more, and keeps its flows until they end.
    pub leaving: bool,
}

impl Book {
    /// Plans the way to `wanted`, and takes it for gone: where it is not, [`Self::distrust`].
    ///
    /// `way` is how a backend is reached that its service does not want any more.
    ///
    /// # Errors
    /// More than fits. Nothing is changed then.
    pub fn plan(
        &mut self,
        wanted: &[Wanted],
        way: impl Fn(&Wanted, IpAddr) -> Option<Way>,
    ) -> Result<Vec<Step>, NoRoom> {
        let backends: usize = wanted.iter().map(|service| service.backends.len()).sum();
        for (what, wanted, limit) in
            [("services", wanted.len(), MAX_SERVICES), ("backends", backends, MOST_BACKENDS)]
        {
            if u32::try_from(wanted).map_or(true, |wanted| wanted > limit) {
                return Err(NoRoom { what, wanted, limit });
            }
        }
        self.epoch += 1;
        self.behind = false;
        Ok(Writes::plan(self, wanted, way))
    }

    /// Plans the end of backends that were leaving before the plan of `epoch` was made, or by it, and have no flow any more.
    pub fn release(&mut self, epoch: u64, has_flows: impl Fn(BackendSlot) -> bool) -> Vec<Step> {
        let (mut writes, mut services) = (Vec::new(), Vec::new());
        for entry in self.services.values_mut() {
            entry.backends.retain(|_, held| {
                let stays = held.leaving.is_none_or(|since| since > epoch) || has_flows(held.slot);
                if !stays {
                    writes.push((held.slot.number.get(), gone(held.slot)));
                    self.slots.give_back(held.slot);
                }
                stays
            });
            if let Some(value) = entry.value
                && entry.is_full_nat()
                && !entry.reaches_others()
            {
                let value = Service { flags: value.flags & !service_flags::FULL_NAT, ..value };
                entry.value = Some(value);
                services.push((entry.index, value));
            }
        }
        [Step::Backends(writes), Step::Services(services)]
            .into_iter()
            .filter(|step| !step.is_empty())
            .collect()
    }

    /// A plan was not carried out to its end: the next one writes everything.
    pub fn distrust(&mut self) {
        self.services.values_mut().for_each(Entry::distrust);
    }

    /// Number of the last plan.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a backend is waiting for its last flows to end.
    pub fn is_draining(&self) -> bool {
        self.services.values().flat_map(|entry| entry.backends.values()).any(|held| held.leaving.is_some())
    }

    /// Whether the last plan could not do everything, for want of slots that it frees: plan again when it is carried out.
    pub const fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether nothing was ever wanted.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// A service's slot in `SERVICES` and `SERVICE_COUNTERS`.
    pub fn index(&self, service: &str) -> Option<u16> {
        Some(self.services.get(service)?.index)
    }

    /// VIPs with services whose packets may go to backends on other nodes with both ends changed.
    pub fn full_nat_vips(&self) -> BTreeSet<IpAddr> {
        let entries = self.services.values().filter(|entry| entry.is_full_nat());
        entries.filter_map(|entry| entry.ports.as_ref().map(|(vip, _)| *vip)).collect()
    }

    /// The services' slots by name: for [`Self::adopt`] of another process.
    pub fn indices(&self) -> impl Iterator<Item = (&str, u16)> {
        self.services.iter().map(|(name, entry)| (name.as_str(), entry.index))
    }

    /// A service's backends that hold slots, those that are leaving included.
    pub fn holders(&self, service: &str) -> impl Iterator<Item = Holder> + '_ {
        let backends = self.services.get(service).into_iter().flat_map(|entry| &entry.backends);
        backends.map(|(address, held)| Holder {
            address: *address,
            slot: held.slot,
            leaving: held.leaving.is_some(),
        })
    }

    /// The backends that hold slots: also those that are not wanted any more, whose next hops matter until their flows have ended.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.services.values().flat_map(|entry| entry.backends.keys()).copied()
    }

    /// Goes on with tables that another process filled: its services' slots, its ports, and the slots of `BACKENDS` from 1 up
    /// to the last that was ever used. The first plan writes everything once more, into the same slots.
    pub fn adopt(
        indices: impl IntoIterator<Item = (String, u16)>,
        ports: impl IntoIterator<Item = (ServiceKey, ServicePort)>,
        backends: &[Backend],
    ) -> Self {
        let mut book = Self::default();
        let mut by_index = BTreeMap::new();
        for (name, index) in indices {
            book.indices.set(index, true);
            by_index.insert(index, (name, Entry { index, ..Entry::default() }));
        }
        for (key, port) in ports {
            if let Some((_, entry)) = by_index.get_mut(&port.service) {
                entry.stray.push(key);
            }
        }
        let mut taken = BTreeSet::new();
        for (number, backend) in (1_u32..).filter_map(NonZeroU32::new).zip(backends) {
            let entry = by_index.get_mut(&backend.service).filter(|_| backend.family != 0);
            if let Some((_, entry)) = entry {
                let slot = BackendSlot { number, generation: backend.generation };
                let held = Held { slot, value: None, leaving: None };
                entry.backends.insert(address(backend.address, backend.family), held);
                taken.insert(number);
            }
        }
        book.services = by_index.into_values().collect();
        let generations = backends.iter().map(|backend| backend.generation).collect();
        book.slots = Slots::adopt(generations, |number| taken.contains(&number));
        book
    }
}
