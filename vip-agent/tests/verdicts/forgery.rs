//! One advert as bytes on the wire: right in all that it was not told to have wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vip_lab::Mac;

const PROTOCOL: u8 = 112;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
pub(crate) const AT_PRIORITY: usize = 2;
pub(crate) const AT_COUNT: usize = 3;
/// Version 2: the authentication type and the interval in seconds. Version 3: the interval in centiseconds.
pub(crate) const AT_INTERVAL: usize = 4;
pub(crate) const AT_ADDRESSES: usize = 8;

/// What goes into the checksum.
#[derive(Clone, Copy)]
pub(crate) enum Seal {
    /// The message alone: version 2, and version 3 over IPv4 as RFC 9568 has it.
    Message,
    /// A pseudo-header too: version 3 over IPv6, and over IPv4 as keepalived has it.
    Pseudo,
    /// As old keepaliveds do by unicast: a pseudo-header with the group as destination.
    OldUnicast,
    /// It is wrong by one.
    Wrong,
}

/// An advert. The message is whole but for its checksum.
#[derive(Clone)]
pub(crate) struct Forgery {
    pub(crate) source_mac: Mac,
    /// `None`: the one that goes with `destination`.
    pub(crate) destination_mac: Option<Mac>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// IPv4 options, in words of four bytes; an IPv6 extension header of type 0, whose first byte says what follows.
    pub(crate) options: Vec<u8>,
    /// Flags and offset of an IPv4 fragment.
    pub(crate) fragment: u16,
    pub(crate) ip_checksum_wrong: bool,
    pub(crate) message: Vec<u8>,
    pub(crate) seal: Seal,
    /// After the packet.
    pub(crate) padding: usize,
    /// The MAC of the router under test, for unicast.
    pub(crate) receiver: Mac,
}

impl Forgery {
    /// The whole frame.
    pub(crate) fn frame(mut self) -> Vec<u8> {
        if self.message.len() >= AT_ADDRESSES {
            let checksum = self.checksum().to_be_bytes();
            self.message[6..8].copy_from_slice(&checksum);
        }
        let (ethertype, header) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => (0x0800_u16, self.header4(source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => (0x86dd, self.header6(source, destination)),
            mixed => panic!("no packet goes from one family to the other: {mixed:?}"),
        };
        let destination = self.destination_mac.unwrap_or_else(|| self.mac_of_destination());
        let mut frame = [&destination.0[..], &self.source_mac.0, &ethertype.to_be_bytes()].concat();
        frame.extend(header);
        frame.extend(&self.message);
        frame.extend(std::iter::repeat_n(0x5a, self.padding));
        frame
    }

    fn header4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let length = 20 + self.options.len();
        let total = u16::try_from(length + self.message.len()).expect("it fits a packet").to_be_bytes();
        let version_ihl = 0x40 | u8::try_from(length / 4).expect("at most 60 bytes");
        // Another identification for each virtual router: parts of packets are not to be put together.
        let mut header = vec![version_ihl, self.traffic_class, total[0], total[1], 0, self.message[1]];
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.hop_limit, PROTOCOL, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.options);
        let checksum = !sum(&[&header]) ^ u16::from(self.ip_checksum_wrong);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn header6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let length = u16::try_from(self.options.len() + self.message.len()).expect("it fits a packet");
        let next = if self.options.is_empty() { PROTOCOL } else { 0 };
        let mut header = vec![0x60 | self.traffic_class >> 4, self.traffic_class << 4, 0, 0];
        header.extend(length.to_be_bytes());
        header.extend([next, self.hop_limit]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.options);
        header
    }

    fn mac_of_destination(&self) -> Mac {
        match self.destination {
            IpAddr::V4(group) if group.is_multicast() => {
                let [_, b, c, d] = group.octets();
                Mac([1, 0, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(group) if group.is_multicast() => {
                let [.., a, b, c, d] = group.octets();
                Mac([0x33, 0x33, a, b, c, d])
            }
            IpAddr::V4(Ipv4Addr::BROADCAST) => Mac::BROADCAST,
            _ => self.receiver,
        }
    }

    fn checksum(&self) -> u16 {
        let mut message = self.message.clone();
        message[6..8].fill(0);
        let length = u32::try_from(message.len()).expect("it fits a packet").to_be_bytes();
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let destination = match self.seal {
            Seal::Message => return !sum(&[&message]),
            Seal::OldUnicast => GROUP_V4.octets().to_vec(),
            Seal::Pseudo | Seal::Wrong => octets(self.destination),
        };
        let pseudo = [&octets(self.source)[..], &destination, &length, &[0, 0, 0, PROTOCOL]].concat();
        let right = !sum(&[&pseudo, &message]);
        if matches!(self.seal, Seal::Wrong) { right ^ 1 } else { right }
    }
}

/// The ones' complement sum (RFC 1071) of parts that begin at even places.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let values = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = values.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
