//! Addresses that a VIP or a peer can have: of a configuration file, and of a cluster's objects, which are held to the same.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Serialize, Serializer};

/// A VIP as written: `10.0.0.50` or `10.0.0.50/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VipAddress {
    /// A unicast address that no host has as its own.
    pub address: IpAddr,
    /// Length of its subnet's prefix, if that was written.
    pub prefix: Option<u8>,
}

impl fmt::Display for VipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            None => self.address.fmt(f),
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
        }
    }
}

impl Serialize for VipAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text is no VIP, or no node's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself")]
pub enum AddressError {
    #[error(
        "{0:?} is not an IP address, with or without a prefix length (`10.0.0.50`, `10.0.0.50/24`, `fd00::50/64`)"
    )]
    NoVip(String),
    #[error("{0:?} is not an IP address")]
    NoAddress(String),
    #[error("the prefix length of {address} must be 1-{longest}, not {found}")]
    PrefixLength { address: IpAddr, longest: u8, found: u8 },
    #[error("{address} is {what}: it cannot name one node")]
    NoUnicast { address: IpAddr, what: &'static str },
    #[error("{vip} is {what} of its subnet: it cannot name one node")]
    NoHost { vip: VipAddress, what: &'static str },
}

/// Reads `10.0.0.50`, `10.0.0.50/24`, `fd00::50`, `fd00::50/64`.
///
/// # Errors
/// It is no address, or one that no single node can have.
pub fn vip(text: &str) -> Result<VipAddress, AddressError> {
    let no_vip = || AddressError::NoVip(text.to_owned());
    let (address, prefix) = match text.split_once('/') {
        None => (text, None),
        Some((address, prefix)) if prefix.bytes().all(|b| b.is_ascii_digit()) => {
            (address, Some(prefix.parse::<u8>().map_err(|_| no_vip())?))
        }
        Some(_) => return Err(no_vip()),
    };
    let address: IpAddr = address.parse().map_err(|_| no_vip())?;
    let vip = VipAddress { address, prefix };
    check_unicast(address)?;
    check_prefix(vip)?;
    Ok(vip)
}

/// Reads the address of a node.
///
/// # Errors
/// It is no address, or one that no single node can have.
pub fn node(text: &str) -> Result<IpAddr, AddressError> {
    let address = text.parse().map_err(|_| AddressError::NoAddress(text.to_owned()))?;
    check_unicast(address)?;
    Ok(address)
}

fn check_unicast(address: IpAddr) -> Result<(), AddressError> {
    let what = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
        IpAddr::V4(address) if address.octets()[0] == 0 => "in 0.0.0.0/8 (\"this network\")",
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => "an IPv4 address written as IPv6",
        _ => return Ok(()),
    };
    Err(AddressError::NoUnicast { address, what })
}

/// The first and the last address of an IPv4 subnet are no host's, /31 excepted (RFC 3021).
fn check_prefix(vip: VipAddress) -> Result<(), AddressError> {
    let Some(found) = vip.prefix else { return Ok(()) };
    let longest = if vip.address.is_ipv4() { 32 } else { 128 };
    if !(1..=longest).contains(&found) {
        return Err(AddressError::PrefixLength { address: vip.address, longest, found });
    }
    let IpAddr::V4(address) = vip.address else { return Ok(()) };
    let host = u32::MAX.checked_shr(found.into()).unwrap_or(0);
    match address.to_bits() & host {
        0 if found < 31 => Err(AddressError::NoHost { vip, what: "the network address" }),
        bits if bits == host && found < 31 => {
            Err(AddressError::NoHost { vip, what: "the broadcast address" })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vip_is_a_unicast_address_with_or_without_a_prefix_length() {
        for text in [
            "10.0.0.50",
            "10.0.0.50/24",
            "10.0.0.0/31",
            "10.0.0.1/31",
            "10.0.0.0/32",
            "10.0.0.0",
            "169.254.1.1",
        ] {
            assert_eq!(vip(text).unwrap().to_string(), text);
        }
        for text in ["fd00::50", "fd00::50/64", "fe80::1", "2001:db8::/128"] {
            assert_eq!(vip(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_no_node_can_have_is_no_vip() {
        let table = [
            ("0.0.0.0", "0.0.0.0 is the unspecified address: it cannot name one node"),
            ("::", ":: is the unspecified address: it cannot name one node"),
            ("0.1.2.3", "0.1.2.3 is in 0.0.0.0/8 (\"this network\"): it cannot name one node"),
            ("127.0.0.1", "127.0.0.1 is a loopback address: it cannot name one node"),
            ("::1", "::1 is a loopback address: it cannot name one node"),
            ("224.0.0.18", "224.0.0.18 is a multicast address: it cannot name one node"),
            ("ff02::12", "ff02::12 is a multicast address: it cannot name one node"),
            ("255.255.255.255", "255.255.255.255 is the broadcast address: it cannot name one node"),
            (
                "::ffff:10.0.0.1",
                "::ffff:10.0.0.1 is an IPv4 address written as IPv6: it cannot name one node",
            ),
            ("10.0.0.0/24", "10.0.0.0/24 is the network address of its subnet: it cannot name one node"),
            (
                "10.0.0.255/24",
                "10.0.0.255/24 is the broadcast address of its subnet: it cannot name one node",
            ),
            ("10.0.0.1/0", "the prefix length of 10.0.0.1 must be 1-32, not 0"),
            ("10.0.0.1/33", "the prefix length of 10.0.0.1 must be 1-32, not 33"),
            ("fd00::1/129", "the prefix length of fd00::1 must be 1-128, not 129"),
        ];
        for (text, expected) in table {
            assert_eq!(vip(text).unwrap_err().to_string(), expected);
        }
        for text in [
            "",
            "/",
            "10.0.0",
            "10.0.0.1/",
            "10.0.0.1/+4",
            "10.0.0.1/256",
            "10.0.0.1/24/1",
            "fe80::1%eth0",
            "a",
        ] {
            assert_eq!(vip(text), Err(AddressError::NoVip(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-f:./]*|.*") {
            let _ = vip(&text);
        }
    }
}
