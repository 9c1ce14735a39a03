//! The owners that were seen last, kept in state_dir: how long a restarted agent that must not preempt has to listen.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::alarms::rfc3339;
use crate::config;
use crate::files;
use crate::types::{AdvertInterval, Centiseconds, OutOfRange, VirtualRouterId};
use crate::vrrp::driver::SeenOwner;

/// Another router that owned, as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    virtual_router_id: VirtualRouterId,
    address: IpAddr,
    /// Milliseconds. Only version 3 has intervals that differ from router to router.
    advert_interval_ms: u64,
    /// RFC 3339: for people who read the file.
    since: String,
}

impl Remembered {
    fn interval(&self) -> Result<Centiseconds, OutOfRange> {
        Centiseconds::try_from(Duration::from_millis(self.advert_interval_ms))
    }
}

/// By the instances' names.
type Known = BTreeMap<String, Remembered>;

/// See the module.
#[derive(Debug)]
pub(super) struct Owners {
    known: Known,
    /// What is to be written next; only the latest counts.
    unwritten: watch::Sender<Known>,
    writer: AbortHandle,
}

impl Drop for Owners {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl Owners {
    /// Reads what an earlier agent knew of the instances that there are. What cannot be read is forgotten: the agent
    /// listens as long as its own interval says then. To be called within the tokio runtime.
    pub(super) fn open(config: &config::Config) -> Self {
        let path = config.state_dir.join("owners.json");
        let mut known = read(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot read which owners were seen before this start");
            Known::new()
        });
        known.retain(|name, _| config.instance(name).is_some());
        let (unwritten, latest) = watch::channel(known.clone());
        let writer = tokio::spawn(write_behind(path, latest)).abort_handle();
        Self { known, unwritten, writer }
    }

    /// What the last other owner of an instance announced.
    pub(super) fn interval(&self, instance: &config::Instance) -> Option<AdvertInterval> {
        let remembered = self.known.get(instance.name.as_str())?;
        let same = remembered.virtual_router_id == instance.virtual_router_id;
        remembered.interval().ok().filter(|_| same).map(AdvertInterval::V3)
    }

    /// Notes another owner, or another interval of it. It is written by and by.
    pub(super) fn note(&mut self, instance: &config::Instance, seen: SeenOwner) {
        let AdvertInterval::V3(interval) = seen.interval else { return };
        let remembered = Remembered {
            virtual_router_id: instance.virtual_router_id,
            address: seen.address,
            advert_interval_ms: u64::from(interval.get()) * 10,
            since: rfc3339(SystemTime::now()),
        };
        self.known.insert(instance.name.as_str().to_owned(), remembered);
        self.unwritten.send_replace(self.known.clone());
    }
}

/// Writes outside of the runtime's thread: a disk may take seconds.
async fn write_behind(path: PathBuf, mut latest: watch::Receiver<Known>) {
    while latest.changed().await.is_ok() {
        let known = latest.borrow_and_update().clone();
        let to = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&to, &known)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            tracing::warn!(path = %path.display(), %error, "cannot keep which owners were seen");
        }
    }
}

fn write(path: &Path, known: &Known) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec_pretty(known)?)
}

/// Nothing where there is no file: it was never written.
fn read(path: &Path) -> io::Result<Known> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::new()),
        text => text?,
    };
    let known: Known = serde_json::from_slice(&text)?;
    let invalid = |error: OutOfRange| io::Error::new(io::ErrorKind::InvalidData, error);
    for remembered in known.values() {
        remembered.interval().map_err(invalid)?;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: [u8; 4] = [10, 0, 0, 2];

    fn config(state_dir: &Path, virtual_router_id: u8) -> config::Config {
        let text = format!(
            "state_dir: {}\ninstances: [{{name: edge, virtual_router_id: {virtual_router_id}, vips: [10.0.0.50]}}]",
            state_dir.display()
        );
        config::parse(&text, "file", "node").unwrap().0
    }

    fn seen(centiseconds: u16) -> SeenOwner {
        SeenOwner { address: ROUTER.into(), interval: Centiseconds::new(centiseconds).unwrap().into() }
    }

    fn remembered(state_dir: &Path, virtual_router_id: u8) -> Option<u128> {
        let config = config(state_dir, virtual_router_id);
        let interval = Owners::open(&config).interval(&config.instances[0]);
        interval.map(|interval| interval.duration().as_millis())
    }

    #[tokio::test]
    async fn what_was_noted_is_known_to_the_next_agent_but_not_of_another_virtual_router() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        assert_eq!(remembered(&state_dir, 51), None);
        let config = config(&state_dir, 51);
        let mut owners = Owners::open(&config);
        for interval in 1..=200 {
            owners.note(&config.instances[0], seen(interval));
        }
        let written = async {
            while remembered(&state_dir, 51) != Some(2000) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
        assert_eq!(remembered(&state_dir, 52), None);
    }

    #[tokio::test]
    async fn a_file_that_is_no_such_memory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let valid = |interval: u32| {
            format!(
                "{{\"edge\": {{\"virtual_router_id\": 51, \"address\": \"10.0.0.2\", \"advert_interval_ms\": {interval}, \"since\": \"\"}}}}"
            )
        };
        std::fs::write(dir.path().join("owners.json"), valid(1000)).unwrap();
        assert_eq!(remembered(dir.path(), 51), Some(1000));
        for text in ["", "{", "[]", "\0\0\0\0", &valid(0), &valid(15), &valid(40_960), &valid(1000)[1..]] {
            std::fs::write(dir.path().join("owners.json"), text).unwrap();
            assert_eq!(remembered(dir.path(), 51), None, "{text:?}");
        }
    }
}
