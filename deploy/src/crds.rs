//! deploy/chart/crds: the definitions of our own kinds of objects, as `vip-kube` reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

const MADE: &str = "# Made by `cargo xtask crds`";

/// Each file of the folder, and what should be in it. Helm installs them before all else, and neither upgrades nor removes them:
/// with them all objects of their kinds would go.
///
/// # Errors
/// A definition cannot be written as YAML.
pub fn all() -> Result<BTreeMap<PathBuf, String>> {
    let folder = crate::chart().join("crds");
    let file = |definition| {
        // By way of JSON, whose keys are in order.
        let value = serde_json::to_value(&definition).context("a definition as JSON")?;
        let name = value["spec"]["names"]["plural"].as_str().context("a definition has a plural")?;
        let yaml = serde_saphyr::to_string(&value).context("a definition as YAML")?;
        Ok((folder.join(format!("{name}.yaml")), format!("{MADE}\n{yaml}")))
    };
    vip_kube_api::definitions().into_iter().map(file).collect()
}

/// Those that are not as [`all`] says.
///
/// # Errors
/// As [`all`].
pub fn stale() -> Result<Vec<PathBuf>> {
    let is_stale =
        |(path, text): (PathBuf, String)| (fs::read_to_string(&path).ok() != Some(text)).then_some(path);
    Ok(all()?.into_iter().filter_map(is_stale).collect())
}

/// Writes them.
///
/// # Errors
/// As [`all`], or the folder cannot be written.
pub fn write() -> Result<Vec<PathBuf>> {
    let stale = stale()?;
    for (path, text) in all()?.into_iter().filter(|(path, _)| stale.contains(path)) {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(stale)
}
