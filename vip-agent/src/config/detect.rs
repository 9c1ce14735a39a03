//! `detect`: fast detection of dead hosts.

use std::path::PathBuf;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use vip_common::heartbeat::Key;

use super::duration::Span;
use super::field::{Field, Mapping};
use super::secrets::Secrets;
use crate::types::AdvertInterval;
use crate::vrrp::detect::Settings;
use crate::vrrp::machine::LEASE_INTERVALS;

/// `detect` of an instance. Its serialised form does not hold the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detect {
    /// `interval` and `multiplier`.
    pub settings: Settings,
    /// Where the key was read from; `None`: it is [`Key::PUBLIC`]. Absolute.
    pub key_file: Option<PathBuf>,
    /// What heartbeats are sealed with.
    pub key: Key,
}

impl Serialize for Detect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut detect = serializer.serialize_map(Some(3))?;
        detect.serialize_entry("interval", &Span(self.settings.interval).to_string())?;
        detect.serialize_entry("multiplier", &self.settings.multiplier)?;
        detect.serialize_entry("key_file", &self.key_file)?;
        detect.end()
    }
}

const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);

/// `detect` of an instance: null, or a mapping. `adverts`: how often an owner advertises, if that was valid.
pub(super) fn detect(
    instance: &Mapping<'_>,
    adverts: Option<AdvertInterval>,
    secrets: &Secrets<'_>,
) -> Option<Option<Detect>> {
    instance.or("detect", None, |field| {
        if field.is_null() { Some(None) } else { read(field, adverts, secrets).map(Some) }
    })
}

fn read(field: &Field<'_>, adverts: Option<AdvertInterval>, secrets: &Secrets<'_>) -> Option<Detect> {
    let detect = field.mapping(&["interval", "multiplier", "key_file"])?;
    let interval = detect.or("interval", Duration::from_millis(1), |field| field.duration_within(INTERVALS));
    let multiplier = detect.or("multiplier", 4, |field| field.integer(3..=50));
    let key = detect.or("key_file", (None, Key::PUBLIC), |field| {
        if field.is_null() {
            return Some((None, Key::PUBLIC));
        }
        let path = field.absolute_path()?;
        match (secrets.detect_key_file)(&path) {
            Ok(key) => Some((Some(path), key)),
            Err(error) => field.refuse(format_args!("{}: {error}", path.display())),
        }
    });
    let (interval, multiplier, (key_file, key)) = (interval?, u8::try_from(multiplier?).ok()?, key?);
    let time = interval * u32::from(multiplier);
    let by_adverts = adverts?.duration() * LEASE_INTERVALS;
    if time >= by_adverts {
        return field.refuse(format_args!(
            "would find a dead owner in {}: that is not sooner than its adverts do ({}); make it shorter or leave it out",
            Span(time),
            Span(by_adverts)
        ));
    }
    Some(Detect { settings: Settings { interval, multiplier }, key_file, key })
}
