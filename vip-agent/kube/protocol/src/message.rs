//! The two messages.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};

use crate::Kubernetes;

/// From the agent: what it wants to know, and what is known on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Of the configuration: grows with each that differs in what is said here. Reports repeat it.
    pub revision: u64,
    /// The node's name, which is that of its Node object.
    pub node: String,
    /// `kubernetes`.
    pub kubernetes: Kubernetes,
    /// VRIDs of the file's own instances.
    pub taken_ids: BTreeSet<NonZeroU8>,
    /// VIPs of the file's own instances.
    pub taken_vips: BTreeSet<IpAddr>,
    /// Whether the traffic of objects can be steered, and what room there is for that.
    pub steering: Steering,
    /// The instances that this node is Active in: what is written back is the owner's to write.
    pub active: BTreeSet<String>,
}

/// Whether the traffic of objects can be steered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Steering {
    /// `kubernetes.steering: false`.
    Off,
    /// The agent was started when nothing was to be steered, and has given up the privilege to load what it takes.
    Unloaded,
    /// It can, as far as there is room.
    On(Room),
}

/// What the file's own services leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Names that the file's own services have.
    pub taken_names: BTreeSet<String>,
    /// Services that fit beside them.
    pub services: u32,
    /// Ports that do, each of a range counted.
    pub ports: u32,
    /// Backends that do, each as often as it serves.
    pub backends: u32,
    /// Ranges of clients that do.
    pub sources: u32,
}

/// To the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// There is nothing new, and the process does not hang.
    Alive,
    /// How things are.
    View(View),
}

/// How things are with the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// That of the order that it follows from.
    pub revision: u64,
    /// Whether all that counts was read from the API server.
    pub in_sync: bool,
    /// What keeps it from being followed, in words.
    pub troubles: BTreeSet<String>,
    /// Objects that do not get what they ask for.
    pub objects: Vec<Remark>,
    /// What the cluster wants of this node.
    pub telling: Telling,
}

/// What the cluster wants of this node, if that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Telling {
    /// Not known: what was known before counts on.
    #[default]
    Nothing,
    /// All of it.
    Document(Document),
    /// A document that was told before, but for the backends of some services: what changes most, and is to be heard soonest.
    Backends(Backends),
}

/// What a configuration file would say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Tells it from others that the same process says.
    pub number: u64,
    /// `instances`.
    pub instances: serde_json::Value,
    /// `services`.
    pub services: serde_json::Value,
}

/// What differs from a document. Those of the same document replace each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backends {
    /// The document's number.
    pub of: u64,
    /// All backends of these services, by name.
    pub services: BTreeMap<String, Vec<Backend>>,
}

/// An entry of `backends` of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Where it is.
    pub address: IpAddr,
    /// Its share of new flows; 0: it keeps those that it has.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u16,
}

const fn one() -> u16 {
    1
}

const fn is_one(weight: &u16) -> bool {
    *weight == 1
}

/// What somebody should know of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remark {
    /// As in `Service default/web`.
    pub object: String,
    /// `Conflict`, `Invalid`, `Pending` or `Exhausted`.
    pub reason: String,
    /// What is wrong, and what to do.
    pub message: String,
}
