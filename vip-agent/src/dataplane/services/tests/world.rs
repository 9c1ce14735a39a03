//! Tables as the kernel has them, but of plain collections, on which steps are carried out write by write; after each of them it
//! is looked whether something points to what is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vip_common::steering::maglev::{Candidate, RingSize, UNSET, fill};
use vip_common::steering::tables::{
    Backend, Mode, Service, ServiceKey, ServicePort, backend_flags, service_flags,
};

use super::super::book::Book;
use super::super::plan::Step;
use super::super::wanted::{Wanted, WantedBackend, Way, ports};
use crate::config::{PortRange, Transport};
use crate::types::MacAddr;

/// What the program sees.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) ports: BTreeMap<[u8; 20], ServicePort>,
    pub(super) services: BTreeMap<u16, Service>,
    /// Slots in the ring, as a set: which entry has which is Maglev's business.
    pub(super) rings: BTreeMap<u16, BTreeSet<u32>>,
    pub(super) backends: BTreeMap<u32, Backend>,
    pub(super) sources: BTreeSet<(u16, IpNet)>,
    /// Services that a write concerned.
    pub(super) touched: BTreeSet<u16>,
}

impl World {
    /// Carries out steps, looking after each write whether all is well.
    pub(super) fn apply(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
            self.check();
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Forget(..) => {}
            Step::Backends(entries) => {
                for (slot, value) in entries {
                    let before = self.backends.insert(*slot, *value);
                    let services = [before.map(|before| before.service), Some(value.service)];
                    self.touched.extend(services.into_iter().flatten().filter(|_| value.family != 0));
                    self.check_slot(*slot);
                }
            }
            Step::Allow(ranges) => {
                self.sources.extend(ranges);
                self.touched.extend(ranges.iter().map(|(service, _)| service));
            }
            Step::Disallow(ranges) => {
                self.sources.retain(|range| !ranges.contains(range));
            }
            Step::Rings(rings) => {
                for (service, candidates) in rings {
                    self.touched.insert(*service);
                    self.rings.insert(*service, slots_of(candidates));
                    self.check();
                }
            }
            Step::Services(entries) => {
                for (service, value) in entries {
                    self.touched.insert(*service);
                    self.services.insert(*service, *value);
                    self.check();
                }
            }
            Step::Open(entries) => {
                for (key, port) in entries {
                    self.touched.insert(port.service);
                    self.ports.insert(bytemuck::cast(*key), *port);
                    self.check();
                }
            }
            Step::Close(keys) => {
                for key in keys {
                    self.ports.remove(&bytemuck::cast::<_, [u8; 20]>(*key));
                }
            }
        }
    }

    /// Whatever a port leads to is there, and serves this service.
    pub(super) fn check(&self) {
        for port in self.ports.values() {
            let service = self.services.get(&port.service).expect("a port leads to a service");
            if service.flags & service_flags::SOURCE_RANGES != 0 {
                assert!(
                    self.sources.iter().any(|(index, _)| *index == port.service),
                    "ranges before their flag"
                );
            }
            for slot in self.rings.get(&port.service).into_iter().flatten() {
                self.check_way(port.service, *slot);
            }
        }
    }

    /// The part of [`Self::check`] that a write of this slot concerns: there may be thousands of them.
    fn check_slot(&self, slot: u32) {
        let open: BTreeSet<u16> = self.ports.values().map(|port| port.service).collect();
        for service in open {
            if self.rings.get(&service).is_some_and(|ring| ring.contains(&slot)) {
                self.check_way(service, slot);
            }
        }
    }

    /// A ring leads to this slot.
    fn check_way(&self, service: u16, slot: u32) {
        let backend = self.backends.get(&slot).expect("a ring leads to a backend");
        assert!(backend.is(backend_flags::UP), "a ring leads to a backend that is down: {slot}");
        assert_eq!(backend.service, service, "a ring leads to another service's backend");
        assert!(!backend.is(backend_flags::DRAINING), "a ring leads to one that drains");
    }

    /// The table says what is wanted, and nothing else.
    pub(super) fn is(&self, wanted: &[Wanted], book: &Book) {
        let mut all_ports = BTreeMap::new();
        for service in wanted {
            let index = book.index(&service.name).expect("it has a slot");
            all_ports.extend(
                ports(service.vip, &service.ports, index).map(|(key, port)| (bytemuck::cast(key), port)),
            );
            let said = self.services[&index];
            let is_full_nat = said.flags & service_flags::FULL_NAT != 0;
            assert_eq!(said, service.value(is_full_nat), "{}", service.name);
            let mut held = book
                .holders(&service.name)
                .filter_map(|holder| self.backends.get(&holder.slot.number.get()))
                .filter(|backend| !backend.is(backend_flags::LOCAL));
            match service.mode {
                // Whoever is elsewhere can be reached; and nobody is looked for elsewhere in vain.
                Mode::Nat if is_full_nat => assert!(held.next().is_some(), "{}", service.name),
                Mode::Nat => assert!(!held.any(|backend| backend.is(backend_flags::UP)), "{}", service.name),
                _ => assert!(!is_full_nat, "{}", service.name),
            }
            let ranges: BTreeSet<IpNet> =
                self.sources.iter().filter(|(of, _)| *of == index).map(|(_, range)| *range).collect();
            assert_eq!(ranges, service.source_ranges.iter().copied().collect(), "{}", service.name);
            let mut serving = BTreeSet::new();
            let holders: BTreeMap<_, _> =
                book.holders(&service.name).map(|holder| (holder.address, holder)).collect();
            for backend in &service.backends {
                let holder = holders.get(&backend.address).expect("it has a slot");
                let slot = holder.slot.number.get();
                assert!(!holder.leaving);
                assert_eq!(self.backends.get(&slot), Some(&backend.value(holder.slot, index)));
                if backend.weight > 0 && backend.way.is_some() {
                    serving.insert(slot);
                }
            }
            assert_eq!(self.rings.get(&index).cloned().unwrap_or_default(), serving, "{}", service.name);
        }
        assert_eq!(self.ports, all_ports);
        let indices: BTreeSet<u16> = book.indices().map(|(_, index)| index).collect();
        assert!(self.sources.iter().all(|(index, _)| indices.contains(index)), "ranges of nobody");
        let held: BTreeSet<u32> = wanted
            .iter()
            .flat_map(|service| book.holders(&service.name))
            .map(|holder| holder.slot.number.get())
            .collect();
        for (slot, backend) in &self.backends {
            assert!(held.contains(slot) || !backend.is(backend_flags::UP), "slot {slot} of nobody is up");
        }
    }
}

/// The slots that a ring of these has.
fn slots_of(candidates: &[Candidate]) -> BTreeSet<u32> {
    let small = RingSize::new(251).expect("a prime");
    let size = if candidates.len() > 251 { RingSize::DEFAULT } else { small };
    let mut ring = vec![0; size.get() as usize];
    fill(&mut ring, size, &mut candidates.to_vec()).expect("candidates that fit");
    ring.into_iter().filter(|slot| *slot != UNSET).collect()
}

pub(super) fn address(host: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, host])
}

pub(super) fn via(last: u8) -> Way {
    let mac = MacAddr([2, 0, 0, 0, 0, last]);
    Way::Via { ifindex: 2, mac, own: MacAddr([2, 0, 0, 0, 1, 0]), mtu: 1500, source: None }
}

pub(super) fn backend(host: u8, weight: u16) -> WantedBackend {
    WantedBackend { address: address(host), weight, way: Some(via(host)) }
}

pub(super) fn port(number: u16) -> PortRange {
    let number = std::num::NonZeroU16::new(number).expect("not 0");
    PortRange::new(Transport::Tcp, number, number, number).expect("a port")
}

/// A service of mode dr at 10.0.0.50.
pub(super) fn service(name: &str, number: u16, hosts: &[u8]) -> Wanted {
    Wanted {
        name: name.to_owned(),
        vip: address(50),
        ports: vec![port(number)],
        mode: Mode::Direct,
        affinity: 0,
        no_backend: vip_common::steering::tables::Closed::Reject,
        source_ranges: Vec::new(),
        backends: hosts.iter().map(|host| backend(*host, 1)).collect(),
    }
}

/// A book and the tables that it writes.
#[derive(Clone, Default)]
pub(super) struct Rig {
    pub(super) book: Book,
    pub(super) world: World,
}

impl Rig {
    /// The plan alone, with ways to all that leaves.
    pub(super) fn plan_only(&mut self, wanted: &[Wanted]) {
        self.book.plan(wanted, |_, _| Some(via(9))).expect("room");
    }

    /// Goes to `wanted`; the steps. Backends that leave are reached as they were.
    pub(super) fn go(&mut self, wanted: &[Wanted]) -> Vec<Step> {
        self.go_with(wanted, |address| match address {
            IpAddr::V4(address) => Some(via(address.octets()[3])),
            IpAddr::V6(_) => None,
        })
    }

    pub(super) fn go_with(&mut self, wanted: &[Wanted], way: impl Fn(IpAddr) -> Option<Way>) -> Vec<Step> {
        let steps = self.book.plan(wanted, |_, address| way(address)).expect("it fits");
        self.world.touched.clear();
        self.world.apply(&steps);
        self.world.is(wanted, &self.book);
        steps
    }

    /// What stands in the slot of a service's backend.
    pub(super) fn slot(&self, service: &str, host: u8) -> Option<Backend> {
        let mut holders = self.book.holders(service);
        let holder = holders.find(|holder| holder.address == address(host))?;
        self.world.backends.get(&holder.slot.number.get()).copied()
    }

    pub(super) fn port(&self, number: u16) -> Option<u16> {
        let (key, _) = ports(address(50), &[port(number)], 0).next()?;
        self.world.ports.get(&bytemuck::cast::<ServiceKey, [u8; 20]>(key)).map(|port| port.service)
    }
}
