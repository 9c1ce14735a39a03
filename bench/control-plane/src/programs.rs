//! Where the programs are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What `cargo xtask kube build` builds.
pub const VERSION: &str = "1.20.2";

/// The folder of the Kubernetes programs; etcd is the system's.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// In `$VIPLANE_KUBERNETES`, or where `cargo xtask kube build` puts them.
    ///
    /// # Errors
    /// They are not there.
    pub fn find() -> Result<Self> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools").join(folder());
        let folder = std::env::var_os("VIPLANE_KUBERNETES").map_or(built, PathBuf::from);
        // By a path without "..": the programs run elsewhere.
        let folder =
            std::path::absolute(&folder).ok().and_then(|path| path.canonicalize().ok()).unwrap_or(folder);
        for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            if !folder.join(name).is_file() {
                bail!("there is no {}: `cargo xtask kube build` makes it", folder.join(name).display());
            }
        }
        Ok(Self(folder))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match name {
            "etcd" => PathBuf::from("etcd"),
            _ => self.0.join(name),
        }
    }
}

fn folder() -> String {
    format!("kubernetes-{VERSION}")
}
