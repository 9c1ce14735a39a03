//! A backend's answer on its way to the client, and ICMP errors about what went to the backend.
//!
//! Called by the [`step`](super::step)s.

use super::tables::{NatHop, NatTables, NatWork, Routed, is_due};
use crate::decision::Family;
use crate::steering::choose::Flags;
use crate::steering::nat::Endpoint;
use crate::steering::packet::Tuple;
use crate::steering::steer::{Arrived, number};
use crate::steering::tables::FlowState;

/// What is done with a packet that belongs to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayBack {
    /// It goes on by [`NatWork`]'s hop.
    Known,
    /// The kernel does not know how to get to the client.
    Unknown,
}

/// Looks for the flow that a packet to us belongs to, as what a backend sent; false if it belongs to none. The entry is in
/// `work` then.
///
/// `tuple` has the backend in the client's place, and what is ours in the VIP's.
#[inline(always)]
pub(super) fn find<T: NatTables>(family: Family, tuple: &Tuple, tables: &T, work: &mut NatWork) -> bool {
    tables.nat_ports(&mut work.ports);
    if work.ports.count() == 0 || !work.ports.contains(u16::from_be_bytes(tuple.vip_port)) {
        return false;
    }
    let way = &mut work.way;
    (way.backend, way.own) = (tuple.client, tuple.vip);
    (way.backend_port, way.own_port) = (tuple.client_port, tuple.vip_port);
    (way.protocol, way.family, way.reserved) = (tuple.protocol, number(family), [0; 2]);
    tables.nat_return(&work.way, &mut work.back)
}

/// Says in `work` what the packet becomes, and notes it.
#[inline(always)]
pub(super) fn inward<T: NatTables>(
    arrived: &Arrived,
    flags: &Flags,
    now: u64,
    tables: &T,
    work: &mut NatWork,
) -> WayBack {
    let due = is_due(work.back.seen, now);
    let before = FlowState::of(work.back.state);
    let state = match before {
        FlowState::Closing => before,
        _ if flags.closes => FlowState::Closing,
        _ => FlowState::Established,
    };
    let way = ask_the_way(arrived, due, state, now, tables, work);
    if due || state != before {
        tables.touch_nat_return(&work.way, now, state);
    }
    if due {
        restore_flow(now, tables, work);
    }
    way
}

/// The same for an ICMP error, which keeps no flow alive.
#[inline(always)]
pub(super) fn error_inward<T: NatTables>(arrived: &Arrived, tables: &T, work: &mut NatWork) -> WayBack {
    let (state, seen) = (FlowState::of(work.back.state), work.back.seen);
    ask_the_way(arrived, false, state, seen, tables, work)
}

/// The kernel is asked if it was not lately. What it said before is good for as long as it says nothing else: a neighbour's
/// entry may be about to be renewed.
#[inline(always)]
fn ask_the_way<T: NatTables>(
    arrived: &Arrived,
    due: bool,
    state: FlowState,
    seen: u64,
    tables: &T,
    work: &mut NatWork,
) -> WayBack {
    let known = work.back.hop.ifindex != 0;
    if due || !known {
        let mut hop = NatHop { ifindex: 0, mac: [0; 6], own: [0; 6], mtu: 0, reserved: 0 };
        let (vip, client) = (&work.back.vip, &work.back.client.client);
        match tables.route(arrived.family, arrived.ifindex, vip, client, &mut hop) {
            Routed::Known if hop != work.back.hop => {
                work.back.hop = hop;
                (work.back.seen, work.back.state) = (seen, state as u8);
                tables.replace_nat_return(&work.way, &work.back);
            }
            Routed::Known => {}
            Routed::Unresolved if known => {}
            Routed::Unresolved | Routed::Nowhere => return WayBack::Unknown,
        }
    }
    work.source = Endpoint { address: work.back.vip, port: work.back.client.vip_port };
    work.destination = Endpoint { address: work.back.client.client, port: work.back.client.client_port };
    WayBack::Known
}

/// Puts the client's entry back if the kernel needed its memory: without it the client's next packet would get another port.
#[inline(always)]
fn restore_flow<T: NatTables>(now: u64, tables: &T, work: &mut NatWork) {
    if tables.nat_flow(&work.back.client, &mut work.flow) {
        return;
    }
    let (flow, back) = (&mut work.flow, &work.back);
    flow.seen = now;
    (flow.backend, flow.generation) = (back.backend, back.generation);
    (flow.state, flow.reserved) = (back.state, 0);
    flow.way = work.way;
    tables.insert_nat_flow(&work.back.client, &work.flow);
}
