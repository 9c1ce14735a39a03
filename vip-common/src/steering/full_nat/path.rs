//! What becomes of a packet of a flow of full NAT, in either direction: what does not fit or has no hops left is answered, the rest
//! goes on.
//!
//! Called by [`steer`](super::super::steer::steer).

use super::inward::{Way, inward};
use super::outward::{error_outward, outward};
use super::tables::{NatTables, NatWork};
use crate::packet::Bytes;
use crate::packet::ethernet::Mac;
use crate::steering::answer::Error;
use crate::steering::choose::{Chosen, Flags, Found};
use crate::steering::link::Hop;
use crate::steering::packet::{Fragment, Packet};
use crate::steering::reason::Outcome;
use crate::steering::steer::{Action, Answer, Arrived, Steered, fragment_key, hops, note_first, tell};
use crate::steering::tables::{Backend, Choice, RETURNED, SteeringTables};

/// Sends a client's packet to a backend on another node by full NAT.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined: what the two callers know already")]
pub(in crate::steering) fn exchange<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    flags: &Flags,
    found: &Found,
    chosen: &mut Chosen,
    tables: &T,
    work: &mut NatWork,
) -> Steered {
    let service = Some(found.port.service);
    let refused = |outcome| Steered { action: Action::Drop, outcome, service, backend: 0 };
    let is_elsewhere = |backend: &Backend| backend.ifindex != arrived.ifindex;
    // Before it takes a port.
    if is_elsewhere(&chosen.backend) {
        return refused(Outcome::OtherLink);
    }
    if let Some(error) = unfit(frame, packet, chosen.backend.mtu) {
        return answer(arrived, packet, error, service, found.now, tables);
    }
    if let Err(outcome) = outward(arrived, packet, flags, found, chosen, tables, work) {
        return refused(outcome);
    }
    let Chosen { slot, backend, outcome } = chosen;
    if is_elsewhere(backend) {
        return refused(Outcome::OtherLink);
    }
    note_first(frame, packet, *slot, backend.generation, found.now, tables);
    let hop = Hop { own: Mac::new(backend.own), next: backend.next() };
    Steered { action: Action::Exchange(*packet, None, hop), outcome: *outcome, service, backend: *slot }
}

/// Sends what a backend sent on to the client. The flow's entry is in `work`.
#[inline(always)]
pub(in crate::steering) fn returned<B: Bytes + ?Sized, T: NatTables>(
    frame: &B,
    arrived: &Arrived,
    packet: &Packet,
    tables: &T,
    work: &mut NatWork,
) -> Steered {
    let now = tables.now_coarse();
    let flags = Flags::read(frame, packet);
    let way = inward(arrived, &flags, now, tables, work);
    if let Fragment::First(id) = packet.fragment
        && let Some(key) = fragment_key(frame, packet, id)
    {
        let [a, b] = work.back_ports();
        let backend = u32::from_ne_bytes([a[0], a[1], b[0], b[1]]);
        tables
            .note_fragment(&key, Choice { seen: now, backend, generation: 0, state: RETURNED, reserved: 0 });
    }
    let outcome = match packet.fragment {
        Fragment::Later(_) => Outcome::FragmentSteered,
        _ => Outcome::Returned,
    };
    if let Some(error) = unfit(frame, packet, work.mtu_back()) {
        return answer(arrived, packet, error, Some(work.service_back()), now, tables);
    }
    back(arrived, packet, None, way, outcome, work)
}

/// Sends a packet, or an ICMP error with the packet that it quotes, to the client of the flow in `work`.
#[inline(always)]
pub(in crate::steering) fn back(
    arrived: &Arrived,
    packet: &Packet,
    quoted: Option<Packet>,
    way: Way,
    outcome: Outcome,
    work: &NatWork,
) -> Steered {
    let steered =
        |action, outcome| Steered { action, outcome, service: Some(work.service_back()), backend: 0 };
    match way {
        Way::Unknown => steered(Action::Drop, Outcome::NoWayBack),
        Way::Known if work.ifindex_back() != arrived.ifindex => steered(Action::Drop, Outcome::OtherLink),
        Way::Known => steered(Action::Exchange(*packet, quoted, work.hop_back()), outcome),
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
fn answer<T: SteeringTables>(
    arrived: &Arrived,
    packet: &Packet,
    error: Error,
    service: Option<u16>,
    now: u64,
    tables: &T,
) -> Steered {
    let outcome = match error {
        Error::TooBig(_) => Outcome::TooBig,
        _ => Outcome::Expired,
    };
    match tell(arrived, packet, Answer::Error(error), now, tables) {
        Some(action) => Steered { action, outcome, service, backend: 0 },
        None => Steered { action: Action::Drop, outcome: Outcome::Silent, service, backend: 0 },
    }
}

/// Sends an ICMP error about what came of a flow of full NAT to the flow's backend.
#[inline(always)]
pub(in crate::steering) fn error_to_backend(
    arrived: &Arrived,
    packet: &Packet,
    quoted: &Packet,
    found: &Found,
    chosen: &Chosen,
    work: &mut NatWork,
) -> Steered {
    let Chosen { slot, backend, .. } = chosen;
    let service = Some(found.port.service);
    let refused = |outcome| Steered { action: Action::Drop, outcome, service, backend: 0 };
    if backend.ifindex != arrived.ifindex {
        return refused(Outcome::OtherLink);
    }
    error_outward(work);
    let hop = Hop { own: Mac::new(backend.own), next: backend.next() };
    let action = Action::Exchange(*packet, Some(*quoted), hop);
    Steered { action, outcome: Outcome::ErrorSteered, service, backend: *slot }
}
