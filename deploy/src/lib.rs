//! What is deployed: the chart as Helm's own engine renders it, and the manifests that are made of it.

pub mod crds;
pub mod helm;
pub mod image;
pub mod manifests;
pub mod package;
mod rendered;

pub use helm::{Finding, Helm, Release};
pub use rendered::Rendered;

use std::path::{Path, PathBuf};

/// What an image or a package has: the agent, and beside it the program that it starts where its configuration names a cluster.
pub const PROGRAMS: [&str; 2] = ["vip-agent", "vip-kube"];

/// The folder deploy/ of this repository.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The chart.
pub fn chart() -> PathBuf {
    folder().join("chart")
}

/// The repository.
pub fn root() -> PathBuf {
    folder().parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}
