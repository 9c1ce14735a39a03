//! Which entries of the steering tables to write, and in which order, to get from what they say to what they are to say. Pure.
//!
//! A packet may come between any two writes. So nothing is pointed to before it is there, nothing goes that is pointed to, and
//! what is the same is not written: a change of one service disturbs no other.

use std::collections::{HashMap, HashSet, btree_map};
use std::net::IpAddr;

use ipnet::IpNet;
use vip_common::steering::maglev::Candidate;
use vip_common::steering::tables::{Backend, Mode, Service, ServiceKey, ServicePort, backend_flags};

use super::book::{Book, Entry, Held};
use super::slots::BackendSlot;
use super::wanted::{Wanted, WantedBackend, Way, gone, identity, ports};

/// One kind of writes. Those of one step may be done in any order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Zeroes what was counted of former services and of former backends.
    Forget(Vec<u16>, Vec<u32>),
    /// Writes slots of `BACKENDS`.
    Backends(Vec<(u32, Backend)>),
    /// Allows clients.
    Allow(Vec<(u16, IpNet)>),
    /// Builds rings and swaps them in. Without candidates a ring has nobody.
    Rings(Vec<(u16, Vec<Candidate>)>),
    /// Writes slots of `SERVICES`.
    Services(Vec<(u16, Service)>),
    /// Gives ports to services.
    Open(Vec<(ServiceKey, ServicePort)>),
    /// Takes ports from services.
    Close(Vec<ServiceKey>),
    /// Allows clients no more.
    Disallow(Vec<(u16, IpNet)>),
}

impl Step {
    /// How many entries it writes.
    pub fn len(&self) -> usize {
        match self {
            Self::Forget(services, backends) => services.len() + backends.len(),
            Self::Backends(entries) => entries.len(),
            Self::Allow(entries) | Self::Disallow(entries) => entries.len(),
            Self::Rings(entries) => entries.len(),
            Self::Services(entries) => entries.len(),
            Self::Open(entries) => entries.len(),
            Self::Close(entries) => entries.len(),
        }
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it takes something away, which has to be made up for if it was not done: a later plan does not know of it.
    pub fn removes(&self) -> bool {
        matches!(self, Self::Backends(_) | Self::Close(_) | Self::Disallow(_))
    }
}

/// The steps in the making.
#[derive(Default)]
pub(super) struct Writes {
    forgotten: (Vec<u16>, Vec<u32>),
    /// New, or with another way, or as good as before.
    arriving: Vec<(u32, Backend)>,
    allowed: Vec<(u16, IpNet)>,
    rings: Vec<(u16, Vec<Candidate>)>,
    services: Vec<(u16, Service)>,
    opened: Vec<(ServiceKey, ServicePort)>,
    closed: Vec<ServiceKey>,
    disallowed: Vec<(u16, IpNet)>,
    /// Draining, down, or gone.
    leaving: Vec<(u32, Backend)>,
    emptied: Vec<(u16, Vec<Candidate>)>,
    /// To be given back when all is planned: what a ring still has is not another's at once.
    freed: Vec<BackendSlot>,
    indices_freed: Vec<u16>,
}

impl Writes {
    /// The steps from what `book` says to `wanted`; the book says that then.
    pub(super) fn plan(
        book: &mut Book,
        wanted: &[Wanted],
        way: impl Fn(&Wanted, IpAddr) -> Option<Way>,
    ) -> Vec<Step> {
        let mut writes = Self::default();
        writes.remove(book, wanted);
        writes.make_room(book, wanted);
        for service in wanted {
            writes.service(book, service, |address| way(service, address));
        }
        for slot in std::mem::take(&mut writes.freed) {
            book.slots.give_back(slot);
        }
        for index in std::mem::take(&mut writes.indices_freed) {
            book.indices.set(index, false);
        }
        writes.in_order()
    }

    /// Nothing is pointed to before it is there, and nothing goes that is pointed to.
    fn in_order(mut self) -> Vec<Step> {
        // What went to another holder is not to be taken from it.
        let opened: HashSet<ServiceKey> = self.opened.iter().map(|(key, _)| *key).collect();
        self.closed.retain(|key| !opened.contains(key));
        let taken: HashSet<u32> = self.arriving.iter().map(|(slot, _)| *slot).collect();
        self.leaving.retain(|(slot, _)| !taken.contains(slot));
        let steps = [
            Step::Forget(self.forgotten.0, self.forgotten.1),
            Step::Backends(self.arriving),
            Step::Allow(self.allowed),
            Step::Rings(self.rings),
            Step::Services(self.services),
            Step::Open(self.opened),
            Step::Close(self.closed),
            Step::Disallow(self.disallowed),
            Step::Backends(self.leaving),
            Step::Rings(self.emptied),
        ];
        steps.into_iter().filter(|step| !step.is_empty()).collect()
    }

    /// Services that are not wanted any more.
    fn remove(&mut self, book: &mut Book, wanted: &[Wanted]) {
        let names: HashSet<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
        let gone: Vec<String> =
            book.services.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        for entry in gone.iter().filter_map(|name| book.services.remove(name)) {
            self.closed.extend(entry.ports());
            self.disallowed.extend(entry.sources.iter().map(|range| (entry.index, *range)));
            for held in entry.backends.values() {
                self.take_from(held.slot);
            }
            if entry.ring.is_none_or(|ring| !ring.is_empty()) {
                self.emptied.push((entry.index, Vec::new()));
            }
            self.indices_freed.push(entry.index);
        }
    }

    fn take_from(&mut self, slot: BackendSlot) {
        self.leaving.push((slot.number.get(), gone(slot)));
        self.freed.push(slot);
    }

    /// If slots run out, those that only wait for their last flows give theirs up. They are in no ring, so that theirs can
    /// be another's at once.
    fn make_room(&mut self, book: &mut Book, wanted: &[Wanted]) {
        let is_new = |service: &Wanted, backend: &WantedBackend| {
            let entry = book.services.get(&service.name);
            !entry.is_some_and(|entry| entry.backends.contains_key(&backend.address))
        };
        let needed = wanted
            .iter()
            .flat_map(|service| service.backends.iter().filter(|backend| is_new(service, backend)));
        if needed.count() <= book.slots.available() {
            return;
        }
        let Book { services, slots, .. } = book;
        for service in wanted {
            let Some(entry) = services.get_mut(&service.name) else { continue };
            let wanted: HashSet<IpAddr> = service.backends.iter().map(|backend| backend.address).collect();
            entry.backends.retain(|address, held| {
                let stays = held.leaving.is_none() || wanted.contains(address);
                if !stays {
                    self.leaving.push((held.slot.number.get(), gone(held.slot)));
                    slots.give_back(held.slot);
                }
                stays
            });
        }
    }

    fn service(&mut self, book: &mut Book, wanted: &Wanted, way: impl Fn(IpAddr) -> Option<Way>) {
        let mut entry = match book.services.remove(&wanted.name) {
            Some(entry) => entry,
            None => {
                let Some(index) = book.indices.take() else {
                    book.behind = true;
                    return;
                };
                self.forgotten.0.push(index);
                Entry::new(index)
            }
        };
        self.backends(book, &mut entry, wanted, way);
        self.ring(&mut entry, wanted);
        self.sources(&mut entry, wanted);
        self.value(&mut entry, wanted);
        self.ports(&mut entry, wanted);
        book.services.insert(wanted.name.clone(), entry);
    }

    fn backends(
        &mut self,
        book: &mut Book,
        entry: &mut Entry,
        wanted: &Wanted,
        way: impl Fn(IpAddr) -> Option<Way>,
    ) {
        let index = entry.index;
        for backend in &wanted.backends {
            let held = match entry.backends.entry(backend.address) {
                btree_map::Entry::Occupied(held) => held.into_mut(),
                btree_map::Entry::Vacant(place) => {
                    let Some(slot) = book.slots.take() else {
                        book.behind = true;
                        continue;
                    };
                    self.forgotten.1.push(slot.number.get());
                    place.insert(Held { slot, value: None, leaving: None })
                }
            };
            held.leaving = None;
            self.backend(held, backend.value(held.slot, index));
        }
        let staying: HashSet<IpAddr> = wanted.backends.iter().map(|backend| backend.address).collect();
        entry.backends.retain(|address, held| {
            if staying.contains(address) {
                return true;
            }
            // Where packets go up the stack, or nowhere, there is nobody to wait for.
            let way = way(*address).filter(|_| wanted.mode != Mode::Local);
            if way.is_none() {
                self.take_from(held.slot);
                return false;
            }
            held.leaving.get_or_insert(book.epoch);
            self.backend(held, WantedBackend::leaving(*address, way).value(held.slot, index));
            true
        });
    }

    fn backend(&mut self, held: &mut Held, value: Backend) {
        if held.value == Some(value) {
            return;
        }
        held.value = Some(value);
        // What gets no new flows any more stays as it was until no ring has it.
        let serves = value.is(backend_flags::UP) && !value.is(backend_flags::DRAINING);
        let list = if serves { &mut self.arriving } else { &mut self.leaving };
        list.push((held.slot.number.get(), value));
    }

    fn ring(&mut self, entry: &mut Entry, wanted: &Wanted) {
        let serving = wanted.backends.iter().filter(|backend| backend.weight > 0 && backend.way.is_some());
        let mut ring: Vec<_> = serving
            .filter_map(|backend| {
                Some((backend.address, entry.backends.get(&backend.address)?.slot, backend.weight))
            })
            .collect();
        ring.sort_unstable();
        if entry.ring.as_ref() == Some(&ring) {
            return;
        }
        let candidate = |(address, slot, weight): &(IpAddr, BackendSlot, u16)| {
            Candidate::new(identity(*address), slot.number, *weight)
        };
        self.rings.push((entry.index, ring.iter().map(candidate).collect()));
        entry.ring = Some(ring);
    }

    fn sources(&mut self, entry: &mut Entry, wanted: &Wanted) {
        let (index, stand) = (entry.index, entry.sources_stand);
        let come = wanted.source_ranges.iter().filter(|range| !stand || !entry.sources.contains(range));
        self.allowed.extend(come.map(|range| (index, *range)));
        let go = entry.sources.iter().filter(|range| !wanted.source_ranges.contains(range));
        self.disallowed.extend(go.map(|range| (index, *range)));
        entry.sources.clone_from(&wanted.source_ranges);
        entry.sources_stand = true;
    }

    fn value(&mut self, entry: &mut Entry, wanted: &Wanted) {
        let full_nat = wanted.mode == Mode::Nat && entry.reaches_others();
        let value = wanted.value(full_nat);
        if entry.value != Some(value) {
            self.services.push((entry.index, value));
            entry.value = Some(value);
        }
    }

    fn ports(&mut self, entry: &mut Entry, wanted: &Wanted) {
        let same = |(vip, ranges): &(IpAddr, Vec<_>)| *vip == wanted.vip && *ranges == wanted.ports;
        if entry.stray.is_empty() && entry.ports.as_ref().is_some_and(same) {
            return;
        }
        let new: HashMap<ServiceKey, ServicePort> = ports(wanted.vip, &wanted.ports, entry.index).collect();
        let old: HashMap<ServiceKey, ServicePort> =
            entry.ports.iter().flat_map(|(vip, ranges)| ports(*vip, ranges, entry.index)).collect();
        let known = |key: &ServiceKey, port: &ServicePort| old.get(key) == Some(port);
        self.opened
            .extend(new.iter().filter(|(key, port)| !known(key, port)).map(|(key, port)| (*key, *port)));
        self.closed.extend(entry.ports().filter(|key| !new.contains_key(key)));
        entry.ports = Some((wanted.vip, wanted.ports.clone()));
        entry.stray.clear();
    }
}
