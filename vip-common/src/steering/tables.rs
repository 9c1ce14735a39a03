//! Keys and values of the steering maps (docs/steering.md says which map is of which kind), and what steering looks up.
//!
//! A change of any of them raises [`LAYOUT_VERSION`](crate::maps::LAYOUT_VERSION), as with the other maps.

use bytemuck::{Pod, Zeroable};

use super::egress::{LocalFlow, LocalFlowKey};
use super::packet::protocol;
use crate::packet::ethernet::Mac;

/// Services of one agent.
pub const MAX_SERVICES: u32 = 4096;
/// Ports of all services: a range has an entry for each of its ports, `all` has one.
pub const MAX_SERVICE_PORTS: u32 = 65_536;
/// Slots of backends, of which a change needs new ones beside the old.
pub const MAX_BACKENDS: u32 = 32_768;
/// Flows of all services. The least recently used go first.
pub const MAX_FLOWS: u32 = 262_144;
/// Clients with an affinity.
pub const MAX_AFFINITIES: u32 = 65_536;
/// Fragmented datagrams of which more is expected.
pub const MAX_FRAGMENTS: u32 = 8192;
/// Source ranges of one family, of all services together.
pub const MAX_SOURCES: u32 = 65_536;

/// New flows that one CPU notes in a [`Gate::INTERVAL`]: 125,000 a second, as katran has it.
pub const NEW_FLOWS_ADMITTED: u64 = 12_500;
/// Resets and ICMP errors that one CPU sends in a [`Gate::INTERVAL`]: 1000 a second, as Linux has it for ICMP.
pub const ANSWERS_ADMITTED: u64 = 100;

const SECOND: u64 = 1_000_000_000;

/// How long later fragments are expected (RFC 1122, 3.3.2 lets receivers wait 60 to 120 s; Linux waits 30).
pub const FRAGMENT_TIMEOUT: u64 = 30 * SECOND;
/// A flow's last packet is noted no more often: each note is a write to memory that other CPUs read.
pub const REFRESH: u64 = SECOND;

/// Key of `SERVICE_PORTS`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct ServiceKey {
    /// The VIP; an IPv4 address stands in the first four bytes.
    pub vip: [u8; 16],
    /// Network order; 0 = all that have no entry of their own.
    pub port: [u8; 2],
    /// TCP, UDP or SCTP.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
}

/// Value of `SERVICE_PORTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ServicePort {
    /// Index into `SERVICES`, `RINGS` and `SERVICE_COUNTERS`.
    pub service: u16,
    /// What is added to a port of the VIP (host order, modulo 2^16) to get the backend's: ranges are mapped one to one.
    pub shift: u16,
}

/// Value of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Service {
    /// Entries of its ring ([`super::maglev::RingSize`]).
    pub ring_size: u32,
    /// `affinity_timeout` in seconds since the client's last new flow; 0 = no affinity.
    pub affinity: u32,
    /// A [`Mode`] as a number.
    pub mode: u8,
    /// A [`Closed`] as a number: what happens without a backend.
    pub no_backend: u8,
    /// Bits of [`service_flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// Bits of [`Service::flags`].
pub mod service_flags {
    /// Only clients of `SOURCES4` and `SOURCES6` are served.
    pub const SOURCE_RANGES: u8 = 1;
    /// Of mode `nat`: some of its backends are, or were, on other nodes. Without this bit (and that of its VIP,
    /// [`vip_flags::FULL_NAT`](crate::maps::vip_flags::FULL_NAT)) nothing goes to those.
    pub const FULL_NAT: u8 = 2;
}

/// `mode`: how a packet gets to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Up the stack: a local listener, which `proxy` is too.
    Local = 0,
    /// To the backend's MAC; all else stays.
    Direct = 1,
    /// To the backend's address. Of a remote backend the client's becomes this node's, too.
    Nat = 2,
    /// In a tunnel to the backend's node.
    Tunnel = 3,
}

impl Mode {
    /// `None` for a number that is none: the service is not steered.
    #[inline(always)]
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Local),
            1 => Some(Self::Direct),
            2 => Some(Self::Nat),
            3 => Some(Self::Tunnel),
            _ => None,
        }
    }
}

/// What happens to packets to a port without a service, or to a service without a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Closed {
    /// Up the stack.
    Pass = 0,
    /// Nobody hears of them.
    Drop = 1,
    /// The client is told: a TCP reset, or an ICMP error.
    Reject = 2,
}

impl Closed {
    /// A number that is none passes.
    #[inline(always)]
    pub const fn of(number: u8) -> Self {
        match number {
            1 => Self::Drop,
            2 => Self::Reject,
            _ => Self::Pass,
        }
    }
}

/// Element of a ring's map in `RINGS`: two of its entries, slots of `BACKENDS`. The kernel rounds each element of an array up to
/// eight bytes: with one entry in each, a ring would take twice the memory, half of it empty.
pub type RingPair = [u32; 2];

/// Value of `BACKENDS`: a cache line. Slot 0 is nobody's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Backend {
    /// Its address (for `tunnel`: its node's); an IPv4 one stands in the first four bytes.
    pub address: [u8; 16],
    /// This node's end of a tunnel; of full NAT, if that is not to be the VIP (zero).
    pub source: [u8; 16],
    /// The interface by which its next hop is reached ([`crate::maps::VlanKey`] says how VLANs count).
    pub ifindex: u32,
    /// That of the next hop, which rtnetlink says and no packet ever teaches.
    pub mac: [u8; 6],
    /// Of the interface.
    pub own: [u8; 6],
    /// What goes through to it in one piece, from the outermost IP header on.
    pub mtu: u16,
    /// Which backend of those that had this slot: flows of a former one are not its.
    pub generation: u16,
    /// Whose backend it is.
    pub service: u16,
    /// Bits of [`backend_flags`].
    pub flags: u8,
    /// 4 or 6: of `address` and `source`.
    pub family: u8,
    /// [`super::tunnel::Tunnel::source_bits`]
    pub source_bits: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// It has a next hop and its probe, if any, is up. Without this bit nothing goes to it.
    pub const UP: u8 = 1;
    /// It is on this node: packets go up the stack.
    pub const LOCAL: u8 = 2;
    /// Weight 0: it keeps its flows and gets no new ones, not even of clients with an affinity.
    pub const DRAINING: u8 = 4;
}

impl Backend {
    /// Whether this bit of [`backend_flags`] is set.
    #[inline(always)]
    pub const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The station that it is reached by.
    #[inline(always)]
    pub const fn next(&self) -> Mac {
        Mac::new(self.mac)
    }
}

/// Key of `FLOWS`. A service has one VIP, so that its number stands for that.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SteeredFlowKey {
    /// The client's address; an IPv4 one stands in the first four bytes.
    pub client: [u8; 16],
    /// Network order.
    pub client_port: [u8; 2],
    /// Network order.
    pub vip_port: [u8; 2],
    /// [`ServicePort::service`]
    pub service: u16,
    /// TCP, UDP or SCTP.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

/// Value of `FLOWS`, `AFFINITIES` and `FRAGMENTS`: a choice that was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Choice {
    /// CLOCK_MONOTONIC nanoseconds of about the last packet.
    pub seen: u64,
    /// Slot of the backend; 0 in `FRAGMENTS`: it went up the stack. In an answer of full NAT there: both its ports.
    pub backend: u32,
    /// [`Backend::generation`]
    pub generation: u16,
    /// A [`FlowState`] as a number; in `FRAGMENTS` 0, or [`RETURNED`].
    pub state: u8,
    /// Zero.
    pub reserved: u8,
}

/// [`Choice::state`] in `FRAGMENTS`: of a datagram that a backend sent to a client through full NAT.
pub const RETURNED: u8 = 1;

/// What is known of a flow's life. As numbers in [`Choice::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FlowState {
    /// Its first packet was seen.
    Opening = 0,
    /// More than that.
    Established = 1,
    /// TCP: somebody has nothing more to say.
    Closing = 2,
}

impl FlowState {
    /// A number that is none is closing: the first to go.
    #[inline(always)]
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Established,
            _ => Self::Closing,
        }
    }

    /// Nanoseconds without a packet after which the flow is over: RFC 5382, REQ-5 for TCP, RFC 4787, REQ-5 for UDP.
    #[inline(always)]
    pub const fn timeout(self, protocol: u8) -> u64 {
        match (self, protocol) {
            (_, protocol::UDP) => 5 * 60 * SECOND,
            (Self::Established, _) => (2 * 60 + 4) * 60 * SECOND,
            (Self::Opening | Self::Closing, _) => 4 * 60 * SECOND,
        }
    }
}

/// Key of `AFFINITIES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct AffinityKey {
    /// The client's address; an IPv4 one stands in the first four bytes.
    pub client: [u8; 16],
    /// [`ServicePort::service`]
    pub service: u32,
}

/// Key of `FRAGMENTS`: what the parts of a datagram have in common (RFC 791; RFC 8200, 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FragmentKey {
    /// An IPv4 address stands in the first four bytes.
    pub source: [u8; 16],
    /// Likewise.
    pub destination: [u8; 16],
    /// The identification.
    pub id: u32,
    /// Of the datagram.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Key of `SOURCES4`, behind the prefix length (32 bits of the service, and those of the range).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Source4Key {
    /// [`ServicePort::service`]
    pub service: u32,
    /// The range, or the client.
    pub address: [u8; 4],
}

/// Key of `SOURCES6`, likewise.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Source6Key {
    /// [`ServicePort::service`]
    pub service: u32,
    /// The range, or the client.
    pub address: [u8; 16],
}

/// Value of `NEW_FLOWS`, one for each CPU: how many flows it has noted in this interval. Beyond the limit flows go by the
/// ring alone, so that a flood evicts nobody's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Gate {
    /// CLOCK_MONOTONIC nanoseconds at which the interval began.
    pub since: u64,
    /// Counted in it.
    pub count: u64,
}

impl Gate {
    /// Length of the interval.
    pub const INTERVAL: u64 = SECOND / 10;

    /// Counts one more at `now`; whether it is among the first `limit` of its interval.
    #[inline(always)]
    pub fn admits(&mut self, now: u64, limit: u64) -> bool {
        if now.saturating_sub(self.since) >= Self::INTERVAL {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= limit
    }
}

/// What steering looks up and notes: BPF maps in the kernel, plain collections in tests.
pub trait SteeringTables {
    /// `SERVICE_PORTS`
    fn service_port(&self, key: &ServiceKey) -> Option<ServicePort>;
    /// `SERVICES`; `None` for a slot that does not exist.
    fn service(&self, service: u16) -> Option<&Service>;
    /// An entry of the service's ring in `RINGS`: a slot of `BACKENDS`, 0 = nobody.
    fn ring(&self, service: u16, position: u32) -> u32;
    /// `BACKENDS`; `None` for a slot that does not exist.
    fn backend(&self, slot: u32) -> Option<&Backend>;
    /// `FLOWS`
    fn flow(&self, key: &SteeredFlowKey) -> Option<Choice>;
    /// Notes in `FLOWS`. May fail: the flow goes by the ring then.
    fn note_flow(&self, key: &SteeredFlowKey, choice: Choice);
    /// `AFFINITIES`
    fn affinity(&self, key: &AffinityKey) -> Option<Choice>;
    /// Notes in `AFFINITIES`.
    fn note_affinity(&self, key: &AffinityKey, choice: Choice);
    /// `FRAGMENTS`
    fn fragment(&self, key: &FragmentKey) -> Option<Choice>;
    /// Notes in `FRAGMENTS`.
    fn note_fragment(&self, key: &FragmentKey, choice: Choice);
    /// `LOCAL_FLOWS`
    fn local_flow(&self, key: &LocalFlowKey) -> Option<LocalFlow>;
    /// Notes in `LOCAL_FLOWS`. May fail: what the backend sends leaves as it is until the client's next packet.
    fn note_local_flow(&self, key: &LocalFlowKey, flow: &LocalFlow);
    /// `SOURCES4` or `SOURCES6`: whether the client is in one of the service's ranges.
    fn is_allowed(&self, service: u16, family: u8, client: &[u8; 16]) -> bool;
    /// `NEW_FLOWS`: whether another flow may be noted at `now`.
    fn admits_flow(&self, now: u64) -> bool;
    /// `ANSWERS`: whether another reset or ICMP error may go out at `now`.
    fn admits_answer(&self, now: u64) -> bool;
    /// CLOCK_MONOTONIC in nanoseconds, behind by up to a tick.
    fn now_coarse(&self) -> u64;
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<ServicePort>() == 4);
    assert!(size_of::<Service>() == 16);
    assert!(size_of::<Backend>() == 64);
    assert!(size_of::<SteeredFlowKey>() == 24);
    assert!(size_of::<Choice>() == 16);
    assert!(size_of::<AffinityKey>() == 20);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<Source4Key>() == 8);
    assert!(size_of::<Source6Key>() == 20);
    assert!(size_of::<Gate>() == 16);
};
