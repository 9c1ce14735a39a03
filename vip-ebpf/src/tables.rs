//! The maps, and the decision's tables over them.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_ANY, BPF_F_CURRENT_NETNS, BPF_F_MMAPABLE, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1 as Addresses,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Ipv4, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Ipv6,
};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use vip_common::decision::{Claim, Family, Flow, Tables, gate_opens};
use vip_common::filter::{self, Bit};
use vip_common::heartbeat::Peers;
use vip_common::maps::{
    Deadline, EVENT_BYTES, FlowKey, ForeignOwner, Handover, HeartbeatLink, MAX_HANDOVER_FLOWS, MAX_LINKS,
    MAX_PEERS, MAX_ROUTERS, MAX_VIPS, MAX_VLANS, Peer, PeerWord, Vip, Vip4Key, Vip6Key, VirtualMacKey,
    VlanKey,
};
use vip_common::reason::Reason;
use vip_common::steering::steer::Arrived;

use crate::frame::Frame;
use crate::handoff::handoff;

const ROUTERS: usize = MAX_ROUTERS as usize;
const VIPS: usize = MAX_VIPS as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// TCP_LISTEN (include/net/tcp_states.h).
const LISTEN: u32 = 10;
/// TCP_TIME_WAIT.
const TIME_WAIT: u32 = 6;

#[btf_map]
static DEADLINES: Array<Deadline, ROUTERS, MMAPABLE> = Array::new();
#[btf_map]
static HANDOVERS: Array<Handover, ROUTERS, MMAPABLE> = Array::new();
#[btf_map]
static FILTER: Array<u64, { filter::WORDS as usize }> = Array::new();
#[btf_map]
static VIPS4: HashMap<Vip4Key, Vip, VIPS> = HashMap::new();
#[btf_map]
static VIPS6: HashMap<Vip6Key, Vip, VIPS> = HashMap::new();
#[btf_map]
static VIRTUAL_MACS: HashMap<VirtualMacKey, Vip, ROUTERS> = HashMap::new();
#[btf_map]
static VLANS: HashMap<VlanKey, u32, { MAX_VLANS as usize }> = HashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { (MAX_LINKS * Reason::COUNT) as usize }> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<ForeignOwner, { EVENT_BYTES as usize }> = RingBuf::new();
#[btf_map]
static EVENT_GATES: Array<u64, ROUTERS> = Array::new();
#[btf_map]
static HANDOVER_FLOWS: LruHashMap<FlowKey, u64, { MAX_HANDOVER_FLOWS as usize }> = LruHashMap::new();

#[btf_map]
static HEARTBEAT_LINKS: HashMap<u32, HeartbeatLink, { MAX_LINKS as usize }> = HashMap::new();
#[btf_map]
static PEERS: Array<Peer, { MAX_PEERS as usize }, MMAPABLE> = Array::new();

/// The maps, as one frame sees them; without `STEERS` as if no VIP had services.
pub(crate) struct Maps<'a, const STEERS: bool = true> {
    ctx: &'a XdpContext,
}

impl<'a, const STEERS: bool> Maps<'a, STEERS> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Counts one frame of the interface of slot `link`.
    #[inline(always)]
    pub(crate) fn count(&self, link: u16, reason: Reason) {
        if let Some(counter) = COUNTERS.get_ptr_mut(reason.counter(link)) {
            // SAFETY: the pointer is to this CPU's own element, which nothing else writes meanwhile.
            unsafe { *counter += 1 };
        }
    }

    /// Counts a foreign owner, and sends the agent an event unless the router's last one is too recent.
    #[inline(always)]
    pub(crate) fn report(&self, frame: &Frame<'_>, link: u16, claim: &Claim) {
        self.count(link, claim.reason());
        let Some(gate) = EVENT_GATES.get_ptr_mut(claim.router.into()) else {
            return;
        };
        // SAFETY: an element of an array map, which lives as long as the program. Two CPUs at the same instant may both
        // find the gate open (this target has no compare-and-swap): then there are two events, which does no harm.
        let open = unsafe {
            let open = gate_opens(ptr::read_volatile(gate), claim.at);
            if open {
                ptr::write_volatile(gate, claim.at);
            }
            open
        };
        if open {
            // A full ring loses the event; the counter has it.
            if let Some(event) = claim.event(frame) {
                let _ = EVENTS.output(event, 0);
            }
        }
    }

    /// Takes note of a flow that began after the takeover.
    #[inline(always)]
    pub(crate) fn remember(&self, frame: &Frame<'_>, flow: &Flow) {
        let Some(key) = flow.key(frame) else {
            return;
        };
        // A failed insert (the LRU map has none to give) makes the flow one of the former owner's: the client resends.
        let _ = HANDOVER_FLOWS.insert(key, flow.handover, BPF_ANY.into());
    }

    /// Whether a socket of this host has the flow, and does not merely listen for it or remember one that ended: the
    /// client may use the port of that for a connection which the former owner serves.
    #[inline(always)]
    fn has_socket(&self, family: Family, flow: &FlowKey) -> bool {
        let (addresses, length) = tuple(family, flow);
        let mut tuple = bpf_sock_tuple { __bindgen_anon_1: addresses };
        // SAFETY: context and tuple are valid for the call; `length` is that of the union's member that was written.
        let socket = unsafe {
            bpf_skc_lookup_tcp(
                self.ctx.as_ptr(),
                &raw mut tuple,
                length as u32,
                BPF_F_CURRENT_NETNS as u64,
                0,
            )
        };
        if socket.is_null() {
            return false;
        }
        // SAFETY: not null: a socket to which the lookup took a reference, released once, after the last use.
        unsafe {
            let state = (*socket).state;
            bpf_sk_release(socket.cast());
            state != LISTEN && state != TIME_WAIT
        }
    }
}

impl<const STEERS: bool> Tables for Maps<'_, STEERS> {
    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn rules_out(&self, bit: Bit) -> bool {
        FILTER.get_ptr(bit.word).is_some_and(|word| {
            // SAFETY: an element of an array map; the agent changes it at any time: hence volatile.
            unsafe { ptr::read_volatile(word) & bit.mask != 0 }
        })
    }

    #[inline(always)]
    fn vlan(&self, key: &VlanKey) -> Option<u32> {
        // SAFETY: copied at once.
        unsafe { VLANS.get(key) }.copied()
    }

    #[inline(always)]
    fn vip4(&self, key: &Vip4Key) -> Option<Vip> {
        // SAFETY: copied at once.
        unsafe { VIPS4.get(key) }.copied()
    }

    #[inline(always)]
    fn vip6(&self, key: &Vip6Key) -> Option<Vip> {
        // SAFETY: copied at once.
        unsafe { VIPS6.get(key) }.copied()
    }

    #[inline(always)]
    fn virtual_router(&self, key: &VirtualMacKey) -> Option<Vip> {
        // SAFETY: copied at once.
        unsafe { VIRTUAL_MACS.get(key) }.copied()
    }

    #[inline(always)]
    fn deadline(&self, router: u16) -> u64 {
        match DEADLINES.get_ptr(router.into()) {
            // SAFETY: an element of an array map; the agent stores to it at any time, in one piece: hence volatile.
            Some(word) => unsafe { ptr::read_volatile(word) },
            None => 0,
        }
    }

    #[inline(always)]
    fn handover(&self, router: u16) -> Option<Handover> {
        HANDOVERS.get(router.into()).copied()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: no arguments, no preconditions.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn now_coarse(&self) -> u64 {
        // SAFETY: no arguments, no preconditions.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn flow_is_known(&self, family: Family, flow: &FlowKey, handover: u64) -> bool {
        // SAFETY: values of an LRU map may be replaced while they are read, but a word is read whole.
        let seen = HANDOVER_FLOWS.get_ptr(flow).map(|seen| unsafe { seen.read() });
        seen == Some(handover) || self.has_socket(family, flow)
    }

    #[inline(always)]
    fn arrive(&self, arrived: &Arrived, now: u64) -> bool {
        let Some(scratch) = handoff().filter(|_| STEERS) else { return false };
        // SAFETY: this CPU's own element, which nothing else uses while this packet is looked at.
        unsafe { (*scratch).arrive(arrived, now) };
        true
    }
}

impl<const STEERS: bool> Peers for Maps<'_, STEERS> {
    #[inline(always)]
    fn link(&self, ifindex: u32) -> Option<HeartbeatLink> {
        // SAFETY: copied at once.
        unsafe { HEARTBEAT_LINKS.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn word(&self, slot: u32, word: PeerWord) -> u64 {
        match PEERS.get_ptr(slot) {
            // SAFETY: an element of an array map, within which every `PeerWord` lies; the agent stores to some at any
            // time: hence volatile.
            Some(peer) => unsafe { ptr::read_volatile(peer.cast::<u64>().add(word as usize)) },
            None => 0,
        }
    }

    #[inline(always)]
    fn note(&self, slot: u32, word: PeerWord, value: u64) {
        if let Some(peer) = PEERS.get_ptr_mut(slot) {
            // SAFETY: as above; the agent reads it at any time.
            unsafe { ptr::write_volatile(peer.cast::<u64>().add(word as usize), value) };
        }
    }
}

/// The kernel's form of a flow, as its packets to us name it, and how much of it counts.
#[inline(always)]
fn tuple(family: Family, flow: &FlowKey) -> (Addresses, usize) {
    let sport = u16::from_ne_bytes(flow.client_port);
    let dport = u16::from_ne_bytes(flow.vip_port);
    let client = words(flow.client);
    let vip = words(flow.vip);
    match family {
        Family::V4 => {
            (Addresses { ipv4: Ipv4 { saddr: client[0], daddr: vip[0], sport, dport } }, size_of::<Ipv4>())
        }
        Family::V6 => {
            (Addresses { ipv6: Ipv6 { saddr: client, daddr: vip, sport, dport } }, size_of::<Ipv6>())
        }
    }
}

/// The same bytes as words in memory order.
#[inline(always)]
fn words([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [u8; 16]) -> [u32; 4] {
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}
