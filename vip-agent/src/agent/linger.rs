//! Local addresses of instances that move: staged, taken away, or kept for the grace time after a handover, so that open
//! connections can end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::Agent;
use super::instance::{Linger, Managed};
use crate::config::LocalAddress;
use crate::net::addresses::Staged;
use crate::types::MonotonicTime;
use crate::vrrp::driver::{Command, InstanceId, Unstage};
use crate::vrrp::machine::Event;

/// An agent that ends stays at least this long after a handover: clients that have not heard of the new owner yet still
/// send here, new connections included.
const SHORTEST_STAY: Duration = Duration::from_secs(1);

/// How often an ending agent looks whether connections are still open.
const LOOK: Duration = Duration::from_millis(100);

/// Instances whose addresses are to be moved. Together, because the kernel is asked for all addresses on lo each time, and
/// that may be thousands.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// To be staged.
    coming: Vec<InstanceId>,
    /// To be taken away now.
    going: Vec<InstanceId>,
}

impl Agent {
    /// Puts an instance's VIPs on lo and tells the machine so: see [`Self::move_addresses`].
    pub(super) async fn stage_later(&mut self, id: InstanceId, moving: &mut Moving) {
        if moving.going.contains(&id) {
            self.move_addresses(moving).await;
        }
        if let Some(index) = self.index_of(id) {
            self.instances[index].staged = true;
            moving.coming.push(id);
        }
    }

    /// Takes them away, now ([`Self::move_addresses`]) or after the grace time.
    pub(super) async fn unstage_later(&mut self, id: InstanceId, when: Unstage, moving: &mut Moving) {
        if moving.coming.contains(&id) {
            self.move_addresses(moving).await;
        }
        let Some(index) = self.index_of(id) else { return };
        if matches!(when, Unstage::AfterGrace) {
            self.steer_for_grace(index);
        }
        let managed = &mut self.instances[index];
        managed.staged = false;
        match when {
            // What lingers after a handover goes on doing so.
            Unstage::Now if managed.linger.is_some() => {}
            Unstage::Now => moving.going.push(id),
            Unstage::AfterGrace => {
                let since = Instant::now();
                managed.linger = Some(Linger { since, until: since + managed.config.grace });
            }
        }
    }

    /// Who has not heard of the new owner yet sends here: what services steer goes on to its backend meanwhile.
    ///
    /// Not by virtual MACs: they are at the new owner at once, and what a switch sends everywhere must not go on twice.
    fn steer_for_grace(&self, index: usize) {
        let managed = &self.instances[index];
        if self.carries_services(index) && !managed.config.virtual_mac {
            self.dataplane.words().expect(managed.slot, MonotonicTime::now() + managed.config.grace);
        }
    }

    /// Does what has been put off, what comes before what goes: takeovers wait for it.
    pub(super) async fn move_addresses(&mut self, moving: &mut Moving) {
        let coming = std::mem::take(&mut moving.coming);
        let wants = |managed: &&Managed| managed.config.stands_on_lo() != LocalAddress::Never;
        let indexes = |agent: &Self, ids: &[InstanceId]| -> Vec<usize> {
            ids.iter().filter_map(|id| agent.index_of(*id)).collect()
        };
        let staged = indexes(self, &coming);
        let vips = staged.iter().map(|&index| &self.instances[index]).filter(wants).flat_map(Managed::vips);
        self.add_addresses(&vips.collect::<Vec<_>>()).await;
        for id in coming {
            self.driver.send(Command::Tell(id, Event::Staged)).await;
        }
        let gone = indexes(self, &std::mem::take(&mut moving.going));
        let vips: Vec<IpAddr> = gone.iter().flat_map(|&index| self.instances[index].vips()).collect();
        self.proxy.cut(&vips).await;
        self.take_off_lo(&vips).await;
    }

    pub(super) async fn add_addresses(&self, vips: &[IpAddr]) {
        if vips.is_empty() {
            return;
        }
        let instance = |vip: &IpAddr| {
            let has_it = |managed: &&Managed| managed.config.vips.iter().any(|held| held.address == *vip);
            self.instances.iter().find(has_it).map_or("", |managed| managed.name())
        };
        match self.addresses.add(vips).await {
            Err(error) => {
                tracing::error!(%error, "cannot put VIPs on lo: local listeners will not get them");
            }
            Ok(outcomes) => {
                for (vip, outcome) in outcomes {
                    match outcome {
                        Ok(Staged::Ours) => {}
                        Ok(Staged::Foreign { ifindex }) => {
                            let instance = instance(&vip);
                            tracing::debug!(instance, %vip, ifindex, "is there already, by somebody else: left alone");
                        }
                        Err(error) => {
                            tracing::error!(instance = instance(&vip), %vip, %error, "cannot put a VIP on lo");
                        }
                    }
                }
            }
        }
    }

    /// Takes VIPs off lo that no instance needs there (any more).
    pub(super) async fn take_off_lo(&self, vips: &[IpAddr]) {
        let holders = self.instances.iter().filter(|managed| managed.needs_addresses());
        let needed: BTreeSet<IpAddr> = holders.flat_map(Managed::vips).collect();
        let unneeded: Vec<IpAddr> = vips.iter().filter(|vip| !needed.contains(vip)).copied().collect();
        if unneeded.is_empty() {
            return;
        }
        self.proxy.cut(&unneeded).await;
        match self.addresses.remove(&unneeded).await {
            Err(error) => tracing::warn!(%error, "cannot take VIPs off lo: they go away by themselves"),
            Ok(outcomes) => {
                for (vip, outcome) in outcomes {
                    if let Err(error) = outcome {
                        tracing::warn!(%vip, %error, "cannot take a VIP off lo: it goes away by itself");
                    }
                }
            }
        }
    }

    /// When the next grace time ends, or is to be looked at.
    pub(super) fn next_linger(&self) -> Option<Instant> {
        let ends = self.instances.iter().filter_map(|managed| managed.linger).map(|linger| linger.until);
        let end = ends.min()?;
        Some(if self.stopping.is_some() { end.min(Instant::now() + LOOK) } else { end })
    }

    /// Ends grace times that are over, and, when the agent is ending, those that nobody needs any more.
    pub(super) async fn end_lingering(&mut self) {
        let now = Instant::now();
        let is_over = |linger: Linger| linger.until <= now;
        let stayed = |linger: Linger| self.stopping.is_some() && now - linger.since >= SHORTEST_STAY;
        let may_end =
            |managed: &Managed| managed.linger.is_some_and(|linger| is_over(linger) || stayed(linger));
        let ending: Vec<usize> =
            (0..self.instances.len()).filter(|&index| may_end(&self.instances[index])).collect();
        let vips = ending.iter().flat_map(|&index| self.instances[index].vips()).collect();
        let connections = self.open_connections(&vips).await;
        let mut unneeded = Vec::new();
        for index in ending {
            let managed = &mut self.instances[index];
            let vips = managed.vips();
            let open = vips.iter().filter_map(|vip| connections.get(vip)).sum::<u64>();
            if open > 0 && !managed.linger.is_some_and(is_over) {
                continue;
            }
            managed.linger = None;
            if managed.staged {
                // About to own again: they stay, and so do the connections.
                continue;
            }
            managed.connections_cut += open;
            if open > 0 {
                tracing::warn!(
                    instance = managed.name(),
                    connections = open,
                    "cut {open} connections at the end of the grace time"
                );
            }
            unneeded.extend(vips);
        }
        // Also where the address stays (`local_address: always`): their clients' segments come to the new owner.
        self.proxy.cut(&unneeded).await;
        self.take_off_lo(&unneeded).await;
        self.remove_left().await;
    }

    /// How many connections to each VIP are open.
    async fn open_connections(&self, vips: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, u64> {
        let mut counts = BTreeMap::new();
        match self.connections.open_to(vips).await {
            Ok(open) => {
                for connection in open {
                    *counts.entry(connection.local.ip()).or_default() += 1;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot count open connections"),
        }
        counts
    }
}
