//! ARP: questions for a VIP, and announcements of others.

use super::{Action, ArpAnswer, Claim, Decision, Family, Tables, owns};
use crate::maps::{Vip, Vip4Key};
use crate::packet::Bytes;
use crate::packet::arp::{self, Arp};
use crate::packet::ethernet::{self, Mac};
use crate::reason::Reason;

/// Decides about the ARP message at `at`.
#[inline(always)]
pub(super) fn decide<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    at: usize,
    ifindex: u32,
    tables: &T,
) -> Option<Decision> {
    let message = Arp::read(frame, at)?;
    let sender = tables.vip4(&Vip4Key { ifindex, address: message.sender });
    let claim = sender.and_then(|vip| foreign_claim(&message, at, ifindex, &vip, tables));
    // Sender = target announces (RFC 5227, 3); everything else that asks is a question.
    let asked = if message.operation == arp::REQUEST && message.sender != message.target {
        tables.vip4(&Vip4Key { ifindex, address: message.target })
    } else {
        None
    };
    let mut decision = match (asked, sender) {
        (Some(vip), _) => question(frame, at, &message, &vip, tables)?,
        (None, Some(vip)) => Decision::new(&vip, Reason::ArpAnnouncement, Action::Pass),
        (None, None) => return None,
    };
    decision.claim = claim;
    Some(decision)
}

#[inline(always)]
fn question<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    at: usize,
    message: &Arp,
    vip: &Vip,
    tables: &T,
) -> Option<Decision> {
    if !owns(tables, vip, tables.now()) {
        return Some(Decision::new(vip, Reason::ArpNotOwned, Action::Drop));
    }
    let (own, answering) = (Mac::new(vip.mac), Mac::new(vip.answering));
    let to = ethernet::destination(frame)?;
    if to != own && !to.is_group() {
        return Some(Decision::new(vip, Reason::ArpNotForUs, Action::Pass));
    }
    let asker = message.sender_mac;
    let sound = message.hardware_type == arp::ETHERNET
        && (to == own || to == Mac::BROADCAST)
        && asker.is_station()
        && asker != own
        && asker != answering;
    if !sound {
        return Some(Decision::new(vip, Reason::ArpInvalid, Action::Drop));
    }
    Some(Decision::new(vip, Reason::ArpAnswered, Action::AnswerArp(ArpAnswer { at, own: answering })))
}

/// What to report if the sender, whose address is `vip`, is not this node although this node owns it.
///
/// A virtual MAC is every owner's, but what we send does not come back to us: who announces by it is another.
#[inline(always)]
fn foreign_claim<T: Tables>(message: &Arp, at: usize, ifindex: u32, vip: &Vip, tables: &T) -> Option<Claim> {
    let now = tables.now();
    (message.sender_mac != Mac::new(vip.mac) && owns(tables, vip, now)).then_some(Claim {
        at: now,
        ifindex,
        router: vip.router,
        mac: message.sender_mac,
        family: Family::V4,
        address: at + arp::SENDER,
    })
}
