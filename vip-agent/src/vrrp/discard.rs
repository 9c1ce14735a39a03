//! Why an advert was not accepted: one word for the log, one label for the counter.

use std::fmt;

macro_rules! discards {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame is no advert for us. Nothing that is discarded touches a timer (RFC 9568, 7.1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Discard {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Discard {
            /// Every reason, in the order of their discriminants: `ALL[d as usize] == d`.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable name: the `result` label of `viplane_adverts_total`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

discards! {
    /// Neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// The frame ends before the packet does, or was longer than any advert may be.
    Truncated = "truncated",
    /// IP version or header length that cannot be.
    BadIpHeader = "bad_ip_header",
    /// IPv4 header checksum.
    BadIpChecksum = "bad_ip_checksum",
    /// A fragment: an advert fits one packet.
    Fragment = "fragment",
    /// Another protocol than 112, or (IPv6) an extension header before it.
    NotVrrp = "not_vrrp",
    /// Shorter than its header and its address count say (RFC 9568, 7.1).
    TooShort = "too_short",
    /// Longer than its address count says: keepalived rejects it too.
    TrailingBytes = "trailing_bytes",
    /// Neither version 2 nor 3, or version 2 over IPv6.
    BadVersion = "bad_version",
    /// Version 2 where version 3 is configured, or the reverse.
    VersionMismatch = "version_mismatch",
    /// No authentication trailer, where one is needed; accepted while a group is changing over.
    Unsigned = "unsigned",
    /// An authentication trailer, where we have no key: accepted.
    UnexpectedTrailer = "unexpected_trailer",
    /// Signed by none of our keys.
    UnknownKey = "unknown_key",
    /// By the trailer signed by a key of ours, but not this advert.
    BadSignature = "bad_signature",
    /// Signed by a key of ours, and heard before, or older than what was heard.
    Replayed = "replayed",
    /// Another type than 1, ADVERTISEMENT.
    BadType = "bad_type",
    /// Virtual router 0 does not exist.
    ZeroVrid = "zero_vrid",
    /// No instance of that virtual router on the interface.
    UnknownVrid = "unknown_vrid",
    /// No address (RFC 9568, erratum 8299).
    ZeroAddresses = "zero_addresses",
    /// Interval 0 (RFC 9568, erratum 8301): a Backup that learned it would flap.
    ZeroInterval = "zero_interval",
    /// Version 2: another interval than ours (RFC 3768, 7.1).
    IntervalMismatch = "interval_mismatch",
    /// Version 2: neither none nor a password (RFC 2338 had type 2, IP Authentication Header).
    UnknownAuthType = "unknown_auth_type",
    /// Version 2: a password where we have none, or none where we have one.
    AuthTypeMismatch = "auth_type_mismatch",
    /// Version 2: another password than ours.
    WrongPassword = "wrong_password",
    /// None of the checksums in use, or (strict) not the configured one. Version 2 has one only.
    BadChecksum = "bad_checksum",
    /// TTL or hop limit below 255 (multicast), or below `min_ttl` (unicast).
    BadTtl = "bad_ttl",
    /// Unicast to a multicast instance, the reverse, or to an address that is not ours.
    WrongDestination = "wrong_destination",
    /// From our own address, but not from our MAC: another host has it.
    OwnSource = "own_source",
    /// From an address that no host may send from.
    BadSource = "bad_source",
    /// Not from a configured unicast peer.
    UnknownPeer = "unknown_peer",
    /// Strict: an IPv6 multicast advert comes from a link-local address (RFC 9568, 5.1.2.1).
    SourceNotLinkLocal = "source_not_link_local",
    /// Strict: the first IPv6 address is link-local (RFC 9568, erratum 8300).
    FirstNotLinkLocal = "first_not_link_local",
    /// Strict: other addresses than ours. In version 2 not those of an address owner (RFC 3768, 7.1).
    AddressMismatch = "address_mismatch",
    /// Strict: none of our addresses. Another group of routers uses our VRID.
    VridClash = "vrid_clash",
    /// From our own MAC: a loop of the network gives our frames back, or another machine has our MAC. Discarded if it comes
    /// from our own address as well, or strict.
    OwnMac = "own_mac",
}

/// How often each reason occurred. Fixed in size: the driver counts without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardCounts([u64; Discard::ALL.len()]);

impl DiscardCounts {
    /// Counts one.
    pub const fn add(&mut self, why: Discard) {
        self.0[why as usize] += 1;
    }

    /// How often this one occurred.
    pub const fn of(&self, why: Discard) -> u64 {
        self.0[why as usize]
    }

    /// Counts all that was counted elsewhere.
    pub fn add_all(&mut self, others: &Self) {
        self.0.iter_mut().zip(others.0).for_each(|(count, more)| *count += more);
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> {
        Discard::ALL.iter().zip(self.0).filter(|(_, count)| *count > 0).map(|(why, count)| (*why, count))
    }
}

impl Default for DiscardCounts {
    fn default() -> Self {
        Self([0; Discard::ALL.len()])
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discriminant_is_an_index_into_all() {
        for (index, &discard) in Discard::ALL.iter().enumerate() {
            assert_eq!(discard as usize, index);
        }
    }

    #[test]
    fn each_reason_is_counted_apart() {
        let mut counts = DiscardCounts::default();
        counts.add(Discard::BadTtl);
        counts.add(Discard::NotIp);
        counts.add(Discard::BadTtl);
        assert_eq!(counts.total(), 3);
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(Discard::NotIp, 1), (Discard::BadTtl, 2)]);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> =
            Discard::ALL.iter().map(|discard| discard.name()).collect();
        assert_eq!(names.len(), Discard::ALL.len());
    }
}
