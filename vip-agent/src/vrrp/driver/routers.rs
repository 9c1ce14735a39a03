//! All instances of the driver, and which of them is due next.

use super::announcing::Turns;
use super::timers::Timers;
use super::{InstanceId, Router, Shared};
use crate::types::MonotonicTime;

/// Instances by id. Whatever is done to one, its timers are looked at afterwards.
#[derive(Debug, Default)]
pub(super) struct Routers {
    routers: Vec<Option<Box<Router>>>,
    timers: Timers,
    /// When each takes over unless something is heard before.
    takeovers: Timers,
    announcing: Turns,
}

impl Routers {
    /// Takes an instance in; all that later allocates nothing is allocated here.
    pub(super) fn add(&mut self, id: InstanceId, router: Box<Router>) {
        let index = usize::from(id.0);
        if self.routers.len() <= index {
            self.routers.resize_with(index + 1, || None);
        }
        self.timers.make_room(id);
        self.takeovers.make_room(id);
        self.announcing.make_room(id);
        self.routers[index] = Some(router);
        self.rearm(id);
    }

    /// Lets go of an instance.
    pub(super) fn remove(&mut self, id: InstanceId) -> Option<Box<Router>> {
        let router = self.routers.get_mut(usize::from(id.0)).and_then(Option::take);
        self.rearm(id);
        router
    }

    /// One instance, to be looked at.
    pub(super) fn get(&self, id: InstanceId) -> Option<&Router> {
        self.routers.get(usize::from(id.0))?.as_deref()
    }

    /// Every instance, to be looked at.
    pub(super) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Router)> {
        self.ids().zip(&self.routers).filter_map(|(id, router)| Some((id, router.as_deref()?)))
    }

    /// Does something to an instance, if there is one.
    pub(super) fn with<R>(&mut self, id: InstanceId, act: impl FnOnce(&mut Router) -> R) -> Option<R> {
        let done = act(self.routers.get_mut(usize::from(id.0))?.as_deref_mut()?);
        self.rearm(id);
        Some(done)
    }

    /// Does something to every instance.
    pub(super) fn each(&mut self, mut act: impl FnMut(&mut Router)) {
        for id in self.ids() {
            self.with(id, &mut act);
        }
    }

    /// When the next instance is due, and which; NEVER if none is.
    pub(super) fn next(&self) -> MonotonicTime {
        self.timers.first().map_or(MonotonicTime::NEVER, |(at, _)| at)
    }

    /// The instance that has been due for longest, and since when.
    pub(super) fn due(&self, now: MonotonicTime) -> Option<(MonotonicTime, InstanceId)> {
        self.timers.first().filter(|(at, _)| *at <= now)
    }

    /// When the next takeover comes unless something is heard before, and whose; NEVER if no instance is Backup.
    pub(super) fn next_takeover(&self) -> (MonotonicTime, Option<&Router>) {
        match self.takeovers.first() {
            Some((at, id)) => (at, self.get(id)),
            None => (MonotonicTime::NEVER, None),
        }
    }

    /// How many instances there are at most.
    pub(super) fn len(&self) -> usize {
        self.routers.len()
    }

    /// Whether there is something to announce.
    pub(super) fn is_announcing(&self) -> bool {
        !self.announcing.is_empty()
    }

    /// Makes one system call's worth of announcements for the instance whose turn it is.
    pub(super) fn announce(&mut self, shared: &Shared) {
        if let Some(id) = self.announcing.pop() {
            self.with(id, |router| router.announce_some(shared));
        }
    }

    /// Follows what was done to an instance.
    fn rearm(&mut self, id: InstanceId) {
        let router = self.routers.get_mut(usize::from(id.0)).and_then(Option::as_deref_mut);
        let (timer, takeover) = match router {
            Some(router) => {
                if let Some(urgency) = router.take_turn() {
                    self.announcing.push(id, urgency);
                }
                // A member's timer is its group's.
                let timer =
                    if router.membership().is_none() { router.next_timer() } else { MonotonicTime::NEVER };
                (timer, router.takes_over_at())
            }
            None => (MonotonicTime::NEVER, MonotonicTime::NEVER),
        };
        self.timers.set(id, timer);
        self.takeovers.set(id, takeover);
    }

    fn ids(&self) -> impl Iterator<Item = InstanceId> + use<> {
        // Ids are u16, so there are no more than these.
        (0..=u16::MAX).take(self.routers.len()).map(InstanceId)
    }
}
