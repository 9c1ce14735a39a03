//! Services as an operator has them, and the maps that an agent would fill of them, as plain collections.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use bytemuck::Zeroable as _;
use vip_common::decision::Family;
use vip_common::packet::ethernet::{Header, Mac as EthernetMac};
use vip_common::rewrite::Verdict;
use vip_common::steering::apply::apply;
use vip_common::steering::maglev::{Candidate, RingSize, fill};
use vip_common::steering::reason::Outcome;
use vip_common::steering::steer::{Arrived, Steered, steer};
use vip_common::steering::tables::{
    AffinityKey, Backend, Choice, Closed, FragmentKey, Mode, Service, ServiceKey, ServicePort,
    SteeredFlowKey, SteeringTables, backend_flags, service_flags,
};

use crate::packets::{ENDS4, ENDS6, Ends, Mac, OWN, with_room};

pub(crate) const IFINDEX: u32 = 7;
pub(crate) const SECOND: u64 = 1_000_000_000;
/// Short, so that tests are.
pub(crate) const RING: u32 = 251;

/// A service.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) ends: Ends,
    pub(crate) protocols: Vec<u8>,
    /// First, last, what is added; (0, 0, _) = all.
    pub(crate) ports: (u16, u16, u16),
    pub(crate) mode: Mode,
    pub(crate) closed: Closed,
    /// Seconds.
    pub(crate) affinity: u32,
    /// Empty = all.
    pub(crate) allowed: Vec<[u8; 16]>,
    pub(crate) backends: Vec<Member>,
}

/// A backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) number: u8,
    pub(crate) up: bool,
    pub(crate) draining: bool,
    pub(crate) local: bool,
    pub(crate) generation: u16,
    pub(crate) mtu: u16,
    pub(crate) ifindex: u32,
}

impl Member {
    pub(crate) const fn new(number: u8) -> Self {
        Self { number, up: true, draining: false, local: false, generation: 1, mtu: 1500, ifindex: IFINDEX }
    }

    pub(crate) const fn mac(self) -> Mac {
        [2, 0, 0, 0, 0xbb, self.number]
    }

    pub(crate) fn address(self, family: Family) -> [u8; 16] {
        let mut address = [0; 16];
        match family {
            Family::V4 => address[..4].copy_from_slice(&[172, 16, 0, self.number]),
            Family::V6 => {
                address.copy_from_slice(&[0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.number]);
            }
        }
        address
    }
}

/// This node's end of tunnels.
pub(crate) const TUNNEL_SOURCE: [u8; 16] = [0xfc, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];

impl Plan {
    /// TCP on port 80 of the IPv4 VIP, direct, by three backends.
    pub(crate) fn direct() -> Self {
        Self {
            ends: ENDS4,
            protocols: vec![6],
            ports: (80, 80, 0),
            mode: Mode::Direct,
            closed: Closed::Reject,
            affinity: 0,
            allowed: Vec::new(),
            backends: (1..=3).map(Member::new).collect(),
        }
    }

    /// The same on the IPv6 VIP, in tunnels.
    pub(crate) fn tunnel() -> Self {
        Self { ends: ENDS6, mode: Mode::Tunnel, ..Self::direct() }
    }

    /// TCP and UDP on ports 8000-8003 of the IPv4 VIP, to ports 9000-9003 of local backends.
    pub(crate) fn nat() -> Self {
        let mut plan = Self {
            protocols: vec![6, 17],
            ports: (8000, 8003, 1000),
            mode: Mode::Nat,
            closed: Closed::Drop,
            ..Self::direct()
        };
        plan.backends.iter_mut().for_each(|member| member.local = true);
        plan
    }

    /// The backend of each entry of the ring: its place in the list.
    pub(crate) fn ring(&self) -> Vec<Option<usize>> {
        let weight = |member: &Member| u16::from(member.up && !member.draining);
        let mut candidates: Vec<_> = (1..)
            .zip(&self.backends)
            .map(|(slot, member)| {
                let slot = NonZeroU32::new(slot).expect("from one");
                Candidate::new(member.address(self.ends.family()), slot, weight(member))
            })
            .collect();
        let mut ring = vec![0; RING as usize];
        fill(&mut ring, RingSize::new(RING).expect("a prime"), &mut candidates).expect("different backends");
        ring.into_iter().map(|slot| (slot as usize).checked_sub(1)).collect()
    }
}

/// The maps.
pub(crate) struct World {
    pub(crate) ports: HashMap<ServiceKey, ServicePort>,
    pub(crate) services: Vec<Service>,
    pub(crate) rings: Vec<Vec<Option<usize>>>,
    pub(crate) allowed: HashSet<(u16, [u8; 16])>,
    pub(crate) backends: HashMap<u32, Backend>,
    pub(crate) flows: RefCell<HashMap<SteeredFlowKey, Choice>>,
    pub(crate) affinities: RefCell<HashMap<AffinityKey, Choice>>,
    pub(crate) fragments: RefCell<HashMap<FragmentKey, Choice>>,
    pub(crate) admits_flows: bool,
    pub(crate) admits_answers: bool,
    pub(crate) echo: bool,
    pub(crate) closed: Closed,
    pub(crate) now: Cell<u64>,
}

/// Slots of a service's backends begin here.
pub(crate) fn slot(service: usize, member: usize) -> u32 {
    u32::try_from(service * 100 + member + 1).expect("few")
}

impl World {
    pub(crate) fn of(plans: &[Plan]) -> Self {
        let mut world = Self {
            ports: HashMap::new(),
            services: Vec::new(),
            rings: Vec::new(),
            allowed: HashSet::new(),
            backends: HashMap::new(),
            flows: RefCell::default(),
            affinities: RefCell::default(),
            fragments: RefCell::default(),
            admits_flows: true,
            admits_answers: true,
            echo: true,
            closed: Closed::Pass,
            now: Cell::new(1000 * SECOND),
        };
        world.fill(plans);
        world
    }

    /// What the agent does when a set changes. Flows and the like stay.
    pub(crate) fn fill(&mut self, plans: &[Plan]) {
        (self.services, self.rings) = (Vec::new(), Vec::new());
        for (index, plan) in plans.iter().enumerate() {
            let service = u16::try_from(index).expect("few");
            let (_, vip) = plan.ends.wide();
            let family = if plan.ends.family() == Family::V4 { 4 } else { 6 };
            for protocol in plan.protocols.iter().copied() {
                for port in plan.ports.0..=plan.ports.1 {
                    let key = ServiceKey { vip, port: port.to_be_bytes(), protocol, family };
                    self.ports.insert(key, ServicePort { service, shift: plan.ports.2 });
                }
            }
            self.allowed.extend(plan.allowed.iter().map(|client| (service, *client)));
            self.services.push(Service {
                ring_size: RING,
                affinity: plan.affinity,
                mode: plan.mode as u8,
                no_backend: plan.closed as u8,
                flags: if plan.allowed.is_empty() { 0 } else { service_flags::SOURCE_RANGES },
                ..Service::zeroed()
            });
            self.rings.push(plan.ring());
            for (at, member) in plan.backends.iter().enumerate() {
                self.backends.insert(slot(index, at), backend(plan, *member, service));
            }
        }
    }

    /// What steering says of a frame.
    pub(crate) fn steer(&self, frame: &[u8]) -> Steered {
        let header = Header::read(frame).expect("a frame");
        let family = if header.ethertype == 0x0800 { Family::V4 } else { Family::V6 };
        let arrived = Arrived {
            family,
            network: header.payload,
            ifindex: IFINDEX,
            own: EthernetMac::new(OWN),
            echo: self.echo,
            closed: self.closed,
        };
        steer(frame, &arrived, self)
    }

    /// What becomes of a frame.
    pub(crate) fn run(&self, frame: &[u8]) -> (Verdict, Vec<u8>, Outcome) {
        let steered = self.steer(frame);
        let (verdict, after) = with_room(frame, |frame| apply(frame, &steered.action));
        match verdict {
            Some(verdict) => (verdict, after, steered.outcome),
            None => (Verdict::Drop, frame.to_vec(), steered.outcome),
        }
    }

    /// After so many seconds.
    pub(crate) fn wait(&self, seconds: u64) {
        self.now.set(self.now.get() + seconds * SECOND);
    }
}

fn backend(plan: &Plan, member: Member, service: u16) -> Backend {
    let bit = |set: bool, flag: u8| if set { flag } else { 0 };
    let family = plan.ends.family();
    Backend {
        address: member.address(family),
        source: TUNNEL_SOURCE,
        ifindex: member.ifindex,
        mac: member.mac(),
        own: OWN,
        mtu: member.mtu,
        generation: member.generation,
        service,
        flags: bit(member.up, backend_flags::UP)
            | bit(member.local, backend_flags::LOCAL)
            | bit(member.draining, backend_flags::DRAINING),
        family: if family == Family::V4 { 4 } else { 6 },
        source_bits: 0,
        reserved: [0; 7],
    }
}

impl SteeringTables for World {
    fn service_port(&self, key: &ServiceKey) -> Option<ServicePort> {
        self.ports.get(key).copied()
    }

    fn service(&self, service: u16) -> Option<Service> {
        self.services.get(usize::from(service)).copied()
    }

    fn ring(&self, service: u16, position: u32) -> u32 {
        let member = self.rings[usize::from(service)][position as usize];
        member.map_or(0, |member| slot(service.into(), member))
    }

    fn backend(&self, slot: u32) -> Option<Backend> {
        self.backends.get(&slot).copied()
    }

    fn flow(&self, key: &SteeredFlowKey) -> Option<Choice> {
        self.flows.borrow().get(key).copied()
    }

    fn note_flow(&self, key: &SteeredFlowKey, choice: Choice) {
        self.flows.borrow_mut().insert(*key, choice);
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Choice> {
        self.affinities.borrow().get(key).copied()
    }

    fn note_affinity(&self, key: &AffinityKey, choice: Choice) {
        self.affinities.borrow_mut().insert(*key, choice);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Choice> {
        self.fragments.borrow().get(key).copied()
    }

    fn note_fragment(&self, key: &FragmentKey, choice: Choice) {
        self.fragments.borrow_mut().insert(*key, choice);
    }

    fn is_allowed(&self, service: u16, _: u8, client: &[u8; 16]) -> bool {
        self.allowed.contains(&(service, *client))
    }

    fn admits_flow(&self, _: u64) -> bool {
        self.admits_flows
    }

    fn admits_answer(&self, _: u64) -> bool {
        self.admits_answers
    }

    fn now_coarse(&self) -> u64 {
        self.now.get()
    }
}
