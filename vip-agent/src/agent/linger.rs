//! After a handover: the local addresses stay for the grace time, so that open connections can end.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::Agent;
use super::instance::Linger;
use crate::config::LocalAddress;
use crate::net::addresses::Staged;
use crate::vrrp::driver::{Command, Unstage};
use crate::vrrp::machine::Event;

/// An agent that ends stays at least this long after a handover: clients that have not heard of the new owner yet still
/// send here, new connections included.
const SHORTEST_STAY: Duration = Duration::from_secs(1);

/// How often an ending agent looks whether connections are still open.
const LOOK: Duration = Duration::from_millis(100);

impl Agent {
    /// Puts an instance's VIPs on lo and tells the machine so.
    pub(super) async fn stage(&mut self, index: usize) {
        let managed = &mut self.instances[index];
        managed.staged = true;
        let (id, vips, wanted) =
            (managed.id, managed.vips(), managed.config.stands_on_lo() != LocalAddress::Never);
        if wanted {
            self.add_addresses(index, &vips).await;
        }
        self.driver.send(Command::Tell(id, Event::Staged)).await;
    }

    pub(super) async fn add_addresses(&self, index: usize, vips: &[IpAddr]) {
        let instance = self.instances[index].name();
        match self.addresses.add(vips).await {
            Err(error) => {
                tracing::error!(instance, %error, "cannot put VIPs on lo: local listeners will not get them");
            }
            Ok(outcomes) => {
                for (vip, outcome) in outcomes {
                    match outcome {
                        Ok(Staged::Foreign { ifindex }) => {
                            tracing::debug!(instance, %vip, ifindex, "is there already, by somebody else: left alone");
                        }
                        Ok(_) => {}
                        Err(error) => tracing::error!(instance, %vip, %error, "cannot put a VIP on lo"),
                    }
                }
            }
        }
    }

    /// Takes them away, now or after the grace time.
    pub(super) async fn unstage(&mut self, index: usize, when: Unstage) {
        let managed = &mut self.instances[index];
        managed.staged = false;
        match when {
            // What lingers after a handover goes on doing so.
            Unstage::Now if managed.linger.is_some() => {}
            Unstage::Now => self.remove_addresses(index).await,
            Unstage::AfterGrace => {
                let since = Instant::now();
                managed.linger = Some(Linger { since, until: since + managed.config.grace });
            }
        }
    }

    async fn remove_addresses(&mut self, index: usize) {
        let vips = self.instances[index].vips();
        self.take_off_lo(&vips).await;
    }

    /// Takes VIPs off lo that no instance needs there (any more).
    pub(super) async fn take_off_lo(&self, vips: &[IpAddr]) {
        let needed = |vip: &&IpAddr| {
            self.instances.iter().any(|managed| managed.needs_addresses() && managed.vips().contains(vip))
        };
        let unneeded: Vec<IpAddr> = vips.iter().filter(|vip| !needed(vip)).copied().collect();
        if unneeded.is_empty() {
            return;
        }
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
        for index in 0..self.instances.len() {
            let managed = &self.instances[index];
            let Some(linger) = managed.linger else { continue };
            let over = linger.until <= Instant::now();
            let stayed = self.stopping.is_some() && linger.since.elapsed() >= SHORTEST_STAY;
            if !over && !stayed {
                continue;
            }
            let open = self.open_connections(&managed.vips()).await;
            if !over && open > 0 {
                continue;
            }
            let managed = &mut self.instances[index];
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
            self.remove_addresses(index).await;
        }
        self.remove_left().await;
    }

    async fn open_connections(&self, vips: &[IpAddr]) -> u64 {
        let vips: BTreeSet<IpAddr> = vips.iter().copied().collect();
        match self.connections.open_to(&vips).await {
            Ok(open) => open.len() as u64,
            Err(error) => {
                tracing::warn!(%error, "cannot count open connections");
                0
            }
        }
    }
}
