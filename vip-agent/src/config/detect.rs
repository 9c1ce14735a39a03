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
    /// How deep idle CPUs may sleep.
    pub cpu_latency: CpuLatency,
}

/// `cpu_latency` of `detect`: within which time idle CPUs must wake while hosts are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuLatency {
    /// What suits the machine ([`crate::idle::suitable`]).
    Auto,
    /// Microseconds, 0 to 10 ms.
    AtMost(Duration),
    /// CPUs sleep as they like.
    Any,
}

impl Serialize for CpuLatency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::AtMost(limit) => serializer.collect_str(&Span(*limit)),
            Self::Any => serializer.serialize_str("any"),
        }
    }
}

impl Serialize for Detect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut detect = serializer.serialize_map(Some(4))?;
        detect.serialize_entry("interval", &Span(self.settings.interval).to_string())?;
        detect.serialize_entry("multiplier", &self.settings.multiplier)?;
        detect.serialize_entry("key_file", &self.key_file)?;
        detect.serialize_entry("cpu_latency", &self.cpu_latency)?;
        detect.end()
    }
}

const CPU_LATENCIES: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(10);

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
    let detect = field.mapping(&["interval", "multiplier", "key_file", "cpu_latency"])?;
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
    let cpu_latency = detect.or("cpu_latency", CpuLatency::Auto, cpu_latency);
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
    Some(Detect { settings: Settings { interval, multiplier }, key_file, key, cpu_latency: cpu_latency? })
}

fn cpu_latency(field: &Field<'_>) -> Option<CpuLatency> {
    match field.word() {
        Some("auto") => Some(CpuLatency::Auto),
        Some("any") => Some(CpuLatency::Any),
        _ => field.duration_within(CPU_LATENCIES).map(CpuLatency::AtMost),
    }
}
