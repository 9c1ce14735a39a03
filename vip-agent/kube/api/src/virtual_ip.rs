//! VirtualIP: a VIP by itself, for whatever listens on its node.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// A VIP: a written address, or one of a pool
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "viplane.dev",
    version = "v1alpha1",
    kind = "VirtualIP",
    plural = "virtualips",
    namespaced,
    shortname = "vip",
    category = "viplane",
    status = "VirtualIPStatus",
    derive = "PartialEq",
    doc = "A virtual IP address: a written one, or one of a pool",
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [{"required": ["address"]}, {"required": ["pool"]}]))]
pub struct VirtualIPSpec {
    /// The VIP, as `10.0.0.50`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::address")]
    pub address: Option<String>,
    /// The VipPool that it is taken from
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::pool")]
    pub pool: Option<String>,
    /// Labels of the nodes that may own it; none: all nodes
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// When it is an address of its node
    #[serde(default)]
    pub local_address: LocalAddress,
}

/// When a VIP is an address of its node
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LocalAddress {
    /// While the node owns it
    #[default]
    Active,
    /// Never
    Never,
}

/// What became of it
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPStatus {
    /// The VIP
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The node that owns it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Since when: RFC 3339
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_time")]
    pub since: Option<String>,
    /// `Ready`, `Conflict`, `Exhausted`
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
