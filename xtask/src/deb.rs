//! `cargo xtask deb`: a Debian package of the static programs with the agent's unit, which vip-deploy packs.

use anyhow::{Result, bail};

use crate::image::{ARCHITECTURES, static_programs};
use crate::workspace::{cargo, run};

/// Builds it, for this machine's processors.
pub(crate) fn build() -> Result<()> {
    let own = std::env::consts::ARCH;
    let Some((arch, _)) = ARCHITECTURES.into_iter().find(|(_, rust)| *rust == own) else {
        bail!("a package is for amd64 or arm64, not {own}");
    };
    let programs = static_programs(own)?;
    let mut deploy = cargo();
    deploy
        .args(["run", "--quiet", "--package", "vip-deploy", "--", "deb", "--arch", arch, "--programs"])
        .arg(programs);
    run(&mut deploy, "making the package")
}
