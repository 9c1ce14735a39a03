//! Somebody else's YAML file: values by path, each with the line that remarks name.

use std::io::Read as _;
use std::path::Path;

use super::{ImportError, yaml};
use crate::config::LARGEST_FILE;
use crate::config::tree::{Entry, Node, Value};

/// A file that was read.
pub(super) struct Document {
    /// As remarks name it.
    name: String,
    root: Node,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is larger than a ConfigMap can be, or is no YAML.
    pub(super) fn read(file: &Path) -> Result<Self, ImportError> {
        let unreadable = |source| ImportError::Unreadable { path: file.to_owned(), source };
        let mut text = String::new();
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > LARGEST_FILE {
            let limit = usize::try_from(LARGEST_FILE >> 20).unwrap_or(usize::MAX);
            return Err(ImportError::TooLarge { path: file.to_owned(), limit });
        }
        Self::parse(&file.display().to_string(), &text)
    }

    /// Reads a text; `name` is the file that it comes from.
    ///
    /// # Errors
    /// It is no YAML.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, ImportError> {
        let root =
            Node::read(text).map_err(|malformed| syntax(name, malformed.at.line, malformed.message))?;
        Ok(Self { name: name.to_owned(), root })
    }

    /// The file's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The entry at the end of a path of keys, unless it is null.
    pub(super) fn entry(&self, path: &[&str]) -> Option<&Entry> {
        let mut found: Option<&Entry> = None;
        for key in path {
            found =
                entries(found.map_or(&self.root, |entry| &entry.node)).iter().find(|entry| entry.key == *key);
            found?;
        }
        found.filter(|entry| entry.node.value != Value::Null)
    }

    /// All entries of the mapping at a path; none if there is no mapping.
    pub(super) fn entries(&self, path: &[&str]) -> &[Entry] {
        if path.is_empty() {
            return entries(&self.root);
        }
        self.entry(path).map_or(&[], |entry| entries(&entry.node))
    }

    /// The scalar at a path, as text.
    pub(super) fn text(&self, path: &[&str]) -> Option<String> {
        scalar(&self.entry(path)?.node)
    }

    /// `# FILE:LINE: what: why`.
    pub(super) fn remark(&self, entry: &Entry, what: &str, why: impl std::fmt::Display) -> String {
        yaml::comment(&format!("{}:{}: {what}: {why}", self.name, entry.key_at.line))
    }

    /// An error that stands at the file's first line.
    pub(super) fn error(&self, message: impl Into<String>) -> ImportError {
        syntax(&self.name, 1, message.into())
    }
}

/// A scalar as text; `None`: null, a list or a mapping.
pub(super) fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Integer(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Null | Value::List(_) | Value::Mapping(_) => None,
    }
}

fn entries(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Mapping(entries) => entries,
        _ => &[],
    }
}

fn syntax(file: &str, line: u64, message: String) -> ImportError {
    ImportError::Syntax { file: file.to_owned(), line: u32::try_from(line).unwrap_or(u32::MAX), message }
}
