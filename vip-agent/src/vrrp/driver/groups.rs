//! Sync groups in the driver: whose routers belong together, and the way to them for [`crate::vrrp::sync_group`].

use super::{InstanceId, Router, Shared};
use crate::vrrp::machine::{Event, Machine};
use crate::vrrp::sync_group::Members;

/// All groups, by their ids.
#[derive(Debug, Default)]
pub(super) struct Groups(Vec<Vec<u16>>);

/// One group's routers.
pub(super) struct Group<'a> {
    routers: &'a mut [Option<Box<Router>>],
    /// Their places among all routers.
    members: &'a [u16],
    shared: &'a Shared,
}

impl Groups {
    /// Works out the members anew. Allocates only for a group or a member that was never there before.
    pub(super) fn regroup(&mut self, routers: &mut [Option<Box<Router>>]) {
        self.0.iter_mut().for_each(Vec::clear);
        for (index, router) in (0..).zip(routers.iter()) {
            let Some(membership) = router.as_ref().and_then(|router| router.membership()) else { continue };
            let group = usize::from(membership.group.0);
            if self.0.len() <= group {
                self.0.resize_with(group + 1, Vec::new);
            }
            self.0[group].push(index);
        }
        for members in &self.0 {
            let rank = |index: u16| {
                let router = routers[usize::from(index)].as_ref();
                router.and_then(|router| router.membership()).map(|membership| membership.rank)
            };
            let first = members.iter().copied().min_by_key(|&index| rank(index));
            for &index in members {
                if let Some(router) = &mut routers[usize::from(index)] {
                    router.let_break_ties(Some(index) == first);
                }
            }
        }
    }

    /// Does something with each group that has members.
    pub(super) fn each(
        &self,
        routers: &mut [Option<Box<Router>>],
        shared: &Shared,
        mut act: impl FnMut(&mut Group<'_>),
    ) {
        for members in self.0.iter().filter(|members| !members.is_empty()) {
            act(&mut Group { routers: &mut *routers, members, shared });
        }
    }

    /// Does something with the group that an instance is a member of, if it is, and its place there.
    pub(super) fn with(
        &self,
        id: InstanceId,
        routers: &mut [Option<Box<Router>>],
        shared: &Shared,
        act: impl FnOnce(&mut Group<'_>, usize),
    ) {
        let router = routers.get(usize::from(id.0)).and_then(Option::as_ref);
        let Some(membership) = router.and_then(|router| router.membership()) else { return };
        let Some(members) = self.0.get(usize::from(membership.group.0)) else { return };
        let Some(member) = members.iter().position(|index| *index == id.0) else { return };
        act(&mut Group { routers, members, shared }, member);
    }
}

impl Group<'_> {
    fn router(&self, member: usize) -> &Router {
        let router = self.routers[usize::from(self.members[member])].as_ref();
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
        if let Some(router) = &mut self.routers[usize::from(self.members[member])] {
            router.tell(event, self.shared);
        }
    }

    fn is_faulty(&self, member: usize) -> bool {
        self.router(member).is_faulty()
    }

    fn was_refused(&self, member: usize) -> bool {
        self.router(member).was_refused()
    }
}
