//! What becomes of a packet of a flow of full NAT, in either direction: what does not fit or has no hops left is answered, the rest
//! goes on with both ends changed.

use super::inward::{self, Way, error_inward, inward};
use super::outward::{error_outward, outward, recall};
use super::tables::{NatTables, NatWork};
use crate::packet::ethernet::Mac;
use crate::packet::{Bytes, BytesMut};
use crate::rewrite::Verdict;
use crate::steering::answer::Error;
use crate::steering::choose::{Chosen, Flags, Found, affinity_key, flow_key, new, usable};
use crate::steering::link::Hop;
use crate::steering::nat::{Hops, Translation, decrement_hops, translate, translate_error};
use crate::steering::packet::{Fragment, Packet, Tuple};
use crate::steering::reason::Outcome;
use crate::steering::steer::{Action, Answer, Arrived, Steered, find, fragment_key, hops, number};
use crate::steering::tables::{
    Backend, Choice, FRAGMENT_TIMEOUT, FlowState, Mode, RETURNED, Service, ServicePort, backend_flags,
    service_flags,
};

/// What becomes of a packet of full NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It goes on as another one.
    Exchange(Exchange),
    /// It does not: it is dropped, or its sender is told something.
    Done(Steered),
}

/// To the next hop, with both ends changed: into those that the [`NatWork`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The packet.
    pub packet: Packet,
    /// Of an ICMP error: what it quotes.
    pub quoted: Option<Packet>,
    /// Where it goes.
    pub hop: Hop,
    /// Why.
    pub outcome: Outcome,
    /// Whose it is, for the counters.
    pub service: u16,
    /// The backend that it goes to, for the counters; 0 = it goes to a client.
    pub backend: u32,
}

impl Exchange {
    /// Rewrites the frame; `None` if the packet ends too early: what is left must be dropped. `work` is what [`step`] had.
    #[inline(always)]
    pub fn apply<B: BytesMut + ?Sized>(&self, frame: &mut B, work: &NatWork) -> Option<Verdict> {
        if decrement_hops(frame, &self.packet)? == Hops::Expired {
            return None;
        }
        let to = Translation { source: Some(work.source), destination: Some(work.destination) };
        match &self.quoted {
            None => translate(frame, &self.packet, &to)?,
            // Whom the error is from is hidden, too: to its receiver the other end is all there is.
            Some(quoted) => translate_error(frame, &self.packet, quoted, &to, &to.swapped())?,
        }
        self.hop.write(frame)?;
        Some(Verdict::Transmit)
    }
}

/// Decides about a packet to an owned VIP, before anything else does; `None` if it is none of full NAT. What is in `work` before
/// does not matter.
#[inline(always)]
pub fn step<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    tables: &T,
    work: &mut NatWork,
) -> Option<Turn> {
    let packet = Packet::read(frame, arrived.family, arrived.network)?;
    if let Fragment::Later(id) = packet.fragment {
        return later(frame, arrived, &packet, id, tables, work);
    }
    match packet.tuple(frame) {
        Some(tuple) if inward::find(arrived.family, &tuple, tables, work) => {
            Some(returned(frame, arrived, &packet, tables, work))
        }
        Some(tuple) => client(frame, arrived, &packet, tuple, tables, work),
        None => {
            let quoted = packet.quoted(frame)?;
            icmp_error(frame, arrived, &packet, &quoted, tables, work)
        }
    }
}

/// A client's packet: of a flow of full NAT, or of one that is to be.
#[inline(always)]
fn client<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tuple: Tuple,
    tables: &T,
    work: &mut NatWork,
) -> Option<Turn> {
    let found = find(arrived.family, tuple, tables.now_coarse(), tables)?;
    let restricted = found.service.flags & service_flags::SOURCE_RANGES != 0;
    let family = number(arrived.family);
    if found.mode != Mode::Nat
        || (restricted && !tables.is_allowed(found.port.service, family, &found.tuple.client))
    {
        return None;
    }
    let flags = Flags::read(frame, packet);
    let recalled = recall(&found, flags.opens, tables, work);
    let mut chosen = match recalled {
        Some(chosen) => chosen,
        None => fresh(arrived, &flags, &found, tables)?,
    };
    Some(exchange(frame, arrived, packet, &flags, &found, &mut chosen, tables, work))
}

/// The backend on another node that a flow which full NAT does not know goes to; `None` if there is nobody, or one on this node.
#[inline(always)]
fn fresh<'a, T: NatTables>(
    arrived: &Arrived,
    flags: &Flags,
    found: &Found<'_>,
    tables: &'a T,
) -> Option<Chosen<'a>> {
    // One that a local backend has is not full NAT's, unless it begins anew.
    if !flags.opens
        && let Some(flow) = tables.flow(&flow_key(found))
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

/// Sends a client's packet to a backend on another node.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined: what the two callers know already")]
fn exchange<'a, B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    flags: &Flags,
    found: &Found<'_>,
    chosen: &mut Chosen<'a>,
    tables: &'a T,
    work: &mut NatWork,
) -> Turn {
    let service = found.port.service;
    let refused = |outcome| drop(outcome, Some(service));
    let is_elsewhere = |backend: &Backend| backend.ifindex != arrived.ifindex;
    // Before it takes a port.
    if is_elsewhere(chosen.backend) {
        return refused(Outcome::OtherLink);
    }
    if let Some(error) = unfit(frame, packet, chosen.backend.mtu) {
        return answer(arrived, packet, error, service, found.now, tables);
    }
    if let Err(outcome) = outward(arrived, packet, flags, found, chosen, tables, work) {
        return refused(outcome);
    }
    let Chosen { slot, backend, outcome } = *chosen;
    if is_elsewhere(backend) {
        return refused(Outcome::OtherLink);
    }
    let (generation, seen) = (backend.generation, found.now);
    note_first(frame, packet, Choice { seen, backend: slot, generation, state: 0, reserved: 0 }, tables);
    to_backend(packet, None, backend, (outcome, service, slot))
}

#[inline(always)]
fn to_backend(
    packet: &Packet,
    quoted: Option<Packet>,
    to: &Backend,
    (outcome, service, backend): (Outcome, u16, u32),
) -> Turn {
    let hop = Hop { own: Mac::new(to.own), next: to.next() };
    Turn::Exchange(Exchange { packet: *packet, quoted, hop, outcome, service, backend })
}

#[inline(always)]
const fn drop(outcome: Outcome, service: Option<u16>) -> Turn {
    Turn::Done(Steered { action: Action::Drop, outcome, service, backend: 0 })
}

#[inline(always)]
fn note_first<B: Bytes + ?Sized, T: NatTables>(frame: &B, packet: &Packet, choice: Choice, tables: &T) {
    if let Fragment::First(id) = packet.fragment
        && let Some(key) = fragment_key(frame, packet, id)
    {
        tables.note_fragment(&key, choice);
    }
}

/// Sends what a backend sent on to the client. The flow's entry is in `work`.
#[inline(always)]
fn returned<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tables: &T,
    work: &mut NatWork,
) -> Turn {
    let now = tables.now_coarse();
    let flags = Flags::read(frame, packet);
    let way = inward(arrived, &flags, now, tables, work);
    let [[a, b], [c, d]] = work.back_ports();
    let backend = u32::from_ne_bytes([a, b, c, d]);
    let choice = Choice { seen: now, backend, generation: 0, state: RETURNED, reserved: 0 };
    note_first(frame, packet, choice, tables);
    let outcome = match packet.fragment {
        Fragment::Later(_) => Outcome::FragmentSteered,
        _ => Outcome::Returned,
    };
    if let Some(error) = unfit(frame, packet, work.mtu_back()) {
        return answer(arrived, packet, error, work.service_back(), now, tables);
    }
    to_client(arrived, packet, None, way, outcome, work)
}

/// Sends a packet, or an ICMP error with the packet that it quotes, to the client of the flow in `work`.
#[inline(always)]
fn to_client(
    arrived: &Arrived,
    packet: &Packet,
    quoted: Option<Packet>,
    way: Way,
    outcome: Outcome,
    work: &NatWork,
) -> Turn {
    let service = work.service_back();
    match way {
        Way::Unknown => drop(Outcome::NoWayBack, Some(service)),
        Way::Known if work.ifindex_back() != arrived.ifindex => drop(Outcome::OtherLink, Some(service)),
        Way::Known => {
            let hop = work.hop_back();
            Turn::Exchange(Exchange { packet: *packet, quoted, hop, outcome, service, backend: 0 })
        }
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
fn answer<T: NatTables>(
    arrived: &Arrived,
    packet: &Packet,
    error: Error,
    service: u16,
    now: u64,
    tables: &T,
) -> Turn {
    let outcome = match error {
        Error::TooBig(_) => Outcome::TooBig,
        _ => Outcome::Expired,
    };
    if !tables.admits_answer(now) {
        return drop(Outcome::Silent, Some(service));
    }
    let action = Action::Answer(*packet, Answer::Error(error), arrived.own);
    Turn::Done(Steered { action, outcome, service: Some(service), backend: 0 })
}

/// An ICMP error about what went to a backend, or about what came of one. It begins no flow.
#[inline(always)]
fn icmp_error<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    quoted: &Packet,
    tables: &T,
    work: &mut NatWork,
) -> Option<Turn> {
    let tuple = quoted.tuple(frame)?.reversed();
    let (_, destination) = packet.addresses(frame)?;
    if tuple.vip != destination {
        return None;
    }
    if inward::find(arrived.family, &tuple, tables, work) {
        let way = error_inward(arrived, tables, work);
        return Some(to_client(arrived, packet, Some(*quoted), way, Outcome::ErrorSteered, work));
    }
    let found = find(arrived.family, tuple, tables.now_coarse(), tables)?;
    if found.mode != Mode::Nat {
        return None;
    }
    let service = found.port.service;
    let Some(Chosen { slot, backend, .. }) = recall(&found, false, tables, work) else {
        // Of a flow that full NAT does not know nobody can say what it would be to a backend elsewhere.
        let known = tables.flow(&flow_key(&found)).is_some();
        let (_, backend) = new(arrived.family, &found, tables)?;
        let passed = Steered { action: Action::Pass, outcome: Outcome::Passed, service: None, backend: 0 };
        return (!known && !backend.is(backend_flags::LOCAL)).then_some(Turn::Done(passed));
    };
    if backend.ifindex != arrived.ifindex {
        return Some(drop(Outcome::OtherLink, Some(service)));
    }
    error_outward(work);
    Some(to_backend(packet, Some(*quoted), backend, (Outcome::ErrorSteered, service, slot)))
}

/// A fragment without ports goes where its first one went.
#[inline(always)]
fn later<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    id: u32,
    tables: &T,
    work: &mut NatWork,
) -> Option<Turn> {
    let now = tables.now_coarse();
    let choice = tables.fragment(&fragment_key(frame, packet, id)?)?;
    if now.saturating_sub(choice.seen) >= FRAGMENT_TIMEOUT {
        return None;
    }
    let (client, vip) = packet.addresses(frame)?;
    let none = [0; 2];
    let tuple = Tuple { client, vip, client_port: none, vip_port: none, protocol: packet.protocol };
    if choice.state == RETURNED {
        let [a, b, c, d] = choice.backend.to_ne_bytes();
        let tuple = Tuple { client_port: [a, b], vip_port: [c, d], ..tuple };
        if !inward::find(packet.family, &tuple, tables, work) {
            return Some(drop(Outcome::FragmentUnknown, None));
        }
        return Some(returned(frame, arrived, packet, tables, work));
    }
    let backend = tables.backend(choice.backend).filter(|backend| {
        backend.generation == choice.generation
            && backend.is(backend_flags::UP)
            && !backend.is(backend_flags::LOCAL)
    })?;
    let service: &Service = tables.service(backend.service)?;
    if Mode::of(service.mode) != Some(Mode::Nat) {
        return None;
    }
    let port = ServicePort { service: backend.service, shift: 0 };
    let found = Found { tuple, port, service, mode: Mode::Nat, now };
    let mut chosen = Chosen { slot: choice.backend, backend, outcome: Outcome::FragmentSteered };
    let flags = Flags::read(frame, packet);
    Some(exchange(frame, arrived, packet, &flags, &found, &mut chosen, tables, work))
}
