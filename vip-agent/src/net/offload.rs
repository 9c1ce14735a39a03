//! What a NIC does with frames before XDP sees them: tags that it takes away, frames that it puts together.

use std::collections::BTreeSet;
use std::io;

use super::ethtool;
use super::genetlink::{Attribute, Genetlink, attributes};

// Of linux/ethtool.h; `libc` has none of it.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

// Of linux/ethtool_netlink.h.
const FEATURES_GET: u8 = 11;
const FEATURES_HEADER: u16 = 1;
const FEATURES_ACTIVE: u16 = 4;
const HEADER_DEV_INDEX: u16 = 1;
const BITSET_NOMASK: u16 = 1;
const BITSET_BITS: u16 = 3;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// Whether the NIC takes VLAN tags off (`rx-vlan-offload`): then XDP sees tagged frames as untagged ones.
///
/// # Errors
/// No such interface in this network namespace.
pub fn strips_vlan_tags(interface: &str) -> io::Result<bool> {
    Ok(ethtool::flags(interface)? & ETH_FLAG_RXVLAN != 0)
}

/// Whether the NIC puts received segments together (large receive offload).
///
/// # Errors
/// No such interface in this network namespace.
pub fn has_lro(interface: &str) -> io::Result<bool> {
    Ok(ethtool::flags(interface)? & ETH_FLAG_LRO != 0)
}

/// The offloads that are on, by the names of `ethtool -k` (`rx-gro-hw`...); `None` where the kernel has no netlink for it
/// (CONFIG_ETHTOOL_NETLINK, 5.6).
///
/// # Errors
/// No such interface in this network namespace.
pub fn active(ifindex: u32) -> io::Result<Option<BTreeSet<String>>> {
    let Some(ethtool) = Genetlink::open("ethtool")? else { return Ok(None) };
    let index = Attribute::new(HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
    let answer = ethtool.ask(FEATURES_GET, &Attribute::nest(FEATURES_HEADER, &[index]))?;
    let active = attributes(&answer).find(|(kind, _)| *kind == FEATURES_ACTIVE);
    Ok(Some(active.map(|(_, bitset)| names(bitset)).unwrap_or_default()))
}

/// The names of a bitset's set bits. Without a mask only set ones are listed.
fn names(bitset: &[u8]) -> BTreeSet<String> {
    let all_set = attributes(bitset).any(|(kind, _)| kind == BITSET_NOMASK);
    let bits = attributes(bitset).filter(|(kind, _)| *kind == BITSET_BITS);
    bits.flat_map(|(_, bits)| attributes(bits))
        .filter(|(_, bit)| all_set || attributes(bit).any(|(kind, _)| kind == BIT_VALUE))
        .filter_map(|(_, bit)| attributes(bit).find(|(kind, _)| *kind == BIT_NAME))
        .map(|(_, name)| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
        .collect()
}

// Of linux/netdev.h (6.3).
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
const XDP_BASIC: u64 = 1;
const XDP_RX_SG: u64 = 1 << 5;

/// What a driver can do with XDP programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// It runs them: the verdicts PASS, DROP, TX and ABORTED.
    pub basic: bool,
    /// It gives them frames in fragments: those longer than a page.
    pub fragments: bool,
}

/// What the driver of an interface can do with XDP programs as it is set up now; `None` where the kernel does not tell
/// (before 6.3).
///
/// # Errors
/// No such interface in this network namespace.
pub fn xdp_features(ifindex: u32) -> io::Result<Option<XdpFeatures>> {
    let Some(netdev) = Genetlink::open("netdev")? else { return Ok(None) };
    let answer = netdev.ask(DEV_GET, &Attribute::new(DEV_IFINDEX, &ifindex.to_ne_bytes()))?;
    let found = attributes(&answer).find(|(kind, _)| *kind == DEV_XDP_FEATURES);
    let bits = found.and_then(|(_, value)| Some(u64::from_ne_bytes(value.try_into().ok()?)));
    Ok(bits.map(|bits| XdpFeatures { basic: bits & XDP_BASIC != 0, fragments: bits & XDP_RX_SG != 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit(name: &str, set: bool) -> Attribute {
        let name = Attribute::new(BIT_NAME, format!("{name}\0").as_bytes());
        let value = Attribute::new(BIT_VALUE, &[]);
        let parts = [name, value];
        Attribute::nest(1, if set { &parts } else { &parts[..1] })
    }

    #[test]
    fn of_a_bitset_with_a_mask_only_what_is_set_counts() {
        let bits = Attribute::nest(BITSET_BITS, &[bit("rx-lro", true), bit("rx-gro-hw", false)]);
        assert_eq!(names(bits.bytes()), BTreeSet::from(["rx-lro".to_owned()]));
    }

    #[test]
    fn of_a_bitset_without_a_mask_all_that_is_listed_is_set() {
        let bits = Attribute::nest(BITSET_BITS, &[bit("rx-lro", false), bit("rx-gro-hw", false)]);
        let bitset = [Attribute::new(BITSET_NOMASK, &[]).bytes(), bits.bytes()].concat();
        assert_eq!(names(&bitset), BTreeSet::from(["rx-gro-hw".to_owned(), "rx-lro".to_owned()]));
    }
}
