//! Frames that tell the neighbours who has the VIPs now: gratuitous ARP (RFC 826, 5944 4.6) and unsolicited neighbour
//! advertisements (RFC 4861, 7.2.6). Built when the configuration is applied, sent at takeover.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use arrayvec::ArrayVec;

use crate::types::MacAddr;
use crate::vrrp::checksum::Sum;

const ARP_LEN: usize = 42;
const NA_LEN: usize = 86;
const NA_PAYLOAD_LEN: usize = 32;

const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

const ICMPV6: u8 = 58;
const NA_FLAG_ROUTER: u8 = 0x80;
const NA_FLAG_OVERRIDE: u8 = 0x20;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// One Ethernet frame, without a VLAN tag: a VLAN's is added by its sub-interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(ArrayVec<u8, NA_LEN>);

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What goes out for all VIPs of an instance, in two rounds: every VIP is announced once before any is twice.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Announcements {
    /// Gratuitous ARP replies and unsolicited NAs, in the order of the VIPs.
    pub first: Vec<Frame>,
    /// Gratuitous ARP requests: some stacks update from these only.
    pub second: Vec<Frame>,
}

impl Announcements {
    /// Builds the frames that say "`mac` has these `vips`".
    ///
    /// `router`: the interface forwards, so that the R flag is set; it must equal what answers to solicitations say, or
    /// hosts drop their default router (RFC 4861, 7.2.5).
    pub fn build(vips: impl IntoIterator<Item = IpAddr>, mac: MacAddr, router: bool) -> Self {
        let mut announcements = Self::default();
        for vip in vips {
            match vip {
                IpAddr::V4(vip) => {
                    announcements.first.push(arp(ARP_REPLY, vip, mac));
                    announcements.second.push(arp(ARP_REQUEST, vip, mac));
                }
                IpAddr::V6(vip) => announcements.first.push(neighbour_advertisement(vip, mac, router)),
            }
        }
        announcements
    }
}

/// Sender and target protocol address are the VIP. The target hardware address of a reply is the one to be learned (RFC
/// 5944, 4.6); in a request it means nothing, and is what keepalived sends.
fn arp(operation: u8, vip: Ipv4Addr, mac: MacAddr) -> Frame {
    let target = if operation == ARP_REPLY { mac } else { MacAddr::BROADCAST };
    let mut frame = ArrayVec::<u8, NA_LEN>::new();
    frame.extend(MacAddr::BROADCAST.0);
    frame.extend(mac.0);
    frame.extend([0x08, 0x06]);
    // Ethernet, IPv4, their address lengths.
    frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, operation]);
    frame.extend(mac.0);
    frame.extend(vip.octets());
    frame.extend(target.0);
    frame.extend(vip.octets());
    debug_assert_eq!(frame.len(), ARP_LEN, "an ARP frame without padding");
    Frame(frame)
}

/// To all nodes, from the VIP itself, with the override flag and the target link-layer address option.
fn neighbour_advertisement(vip: Ipv6Addr, mac: MacAddr, router: bool) -> Frame {
    let mut message = ArrayVec::<u8, NA_PAYLOAD_LEN>::new();
    let flags = NA_FLAG_OVERRIDE | if router { NA_FLAG_ROUTER } else { 0 };
    // Type, code, checksum; flags and reserved bits.
    message.extend([136, 0, 0, 0, flags, 0, 0, 0]);
    message.extend(vip.octets());
    // Target link-layer address, length in units of 8 bytes.
    message.extend([2, 1]);
    message.extend(mac.0);
    let checksum = Sum::default().pseudo6(vip, ALL_NODES, ICMPV6, NA_PAYLOAD_LEN).bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ArrayVec::<u8, NA_LEN>::new();
    frame.extend(ALL_NODES_MAC);
    frame.extend(mac.0);
    frame.extend([0x86, 0xdd]);
    // Version 6, payload length, next header, hop limit (RFC 4861, 7.1.2 wants 255).
    frame.extend([0x60, 0, 0, 0, 0, NA_PAYLOAD_LEN as u8, ICMPV6, 255]);
    frame.extend(vip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    debug_assert_eq!(frame.len(), NA_LEN, "a neighbour advertisement with one option");
    Frame(frame)
}
