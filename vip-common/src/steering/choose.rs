//! Chooses the backend of a packet: that of its flow, of its client, or of the ring; and notes what was chosen.
//!
//! Called by [`steer`](super::steer::steer).

use super::hash;
use super::packet::{Packet, Tuple, protocol};
use super::reason::Outcome;
use super::tables::{
    AffinityKey, Backend, Choice, FlowState, Mode, REFRESH, Service, ServicePort, SteeredFlowKey,
    SteeringTables, backend_flags,
};
use crate::decision::Family;
use crate::packet::Bytes;

/// A packet in its tuple, and the service that it is for.
pub(super) struct Found<'a> {
    pub(super) tuple: Tuple,
    pub(super) port: ServicePort,
    pub(super) service: &'a Service,
    pub(super) mode: Mode,
    pub(super) now: u64,
}

/// Where a packet goes, and why there.
pub(super) struct Chosen<'a> {
    pub(super) slot: u32,
    pub(super) backend: &'a Backend,
    pub(super) outcome: Outcome,
}

/// The flow's backend, or the ring's; notes what is new. `None` if there is nobody.
#[inline(always)]
pub(super) fn choose<'a, B: Bytes + ?Sized, T: SteeringTables>(
    frame: &B,
    family: Family,
    packet: &Packet,
    found: &Found<'_>,
    tables: &'a T,
) -> Option<Chosen<'a>> {
    let flags = Flags::read(frame, packet);
    let key = flow_key(found);
    // A SYN begins anew, whatever was known of its ports.
    if !flags.opens
        && let Some(flow) = tables.flow(&key)
        && let Some(backend) = alive(&flow, found, tables)
    {
        let state = flags.after(FlowState::of(flow.state));
        if state as u8 != flow.state || found.now.saturating_sub(flow.seen) >= REFRESH {
            tables.note_flow(&key, Choice { seen: found.now, state: state as u8, ..flow });
        }
        return Some(Chosen { slot: flow.backend, backend, outcome: Outcome::Steered });
    }
    let (slot, backend) = new(family, found, tables)?;
    // What ends a flow begins none.
    if flags.resets {
        return Some(Chosen { slot, backend, outcome: Outcome::Steered });
    }
    if !tables.admits_flow(found.now) {
        return Some(Chosen { slot, backend, outcome: Outcome::Unnoted });
    }
    let state = if flags.opens || packet.protocol != protocol::TCP {
        FlowState::Opening
    } else {
        flags.after(FlowState::Opening)
    };
    let choice = Choice {
        seen: found.now,
        backend: slot,
        generation: backend.generation,
        state: state as u8,
        reserved: 0,
    };
    tables.note_flow(&key, choice);
    if found.service.affinity != 0 {
        tables.note_affinity(&affinity_key(found), choice);
    }
    Some(Chosen { slot, backend, outcome: Outcome::NewFlow })
}

/// The backend that an ICMP error about the flow goes to. It begins no flow, and keeps none alive.
#[inline(always)]
pub(super) fn follow<'a, T: SteeringTables>(
    family: Family,
    found: &Found<'_>,
    tables: &'a T,
) -> Option<Chosen<'a>> {
    let known = tables.flow(&flow_key(found));
    let known = known.and_then(|flow| Some((flow.backend, alive(&flow, found, tables)?)));
    let (slot, backend) = match known {
        Some(known) => known,
        None => new(family, found, tables)?,
    };
    Some(Chosen { slot, backend, outcome: Outcome::ErrorSteered })
}

#[inline(always)]
pub(super) fn flow_key(found: &Found<'_>) -> SteeredFlowKey {
    let Tuple { client, client_port, vip_port, protocol, .. } = found.tuple;
    SteeredFlowKey { client, client_port, vip_port, service: found.port.service, protocol, reserved: 0 }
}

#[inline(always)]
pub(super) fn affinity_key(found: &Found<'_>) -> AffinityKey {
    AffinityKey { client: found.tuple.client, service: found.port.service.into() }
}

/// The backend of a flow that is not over, if it is still the one that was chosen.
#[inline(always)]
fn alive<'a, T: SteeringTables>(flow: &Choice, found: &Found<'_>, tables: &'a T) -> Option<&'a Backend> {
    let timeout = FlowState::of(flow.state).timeout(found.tuple.protocol);
    // Another CPU may have noted it a tick later than this packet came.
    if found.now.saturating_sub(flow.seen) >= timeout {
        return None;
    }
    usable(flow.backend, found.port.service, tables).filter(|backend| backend.generation == flow.generation)
}

/// The backend in a slot, if something may go to it.
#[inline(always)]
pub(super) fn usable<T: SteeringTables>(slot: u32, service: u16, tables: &T) -> Option<&Backend> {
    if slot == 0 {
        return None;
    }
    tables.backend(slot).filter(|backend| backend.is(backend_flags::UP) && backend.service == service)
}

/// The backend of a flow of which nothing is known: that of its client, or the ring's.
#[inline(always)]
pub(super) fn new<'a, T: SteeringTables>(
    family: Family,
    found: &Found<'_>,
    tables: &'a T,
) -> Option<(u32, &'a Backend)> {
    let service = found.port.service;
    if found.service.affinity != 0
        && let Some(choice) = tables.affinity(&affinity_key(found))
        && found.now.saturating_sub(choice.seen) < u64::from(found.service.affinity) * 1_000_000_000
        && let Some(backend) = usable(choice.backend, service, tables)
        && backend.generation == choice.generation
        && !backend.is(backend_flags::DRAINING)
    {
        return Some((choice.backend, backend));
    }
    let hash = if found.service.affinity != 0 {
        of_client(family, &found.tuple.client)
    } else {
        of_flow(family, &found.tuple)
    };
    let slot = tables.ring(service, hash::position(hash, found.service.ring_size));
    Some((slot, usable(slot, service, tables)?))
}

#[inline(always)]
pub(super) fn of_client(family: Family, client: &[u8; 16]) -> u64 {
    match (family, *client) {
        (Family::V4, [a, b, c, d, ..]) => hash::of_client4([a, b, c, d]),
        (Family::V6, client) => hash::of_client6(client),
    }
}

#[inline(always)]
pub(super) fn of_flow(family: Family, tuple: &Tuple) -> u64 {
    match (family, tuple.client) {
        (Family::V4, [a, b, c, d, ..]) => hash::of_flow4([a, b, c, d], tuple.ports()),
        (Family::V6, client) => hash::of_flow6(client, tuple.ports()),
    }
}

/// What a packet says of its flow's life. Packets other than TCP's say nothing.
pub(super) struct Flags {
    pub(super) opens: bool,
    pub(super) closes: bool,
    pub(super) resets: bool,
}

impl Flags {
    #[inline(always)]
    pub(super) fn read<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> Self {
        let flags = match packet.protocol {
            protocol::TCP => packet.load(frame, 13).map_or(0, |[flags]| flags),
            _ => 0,
        };
        Self { opens: flags & 0x12 == 0x02, closes: flags & 0x05 != 0, resets: flags & 0x04 != 0 }
    }

    /// The state after this packet.
    #[inline(always)]
    pub(super) const fn after(&self, state: FlowState) -> FlowState {
        match state {
            FlowState::Closing => FlowState::Closing,
            _ if self.closes => FlowState::Closing,
            _ => FlowState::Established,
        }
    }
}
