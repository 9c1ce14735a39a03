//! The machine by a virtual clock: one file per topic, one test per case.

mod active;
mod announcements;
mod backup;
mod carrying;
mod draining;
mod fallen;
mod fault;
mod fuzz;
mod lease;
mod nopreempt;
mod owner_dead;
mod phase;
mod properties;
mod reconfigure;
mod rig;
mod shutdown;
mod staging;
mod startup;
mod timing;
mod unwell;
mod version_2;

use std::cmp::Ordering;

use self::rig::{PEER, Rig, Sent};
use super::{Action, Cause, Event, OwnerLife, PeerAdvert, State};
use crate::types::{AdvertInterval, Centiseconds, Priority, Seconds};
