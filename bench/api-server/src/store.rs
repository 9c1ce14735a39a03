//! Objects, and what has changed since when.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

/// Changes that a watch can go on from.
const REMEMBERED: usize = 20_000;

/// Of a resource: namespace and name.
type Key = (String, String);

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    objects: BTreeMap<String, BTreeMap<Key, Value>>,
    changes: VecDeque<Change>,
    /// What came before it is forgotten.
    oldest: u64,
}

/// A change of an object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) resource: String,
    pub(crate) kind: &'static str,
    pub(crate) object: Value,
}

/// Which objects of a resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) resource: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
}

impl Selection {
    fn has(&self, object: &Value) -> bool {
        let fits = |wanted: &Option<String>, key: &str| {
            wanted.as_deref().is_none_or(|wanted| object["metadata"][key].as_str() == Some(wanted))
        };
        fits(&self.namespace, "namespace") && fits(&self.name, "name")
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { revision: 1, objects: BTreeMap::new(), changes: VecDeque::new(), oldest: 1 }
    }
}

fn key(object: &Value) -> Key {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

impl Store {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn put(&mut self, resource: &str, mut object: Value) -> u64 {
        self.revision += 1;
        let (key, revision) = (key(&object), self.revision);
        let objects = self.objects.entry(resource.to_owned()).or_default();
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(revision.to_string());
        for (field, value) in [
            ("uid", json!(format!("{resource}-{}-{}", key.0, key.1))),
            ("creationTimestamp", json!("2026-01-01T00:00:00Z")),
        ] {
            if meta[field].is_null() {
                meta[field] = value;
            }
        }
        let kind = if objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.note(Change { revision, resource: resource.to_owned(), kind, object })
    }

    pub(crate) fn delete(&mut self, resource: &str, namespace: &str, name: &str) -> u64 {
        let key = (namespace.to_owned(), name.to_owned());
        let gone = self.objects.get_mut(resource).and_then(|objects| objects.remove(&key));
        let Some(mut object) = gone else { return self.revision };
        self.revision += 1;
        let revision = self.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        self.note(Change { revision, resource: resource.to_owned(), kind: "DELETED", object })
    }

    fn note(&mut self, change: Change) -> u64 {
        self.changes.push_back(change);
        if self.changes.len() > REMEMBERED {
            self.oldest = self.changes.pop_front().map_or(self.revision, |change| change.revision);
        }
        self.revision
    }

    pub(crate) fn expire(&mut self) -> u64 {
        self.revision += 1;
        self.changes.clear();
        self.oldest = self.revision;
        self.revision
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(resource)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn list(&self, selection: &Selection) -> Vec<&Value> {
        let objects = self.objects.get(&selection.resource);
        objects.into_iter().flat_map(BTreeMap::values).filter(|object| selection.has(object)).collect()
    }

    /// What has changed since a revision; `None`: that is forgotten.
    pub(crate) fn since(&self, revision: u64, selection: &Selection) -> Option<Vec<Change>> {
        if revision < self.oldest {
            return None;
        }
        let later = self.changes.iter().rev().take_while(|change| change.revision > revision);
        let mut later: Vec<Change> = later
            .filter(|change| change.resource == selection.resource && selection.has(&change.object))
            .cloned()
            .collect();
        later.reverse();
        Some(later)
    }
}
