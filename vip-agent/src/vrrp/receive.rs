//! From a frame to an accepted advert: the checks that IP would do, then those of RFC 9568, 7.1, or RFC 3768, 7.1.
//!
//! Adverts are taken from AF_PACKET so that no host firewall hides them; what the IP stack would have refused is
//! therefore refused here. Two steps, because the second needs the instance that the first one names:
//! [`Packet::parse`] once per frame, then [`Packet::accept`] by the instance of (interface, family, VRID).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::codec::{self, Advert, DecodeOptions, HEADER_LEN, PseudoHeader, advert_group};
use super::discard::Discard;
use super::trailer::{self, AuthRules, Signed};
use crate::types::{Family, MacAddr, Priority, Version, VirtualRouterId};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPV4_MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;

/// A packet that IP would deliver to protocol 112, with the header's worth of an advert in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The sender's MAC on this link.
    pub source_mac: MacAddr,
    /// Its addresses.
    pub addresses: PseudoHeader,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// The virtual router that it speaks of: names the instance. Version and type are not checked yet.
    pub virtual_router_id: VirtualRouterId,
    payload: &'a [u8],
}

/// What an instance accepts over one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The address that our own adverts come from.
    pub own: IpAddr,
    /// The MAC of the interface that they leave by: no other station sends from it.
    pub own_mac: MacAddr,
    /// Who may send, and where to.
    pub senders: Senders,
    /// Version, what seals adverts, and strictness.
    pub decode: DecodeOptions,
    /// Whose trailers are believed; `None`: no trailer is needed.
    pub auth: Option<AuthRules>,
    /// The VIPs of this family in the order of our own adverts: others should list the same.
    pub vips: Vec<IpAddr>,
}

/// Who may send, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Senders {
    /// Anyone on the link, to the advert group, with TTL 255.
    Multicast,
    /// These addresses only, to [`Rules::own`].
    Unicast {
        /// The configured peers.
        peers: Vec<IpAddr>,
        /// The least TTL or hop limit; `None` takes any: keepalived sends unicast over IPv6 with 64.
        min_ttl: Option<u8>,
    },
}

/// An advert that an instance accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The sender's MAC on this link; a virtual MAC if it uses one.
    pub source_mac: MacAddr,
    /// The sender: breaks ties between Active routers.
    pub source: IpAddr,
    /// What it says.
    pub advert: Advert<'a>,
    /// What is worth a log line: mostly why strict rules would have discarded it.
    pub remark: Option<Discard>,
    /// Who signed it, and when: to be checked against what was heard before.
    pub signed: Option<Signed>,
}

impl<'a> Packet<'a> {
    /// Reads a whole Ethernet frame as AF_PACKET gives it: the kernel has taken the VLAN tag off, and trailing bytes
    /// after the IP packet are Ethernet padding.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn parse(frame: &'a [u8]) -> Result<Self, Discard> {
        let Some((ethernet, packet)) = frame.split_first_chunk::<14>() else {
            return Err(Discard::Truncated);
        };
        let &[_, _, _, _, _, _, m0, m1, m2, m3, m4, m5, type_high, type_low] = ethernet;
        let ip = match u16::from_be_bytes([type_high, type_low]) {
            ETHERTYPE_IPV4 => ipv4(packet)?,
            ETHERTYPE_IPV6 => ipv6(packet)?,
            _ => return Err(Discard::NotIp),
        };
        if ip.payload.len() < HEADER_LEN {
            return Err(Discard::TooShort);
        }
        Ok(Self {
            source_mac: MacAddr([m0, m1, m2, m3, m4, m5]),
            addresses: ip.addresses,
            hop_limit: ip.hop_limit,
            virtual_router_id: VirtualRouterId::new(ip.payload[1]).map_err(|_| Discard::ZeroVrid)?,
            payload: ip.payload,
        })
    }

    /// The family of the packet: with interface and VRID it names the instance.
    pub const fn family(&self) -> Family {
        self.addresses.family()
    }

    /// The instance's own checks, then the advert's.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn accept(&self, rules: &Rules) -> Result<Received<'a>, Discard> {
        let (source, destination) = (self.addresses.source(), self.addresses.destination());
        if source == rules.own {
            let echo = self.source_mac == rules.own_mac;
            return Err(if echo { Discard::OwnMac } else { Discard::OwnSource });
        }
        match &rules.senders {
            Senders::Multicast => self.check_multicast(destination)?,
            Senders::Unicast { peers, min_ttl } => {
                check(destination == rules.own, Discard::WrongDestination)?;
                check(peers.contains(&source), Discard::UnknownPeer)?;
                check(self.hop_limit >= min_ttl.unwrap_or(0), Discard::BadTtl)?;
            }
        }
        let (message, trailer) = trailer::split(self.payload, self.family());
        let advert = Advert::decode(message, self.addresses, rules.decode)?;
        let verdict = trailer::judge(message, trailer, self.addresses, rules.auth.as_ref())?;
        let remark = match self.remark(&advert, rules) {
            Some(why) if rules.decode.strict && !is_address_owner_of_version_2(&advert) => return Err(why),
            // What a group that is changing over is told of does not become strict by that.
            remark => remark.or(verdict.remark()),
        };
        Ok(Received { source_mac: self.source_mac, source, advert, remark, signed: verdict.signed() })
    }

    /// What the RFCs let pass, but not without a word.
    fn remark(&self, advert: &Advert<'_>, rules: &Rules) -> Option<Discard> {
        if self.source_mac == rules.own_mac {
            return Some(Discard::OwnMac);
        }
        if !advert.lists_any(&rules.vips) {
            return Some(Discard::VridClash);
        }
        if !advert.lists(&rules.vips) {
            return Some(Discard::AddressMismatch);
        }
        // Where our own list is no better, the configuration is what should be looked at.
        if advert.first_not_link_local() && rules.vips.first().is_some_and(is_link_local) {
            return Some(Discard::FirstNotLinkLocal);
        }
        let multicast_from_elsewhere = rules.senders == Senders::Multicast
            && self.family() == Family::V6
            && !is_link_local(&self.addresses.source());
        multicast_from_elsewhere.then_some(Discard::SourceNotLinkLocal)
    }

    fn check_multicast(&self, destination: IpAddr) -> Result<(), Discard> {
        check(destination == advert_group(self.family()), Discard::WrongDestination)?;
        // Routers decrement it, so 255 proves that the sender is on this link (RFC 9568, 5.1.1.3).
        check(self.hop_limit == codec::HOP_LIMIT, Discard::BadTtl)
    }
}

/// Without the bytes: those of version 2 may hold a password.
impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source_mac, addresses, hop_limit, virtual_router_id, payload } = self;
        f.debug_struct("Packet")
            .field("source_mac", source_mac)
            .field("addresses", addresses)
            .field("hop_limit", hop_limit)
            .field("virtual_router_id", virtual_router_id)
            .field("payload_len", &payload.len())
            .finish()
    }
}

/// Its list is right by definition: RFC 3768, 7.1, drops that of others only.
fn is_address_owner_of_version_2(advert: &Advert<'_>) -> bool {
    advert.interval.version() == Version::V2 && advert.priority == Priority::OWNER.get()
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

struct IpPacket<'a> {
    addresses: PseudoHeader,
    hop_limit: u8,
    payload: &'a [u8],
}

/// RFC 791, 3.1; header checksum and martian sources as the kernel's ip_rcv.
fn ipv4(packet: &[u8]) -> Result<IpPacket<'_>, Discard> {
    let Some((header, _)) = packet.split_first_chunk::<20>() else { return Err(Discard::Truncated) };
    let &[version_ihl, _, l0, l1, _, _, f0, f1, hop_limit, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        header;
    let header_len = usize::from(version_ihl & 0xf) * 4;
    let total_len = usize::from(u16::from_be_bytes([l0, l1]));
    check(version_ihl >> 4 == 4 && header_len >= 20 && total_len >= header_len, Discard::BadIpHeader)?;
    let packet = packet.get(..total_len).ok_or(Discard::Truncated)?;
    let (header, payload) = packet.split_at(header_len);
    check(Sum::default().bytes(header).is_valid(), Discard::BadIpChecksum)?;
    check(protocol == codec::PROTOCOL, Discard::NotVrrp)?;
    check(u16::from_be_bytes([f0, f1]) & IPV4_MORE_FRAGMENTS_OR_OFFSET == 0, Discard::Fragment)?;
    let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    let martian =
        source.is_multicast() || source.is_broadcast() || source.is_loopback() || source.is_unspecified();
    check(!martian, Discard::BadSource)?;
    Ok(IpPacket { addresses: PseudoHeader::V4 { source, destination }, hop_limit, payload })
}

/// RFC 8200, 3. Adverts carry no extension headers, and none are looked for.
fn ipv6(packet: &[u8]) -> Result<IpPacket<'_>, Discard> {
    let Some((header, rest)) = packet.split_first_chunk::<40>() else { return Err(Discard::Truncated) };
    check(header[0] >> 4 == 6, Discard::BadIpHeader)?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = rest.get(..payload_len).ok_or(Discard::Truncated)?;
    check(header[6] == codec::PROTOCOL, Discard::NotVrrp)?;
    let (source, destination) = (address6(header, 8), address6(header, 24));
    check(!source.is_multicast() && !source.is_loopback() && !source.is_unspecified(), Discard::BadSource)?;
    Ok(IpPacket { addresses: PseudoHeader::V6 { source, destination }, hop_limit: header[7], payload })
}

fn address6(header: &[u8; 40], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    octets.into()
}

fn check(right: bool, otherwise: Discard) -> Result<(), Discard> {
    if right { Ok(()) } else { Err(otherwise) }
}
