//! `vip-agent cleanup`: removes what a killed agent left. Touches only what the journal or our names say is ours.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Config, DEFAULT_PIN_DIR, DEFAULT_RUNTIME_DIR, DEFAULT_STATE_DIR, control_socket};
use crate::dataplane;
use crate::net::Rtnetlink;
use crate::net::instance_lock::InstanceLock;
use crate::net::journal::Journal;

/// Where a dead agent may have left something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Lock and control socket.
    pub runtime_dir: PathBuf,
    /// The journal.
    pub state_dir: PathBuf,
    /// Pins; the journal may name other directories, too.
    pub pin_dir: Option<PathBuf>,
}

impl Default for Places {
    /// Where an agent has everything unless it is told otherwise.
    fn default() -> Self {
        Self {
            runtime_dir: DEFAULT_RUNTIME_DIR.into(),
            state_dir: DEFAULT_STATE_DIR.into(),
            pin_dir: Some(DEFAULT_PIN_DIR.into()),
        }
    }
}

impl From<Config> for Places {
    fn from(config: Config) -> Self {
        Self { runtime_dir: config.runtime_dir, state_dir: config.state_dir, pin_dir: config.pin_dir }
    }
}

/// Removes addresses and sysctls that the journal lists, and pins in the journal's and the configured directory.
/// Yields a line for each thing removed.
///
/// # Errors
/// An agent runs; the journal is corrupt; something cannot be removed.
pub async fn cleanup(places: &Places) -> anyhow::Result<Vec<String>> {
    let mut lock = InstanceLock::acquire(&places.runtime_dir)?;
    lock.remove_directory();
    let journal = Journal::open(&places.state_dir)?;
    let rtnetlink = Rtnetlink::connect()?;
    let entries = journal.entries();
    let mut removed: Vec<String> = Vec::new();
    removed
        .extend(entries.addresses.iter().map(|address| format!("address {address} on lo, if it was there")));
    removed.extend(
        entries.sysctls.iter().map(|saved| format!("sysctl {} back to {}", saved.sysctl, saved.previous)),
    );
    let mut pins: Vec<PathBuf> = Vec::new();
    let mut remove_pins = |pin_dir: &Path| {
        pins.extend(dataplane::cleanup(pin_dir).map_err(io::Error::other)?.removed);
        Ok(())
    };
    let failures = journal.undo_all(&rtnetlink, &mut remove_pins).await;
    if let Some(pin_dir) = &places.pin_dir {
        remove_pins(pin_dir)?;
    }
    if entries.is_empty() && !pins.is_empty() {
        removed.push(format!(
            "note: no journal in {}: if that agent had another state_dir, name its configuration by --config",
            places.state_dir.display()
        ));
    }
    removed.extend(pins.iter().map(|pin| format!("pin {}", pin.display())));
    let _ = std::fs::remove_file(control_socket(&places.runtime_dir));
    if failures.is_empty() {
        return Ok(removed);
    }
    let failures: Vec<String> = failures.iter().map(ToString::to_string).collect();
    anyhow::bail!("not everything could be removed:\n{}", failures.join("\n"))
}
