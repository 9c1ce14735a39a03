//! What a chart was rendered to: objects by kind, the agent's file among them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A rendered chart.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Rendered {
    /// What the user is told.
    pub notes: String,
    /// Rendered files by the name of their template, those with nothing in them left out.
    pub files: BTreeMap<String, String>,
    /// All objects of these files.
    pub objects: Vec<Value>,
}

impl Rendered {
    /// The objects of a kind.
    pub fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The kinds that there are, in order.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<_> = self.objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        kinds.sort_unstable();
        kinds
    }

    /// The object that runs the agents; null if there is none.
    pub fn workload(&self) -> &Value {
        let is_workload = |object: &&Value| object["kind"] == "DaemonSet" || object["kind"] == "Deployment";
        self.objects.iter().find(is_workload).unwrap_or(&Value::Null)
    }

    /// The agents' pod.
    pub fn pod(&self) -> &Value {
        &self.workload()["spec"]["template"]["spec"]
    }

    /// The agent's container.
    pub fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    /// The agents' file; empty if there is none.
    pub fn config(&self) -> &str {
        let file = self.of_kind("ConfigMap").first().and_then(|map| map["data"]["config.yaml"].as_str());
        file.unwrap_or_default()
    }
}
