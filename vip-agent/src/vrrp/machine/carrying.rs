//! Carrying a machine over to another process of the same host: an upgrade without loss.
//!
//! The owner announces a longer interval first, which Backups of version 3 learn, and falls silent for good; the machine in
//! the other process goes on as what this one was, and says the old interval again.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::active::Active;
use super::backup::{Backup, DownTimer};
use super::{Action, Cause, Machine, Output, PeerAdvert, Phase};
use crate::types::{AdvertInterval, Centiseconds, MonotonicTime};

/// The shortest interval that a pause is announced by: its three are what a pause may last.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The interval by which an owner announces that it will not speak for a while: twice its own, but a second at least and
/// [`Centiseconds`]' 40.95 s at most. In version 2, which learns nothing, its own: a second at least, too.
pub fn longer(own: AdvertInterval) -> AdvertInterval {
    match own {
        AdvertInterval::V2(_) => own,
        AdvertInterval::V3(_) => {
            let longer = (own.duration() * 2).max(SHORTEST_PAUSE);
            Centiseconds::try_from(longer).or(Centiseconds::new(4095)).map_or(own, AdvertInterval::V3)
        }
    }
}

/// What a machine hands on. What keeps it from owning (faults, drains) is no part of it, and is told anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "as")]
pub enum Carried {
    /// Nothing: it begins anew.
    Nothing,
    /// It watches.
    Backup {
        /// Since when, and for what.
        down_at: DownTimer,
        /// The owner's interval, in centiseconds, if it was learned.
        learned: Option<u16>,
        /// The owner that held it last, and by which priority.
        held_by: Option<(IpAddr, u8)>,
        /// Nobody was heard since it began.
        unheard: bool,
    },
    /// It owns.
    Active {
        /// Until when it answers, and its peers wait.
        lease_until: MonotonicTime,
        /// Announcements that still follow the takeover.
        repeats_left: u16,
        /// Until when a former owner gets the VIPs back.
        gives_back_until: MonotonicTime,
        /// It owns only because nobody else does.
        last_resort: bool,
    },
}

impl Machine {
    /// Announces another interval from now on; an owner does so at once, and by it the lease becomes three of them. Twice
    /// if it is the longer one: a Backup that misses it would wait for a shorter time than the lease lasts.
    pub fn announce_interval(&mut self, interval: AdvertInterval, now: MonotonicTime) -> Output {
        let mut output = Output::default();
        self.fence(false, now, &mut output);
        let before = std::mem::replace(&mut self.parameters.interval, interval);
        if let Phase::Active(active) = &mut self.phase {
            active.advertise(now, &self.parameters, &mut output);
            if before.duration() < interval.duration() {
                output.actions.push(Action::Advertise);
            }
        }
        output
    }

    /// What another process needs to go on as this machine; `None` while it hands over.
    pub fn carry(&self, now: MonotonicTime) -> Option<Carried> {
        Some(match &self.phase {
            Phase::Active(active) if now < active.lease_until => Carried::Active {
                lease_until: active.lease_until,
                repeats_left: active.repeats_left,
                gives_back_until: active.gives_back_until,
                last_resort: self.last_resort,
            },
            Phase::Backup(backup) => backup.carry(),
            Phase::Draining(draining) if draining.answers_until.is_some() => return None,
            _ => Carried::Nothing,
        })
    }

    /// Goes on from Initialize as what the machine of another process was. `overheard`: what another router has said since
    /// that one fell silent. Whoever cannot own, or whose lease is over, does what it does at any start.
    pub fn resume(&mut self, carried: Carried, overheard: Option<PeerAdvert>, now: MonotonicTime) -> Output {
        let mut output = Output::default();
        if !matches!(self.phase, Phase::Initialize { .. }) {
            return output;
        }
        match carried {
            Carried::Active { lease_until, repeats_left, gives_back_until, last_resort }
                if now < lease_until =>
            {
                self.be_last_resort(last_resort);
                let parameters = &self.parameters;
                let active = Active::carried(lease_until, repeats_left, gives_back_until, now, parameters);
                self.phase = Phase::Active(active);
                self.go_on_owning(overheard, now, &mut output);
            }
            Carried::Backup { down_at, learned, held_by, unheard }
                if !self.faulty && !self.unwell && !self.drained =>
            {
                let learned = learned.and_then(|interval| Centiseconds::new(interval).ok());
                let first = self.first_interval();
                self.phase = Phase::Backup(Backup::carried(first, learned, down_at, held_by, unheard));
                if let Some(advert) = overheard {
                    self.advert(advert, now, &mut output);
                }
            }
            _ => {
                output.actions.extend([Action::Release, Action::ForwardNothing]);
                self.begin(Cause::Startup, now, &mut output);
            }
        }
        output
    }

    fn go_on_owning(&mut self, overheard: Option<PeerAdvert>, now: MonotonicTime, output: &mut Output) {
        if self.faulty {
            return self.fault(output);
        }
        if self.unwell && !self.last_resort {
            // Told before it had anything to offer.
            self.unwell = false;
            return self.unwell(now, output);
        }
        if let Some(advert) = overheard {
            self.advert(advert, now, output);
        }
        let Phase::Active(active) = &mut self.phase else { return };
        if !output.actions.contains(&Action::Advertise) {
            active.advertise(now, &self.parameters, output);
        }
        if self.parameters.staging {
            // It looks after addresses that are there already.
            output.actions.push(Action::Stage);
        }
    }
}
