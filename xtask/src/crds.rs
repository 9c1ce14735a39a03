//! `cargo xtask crds`: deploy/chart/crds, and deploy/manifests, which has them as well.

use anyhow::Result;

use crate::workspace::{cargo, run};

/// Makes them anew, or only says which are stale (`--check`).
pub(crate) fn make(options: &[String]) -> Result<()> {
    for what in ["crds", "manifests"] {
        let mut deploy = cargo();
        deploy.args(["run", "--quiet", "--package", "vip-deploy", "--", what]).args(options);
        run(&mut deploy, "making the definitions")?;
    }
    Ok(())
}
