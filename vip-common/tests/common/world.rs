//! What the maps hold, as plain collections, and the decision's tables over them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use vip_common::decision::{self, Action, Arrival, Decision, Family, Tables};
use vip_common::filter::{Bit, Filter};
use vip_common::heartbeat::{self, Key, Peers};
use vip_common::maps::{
    FlowKey, Handover, HeartbeatLink, Peer, PeerWord, Vip, Vip4Key, Vip6Key, VirtualMacKey, VlanKey,
    peer_slots, vip_flags,
};
use vip_common::packet::Frame;
use vip_common::packet::ipv6::Address;
use vip_common::reason::Reason;
use vip_common::rewrite::{self, Verdict};

use super::frames::{FORMER, OWN, V4, V6, VIP4, VIP6, VIRTUAL4, VIRTUAL6};

/// The loopback interface, which BPF_PROG_TEST_RUN says that frames come from.
pub const INGRESS: u32 = 1;
/// VLAN 100 on it.
pub const VLAN_100: u32 = 77;
/// VLAN 200 in VLAN 100.
pub const VLAN_100_200: u32 = 78;
/// The slots of the one router and of the one interface.
pub const ROUTER: u16 = 3;
pub const LINK: u16 = 2;
/// What tells this node from others in heartbeats, and the peer that it follows.
pub const NODE: u64 = 0x0123_4567_89ab_cdef;
pub const PEER: u64 = 0x0000_00fe_dcba_9805;
/// The slot of that peer: not the first one that it may be in.
pub const PEER_SLOT: u32 = peer_slots(PEER) + 2;
/// The key of both.
pub const KEY: Key = Key::new(*b"a key of 16 byte");
/// Room behind each frame.
pub const TAILROOM: usize = 64;

#[derive(Clone, Debug)]
pub struct World {
    pub vips4: HashMap<Vip4Key, Vip>,
    pub vips6: HashMap<Vip6Key, Vip>,
    pub virtual_macs: HashMap<VirtualMacKey, Vip>,
    pub vlans: HashMap<VlanKey, u32>,
    pub filter: Box<Filter>,
    pub deadline: u64,
    pub handover: Handover,
    /// Flows whose SYN was seen, with the end of the handover in which it was.
    pub flows: RefCell<HashSet<(FlowKey, u64)>>,
    pub heartbeat_links: HashMap<u32, HeartbeatLink>,
    pub peers: RefCell<HashMap<u32, Peer>>,
    pub now: u64,
}

impl World {
    /// Both VIPs, on the interface and on both VLANs, owned forever.
    pub fn owning() -> Self {
        let vlan = |outer, inner| VlanKey { parent: INGRESS, outer, inner };
        let world = Self {
            vips4: HashMap::new(),
            vips6: HashMap::new(),
            virtual_macs: HashMap::new(),
            vlans: HashMap::from([(vlan(100, 0), VLAN_100), (vlan(100, 200), VLAN_100_200)]),
            filter: Box::default(),
            deadline: u64::MAX,
            handover: Handover { until: 0, former: [0; 6], reserved: [0; 2], in_transit: 0 },
            flows: RefCell::default(),
            heartbeat_links: HashMap::new(),
            peers: RefCell::default(),
            now: 1_000_000_000,
        };
        world.with_vip4(VIP4).with_vip6(VIP6)
    }

    /// The same VIPs, of another owner.
    pub fn not_owning() -> Self {
        Self { deadline: 0, ..Self::owning() }
    }

    /// Owned, and [`FORMER`] still serves connections.
    pub fn taking_over() -> Self {
        let handover = Handover { until: u64::MAX, former: FORMER, reserved: [0; 2], in_transit: 0 };
        Self { handover, ..Self::owning() }
    }

    /// Hears [`PEER`], on the interface and on both VLANs, where it has not been heard yet.
    pub fn hearing() -> Self {
        let mut world = Self::owning();
        for ifindex in [INGRESS, VLAN_100, VLAN_100_200] {
            world
                .heartbeat_links
                .insert(ifindex, HeartbeatLink { key: KEY, node: NODE, mac: OWN, slot: LINK });
        }
        world.with_peer(PEER_SLOT, INGRESS)
    }

    /// Follows [`PEER`] on an interface, in this slot.
    pub fn with_peer(self, slot: u32, ifindex: u32) -> Self {
        let mut peer = [0; PeerWord::COUNT];
        peer[PeerWord::Node as usize] = PEER;
        peer[PeerWord::Interface as usize] = ifindex.into();
        self.peers.borrow_mut().insert(slot, peer);
        self
    }

    pub fn with_vip4(mut self, address: V4) -> Self {
        for ifindex in [INGRESS, VLAN_100, VLAN_100_200] {
            self.vips4.insert(Vip4Key { ifindex, address }, vip(vip_flags::ROUTER));
        }
        self.filter.admit(Bit::of_ipv4(address));
        self
    }

    pub fn with_vip6(mut self, address: V6) -> Self {
        for ifindex in [INGRESS, VLAN_100, VLAN_100_200] {
            self.vips6.insert(Vip6Key { ifindex, address }, vip(vip_flags::ROUTER));
        }
        self.filter.admit(Bit::of_ipv6(Address::new(address)));
        self
    }

    /// The virtual MAC moves, and frames to it are on their way.
    pub fn in_transit(mut self) -> Self {
        self.handover.in_transit = u64::MAX;
        self
    }

    /// The interfaces do not forward.
    pub fn without_forwarding(mut self) -> Self {
        self.vips6.values_mut().for_each(|vip| vip.flags = 0);
        self
    }

    /// The VIPs are answered for by virtual MACs.
    pub fn with_virtual_macs(mut self) -> Self {
        self.vips4.values_mut().for_each(|vip| vip.answering = VIRTUAL4);
        self.vips6.values_mut().for_each(|vip| vip.answering = VIRTUAL6);
        for ifindex in [INGRESS, VLAN_100, VLAN_100_200] {
            for answering in [VIRTUAL4, VIRTUAL6] {
                let [.., block, id] = answering;
                let key = VirtualMacKey { ifindex, mac: [block, id], reserved: [0; 2] };
                self.virtual_macs.insert(key, Vip { answering, ..vip(0) });
            }
        }
        self
    }

    /// The owner takes no traffic to the VIPs.
    pub fn without_accepting(mut self) -> Self {
        for vip in self.vips4.values_mut().chain(self.vips6.values_mut()) {
            vip.flags |= vip_flags::NOT_ACCEPTED;
        }
        self
    }

    /// What becomes of a frame of fast detection: which, and the frame.
    pub fn receive(&self, frame: &[u8]) -> (Option<heartbeat::Received>, Vec<u8>) {
        let mut room = frame.to_vec();
        let mut packet = Frame::new(&mut room, frame.len()).expect("room enough");
        let received = heartbeat::receive(&mut packet, self);
        (received, room)
    }

    /// What the decision says.
    pub fn decide(&self, frame: &[u8]) -> Option<Decision> {
        decision::decide(frame, self)
    }

    /// What the program would do, with room behind the frame: the verdict, the frame, the counters that rise.
    pub fn run(&self, frame: &[u8]) -> (Verdict, Vec<u8>, Vec<Reason>) {
        let mut room = [frame, &[0xff; TAILROOM]].concat();
        let mut packet = Frame::new(&mut room, frame.len()).expect("room is longer");
        let mut counted = Vec::new();
        match decision::arrival(frame, self) {
            Arrival::Ordinary => {}
            Arrival::Ours { link, interface } => {
                assert_eq!(link, LINK);
                counted.push(Reason::VirtualMacTaken);
                rewrite::deliver(&mut packet, interface).expect("it has a destination");
            }
            Arrival::Anothers { link } => {
                assert_eq!(link, LINK);
                return (Verdict::Drop, frame.to_vec(), vec![Reason::VirtualMacNotOwned]);
            }
        }
        let delivered = packet.as_bytes().to_vec();
        let Some(decision) = self.decide(&delivered) else { return (Verdict::Pass, delivered, counted) };
        counted.push(decision.reason);
        counted.extend(decision.claim.map(|claim| claim.reason()));
        if let Action::PassNewFlow(flow) = decision.action {
            let key = flow.key(&delivered[..]).expect("the decision read it");
            self.flows.borrow_mut().insert((key, flow.handover));
        }
        let verdict = rewrite::apply(&mut packet, &decision.action).expect("room enough");
        (verdict, packet.as_bytes().to_vec(), counted)
    }
}

fn vip(flags: u16) -> Vip {
    Vip { router: ROUTER, link: LINK, mac: OWN, answering: OWN, flags }
}

impl Tables for World {
    fn ingress(&self) -> u32 {
        INGRESS
    }

    fn rules_out(&self, bit: Bit) -> bool {
        self.filter.rules_out(bit)
    }

    fn vlan(&self, key: &VlanKey) -> Option<u32> {
        self.vlans.get(key).copied()
    }

    fn vip4(&self, key: &Vip4Key) -> Option<Vip> {
        self.vips4.get(key).copied()
    }

    fn vip6(&self, key: &Vip6Key) -> Option<Vip> {
        self.vips6.get(key).copied()
    }

    fn virtual_router(&self, key: &VirtualMacKey) -> Option<Vip> {
        self.virtual_macs.get(key).copied()
    }

    fn deadline(&self, router: u16) -> u64 {
        if router == ROUTER { self.deadline } else { 0 }
    }

    fn handover(&self, router: u16) -> Option<Handover> {
        (router == ROUTER).then_some(self.handover)
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn now_coarse(&self) -> u64 {
        self.now
    }

    fn flow_is_known(&self, _: Family, flow: &FlowKey, handover: u64) -> bool {
        self.flows.borrow().contains(&(*flow, handover))
    }
}

impl Peers for World {
    fn link(&self, ifindex: u32) -> Option<HeartbeatLink> {
        self.heartbeat_links.get(&ifindex).copied()
    }

    fn word(&self, slot: u32, word: PeerWord) -> u64 {
        self.peers.borrow().get(&slot).map_or(0, |peer| peer[word as usize])
    }

    fn note(&self, slot: u32, word: PeerWord, value: u64) {
        if let Some(peer) = self.peers.borrow_mut().get_mut(&slot) {
            peer[word as usize] = value;
        }
    }
}
