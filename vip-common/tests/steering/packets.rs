//! Packets to and from a VIP by an independent builder, and a reader that checks every checksum.

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    Icmpv4Slice, Icmpv6Slice, IpNumber, NetSlice, PacketBuilder, SlicedPacket, TcpSlice, UdpSlice,
};
use proptest::prelude::*;
use vip_common::decision::Family;
use vip_common::packet::Frame;
use vip_common::packet::ethernet::{Header, Mac as EthernetMac};
use vip_common::steering::link::Hop;
use vip_common::steering::packet::Packet;

pub(crate) type Mac = [u8; 6];

pub(crate) const OWN: Mac = [2, 0, 0, 0, 0, 1];
pub(crate) const CLIENT: Mac = [2, 0, 0, 0, 0, 0xc1];
pub(crate) const BACKEND: Mac = [2, 0, 0, 0, 0, 0xb1];

/// Room in front of and behind each frame, poisoned: real NICs leave anything there.
pub(crate) const ROOM: usize = 128;

/// The two ends of a flow, client first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ends {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

pub(crate) const ENDS4: Ends = Ends::V4([192, 0, 2, 9], [10, 0, 0, 50]);
pub(crate) const ENDS6: Ends = Ends::V6(
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50],
);

impl Ends {
    pub(crate) fn family(self) -> Family {
        match self {
            Self::V4(..) => Family::V4,
            Self::V6(..) => Family::V6,
        }
    }

    /// The packet that an error quotes goes the other way.
    pub(crate) fn reversed(self) -> Self {
        match self {
            Self::V4(a, b) => Self::V4(b, a),
            Self::V6(a, b) => Self::V6(b, a),
        }
    }

    /// Both addresses as the maps hold them.
    pub(crate) fn wide(self) -> ([u8; 16], [u8; 16]) {
        let widen = |address: [u8; 4]| {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(&address);
            wide
        };
        match self {
            Self::V4(a, b) => (widen(a), widen(b)),
            Self::V6(a, b) => (a, b),
        }
    }
}

/// What is in the IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// UDP without a checksum.
    Unsummed,
    Echo,
    Sctp,
}

/// A packet, by what matters of it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) ends: Ends,
    pub(crate) kind: Kind,
    pub(crate) ports: (u16, u16),
    pub(crate) hops: u8,
    pub(crate) payload: Vec<u8>,
    /// VLAN tags behind the addresses.
    pub(crate) tags: Vec<[u8; 4]>,
    /// TCP's flags.
    pub(crate) flags: u8,
    /// DSCP and ECN.
    pub(crate) class: u8,
}

impl Sent {
    pub(crate) fn new(ends: Ends, kind: Kind) -> Self {
        let payload = b"the payload".to_vec();
        Self { ends, kind, ports: (40_000, 80), hops: 64, payload, tags: Vec::new(), flags: 0x10, class: 0 }
    }

    pub(crate) fn tcp4() -> Self {
        Self::new(ENDS4, Kind::Tcp)
    }

    pub(crate) fn tcp6() -> Self {
        Self::new(ENDS6, Kind::Tcp)
    }

    /// The whole frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let ethertype: u16 = if matches!(self.ends, Ends::V4(..)) { 0x0800 } else { 0x86dd };
        [&OWN[..], &CLIENT, &self.tags.concat(), &ethertype.to_be_bytes(), &self.packet()].concat()
    }

    /// From the IP header on.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let ip = match self.ends {
            Ends::V4(from, to) => PacketBuilder::ipv4(from, to, self.hops),
            Ends::V6(from, to) => PacketBuilder::ipv6(from, to, self.hops),
        };
        let mut out = Vec::new();
        let written = match self.kind {
            Kind::Tcp => {
                let mut tcp = ip.tcp(self.ports.0, self.ports.1, 1_000, 512);
                if self.flags & 0x10 != 0 {
                    tcp = tcp.ack(7_000);
                }
                for (bit, set) in [(1, 0), (2, 1), (4, 2)] {
                    tcp = match (self.flags & bit, set) {
                        (0, _) => tcp,
                        (_, 0) => tcp.fin(),
                        (_, 1) => tcp.syn(),
                        _ => tcp.rst(),
                    };
                }
                tcp.write(&mut out, &self.payload)
            }
            Kind::Udp | Kind::Unsummed => ip.udp(self.ports.0, self.ports.1).write(&mut out, &self.payload),
            Kind::Echo if matches!(self.ends, Ends::V4(..)) => {
                ip.icmpv4_echo_request(7, 8).write(&mut out, &self.payload)
            }
            Kind::Echo => ip.icmpv6_echo_request(7, 8).write(&mut out, &self.payload),
            Kind::Sctp => {
                let ports = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
                let packet = [&ports[..], &[1, 2, 3, 4, 5, 6, 7, 8], &self.payload].concat();
                ip.write(&mut out, IpNumber::SCTP, &packet)
            }
        };
        written.expect("a short payload");
        if self.kind == Kind::Unsummed {
            let at = if matches!(self.ends, Ends::V4(..)) { 26 } else { 46 };
            out[at..at + 2].fill(0);
        }
        self.classify(out)
    }

    fn classify(&self, mut packet: Vec<u8>) -> Vec<u8> {
        if matches!(self.ends, Ends::V4(..)) {
            packet[1] = self.class;
            fix_ipv4(&mut packet);
        } else {
            packet[0] |= self.class >> 4;
            packet[1] |= self.class << 4;
        }
        packet
    }
}

/// The IPv4 header's checksum anew.
pub(crate) fn fix_ipv4(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 15) * 4;
    let checksum = Sum16BitWords::new().add_slice(&packet[..header]).ones_complement();
    packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
}

/// An ICMP error from a router, about the VIP's packet `about`, of which it quotes this much behind the IP header.
pub(crate) fn icmp_error(about: &Sent, quote: usize) -> Vec<u8> {
    let mut packet = about.packet();
    let mut out = Vec::new();
    match about.ends {
        Ends::V4(from, _) => {
            packet.truncate(20 + quote);
            let ip = PacketBuilder::ipv4([198, 51, 100, 1], from, 60);
            ip.icmpv4_raw(3, 4, [0, 0, 0x05, 0xa0]).write(&mut out, &packet).expect("short");
            [&OWN[..], &CLIENT, &[0x08, 0x00], &out].concat()
        }
        Ends::V6(from, _) => {
            packet.truncate(40 + quote);
            let ip = PacketBuilder::ipv6([0x20; 16], from, 60);
            ip.icmpv6_raw(2, 0, [0, 0, 0x05, 0xa0]).write(&mut out, &packet).expect("short");
            [&OWN[..], &CLIENT, &[0x86, 0xdd], &out].concat()
        }
    }
}

/// A frame with poisoned room around it, and what becomes of it.
pub(crate) fn with_room<T>(frame: &[u8], change: impl FnOnce(&mut Frame<'_>) -> T) -> (T, Vec<u8>) {
    let mut room = [&[0xff; ROOM], frame, &[0xff; ROOM]].concat();
    let mut packet = Frame::with_headroom(&mut room, ROOM, frame.len()).expect("room enough");
    let outcome = change(&mut packet);
    (outcome, packet.as_bytes().to_vec())
}

/// Where the headers of a frame are; `None` if it is not to be steered.
pub(crate) fn read(frame: &[u8]) -> Option<Packet> {
    let header = Header::read(frame)?;
    let family = if header.ethertype == 0x0800 { Family::V4 } else { Family::V6 };
    Packet::read(frame, family, header.payload)
}

pub(crate) fn hop() -> Hop {
    Hop { own: EthernetMac::new(OWN), next: EthernetMac::new(BACKEND) }
}

/// Whether the checksums of IP and of what is in it are right, by another implementation.
pub(crate) fn is_sound(frame: &[u8]) -> bool {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
    let (payload, source, destination) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            if header.header_checksum() != header.to_header().calc_header_checksum() {
                return false;
            }
            (ip.payload().clone(), header.source().to_vec(), header.destination().to_vec())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (ip.payload().clone(), header.source().to_vec(), header.destination().to_vec())
        }
        _ => return false,
    };
    is_transport_sound(payload.ip_number, payload.payload, &source, &destination)
}

fn is_transport_sound(protocol: IpNumber, payload: &[u8], source: &[u8], destination: &[u8]) -> bool {
    let sum = || {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let data = Sum16BitWords::new().add_slice(source).add_slice(destination).add_slice(payload);
        data.add_slice(&length).add_2bytes([0, protocol.0]).ones_complement() == 0
    };
    match protocol {
        IpNumber::TCP => TcpSlice::from_slice(payload).is_ok() && sum(),
        IpNumber::UDP => match UdpSlice::from_slice(payload) {
            Ok(udp) if udp.checksum() == 0 => source.len() == 4,
            Ok(_) => sum(),
            Err(_) => false,
        },
        IpNumber::ICMP => {
            Icmpv4Slice::from_slice(payload).is_ok()
                && Sum16BitWords::new().add_slice(payload).ones_complement() == 0
        }
        IpNumber::IPV6_ICMP => Icmpv6Slice::from_slice(payload).is_ok() && sum(),
        _ => true,
    }
}

// Random ones.

pub(crate) fn ends() -> impl Strategy<Value = Ends> {
    // Hosts' addresses only.
    let v4 = (1..=126_u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| [a, b, c, d]);
    let v6 = any::<[u8; 15]>().prop_map(|rest| {
        let mut address = [0x20; 16];
        address[1..].copy_from_slice(&rest);
        address
    });
    prop_oneof![
        (v4.clone(), v4).prop_map(|(a, b)| Ends::V4(a, b)),
        (v6.clone(), v6).prop_map(|(a, b)| Ends::V6(a, b)),
    ]
}

pub(crate) fn tags() -> impl Strategy<Value = Vec<[u8; 4]>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![[0x81, 0, 0x60, 100]]),
        Just(vec![[0x88, 0xa8, 0, 100], [0x81, 0, 0, 200]]),
    ]
}

pub(crate) fn sent() -> impl Strategy<Value = Sent> {
    let kind = prop_oneof![
        3 => Just(Kind::Tcp), 3 => Just(Kind::Udp), 1 => Just(Kind::Unsummed),
        1 => Just(Kind::Echo), 1 => Just(Kind::Sctp)
    ];
    let rest = (any::<(u16, u16)>(), any::<u8>(), tags(), 0..32_u8, any::<u8>());
    (ends(), kind, prop::collection::vec(any::<u8>(), 0..200), rest).prop_map(
        |(ends, kind, payload, (ports, hops, tags, flags, class))| Sent {
            ends,
            kind,
            ports,
            hops,
            payload,
            tags,
            flags,
            class,
        },
    )
}
