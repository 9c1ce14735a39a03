//! Which interface an instance uses: the choice as configured, and its resolution against the links that exist.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::VipAddress;
use crate::types::OutOfRange;

/// `interface`, `vip_interface`: how an interface is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InterfaceSelector {
    /// By name.
    Name(InterfaceName),
    /// `{subnet: vip}`: the one that has an address in a VIP's subnet.
    #[default]
    VipSubnet,
    /// `{default_route: true}`: the one that a default route leaves by.
    DefaultRoute,
    /// `{regex: "^en"}`: the one whose name matches.
    Pattern(InterfacePattern),
}

impl fmt::Display for InterfaceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::VipSubnet => f.write_str("{subnet: vip}"),
            Self::DefaultRoute => f.write_str("{default_route: true}"),
            Self::Pattern(pattern) => write!(f, "{{regex: {:?}}}", pattern.as_str()),
        }
    }
}

impl Serialize for InterfaceSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = match self {
            Self::Name(name) => return serializer.serialize_str(name.as_str()),
            _ => serializer.serialize_map(Some(1))?,
        };
        match self {
            Self::DefaultRoute => map.serialize_entry("default_route", &true)?,
            Self::Pattern(pattern) => map.serialize_entry("regex", pattern.as_str())?,
            Self::Name(_) | Self::VipSubnet => map.serialize_entry("subnet", "vip")?,
        }
        map.end()
    }
}

/// A name that the kernel would accept: 1-15 bytes, no `/`, `:` or white space, neither `.` nor `..`
/// (`dev_valid_name`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// # Errors
    /// What the kernel would refuse.
    pub fn new(name: &str) -> Result<Self, OutOfRange> {
        let valid = (1..=15).contains(&name.len())
            && !matches!(name, "." | "..")
            && !name.chars().any(|c| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control());
        if !valid {
            let range = "1-15 bytes without `/`, `:` and white space";
            return Err(OutOfRange::new("an interface's name", range, format_args!("{name:?}")));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A regular expression over interface names, found anywhere in them unless anchored.
#[derive(Clone, Debug)]
pub struct InterfacePattern(regex_lite::Regex);

impl InterfacePattern {
    /// # Errors
    /// Not a regular expression.
    pub fn new(pattern: &str) -> Result<Self, regex_lite::Error> {
        regex_lite::Regex::new(pattern).map(Self)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for InterfacePattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for InterfacePattern {}

/// A link as far as the choice needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Whether a default route of either family leaves by it.
    pub default_route: bool,
}

/// Why no link, or no single one, was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No link fits.
    #[error("no interface fits `{selector}`{wanted}; there are {}", list(existing))]
    Missing {
        /// The choice.
        selector: String,
        /// What it looked for, where the choice alone does not say so.
        wanted: String,
        /// All links, by name.
        existing: Vec<String>,
    },
    /// Several fit.
    #[error("several interfaces fit `{selector}`: {}; name one", list(fitting))]
    Several {
        /// The choice.
        selector: String,
        /// Those that fit, by name.
        fitting: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Chooses among links; yields an index into `links`.
///
/// # Errors
/// No link fits, or several.
pub fn resolve(
    selector: &InterfaceSelector,
    vips: &[VipAddress],
    links: &[LinkView],
) -> Result<usize, ResolveError> {
    let fits = |link: &LinkView| match selector {
        InterfaceSelector::Name(name) => link.name == name.as_str(),
        InterfaceSelector::VipSubnet => vips.iter().any(|vip| in_subnet_of(vip.address, link)),
        InterfaceSelector::DefaultRoute => link.default_route,
        InterfaceSelector::Pattern(pattern) => pattern.0.is_match(&link.name),
    };
    let fitting: Vec<usize> = (0..links.len()).filter(|&index| fits(&links[index])).collect();
    match fitting[..] {
        [index] => Ok(index),
        [] => Err(ResolveError::Missing {
            selector: selector.to_string(),
            wanted: wanted(selector, vips),
            existing: links.iter().map(|link| link.name.clone()).collect(),
        }),
        _ => Err(ResolveError::Several {
            selector: selector.to_string(),
            fitting: fitting.iter().map(|&index| links[index].name.clone()).collect(),
        }),
    }
}

/// Whether the link has an address in whose subnet the VIP lies.
///
/// A host route (/32, /128) is no subnet: it may be the VIP itself, staged on lo. Every link is on the link-local
/// IPv6 prefix, so that says nothing.
pub fn in_subnet_of(vip: IpAddr, link: &LinkView) -> bool {
    let link_local = matches!(vip, IpAddr::V6(address) if address.is_unicast_link_local());
    !link_local
        && link.addresses.iter().any(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&vip))
}

fn wanted(selector: &InterfaceSelector, vips: &[VipAddress]) -> String {
    if *selector != InterfaceSelector::VipSubnet {
        return String::new();
    }
    let vips: Vec<String> = vips.iter().take(3).map(|vip| vip.address.to_string()).collect();
    format!(" (none has an address in a subnet of {})", vips.join(", "))
}
