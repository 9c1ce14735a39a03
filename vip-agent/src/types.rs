//! Values with meaning: types that cannot hold what the protocol or the kernel would refuse.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A value outside of the range that its type allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {range}, not {found}")]
pub struct OutOfRange {
    what: &'static str,
    range: &'static str,
    found: String,
}

impl OutOfRange {
    /// Names the thing, its range and what was found.
    pub fn new(what: &'static str, range: &'static str, found: impl fmt::Display) -> Self {
        Self { what, range, found: found.to_string() }
    }
}

/// VRID, 1-255 (RFC 9568, 5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct VirtualRouterId(u8);

impl VirtualRouterId {
    /// # Errors
    /// 0 is not a virtual router.
    pub fn new(id: u8) -> Result<Self, OutOfRange> {
        Self::try_from(u64::from(id))
    }

    /// The number on the wire.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u64> for VirtualRouterId {
    type Error = OutOfRange;

    fn try_from(id: u64) -> Result<Self, OutOfRange> {
        match u8::try_from(id) {
            Ok(id @ 1..) => Ok(Self(id)),
            _ => Err(OutOfRange::new("a virtual router id", "1-255", id)),
        }
    }
}

impl From<VirtualRouterId> for u64 {
    fn from(id: VirtualRouterId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for VirtualRouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Priority of a router that takes part in the election: 1-254, or 255 for the address owner (RFC 9568, 5.2.4).
///
/// 0 is no priority but a message ("I am leaving"): see [`crate::vrrp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Priority(u8);

impl Priority {
    /// The address owner's priority: it is Active whenever it is up.
    pub const OWNER: Self = Self(255);
    /// The lowest one. Nobody yields to it, so it serves to ask who owns.
    pub const LOWEST: Self = Self(1);
    /// The highest one that is not the address owner's.
    pub const HIGHEST: Self = Self(254);
    /// What a Backup has unless configured otherwise (RFC 9568, 5.2.4).
    pub const DEFAULT: Self = Self(100);

    /// # Errors
    /// 0 is no priority.
    pub fn new(priority: u8) -> Result<Self, OutOfRange> {
        Self::try_from(u64::from(priority))
    }

    /// The number on the wire.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Changed by the weights of what is tracked, within 1-254; the address owner's is not changed.
    #[must_use]
    pub fn weighted(self, change: i32) -> Self {
        if self == Self::OWNER {
            return self;
        }
        let (lowest, highest) = (i32::from(Self::LOWEST.0), i32::from(Self::HIGHEST.0));
        let weighted = i32::from(self.0).saturating_add(change).clamp(lowest, highest);
        u8::try_from(weighted).map_or(self, Self)
    }
}

impl TryFrom<u64> for Priority {
    type Error = OutOfRange;

    fn try_from(priority: u64) -> Result<Self, OutOfRange> {
        match u8::try_from(priority) {
            Ok(priority @ 1..) => Ok(Self(priority)),
            _ => Err(OutOfRange::new("a priority", "1-254, or 255 for the address owner", priority)),
        }
    }
}

impl From<Priority> for u64 {
    fn from(priority: Priority) -> Self {
        priority.0.into()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An advertisement interval: 1-4095 centiseconds (RFC 9568, 5.2.7 with erratum 8301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Centiseconds(u16);

impl Centiseconds {
    /// One second: what is used unless configured otherwise (RFC 9568, 6.1).
    pub const SECOND: Self = Self(100);

    /// # Errors
    /// 0 (keepalived would flap) and more than the field's twelve bits.
    pub fn new(centiseconds: u16) -> Result<Self, OutOfRange> {
        match centiseconds {
            1..=4095 => Ok(Self(centiseconds)),
            _ => Err(OutOfRange::new(
                "an advertisement interval",
                "10ms-40.95s",
                format_args!("{centiseconds}0ms"),
            )),
        }
    }

    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The same span as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }
}

impl TryFrom<Duration> for Centiseconds {
    type Error = OutOfRange;

    fn try_from(duration: Duration) -> Result<Self, OutOfRange> {
        let out_of_range = || {
            OutOfRange::new(
                "an advertisement interval",
                "10ms-40.95s in steps of 10ms",
                format_args!("{duration:?}"),
            )
        };
        let nanos = duration.as_nanos();
        if !nanos.is_multiple_of(10_000_000) {
            return Err(out_of_range());
        }
        u16::try_from(nanos / 10_000_000).ok().and_then(|cs| Self::new(cs).ok()).ok_or_else(out_of_range)
    }
}

impl fmt::Display for Centiseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.duration())
    }
}

/// An advertisement interval of version 2: 1-255 whole seconds (RFC 3768, 5.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u8);

impl Seconds {
    /// What is used unless configured otherwise (RFC 3768, 6.1.2).
    pub const ONE: Self = Self(1);

    /// # Errors
    /// 0.
    pub fn new(seconds: u8) -> Result<Self, OutOfRange> {
        match seconds {
            1.. => Ok(Self(seconds)),
            0 => Err(OutOfRange::new("an advertisement interval of version 2", "1s-255s", "0s")),
        }
    }

    /// The number on the wire.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The same span as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl TryFrom<Duration> for Seconds {
    type Error = OutOfRange;

    fn try_from(duration: Duration) -> Result<Self, OutOfRange> {
        let whole = u8::try_from(duration.as_secs()).ok().filter(|_| duration.subsec_nanos() == 0);
        whole.and_then(|seconds| Self::new(seconds).ok()).ok_or_else(|| {
            let range = "1s-255s in whole seconds";
            OutOfRange::new("an advertisement interval of version 2", range, format_args!("{duration:?}"))
        })
    }
}

/// A version of VRRP. A virtual router speaks one; the other's adverts are not for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 3768, with the passwords of RFC 2338: IPv4 alone, whole seconds.
    V2,
    /// RFC 9568.
    V3,
}

impl Version {
    /// The number on the wire and in the configuration.
    pub const fn get(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// How often an Active router advertises, in the unit and range of the version that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdvertInterval {
    /// The same on all routers; a router with another one is not heard (RFC 3768, 7.1).
    V2(Seconds),
    /// Learned by Backups (RFC 9568, 6.1).
    V3(Centiseconds),
}

impl AdvertInterval {
    /// The version that it belongs to.
    pub const fn version(self) -> Version {
        match self {
            Self::V2(_) => Version::V2,
            Self::V3(_) => Version::V3,
        }
    }

    /// The span from one advert to the next.
    pub const fn duration(self) -> Duration {
        match self {
            Self::V2(seconds) => seconds.duration(),
            Self::V3(centiseconds) => centiseconds.duration(),
        }
    }

    /// What every skew is a fraction of: the interval (RFC 9568, 6.1), or a second whatever the interval (RFC 3768,
    /// 6.1.2).
    pub const fn longest_skew(self) -> Duration {
        match self {
            Self::V2(_) => Duration::from_secs(1),
            Self::V3(centiseconds) => centiseconds.duration(),
        }
    }
}

impl From<Seconds> for AdvertInterval {
    fn from(seconds: Seconds) -> Self {
        Self::V2(seconds)
    }
}

impl From<Centiseconds> for AdvertInterval {
    fn from(centiseconds: Centiseconds) -> Self {
        Self::V3(centiseconds)
    }
}

impl fmt::Display for AdvertInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.duration())
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names one station: neither a group nor all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The virtual MAC of a virtual router over one family (RFC 9568, 7.3).
    pub const fn of_virtual_router(id: VirtualRouterId, family: Family) -> Self {
        let block = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        Self([0, 0, 0x5e, 0, block, id.get()])
    }

    /// Whether it is a VRRP virtual MAC, 00:00:5e:00:01:VRID or 00:00:5e:00:02:VRID (RFC 9568, 7.3).
    pub fn is_virtual(self) -> bool {
        matches!(self.0, [0, 0, 0x5e, 0, 1 | 2, _])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A point of CLOCK_MONOTONIC in nanoseconds: the clock of the ownership words (`bpf_ktime_get_ns`).
///
/// A number, so that simulations and tests make their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct MonotonicTime(pub u64);

impl MonotonicTime {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// After everything: a timer that is not armed.
    pub const NEVER: Self = Self(u64::MAX);

    /// Reads the clock.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Self(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
    }

    /// The time that has gone by since `earlier`; nothing if that lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Earlier by `span`, not before zero.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

impl std::ops::Add<Duration> for MonotonicTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How the VRRPv3 checksum over IPv4 is computed; IPv6 always has the pseudo-header (RFC 9568, 5.2.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChecksumMode {
    /// With the IPv4 pseudo-header (source, destination, 0, 112, length): what keepalived and FRR send.
    #[default]
    Pseudo,
    /// Without a pseudo-header: RFC 9568 to the letter.
    Rfc9568,
    /// With a pseudo-header whose destination is 224.0.0.18 although the advert is unicast: old keepalived.
    OldUnicast,
}

/// How the XDP program is to be attached (`xdp_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpModeChoice {
    /// Driver mode where the NIC's driver has it; generic on veth, where answers sent in driver mode arrive only if the
    /// peer runs an XDP program too, and elsewhere.
    #[default]
    Auto,
    /// Driver mode or nothing.
    Driver,
    /// Generic mode.
    Skb,
}

/// An IP version: VRRP elects per family, and everything on the wire exists once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family that an address belongs to; an IPv4-mapped one is IPv6, as it is on the wire.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
