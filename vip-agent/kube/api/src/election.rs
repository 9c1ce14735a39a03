//! How the VIPs of a pool, or a VirtualIP, are elected for.

use std::fmt;
use std::num::NonZeroU8;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Virtual routers of its own. What is left out is as for all other VIPs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Election {
    /// VRIDs for these VIPs alone, as `50-59`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::router_ids")]
    pub virtual_router_ids: Option<String>,
    /// Time between adverts: 10ms to 40950ms in steps of 10ms
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::period")]
    pub advert_interval: Option<String>,
    /// Whether a node of higher priority takes over from one that serves
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempt: Option<bool>,
    /// How long such a node waits before it does
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::period")]
    pub preempt_delay: Option<String>,
    /// Over how many virtual routers the VIPs are spread; left out: over as many as there are VRIDs
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::shards")]
    pub shards: Option<u8>,
}

/// Consecutive VRIDs, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouterIds {
    first: NonZeroU8,
    last: NonZeroU8,
}

/// Why a text is no range of VRIDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("virtualRouterIds must be a VRID or a range of them, 1-255, as `50-59`, not {0:?}")]
pub struct RouterIdsError(String);

impl RouterIds {
    /// Reads `50` or `50-59`.
    ///
    /// # Errors
    /// No numbers, none of 1-255, or the last before the first.
    pub fn parse(text: &str) -> Result<Self, RouterIdsError> {
        let wrong = || RouterIdsError(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let read = |part: &str| part.trim().parse::<NonZeroU8>().map_err(|_| wrong());
        let (first, last) = (read(first)?, read(last)?);
        if first <= last { Ok(Self { first, last }) } else { Err(wrong()) }
    }

    /// The lowest.
    pub fn first(self) -> NonZeroU8 {
        self.first
    }

    /// How many they are: 1-255.
    pub fn count(self) -> u8 {
        self.last.get() - self.first.get() + 1
    }

    /// Whether it is one of them.
    pub fn contains(self, id: NonZeroU8) -> bool {
        (self.first..=self.last).contains(&id)
    }

    /// Whether one is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for RouterIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// A time, as `100ms`, `5s` or `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

/// Why a text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: write a whole number of ms, s or m, as `100ms`")]
pub struct PeriodError(String);

impl Period {
    /// Reads `100ms`, `5s`, `2m`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, PeriodError> {
        let wrong = || PeriodError(text.to_owned());
        let end = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (digits, unit) = text.split_at(end);
        let number: u32 = digits.parse().map_err(|_| wrong())?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            _ => return Err(wrong()),
        };
        Ok(Self(Duration::from_millis(u64::from(number) * milliseconds)))
    }

    /// How long.
    pub fn duration(self) -> Duration {
        self.0
    }
}

/// As a configuration file has it.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}
