//! A client's packet on its way to a backend on another node: its flow's entries are found, or made.
//!
//! Called by the [`step`](super::step)s.

use super::tables::{NatHop, NatTables, NatWork, Routed, gives_way, is_due};
use crate::steering::choose::{Chosen, Flags, Found, flow_key, usable};
use crate::steering::nat::{Endpoint, Translation};
use crate::steering::packet::protocol;
use crate::steering::reason::Outcome;
use crate::steering::steer::Arrived;
use crate::steering::tables::{Backend, FlowState, backend_flags};

/// How many ports are tried for a new flow, besides its own.
pub(super) const TRIES: u32 = 20;

/// What is known of a flow: [`NatWork::known`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Known {
    /// Nothing.
    Absent = 0,
    /// An entry to a backend that it cannot go to any more.
    Stale = 1,
    /// An entry to go by.
    Alive = 2,
    /// An entry whose way back is another flow's.
    Lost = 3,
}

/// The backend of a flow that has an entry, which is read into `work`.
#[inline(always)]
pub(super) fn recall<'a, T: NatTables>(
    found: &Found<'_>,
    opens: bool,
    tables: &'a T,
    work: &mut NatWork,
) -> Option<Chosen<'a>> {
    work.client = flow_key(found);
    work.known = Known::Absent as u8;
    if !tables.nat_flow(&work.client, &mut work.flow) {
        return None;
    }
    work.known = Known::Stale as u8;
    let slot = work.flow.backend;
    let backend = usable(slot, found.port.service, tables)?;
    if backend.generation != work.flow.generation || backend.is(backend_flags::LOCAL) {
        return None;
    }
    // A new connection from the ports of a former one goes where the former one went, as its answers may still come from
    // there; but not to a backend that is to have no new ones.
    if opens && backend.is(backend_flags::DRAINING) {
        return None;
    }
    work.known = Known::Alive as u8;
    Some(Chosen { slot, backend, outcome: Outcome::Steered })
}

/// Says in `work` what a packet of the flow becomes that [`recall`] found; false if the flow's way back was lost to another one,
/// so that it has to [`begin`] again.
#[inline(always)]
pub(super) fn follow<T: NatTables>(flags: &Flags, found: &Found<'_>, tables: &T, work: &mut NatWork) -> bool {
    if !keep_up(flags, found, tables, work) {
        work.known = Known::Lost as u8;
        return false;
    }
    translate(work);
    true
}

/// The backend of a flow whose way back was lost.
#[inline(always)]
pub(super) fn lost<'a, T: NatTables>(service: u16, tables: &'a T, work: &NatWork) -> Option<Chosen<'a>> {
    if work.known != Known::Lost as u8 {
        return None;
    }
    let slot = work.flow.backend;
    let backend = usable(slot, service, tables)?;
    Some(Chosen { slot, backend, outcome: Outcome::Steered })
}

/// What a fragment without ports becomes, whose first one had an entry.
#[inline(always)]
pub(super) fn without_ports(backend: &Backend, vip: &[u8; 16]) -> Translation {
    let end = |address| Some(Endpoint { address, port: [0; 2] });
    Translation { source: end(own_address(backend, vip)), destination: end(backend.address) }
}

/// Says in `work` what an ICMP error about the flow becomes that [`recall`] found.
#[inline(always)]
pub(super) fn error_outward(work: &mut NatWork) {
    translate(work);
}

#[inline(always)]
fn translate(work: &mut NatWork) {
    let way = &work.flow.way;
    work.source = Endpoint { address: way.own, port: way.own_port };
    work.destination = Endpoint { address: way.backend, port: way.backend_port };
}

/// Ours in what goes to a backend.
#[inline(always)]
fn own_address(backend: &Backend, vip: &[u8; 16]) -> [u8; 16] {
    if backend.source == [0; 16] { *vip } else { backend.source }
}

/// Notes a packet of a flow that has an entry; false if its way back belongs to another flow.
#[inline(always)]
fn keep_up<T: NatTables>(flags: &Flags, found: &Found<'_>, tables: &T, work: &mut NatWork) -> bool {
    let state = FlowState::of(work.flow.state);
    if !flags.opens && !flags.closes && state != FlowState::Opening && !is_due(work.flow.seen, found.now) {
        return true;
    }
    let after = if tables.nat_return(&work.flow.way, &mut work.back) {
        if work.back.client != work.client {
            return false;
        }
        after(flags, state, FlowState::of(work.back.state))
    } else {
        // The kernel needed its memory. The way to the client is asked for with the answer.
        prepare_return(found, work);
        if !tables.insert_nat_return(&work.flow.way, &work.back) {
            return false;
        }
        after(flags, state, FlowState::Opening)
    };
    if flags.opens && state != FlowState::Opening {
        tables.touch_nat_return(&work.flow.way, found.now, FlowState::Opening);
    }
    if after != state || is_due(work.flow.seen, found.now) {
        tables.touch_nat_flow(&work.client, found.now, after);
    }
    true
}

/// The state after a client's packet. A flow is established once both ends have spoken: a flood of packets that a backend does
/// not answer, or with clients that are none, ties up no port for long.
#[inline(always)]
const fn after(flags: &Flags, state: FlowState, answer: FlowState) -> FlowState {
    match (state, answer) {
        _ if flags.opens => FlowState::Opening,
        (FlowState::Closing, _) => FlowState::Closing,
        _ if flags.closes => FlowState::Closing,
        (FlowState::Opening, FlowState::Opening) => FlowState::Opening,
        _ => FlowState::Established,
    }
}

/// The entry of the way back of `work.flow`, as far as it is known from there. Field by field: as a whole it would stand on the
/// stack first.
#[inline(always)]
fn prepare_return(found: &Found<'_>, work: &mut NatWork) {
    let (back, flow) = (&mut work.back, &work.flow);
    back.seen = found.now;
    back.client = work.client;
    back.vip = found.tuple.vip;
    back.hop = NatHop { ifindex: 0, mac: [0; 6], own: [0; 6], mtu: 0, reserved: 0 };
    (back.backend, back.generation) = (flow.backend, flow.generation);
    (back.state, back.reserved) = (FlowState::Opening as u8, [0; 5]);
}

/// Makes both entries of a flow that has none, or has lost one, and says in `work` what the packet becomes. `Err`: it must be dropped,
/// for this.
///
/// `chosen` is to whom it is to go; another backend than that afterwards if another CPU has just sent the flow there.
#[inline(always)]
pub(super) fn begin<'a, T: NatTables>(
    arrived: &Arrived,
    flags: &Flags,
    found: &Found<'_>,
    chosen: &mut Chosen<'a>,
    tables: &'a T,
    work: &mut NatWork,
) -> Result<(), Outcome> {
    let admitted = match chosen.outcome {
        Outcome::NewFlow => true,
        // Its entry was lost to another flow.
        Outcome::Steered => tables.admits_flow(found.now),
        _ => false,
    };
    // What ends a flow begins none, and SCTP's checksum is no sum: its ports cannot be changed.
    if !admitted || flags.resets || found.tuple.protocol == protocol::SCTP {
        return Err(Outcome::Unmapped);
    }
    if work.known != Known::Absent as u8 {
        forget(tables, work);
    }
    prepare(found, chosen, work);
    let Arrived { family, ifindex, .. } = *arrived;
    // From there, as both are in memory there already.
    let (vip, client) = (&work.back.vip, &work.back.client.client);
    let routed = tables.route(family, ifindex, vip, client, &mut work.back.hop);
    if routed == Routed::Nowhere {
        return Err(Outcome::NoWayBack);
    }
    if !take_port(found, tables, work) {
        return Err(Outcome::NoPort);
    }
    if tables.insert_nat_flow(&work.client, &work.flow) {
        chosen.outcome = Outcome::NewFlow;
        translate(work);
        return Ok(());
    }
    // Another CPU had a packet of it, too, and was faster. Perhaps it has taken over the way back that was begun here.
    work.way = work.flow.way;
    let theirs = tables.nat_flow(&work.client, &mut work.flow);
    if !theirs || work.flow.way != work.way {
        tables.remove_nat_return(&work.way);
    }
    if !theirs {
        return Err(Outcome::NoPort);
    }
    if work.flow.backend != chosen.slot || work.flow.generation != chosen.backend.generation {
        let theirs = usable(work.flow.backend, found.port.service, tables).ok_or(Outcome::Unmapped)?;
        (chosen.slot, chosen.backend) = (work.flow.backend, theirs);
    }
    chosen.outcome = Outcome::Steered;
    translate(work);
    Ok(())
}

/// Removes what is left of the flow's former entries.
#[inline(always)]
fn forget<T: NatTables>(tables: &T, work: &mut NatWork) {
    tables.remove_nat_flow(&work.client);
    if tables.nat_return(&work.flow.way, &mut work.back) && work.back.client == work.client {
        tables.remove_nat_return(&work.flow.way);
    }
}

/// Both entries in `work`, but for the port and the way to the client.
#[inline(always)]
fn prepare(found: &Found<'_>, chosen: &Chosen<'_>, work: &mut NatWork) {
    let backend_port = u16::from_be_bytes(found.tuple.vip_port).wrapping_add(found.port.shift);
    let (flow, backend) = (&mut work.flow, chosen.backend);
    flow.seen = found.now;
    (flow.backend, flow.generation) = (chosen.slot, backend.generation);
    (flow.state, flow.reserved) = (FlowState::Opening as u8, 0);
    let way = &mut flow.way;
    way.backend = backend.address;
    way.own = own_address(backend, &found.tuple.vip);
    (way.backend_port, way.own_port) = (backend_port.to_be_bytes(), [0; 2]);
    (way.protocol, way.family, way.reserved) = (found.tuple.protocol, backend.family, [0; 2]);
    prepare_return(found, work);
}

/// Finds a port and makes the entry of the way back: the client's own port if that is free, else one by chance, else those that
/// follow it.
#[inline(always)]
fn take_port<T: NatTables>(found: &Found<'_>, tables: &T, work: &mut NatWork) -> bool {
    tables.nat_ports(&mut work.ports);
    if work.ports.count() == 0 {
        return false;
    }
    if work.ports.contains(u16::from_be_bytes(found.tuple.client_port))
        && take(found, found.tuple.client_port, tables, work)
    {
        return true;
    }
    let mut place = work.ports.place(tables.random());
    let mut tries = 0;
    while tries < TRIES {
        let this = place;
        place = tables.blurred(work.ports.after(place));
        let Some(port) = work.ports.nth(this) else { return false };
        if take(found, port.to_be_bytes(), tables, work) {
            return true;
        }
        tries += 1;
    }
    false
}

/// Takes a port if nobody has it, or its holder can do without.
#[inline(always)]
fn take<T: NatTables>(found: &Found<'_>, port: [u8; 2], tables: &T, work: &mut NatWork) -> bool {
    work.flow.way.own_port = port;
    if tables.insert_nat_return(&work.flow.way, &work.back) {
        return true;
    }
    if !tables.nat_return(&work.flow.way, &mut work.holder) {
        return false;
    }
    if work.holder.client == work.client {
        // Of this very flow: its other entry has gone, or is about to be made on another CPU.
        tables.replace_nat_return(&work.flow.way, &work.back);
        return true;
    }
    let has_flow =
        tables.nat_flow(&work.holder.client, &mut work.holder_flow) && work.holder_flow.way == work.flow.way;
    let flow = has_flow.then_some(&work.holder_flow);
    if !gives_way(flow, Some(&work.holder), found.tuple.protocol, found.now) {
        return false;
    }
    if has_flow {
        tables.remove_nat_flow(&work.holder.client);
    }
    tables.remove_nat_return(&work.flow.way);
    tables.insert_nat_return(&work.flow.way, &work.back)
}
