//! Where the configuration that runs comes from, and whether it is what the file says.

use std::time::SystemTime;

use crate::config::Stale;
use crate::events::Occurrence;

/// See the module.
#[derive(Debug)]
pub(super) struct Provenance {
    /// When what runs was applied.
    pub(super) applied: SystemTime,
    /// Whether it is the last good configuration, as the file was broken at the start.
    pub(super) last_good: bool,
    /// Why it is not what the file says.
    pub(super) refused: Option<String>,
}

impl Provenance {
    /// At the start.
    pub(super) fn new(stale: Option<&Stale>) -> Self {
        let refused = stale.map(|stale| {
            let why = Occurrence::text(&stale.why);
            format!("runs by {}, kept by {}: {why}", stale.path.display(), stale.about())
        });
        Self { applied: SystemTime::now(), last_good: stale.is_some(), refused }
    }

    /// The file was applied.
    pub(super) fn applied(&mut self) {
        *self = Self::new(None);
    }

    /// The file was read again, and refused.
    pub(super) fn refused(&mut self, why: String) {
        self.refused = Some(why);
    }
}
