//! VipPool: addresses that VIPs are taken from, and who has which.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// Addresses that Services and VirtualIPs are given
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "viplane.dev",
    version = "v1alpha1",
    kind = "VipPool",
    plural = "vippools",
    shortname = "vipp",
    category = "viplane",
    status = "VipPoolStatus",
    derive = "PartialEq",
    doc = "Addresses that Services of type LoadBalancer and VirtualIPs are given",
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Auto", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "Allocated", type_ = "integer", json_path = ".status.allocated"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.available"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VipPoolSpec {
    /// Which: `10.0.0.64/28`, `10.0.0.100-10.0.0.120`, or one address; of both families, too
    #[schemars(schema_with = "crate::schema::ranges")]
    pub addresses: Vec<String>,
    /// Whether who names no pool is given addresses of this one
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in .0 or .255 are left out, which some clients take for no host's
    #[serde(default)]
    pub avoid_buggy_addresses: bool,
    /// Labels of the nodes that may own these VIPs; none: all nodes
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub node_selector: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

/// Who has which address, and what else is known
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VipPoolStatus {
    /// Addresses that somebody has
    #[serde(default)]
    pub allocated: i64,
    /// Addresses that are free
    #[serde(default)]
    pub available: i64,
    /// Which node owns which address
    #[serde(default)]
    pub owners: Vec<AddressOwner>,
    /// Who has which address. The one place where this is decided: it changes by conditional writes, and nodes read it here
    #[serde(default)]
    pub assignments: Vec<Assignment>,
    /// `Ready`, `Conflict`, `Exhausted`
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The node that owns an address
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressOwner {
    /// Which
    pub address: String,
    /// The node's name
    pub node: String,
    /// Since when: RFC 3339
    #[schemars(schema_with = "crate::schema::time")]
    pub since: String,
}

/// Who has an address
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Which
    pub address: String,
    /// What kind of object has it
    pub kind: HolderKind,
    /// The object's namespace
    pub namespace: String,
    /// The object's name
    pub name: String,
    /// What tells the object from a later one of the same name
    pub uid: String,
    /// Whether it is on its way back: nodes let go of it, and it is free once none can serve it any more
    #[serde(default, skip_serializing_if = "is_false")]
    pub released: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's to say")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The kinds of objects that are given addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each says itself")]
pub enum HolderKind {
    Service,
    VirtualIP,
}
