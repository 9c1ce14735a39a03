//! What signed adverts need beside their keys, and what must outlive the agent for that: epochs of stamps, and what was
//! heard last of each sender.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Agent;
use crate::config;
use crate::errors::in_full;
use crate::files;
use crate::types::MonotonicTime;
use crate::vrrp::trailer::{Epoch, Mark, Marks, Signer, Stamp, Stamps};

const EPOCH_FILE: &str = "advert-epoch";
const MARKS_FILE: &str = "advert-stamps.json";

/// From one saving of what was heard to the next: so much of a recording can be played to an agent after a crash, each
/// advert once.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// When the real time has gone so far astray from the monotonic, it was set, or this machine was asleep or is a copy of
/// itself: what it says must not be older than what its former self has said.
const CLOCK_JUMP: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Signing {
    epoch_file: PathBuf,
    marks_file: PathBuf,
    /// From the first instance on that signs.
    stamps: Option<Arc<Stamps>>,
    epoch: Option<Epoch>,
    /// The two clocks when the epoch was begun.
    begun: (MonotonicTime, SystemTime),
    heard: Heard,
    saved: Heard,
    save_at: Instant,
}

/// By instance and sender.
type Heard = BTreeMap<String, Vec<Kept>>;

/// A [`Mark`] in its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Kept {
    source: IpAddr,
    key: String,
    stamp: u64,
}

impl Kept {
    fn mark(&self) -> Option<Mark> {
        let key = self.key.parse().ok()?;
        Some(Mark {
            source: self.source,
            key,
            stamp: Stamp::from_wire(self.stamp),
            heard: MonotonicTime::ZERO,
        })
    }
}

impl Signing {
    /// With what is kept in `state_dir`.
    pub(super) fn in_dir(state_dir: &Path) -> Self {
        let marks_file = state_dir.join(MARKS_FILE);
        let heard = read_heard(&marks_file).unwrap_or_else(|error| {
            tracing::warn!(
                "{}: {error}: adverts that were recorded before this start could be played to it",
                marks_file.display()
            );
            Heard::new()
        });
        Self {
            epoch_file: state_dir.join(EPOCH_FILE),
            marks_file,
            stamps: None,
            epoch: None,
            begun: (MonotonicTime::now(), SystemTime::now()),
            saved: heard.clone(),
            heard,
            save_at: Instant::now() + SAVE_EVERY,
        }
    }

    /// The stamps, all of an epoch that was never used before.
    fn stamps(&mut self) -> Arc<Stamps> {
        if let Some(stamps) = &self.stamps {
            return Arc::clone(stamps);
        }
        let stamps = Arc::new(Stamps::begin(self.next_epoch()));
        self.stamps = Some(Arc::clone(&stamps));
        stamps
    }

    /// Begins another epoch if the present one will not do any more. Whether it did.
    fn renew(&mut self) -> bool {
        let Some(stamps) = self.stamps.clone() else { return false };
        let (monotonic, real) = self.begun;
        let expected = real + MonotonicTime::now().since(monotonic);
        let now = SystemTime::now();
        let astray = now.duration_since(expected).unwrap_or_else(|error| error.duration());
        if astray < CLOCK_JUMP && !stamps.are_worn() {
            return false;
        }
        stamps.advance(self.next_epoch());
        true
    }

    /// Begins another epoch, later than all that anybody on this host has begun.
    pub(super) fn begin_anew(&mut self) {
        if let Some(stamps) = self.stamps.clone() {
            stamps.advance(self.next_epoch());
        }
    }

    /// What was heard of all senders, for a successor.
    pub(super) fn heard(&self) -> serde_json::Value {
        serde_json::to_value(&self.heard).unwrap_or_default()
    }

    /// What a predecessor heard, which is more than it had kept.
    pub(super) fn inherit(&mut self, heard: serde_json::Value) {
        match serde_json::from_value(heard) {
            Ok(heard) => self.heard = heard,
            Err(error) => tracing::warn!(%error, "what the former agent heard of signed adverts is lost"),
        }
    }

    /// Kept before it is used. If that fails it is used nevertheless: to be heard matters more, and after a restart the clock
    /// will do if it is right.
    fn next_epoch(&mut self) -> Epoch {
        let kept = read_epoch(&self.epoch_file).unwrap_or_else(|error| {
            tracing::warn!(
                "{}: {error}: peers take this node's adverts for replayed if its clock is behind",
                self.epoch_file.display()
            );
            None
        });
        self.begun = (MonotonicTime::now(), SystemTime::now());
        let epoch = Epoch::after(kept.max(self.epoch), self.begun.1);
        self.epoch = Some(epoch);
        if let Err(error) = files::replace(&self.epoch_file, format!("{}\n", epoch.get()).as_bytes()) {
            tracing::warn!(
                "cannot write {}: {error}: after a restart with a clock that is behind peers will take this node's adverts \
                 for replayed",
                self.epoch_file.display()
            );
        }
        epoch
    }

    /// What was heard of an instance's peers, as far as it is known.
    pub(super) fn marks(&self, instance: &config::Instance) -> Marks {
        let kept = self.heard.get(instance.name.as_str()).filter(|_| instance.auth_trailer.is_some());
        Marks::restore(kept.into_iter().flatten().filter_map(Kept::mark))
    }

    pub(super) fn note(&mut self, instance: &config::Instance, marks: &Marks) {
        let mut kept: Vec<Kept> = marks
            .iter()
            .map(|mark| Kept { source: mark.source, key: mark.key.to_string(), stamp: mark.stamp.get() })
            .collect();
        kept.sort();
        self.heard.insert(instance.name.to_string(), kept);
    }

    fn save(&mut self) {
        self.save_at = Instant::now() + SAVE_EVERY;
        if self.saved == self.heard {
            return;
        }
        let written = serde_json::to_vec(&self.heard)
            .map_err(io::Error::from)
            .and_then(|text| files::replace(&self.marks_file, &text));
        match written {
            Ok(()) => self.saved.clone_from(&self.heard),
            Err(error) => tracing::warn!(
                "cannot write {}: {error}: after a restart recorded adverts could be played to this node",
                self.marks_file.display()
            ),
        }
    }
}

fn read_epoch(path: &Path) -> io::Result<Option<Epoch>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => {
            let number = text?.trim().parse().map_err(io::Error::other)?;
            Epoch::from_kept(number).map(Some).ok_or_else(|| io::Error::other("no epoch of ours"))
        }
    }
}

fn read_heard(path: &Path) -> io::Result<Heard> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Heard::new()),
        text => Ok(serde_json::from_slice(&text?)?),
    }
}

impl Agent {
    /// What signs an instance's adverts.
    pub(super) fn signer(&mut self, instance: &config::Instance) -> Option<Signer> {
        let trailer = instance.auth_trailer.as_ref()?;
        Some(Signer::new(trailer.keys.clone(), self.signing.stamps()))
    }

    /// Looks after stamps, and what was heard.
    pub(super) async fn keep_signing(&mut self) {
        // Not beside a successor, whose epoch must be the later one.
        if self.is_being_succeeded().is_none() && self.signing.renew() {
            tracing::info!("a new epoch of signed adverts begins: the clock was set, or many were sent");
            self.rebind_signed().await;
        }
        if Instant::now() >= self.signing.save_at {
            self.save_marks().await;
        }
    }

    /// The watcher's farewells are of a former epoch.
    pub(super) async fn rebind_signed(&mut self) {
        for index in 0..self.instances.len() {
            if self.instances[index].config.auth_trailer.is_some()
                && let Err(error) = self.rebind(index, &[], &[]).await
            {
                tracing::warn!(
                    instance = self.instances[index].name(),
                    "peers will not believe the watcher: {}",
                    in_full(&error)
                );
            }
        }
    }

    /// Asks the driver what an instance has heard. False if it does not answer.
    pub(super) async fn note_marks(&mut self, index: usize) -> bool {
        let managed = &self.instances[index];
        if managed.config.auth_trailer.is_none() {
            return true;
        }
        let Some(snapshot) = self.inspect(managed.id).await else { return false };
        self.signing.note(&managed.config, &snapshot.marks);
        true
    }

    /// Keeps what all instances have heard.
    pub(super) async fn save_marks(&mut self) {
        for index in 0..self.instances.len() {
            if !self.note_marks(index).await {
                break;
            }
        }
        self.signing.save();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::trailer::{KeyRing, Signed};

    fn instance() -> config::Instance {
        let text = "instances: [{name: edge, virtual_router_id: 51, interface: eth0, vips: [10.0.0.50], \
                    auth_trailer: {key_file: /k}}]";
        let keys = || KeyRing::parse(&"5e".repeat(32)).unwrap();
        let secrets = config::Secrets { key_file: &|_| Ok(keys()), ..config::Secrets::NONE };
        config::parse_with(text, "test", "node", &secrets).unwrap().0.instances.remove(0)
    }

    fn heard(stamp: u64) -> (IpAddr, Signed) {
        let key = "0a1b2c3d".parse().unwrap();
        ([10, 0, 0, 2].into(), Signed { key, stamp: Stamp::from_wire(stamp) })
    }

    #[test]
    fn what_was_heard_outlives_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (edge, mut marks) = (instance(), Marks::default());
        let (source, signed) = heard(77);
        marks.admit(source, signed, MonotonicTime::now());
        let mut signing = Signing::in_dir(dir.path());
        signing.note(&edge, &marks);
        signing.save();
        let kept = Signing::in_dir(dir.path()).marks(&edge);
        let kept: Vec<_> = kept.iter().map(|mark| (mark.source, mark.key, mark.stamp)).collect();
        assert_eq!(kept, [(source, signed.key, signed.stamp)]);
    }

    #[test]
    fn every_start_has_an_epoch_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let epochs: Vec<Epoch> = (0..3).map(|_| Signing::in_dir(dir.path()).next_epoch()).collect();
        assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
        let kept = fs::read_to_string(dir.path().join(EPOCH_FILE)).unwrap();
        assert_eq!(kept.trim().parse(), Ok(epochs[2].get()));
    }

    #[test]
    fn a_clock_that_was_set_begins_a_new_epoch_and_one_that_runs_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut signing = Signing::in_dir(dir.path());
        signing.stamps();
        assert!(!signing.renew());
        signing.begun.1 -= Duration::from_secs(3600);
        assert!(signing.renew(), "it went ahead");
        signing.begun.1 += Duration::from_secs(3600);
        assert!(signing.renew(), "it went back");
        assert!(!signing.renew());
    }

    #[test]
    fn files_that_cannot_be_read_are_no_reason_to_be_silent() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(EPOCH_FILE), "tomorrow").unwrap();
        fs::write(dir.path().join(MARKS_FILE), "{").unwrap();
        let mut signing = Signing::in_dir(dir.path());
        assert_eq!(signing.marks(&instance()).iter().count(), 0);
        let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(signing.next_epoch().get() >= before);
    }
}
