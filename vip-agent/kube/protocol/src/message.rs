//! The two messages.

use std::collections::BTreeSet;
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
    /// The instances that this node is Active in: what is written back is the owner's to write.
    pub active: BTreeSet<String>,
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
    /// `instances` of a configuration file.
    Instances(serde_json::Value),
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
