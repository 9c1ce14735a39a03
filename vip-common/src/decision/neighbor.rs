//! Neighbour discovery: solicitations for a VIP, and advertisements of others (RFC 4861, 7.1 and 7.2).

use super::{Action, Audience, Claim, Decision, Family, NeighborAnswer, Tables, owns};
use crate::maps::{Vip, Vip6Key, vip_flags};
use crate::packet::Bytes;
use crate::packet::ethernet::{self, Mac};
use crate::packet::icmpv6::{self, Options, flags};
use crate::packet::ipv6::{self, Address};
use crate::reason::Reason;

/// Decides about the solicitation or advertisement in the IPv6 packet at `at`.
#[inline(always)]
pub(super) fn decide<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    at: usize,
    ifindex: u32,
    tables: &T,
) -> Option<Decision> {
    let target = icmpv6::target(frame, at)?;
    let vip = tables.vip6(&Vip6Key { ifindex, address: target.bytes() })?;
    let (kind, _) = icmpv6::kind(frame, at)?;
    let asks = kind == icmpv6::NEIGHBOR_SOLICITATION;
    let now = tables.now();
    if !owns(tables, &vip, now) {
        return Some(if asks {
            Decision::new(&vip, Reason::NdNotOwned, Action::Drop)
        } else {
            Decision::new(&vip, Reason::NdAnnouncement, Action::Pass)
        });
    }
    let options = icmpv6::validate(frame, at);
    if asks {
        return question(frame, at, target, &vip, options);
    }
    let mut decision = Decision::new(&vip, Reason::NdAnnouncement, Action::Pass);
    if let Some(options) = options {
        let mac = match options.target {
            Some(mac) => mac,
            None => ethernet::source(frame)?,
        };
        if mac != Mac::new(vip.mac) {
            let address = at + ipv6::HEADER + icmpv6::TARGET;
            decision.claim =
                Some(Claim { at: now, ifindex, router: vip.router, mac, family: Family::V6, address });
        }
    }
    Some(decision)
}

/// Decides about a solicitation for an owned VIP.
#[inline(always)]
fn question<B: Bytes + ?Sized>(
    frame: &B,
    at: usize,
    target: Address,
    vip: &Vip,
    options: Option<Options>,
) -> Option<Decision> {
    let (own, answering) = (Mac::new(vip.mac), Mac::new(vip.answering));
    let to = ethernet::destination(frame)?;
    if to != own && !to.is_group() {
        return Some(Decision::new(vip, Reason::NdNotForUs, Action::Pass));
    }
    Some(match audience(frame, at, target, [own, answering], to, options) {
        Some(audience) => {
            let router = if vip.flags & vip_flags::ROUTER == 0 { 0 } else { flags::ROUTER };
            let answer = NeighborAnswer { at, own: answering, router, audience };
            Decision::new(vip, Reason::NdAnswered, Action::AnswerNeighbor(answer))
        }
        None => Decision::new(vip, Reason::NdInvalid, Action::Drop),
    })
}

/// Whom to answer; `None` if the solicitation deserves no answer.
#[inline(always)]
fn audience<B: Bytes + ?Sized>(
    frame: &B,
    at: usize,
    target: Address,
    [own, answering]: [Mac; 2],
    to: Mac,
    options: Option<Options>,
) -> Option<Audience> {
    let options = options?;
    let source = ipv6::source(frame, at)?;
    let destination = ipv6::destination(frame, at)?;
    let sender = ethernet::source(frame)?;
    if source == Address::UNSPECIFIED {
        // Duplicate address detection: the asker has no address yet, so everyone is told (RFC 4861, 7.1.1 and 7.2.4).
        let sound = destination == target.solicited_node()
            && options.source.is_none()
            && sender != own
            && sender != answering;
        return sound.then_some(Audience::AllNodes);
    }
    let asker = match options.source {
        Some(mac) if mac.is_station() => mac,
        _ => sender,
    };
    let sound = (destination.is_multicast() || destination == target && to == own)
        && !source.is_multicast()
        && source != target
        && asker.is_station()
        && asker != own
        && asker != answering;
    sound.then_some(Audience::Asker(asker))
}
