//! Frames to a virtual MAC of ours: the owner takes them as if they were sent to its interface, nobody else may (RFC
//! 9568, 6.4.2 and 6.4.3), but for those that are on their way while it moves.

use super::{HOP_BY_HOP, PROTOCOL_IGMP, PROTOCOL_VRRP, Tables, interface, owns};
use crate::maps::{Vip, VirtualMacKey};
use crate::packet::ethernet::{self, Mac};
use crate::packet::{Bytes, ipv4, ipv6, virtual_mac};

/// Whom a frame is sent to, as far as virtual MACs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// No virtual MAC of ours.
    Ordinary,
    /// One of ours: the frame is to be taken as if it were sent to the interface ([`crate::rewrite::deliver`]) before
    /// anything else is decided about it.
    Ours {
        /// Slot of the interface, for the counters.
        link: u16,
        /// The interface's MAC.
        interface: Mac,
    },
    /// One of ours that another node owns: the frame is to be dropped.
    Anothers {
        /// Slot of the interface, for the counters.
        link: u16,
    },
}

/// Says whom the frame is sent to: the first question of all, since a gateway's frames are about no VIP.
#[inline(always)]
pub fn arrival<B: Bytes + ?Sized, T: Tables>(frame: &B, tables: &T) -> Arrival {
    let Some(mac) = virtual_mac::of_destination(frame) else {
        return Arrival::Ordinary;
    };
    let Some(header) = ethernet::Header::read(frame) else {
        return Arrival::Ordinary;
    };
    let Some(router) = addressee(&header, mac, tables) else {
        return Arrival::Ordinary;
    };
    let now = tables.now_coarse();
    let in_transit = || tables.handover(router.router).is_some_and(|handover| now < handover.in_transit);
    if owns(tables, &router, now) || in_transit() {
        Arrival::Ours { link: router.link, interface: Mac::new(router.mac) }
    } else if always_passes(frame, &header) {
        Arrival::Ordinary
    } else {
        Arrival::Anothers { link: router.link }
    }
}

#[inline(always)]
fn addressee<T: Tables>(header: &ethernet::Header, mac: [u8; 2], tables: &T) -> Option<Vip> {
    let ifindex = interface(header, tables)?;
    tables.virtual_router(&VirtualMacKey { ifindex, mac, reserved: [0; 2] })
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
