//! Traffic to a VIP: up the stack, or, for a while after a planned move, on to the former owner; or nowhere, where it is
//! not accepted; or where its service says.

use super::{Action, Decision, Family, Flow, Forward, PROTOCOL_TCP, Tables, owns};
use crate::maps::{Handover, Vip, vip_flags};
use crate::packet::ethernet::{self, Mac};
use crate::packet::{Bytes, ipv4, ipv6, tcp};
use crate::reason::Reason;
use crate::steering::steer::{Arrived, FullNat};
use crate::steering::tables::Closed;

/// Decides about an IPv4 packet to `vip`.
#[inline(always)]
pub(super) fn to_vip4<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    at: usize,
    protocol: u8,
    ifindex: u32,
    vip: Vip,
    tables: &T,
) -> Decision {
    let to = To { family: Family::V4, network: at, ifindex, vip: &vip };
    decide(frame, protocol, &to, tables, |handover| {
        Some(Flow { family: Family::V4, network: at, transport: ipv4::transport(frame, at)?, handover })
    })
}

/// Decides about an IPv6 packet to `vip`.
#[inline(always)]
pub(super) fn to_vip6<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    at: usize,
    next_header: u8,
    ifindex: u32,
    vip: Vip,
    tables: &T,
) -> Decision {
    let to = To { family: Family::V6, network: at, ifindex, vip: &vip };
    decide(frame, next_header, &to, tables, |handover| {
        Some(Flow { family: Family::V6, network: at, transport: at + ipv6::HEADER, handover })
    })
}

/// What a packet is for.
struct To<'a> {
    family: Family,
    /// Offset of the IP header.
    network: usize,
    /// The interface that carries the VIP.
    ifindex: u32,
    vip: &'a Vip,
}

#[inline(always)]
fn decide<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    protocol: u8,
    to: &To<'_>,
    tables: &T,
    flow: impl FnOnce(u64) -> Option<Flow>,
) -> Decision {
    let vip = to.vip;
    let now = tables.now_coarse();
    if !owns(tables, vip, now) && !is_moving(tables, vip, now) {
        return Decision::new(vip, Reason::TrafficNotOwned, Action::Pass);
    }
    if vip.flags & vip_flags::NOT_ACCEPTED != 0 {
        return Decision::new(vip, Reason::TrafficNotAccepted, Action::Drop);
    }
    if vip.flags & vip_flags::SERVICES != 0 && tables.arrive(&arrived(to, now, tables), now) {
        return Decision::new(vip, Reason::TrafficSteered, Action::Steer(to.family));
    }
    let (reason, action) = match handover(frame, protocol, vip, now, tables) {
        Some(handover) => {
            handed_over(frame, vip, handover, flow, tables).unwrap_or((Reason::TrafficOwned, Action::Pass))
        }
        None => (Reason::TrafficOwned, Action::Pass),
    };
    Decision::new(vip, reason, action)
}

/// What steering must know. A service's flows are steered whoever was the owner before; what is of this host alone comes back
/// to the rules below, by a look at the table without services.
#[inline(always)]
fn arrived<T: Tables>(to: &To<'_>, now: u64, tables: &T) -> Arrived {
    let To { family, network, ifindex, vip } = *to;
    let is = |flag| vip.flags & flag != 0;
    Arrived {
        family,
        network,
        ifindex,
        own: Mac::new(vip.mac),
        echo: is(vip_flags::ECHO),
        closed: if is(vip_flags::CLOSED_REJECT) {
            Closed::Reject
        } else if is(vip_flags::CLOSED_DROP) {
            Closed::Drop
        } else {
            Closed::Pass
        },
        handed_over: tables.handover(vip.router).is_some_and(|handover| now < handover.until),
        full_nat: if is(vip_flags::FULL_NAT) { FullNat::All } else { FullNat::Nothing },
    }
}

/// Whether the VIPs come from a former owner just now: our advert is out, which draws a virtual MAC to us, and the word is not
/// stored yet. The stack knows nothing of the connections that the former owner serves, and would reset them.
///
/// Or they have just gone: who has not heard yet sends here, and what services steer goes where the new owner would send it.
#[inline(always)]
fn is_moving<T: Tables>(tables: &T, vip: &Vip, now: u64) -> bool {
    let steered = vip.flags & vip_flags::SERVICES != 0;
    tables
        .handover(vip.router)
        .is_some_and(|handover| now < handover.in_transit && (steered || now < handover.until))
}

/// The handover that runs, if its former owner may have to have the frame: a TCP one for us.
#[inline(always)]
fn handover<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    protocol: u8,
    vip: &Vip,
    now: u64,
    tables: &T,
) -> Option<Handover> {
    let handover = tables.handover(vip.router)?;
    if protocol != PROTOCOL_TCP || handover.until <= now {
        return None;
    }
    // What the former owner sends, it does not serve: never back to where it came from.
    (ethernet::destination(frame)? == Mac::new(vip.mac)
        && ethernet::source(frame)? != Mac::new(handover.former))
    .then_some(handover)
}

/// What to do with a segment while the VIP's former owner still serves connections; `None` if it holds no header.
#[inline(always)]
fn handed_over<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    vip: &Vip,
    handover: Handover,
    flow: impl FnOnce(u64) -> Option<Flow>,
    tables: &T,
) -> Option<(Reason, Action)> {
    let flow = flow(handover.until)?;
    if tcp::opens(frame, flow.transport)? {
        return Some((Reason::TrafficOwned, Action::PassNewFlow(flow)));
    }
    if tables.flow_is_known(flow.family, &flow.key(frame)?, flow.handover) {
        return Some((Reason::TrafficOwned, Action::Pass));
    }
    let forward = Forward { own: Mac::new(vip.mac), former: Mac::new(handover.former) };
    Some((Reason::HandoverForwarded, Action::Forward(forward)))
}
