//! What fast detection asks of a virtual router, and tells it.

use vip_common::heartbeat::{Owned, Succession};

use super::Router;
use crate::types::{Family, MonotonicTime, VirtualRouterId};
use crate::vrrp::detect::Settings;
use crate::vrrp::driver::Shared;
use crate::vrrp::machine::{Event, OwnerLife, State};

impl Router {
    /// How it takes part on this interface, if it does.
    pub(in crate::vrrp::driver) fn detects_on(&self, ifindex: u32) -> Option<Settings> {
        self.binding.as_ref().filter(|binding| binding.ifindex == ifindex)?.detect
    }

    /// Whether this node answers for the VIPs, and goes on saying so.
    pub(in crate::vrrp::driver) fn answers(&self, now: MonotonicTime) -> bool {
        now < self.words.load(self.slot) && !self.is_paused()
    }

    /// Adds what it owns.
    pub(in crate::vrrp::driver) fn add_to(&self, owned: &mut Owned) {
        let id = self.virtual_router_id.get();
        for family in self.binding.iter().flat_map(|binding| &binding.families) {
            match family.family() {
                Family::V4 => owned.v4.insert(id),
                Family::V6 => owned.v6.insert(id),
            }
        }
    }

    /// Adds what it would take over, and with which priority.
    pub(in crate::vrrp::driver) fn add_to_succession(&self, succession: &mut Succession) {
        let (id, priority) = (self.virtual_router_id.get(), self.machine.parameters().priority.get());
        for family in self.binding.iter().flat_map(|binding| &binding.families) {
            match family.family() {
                Family::V4 => succession.v4.set(id, priority),
                Family::V6 => succession.v6.set(id, priority),
            }
        }
    }

    /// By what its owner is known: both families have one.
    pub(in crate::vrrp::driver) fn watches(&self) -> (Family, VirtualRouterId) {
        let family = self.binding.as_ref().and_then(|binding| binding.families.first());
        (family.map_or(Family::V4, super::Family::family), self.virtual_router_id)
    }

    /// When an owner was last heard by an advertisement.
    pub(in crate::vrrp::driver) fn last_advert(&self) -> MonotonicTime {
        self.owner.map_or(MonotonicTime::ZERO, |owner| owner.heard)
    }

    /// When its owner last gave a sign of life, as far as is known.
    pub(super) fn owner_seen(&self) -> MonotonicTime {
        match self.life {
            OwnerLife::Dead { since, longest_skew, .. } => self.last_advert().max(since.before(longest_skew)),
            OwnerLife::Alive | OwnerLife::Suspected => self.last_advert(),
        }
    }

    /// Tells the machine how its owner is, if that is news.
    pub(in crate::vrrp::driver) fn owner_is(&mut self, life: OwnerLife, shared: &Shared) {
        let life = if self.machine.state() == State::Backup { life } else { OwnerLife::Alive };
        if std::mem::replace(&mut self.life, life) != life {
            self.tell(Event::Owner(life), shared);
        }
    }
}
