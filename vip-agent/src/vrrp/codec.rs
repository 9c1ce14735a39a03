//! Advertisements of both versions: values to bytes and back (RFC 9568, 5; errata 8299, 8300, 8301; RFC 3768, 5).
//!
//! ```text
//! Version 3
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version| Type  | Virtual Rtr ID|   Priority    |IPvX Addr Count|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Reserve| Max Advertise Interval|          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                      IPvX Address(es)                         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!
//! Version 2 has, in the place of the second word and after the addresses:
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Auth Type   |   Adver Int   |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                 Authentication Data (8 bytes)                 |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::auth::{AUTH_LEN, Password};
use super::checksum::Sum;
use super::discard::Discard;
use crate::types::{AdvertInterval, Centiseconds, ChecksumMode, Family, Seconds, Version, VirtualRouterId};

/// The IP protocol number of VRRP (RFC 9568, 5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// TTL and hop limit of every advert (RFC 9568, 5.1.1.3).
pub const HOP_LIMIT: u8 = 255;

/// "I am leaving": the priority of an advert by which an Active router resigns (RFC 9568, 5.2.4; RFC 3768, 5.3.4).
pub const LEAVING: u8 = 0;

/// Where multicast adverts over IPv4 go (RFC 9568, 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Where multicast adverts over IPv6 go (RFC 9568, 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Bytes before the addresses.
pub const HEADER_LEN: usize = 8;

/// Addresses that one advert can carry: its count is one byte. The link's MTU allows fewer in IPv6: an advert is never
/// fragmented.
pub const MAX_ADDRESSES: usize = 255;

/// The longest advert: 255 IPv6 addresses.
pub const MAX_LEN: usize = HEADER_LEN + MAX_ADDRESSES * 16;

/// The only type there is.
const ADVERTISEMENT: u8 = 1;
/// No authentication: the data is ignored (RFC 3768, 5.3.6).
const AUTH_NONE: u8 = 0;
/// Simple text password (RFC 2338, 5.3.6).
const AUTH_SIMPLE: u8 = 1;
const PRIORITY_AT: usize = 2;
const INTERVAL_AT: usize = 4;
const CHECKSUM_AT: usize = 6;
const INTERVAL_MASK: u16 = 0x0fff;

/// Where multicast adverts of a family go.
pub const fn advert_group(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(GROUP_V4),
        Family::V6 => IpAddr::V6(GROUP_V6),
    }
}

/// Addresses of one family that an advert can list without being fragmented, for a link's MTU in bytes.
pub const fn capacity(version: Version, family: Family, mtu: usize) -> usize {
    let (ip_header, address) = match family {
        Family::V4 => (20, 4),
        Family::V6 => (40, 16),
    };
    let fit = mtu.saturating_sub(ip_header + HEADER_LEN + trailer_len(version)) / address;
    if fit < MAX_ADDRESSES { fit } else { MAX_ADDRESSES }
}

/// The addresses of the IP header around an advert: they decide its family and go into its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PseudoHeader {
    /// An IPv4 packet.
    V4 {
        /// The sender.
        source: Ipv4Addr,
        /// [`GROUP_V4`], or the unicast peer.
        destination: Ipv4Addr,
    },
    /// An IPv6 packet.
    V6 {
        /// The sender.
        source: Ipv6Addr,
        /// [`GROUP_V6`], or the unicast peer.
        destination: Ipv6Addr,
    },
}

impl PseudoHeader {
    /// From a pair of addresses; `None` if they are not of one family.
    pub const fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 { source, destination }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 { source, destination }),
            _ => None,
        }
    }

    /// The sender.
    pub const fn source(&self) -> IpAddr {
        match *self {
            Self::V4 { source, .. } => IpAddr::V4(source),
            Self::V6 { source, .. } => IpAddr::V6(source),
        }
    }

    /// The receiver or the group.
    pub const fn destination(&self) -> IpAddr {
        match *self {
            Self::V4 { destination, .. } => IpAddr::V4(destination),
            Self::V6 { destination, .. } => IpAddr::V6(destination),
        }
    }

    /// The family of the packet, and so of the addresses in it.
    pub const fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }

    /// What goes into the checksum besides the advert itself.
    fn sum(&self, mode: ChecksumMode, length: usize) -> Sum {
        match (*self, mode) {
            (Self::V6 { source, destination }, _) => {
                Sum::default().pseudo6(source, destination, PROTOCOL, length)
            }
            (Self::V4 { .. }, ChecksumMode::Rfc9568) => Sum::default(),
            (Self::V4 { source, destination }, ChecksumMode::Pseudo) => {
                Sum::default().pseudo4(source, destination, PROTOCOL, length)
            }
            (Self::V4 { source, .. }, ChecksumMode::OldUnicast) => {
                Sum::default().pseudo4(source, GROUP_V4, PROTOCOL, length)
            }
        }
    }
}

/// How a virtual router writes its adverts and wants those of others: what the versions do not have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// IPv4 alone; the checksum has no pseudo-header.
    V2 {
        /// Of all routers: another one's adverts are discarded (RFC 3768, 7.1).
        interval: Seconds,
        /// `None`: authentication type 0.
        password: Option<Password>,
    },
    /// Either family.
    V3 {
        /// Our own; Backups learn it.
        interval: Centiseconds,
        /// Matters to IPv4 only. Sent, and tried first on what is received.
        checksum: ChecksumMode,
    },
}

impl Dialect {
    /// The version.
    pub const fn version(&self) -> Version {
        self.interval().version()
    }

    /// The interval that is announced.
    pub const fn interval(&self) -> AdvertInterval {
        match *self {
            Self::V2 { interval, .. } => AdvertInterval::V2(interval),
            Self::V3 { interval, .. } => AdvertInterval::V3(interval),
        }
    }

    /// Byte 0.
    const fn version_type(&self) -> u8 {
        self.version().get() << 4 | ADVERTISEMENT
    }

    /// Bytes 4 and 5. The reserved bits of version 3 go out as 0 (RFC 9568, 5.2.6).
    const fn fifth_and_sixth(&self) -> [u8; 2] {
        match *self {
            Self::V2 { interval, password: None } => [AUTH_NONE, interval.get()],
            Self::V2 { interval, password: Some(_) } => [AUTH_SIMPLE, interval.get()],
            Self::V3 { interval, .. } => interval.get().to_be_bytes(),
        }
    }

    /// What follows the addresses.
    fn trailer(&self) -> &[u8] {
        match self {
            Self::V2 { password: None, .. } => &[0; AUTH_LEN],
            Self::V2 { password: Some(password), .. } => password.wire(),
            Self::V3 { .. } => &[],
        }
    }
}

/// What an advert says; [`Fields::encode`] writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The virtual router.
    pub virtual_router_id: VirtualRouterId,
    /// 1-255, or [`LEAVING`].
    pub priority: u8,
    /// Version, interval and what seals it.
    pub dialect: Dialect,
    /// The VIPs, 1-255, all of the packet's family, in the order in which they go out.
    pub addresses: &'a [IpAddr],
}

/// An advert that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// RFC 9568, erratum 8299.
    #[error("an advert needs at least one address")]
    NoAddresses,
    /// The count is one byte.
    #[error("an advert carries at most {MAX_ADDRESSES} addresses, not {0}: split the instance")]
    TooManyAddresses(usize),
    /// An address or destination of the other family.
    #[error("{address} cannot go into an {family} advert")]
    WrongFamily {
        /// The address.
        address: IpAddr,
        /// The family of the packet.
        family: Family,
    },
    /// RFC 3768 knows no IPv6.
    #[error("VRRP version 2 has no adverts over IPv6: use version 3")]
    Version2OverIpv6,
    /// The caller's buffer.
    #[error("an advert of {needed} bytes does not fit {found}")]
    BufferTooSmall {
        /// Bytes that the advert takes.
        needed: usize,
        /// Bytes that were given.
        found: usize,
    },
}

impl Fields<'_> {
    /// Bytes that [`Self::encode`] writes.
    pub fn encoded_len(&self, family: Family) -> usize {
        HEADER_LEN + self.addresses.len() * address_len(family) + trailer_len(self.dialect.version())
    }

    /// Writes the whole IP payload, checksum included, to the front of `buffer`; returns its length.
    ///
    /// # Errors
    /// No or too many addresses, one of the other family, version 2 over IPv6, or a buffer that is too small.
    pub fn encode(&self, pseudo: PseudoHeader, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let (family, dialect) = (pseudo.family(), &self.dialect);
        if (dialect.version(), family) == (Version::V2, Family::V6) {
            return Err(EncodeError::Version2OverIpv6);
        }
        let count = match u8::try_from(self.addresses.len()) {
            Ok(0) => return Err(EncodeError::NoAddresses),
            Ok(count) => count,
            Err(_) => return Err(EncodeError::TooManyAddresses(self.addresses.len())),
        };
        let (needed, found) = (self.encoded_len(family), buffer.len());
        let Some((header, rest)) =
            buffer.get_mut(..needed).and_then(<[u8]>::split_first_chunk_mut::<HEADER_LEN>)
        else {
            return Err(EncodeError::BufferTooSmall { needed, found });
        };
        let (vrid, [fifth, sixth]) = (self.virtual_router_id.get(), dialect.fifth_and_sixth());
        *header = [dialect.version_type(), vrid, self.priority, count, fifth, sixth, 0, 0];
        let (addresses, trailer) = rest.split_at_mut(rest.len() - dialect.trailer().len());
        trailer.copy_from_slice(dialect.trailer());
        for (slot, &address) in addresses.chunks_exact_mut(address_len(family)).zip(self.addresses) {
            match (family, address) {
                (Family::V4, IpAddr::V4(address)) => slot.copy_from_slice(&address.octets()),
                (Family::V6, IpAddr::V6(address)) => slot.copy_from_slice(&address.octets()),
                _ => return Err(EncodeError::WrongFamily { address, family }),
            }
        }
        let seal = match *dialect {
            Dialect::V2 { .. } => Sum::default(),
            Dialect::V3 { checksum, .. } => pseudo.sum(checksum, needed),
        };
        let checksum = seal.bytes(&buffer[..needed]).checksum();
        buffer[CHECKSUM_AT..][..2].copy_from_slice(&checksum.to_be_bytes());
        Ok(needed)
    }
}

/// Writes another priority into an encoded advert and mends its checksum, whatever mode that is of. Less than a whole
/// header is left alone.
pub fn patch_priority(advert: &mut [u8], priority: u8) {
    patch(advert, PRIORITY_AT, |[_, count]| [priority, count]);
}

/// Writes another interval into an encoded advert of version 3, as [`patch_priority`] does with the priority.
pub fn patch_interval(advert: &mut [u8], interval: Centiseconds) {
    patch(advert, INTERVAL_AT, |_| interval.get().to_be_bytes());
}

/// Changes one 16-bit word of the header, and the checksum with it (RFC 1624, equation 3).
fn patch(advert: &mut [u8], at: usize, change: impl FnOnce([u8; 2]) -> [u8; 2]) {
    let Some((header, _)) = advert.split_first_chunk_mut::<HEADER_LEN>() else { return };
    let before = [header[at], header[at + 1]];
    let after = change(before);
    header[at..][..2].copy_from_slice(&after);
    let checksum = u16::from_be_bytes([header[CHECKSUM_AT], header[CHECKSUM_AT + 1]]);
    let [before, after] = [before, after].map(u16::from_be_bytes);
    let mended = Sum::default().word(!checksum).word(!before).word(after).checksum();
    header[CHECKSUM_AT..].copy_from_slice(&mended.to_be_bytes());
}

/// How an instance reads adverts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Its own: of the other version it accepts nothing.
    pub dialect: Dialect,
    /// Only our own checksum mode is right, and what RFC 9568 lets pass with a log line is dropped.
    pub strict: bool,
}

/// An advert that passed every check that needs no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert<'a> {
    /// The virtual router.
    pub virtual_router_id: VirtualRouterId,
    /// 255 = address owner, 0 = [`LEAVING`].
    pub priority: u8,
    /// The sender's interval: never 0, and in version 2 always our own.
    pub interval: AdvertInterval,
    /// The checksum mode that its sender uses. IPv6 has one only, which counts as [`ChecksumMode::Pseudo`]; so has
    /// version 2, which counts as [`ChecksumMode::Rfc9568`].
    pub checksum: ChecksumMode,
    family: Family,
    addresses: &'a [u8],
}

impl<'a> Advert<'a> {
    /// Reads an IP payload. The reserved bits are ignored (RFC 9568, 5.2.6).
    ///
    /// # Errors
    /// The first check that fails, structure before checksum before meaning.
    pub fn decode(payload: &'a [u8], pseudo: PseudoHeader, options: DecodeOptions) -> Result<Self, Discard> {
        let (family, dialect) = (pseudo.family(), &options.dialect);
        let Some((&[version_type, vrid, priority, count, fifth, sixth, _, _], rest)) =
            payload.split_first_chunk::<HEADER_LEN>()
        else {
            return Err(Discard::TooShort);
        };
        check_version_and_type(version_type, dialect.version(), family)?;
        let virtual_router_id = VirtualRouterId::new(vrid).map_err(|_| Discard::ZeroVrid)?;
        if count == 0 {
            return Err(Discard::ZeroAddresses);
        }
        let addresses_len = usize::from(count) * address_len(family);
        match rest.len().cmp(&(addresses_len + trailer_len(dialect.version()))) {
            Ordering::Less => return Err(Discard::TooShort),
            Ordering::Greater => return Err(Discard::TrailingBytes),
            Ordering::Equal => {}
        }
        let (addresses, trailer) = rest.split_at(addresses_len);
        let checksum = matching_checksum(payload, pseudo, options).ok_or(Discard::BadChecksum)?;
        let interval = match *dialect {
            Dialect::V2 { interval, password } => {
                authenticate(password.as_ref(), fifth, trailer)?;
                agreed_interval(interval, sixth)?.into()
            }
            Dialect::V3 { .. } => Centiseconds::new(u16::from_be_bytes([fifth, sixth]) & INTERVAL_MASK)
                .map_err(|_| Discard::ZeroInterval)?
                .into(),
        };
        let advert = Self { virtual_router_id, priority, interval, checksum, family, addresses };
        if options.strict && advert.first_not_link_local() {
            return Err(Discard::FirstNotLinkLocal);
        }
        Ok(advert)
    }

    /// The addresses in the sender's order: at least one.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = IpAddr> + Clone + use<'a> {
        self.addresses.chunks_exact(address_len(self.family)).map(|bytes| {
            if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
                return octets.into();
            }
            // Four bytes failed, so these are sixteen.
            <[u8; 16]>::try_from(bytes).unwrap_or_default().into()
        })
    }

    /// Whether an IPv6 advert does not begin with a link-local address, as erratum 8300 wants it; worth a log line.
    pub fn first_not_link_local(&self) -> bool {
        match self.addresses().next() {
            Some(IpAddr::V6(first)) => !first.is_unicast_link_local(),
            _ => false,
        }
    }

    /// Whether it lists exactly `ours`, in any order.
    pub fn lists(&self, ours: &[IpAddr]) -> bool {
        let theirs = self.addresses();
        theirs.len() == ours.len()
            && (theirs.clone().eq(ours.iter().copied())
                || (theirs.clone().all(|address| ours.contains(&address))
                    && ours.iter().all(|&address| theirs.clone().any(|listed| listed == address))))
    }

    /// Whether it lists at least one of `ours`: if not, it speaks for another group of routers.
    pub fn lists_any(&self, ours: &[IpAddr]) -> bool {
        self.addresses().any(|address| ours.contains(&address))
    }
}

fn check_version_and_type(version_type: u8, own: Version, family: Family) -> Result<(), Discard> {
    match (version_type >> 4, version_type & 0xf) {
        (2, _) if family == Family::V6 => Err(Discard::BadVersion),
        (version, ADVERTISEMENT) if version == own.get() => Ok(()),
        (version, _) if version == own.get() => Err(Discard::BadType),
        (2 | 3, _) => Err(Discard::VersionMismatch),
        _ => Err(Discard::BadVersion),
    }
}

/// RFC 2338, 7.1: the type that is configured here, and the password if that is what it is about.
fn authenticate(own: Option<&Password>, auth_type: u8, data: &[u8]) -> Result<(), Discard> {
    match (own, auth_type) {
        (None, AUTH_NONE) => Ok(()),
        (Some(own), AUTH_SIMPLE) if data == own.wire() => Ok(()),
        (Some(_), AUTH_SIMPLE) => Err(Discard::WrongPassword),
        (_, AUTH_NONE | AUTH_SIMPLE) => Err(Discard::AuthTypeMismatch),
        _ => Err(Discard::UnknownAuthType),
    }
}

/// RFC 3768, 7.1: nothing is learned; who announces another interval is not heard.
fn agreed_interval(own: Seconds, announced: u8) -> Result<Seconds, Discard> {
    let announced = Seconds::new(announced).map_err(|_| Discard::ZeroInterval)?;
    if announced == own { Ok(own) } else { Err(Discard::IntervalMismatch) }
}

/// The checksum mode that makes the advert right: the configured one if it does, else (not strict) any in use.
fn matching_checksum(payload: &[u8], pseudo: PseudoHeader, options: DecodeOptions) -> Option<ChecksumMode> {
    let advert = Sum::default().bytes(payload).folded();
    let is_right = |mode| pseudo.sum(mode, payload.len()).word(advert).is_valid();
    let own = match options.dialect {
        Dialect::V2 { .. } => {
            return is_right(ChecksumMode::Rfc9568).then_some(ChecksumMode::Rfc9568);
        }
        Dialect::V3 { checksum, .. } => checksum,
    };
    match pseudo.family() {
        Family::V6 => is_right(ChecksumMode::Pseudo).then_some(ChecksumMode::Pseudo),
        Family::V4 if is_right(own) => Some(own),
        Family::V4 if options.strict => None,
        Family::V4 => [ChecksumMode::Pseudo, ChecksumMode::Rfc9568, ChecksumMode::OldUnicast]
            .into_iter()
            .find(|&mode| is_right(mode)),
    }
}

/// Bytes after the addresses.
const fn trailer_len(version: Version) -> usize {
    match version {
        Version::V2 => AUTH_LEN,
        Version::V3 => 0,
    }
}

const fn address_len(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}
