//! Other programs' configurations become ours: YAML with a remark, as a comment, wherever something has no equivalent.

use std::path::PathBuf;

use crate::config;

pub mod chart_values;
pub mod configmap;
mod document;
pub mod keepalived;
mod yaml;

/// A configuration as it was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Our configuration, with remarks as comments.
    pub yaml: String,
}

impl Imported {
    /// What [`crate::config::parse`] has against it, one line each: nothing, or more instances and VIPs than an agent
    /// serves. What this version does not serve yet is not counted.
    pub fn problems(&self) -> Vec<String> {
        let unserved = |line: &String| line.contains("is not available in this version");
        match config::parse(&self.yaml, "imported", "node") {
            Ok(_) => Vec::new(),
            Err(problems) => problems.lines().filter(|line| !unserved(line)).collect(),
        }
    }
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// More than anybody writes.
    #[error("{}: is more than {limit} MiB with all that is included: no configuration needs that", path.display())]
    TooLarge {
        /// The file that exceeds it.
        path: PathBuf,
        /// In MiB.
        limit: usize,
    },
    /// It makes no sense from here on.
    #[error("{file}:{line}: {message}")]
    Syntax {
        /// The file, as it was named.
        file: String,
        /// Line, from 1.
        line: u32,
        /// What is wrong. Never quotes the line, which may hold a password.
        message: String,
    },
}
