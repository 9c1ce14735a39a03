//! The steps of full NAT: what becomes of a packet that may be one of its flows', in either direction. What does not fit or has no
//! hops left is answered, the rest goes on with both ends changed.
//!
//! Each ends with [`Next::Done`], or with [`Next::Again`]: full NAT knows nothing of the packet. What is in the [`NatWork`]
//! before does not matter.

use super::inward::{self as way_back, WayBack};
use super::outward::{self as way_there, follow, lost, recall};
use super::tables::{NatTables, NatWork};
use crate::packet::Bytes;
use crate::packet::ethernet::Mac;
use crate::steering::answer::Error;
use crate::steering::choose::{Chosen, Flags, Found, affinity_key, new, usable};
use crate::steering::fragments::{UNKNOWN, fragment_key};
use crate::steering::link::Hop;
use crate::steering::nat::Translation;
use crate::steering::packet::{Fragment, Packet, Tuple};
use crate::steering::reason::Outcome;
use crate::steering::steer::{Action, Answer, Arrived, Exit, FullNat, Next, PASSED, Steered, Way, hops};
use crate::steering::tables::{
    Backend, Choice, FRAGMENT_TIMEOUT, FlowState, Mode, RETURNED, ServicePort, SteeredFlowKey, backend_flags,
};

/// What full NAT does not know may be a local backend's, or nobody's.
const NOT_MINE: Next = Next::Again(FullNat::Nothing);

/// A client's packet to a service that may have backends on other nodes: it goes the way of its flow, if full NAT knows that.
#[inline(always)]
pub fn outward<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    port: ServicePort,
    tables: &T,
    work: &mut NatWork,
    exit: &X,
) -> X::Out {
    if let Fragment::Later(id) = packet.fragment {
        return later_outward(frame, arrived, packet, id, tables, exit);
    }
    let Some(found) = found(frame, packet, port, tables) else {
        return exit.leave(NOT_MINE);
    };
    let flags = Flags::read(frame, packet);
    let Some(Chosen { slot, backend, .. }) = recall(&found, flags.opens, tables, work) else {
        return exit.leave(Next::Fresh(*packet, port));
    };
    if backend.ifindex != arrived.ifindex {
        return exit.leave(drop(Outcome::OtherLink, Some(port.service)));
    }
    if let Some(error) = unfit(frame, packet, backend.mtu) {
        return answer(arrived, packet, error, port.service, tables, exit);
    }
    if !follow(&flags, &found, tables, work) {
        return exit.leave(Next::Fresh(*packet, port));
    }
    note_outward(frame, packet, slot, backend, tables);
    let counted = (Outcome::Steered, port.service, slot);
    exit.leave(to_backend(packet, None, backend, work.translation(), counted))
}

/// One that [`outward`] knows no way for, which has left in `work` what it found: a backend is chosen.
#[inline(always)]
pub fn fresh<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    port: ServicePort,
    tables: &T,
    work: &NatWork,
    exit: &X,
) -> X::Out {
    let Some(found) = found(frame, packet, port, tables) else {
        return exit.leave(NOT_MINE);
    };
    let flags = Flags::read(frame, packet);
    let chosen = match lost(port.service, tables, work) {
        Some(chosen) => Some(chosen),
        None => elsewhere(arrived, &flags, &found, tables, &work.client),
    };
    let Some(Chosen { slot, backend, outcome }) = chosen else {
        return exit.leave(NOT_MINE);
    };
    let ServicePort { service, shift } = port;
    // Before it takes a port.
    if backend.ifindex != arrived.ifindex {
        return exit.leave(drop(Outcome::OtherLink, Some(service)));
    }
    if let Some(error) = unfit(frame, packet, backend.mtu) {
        return answer(arrived, packet, error, service, tables, exit);
    }
    exit.leave(Next::Begin(Way { packet: *packet, quoted: None, service, shift, slot, outcome }))
}

/// One that [`fresh`] has chosen a backend for: its flow's entries are made. What these three steps do does not fit on one stack.
#[inline(always)]
pub fn begin<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    way: &Way,
    tables: &T,
    work: &mut NatWork,
    exit: &X,
) -> X::Out {
    let Way { packet, service, shift, slot, outcome, .. } = *way;
    let found = found(frame, &packet, ServicePort { service, shift }, tables);
    let (Some(found), Some(backend)) = (found, tables.backend(slot)) else {
        return exit.leave(NOT_MINE);
    };
    let flags = Flags::read(frame, &packet);
    let mut chosen = Chosen { slot, backend, outcome };
    match way_there::begin(arrived, &flags, &found, &mut chosen, tables, work) {
        Ok(()) => {
            let Chosen { slot, outcome, .. } = chosen;
            exit.leave(Next::Begun(Way { packet, quoted: None, service, shift, slot, outcome }))
        }
        Err(outcome) => exit.leave(drop(outcome, Some(service))),
    }
}

/// One whose flow [`begin`] has just begun: it goes on as `work` says.
#[inline(always)]
pub fn begun<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    way: &Way,
    tables: &T,
    work: &NatWork,
    exit: &X,
) -> X::Out {
    let Way { packet, service, slot, outcome, .. } = way;
    let Some(backend) = tables.backend(*slot) else {
        return exit.leave(NOT_MINE);
    };
    // Another CPU may have sent the flow elsewhere meanwhile.
    if backend.ifindex != arrived.ifindex {
        return exit.leave(drop(Outcome::OtherLink, Some(*service)));
    }
    note_outward(frame, packet, *slot, backend, tables);
    exit.leave(to_backend(packet, None, backend, work.translation(), (*outcome, *service, *slot)))
}

#[inline(always)]
fn found<'a, B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    packet: &Packet,
    port: ServicePort,
    tables: &'a T,
) -> Option<Found<'a>> {
    let (tuple, service) = (packet.tuple(frame)?, tables.service(port.service)?);
    Some(Found { tuple, port, service, mode: Mode::Nat, now: tables.now_coarse() })
}

#[inline(always)]
fn note_outward<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    packet: &Packet,
    slot: u32,
    backend: &Backend,
    tables: &T,
) {
    let (seen, generation) = (tables.now_coarse(), backend.generation);
    note_first(frame, packet, Choice { seen, backend: slot, generation, state: 0, reserved: 0 }, tables);
}

/// The backend on another node that a flow which full NAT does not know goes to; `None` if there is nobody, or one on this node.
#[inline(always)]
fn elsewhere<'a, T: NatTables>(
    arrived: &Arrived,
    flags: &Flags,
    found: &Found<'_>,
    tables: &'a T,
    client: &SteeredFlowKey,
) -> Option<Chosen<'a>> {
    // One that a local backend has is not full NAT's, unless it begins anew.
    if !flags.opens
        && let Some(flow) = tables.flow(client)
        && found.now.saturating_sub(flow.seen) < FlowState::of(flow.state).timeout(found.tuple.protocol)
        && let Some(backend) = usable(flow.backend, found.port.service, tables)
        && backend.generation == flow.generation
        && backend.is(backend_flags::LOCAL)
    {
        return None;
    }
    let (slot, backend) = new(arrived.family, found, tables)?;
    if backend.is(backend_flags::LOCAL) {
        return None;
    }
    let admitted = !flags.resets && tables.admits_flow(found.now);
    let outcome = if admitted { Outcome::NewFlow } else { Outcome::Unnoted };
    if admitted && found.service.affinity != 0 {
        let generation = backend.generation;
        let state = FlowState::Opening as u8;
        let choice = Choice { seen: found.now, backend: slot, generation, state, reserved: 0 };
        tables.note_affinity(&affinity_key(found), choice);
    }
    Some(Chosen { slot, backend, outcome })
}

/// A fragment without ports, to the backend that its first one went to: only its addresses change.
#[inline(always)]
fn later_outward<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    id: u32,
    tables: &T,
    exit: &X,
) -> X::Out {
    let (Some(choice), Some((_, vip))) = (first_of(frame, packet, id, tables), packet.addresses(frame))
    else {
        return exit.leave(NOT_MINE);
    };
    let Some(backend) = tables.backend(choice.backend) else {
        return exit.leave(NOT_MINE);
    };
    if backend.generation != choice.generation
        || !backend.is(backend_flags::UP)
        || backend.is(backend_flags::LOCAL)
    {
        return exit.leave(NOT_MINE);
    }
    let service = backend.service;
    if backend.ifindex != arrived.ifindex {
        return exit.leave(drop(Outcome::OtherLink, Some(service)));
    }
    if let Some(error) = unfit(frame, packet, backend.mtu) {
        return answer(arrived, packet, error, service, tables, exit);
    }
    let to = way_there::without_ports(backend, &vip);
    exit.leave(to_backend(packet, None, backend, to, (Outcome::FragmentSteered, service, choice.backend)))
}

/// What is known of the datagram of a later fragment.
#[inline(always)]
fn first_of<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    packet: &Packet,
    id: u32,
    tables: &T,
) -> Option<Choice> {
    let choice = tables.fragment(&fragment_key(frame, packet, id)?)?;
    (tables.now_coarse().saturating_sub(choice.seen) < FRAGMENT_TIMEOUT).then_some(choice)
}

/// A packet to a port of the VIP that has no service: what a backend sends of a flow goes on to its client.
#[inline(always)]
pub fn inward<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tables: &T,
    work: &mut NatWork,
    exit: &X,
) -> X::Out {
    if let Fragment::Later(id) = packet.fragment {
        // Its first one was such a packet.
        return match tuple_of_later(frame, packet, id, tables) {
            Some(tuple) if way_back::find(arrived.family, &tuple, tables, work) => {
                returned(frame, arrived, packet, tables, work, exit)
            }
            _ => exit.leave(UNKNOWN),
        };
    }
    match packet.tuple(frame) {
        Some(tuple) if way_back::find(arrived.family, &tuple, tables, work) => {
            returned(frame, arrived, packet, tables, work, exit)
        }
        _ => exit.leave(Next::Again(FullNat::Clients)),
    }
}

/// With the ports of the first one, which were noted with it.
#[inline(always)]
fn tuple_of_later<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    packet: &Packet,
    id: u32,
    tables: &T,
) -> Option<Tuple> {
    let choice = first_of(frame, packet, id, tables)?;
    if choice.state != RETURNED {
        return None;
    }
    let (client, vip) = packet.addresses(frame)?;
    let [a, b, c, d] = choice.backend.to_ne_bytes();
    Some(Tuple { client, vip, client_port: [a, b], vip_port: [c, d], protocol: packet.protocol })
}

/// Sends what a backend sent on to the client. The flow's entry is in `work`.
#[inline(always)]
fn returned<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tables: &T,
    work: &mut NatWork,
    exit: &X,
) -> X::Out {
    let now = tables.now_coarse();
    let flags = Flags::read(frame, packet);
    let way = way_back::inward(arrived, &flags, now, tables, work);
    let [[a, b], [c, d]] = work.back_ports();
    let backend = u32::from_ne_bytes([a, b, c, d]);
    let choice = Choice { seen: now, backend, generation: 0, state: RETURNED, reserved: 0 };
    note_first(frame, packet, choice, tables);
    let outcome = match packet.fragment {
        Fragment::Later(_) => Outcome::FragmentSteered,
        _ => Outcome::Returned,
    };
    if let Some(error) = unfit(frame, packet, work.mtu_back()) {
        return answer(arrived, packet, error, work.service_back(), tables, exit);
    }
    to_client(arrived, packet, None, way, outcome, work, exit)
}

/// An ICMP error about what a service said to a client: if a backend elsewhere said it, that is told. It begins no flow.
#[inline(always)]
pub fn error_outward<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    (packet, quoted): (&Packet, &Packet),
    port: ServicePort,
    tables: &T,
    work: &mut NatWork,
    exit: &X,
) -> X::Out {
    let (Some(tuple), Some(service)) = (quoted.tuple(frame), tables.service(port.service)) else {
        return exit.leave(NOT_MINE);
    };
    let found = Found { tuple: tuple.reversed(), port, service, mode: Mode::Nat, now: tables.now_coarse() };
    if let Some(Chosen { slot, backend, .. }) = recall(&found, false, tables, work) {
        if backend.ifindex != arrived.ifindex {
            return exit.leave(drop(Outcome::OtherLink, Some(port.service)));
        }
        way_there::error_outward(work);
        let counted = (Outcome::ErrorSteered, port.service, slot);
        return exit.leave(to_backend(packet, Some(*quoted), backend, work.translation(), counted));
    }
    // Of a flow that full NAT does not know nobody can say what it would be to a backend elsewhere.
    let known = tables.flow(&work.client).is_some();
    let is_elsewhere = !known
        && new(arrived.family, &found, tables).is_some_and(|(_, backend)| !backend.is(backend_flags::LOCAL));
    exit.leave(if is_elsewhere { Next::Done(PASSED) } else { NOT_MINE })
}

/// An ICMP error about what came from a port of the VIP that has no service: if that went to a backend, its client is told.
#[inline(always)]
pub fn error_inward<B: Bytes + ?Sized, T: NatTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    (packet, quoted): (&Packet, &Packet),
    tables: &T,
    work: &mut NatWork,
    exit: &X,
) -> X::Out {
    match quoted.tuple(frame) {
        Some(tuple) if way_back::find(arrived.family, &tuple.reversed(), tables, work) => {
            let way = way_back::error_inward(arrived, tables, work);
            to_client(arrived, packet, Some(*quoted), way, Outcome::ErrorSteered, work, exit)
        }
        _ => exit.leave(Next::Again(FullNat::Clients)),
    }
}

#[inline(always)]
fn to_backend(
    packet: &Packet,
    quoted: Option<Packet>,
    to: &Backend,
    translation: Translation,
    (outcome, service, backend): (Outcome, u16, u32),
) -> Next {
    let hop = Hop { own: Mac::new(to.own), next: to.next() };
    let action = Action::Exchange(*packet, quoted, translation, hop);
    Next::Done(Steered { action, outcome, service: Some(service), backend })
}

/// Sends a packet, or an ICMP error with the packet that it quotes, to the client of the flow in `work`.
#[inline(always)]
fn to_client<X: Exit>(
    arrived: &Arrived,
    packet: &Packet,
    quoted: Option<Packet>,
    way: WayBack,
    outcome: Outcome,
    work: &NatWork,
    exit: &X,
) -> X::Out {
    let service = Some(work.service_back());
    match way {
        WayBack::Unknown => exit.leave(drop(Outcome::NoWayBack, service)),
        WayBack::Known if work.ifindex_back() != arrived.ifindex => {
            exit.leave(drop(Outcome::OtherLink, service))
        }
        WayBack::Known => {
            let action = Action::Exchange(*packet, quoted, work.translation(), work.hop_back());
            exit.leave(Next::Done(Steered { action, outcome, service, backend: 0 }))
        }
    }
}

#[inline(always)]
const fn drop(outcome: Outcome, service: Option<u16>) -> Next {
    Next::Done(Steered { action: Action::Drop, outcome, service, backend: 0 })
}

#[inline(always)]
fn note_first<B: Bytes + ?Sized, T: NatTables>(frame: &B, packet: &Packet, choice: Choice, tables: &T) {
    if let Fragment::First(id) = packet.fragment
        && let Some(key) = fragment_key(frame, packet, id)
    {
        tables.note_fragment(&key, choice);
    }
}

/// Why a packet cannot be sent on to where so much fits (0: nothing is known of that), if so.
#[inline(always)]
fn unfit<B: Bytes + ?Sized>(frame: &B, packet: &Packet, mtu: u16) -> Option<Error> {
    if mtu != 0 && packet.end - packet.network > usize::from(mtu) {
        return Some(Error::TooBig(mtu));
    }
    (hops(frame, packet) <= 1).then_some(Error::TimeExceeded)
}

/// Tells the sender that its packet went no further.
#[inline(always)]
fn answer<T: NatTables, X: Exit>(
    arrived: &Arrived,
    packet: &Packet,
    error: Error,
    service: u16,
    tables: &T,
    exit: &X,
) -> X::Out {
    let outcome = match error {
        Error::TooBig(_) => Outcome::TooBig,
        _ => Outcome::Expired,
    };
    if !tables.admits_answer(tables.now_coarse()) {
        return exit.leave(drop(Outcome::Silent, Some(service)));
    }
    let action = Action::Answer(*packet, Answer::Error(error), arrived.own);
    exit.leave(Next::Done(Steered { action, outcome, service: Some(service), backend: 0 }))
}
