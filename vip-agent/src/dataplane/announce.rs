//! Frames that tell the neighbours who has the VIPs now: gratuitous ARP (RFC 826, 5944 4.6) and unsolicited neighbour
//! advertisements (RFC 4861, 7.2.6); and frames that ask whether another station has them, too. Built when the
//! configuration is applied, sent at takeover and after it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use arrayvec::ArrayVec;

use crate::types::{Family, MacAddr, VirtualRouterId};
use crate::vrrp::checksum::Sum;
use crate::vrrp::socket::solicited_node;

const ARP_LEN: usize = 42;
const NA_LEN: usize = 86;
/// Of a neighbour advertisement or solicitation with one option.
const ND_PAYLOAD_LEN: usize = 32;

const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const NA_FLAG_ROUTER: u8 = 0x80;
const NA_FLAG_OVERRIDE: u8 = 0x20;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// One Ethernet frame, without a VLAN tag: a VLAN's is added by its sub-interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(ArrayVec<u8, NA_LEN>);

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The MAC that answers for VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answering {
    /// The interface's own.
    Interface(MacAddr),
    /// The virtual router's, one for each family (RFC 9568, 7.3).
    Virtual(VirtualRouterId),
}

impl Answering {
    /// For VIPs of this family.
    pub const fn mac(self, family: Family) -> MacAddr {
        match self {
            Self::Interface(mac) => mac,
            Self::Virtual(id) => MacAddr::of_virtual_router(id, family),
        }
    }
}

impl From<MacAddr> for Answering {
    fn from(mac: MacAddr) -> Self {
        Self::Interface(mac)
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
    /// Builds the frames that say "this MAC has these `vips`". They also come from it, so that switches learn its port.
    ///
    /// `router`: the interface forwards, so that the R flag is set; it must equal what answers to solicitations say, or
    /// hosts drop their default router (RFC 4861, 7.2.5).
    pub fn build(
        vips: impl IntoIterator<Item = IpAddr>,
        answering: impl Into<Answering>,
        router: bool,
    ) -> Self {
        let answering = answering.into();
        let mut announcements = Self::default();
        for vip in vips {
            let mac = answering.mac(Family::of(vip));
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

/// Builds the frames that ask who else has these `vips`. A machine whose VRRP daemon was killed may keep a VIP on its
/// interface and answer for it for ever without a word of its own. These make it answer to us alone, where the program
/// sees it; no other station learns anything from question or answer.
///
/// `mac` is the interface's own, for the answer is to come to us alone. `source` is an address of the interface to ask from;
/// without one no IPv6 VIP is asked for. Never to be sent at a
/// takeover: the former owner may not have heard of it yet.
pub fn questions(
    vips: impl IntoIterator<Item = IpAddr>,
    mac: MacAddr,
    source: Option<Ipv6Addr>,
) -> Vec<Frame> {
    let question = |vip| match vip {
        IpAddr::V4(vip) => Some(arp_probe(vip, mac)),
        IpAddr::V6(vip) => source.map(|source| neighbour_solicitation(vip, mac, source)),
    };
    vips.into_iter().filter_map(question).collect()
}

/// A frame from `mac` to itself: it goes all the way through this host's transmission, and no switch forwards a frame to
/// the port that it came from. Nobody is told anything by it (its EtherType is IEEE 802's Local Experimental 1).
pub fn frame_to_itself(mac: MacAddr) -> Frame {
    const SHORTEST_FRAME: usize = 60;
    let mut frame = ArrayVec::<u8, NA_LEN>::new();
    frame.extend(mac.0);
    frame.extend(mac.0);
    frame.extend([0x88, 0xb5]);
    frame.extend(std::iter::repeat_n(0, SHORTEST_FRAME - frame.len()));
    Frame(frame)
}

/// Sender and target protocol address are the VIP. The target hardware address of a reply is the one to be learned (RFC
/// 5944, 4.6); in a request it means nothing, and is what keepalived sends.
fn arp(operation: u8, vip: Ipv4Addr, mac: MacAddr) -> Frame {
    let target = if operation == ARP_REPLY { mac } else { MacAddr::BROADCAST };
    arp_frame(operation, mac, vip, target, vip)
}

/// From no address, so that nobody learns one (RFC 5227, 2.1.1).
fn arp_probe(vip: Ipv4Addr, mac: MacAddr) -> Frame {
    arp_frame(ARP_REQUEST, mac, Ipv4Addr::UNSPECIFIED, MacAddr::default(), vip)
}

fn arp_frame(
    operation: u8,
    sender_mac: MacAddr,
    sender: Ipv4Addr,
    target_mac: MacAddr,
    target: Ipv4Addr,
) -> Frame {
    let mut frame = ArrayVec::<u8, NA_LEN>::new();
    frame.extend(MacAddr::BROADCAST.0);
    frame.extend(sender_mac.0);
    frame.extend([0x08, 0x06]);
    // Ethernet, IPv4, their address lengths.
    frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, operation]);
    frame.extend(sender_mac.0);
    frame.extend(sender.octets());
    frame.extend(target_mac.0);
    frame.extend(target.octets());
    debug_assert_eq!(frame.len(), ARP_LEN, "an ARP frame without padding");
    Frame(frame)
}

/// To all nodes, from the VIP itself, with the override flag and the target link-layer address option.
fn neighbour_advertisement(vip: Ipv6Addr, mac: MacAddr, router: bool) -> Frame {
    let flags = NA_FLAG_OVERRIDE | if router { NA_FLAG_ROUTER } else { 0 };
    neighbour_frame([NEIGHBOUR_ADVERTISEMENT, flags, TARGET_LINK_LAYER_ADDRESS], vip, mac, (vip, ALL_NODES))
}

/// To the VIP's solicited-node group. From an address of ours, so that the answer comes to us alone: one to "::" would go
/// to all nodes, and they would believe it.
fn neighbour_solicitation(vip: Ipv6Addr, mac: MacAddr, source: Ipv6Addr) -> Frame {
    neighbour_frame(
        [NEIGHBOUR_SOLICITATION, 0, SOURCE_LINK_LAYER_ADDRESS],
        vip,
        mac,
        (source, solicited_node(vip)),
    )
}

/// RFC 4861, 4.3 and 4.4: type, flags and the type of the one option, which holds `mac`; the target.
fn neighbour_frame(
    [kind, flags, option]: [u8; 3],
    target: Ipv6Addr,
    mac: MacAddr,
    (source, group): (Ipv6Addr, Ipv6Addr),
) -> Frame {
    let mut message = ArrayVec::<u8, ND_PAYLOAD_LEN>::new();
    // Type, code, checksum; flags and reserved bits.
    message.extend([kind, 0, 0, 0, flags, 0, 0, 0]);
    message.extend(target.octets());
    // Length in units of 8 bytes.
    message.extend([option, 1]);
    message.extend(mac.0);
    let checksum = Sum::default().pseudo6(source, group, ICMPV6, ND_PAYLOAD_LEN).bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ArrayVec::<u8, NA_LEN>::new();
    // The MAC of a group ends like the group (RFC 2464, 7).
    let [.., a, b, c, d] = group.octets();
    frame.extend([0x33, 0x33, a, b, c, d]);
    frame.extend(mac.0);
    frame.extend([0x86, 0xdd]);
    // Version 6, payload length, next header, hop limit (RFC 4861, 7.1 wants 255).
    frame.extend([0x60, 0, 0, 0, 0, ND_PAYLOAD_LEN as u8, ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(message);
    debug_assert_eq!(frame.len(), NA_LEN, "a neighbour discovery message with one option");
    Frame(frame)
}
