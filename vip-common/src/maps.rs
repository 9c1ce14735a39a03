//! Keys and values of the BPF maps: the contract between the program and the agent.
//!
//! Every type is `Pod` with an asserted size; a change of any of them, or of a map's name or kind, raises
//! [`LAYOUT_VERSION`], by which an agent recognises maps that another version pinned.

use bytemuck::{Pod, Zeroable};

use crate::heartbeat::Key;

/// Version of all that is pinned. Part of the pin directory's path.
pub const LAYOUT_VERSION: u32 = 4;

/// Virtual routers (one ownership word each) that one agent can hold.
pub const MAX_ROUTERS: u32 = 1024;

/// VIPs of one family that one agent can hold, over all interfaces.
pub const MAX_VIPS: u32 = 8192;

/// Interfaces that one agent can attach to; bounds the per-interface counters.
pub const MAX_LINKS: u32 = 64;

/// VLAN sub-interfaces that carry VIPs.
pub const MAX_VLANS: u32 = 1024;

/// Peers whose signs of life can be noted, over all interfaces.
pub const MAX_PEERS: u32 = 256;

/// Slots in which a peer can be: see [`peer_slots`].
pub const PEER_WAYS: u32 = 4;

/// TCP flows that a node remembers while the former owner still serves its own; the least recently used go first. Only
/// those without a local socket depend on it (SYN cookies, address translation).
pub const MAX_HANDOVER_FLOWS: u32 = 16384;

/// Bytes of the `EVENTS` ring buffer: a page, the least there is, and more than a hundred events.
pub const EVENT_BYTES: u32 = 4096;

/// Least time between two events of one router, in nanoseconds: 100 ms.
pub const EVENT_INTERVAL: u64 = 100_000_000;

/// Where a frame came from, as the VIP tables see it: the index of the interface that carries the VIP.
///
/// For a frame without a tag (or with the priority tag, VLAN 0) that is the ingress interface; for a tagged one the
/// VLAN sub-interface that `VLANS` names. XDP runs on the parent only, so the program does this mapping itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct VlanKey {
    /// Index of the interface that the program is attached to.
    pub parent: u32,
    /// VLAN id (1-4094) of the outer tag, host byte order.
    pub outer: u16,
    /// VLAN id of the inner tag, 0 where there is one tag only.
    pub inner: u16,
}

/// Key of `VIPS4`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Vip4Key {
    /// Interface that carries the VIP (see [`VlanKey`]).
    pub ifindex: u32,
    /// The address in network order.
    pub address: [u8; 4],
}

/// Key of `VIPS6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Vip6Key {
    /// Interface that carries the VIP (see [`VlanKey`]).
    pub ifindex: u32,
    /// The address in network order.
    pub address: [u8; 16],
}

/// Key of `VIRTUAL_MACS`: whose virtual MAC a frame is sent to (RFC 9568, 7.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct VirtualMacKey {
    /// Interface that carries the VIPs (see [`VlanKey`]).
    pub ifindex: u32,
    /// The MAC's last two bytes ([`crate::packet::virtual_mac::of_destination`]).
    pub mac: [u8; 2],
    /// Zero.
    pub reserved: [u8; 2],
}

/// Value of `VIPS4`, `VIPS6` and `VIRTUAL_MACS`: what a lookup must yield to answer without another one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Vip {
    /// Slot of the virtual router: index into `DEADLINES`, `HANDOVERS` and `EVENT_GATES`.
    pub router: u16,
    /// Slot of the interface, for counters: below [`MAX_LINKS`].
    pub link: u16,
    /// MAC of the interface.
    pub mac: [u8; 6],
    /// The MAC that answers for the VIP: the interface's, or a virtual one.
    pub answering: [u8; 6],
    /// Bits of [`vip_flags`].
    pub flags: u16,
}

/// Bits of [`Vip::flags`].
pub mod vip_flags {
    /// The interface forwards: neighbour advertisements carry the R flag (RFC 4861, 4.4). It must be the same in
    /// solicited and unsolicited ones, or hosts drop their default router.
    pub const ROUTER: u16 = 1;
    /// The owner takes no traffic to the VIP (RFC 9568, 6.1: Accept_Mode is False); it answers for it all the same.
    pub const NOT_ACCEPTED: u16 = 2;
    /// The VIP has services: its traffic is steered ([`crate::steering`]). Without this bit steering costs nothing.
    pub const SERVICES: u16 = 4;
    /// The program answers echo requests: the VIP is no address of the stack. Of steered VIPs only.
    pub const ECHO: u16 = 8;
    /// What happens to ports without a service is [`crate::steering::tables::Closed::Drop`] instead of `Pass`. Of steered
    /// VIPs only, as the next one.
    pub const CLOSED_DROP: u16 = 16;
    /// It is [`crate::steering::tables::Closed::Reject`].
    pub const CLOSED_REJECT: u16 = 32;
    /// Packets to ports without a service may be answers of backends on other nodes: it has a service with
    /// [`service_flags::FULL_NAT`](crate::steering::tables::service_flags::FULL_NAT), or is the address by which such a one's
    /// backends are reached.
    pub const FULL_NAT: u16 = 64;
}

/// Value of `DEADLINES`: CLOCK_MONOTONIC nanoseconds until which this node answers for the router's VIPs; 0 = never.
///
/// The one word that moves a VIP. The map is mmapable and the agent stores to it with one atomic 8-byte store.
pub type Deadline = u64;

/// Value of `HANDOVERS`: what differs for a while after a move. First of all where frames of connections go that the former
/// owner still serves.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Handover {
    /// CLOCK_MONOTONIC nanoseconds until which frames are forwarded; 0 = never.
    pub until: u64,
    /// MAC of the former owner.
    pub former: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
    /// CLOCK_MONOTONIC nanoseconds until which frames to the virtual MAC are taken without owning: a switch sends them here
    /// as soon as it has seen the new owner's first advert, and some are on their way to the former one. Until then services are
    /// steered, too, whatever MAC their frames come to.
    pub in_transit: u64,
}

/// Key of `HANDOVER_FLOWS`: a TCP flow whose SYN was seen since the takeover, so that it is known to be ours. Its value
/// is [`Handover::until`] of that takeover.
///
/// IPv4 addresses stand in the first four bytes, the rest is zero.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FlowKey {
    /// The client's address.
    pub client: [u8; 16],
    /// The VIP.
    pub vip: [u8; 16],
    /// The client's port, network order.
    pub client_port: [u8; 2],
    /// The VIP's port, network order.
    pub vip_port: [u8; 2],
}

/// Value of `HEARTBEAT_LINKS`, whose key is the index of an interface that adverts go by (see [`VlanKey`] for which).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HeartbeatLink {
    /// Of all nodes there.
    pub key: Key,
    /// The number of this node.
    pub node: u64,
    /// The interface's MAC.
    pub mac: [u8; 6],
    /// Slot of the interface, for counters: below [`MAX_LINKS`].
    pub slot: u16,
}

/// Value of `PEERS`: what was heard of another node, in words of which each is read and written whole. Mmapable: the agent
/// writes the first two, the program the rest.
pub type Peer = [u64; PeerWord::COUNT];

/// Index of a word in a [`Peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum PeerWord {
    /// The number of the peer; 0 = the slot is free.
    Node = 0,
    /// Index of the interface where it is heard.
    Interface = 1,
    /// CLOCK_MONOTONIC nanoseconds of the arrival of its last heartbeat.
    Heard = 2,
    /// When the peer sent that, by its own clock.
    Sent = 3,
    /// What that promised ([`crate::heartbeat::Promise`]).
    Promise = 4,
    /// CLOCK_MONOTONIC nanoseconds of the arrival of its last answer.
    Answered = 5,
    /// When we asked for that.
    Asked = 6,
}

impl PeerWord {
    /// Words of a peer: a cache line.
    pub const COUNT: usize = 8;
}

/// The first of the [`PEER_WAYS`] slots in `PEERS` in which a node may be. Numbers of nodes are drawn, so they spread.
#[inline(always)]
pub const fn peer_slots(node: u64) -> u32 {
    (node as u32 % (MAX_PEERS / PEER_WAYS)) * PEER_WAYS
}

/// A record of the `EVENTS` ring buffer: somebody else answers for a VIP that this node owns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ForeignOwner {
    /// CLOCK_MONOTONIC nanoseconds.
    pub at: u64,
    /// Interface that carries the VIP.
    pub ifindex: u32,
    /// Slot of the virtual router.
    pub router: u16,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub reserved: u8,
    /// The VIP; an IPv4 address stands in the first four bytes.
    pub address: [u8; 16],
    /// The MAC that claims it.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved2: [u8; 2],
}

const _: () = {
    assert!(size_of::<VlanKey>() == 8);
    assert!(size_of::<Vip4Key>() == 8);
    assert!(size_of::<Vip6Key>() == 20);
    assert!(size_of::<VirtualMacKey>() == 8);
    assert!(size_of::<Vip>() == 18);
    assert!(size_of::<Handover>() == 24);
    assert!(size_of::<FlowKey>() == 36);
    assert!(size_of::<ForeignOwner>() == 40);
    assert!(size_of::<HeartbeatLink>() == 32);
    assert!(size_of::<Peer>() == 64);
};
