//! Decoding, as little as questions about the wire need, by a packet reader that is not the agent's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::Mac;

const VRRP: u8 = 112;
const ICMPV6: u8 = 58;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// EtherType of local experiments.
const HEARTBEAT: [u8; 2] = [0x88, 0xb5];

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// ARP for IPv4 over Ethernet.
    Arp(Arp),
    /// ICMPv6 135.
    NeighborSolicitation(NeighborSolicitation),
    /// ICMPv6 136.
    NeighborAdvertisement(NeighborAdvertisement),
    /// IP protocol 112, version 2 or 3.
    Vrrp(Advert),
    /// A TCP segment with RST.
    TcpReset(TcpReset),
    /// EtherType 0x88b5: a heartbeat of viplane, or what belongs to it.
    Heartbeat,
    /// None of these, or malformed.
    Other,
}

/// An ARP packet (RFC 826).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// Who says so.
    pub sender_mac: Mac,
    /// What address it says to have.
    pub sender: Ipv4Addr,
    /// Nothing in a question; the asker in an answer.
    pub target_mac: Mac,
    /// Asked for; or the asker.
    pub target: Ipv4Addr,
}

/// A neighbour solicitation (RFC 4861, 4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborSolicitation {
    /// The asker; unspecified for duplicate address detection.
    pub source: Ipv6Addr,
    /// Asked for.
    pub target: Ipv6Addr,
}

/// A neighbour advertisement (RFC 4861, 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborAdvertisement {
    /// Source in the IPv6 header.
    pub source: Ipv6Addr,
    /// The asker, or ff02::1.
    pub destination: Ipv6Addr,
    /// The address that is advertised.
    pub target: Ipv6Addr,
    /// Target link-layer address option.
    pub target_mac: Option<Mac>,
    /// R flag.
    pub router: bool,
    /// S flag: it answers a solicitation.
    pub solicited: bool,
    /// O flag.
    pub overrides: bool,
}

/// A VRRP advert of version 2 (RFC 3768) or 3 (RFC 9568).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Source in the IP header.
    pub source: IpAddr,
    /// Destination in the IP header.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// 2 or 3.
    pub version: u8,
    /// Virtual router.
    pub vrid: u8,
    /// 0: leaving.
    pub priority: u8,
    /// Announced interval in centiseconds (version 2: its seconds times 100).
    pub interval_cs: u16,
    /// How many addresses it says to list.
    pub count: u8,
    /// The addresses it lists.
    pub addresses: Vec<IpAddr>,
}

/// A TCP segment with RST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpReset {
    /// Who resets.
    pub source: SocketAddr,
    /// Whose connection it was.
    pub destination: SocketAddr,
}

// === impl Packet ===

impl Packet {
    /// Whether it announces `vip` unasked: a gratuitous ARP (request or reply), or an unsolicited NA.
    pub fn announces(&self, vip: IpAddr) -> bool {
        match (self, vip) {
            (Self::Arp(arp), IpAddr::V4(vip)) => arp.sender == vip && arp.target == vip,
            (Self::NeighborAdvertisement(na), IpAddr::V6(vip)) => na.target == vip && !na.solicited,
            _ => false,
        }
    }

    /// Whether it answers a question for `vip`.
    pub fn answers(&self, vip: IpAddr) -> bool {
        match (self, vip) {
            (Self::Arp(arp), IpAddr::V4(vip)) => arp.operation == 2 && arp.sender == vip && arp.target != vip,
            (Self::NeighborAdvertisement(na), IpAddr::V6(vip)) => na.target == vip && na.solicited,
            _ => false,
        }
    }

    /// Whom an answer goes to.
    pub fn asker(&self) -> Option<IpAddr> {
        match self {
            Self::Arp(arp) if arp.operation == 2 => Some(arp.target.into()),
            Self::NeighborAdvertisement(na) if na.solicited => Some(na.destination.into()),
            _ => None,
        }
    }
}

/// Destination, source and meaning of a frame; none if it is shorter than an Ethernet header.
pub(crate) fn decode(frame: &[u8]) -> Option<(Mac, Mac, Packet)> {
    let destination = Mac(*frame.first_chunk()?);
    let source = Mac(*frame.get(6..)?.first_chunk()?);
    let sliced = SlicedPacket::from_ethernet(frame).ok();
    let packet = match sliced.as_ref().and_then(read) {
        Some(packet) => packet,
        None if frame.get(12..14) == Some(&HEARTBEAT[..]) => Packet::Heartbeat,
        None => Packet::Other,
    };
    Some((destination, source, packet))
}

fn read(sliced: &SlicedPacket<'_>) -> Option<Packet> {
    match sliced.net.as_ref()? {
        NetSlice::Arp(arp) => {
            let arp = arp.to_packet().try_eth_ipv4().ok()?;
            Some(Packet::Arp(Arp {
                operation: arp.operation.0,
                sender_mac: Mac(arp.sender_mac),
                sender: arp.sender_ipv4.into(),
                target_mac: Mac(arp.target_mac),
                target: arp.target_ipv4.into(),
            }))
        }
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let ends = (header.source_addr().into(), header.destination_addr().into());
            let payload = ip.payload();
            read_transport(sliced, ends, header.ttl(), payload.ip_number.0, payload.payload)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let ends = (header.source_addr().into(), header.destination_addr().into());
            let payload = ip.payload();
            read_transport(sliced, ends, header.hop_limit(), payload.ip_number.0, payload.payload)
        }
    }
}

fn read_transport(
    sliced: &SlicedPacket<'_>,
    ends: (IpAddr, IpAddr),
    hop_limit: u8,
    protocol: u8,
    payload: &[u8],
) -> Option<Packet> {
    match (protocol, &sliced.transport) {
        (VRRP, _) => read_advert(ends, hop_limit, payload).map(Packet::Vrrp),
        (ICMPV6, _) => read_neighbor(ends, payload),
        (_, Some(TransportSlice::Tcp(tcp))) if tcp.rst() => Some(Packet::TcpReset(TcpReset {
            source: SocketAddr::new(ends.0, tcp.source_port()),
            destination: SocketAddr::new(ends.1, tcp.destination_port()),
        })),
        _ => None,
    }
}

fn read_advert((source, destination): (IpAddr, IpAddr), hop_limit: u8, payload: &[u8]) -> Option<Advert> {
    let (&[version_type, vrid, priority, count, high, low, _, _], rest) = payload.split_first_chunk()?;
    let version = version_type >> 4;
    let interval_cs =
        if version == 2 { u16::from(low) * 100 } else { u16::from_be_bytes([high & 0x0f, low]) };
    let listed = usize::from(count);
    let addresses = if source.is_ipv4() {
        rest.as_chunks::<4>().0.iter().take(listed).map(|&address| IpAddr::from(address)).collect()
    } else {
        rest.as_chunks::<16>().0.iter().take(listed).map(|&address| IpAddr::from(address)).collect()
    };
    Some(Advert { source, destination, hop_limit, version, vrid, priority, interval_cs, count, addresses })
}

fn read_neighbor(ends: (IpAddr, IpAddr), payload: &[u8]) -> Option<Packet> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = ends else { return None };
    let (&[kind, _, _, _, flags, _, _, _], rest) = payload.split_first_chunk()?;
    let (target, options) = rest.split_first_chunk::<16>()?;
    let target = Ipv6Addr::from(*target);
    match kind {
        NEIGHBOR_SOLICITATION => Some(Packet::NeighborSolicitation(NeighborSolicitation { source, target })),
        NEIGHBOR_ADVERTISEMENT => Some(Packet::NeighborAdvertisement(NeighborAdvertisement {
            source,
            destination,
            target,
            target_mac: target_mac(options),
            router: flags & 0x80 != 0,
            solicited: flags & 0x40 != 0,
            overrides: flags & 0x20 != 0,
        })),
        _ => None,
    }
}

/// Walks options of a type, a length in units of eight bytes, and a value.
fn target_mac(mut options: &[u8]) -> Option<Mac> {
    while let &[kind, units, ..] = options
        && units > 0
    {
        let option = options.get(..usize::from(units) * 8)?;
        if kind == TARGET_LINK_LAYER_ADDRESS {
            return option.get(2..)?.first_chunk().map(|&mac| Mac(mac));
        }
        options = &options[option.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 0, 0x5e, 0, 0, 18, 2, 0, 0, 0, 0, 1];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn an_advert_of_version_3_is_read_past_its_ip_header() {
        // 10.0.0.1 to 224.0.0.18, VRID 51, priority 200, 10 ms, one address.
        let mut payload = vec![0x45, 0xc0, 0, 32, 0, 1, 0, 0, 255, 112, 0, 0, 10, 0, 0, 1, 224, 0, 0, 18];
        payload.extend([0x31, 51, 200, 1, 0, 1, 0, 0, 10, 0, 0, 50]);
        let (_, source, packet) = decode(&frame(0x0800, &payload)).unwrap();
        assert_eq!(source, Mac([2, 0, 0, 0, 0, 1]));
        let Packet::Vrrp(advert) = packet else { panic!("{packet:?} is no advert") };
        assert_eq!((advert.version, advert.vrid, advert.priority, advert.interval_cs), (3, 51, 200, 1));
        assert_eq!(advert.addresses, [IpAddr::from([10, 0, 0, 50])]);
        assert_eq!(advert.hop_limit, 255);
    }

    #[test]
    fn a_gratuitous_reply_announces_and_does_not_answer() {
        let arp = |target: [u8; 4]| {
            let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 50, 2, 0, 0, 0, 0, 9];
            arp.extend(target);
            decode(&frame(0x0806, &arp)).unwrap().2
        };
        let vip = IpAddr::from([10, 0, 0, 50]);
        let gratuitous = arp([10, 0, 0, 50]);
        assert!(gratuitous.announces(vip) && !gratuitous.answers(vip));
        let answer = arp([10, 0, 0, 201]);
        assert!(answer.answers(vip) && !answer.announces(vip));
        assert_eq!(answer.asker(), Some(IpAddr::from([10, 0, 0, 201])));
    }

    #[test]
    fn a_neighbour_advertisement_tells_flags_and_mac() {
        let vip: Ipv6Addr = "fd00::50".parse().unwrap();
        let asker: Ipv6Addr = "fd00::c9".parse().unwrap();
        let mut payload = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
        payload.extend(vip.octets());
        payload.extend(asker.octets());
        payload.extend([136, 0, 0, 0, 0x60, 0, 0, 0]);
        payload.extend(vip.octets());
        payload.extend([2, 1, 2, 0, 0, 0, 0, 1]);
        let (_, _, packet) = decode(&frame(0x86dd, &payload)).unwrap();
        assert!(packet.answers(vip.into()));
        let Packet::NeighborAdvertisement(na) = packet else { panic!("{packet:?} is no NA") };
        assert_eq!((na.router, na.solicited, na.overrides), (false, true, true));
        assert_eq!(na.target_mac, Some(Mac([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn a_truncated_frame_is_other_and_a_headless_one_is_nothing() {
        assert_eq!(decode(&frame(0x0806, &[0, 1])).unwrap().2, Packet::Other);
        assert_eq!(decode(&[0; 11]), None);
    }
}
