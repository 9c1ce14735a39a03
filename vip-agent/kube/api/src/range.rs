//! Ranges of addresses that VIPs are taken from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Consecutive addresses of one family, at least one, all of which a host can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    /// Of the same family, not before `first`.
    last: IpAddr,
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself")]
pub enum RangeError {
    #[error("{0:?} is no range of addresses: write `10.0.0.64/28`, `10.0.0.100-10.0.0.120` or `10.0.0.50`")]
    NoRange(String),
    #[error("{text}: the prefix length must be 1-{longest}")]
    PrefixLength { text: String, longest: u8 },
    #[error("{text}: {address} is within the subnet, which begins with {network}: write {network}/{prefix}")]
    HostBits { text: String, address: IpAddr, network: IpAddr, prefix: u8 },
    #[error("{0}: the first address must come before the last one, and be of the same family")]
    Backwards(String),
    #[error("{text}: there are addresses in it that are {what}")]
    NoHosts { text: String, what: &'static str },
}

/// Addresses that no host has.
const NO_HOSTS: [(IpAddr, IpAddr, &str); 6] = [
    (v4(0, 0, 0, 0), v4(0, 255, 255, 255), "in 0.0.0.0/8 (\"this network\")"),
    (v4(127, 0, 0, 0), v4(127, 255, 255, 255), "loopback addresses"),
    (v4(224, 0, 0, 0), v4(255, 255, 255, 255), "multicast, reserved or broadcast addresses"),
    (
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        "the unspecified or the loopback one",
    ),
    (
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)),
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xffff, 0xffff)),
        "IPv4 addresses written as IPv6",
    ),
    (
        IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)),
        IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
        "multicast addresses",
    ),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

impl AddressRange {
    /// Reads `10.0.0.64/28`, `10.0.0.100-10.0.0.120` or `10.0.0.50`. A CIDR stands for all of its addresses, the first and the last included:
    /// a VIP has no subnet of its own.
    ///
    /// # Errors
    /// It is none, or holds addresses that no host can have.
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let no_range = || RangeError::NoRange(text.to_owned());
        let read = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| no_range());
        let range = match (text.split_once('/'), text.split_once('-')) {
            (Some((address, prefix)), _) => {
                let prefix = prefix.parse().map_err(|_| no_range())?;
                Self::of_subnet(text, read(address)?, prefix)?
            }
            (None, Some((first, last))) => Self { first: read(first)?, last: read(last)? },
            (None, None) => {
                let address = read(text)?;
                Self { first: address, last: address }
            }
        };
        if range.first.is_ipv4() != range.last.is_ipv4() || range.last < range.first {
            return Err(RangeError::Backwards(text.to_owned()));
        }
        match NO_HOSTS.iter().find(|(first, last, _)| range.overlaps(&Self { first: *first, last: *last })) {
            Some((_, _, what)) => Err(RangeError::NoHosts { text: text.to_owned(), what }),
            None => Ok(range),
        }
    }

    fn of_subnet(text: &str, address: IpAddr, prefix: u8) -> Result<Self, RangeError> {
        let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
        if !(1..=longest).contains(&prefix) {
            return Err(RangeError::PrefixLength { text: text.to_owned(), longest });
        }
        let host = u128::MAX.checked_shr(u32::from(128 - longest + prefix)).unwrap_or(0);
        let (first, last) = (bits(address) & !host, bits(address) | host);
        let network = like(address, first);
        if network != address {
            return Err(RangeError::HostBits { text: text.to_owned(), address, network, prefix });
        }
        Ok(Self { first: network, last: like(address, last) })
    }

    /// Whether the addresses are of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether it is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// Whether one address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.is_ipv4() == other.is_ipv4() && self.first <= other.last && other.first <= self.last
    }

    /// The addresses in order, without those that `avoid_buggy` leaves out.
    pub fn addresses(&self, avoid_buggy: bool) -> impl Iterator<Item = IpAddr> + use<> {
        let Self { first, last } = *self;
        (bits(first)..=bits(last))
            .map(move |bits| like(first, bits))
            .filter(move |address| !avoid_buggy || !is_buggy(*address))
    }

    /// How many [`Self::addresses`] yields.
    pub fn count(&self, avoid_buggy: bool) -> u128 {
        let (first, last) = (bits(self.first), bits(self.last));
        let all = last - first + 1;
        if !avoid_buggy || !self.is_ipv4() {
            return all;
        }
        // Of those up to `end`, without it.
        let below = |end: u128| 2 * (end / 256) + u128::from(!end.is_multiple_of(256));
        all - (below(last + 1) - below(first))
    }
}

/// Whether some clients take it for no host's.
pub fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if matches!(address.octets()[3], 0 | 255))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of the same family with these bits.
fn like(other: IpAddr, bits: u128) -> IpAddr {
    match other {
        // Bits beyond those of the family are nobody's: all come from addresses of it.
        IpAddr::V4(_) => {
            Ipv4Addr::from_bits(u32::try_from(bits & u128::from(u32::MAX)).unwrap_or(u32::MAX)).into()
        }
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}
