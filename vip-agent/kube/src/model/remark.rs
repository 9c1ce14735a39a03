//! What somebody should know of an object: for its Events and conditions, for status and log.

use std::fmt;

use vip_kube_protocol::ObjectName;

/// Something about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// Which.
    pub about: About,
    /// What kind of trouble it is in.
    pub trouble: Trouble,
    /// In words: what, and what to do.
    pub message: String,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the kind of its name")]
pub enum About {
    ConfigMap(ObjectName),
    Service(ObjectName),
    Node(String),
    VipPool(String),
    VirtualIp(ObjectName),
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap(name) => write!(f, "ConfigMap {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::VipPool(name) => write!(f, "VipPool {name}"),
            Self::VirtualIp(name) => write!(f, "VirtualIP {name}"),
        }
    }
}

/// The trouble that an object is in: the reason of its Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// What it claims is another's.
    Conflict,
    /// It cannot be understood.
    Invalid,
    /// It waits for something: an address, endpoints.
    Pending,
    /// There is no room for it.
    Exhausted,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conflict => "Conflict",
            Self::Invalid => "Invalid",
            Self::Pending => "Pending",
            Self::Exhausted => "Exhausted",
        })
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.about, self.trouble, self.message)
    }
}
