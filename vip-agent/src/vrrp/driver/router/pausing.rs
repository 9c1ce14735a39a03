//! A router that falls silent for another process, and one that goes on in its place.

use super::super::Shared;
use super::super::stopwatch::Stopwatch;
use super::Router;
use crate::types::{AdvertInterval, MacAddr, MonotonicTime};
use crate::vrrp::driver::AdvertCounts;
use crate::vrrp::machine::{Carried, Event, PeerAdvert, longer};
use crate::vrrp::trailer::Marks;

/// What a router begins with that goes on in the place of another process's.
#[derive(Debug)]
pub struct Inheritance {
    /// What its machine was.
    pub carried: Carried,
    /// When the other one fell silent.
    pub silent_since: MonotonicTime,
    /// Where frames of open connections go, and until when.
    pub former: (MacAddr, MonotonicTime),
    /// What was heard last of each sender that signs.
    pub marks: Marks,
    /// What was counted.
    pub adverts: AdvertCounts,
}

/// What a silent router was, and has heard since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    interval: AdvertInterval,
}

impl Router {
    /// Announces a longer interval, if it owns, and does nothing from then on until [`Self::go_on`].
    pub(in crate::vrrp::driver) fn pause(&mut self, shared: &Shared) {
        if self.pause.is_some() {
            return;
        }
        let interval = self.machine.parameters().interval;
        self.announce_interval(longer(interval), shared);
        self.overheard = None;
        self.pause = Some(Pause { interval });
    }

    /// Goes on as it was: nobody has taken its place.
    pub(in crate::vrrp::driver) fn go_on(&mut self, shared: &Shared) {
        let Some(Pause { interval }) = self.pause.take() else { return };
        self.announce_interval(interval, shared);
        if let Some((advert, at)) = self.overheard.take() {
            self.handle(Event::Advert(advert), at, shared);
        }
    }

    pub(in crate::vrrp::driver) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// What another process needs to go on in its place; `None` while it hands over.
    pub(in crate::vrrp::driver) fn carry(&self) -> Option<Carried> {
        self.machine.carry(MonotonicTime::now())
    }

    /// Begins as what another process was.
    pub(in crate::vrrp::driver) fn resume(&mut self, inheritance: Inheritance, shared: &Shared) {
        let Inheritance { carried, silent_since, former: (mac, until), marks, adverts } = inheritance;
        self.marks = marks;
        self.adverts.add_all(&adverts);
        self.words.hand_over(self.slot, mac, until);
        let overheard = self.overheard.take().filter(|(_, at)| *at >= silent_since);
        let now = MonotonicTime::now();
        let output = self.machine.resume(carried, overheard.map(|(advert, _)| advert), now);
        self.say_our_priority();
        self.carry_out(output, Stopwatch::start(now, now, now), shared);
    }

    /// Notes what a router heard that does not take part yet, or any more.
    pub(super) fn overhear(&mut self, advert: PeerAdvert, at: MonotonicTime) {
        // Of several the best decides.
        let better = |(known, _): &(PeerAdvert, _)| known.priority <= advert.priority;
        if advert.priority > 0 && self.overheard.as_ref().is_none_or(better) {
            self.overheard = Some((advert, at));
        }
    }

    fn announce_interval(&mut self, interval: AdvertInterval, shared: &Shared) {
        if let AdvertInterval::V3(interval) = interval {
            for family in self.binding.iter_mut().flat_map(|binding| &mut binding.families) {
                family.adverts.set_interval(interval);
                if let Some(yielding) = &mut family.yielding {
                    yielding.set_interval(interval);
                }
            }
        }
        let now = MonotonicTime::now();
        let output = self.machine.announce_interval(interval, now);
        self.carry_out(output, Stopwatch::start(now, now, now), shared);
    }
}
