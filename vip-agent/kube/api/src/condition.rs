//! Conditions as all kinds of Kubernetes have them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is so of an object, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Conflict` or `Exhausted`
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is so
    pub status: Truth,
    /// One word
    pub reason: String,
    /// In words: what, and what to do. Never empty, which some API servers take for null
    pub message: String,
    /// Since when: RFC 3339
    #[schemars(schema_with = "crate::schema::time")]
    pub last_transition_time: String,
}

/// What a condition says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each says itself")]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl From<bool> for Truth {
    fn from(is_so: bool) -> Self {
        if is_so { Self::True } else { Self::False }
    }
}
