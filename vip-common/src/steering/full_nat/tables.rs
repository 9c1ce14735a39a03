//! Keys and values of the maps of full NAT, and what it looks up (docs/steering.md).

use bytemuck::{Pod, Zeroable};

use super::ports::Ports;
use crate::decision::Family;
use crate::packet::ethernet::Mac;
use crate::steering::link::Hop;
use crate::steering::nat::{Endpoint, Translation};
use crate::steering::tables::{FlowState, REFRESH, SteeredFlowKey, SteeringTables};

/// Flows of full NAT: entries of `NAT_FLOWS` and of `NAT_RETURNS` each.
pub const MAX_NAT_FLOWS: u32 = 131_072;

/// After so many nanoseconds of silence a flow that was never answered, or that is closing, gives its port to one that finds
/// no other (RFC 5382, REQ-5 would leave it for 4 min: so it is, while ports are free).
pub const ABANDONED: u64 = 10 * 1_000_000_000;

/// Value of `NAT_FLOWS`, by [`SteeredFlowKey`]: what a client's packets become.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NatFlow {
    /// CLOCK_MONOTONIC nanoseconds of about the client's last packet.
    pub seen: u64,
    /// Slot of the backend.
    pub backend: u32,
    /// [`Backend::generation`](crate::steering::tables::Backend::generation)
    pub generation: u16,
    /// A [`FlowState`] as a number.
    pub state: u8,
    /// Zero.
    pub reserved: u8,
    /// The flow as the backend sees it: the key of its [`NatReturn`].
    pub way: NatKey,
}

/// Key of `NAT_RETURNS`: a flow as the backend's packets name it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct NatKey {
    /// The backend's address; an IPv4 one stands in the first four bytes.
    pub backend: [u8; 16],
    /// Ours: the VIP, unless the backend's slot names another.
    pub own: [u8; 16],
    /// Network order.
    pub backend_port: [u8; 2],
    /// Network order. One of [`Ports`].
    pub own_port: [u8; 2],
    /// TCP or UDP.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Value of `NAT_RETURNS`: what a backend's packets become.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NatReturn {
    /// CLOCK_MONOTONIC nanoseconds of about the backend's last packet, or of the flow's first.
    pub seen: u64,
    /// The flow as the client sees it: the key of its [`NatFlow`].
    pub client: SteeredFlowKey,
    /// The VIP; an IPv4 address stands in the first four bytes.
    pub vip: [u8; 16],
    /// The way to the client, asked of the kernel's routes about once a second and never learned from packets.
    pub hop: NatHop,
    /// [`NatFlow::backend`]
    pub backend: u32,
    /// [`NatFlow::generation`]
    pub generation: u16,
    /// A [`FlowState`] as a number: opening until the backend answers.
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// The next station on the way to a client.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NatHop {
    /// The interface by which it is reached; 0: not known yet.
    pub ifindex: u32,
    /// That of the next hop.
    pub mac: [u8; 6],
    /// Of the interface.
    pub own: [u8; 6],
    /// What goes through in one piece, from the IP header on; 0: nothing is known of it.
    pub mtu: u16,
    /// Zero.
    pub reserved: u16,
}

impl NatHop {
    /// Both ends of the link.
    #[inline(always)]
    pub(super) const fn hop(&self) -> Hop {
        Hop { own: Mac::new(self.own), next: Mac::new(self.mac) }
    }
}

/// What the kernel's routes say of the way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// There is one, with a next hop whose MAC is known.
    Known,
    /// There is one, but its next hop has to be asked for its MAC first, which the agent sees to.
    Unresolved,
    /// There is none.
    Nowhere,
}

/// Working memory of a packet's way through full NAT, one for each CPU: a BPF stack has 512 bytes.
///
/// Nothing in it outlives the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NatWork {
    /// Of the flow.
    pub(super) flow: NatFlow,
    /// Of the flow's way back.
    pub(super) back: NatReturn,
    /// Who has the port that the flow would have.
    pub(super) holder: NatReturn,
    /// That one's other entry.
    pub(super) holder_flow: NatFlow,
    /// What the flow is looked up by.
    pub(super) client: SteeredFlowKey,
    /// Likewise, of the other direction.
    pub(super) way: NatKey,
    /// The ports to choose from.
    pub(super) ports: Ports,
    /// What the packet becomes: whom it is from.
    pub(super) source: Endpoint,
    /// Whom it is for.
    pub(super) destination: Endpoint,
    /// A [`Known`](super::outward::Known) as a number.
    pub(super) known: u8,
    pub(super) reserved: [u8; 7],
}

/// What has been found out about a packet: of its flow's way back, that it is an answer or an error about what went there.
impl NatWork {
    /// What the packet becomes.
    #[inline(always)]
    pub const fn translation(&self) -> Translation {
        Translation { source: Some(self.source), destination: Some(self.destination) }
    }

    /// The backend's port and ours.
    #[inline(always)]
    pub(super) const fn back_ports(&self) -> [[u8; 2]; 2] {
        [self.way.backend_port, self.way.own_port]
    }

    /// What goes through to the client in one piece; 0: nothing is known of it.
    #[inline(always)]
    pub(super) const fn mtu_back(&self) -> u16 {
        self.back.hop.mtu
    }

    /// The interface by which the client is reached.
    #[inline(always)]
    pub(super) const fn ifindex_back(&self) -> u32 {
        self.back.hop.ifindex
    }

    /// The next station on the way to the client.
    #[inline(always)]
    pub(super) const fn hop_back(&self) -> Hop {
        self.back.hop.hop()
    }

    /// The service whose flow it is.
    #[inline(always)]
    pub(super) const fn service_back(&self) -> u16 {
        self.back.client.service
    }
}

/// What full NAT looks up and notes besides: BPF maps and helpers in the kernel, plain collections in tests.
///
/// Entries are copied into the caller's memory. `touch` changes two fields of an entry in place, and nothing if there is none.
pub trait NatTables: SteeringTables {
    /// `NAT_PORTS`; none while nobody needs any.
    fn nat_ports(&self, ports: &mut Ports);
    /// `NAT_FLOWS`: whether there is such an entry.
    fn nat_flow(&self, key: &SteeredFlowKey, flow: &mut NatFlow) -> bool;
    /// Adds an entry with `BPF_NOEXIST`: false if there is one already, or no room.
    fn insert_nat_flow(&self, key: &SteeredFlowKey, flow: &NatFlow) -> bool;
    /// Notes that the client sent something.
    fn touch_nat_flow(&self, key: &SteeredFlowKey, seen: u64, state: FlowState);
    /// Removes an entry, if there is one.
    fn remove_nat_flow(&self, key: &SteeredFlowKey);
    /// `NAT_RETURNS`: whether there is such an entry.
    fn nat_return(&self, key: &NatKey, back: &mut NatReturn) -> bool;
    /// Adds an entry with `BPF_NOEXIST`: false if there is one already, or no room.
    fn insert_nat_return(&self, key: &NatKey, back: &NatReturn) -> bool;
    /// Notes that the backend sent something.
    fn touch_nat_return(&self, key: &NatKey, seen: u64, state: FlowState);
    /// Replaces an entry with `BPF_EXIST`, as a whole: a packet sees the old one or the new one.
    fn replace_nat_return(&self, key: &NatKey, back: &NatReturn);
    /// Removes an entry, if there is one.
    fn remove_nat_return(&self, key: &NatKey);
    /// The way from a VIP to a client for packets that come in by this interface: bpf_fib_lookup, which is not to take its own
    /// source for a reason to refuse. Leaves `hop` alone unless it is [`Routed::Known`].
    fn route(
        &self,
        family: Family,
        ifindex: u32,
        vip: &[u8; 16],
        client: &[u8; 16],
        hop: &mut NatHop,
    ) -> Routed;
    /// bpf_get_prandom_u32
    fn random(&self) -> u32;
    /// The same number. In the kernel the verifier forgets what it knows of it, or it would follow each place through all ports
    /// that are tried.
    fn blurred(&self, place: u32) -> u32;
}

/// Whether a note of this age is due to be renewed.
#[inline(always)]
pub(super) const fn is_due(seen: u64, now: u64) -> bool {
    now.saturating_sub(seen) >= REFRESH
}

/// The state and the last packet of a flow by both its entries. One that is missing says nothing: the kernel may have needed
/// its memory.
#[inline(always)]
pub fn life(flow: Option<&NatFlow>, back: Option<&NatReturn>) -> (FlowState, u64) {
    let closing = FlowState::Closing as u8;
    let (state, seen) = flow.map_or((FlowState::Opening as u8, 0), |flow| (flow.state, flow.seen));
    let (answer, answered) = back.map_or((FlowState::Opening as u8, 0), |back| (back.state, back.seen));
    let last = if seen > answered { seen } else { answered };
    let state = if state >= closing || answer >= closing { closing } else { state };
    (FlowState::of(state), last)
}

/// Whether a flow has been silent in both directions for longer than its protocol and its state let it
/// ([`FlowState::timeout`]): user space removes both entries then.
#[inline(always)]
pub fn is_over(flow: Option<&NatFlow>, back: Option<&NatReturn>, protocol: u8, now: u64) -> bool {
    let (state, seen) = life(flow, back);
    now.saturating_sub(seen) >= state.timeout(protocol)
}

/// Whether a flow gives its port to one that finds no other.
#[inline(always)]
pub fn gives_way(flow: Option<&NatFlow>, back: Option<&NatReturn>, protocol: u8, now: u64) -> bool {
    let (state, seen) = life(flow, back);
    let limit = match state {
        FlowState::Established => state.timeout(protocol),
        FlowState::Opening | FlowState::Closing => ABANDONED,
    };
    now.saturating_sub(seen) >= limit
}

const _: () = {
    assert!(size_of::<NatFlow>() == 56);
    assert!(size_of::<NatKey>() == 40);
    assert!(size_of::<NatHop>() == 20);
    assert!(size_of::<NatReturn>() == 80);
    assert!(size_of::<Ports>() == 36);
    assert!(size_of::<NatWork>() == 416);
};
