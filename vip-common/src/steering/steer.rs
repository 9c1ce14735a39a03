//! What becomes of a packet to an owned VIP that has services: a function of its bytes and the tables, in which it notes flows.
//!
//! Called by the XDP program behind [`crate::decision::decide`], whose rules for what always passes hold before.

use super::answer::{Error, is_echo_request};
use super::choose::{Chosen, Found, choose, follow, of_client, of_flow};
use super::egress::admit;
use super::fragments::fragment;
use super::full_nat::step::{begin, begun, error_inward, error_outward, fresh, inward, outward};
use super::full_nat::tables::{NatTables, NatWork};
use super::link::Hop;
use super::nat::Translation;
use super::packet::{Fragment, Packet, Tuple, protocol};
use super::reason::Outcome;
use super::tables::{
    Backend, Closed, Mode, ServiceKey, ServicePort, SteeringTables, backend_flags, service_flags,
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
    /// Where it may belong in full NAT.
    pub full_nat: FullNat,
}

/// What [`full_nat`](super::full_nat) has yet to be asked about a packet. VIPs without it never ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FullNat {
    /// Nothing: what it does not know is somebody else's.
    Nothing = 0,
    /// Whether it is a client's.
    Clients = 1,
    /// Whether it is a backend's answer, or a client's.
    All = 2,
}

impl FullNat {
    /// A number that is none has nothing to ask.
    #[inline(always)]
    pub const fn of(number: u8) -> Self {
        match number {
            1 => Self::Clients,
            2 => Self::All,
            _ => Self::Nothing,
        }
    }
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
    /// To the next hop, with both ends changed; an ICMP error's quoted packet comes second.
    Exchange(Packet, Option<Packet>, Translation, Hop),
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
    /// [`outward`]: a client's, to a service that has backends on other nodes.
    Outward(Packet, ServicePort),
    /// [`fresh`]: such a one whose flow has no entries.
    Fresh(Packet, ServicePort),
    /// [`begin`]: it has a backend now.
    Begin(Way),
    /// [`begun`]: it has a flow now.
    Begun(Way),
    /// [`inward`]: to a port that has no service, so that it may be a backend's answer.
    Inward(Packet),
    /// [`error_outward`]: about what a service said, with the packet that it quotes.
    ErrorOutward(Packet, Packet, ServicePort),
    /// [`error_inward`]: about what may have gone to a backend, with the packet that it quotes.
    ErrorInward(Packet, Packet),
    /// From the beginning, with less to ask of full NAT.
    Again(FullNat),
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

/// Decides about a packet to an owned VIP: all steps of it. What is in `work` before does not matter.
pub fn steer<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    tables: &T,
    work: &mut NatWork,
) -> Steered {
    let mut arrived = *arrived;
    loop {
        match once(frame, &arrived, tables, work) {
            Next::Done(steered) => return steered,
            Next::Again(left) => arrived.full_nat = left,
            _ => return PASSED,
        }
    }
}

fn once<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    tables: &T,
    work: &mut NatWork,
) -> Next {
    let next = match sort(frame, arrived, tables, &Keep) {
        Next::Fragment(packet) => fragment(frame, arrived, &packet, tables, &Keep),
        Next::Icmp(packet) => match icmp(frame, arrived, &packet, &Keep) {
            Next::Error(packet, quoted) => icmp_error(frame, arrived, &packet, &quoted, tables, &Keep),
            next => next,
        },
        next => next,
    };
    match next {
        Next::Send(way, Mode::Direct) => direct(frame, arrived, &way, tables, &Keep),
        Next::Send(way, Mode::Tunnel) => tunnel(frame, arrived, &way, tables, &Keep),
        Next::Send(way, Mode::Nat) => translate(frame, &way, tables, &Keep),
        Next::Outward(packet, port) => {
            let next = match outward(frame, arrived, &packet, port, tables, work, &Keep) {
                Next::Fresh(packet, port) => fresh(frame, arrived, &packet, port, tables, work, &Keep),
                next => next,
            };
            let next = match next {
                Next::Begin(way) => begin(frame, arrived, &way, tables, work, &Keep),
                next => next,
            };
            match next {
                Next::Begun(way) => begun(frame, arrived, &way, tables, work, &Keep),
                next => next,
            }
        }
        Next::Inward(packet) => inward(frame, arrived, &packet, tables, work, &Keep),
        Next::ErrorOutward(packet, quoted, port) => {
            error_outward(frame, arrived, (&packet, &quoted), port, tables, work, &Keep)
        }
        Next::ErrorInward(packet, quoted) => {
            error_inward(frame, arrived, (&packet, &quoted), tables, work, &Keep)
        }
        next => next,
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
pub(super) fn client<B: Bytes + ?Sized, T: SteeringTables, X: Exit>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tuple: Tuple,
    tables: &T,
    exit: &X,
) -> X::Out {
    let exact = exactly(arrived.family, &tuple, tables);
    if exact.is_none() && arrived.full_nat == FullNat::All {
        return exit.leave(Next::Inward(*packet));
    }
    let Some(found) = find(arrived.family, tuple, exact, tables) else {
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
    if is_full_nats(arrived, &found) {
        return exit.leave(Next::Outward(*packet, found.port));
    }
    match choose(frame, arrived.family, packet, &found, tables) {
        Some(chosen) => send(packet, None, &found, &chosen, exit),
        None => closed(arrived, packet, Closed::of(found.service.no_backend), service, tables, exit),
    }
}

/// The entry of a port of its own.
#[inline(always)]
fn exactly<T: SteeringTables>(family: Family, tuple: &Tuple, tables: &T) -> Option<ServicePort> {
    let Tuple { vip, vip_port: port, protocol, .. } = *tuple;
    tables.service_port(&ServiceKey { vip, port, protocol, family: number(family) })
}

/// The service of a port: that of its own entry, or of all ports that have none.
#[inline(always)]
fn find<T: SteeringTables>(
    family: Family,
    tuple: Tuple,
    exact: Option<ServicePort>,
    tables: &T,
) -> Option<Found<'_>> {
    let Tuple { vip, protocol, .. } = tuple;
    let port = match exact {
        Some(port) => port,
        None => tables.service_port(&ServiceKey { vip, port: [0; 2], protocol, family: number(family) })?,
    };
    let service = tables.service(port.service)?;
    Some(Found { tuple, port, service, mode: Mode::of(service.mode)?, now: tables.now_coarse() })
}

/// Whether full NAT is asked first.
#[inline(always)]
fn is_full_nats(arrived: &Arrived, found: &Found<'_>) -> bool {
    found.mode == Mode::Nat
        && found.service.flags & service_flags::FULL_NAT != 0
        && arrived.full_nat != FullNat::Nothing
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
    // Those elsewhere are full NAT's, whose flags are not set then.
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
    let exact = exactly(arrived.family, &tuple, tables);
    if exact.is_none() && arrived.full_nat == FullNat::All {
        return exit.leave(Next::ErrorInward(*packet, *quoted));
    }
    let Some(found) = find(arrived.family, tuple, exact, tables) else {
        return exit.leave(Next::Done(PASSED));
    };
    if found.mode == Mode::Local {
        return exit.leave(Next::Done(PASSED));
    }
    if is_full_nats(arrived, &found) {
        return exit.leave(Next::ErrorOutward(*packet, *quoted, found.port));
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
