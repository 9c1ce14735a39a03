//! Remarks: comments in the output, each at the key that it concerns.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::super::yaml;
use super::files::Place;
use super::tree::Statement;

/// Remarks by the key that they stand at.
#[derive(Debug)]
pub(super) struct Notes<K>(BTreeMap<K, Vec<String>>);

impl<K> Default for Notes<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Notes<K> {
    /// A remark on a statement.
    pub(super) fn add(&mut self, key: K, statement: &Statement, why: impl Display) {
        self.push(key, remark(&statement.at, &statement.echo(), why));
    }

    /// A remark that is written already.
    pub(super) fn push(&mut self, key: K, remark: String) {
        self.0.entry(key).or_default().push(remark);
    }

    /// The remarks at a key.
    pub(super) fn at(&self, key: &K) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

/// `# FILE:LINE: what: why`.
pub(super) fn remark(at: &Place, what: &str, why: impl Display) -> String {
    yaml::comment(&format!("{at}: {what}: {why}"))
}
