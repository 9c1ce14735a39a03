//! Frames to a virtual MAC of ours: the owner takes them as if they were sent to its interface, nobody else may (RFC
//! 9568, 6.4.2 and 6.4.3), but for those that are on their way while it moves.

use super::{Action, Decision, HOP_BY_HOP, PROTOCOL_IGMP, PROTOCOL_VRRP, Tables, interface, owns};
use crate::maps::{Vip, VirtualMacKey};
use crate::packet::ethernet::{self, Mac};
use crate::packet::virtual_mac::VirtualMac;
use crate::packet::{Bytes, ipv4, ipv6};
use crate::reason::Reason;

/// The virtual router that the frame is sent to, if it is one of ours.
#[inline(always)]
pub(super) fn addressee<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    header: &ethernet::Header,
    tables: &T,
) -> Option<Vip> {
    let mac = VirtualMac::of_destination(frame)?.bytes();
    let ifindex = interface(header, tables)?;
    tables.virtual_router(&VirtualMacKey { ifindex, mac, reserved: [0; 2] })
}

/// What becomes of a frame to the virtual router, for which the rest of the decision was made: what would pass is
/// given to the interface if this node owns, else it ends here.
#[inline(always)]
pub(super) fn deliver<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    header: &ethernet::Header,
    router: &Vip,
    decision: Option<Decision>,
    tables: &T,
) -> Option<Decision> {
    let passes = |decision: &Decision| matches!(decision.action, Action::Pass | Action::PassNewFlow(_));
    let decision = match decision {
        Some(decision) if !passes(&decision) => return Some(decision),
        decision => decision,
    };
    let now = tables.now_coarse();
    let in_transit = || tables.handover(router.router).is_some_and(|handover| now < handover.in_transit);
    if owns(tables, router, now) || in_transit() {
        let decision =
            decision.unwrap_or_else(|| Decision::new(router, Reason::VirtualMacOwned, Action::Pass));
        return Some(Decision { deliver_to: Some(Mac::new(router.mac)), ..decision });
    }
    if decision.is_none() && always_passes(frame, header) {
        return None;
    }
    Some(Decision::new(router, Reason::VirtualMacNotOwned, Action::Drop))
}

/// VRRP, IGMP and MLD. The kernel discards what is not sent to its MAC; whoever listens beside it may see them.
#[inline(always)]
fn always_passes<B: Bytes + ?Sized>(frame: &B, header: &ethernet::Header) -> bool {
    let at = header.payload;
    match header.ethertype {
        ethernet::IPV4 => ipv4::Brief::read(frame, at)
            .is_some_and(|packet| matches!(packet.protocol, PROTOCOL_VRRP | PROTOCOL_IGMP)),
        ethernet::IPV6 => matches!(ipv6::next_header(frame, at), Some(PROTOCOL_VRRP | HOP_BY_HOP)),
        _ => false,
    }
}
