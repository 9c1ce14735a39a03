//! What becomes of a packet to an owned VIP that has services: a function of its bytes and the tables, in which it notes flows.
//!
//! To be called by the XDP program behind [`crate::decision::decide`], whose rules for what always passes hold before.

use super::answer::{Error, is_echo_request};
use super::choose::{Chosen, Flags, Found, choose, follow, of_client, of_flow};
use super::full_nat::inward::{self, error_inward};
use super::full_nat::outward::recall;
use super::full_nat::path::{back, error_to_backend, exchange, returned};
use super::full_nat::tables::{NatTables, NatWork};
use super::link::Hop;
use super::nat::{Endpoint, Translation};
use super::packet::{Fragment, Packet, Tuple, protocol};
use super::reason::Outcome;
use super::tables::{
    Backend, Choice, Closed, FRAGMENT_TIMEOUT, FragmentKey, Mode, RETURNED, ServiceKey, ServicePort,
    SteeringTables, backend_flags, service_flags,
};
use super::tunnel::Tunnel;
use crate::decision::Family;
use crate::packet::ethernet::{self, Mac};
use crate::packet::{Bytes, ipv4, ipv6};

/// What is known of a frame before steering: it is for a VIP that this node owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Of the packet.
    pub family: Family,
    /// Offset of the IP header: 14, 18 or 22.
    pub network: usize,
    /// The interface that carries the VIP.
    pub ifindex: u32,
    /// Its MAC.
    pub own: Mac,
    /// Whether this node answers echo requests: nobody else does where the VIP is no local address.
    pub echo: bool,
    /// What happens to ports without a service.
    pub closed: Closed,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steered {
    /// What to do with it ([`super::apply::apply`]).
    pub action: Action,
    /// Why.
    pub outcome: Outcome,
    /// Whose it is, for the counters.
    pub service: Option<u16>,
    /// The backend that it goes to, for the counters; 0 = none.
    pub backend: u32,
}

/// What to do with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Up the stack.
    Pass,
    /// Nobody sees it.
    Drop,
    /// To the next hop as it is.
    Direct(Hop),
    /// To the next hop, in a tunnel.
    Encapsulate {
        /// What is put into it.
        packet: Packet,
        /// Its ends.
        tunnel: Tunnel,
        /// What tells its flow from others.
        hash: u64,
        /// Where it goes.
        hop: Hop,
    },
    /// Up the stack, as one of a local backend. An ICMP error's quoted packet comes second.
    Translate(Packet, Option<Packet>, Translation),
    /// To the next hop, with both ends translated: into those that the [`NatWork`] names. An ICMP error's quoted packet comes
    /// second.
    Exchange(Packet, Option<Packet>, Hop),
    /// Back to the client, as what it is told.
    Answer(Packet, Answer, Mac),
}

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An echo reply.
    Echo,
    /// A TCP reset.
    Reset,
    /// An ICMP error.
    Error(Error),
}

/// Decides about a packet to an owned VIP. What is in `work` before does not matter; [`apply`](super::apply::apply) needs what
/// is in it then.
#[inline(always)]
pub fn steer<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    tables: &T,
    work: &mut NatWork,
) -> Steered {
    match Packet::read(frame, arrived.family, arrived.network) {
        None => PASSED,
        Some(packet) => match packet.fragment {
            Fragment::Later(id) => later(frame, arrived, &packet, id, tables, work),
            _ => whole(frame, arrived, &packet, tables, work),
        },
    }
}

const PASSED: Steered = Steered { action: Action::Pass, outcome: Outcome::Passed, service: None, backend: 0 };

/// A packet that says whose it is: a whole one, or the first of its datagram.
#[inline(always)]
fn whole<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tables: &T,
    work: &mut NatWork,
) -> Steered {
    if let Some(tuple) = packet.tuple(frame) {
        if inward::find(arrived.family, &tuple, tables, work) {
            return returned(frame, arrived, packet, tables, work);
        }
        return client(frame, arrived, packet, tuple, tables, work);
    }
    if arrived.echo && is_echo_request(frame, packet) {
        let action = Action::Answer(*packet, Answer::Echo, arrived.own);
        return Steered { action, outcome: Outcome::Echoed, ..PASSED };
    }
    match packet.quoted(frame) {
        Some(quoted) => icmp_error(frame, arrived, packet, &quoted, tables, work).unwrap_or(PASSED),
        None => PASSED,
    }
}

/// A client's packet.
#[inline(always)]
fn client<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tuple: Tuple,
    tables: &T,
    work: &mut NatWork,
) -> Steered {
    let now = tables.now_coarse();
    let Some(found) = find(arrived.family, tuple, now, tables) else {
        let steered = closed(arrived, packet, arrived.closed, None, now, tables);
        if steered.action == Action::Pass {
            note_first(frame, packet, 0, 0, now, tables);
        }
        return steered;
    };
    let service = Some(found.port.service);
    let restricted = found.service.flags & service_flags::SOURCE_RANGES != 0;
    let family = number(arrived.family);
    if restricted && !tables.is_allowed(found.port.service, family, &found.tuple.client) {
        return Steered { action: Action::Drop, outcome: Outcome::NotAllowed, service, backend: 0 };
    }
    if found.mode == Mode::Local {
        note_first(frame, packet, 0, 0, now, tables);
        return Steered { service, ..PASSED };
    }
    let flags = Flags::read(frame, packet);
    let recalled = if found.mode == Mode::Nat { recall(&found, flags.opens, tables, work) } else { None };
    let chosen = match recalled {
        Some(chosen) => Some(chosen),
        None => choose(&flags, packet, &found, tables),
    };
    let Some(mut chosen) = chosen else {
        return closed(arrived, packet, Closed::of(found.service.no_backend), service, now, tables);
    };
    if found.is_full_nat(&chosen.backend) {
        return exchange(frame, arrived, packet, &flags, &found, &mut chosen, tables, work);
    }
    note_first(frame, packet, chosen.slot, chosen.backend.generation, now, tables);
    send(frame, arrived, packet, None, &found, &chosen, tables)
}

/// The service of a port.
#[inline(always)]
fn find<T: SteeringTables>(family: Family, tuple: Tuple, now: u64, tables: &T) -> Option<Found> {
    let Tuple { vip, vip_port, protocol, .. } = tuple;
    let key = ServiceKey { vip, port: vip_port, protocol, family: number(family) };
    let port = match tables.service_port(&key) {
        Some(port) => port,
        None => tables.service_port(&ServiceKey { port: [0; 2], ..key })?,
    };
    let service = tables.service(port.service)?;
    Some(Found { family, tuple, port, service, mode: Mode::of(service.mode)?, now })
}

/// Sends a packet, or an ICMP error with the packet that it quotes, to the chosen backend.
#[inline(always)]
fn send<B: Bytes + ?Sized, T: SteeringTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    quoted: Option<Packet>,
    found: &Found,
    chosen: &Chosen,
    tables: &T,
) -> Steered {
    let Chosen { slot, backend, outcome } = chosen;
    let service = Some(found.port.service);
    let steered = |action, outcome| Steered { action, outcome, service, backend: *slot };
    let local = backend.is(backend_flags::LOCAL);
    match (found.mode, local) {
        (Mode::Local, _) | (Mode::Direct | Mode::Tunnel, true) => steered(Action::Pass, *outcome),
        (Mode::Nat, true) => {
            let translation = to_backend(backend, &found.tuple, found.port.shift);
            steered(Action::Translate(*packet, quoted, translation), *outcome)
        }
        // Nobody gets here: full NAT has a way of its own.
        (Mode::Nat, false) => Steered { backend: 0, ..steered(Action::Drop, Outcome::Unmapped) },
        (Mode::Direct | Mode::Tunnel, false) => {
            let hash = match packet.fragment {
                Fragment::Whole => of_flow(arrived.family, &found.tuple),
                _ => of_client(arrived.family, &found.tuple),
            };
            away(frame, arrived, packet, steered, found, chosen, hash, tables)
        }
    }
}

/// Sends a packet off this node.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined: what the three callers know already")]
fn away<B: Bytes + ?Sized, T: SteeringTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    steered: impl Fn(Action, Outcome) -> Steered,
    found: &Found,
    chosen: &Chosen,
    hash: u64,
    tables: &T,
) -> Steered {
    let backend = &chosen.backend;
    let refused = |outcome| Steered { backend: 0, ..steered(Action::Drop, outcome) };
    if backend.ifindex != arrived.ifindex {
        return refused(Outcome::OtherLink);
    }
    let hop = Hop { own: Mac::new(backend.own), next: backend.next() };
    if found.mode == Mode::Direct {
        if ethernet::source(frame) == Some(hop.next) {
            return refused(Outcome::Loop);
        }
        return steered(Action::Direct(hop), chosen.outcome);
    }
    let answer = |error, outcome| {
        let told = tell(arrived, packet, Answer::Error(error), found.now, tables);
        match told {
            Some(action) => Steered { backend: 0, ..steered(action, outcome) },
            None => refused(Outcome::Silent),
        }
    };
    let Some(tunnel) = tunnel(backend) else {
        return refused(Outcome::Closed);
    };
    let fits = backend.mtu.saturating_sub(tunnel.overhead() as u16);
    if packet.end - packet.network > usize::from(fits) {
        return answer(Error::TooBig(fits), Outcome::TooBig);
    }
    if hops(frame, packet) <= 1 {
        return answer(Error::TimeExceeded, Outcome::Expired);
    }
    steered(Action::Encapsulate { packet: *packet, tunnel, hash, hop }, chosen.outcome)
}

#[inline(always)]
fn tunnel(backend: &Backend) -> Option<Tunnel> {
    let family = match backend.family {
        4 => Family::V4,
        6 => Family::V6,
        _ => return None,
    };
    let Backend { source, source_bits, address, .. } = *backend;
    Some(Tunnel { family, source, source_bits, destination: address })
}

#[inline(always)]
pub(super) fn hops<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> u8 {
    let at = match packet.family {
        Family::V4 => ipv4::TTL,
        Family::V6 => ipv6::HOP_LIMIT,
    };
    frame.load(packet.network + at).map_or(0, |[hops]| hops)
}

/// A local backend's address and port in place of the VIP's.
#[inline(always)]
fn to_backend(backend: &Backend, tuple: &Tuple, shift: u16) -> Translation {
    let port = u16::from_be_bytes(tuple.vip_port).wrapping_add(shift).to_be_bytes();
    Translation { source: None, destination: Some(Endpoint { address: backend.address, port }) }
}

/// What happens where nobody serves.
#[inline(always)]
fn closed<T: SteeringTables>(
    arrived: &Arrived,
    packet: &Packet,
    closed: Closed,
    service: Option<u16>,
    now: u64,
    tables: &T,
) -> Steered {
    let dropped = |outcome| Steered { action: Action::Drop, outcome, service, backend: 0 };
    match closed {
        Closed::Pass => Steered { service, ..PASSED },
        Closed::Drop => dropped(Outcome::Closed),
        Closed::Reject => {
            let answer = match packet.protocol {
                protocol::TCP => Answer::Reset,
                _ => Answer::Error(Error::PortUnreachable),
            };
            match tell(arrived, packet, answer, now, tables) {
                Some(action) => Steered { action, outcome: Outcome::Rejected, service, backend: 0 },
                None => dropped(Outcome::Silent),
            }
        }
    }
}

/// An answer, if there have not been too many.
#[inline(always)]
pub(super) fn tell<T: SteeringTables>(
    arrived: &Arrived,
    packet: &Packet,
    answer: Answer,
    now: u64,
    tables: &T,
) -> Option<Action> {
    tables.admits_answer(now).then_some(Action::Answer(*packet, answer, arrived.own))
}

/// An ICMP error about what a backend sent; `None` if it is about none of ours. It begins no flow.
#[inline(always)]
fn icmp_error<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    quoted: &Packet,
    tables: &T,
    work: &mut NatWork,
) -> Option<Steered> {
    let tuple = quoted.tuple(frame)?.reversed();
    let (_, destination) = packet.addresses(frame)?;
    if tuple.vip != destination {
        return None;
    }
    if inward::find(arrived.family, &tuple, tables, work) {
        // About what went to a backend.
        let way = error_inward(arrived, tables, work);
        return Some(back(arrived, packet, Some(*quoted), way, Outcome::ErrorSteered, work));
    }
    let found = find(arrived.family, tuple, tables.now_coarse(), tables)?;
    if found.mode == Mode::Local {
        return None;
    }
    if found.mode == Mode::Nat
        && let Some(chosen) = recall(&found, false, tables, work)
    {
        return Some(error_to_backend(arrived, packet, quoted, &found, &chosen, work));
    }
    let chosen = follow(&found, tables)?;
    // Of a flow that full NAT does not know nobody can say what it would be to the backend.
    if found.is_full_nat(&chosen.backend) {
        return None;
    }
    Some(send(frame, arrived, packet, Some(*quoted), &found, &chosen, tables))
}

#[inline(always)]
const fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

#[inline(always)]
pub(super) fn fragment_key<B: Bytes + ?Sized>(frame: &B, packet: &Packet, id: u32) -> Option<FragmentKey> {
    let (source, destination) = packet.addresses(frame)?;
    let Packet { protocol, family, .. } = *packet;
    Some(FragmentKey { source, destination, id, protocol, family: number(family), reserved: [0; 2] })
}

/// Notes where the first fragment of a datagram went, for those to come.
#[inline(always)]
pub(super) fn note_first<B: Bytes + ?Sized, T: SteeringTables>(
    frame: &B,
    packet: &Packet,
    backend: u32,
    generation: u16,
    now: u64,
    tables: &T,
) {
    if let Fragment::First(id) = packet.fragment
        && let Some(key) = fragment_key(frame, packet, id)
    {
        tables.note_fragment(&key, Choice { seen: now, backend, generation, state: 0, reserved: 0 });
    }
}

/// A fragment without ports goes where its first one went, or nowhere: never by a guess.
#[inline(always)]
fn later<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    id: u32,
    tables: &T,
    work: &mut NatWork,
) -> Steered {
    let now = tables.now_coarse();
    let unknown =
        Steered { action: Action::Drop, outcome: Outcome::FragmentUnknown, service: None, backend: 0 };
    let Some(choice) = fragment_key(frame, packet, id)
        .and_then(|key| tables.fragment(&key))
        .filter(|choice| now.saturating_sub(choice.seen) < FRAGMENT_TIMEOUT)
    else {
        return unknown;
    };
    if choice.state == RETURNED {
        let Some((backend, own)) = packet.addresses(frame) else { return unknown };
        let [a, b, c, d] = choice.backend.to_ne_bytes();
        let Packet { protocol, family, .. } = *packet;
        let tuple = Tuple { client: backend, vip: own, client_port: [a, b], vip_port: [c, d], protocol };
        if !inward::find(family, &tuple, tables, work) {
            return unknown;
        }
        return returned(frame, arrived, packet, tables, work);
    }
    if choice.backend == 0 {
        return PASSED;
    }
    let Some((found, backend)) = of_fragment(frame, packet, &choice, now, tables) else {
        return unknown;
    };
    if found.is_full_nat(&backend) {
        let mut chosen = Chosen { slot: choice.backend, backend, outcome: Outcome::FragmentSteered };
        let flags = Flags::NONE;
        return exchange(frame, arrived, packet, &flags, &found, &mut chosen, tables, work);
    }
    let chosen = Chosen { slot: choice.backend, backend, outcome: Outcome::FragmentSteered };
    send(frame, arrived, packet, None, &found, &chosen, tables)
}

/// What the backend of a first fragment says of the service.
#[inline(always)]
fn of_fragment<B: Bytes + ?Sized, T: SteeringTables>(
    frame: &B,
    packet: &Packet,
    choice: &Choice,
    now: u64,
    tables: &T,
) -> Option<(Found, Backend)> {
    let backend = tables
        .backend(choice.backend)
        .filter(|backend| backend.generation == choice.generation && backend.is(backend_flags::UP))?;
    let service = tables.service(backend.service)?;
    let (client, vip) = packet.addresses(frame)?;
    let none = [0; 2];
    let tuple = Tuple { client, vip, client_port: none, vip_port: none, protocol: packet.protocol };
    let port = ServicePort { service: backend.service, shift: 0 };
    let mode = Mode::of(service.mode)?;
    Some((Found { family: packet.family, tuple, port, service, mode, now }, backend))
}
