//! What becomes of a packet to an owned VIP that has services: a function of its bytes and the tables, in which it notes flows.
//!
//! Called by the XDP program behind [`crate::decision::decide`], whose rules for what always passes hold before.

use super::answer::{Error, is_echo_request};
use super::choose::{Chosen, Found, choose, follow, of_client, of_flow};
use super::egress::admit;
use super::link::Hop;
use super::nat::Translation;
use super::packet::{Fragment, Packet, Tuple, protocol};
use super::reason::Outcome;
use super::tables::{
    Backend, Choice, Closed, FRAGMENT_TIMEOUT, FragmentKey, Mode, ServiceKey, ServicePort, SteeringTables,
    backend_flags, service_flags,
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
    /// A former owner still serves some connections: what is to go up the stack may be one of those.
    pub handed_over: bool,
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

/// A packet on its way to a backend, of which its mode is to say how it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// What goes there.
    pub packet: Packet,
    /// Of an ICMP error: what it quotes.
    pub quoted: Option<Packet>,
    /// [`ServicePort`]: whose it is.
    pub service: u16,
    /// Likewise.
    pub shift: u16,
    /// The backend's slot.
    pub slot: u32,
    /// Why it goes there.
    pub outcome: Outcome,
}

/// What is to be done next: each of these is a program of its own in the kernel, and a function here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing but the action.
    Done(Steered),
    /// [`fragment`]
    Fragment(Packet),
    /// [`icmp`]
    Icmp(Packet),
    /// [`icmp_error`]: with the packet that it quotes.
    Error(Packet, Packet),
    /// [`direct`], [`tunnel`] or [`translate`].
    Send(Way, Mode),
}

/// Where a step ends. Each of its ends is told by itself, instead of being returned: where all of them meet, most registers would
/// hold nothing, and the kernel's verifier lets nobody touch those.
pub trait Exit {
    /// What the step comes to.
    type Out;

    /// Ends the step.
    fn leave(&self, next: Next) -> Self::Out;
}

/// The exit of those who want to know.
struct Keep;

impl Exit for Keep {
    type Out = Next;

    fn leave(&self, next: Next) -> Next {
        next
    }
}

/// Decides about a packet to an owned VIP: all steps of it.
pub fn steer<B: Bytes + ?Sized, T: SteeringTables>(frame: &B, arrived: &Arrived, tables: &T) -> Steered {
    let next = match sort(frame, arrived, tables, &Keep) {
        Next::Fragment(packet) => fragment(frame, arrived, &packet, tables, &Keep),
        Next::Icmp(packet) => match icmp(frame, arrived, &packet, &Keep) {
            Next::Error(packet, quoted) => icmp_error(frame, arrived, &packet, &quoted, tables, &Keep),
            next => next,
        },
        next => next,
    };
    let done = match next {
        Next::Send(way, Mode::Direct) => direct(frame, arrived, &way, tables, &Keep),
        Next::Send(way, Mode::Tunnel) => tunnel(frame, arrived, &way, tables, &Keep),
        Next::Send(way, Mode::Nat) => translate(frame, &way, tables, &Keep),
        next => next,
    };
    match done {
        Next::Done(steered) => steered,
        _ => PASSED,
    }
}

/// Of a packet that nothing can be read of.
pub const PASSED: Steered =
    Steered { action: Action::Pass, outcome: Outcome::Passed, service: None, backend: 0 };

/// The first step: whole packets with ports, which nearly all are.
#[inline(always)]
pub fn sort<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    tables: &T,
    exit: &X,
) -> X::Out {
    let Some(packet) = Packet::read(frame, arrived.family, arrived.network) else {
        return exit.leave(Next::Done(PASSED));
    };
    if packet.fragment != Fragment::Whole {
        return exit.leave(Next::Fragment(packet));
    }
    match packet.tuple(frame) {
        Some(tuple) => client(frame, arrived, &packet, tuple, tables, exit),
        None => exit.leave(Next::Icmp(packet)),
    }
}

/// A part of a datagram.
#[inline(always)]
pub fn fragment<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tables: &T,
    exit: &X,
) -> X::Out {
    if let Fragment::Later(id) = packet.fragment {
        return later(frame, packet, id, tables, exit);
    }
    let Some(tuple) = packet.tuple(frame) else {
        return exit.leave(Next::Done(PASSED));
    };
    client(frame, arrived, packet, tuple, tables, &Noting { frame, packet, tables, exit })
}

/// ICMP, and whatever else has no ports.
#[inline(always)]
pub fn icmp<B: Bytes + ?Sized, X: Exit>(frame: &B, arrived: &Arrived, packet: &Packet, exit: &X) -> X::Out {
    if arrived.echo && is_echo_request(frame, packet) {
        let action = Action::Answer(*packet, Answer::Echo, arrived.own);
        return exit.leave(Next::Done(Steered { action, outcome: Outcome::Echoed, ..PASSED }));
    }
    match packet.quoted(frame) {
        Some(quoted) => exit.leave(Next::Error(*packet, quoted)),
        None => exit.leave(Next::Done(PASSED)),
    }
}

/// A client's packet.
#[inline(always)]
fn client<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tuple: Tuple,
    tables: &T,
    exit: &X,
) -> X::Out {
    let now = tables.now_coarse();
    let Some(found) = find(arrived.family, tuple, now, tables) else {
        return closed(arrived, packet, arrived.closed, None, tables, exit);
    };
    let service = Some(found.port.service);
    let restricted = found.service.flags & service_flags::SOURCE_RANGES != 0;
    let family = number(arrived.family);
    if restricted && !tables.is_allowed(found.port.service, family, &found.tuple.client) {
        let action = Action::Drop;
        return exit.leave(Next::Done(Steered { action, outcome: Outcome::NotAllowed, service, backend: 0 }));
    }
    if found.mode == Mode::Local {
        return exit.leave(Next::Done(Steered { service, ..PASSED }));
    }
    match choose(frame, arrived.family, packet, &found, tables) {
        Some(chosen) => send(packet, None, &found, &chosen, exit),
        None => closed(arrived, packet, Closed::of(found.service.no_backend), service, tables, exit),
    }
}

/// The service of a port.
#[inline(always)]
pub(super) fn find<T: SteeringTables>(
    family: Family,
    tuple: Tuple,
    now: u64,
    tables: &T,
) -> Option<Found<'_>> {
    let Tuple { vip, vip_port, protocol, .. } = tuple;
    let key = ServiceKey { vip, port: vip_port, protocol, family: number(family) };
    let port = match tables.service_port(&key) {
        Some(port) => port,
        None => tables.service_port(&ServiceKey { port: [0; 2], ..key })?,
    };
    let service = tables.service(port.service)?;
    Some(Found { tuple, port, service, mode: Mode::of(service.mode)?, now })
}

/// Sends a packet, or an ICMP error with the packet that it quotes, to the chosen backend. Those here see packets as they are,
/// unless they are to have another address.
#[inline(always)]
fn send<X: Exit>(
    packet: &Packet,
    quoted: Option<Packet>,
    found: &Found<'_>,
    chosen: &Chosen<'_>,
    exit: &X,
) -> X::Out {
    let ServicePort { service, shift } = found.port;
    let Chosen { slot, backend, outcome } = *chosen;
    if backend.is(backend_flags::LOCAL) && found.mode != Mode::Nat {
        let passed = Steered { action: Action::Pass, outcome, service: Some(service), backend: slot };
        return exit.leave(Next::Done(passed));
    }
    exit.leave(Next::Send(Way { packet: *packet, quoted, service, shift, slot, outcome }, found.mode))
}

impl Way {
    #[inline(always)]
    const fn steered(&self, action: Action) -> Next {
        let Self { outcome, service, slot, .. } = *self;
        Next::Done(Steered { action, outcome, service: Some(service), backend: slot })
    }

    #[inline(always)]
    const fn refused(&self, outcome: Outcome) -> Next {
        Next::Done(Steered { action: Action::Drop, outcome, service: Some(self.service), backend: 0 })
    }
}

/// Mode `dr`: to the next hop as it is.
#[inline(always)]
pub fn direct<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    way: &Way,
    tables: &T,
    exit: &X,
) -> X::Out {
    let Some(backend) = tables.backend(way.slot) else {
        return exit.leave(way.refused(Outcome::Closed));
    };
    if backend.ifindex != arrived.ifindex {
        return exit.leave(way.refused(Outcome::OtherLink));
    }
    if ethernet::source(frame) == Some(backend.next()) {
        return exit.leave(way.refused(Outcome::Loop));
    }
    exit.leave(way.steered(Action::Direct(Hop { own: Mac::new(backend.own), next: backend.next() })))
}

/// Mode `tunnel`: to the next hop, in a packet to the backend.
#[inline(always)]
pub fn tunnel<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    way: &Way,
    tables: &T,
    exit: &X,
) -> X::Out {
    let Some(backend) = tables.backend(way.slot) else {
        return exit.leave(way.refused(Outcome::Closed));
    };
    let family = match backend.family {
        4 => Family::V4,
        6 => Family::V6,
        _ => return exit.leave(way.refused(Outcome::Closed)),
    };
    if backend.ifindex != arrived.ifindex {
        return exit.leave(way.refused(Outcome::OtherLink));
    }
    let Backend { source, source_bits, address, .. } = *backend;
    let tunnel = Tunnel { family, source, source_bits, destination: address };
    let packet = &way.packet;
    let fits = backend.mtu.saturating_sub(tunnel.overhead() as u16);
    if packet.end - packet.network > usize::from(fits) {
        return tell_about(arrived, way, Error::TooBig(fits), Outcome::TooBig, tables, exit);
    }
    if hops(frame, packet) <= 1 {
        return tell_about(arrived, way, Error::TimeExceeded, Outcome::Expired, tables, exit);
    }
    let Some(hash) = way.hash(frame) else {
        return exit.leave(way.refused(Outcome::Closed));
    };
    let hop = Hop { own: Mac::new(backend.own), next: backend.next() };
    exit.leave(way.steered(Action::Encapsulate { packet: *packet, tunnel, hash, hop }))
}

#[inline(always)]
fn tell_about<T: SteeringTables, X: Exit>(
    arrived: &Arrived,
    way: &Way,
    error: Error,
    outcome: Outcome,
    tables: &T,
    exit: &X,
) -> X::Out {
    if !tables.admits_answer(tables.now_coarse()) {
        return exit.leave(way.refused(Outcome::Silent));
    }
    let action = Action::Answer(way.packet, Answer::Error(error), arrived.own);
    exit.leave(Next::Done(Steered { action, outcome, service: Some(way.service), backend: 0 }))
}

impl Way {
    /// Of the flow; of the client where not all packets of it have ports.
    #[inline(always)]
    fn hash<B: Bytes + ?Sized>(&self, frame: &B) -> Option<u64> {
        let family = self.packet.family;
        if let Some(quoted) = &self.quoted {
            return Some(of_flow(family, &quoted.tuple(frame)?.reversed()));
        }
        Some(match self.packet.fragment {
            Fragment::Whole => of_flow(family, &self.packet.tuple(frame)?),
            _ => of_client(family, &self.packet.addresses(frame)?.0),
        })
    }
}

/// Mode `nat`: a local backend's address and port in place of the VIP's.
#[inline(always)]
pub fn translate<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    way: &Way,
    tables: &T,
    exit: &X,
) -> X::Out {
    let Some(backend) = tables.backend(way.slot) else {
        return exit.leave(way.refused(Outcome::Closed));
    };
    // Until full NAT is here: no service with remote backends is to be in the tables.
    if !backend.is(backend_flags::LOCAL) {
        return exit.leave(way.refused(Outcome::Closed));
    }
    match admit(frame, way, &backend.address, tables) {
        Ok(destination) => {
            let translation = Translation { source: None, destination: Some(destination) };
            exit.leave(way.steered(Action::Translate(way.packet, way.quoted, translation)))
        }
        Err(outcome) => exit.leave(way.refused(outcome)),
    }
}

#[inline(always)]
pub(super) fn hops<B: Bytes + ?Sized>(frame: &B, packet: &Packet) -> u8 {
    let at = match packet.family {
        Family::V4 => ipv4::TTL,
        Family::V6 => ipv6::HOP_LIMIT,
    };
    frame.load(packet.network + at).map_or(0, |[hops]| hops)
}

/// What happens where nobody serves.
#[inline(always)]
fn closed<T: SteeringTables, X: Exit>(
    arrived: &Arrived,
    packet: &Packet,
    closed: Closed,
    service: Option<u16>,
    tables: &T,
    exit: &X,
) -> X::Out {
    let (action, outcome) = match closed {
        Closed::Pass => return exit.leave(Next::Done(Steered { service, ..PASSED })),
        Closed::Drop => (Action::Drop, Outcome::Closed),
        Closed::Reject if !tables.admits_answer(tables.now_coarse()) => (Action::Drop, Outcome::Silent),
        Closed::Reject => {
            let answer = match packet.protocol {
                protocol::TCP => Answer::Reset,
                _ => Answer::Error(Error::PortUnreachable),
            };
            let action = Action::Answer(*packet, answer, arrived.own);
            let outcome = Outcome::Rejected;
            return exit.leave(Next::Done(Steered { action, outcome, service, backend: 0 }));
        }
    };
    exit.leave(Next::Done(Steered { action, outcome, service, backend: 0 }))
}

/// An ICMP error, which goes where what it quotes came from if that is a backend. It begins no flow.
#[inline(always)]
pub fn icmp_error<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    quoted: &Packet,
    tables: &T,
    exit: &X,
) -> X::Out {
    let (Some(tuple), Some((_, destination))) = (quoted.tuple(frame), packet.addresses(frame)) else {
        return exit.leave(Next::Done(PASSED));
    };
    let tuple = tuple.reversed();
    if tuple.vip != destination {
        return exit.leave(Next::Done(PASSED));
    }
    let Some(found) = find(arrived.family, tuple, tables.now_coarse(), tables) else {
        return exit.leave(Next::Done(PASSED));
    };
    if found.mode == Mode::Local {
        return exit.leave(Next::Done(PASSED));
    }
    match follow(arrived.family, &found, tables) {
        Some(chosen) => send(packet, Some(*quoted), &found, &chosen, exit),
        None => exit.leave(Next::Done(PASSED)),
    }
}

#[inline(always)]
pub(super) const fn number(family: Family) -> u8 {
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

/// The exit of first fragments: notes where they go.
struct Noting<'a, B: ?Sized, T, X> {
    frame: &'a B,
    packet: &'a Packet,
    tables: &'a T,
    exit: &'a X,
}

impl<B: Bytes + ?Sized, T: SteeringTables, X: Exit> Exit for Noting<'_, B, T, X> {
    type Out = X::Out;

    #[inline(always)]
    fn leave(&self, next: Next) -> X::Out {
        note_first(self.frame, self.packet, &next, self.tables);
        self.exit.leave(next)
    }
}

/// Notes where the first fragment of a datagram goes, for those to come: to a backend, or up the stack.
#[inline(always)]
fn note_first<B: Bytes + ?Sized, T: SteeringTables>(frame: &B, packet: &Packet, next: &Next, tables: &T) {
    let backend = match next {
        Next::Send(way, _) => way.slot,
        Next::Done(Steered { action: Action::Pass, backend, service, .. }) => {
            // What passes for want of a backend may have one when the next part comes.
            if *backend == 0 && !is_local(*service, tables) {
                return;
            }
            *backend
        }
        _ => return,
    };
    let generation = match backend {
        0 => 0,
        slot => tables.backend(slot).map_or(0, |backend| backend.generation),
    };
    if let Fragment::First(id) = packet.fragment
        && let Some(key) = fragment_key(frame, packet, id)
    {
        let seen = tables.now_coarse();
        tables.note_fragment(&key, Choice { seen, backend, generation, state: 0, reserved: 0 });
    }
}

/// Whether what passed is this node's: it has no service, or one of mode `local`.
#[inline(always)]
fn is_local<T: SteeringTables>(service: Option<u16>, tables: &T) -> bool {
    match service {
        None => true,
        Some(service) => {
            tables.service(service).is_some_and(|service| Mode::of(service.mode) == Some(Mode::Local))
        }
    }
}

/// A fragment without ports goes where its first one went, or nowhere: never by a guess.
#[inline(always)]
fn later<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    packet: &Packet,
    id: u32,
    tables: &T,
    exit: &X,
) -> X::Out {
    const UNKNOWN: Next = Next::Done(Steered {
        action: Action::Drop,
        outcome: Outcome::FragmentUnknown,
        service: None,
        backend: 0,
    });
    let now = tables.now_coarse();
    let choice = fragment_key(frame, packet, id).and_then(|key| tables.fragment(&key));
    let Some(choice) = choice.filter(|choice| now.saturating_sub(choice.seen) < FRAGMENT_TIMEOUT) else {
        return exit.leave(UNKNOWN);
    };
    if choice.backend == 0 {
        return exit.leave(Next::Done(PASSED));
    }
    let Some(backend) = tables.backend(choice.backend) else {
        return exit.leave(UNKNOWN);
    };
    if backend.generation != choice.generation || !backend.is(backend_flags::UP) {
        return exit.leave(UNKNOWN);
    }
    let Some(mode) = tables.service(backend.service).and_then(|service| Mode::of(service.mode)) else {
        return exit.leave(UNKNOWN);
    };
    let (service, slot, outcome) = (backend.service, choice.backend, Outcome::FragmentSteered);
    if backend.is(backend_flags::LOCAL) && mode != Mode::Nat {
        let passed = Steered { action: Action::Pass, outcome, service: Some(service), backend: slot };
        return exit.leave(Next::Done(passed));
    }
    exit.leave(Next::Send(Way { packet: *packet, quoted: None, service, shift: 0, slot, outcome }, mode))
}
