//! What is an advert and what is not, written for reading: plain conditions on etherparse's readers and sums.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, NetSlice, SlicedPacket};
use vip_agent::types::{AdvertInterval, ChecksumMode};
use vip_agent::vrrp::codec::{DecodeOptions, Dialect, GROUP_V4, PseudoHeader, advert_group};
use vip_agent::vrrp::receive::{Rules, Senders};

/// What an advert says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) vrid: u8,
    pub(crate) priority: u8,
    pub(crate) interval: AdvertInterval,
    pub(crate) addresses: Vec<IpAddr>,
}

/// What a payload says to an instance; `None` if it is to be discarded.
pub(crate) fn said(payload: &[u8], pseudo: PseudoHeader, options: DecodeOptions) -> Option<Said> {
    let ipv6 = matches!(pseudo, PseudoHeader::V6 { .. });
    let &[version_type, vrid, priority, count, fifth, sixth, _, _, ref rest @ ..] = payload else {
        return None;
    };
    let (version, trailer) = match options.dialect {
        Dialect::V2 { .. } => (2, 8),
        Dialect::V3 { .. } => (3, 0),
    };
    let width = if ipv6 { 16 } else { 4 };
    let addresses = rest.get(..usize::from(count) * width)?;
    let sound = version_type == version << 4 | 1
        && vrid != 0
        && count != 0
        && rest.len() == addresses.len() + trailer
        && !(version == 2 && ipv6)
        && is_summed_right(payload, pseudo, options);
    if !sound {
        return None;
    }
    let interval = match options.dialect {
        Dialect::V2 { interval, password } => {
            let wanted = u8::from(password.is_some());
            let right = password.is_none_or(|password| rest.ends_with(password.wire()));
            (fifth == wanted && right && sixth == interval.get()).then(|| interval.into())?
        }
        Dialect::V3 { .. } => {
            let centiseconds = u16::from_be_bytes([fifth & 0x0f, sixth]);
            AdvertInterval::V3(vip_agent::types::Centiseconds::new(centiseconds).ok()?)
        }
    };
    let addresses: Vec<IpAddr> = addresses.chunks(width).map(address).collect();
    let strange = matches!(addresses[0], IpAddr::V6(first) if first.octets()[..2] != [0xfe, 0x80] && first.segments()[0] & 0xffc0 != 0xfe80);
    (!options.strict || !strange).then_some(Said { vrid, priority, interval, addresses })
}

fn address(octets: &[u8]) -> IpAddr {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).expect("four").into(),
        _ => <[u8; 16]>::try_from(octets).expect("sixteen").into(),
    }
}

/// The sum over all of it is "minus zero" by one of the ways that count.
fn is_summed_right(payload: &[u8], pseudo: PseudoHeader, options: DecodeOptions) -> bool {
    let length = u32::try_from(payload.len()).expect("a packet").to_be_bytes();
    let message = Sum16BitWords::new().add_slice(payload);
    let with = |source: &[u8], destination: &[u8]| {
        let sum = message.clone();
        let sum = sum.add_slice(source).add_slice(destination).add_4bytes(length).add_2bytes([0, 112]);
        sum.ones_complement() == 0
    };
    match (pseudo, options.dialect) {
        (PseudoHeader::V6 { source, destination }, _) => with(&source.octets(), &destination.octets()),
        (PseudoHeader::V4 { .. }, Dialect::V2 { .. }) => message.ones_complement() == 0,
        (PseudoHeader::V4 { source, destination }, Dialect::V3 { checksum, .. }) => {
            let ways = [
                (ChecksumMode::Pseudo, with(&source.octets(), &destination.octets())),
                (ChecksumMode::Rfc9568, message.ones_complement() == 0),
                (ChecksumMode::OldUnicast, with(&source.octets(), &GROUP_V4.octets())),
            ];
            ways.into_iter().any(|(mode, right)| right && (mode == checksum || !options.strict))
        }
    }
}

/// A packet of protocol 112 that the IP stack of a host would deliver, and that names a virtual router.
pub(crate) struct Delivered<'a> {
    pub(crate) pseudo: PseudoHeader,
    pub(crate) hop_limit: u8,
    pub(crate) payload: &'a [u8],
}

/// `None` if the frame is none.
pub(crate) fn delivered(frame: &[u8]) -> Option<Delivered<'_>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    if !packet.link_exts.is_empty() {
        return None;
    }
    let delivered = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            let whole = !header.more_fragments() && header.fragments_offset().value() == 0;
            let summed = Sum16BitWords::new().add_slice(header.slice()).ones_complement() == 0;
            let nobody = source.is_unspecified()
                || source.is_loopback()
                || source.is_multicast()
                || source.is_broadcast();
            let ours = header.protocol() == IpNumber::VRRP && whole && summed && !nobody;
            let payload = &ip.payload().payload;
            ours.then_some(Delivered {
                pseudo: PseudoHeader::V4 { source, destination },
                hop_limit: header.ttl(),
                payload,
            })
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            let nobody = source.is_unspecified() || source.is_loopback() || source.is_multicast();
            let ours = header.next_header() == IpNumber::VRRP && !nobody;
            let length = usize::from(header.payload_length());
            let payload = frame.get(14 + 40..)?.get(..length)?;
            ours.then_some(Delivered {
                pseudo: PseudoHeader::V6 { source, destination },
                hop_limit: header.hop_limit(),
                payload,
            })
        }
        NetSlice::Arp(_) => None,
    };
    delivered.filter(|packet| packet.payload.len() >= 8 && packet.payload[1] != 0)
}

/// What a packet says to an instance that is not strict, or says to a strict one that has nothing to remark.
pub(crate) fn heard(packet: &Delivered<'_>, rules: &Rules) -> Option<Said> {
    let (source, destination) = (packet.pseudo.source(), packet.pseudo.destination());
    let ours = match &rules.senders {
        Senders::Multicast => destination == advert_group(packet.pseudo.family()) && packet.hop_limit == 255,
        Senders::Unicast { peers, min_ttl } => {
            destination == rules.own
                && peers.contains(&source)
                && min_ttl.is_none_or(|least| packet.hop_limit >= least)
        }
    };
    (ours && source != rules.own).then(|| said(packet.payload, packet.pseudo, rules.decode))?
}
