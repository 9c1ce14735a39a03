//! What a valid configuration says: types that hold no value which a check refused.
//!
//! [`crate::config::parse`] makes them; their serialised form is the configuration file's own
//! ([`crate::config::effective`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use vip_kube_protocol::{Kubernetes, VipAddress};

use super::api::Api;
use super::check::{Check, Question};
use super::detect::Detect;
use super::duration::Span;
use super::flow_sync::FlowSync;
use super::interface::InterfaceSelector;
use super::security::Security;
use super::service::Service;
use crate::health::Weight;
use crate::types::{
    AdvertInterval, Centiseconds, ChecksumMode, OutOfRange, Priority, Seconds, Version, VirtualRouterId,
    XdpModeChoice,
};
use crate::vrrp::auth::{MASK, Password};
use crate::vrrp::trailer::KeyRing;

/// A whole configuration, all defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// This node's name in status and logs.
    pub node: String,
    /// Where the control socket and the lock are; absolute.
    pub runtime_dir: PathBuf,
    /// Where the last good configuration and saved settings are; absolute.
    pub state_dir: PathBuf,
    /// Where maps and links are pinned; `None`: nowhere.
    pub pin_dir: Option<PathBuf>,
    /// What is logged and how.
    pub log: Log,
    /// The HTTP API; `None`: there is none.
    pub api: Option<Api>,
    /// What the agent gives up once it has started.
    pub security: Security,
    /// Whether a changed file is applied without being asked to.
    pub reload_on_change: bool,
    /// Where instances are that choose no interface of their own, those of Kubernetes' objects among them.
    pub interface: InterfaceSelector,
    /// How the program is attached to interfaces.
    pub xdp_mode: XdpModeChoice,
    /// How peers are told of flows; `None`: they are not.
    pub flow_sync: Option<FlowSync>,
    /// What instances may track, by their names in the file's order.
    pub probes: Vec<Probe>,
    /// Virtual routers, by their names in the file's order.
    pub instances: Vec<Instance>,
    /// The cluster whose objects make further instances; `None`: none does.
    pub kubernetes: Option<Kubernetes>,
    /// Who serves ports of their VIPs, by their names in the file's order.
    pub services: Vec<Service>,
}

impl Config {
    /// The control socket's path when no `--control` names another one.
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.runtime_dir)
    }

    /// The instance of that name.
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name.as_str() == name)
    }

    /// Whether there is, or may come to be, traffic that is steered.
    pub fn may_steer(&self) -> bool {
        !self.services.is_empty() || self.kubernetes.as_ref().is_some_and(|kubernetes| kubernetes.steering)
    }

    /// Whether a probe executes something.
    pub fn runs_commands(&self) -> bool {
        let is_command = |probe: &Probe| matches!(probe.check, Check::Polled(Question::Exec(_), _));
        self.probes.iter().any(is_command)
    }

    /// The members of a sync group.
    pub fn members<'a>(&'a self, group: &'a Name) -> impl Iterator<Item = &'a Instance> {
        self.instances.iter().filter(move |instance| instance.sync_group.as_ref() == Some(group))
    }
}

/// `probes`: something that instances track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Unique in the file.
    pub name: Name,
    /// What it looks at.
    pub check: Check,
    /// What its verdict means.
    pub weight: Weight,
}

/// The control socket's path below a runtime directory.
pub fn control_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("agent.sock")
}

/// `log`: what is logged and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Log {
    /// The least severe level that is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And what an administrator should look at.
    Warn,
    /// And transitions.
    #[default]
    Info,
    /// And what led to them.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the configuration, which the log's filter knows as well.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A virtual router: VIPs that move together. With VIPs of both families it is one VRRP router each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Unique on this node.
    pub name: InstanceName,
    /// VRID, the same on all nodes that share the VIPs.
    pub virtual_router_id: VirtualRouterId,
    /// Where adverts go.
    pub interface: InterfaceSelector,
    /// Where VIPs are answered.
    pub vip_interface: InterfaceSelector,
    /// `version` and the keys that depend on it.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// Priority in the election.
    pub priority: Priority,
    /// Whether a Backup of higher priority takes over from an Active that lives.
    pub preempt: bool,
    /// How long it waits before it does.
    #[serde(serialize_with = "span")]
    pub preempt_delay: Duration,
    /// How long after the start no election is entered.
    #[serde(serialize_with = "span")]
    pub hold_down: Duration,
    /// Whether traffic to the VIPs is taken while Active; at priority 255 it is in any case ([`Instance::accepts`]).
    pub accept: bool,
    /// Whether adverts are dropped that RFC 9568 lets pass with a log line.
    pub strict: bool,
    /// Whether the virtual router's own MACs answer for the VIPs (RFC 9568, 7.3), not the interface's.
    pub virtual_mac: bool,
    /// Peers by address; `None`: multicast.
    pub unicast: Option<Unicast>,
    /// What moves: at least one, at most 255 of each family.
    pub vips: Vec<VipAddress>,
    /// By what adverts are signed; `None`: by nothing.
    pub auth_trailer: Option<AuthTrailer>,
    /// What becomes of it if another station has a VIP at the start.
    pub on_conflict: OnConflict,
    /// When VIPs are addresses of this node.
    pub local_address: LocalAddress,
    /// How a new owner makes itself known.
    pub announce: Announce,
    /// How long connections are served by the former owner after a planned move.
    #[serde(serialize_with = "span")]
    pub grace: Duration,
    /// The probes whose verdicts count.
    pub track: Vec<Name>,
    /// What becomes of the VIPs when their owner is unhealthy and nobody else takes them.
    pub all_failed: AllFailed,
    /// The instances that own together: all of the same name.
    pub sync_group: Option<Name>,
    /// How dead hosts are found sooner than by their adverts; `None`: not at all.
    pub detect: Option<Detect>,
}

impl Instance {
    /// The IPv4 VIPs.
    pub fn vips_v4(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.vips.iter().filter_map(|vip| match vip.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// The IPv6 VIPs.
    pub fn vips_v6(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.vips.iter().filter_map(|vip| match vip.address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        })
    }

    /// Whether traffic to the VIPs is taken while Active: the address owner always does (RFC 9568, 6.4.3).
    pub fn accepts(&self) -> bool {
        self.accept || self.priority == Priority::OWNER
    }

    /// When VIPs are addresses of this node: as configured, but for those whose traffic is not taken, which need no address
    /// while Active. On Backups they may: somebody else may steer traffic there.
    pub fn stands_on_lo(&self) -> LocalAddress {
        match self.local_address {
            LocalAddress::Active if !self.accepts() => LocalAddress::Never,
            configured => configured,
        }
    }

    /// Virtual routers (ownership words) that this instance needs: one for each family that it has VIPs of.
    pub fn routers(&self) -> usize {
        usize::from(self.vips_v4().next().is_some()) + usize::from(self.vips_v6().next().is_some())
    }
}

/// `version`, and what it makes of `advert_interval`, `checksum` and `auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 3768. The instance has IPv4 VIPs only.
    V2 {
        /// How often the Active router says that it lives: the same on all nodes.
        advert_interval: Seconds,
        /// What proves that an advert is of a router of the same set-up.
        auth: Option<Auth>,
    },
    /// RFC 9568.
    V3 {
        /// How often the Active router says that it lives.
        advert_interval: Centiseconds,
        /// Checksum of the adverts sent over IPv4.
        checksum: ChecksumMode,
    },
}

impl Protocol {
    /// The version.
    pub const fn version(&self) -> Version {
        self.advert_interval().version()
    }

    /// How often the Active router says that it lives.
    pub const fn advert_interval(&self) -> AdvertInterval {
        match *self {
            Self::V2 { advert_interval, .. } => AdvertInterval::V2(advert_interval),
            Self::V3 { advert_interval, .. } => AdvertInterval::V3(advert_interval),
        }
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::V3 { advert_interval: Centiseconds::SECOND, checksum: ChecksumMode::default() }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut protocol = serializer.serialize_struct("Protocol", 3)?;
        protocol.serialize_field("version", &self.version().get())?;
        protocol.serialize_field("advert_interval", &Span(self.advert_interval().duration()).to_string())?;
        match self {
            Self::V2 { auth, .. } => protocol.serialize_field("auth", auth)?,
            Self::V3 { checksum, .. } => protocol.serialize_field("checksum", checksum)?,
        }
        protocol.end()
    }
}

/// `auth`: the password of VRRP version 2. Its serialised form does not hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Written in the configuration.
    Password(Password),
    /// Read from a file that others cannot read.
    PasswordFile {
        /// Absolute.
        path: PathBuf,
        /// What it held when the configuration was read.
        password: Password,
    },
}

impl Auth {
    /// The password, wherever it stands.
    pub const fn password(&self) -> &Password {
        match self {
            Self::Password(password) | Self::PasswordFile { password, .. } => password,
        }
    }
}

impl Serialize for Auth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut auth = serializer.serialize_map(Some(1))?;
        match self {
            Self::Password(_) => auth.serialize_entry("password", MASK)?,
            Self::PasswordFile { path, .. } => auth.serialize_entry("password_file", path)?,
        }
        auth.end()
    }
}

/// `auth_trailer`: signed adverts. Its serialised form does not hold the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuthTrailer {
    /// Absolute.
    pub key_file: PathBuf,
    /// What it held when the configuration was read.
    #[serde(skip)]
    pub keys: KeyRing,
    /// Whether unsigned adverts are heard, too.
    pub accept_unsigned: bool,
}

/// The name of an instance, a probe or a sync group: 1-63 of `A-Z a-z 0-9 . _ -`, the first a letter or digit, as it is
/// part of file names and metric labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// An instance's name.
pub type InstanceName = Name;

impl Name {
    /// An instance's name.
    ///
    /// # Errors
    /// Empty, too long or of other characters.
    pub fn new(name: &str) -> Result<Self, OutOfRange> {
        Self::of("an instance's name", name)
    }

    /// The name of something else, `what`, as an error calls it.
    ///
    /// # Errors
    /// Empty, too long or of other characters.
    pub fn of(what: &'static str, name: &str) -> Result<Self, OutOfRange> {
        let valid = (1..=63).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !valid {
            let range = "1-63 of A-Z a-z 0-9 . _ - and begin with a letter or digit";
            return Err(OutOfRange::new(what, range, format_args!("{name:?}")));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of what is asked of a backend by this probe: `ingress@10.0.1.7`. No name in a file looks like it.
    pub(super) fn at(&self, backend: IpAddr) -> Self {
        Self(format!("{}@{backend}", self.0))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `unicast`: adverts go to peers by address instead of to the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unicast {
    /// Source of the IPv4 adverts; there if, and only if, the instance has IPv4 VIPs.
    pub source_v4: Option<Ipv4Addr>,
    /// Source of the IPv6 adverts; there if, and only if, the instance has IPv6 VIPs.
    pub source_v6: Option<Ipv6Addr>,
    /// The other nodes: at least one of each family that the VIPs have, none of another, each once.
    pub peers: Vec<IpAddr>,
    /// Adverts of a lower TTL or hop limit (1-255) are dropped; `None`: any is taken.
    pub min_ttl: Option<u8>,
}

impl Unicast {
    /// The IPv4 peers.
    pub fn peers_v4(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.peers.iter().filter_map(|peer| match peer {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    /// The IPv6 peers.
    pub fn peers_v6(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.peers.iter().filter_map(|peer| match peer {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(*address),
        })
    }

    /// The sources, IPv4 first.
    pub fn sources(&self) -> impl Iterator<Item = IpAddr> {
        self.source_v4.map(IpAddr::V4).into_iter().chain(self.source_v6.map(IpAddr::V6))
    }
}

/// `source` stands as one address where there is one, else as a list.
impl Serialize for Unicast {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut unicast = serializer.serialize_struct("Unicast", 3)?;
        match (self.source_v4, self.source_v6) {
            (Some(source), None) => unicast.serialize_field("source", &source)?,
            (None, Some(source)) => unicast.serialize_field("source", &source)?,
            _ => unicast.serialize_field("source", &self.sources().collect::<Vec<_>>())?,
        }
        unicast.serialize_field("peers", &self.peers)?;
        unicast.serialize_field("min_ttl", &self.min_ttl)?;
        unicast.end()
    }
}

/// `local_address`: when VIPs are addresses of this node (on lo).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalAddress {
    /// While this node is Active.
    #[default]
    Active,
    /// On Backups too: their own processes do not reach the Active one then.
    Always,
    /// Never: something else serves the VIPs.
    Never,
}

/// `on_conflict`: what becomes of an instance if, at its start, another station answers for a VIP that no router advertises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// An alarm; the instance takes part in the election as the RFCs have it.
    #[default]
    Alarm,
    /// It stays out until nobody answers, or a router advertises.
    Fault,
}

/// `all_failed`: what an owner does whose probes say that it cannot serve, if no other node can either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AllFailed {
    /// It gives the VIPs up, at once.
    #[default]
    Close,
    /// It offers them, and keeps them if nobody takes them.
    Open,
}

/// `announce`: how a new owner makes itself known (gratuitous ARP, unsolicited neighbour advertisements).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Announce {
    /// Rounds after the one at takeover: 0-100.
    pub repeat: u16,
    /// From one of these rounds to the next: 10 ms to 1 h.
    #[serde(serialize_with = "span")]
    pub interval: Duration,
    /// From one refresh to the next while Active: 1 s to 24 h; `None`: no refresh.
    #[serde(serialize_with = "optional_span")]
    pub refresh: Option<Duration>,
}

impl Default for Announce {
    fn default() -> Self {
        Self {
            repeat: 5,
            // Longer than the second for which Linux neighbours hold on to what they learned (locktime).
            interval: Duration::from_millis(1100),
            refresh: Some(Duration::from_secs(60)),
        }
    }
}

fn span<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Span(*duration))
}

fn optional_span<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Span(duration.unwrap_or_default()))
}
