//! What the decision should be, written for reading and not for the kernel, on etherparse's readers.

use etherparse::{ArpPacketSlice, EtherType, Ethernet2Slice, Icmpv6Slice, Ipv6HeaderSlice, SingleVlanSlice};
use vip_common::maps::{Handover, Vip4Key, Vip6Key, VirtualMacKey, VlanKey, vip_flags};
use vip_common::rewrite::Verdict;

use crate::common::frames::{self, Arp, Mac, Nd, V4, V6, VIRTUAL4, VIRTUAL6};
use crate::common::world::{INGRESS, World};

/// What a frame should come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) verdict: Verdict,
    pub(crate) frame: Vec<u8>,
    /// Counters, in their order.
    pub(crate) counted: Vec<&'static str>,
}

struct Model<'a> {
    world: &'a World,
    frame: &'a [u8],
    to: Mac,
    from: Mac,
    tags: Vec<[u8; 4]>,
    ifindex: Option<u32>,
    ether_type: EtherType,
    payload: &'a [u8],
}

/// What should become of the frame.
pub(crate) fn expected(world: &World, frame: &[u8]) -> Expected {
    let passed =
        |frame: &[u8]| Expected { verdict: Verdict::Pass, frame: frame.to_vec(), counted: Vec::new() };
    let Some(model) = read(world, frame) else { return passed(frame) };
    if !model.is_to_a_virtual_mac_of_ours() {
        return model.about_a_vip().unwrap_or_else(|| passed(frame));
    }
    if model.owned() || world.handover.in_transit > world.now {
        let delivered = [&frames::OWN, &frame[6..]].concat();
        let mut expected = expected(world, &delivered);
        expected.counted.insert(0, "virtual_mac_taken");
        return expected;
    }
    if model.is_routing_protocol() {
        return passed(frame);
    }
    Expected { verdict: Verdict::Drop, frame: frame.to_vec(), counted: vec!["virtual_mac_not_owned"] }
}

fn read<'a>(world: &'a World, frame: &'a [u8]) -> Option<Model<'a>> {
    let ethernet = Ethernet2Slice::from_slice_without_fcs(frame).ok()?;
    let (mut ether_type, mut payload) = (ethernet.ether_type(), ethernet.payload_slice());
    let (mut tags, mut ids) = (Vec::new(), Vec::new());
    while matches!(ether_type, EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING) && tags.len() < 2
    {
        let tag = SingleVlanSlice::from_slice(payload).ok()?;
        let [high, low] = ether_type.0.to_be_bytes();
        tags.push([high, low, payload[0], payload[1]]);
        ids.push(tag.vlan_identifier().value());
        (ether_type, payload) = (tag.ether_type(), tag.payload_slice());
    }
    let ifindex = match ids[..] {
        [] | [0] | [0, 0] => Some(INGRESS),
        [outer] | [0, outer] => vlan(world, outer, 0),
        [outer, inner, ..] => vlan(world, outer, inner),
    };
    let (to, from) = (ethernet.destination(), ethernet.source());
    Some(Model { world, frame, to, from, tags, ifindex, ether_type, payload })
}

fn vlan(world: &World, outer: u16, inner: u16) -> Option<u32> {
    world.vlans.get(&VlanKey { parent: INGRESS, outer, inner }).copied()
}

impl Model<'_> {
    fn about_a_vip(&self) -> Option<Expected> {
        match self.ether_type {
            EtherType::ARP => self.arp(),
            EtherType::IPV4 => self.ipv4(),
            EtherType::IPV6 => self.ipv6(),
            _ => None,
        }
    }

    fn is_to_a_virtual_mac_of_ours(&self) -> bool {
        let [a, b, c, d, block, id] = self.to;
        let key = |ifindex| VirtualMacKey { ifindex, mac: [block, id], reserved: [0; 2] };
        [a, b, c, d] == [0, 0, 0x5e, 0]
            && self.ifindex.is_some_and(|ifindex| self.world.virtual_macs.contains_key(&key(ifindex)))
    }

    /// VRRP, IGMP, MLD.
    fn is_routing_protocol(&self) -> bool {
        match self.ether_type {
            EtherType::IPV4 => self.payload.len() >= 20 && matches!(self.payload[9], 112 | 2),
            EtherType::IPV6 => matches!(self.payload.get(6), Some(112 | 0)),
            _ => false,
        }
    }

    /// The MAC that answers for the VIPs of a family.
    fn answering(&self, virtual_mac: Mac) -> Mac {
        if self.world.virtual_macs.is_empty() { frames::OWN } else { virtual_mac }
    }

    fn is_us(&self, mac: Mac, virtual_mac: Mac) -> bool {
        mac == frames::OWN || mac == self.answering(virtual_mac)
    }

    /// One station, and neither nobody nor us.
    fn may_be_answered(&self, mac: Mac, virtual_mac: Mac) -> bool {
        mac[0] & 1 == 0 && mac != [0; 6] && !self.is_us(mac, virtual_mac)
    }

    fn is_vip4(&self, address: V4) -> bool {
        self.ifindex.is_some_and(|ifindex| self.world.vips4.contains_key(&Vip4Key { ifindex, address }))
    }

    fn is_vip6(&self, address: V6) -> bool {
        self.ifindex.is_some_and(|ifindex| self.world.vips6.contains_key(&Vip6Key { ifindex, address }))
    }

    fn owned(&self) -> bool {
        self.world.deadline > self.world.now
    }

    fn to_a_group(&self) -> bool {
        self.to[0] & 1 == 1
    }

    fn come_to(&self, verdict: Verdict, counted: &[&'static str]) -> Option<Expected> {
        Some(Expected { verdict, frame: self.frame.to_vec(), counted: counted.to_vec() })
    }

    fn arp(&self) -> Option<Expected> {
        let message = ArpPacketSlice::from_slice(self.payload).ok()?;
        let sender: V4 = message.sender_protocol_addr().try_into().ok()?;
        let target: V4 = message.target_protocol_addr().try_into().ok()?;
        let sender_mac: Mac = message.sender_hw_addr().try_into().ok()?;
        if message.proto_addr_type() != EtherType::IPV4 {
            return None;
        }
        let claimed = self.is_vip4(sender) && self.owned() && sender_mac != frames::OWN;
        let is_question = message.operation().0 == 1 && sender != target && self.is_vip4(target);
        let mut expected = if is_question {
            self.arp_question(&message, sender_mac, sender, target)?
        } else if self.is_vip4(sender) {
            self.come_to(Verdict::Pass, &["arp_announcement"])?
        } else {
            return None;
        };
        if claimed {
            expected.counted.push("arp_foreign_owner");
        }
        Some(expected)
    }

    fn arp_question(
        &self,
        message: &ArpPacketSlice<'_>,
        asker: Mac,
        sender: V4,
        target: V4,
    ) -> Option<Expected> {
        if !self.owned() {
            return self.come_to(Verdict::Drop, &["arp_not_owned"]);
        }
        let for_us = self.to == frames::OWN;
        if !for_us && !self.to_a_group() {
            return self.come_to(Verdict::Pass, &["arp_not_for_us"]);
        }
        let to_us = for_us || self.to == frames::BROADCAST;
        if message.hw_addr_type().0 != 1 || !to_us || !self.may_be_answered(asker, VIRTUAL4) {
            return self.come_to(Verdict::Drop, &["arp_invalid"]);
        }
        let answer = Arp {
            to: asker,
            from: self.answering(VIRTUAL4),
            tags: self.tags.clone(),
            sender_mac: self.answering(VIRTUAL4),
            sender: target,
            target_mac: asker,
            target: sender,
            ..Arp::answer()
        };
        let frame = [&answer.bytes()[..], &self.payload[28..]].concat();
        Some(Expected { verdict: Verdict::Transmit, frame, counted: vec!["arp_answered"] })
    }

    fn ipv6(&self) -> Option<Expected> {
        let header: &[u8; 40] = self.payload.first_chunk()?;
        let destination: V6 = header[24..].try_into().expect("16 bytes");
        let message = &self.payload[40..];
        match (header[6], message) {
            (112 | 0, _) => None,
            (58, [135 | 136, _, ..]) => self.neighbor(header, message),
            (next_header, _) if self.is_vip6(destination) => {
                self.traffic(next_header == 6, || Some(message), &header[8..24], &destination)
            }
            _ => None,
        }
    }

    fn neighbor(&self, header: &[u8; 40], message: &[u8]) -> Option<Expected> {
        let target: V6 = message.get(8..24)?.try_into().expect("16 bytes");
        if !self.is_vip6(target) {
            return None;
        }
        let sound = self.sound_options(header, message);
        let link_layer = |kind| Some(sound.as_ref()?.iter().rfind(|option| option.0 == kind)?.1);
        if message[0] == 136 {
            let mac = link_layer(2).unwrap_or(self.from);
            return if self.owned() && sound.is_some() && mac != frames::OWN {
                self.come_to(Verdict::Pass, &["nd_announcement", "nd_foreign_owner"])
            } else {
                self.come_to(Verdict::Pass, &["nd_announcement"])
            };
        }
        if !self.owned() {
            return self.come_to(Verdict::Drop, &["nd_not_owned"]);
        }
        let for_us = self.to == frames::OWN;
        if !for_us && !self.to_a_group() {
            return self.come_to(Verdict::Pass, &["nd_not_for_us"]);
        }
        let source: V6 = header[8..24].try_into().expect("16 bytes");
        let destination: V6 = header[24..].try_into().expect("16 bytes");
        let asker = link_layer(1).filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]).unwrap_or(self.from);
        let group = std::net::Ipv6Addr::from(destination).is_multicast();
        let deserves_an_answer = if source == [0; 16] {
            let solicited_node = [&frames::GROUP6[..13], &target[13..]].concat();
            destination[..] == solicited_node && link_layer(1).is_none() && !self.is_us(self.from, VIRTUAL6)
        } else {
            (group || destination == target && for_us)
                && source[0] != 0xff
                && source != target
                && self.may_be_answered(asker, VIRTUAL6)
        };
        if sound.is_none() || !deserves_an_answer {
            return self.come_to(Verdict::Drop, &["nd_invalid"]);
        }
        let probe = source == [0; 16];
        let forwards = self.world.vips6.values().all(|vip| vip.flags & vip_flags::ROUTER != 0);
        let answer = Nd {
            to: if probe { frames::ALL_NODES_MAC } else { asker },
            from: self.answering(VIRTUAL6),
            tags: self.tags.clone(),
            source: target,
            destination: if probe { frames::ALL_NODES } else { source },
            flags: [u8::from(forwards) << 7 | u8::from(!probe) << 6 | 0x20, 0, 0, 0],
            target,
            options: frames::link_layer(2, self.answering(VIRTUAL6)),
            ..Nd::answer()
        };
        Some(Expected { verdict: Verdict::Transmit, frame: answer.bytes(), counted: vec!["nd_answered"] })
    }

    /// Kinds and link-layer addresses of the options of one unit, if the message passes RFC 4861's checks.
    fn sound_options(&self, header: &[u8; 40], message: &[u8]) -> Option<Vec<(u8, Mac)>> {
        let header = Ipv6HeaderSlice::from_slice(header).ok()?;
        let length = usize::from(header.payload_length());
        let message = message.get(..length)?;
        let icmpv6 = Icmpv6Slice::from_slice(message).ok()?;
        let checked = icmpv6.is_checksum_valid(header.source(), header.destination());
        if header.hop_limit() != 255 || icmpv6.code_u8() != 0 || !checked || length > 88 {
            return None;
        }
        let mut options = Vec::new();
        let mut rest = message.get(24..)?;
        while let [kind, units, ..] = *rest {
            let option = rest.get(..usize::from(units) * 8).filter(|option| !option.is_empty())?;
            if let [_, _, mac @ ..] = option
                && let Ok(mac) = mac.try_into()
            {
                options.push((kind, mac));
            }
            rest = &rest[option.len()..];
        }
        rest.is_empty().then_some(options)
    }

    fn ipv4(&self) -> Option<Expected> {
        let header: &[u8; 20] = self.payload.first_chunk()?;
        let destination: V4 = header[16..].try_into().expect("4 bytes");
        if matches!(header[9], 112 | 2) || !self.is_vip4(destination) {
            return None;
        }
        let segment = || {
            let words = usize::from(header[0] & 0x0f);
            let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
            let sound = header[0] >> 4 == 4 && words >= 5 && !later_fragment;
            sound.then(|| self.payload.get(words * 4..))?
        };
        self.traffic(header[9] == 6, segment, &header[12..16], &destination)
    }

    fn traffic<'s>(
        &self,
        tcp: bool,
        segment: impl FnOnce() -> Option<&'s [u8]>,
        client: &[u8],
        vip: &[u8],
    ) -> Option<Expected> {
        let Handover { until, in_transit, .. } = self.world.handover;
        if !self.owned() && until.min(in_transit) <= self.world.now {
            return self.come_to(Verdict::Pass, &["traffic_not_owned"]);
        }
        if self.world.vips4.values().all(|vip| vip.flags & vip_flags::NOT_ACCEPTED != 0) {
            return self.come_to(Verdict::Drop, &["traffic_not_accepted"]);
        }
        let handover = self.world.handover;
        let passes = self.come_to(Verdict::Pass, &["traffic_owned"]);
        let for_us = self.to == frames::OWN;
        if !tcp || handover.until <= self.world.now || !for_us || self.from == handover.former {
            return passes;
        }
        let Some([a, b, c, d, _, _, _, _, _, _, _, _, _, flags, ..]) = segment() else {
            return passes;
        };
        let known = self.world.flows.borrow().iter().any(|(flow, until)| {
            *until == handover.until
                && flow.client.starts_with(client)
                && flow.vip.starts_with(vip)
                && (flow.client_port, flow.vip_port) == ([*a, *b], [*c, *d])
        });
        if flags & 0x12 == 0x02 || known {
            return passes;
        }
        let frame = [&handover.former[..], &frames::OWN, &self.frame[12..]].concat();
        Some(Expected { verdict: Verdict::Transmit, frame, counted: vec!["handover_forwarded"] })
    }
}
