//! Parts of datagrams: the first one is steered like any packet and noted, the later ones go where it went.
//!
//! A step behind [`sort`](super::steer::sort).

use super::packet::{Fragment, Packet};
use super::reason::Outcome;
use super::steer::{Action, Arrived, Exit, FullNat, Next, PASSED, Steered, Way, client, number};
use super::tables::{
    Choice, FRAGMENT_TIMEOUT, FragmentKey, Mode, RETURNED, ServicePort, SteeringTables, backend_flags,
};
use crate::packet::Bytes;

/// Of a later fragment whose first one was not seen.
pub(super) const UNKNOWN: Next = Next::Done(Steered {
    action: Action::Drop,
    outcome: Outcome::FragmentUnknown,
    service: None,
    backend: 0,
});

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
        return later(frame, arrived, packet, id, tables, exit);
    }
    let Some(tuple) = packet.tuple(frame) else {
        return exit.leave(Next::Done(PASSED));
    };
    client(frame, arrived, packet, tuple, tables, &Noting { frame, packet, tables, exit })
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
    arrived: &Arrived,
    packet: &Packet,
    id: u32,
    tables: &T,
    exit: &X,
) -> X::Out {
    let now = tables.now_coarse();
    let choice = fragment_key(frame, packet, id).and_then(|key| tables.fragment(&key));
    let Some(choice) = choice.filter(|choice| now.saturating_sub(choice.seen) < FRAGMENT_TIMEOUT) else {
        return exit.leave(UNKNOWN);
    };
    if choice.state == RETURNED {
        return exit.leave(match arrived.full_nat {
            FullNat::All => Next::Inward(*packet),
            FullNat::Clients | FullNat::Nothing => UNKNOWN,
        });
    }
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
    if mode == Mode::Nat && !backend.is(backend_flags::LOCAL) && arrived.full_nat != FullNat::Nothing {
        return exit.leave(Next::Outward(*packet, ServicePort { service, shift: 0 }));
    }
    exit.leave(Next::Send(Way { packet: *packet, quoted: None, service, shift: 0, slot, outcome }, mode))
}
