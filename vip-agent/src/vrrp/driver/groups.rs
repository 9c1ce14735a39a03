//! Sync groups in the driver: whose routers belong together, and the way to them for [`crate::vrrp::sync_group`].

use super::routers::Routers;
use super::{InstanceId, Router, Shared};
use crate::types::MonotonicTime;
use crate::vrrp::machine::{Event, Machine};
use crate::vrrp::sync_group::{self, Members};

/// All groups, by their ids.
#[derive(Debug, Default)]
pub(super) struct Groups(Vec<Vec<InstanceId>>);

/// One group's routers.
pub(super) struct Group<'a> {
    routers: &'a mut Routers,
    members: &'a [InstanceId],
    shared: &'a Shared,
}

impl Groups {
    /// Works out the members anew. Allocates only for a group or a member that was never there before.
    pub(super) fn regroup(&mut self, routers: &mut Routers) {
        self.0.iter_mut().for_each(Vec::clear);
        for (id, router) in routers.iter() {
            let Some(membership) = router.membership() else { continue };
            let group = usize::from(membership.group.0);
            if self.0.len() <= group {
                self.0.resize_with(group + 1, Vec::new);
            }
            self.0[group].push(id);
        }
        for members in &self.0 {
            let rank = |id: InstanceId| routers.get(id)?.membership().map(|membership| membership.rank);
            let first = members.iter().copied().min_by_key(|&id| rank(id));
            for &id in members {
                routers.with(id, |router| router.let_break_ties(Some(id) == first));
            }
        }
    }

    /// Does something with each group that has members.
    pub(super) fn each(&self, routers: &mut Routers, shared: &Shared, mut act: impl FnMut(&mut Group<'_>)) {
        for members in self.0.iter().filter(|members| !members.is_empty()) {
            act(&mut Group { routers: &mut *routers, members, shared });
        }
    }

    /// When the next group needs its timers; NEVER if none does.
    pub(super) fn next(&self, routers: &mut Routers, shared: &Shared) -> MonotonicTime {
        let mut next = MonotonicTime::NEVER;
        self.each(routers, shared, |group| next = next.min(sync_group::next_timer(group)));
        next
    }

    /// Does something with the group that an instance is a member of, if it is, and its place there.
    pub(super) fn with(
        &self,
        id: InstanceId,
        routers: &mut Routers,
        shared: &Shared,
        act: impl FnOnce(&mut Group<'_>, usize),
    ) {
        let Some(membership) = routers.get(id).and_then(Router::membership) else { return };
        let Some(members) = self.0.get(usize::from(membership.group.0)) else { return };
        let Some(member) = members.iter().position(|other| *other == id) else { return };
        act(&mut Group { routers, members, shared }, member);
    }
}

impl Group<'_> {
    fn router(&self, member: usize) -> &Router {
        let router = self.routers.get(self.members[member]);
        router.expect("whenever routers come or go the groups are worked out anew")
    }
}

impl Members for Group<'_> {
    fn count(&self) -> usize {
        self.members.len()
    }

    fn machine(&self, member: usize) -> &Machine {
        self.router(member).machine()
    }

    fn tell(&mut self, member: usize, event: Event) {
        self.routers.with(self.members[member], |router| router.tell(event, self.shared));
    }

    fn is_faulty(&self, member: usize) -> bool {
        self.router(member).is_faulty()
    }

    fn was_refused(&self, member: usize) -> bool {
        self.router(member).was_refused()
    }
}
