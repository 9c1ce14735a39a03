//! What the verifier went through for each program of steering.

use anyhow::{Context as _, Result};

use crate::kernel::Kernel;
use crate::world::World;

/// The kernel's limit is 1,000,000; this leaves room for a newer compiler, not for a careless change.
const VERIFIED_INSTRUCTIONS: u32 = 300_000;

#[test]
fn the_verifier_needs_no_more_than_its_budget() -> Result<()> {
    let kernel = Kernel::with(&World::of(&[]))?;
    for (program, verified) in kernel.dataplane.verified_steering() {
        let verified = verified.context("Linux 5.16 says")?;
        println!("{program}: {verified} instructions");
        assert!(verified <= VERIFIED_INSTRUCTIONS, "{program}: {verified}, {VERIFIED_INSTRUCTIONS} allowed");
    }
    Ok(())
}
