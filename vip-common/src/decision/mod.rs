//! What becomes of a frame: a pure function of its bytes, the tables and the clock.
//!
//! What is not ours leaves first and untouched; VRRP, IGMP and MLD always pass. Questions for a VIP are answered by its
//! owner and dropped by everyone else before their kernel sees them; announcements of others go up.

mod arp;
mod neighbor;
mod traffic;
mod virtual_mac;

pub use virtual_mac::{Arrival, arrival};

use crate::filter::Bit;
use crate::maps::{
    EVENT_INTERVAL, FlowKey, ForeignOwner, Handover, Vip, Vip4Key, Vip6Key, VirtualMacKey, VlanKey,
};
use crate::packet::ethernet::{self, Mac};
use crate::packet::icmpv6;
use crate::packet::{Bytes, ipv4, ipv6, tcp};
use crate::reason::Reason;
use crate::steering::steer::Arrived;

/// IP protocol number of VRRP, both families (RFC 9568, 5.1).
pub const PROTOCOL_VRRP: u8 = 112;
const PROTOCOL_IGMP: u8 = 2;
const PROTOCOL_TCP: u8 = 6;
/// MLD messages stand behind a hop-by-hop header with the router alert option (RFC 3810, 5).
const HOP_BY_HOP: u8 = 0;

/// What the decision looks up: BPF maps and helpers in the kernel, plain collections in tests.
pub trait Tables {
    /// Index of the interface that the frame came in by.
    fn ingress(&self) -> u32;
    /// `FILTER`: whether an address with this bit is certainly no VIP.
    fn rules_out(&self, bit: Bit) -> bool;
    /// `VLANS`: index of the sub-interface that a tag belongs to.
    fn vlan(&self, key: &VlanKey) -> Option<u32>;
    /// `VIPS4`
    fn vip4(&self, key: &Vip4Key) -> Option<Vip>;
    /// `VIPS6`
    fn vip6(&self, key: &Vip6Key) -> Option<Vip>;
    /// `VIRTUAL_MACS`
    fn virtual_router(&self, key: &VirtualMacKey) -> Option<Vip>;
    /// `DEADLINES`: until when this node answers for the router's VIPs; 0 for a slot that does not exist.
    fn deadline(&self, router: u16) -> u64;
    /// `HANDOVERS`; `None` for a slot that does not exist.
    fn handover(&self, router: u16) -> Option<Handover>;
    /// CLOCK_MONOTONIC in nanoseconds.
    fn now(&self) -> u64;
    /// The same clock, cheaper, behind by up to a tick (4 ms at HZ 250).
    fn now_coarse(&self) -> u64;
    /// Whether a flow is ours: in `HANDOVER_FLOWS` since this handover (which ends at `handover`), or of a local socket
    /// that has a connection, not one that merely listens or remembers a former connection of the same ports.
    fn flow_is_known(&self, family: Family, flow: &FlowKey, handover: u64) -> bool;
    /// Takes down what steering must know of a packet, and the coarse clock, which is dear enough to be read once. `false`: nothing
    /// is steered here, and VIPs with services are treated as if they had none.
    #[inline(always)]
    fn arrive(&self, _arrived: &Arrived, _now: u64) -> bool {
        true
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// What becomes of a frame about a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do with the frame.
    pub action: Action,
    /// Slot of the interface, for the counters.
    pub link: u16,
    /// Why.
    pub reason: Reason,
    /// What to report besides: the sender claims a VIP that this node owns.
    pub claim: Option<Claim>,
}

/// A station that is not this node announced a VIP that this node owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// CLOCK_MONOTONIC nanoseconds.
    pub at: u64,
    /// Interface that carries the VIP.
    pub ifindex: u32,
    /// Slot of the virtual router.
    pub router: u16,
    /// The MAC that claims it.
    pub mac: Mac,
    /// Of the VIP.
    pub family: Family,
    /// Offset of the VIP in the frame.
    pub address: usize,
}

impl Claim {
    /// The event for the agent, read before the frame is rewritten.
    #[inline(always)]
    pub fn event<B: Bytes + ?Sized>(&self, frame: &B) -> Option<ForeignOwner> {
        let Self { at, ifindex, router, mac, .. } = *self;
        let (family, address) = match self.family {
            Family::V4 => (4, ipv4::widen(frame.load(self.address)?)),
            Family::V6 => (6, ipv6::Address::load(frame, self.address)?.bytes()),
        };
        Some(ForeignOwner {
            at,
            ifindex,
            router,
            family,
            reserved: 0,
            address,
            mac: mac.bytes(),
            reserved2: [0; 2],
        })
    }

    /// Counted besides what happened to the frame.
    pub const fn reason(&self) -> Reason {
        match self.family {
            Family::V4 => Reason::ArpForeignOwner,
            Family::V6 => Reason::NdForeignOwner,
        }
    }
}

/// What to do with a frame; [`crate::rewrite::apply`] does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Up the stack.
    Pass,
    /// Up the stack, and the flow is ours from now on.
    PassNewFlow(Flow),
    /// Nobody sees it.
    Drop,
    /// Becomes the reply, back out of the interface.
    AnswerArp(ArpAnswer),
    /// Becomes the advertisement, back out of the interface.
    AnswerNeighbor(NeighborAnswer),
    /// Goes to the former owner, back out of the interface.
    Forward(Forward),
    /// Goes where its service says ([`crate::steering::steer::steer`]). What is known of it was taken down ([`Tables::arrive`]):
    /// carried in here, it would share the registers of all other actions, and LLVM would do arithmetic on pointers in them that
    /// the kernel refuses.
    Steer(Family),
}

/// A TCP flow, by the offsets of its packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Of the addresses.
    pub family: Family,
    /// Offset of the IP header.
    pub network: usize,
    /// Offset of the TCP header.
    pub transport: usize,
    /// [`Handover::until`] of the handover in which it was seen: what is known of an earlier one is of another
    /// connection, if the client has used the port again.
    pub handover: u64,
}

impl Flow {
    /// The flow's key in `HANDOVER_FLOWS`.
    #[inline(always)]
    pub fn key<B: Bytes + ?Sized>(&self, frame: &B) -> Option<FlowKey> {
        let (client, vip) = match self.family {
            Family::V4 => {
                let client = ipv4::widen(ipv4::source(frame, self.network)?);
                (client, ipv4::widen(ipv4::Brief::read(frame, self.network)?.destination))
            }
            Family::V6 => {
                let client = ipv6::source(frame, self.network)?.bytes();
                (client, ipv6::destination(frame, self.network)?.bytes())
            }
        };
        let client_port = tcp::source_port(frame, self.transport)?;
        let vip_port = tcp::destination_port(frame, self.transport)?;
        Some(FlowKey { client, vip, client_port, vip_port })
    }
}

/// An ARP reply in the making. All else that it needs is in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpAnswer {
    /// Offset of the ARP message.
    pub at: usize,
    /// The MAC that answers.
    pub own: Mac,
}

/// A neighbour advertisement in the making. All else that it needs is in the solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborAnswer {
    /// Offset of the IPv6 header.
    pub at: usize,
    /// The MAC that answers.
    pub own: Mac,
    /// [`icmpv6::flags::ROUTER`] or 0.
    pub router: u8,
    /// Who is told.
    pub audience: Audience,
}

/// To whom a neighbour advertisement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The solicitation's source, by this link-layer address.
    Asker(Mac),
    /// Everyone on the link.
    AllNodes,
}

/// A frame on its way to the former owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// This node.
    pub own: Mac,
    /// The former owner.
    pub former: Mac,
}

/// Decides about a frame; `None` if it is about no VIP of ours: it passes, uncounted.
#[inline(always)]
pub fn decide<B: Bytes + ?Sized, T: Tables>(frame: &B, tables: &T) -> Option<Decision> {
    let header = ethernet::Header::read(frame)?;
    let at = header.payload;
    match header.ethertype {
        ethernet::IPV4 => {
            let packet = ipv4::Brief::read(frame, at)?;
            if matches!(packet.protocol, PROTOCOL_VRRP | PROTOCOL_IGMP)
                || tables.rules_out(Bit::of_ipv4(packet.destination))
            {
                return None;
            }
            let ifindex = interface(&header, tables)?;
            let vip = tables.vip4(&Vip4Key { ifindex, address: packet.destination })?;
            Some(traffic::to_vip4(frame, at, packet.protocol, ifindex, vip, tables))
        }
        ethernet::IPV6 => match ipv6::next_header(frame, at)? {
            PROTOCOL_VRRP | HOP_BY_HOP => None,
            icmpv6::NEXT_HEADER if icmpv6::is_neighbor_message(frame, at) => {
                neighbor::decide(frame, at, interface(&header, tables)?, tables)
            }
            next_header => {
                let destination = ipv6::destination(frame, at)?;
                if tables.rules_out(Bit::of_ipv6(destination)) {
                    return None;
                }
                let ifindex = interface(&header, tables)?;
                let vip = tables.vip6(&Vip6Key { ifindex, address: destination.bytes() })?;
                Some(traffic::to_vip6(frame, at, next_header, ifindex, vip, tables))
            }
        },
        ethernet::ARP => arp::decide(frame, at, interface(&header, tables)?, tables),
        _ => None,
    }
}

/// The interface that VIPs are keyed by; `None` for a VLAN that carries none, which is another network.
#[inline(always)]
pub(crate) fn interface<T: Tables>(header: &ethernet::Header, tables: &T) -> Option<u32> {
    let parent = tables.ingress();
    match header.vlan {
        None => Some(parent),
        Some(ethernet::VlanId { outer, inner }) => tables.vlan(&VlanKey { parent, outer, inner }),
    }
}

impl Decision {
    #[inline(always)]
    fn new(vip: &Vip, reason: Reason, action: Action) -> Self {
        Self { action, link: vip.link, reason, claim: None }
    }
}

/// Whether a router's next event may go out at `now`, if its last one went out at `last` (0 = never).
#[inline(always)]
pub const fn gate_opens(last: u64, now: u64) -> bool {
    last == 0 || now.saturating_sub(last) >= EVENT_INTERVAL
}

/// Whether this node answers for the router at `now`.
#[inline(always)]
fn owns<T: Tables>(tables: &T, vip: &Vip, now: u64) -> bool {
    now < tables.deadline(vip.router)
}
