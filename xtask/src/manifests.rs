//! `cargo xtask manifests`: deploy/manifests, and the packed chart, made by Helm's own engine.

use anyhow::Result;

use crate::workspace::{cargo, run};

/// Makes them anew, or only says which are stale (`--check`).
pub(crate) fn make(options: &[String]) -> Result<()> {
    let mut deploy = cargo();
    deploy.args(["run", "--quiet", "--package", "vip-deploy", "--", "manifests"]).args(options);
    run(&mut deploy, "making the manifests")
}
