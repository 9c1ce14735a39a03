//! Requests to the VIPs, of which none may be lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use vip_lab::requests::Requests;
use vip_lab::{Lab, wait};

use crate::agents::{SOON, ms};

/// A request to each VIP as often as this; the first were answered.
pub(crate) fn load(lab: &Lab, every: Duration) -> Result<Requests> {
    let load = lab.requests().every(every).delay(ms(10)).start()?;
    wait::until(SOON, || !load.report().requests().is_empty())?;
    Ok(load)
}

/// Ends them, and looks.
pub(crate) fn nothing_was_lost(load: Requests) -> Result<()> {
    let report = load.stop();
    ensure!(report.lost().count() == 0, "{:?}", report.lost().collect::<Vec<_>>());
    ensure!(!report.requests().is_empty());
    Ok(())
}
