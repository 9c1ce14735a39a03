//! What probes find becomes faults and priorities of instances.

use std::sync::Arc;

use super::Agent;
use super::instance::{Exit, Managed};
use crate::config::{self, Check};
use crate::events::{Events, Occurrence};
use crate::health::{Health, Outcome, Probe, Thresholds, View};
use crate::net::links::LinkTable;
use crate::types::Priority;
use crate::vrrp::driver::Command;
use crate::vrrp::machine::Event;

impl Agent {
    /// Tracks the probes of the configuration from now on.
    pub(super) fn set_probes(&mut self) {
        self.tracker.set_probes(self.config.probes.iter().map(|probe| Probe {
            name: probe.name.as_str().to_owned(),
            weight: probe.weight,
            thresholds: match probe.check {
                Check::Interface(_) => Thresholds::AT_ONCE,
            },
        }));
        self.observe_links();
    }

    /// Hands the interfaces' state to the probes that look at it.
    pub(super) fn observe_links(&mut self) {
        let links = Arc::clone(&self.links);
        for config::Probe { name, check, .. } in &self.config.probes {
            let outcome = match check {
                Check::Interface(interface) => interface_outcome(&links, interface.as_str()),
            };
            if self.tracker.observe(name.as_str(), outcome) {
                tell_verdict(self.tracker.view(name.as_str()), &self.events);
            }
        }
    }

    /// Applies the verdicts to all instances: what is as it was is not told again.
    pub(super) async fn apply_verdicts(&mut self) {
        for index in 0..self.instances.len() {
            if self.instances[index].exit != Exit::Left {
                self.apply_verdicts_to(index).await;
            }
        }
    }

    async fn apply_verdicts_to(&mut self, index: usize) {
        match self.health(index) {
            Health::Fault(why) => self.unhealthy(index, why).await,
            Health::Able(priority) => {
                // First, so that it comes back as what it is now.
                self.prioritize(index, priority).await;
                self.healthy(index).await;
            }
        }
    }

    /// What the verdicts make of an instance.
    pub(super) fn health(&self, index: usize) -> Health {
        let managed = &self.instances[index];
        self.tracker.health(managed.config.priority, self.tracked(managed))
    }

    /// The probes that count for an instance: its own, and those of its sync group, which has one priority.
    pub(super) fn tracked<'a>(&'a self, managed: &'a Managed) -> impl Iterator<Item = &'a str> {
        let own = managed.config.track.iter();
        let others = self.group_of(managed).flat_map(|other| &other.config.track);
        own.chain(others).map(config::Name::as_str)
    }

    /// The other members of an instance's sync group, those on their way out excepted.
    pub(super) fn group_of<'a>(&'a self, managed: &'a Managed) -> impl Iterator<Item = &'a Managed> {
        let group = managed.config.sync_group.as_ref();
        self.instances.iter().filter(move |other| {
            group.is_some()
                && other.config.sync_group.as_ref() == group
                && other.id != managed.id
                && other.exit == Exit::None
        })
    }

    /// A probe's state, for status.
    pub(super) fn probe(&self, name: &str) -> Option<View<'_>> {
        self.tracker.view(name)
    }

    async fn prioritize(&mut self, index: usize, priority: Priority) {
        let managed = &mut self.instances[index];
        let before = std::mem::replace(&mut managed.priority, priority);
        if before == priority {
            return;
        }
        tracing::info!(
            instance = managed.name(),
            "priority {before} -> {priority} by the weights of its probes"
        );
        let (id, parameters, grace) = (managed.id, managed.parameters(), managed.config.grace);
        self.driver.send(Command::Reconfigure(id, parameters, grace)).await;
    }

    async fn unhealthy(&mut self, index: usize, why: String) {
        let managed = &mut self.instances[index];
        if managed.unhealthy.as_ref() == Some(&why) {
            return;
        }
        tracing::warn!(instance = managed.name(), "cannot serve: {why}");
        let was_able = managed.is_able();
        managed.unhealthy = Some(why);
        if was_able {
            let id = managed.id;
            self.driver.send(Command::Tell(id, Event::Fault)).await;
        }
    }

    async fn healthy(&mut self, index: usize) {
        let managed = &mut self.instances[index];
        let Some(was) = managed.unhealthy.take() else { return };
        tracing::info!(instance = managed.name(), "healthy again (was: {was})");
        if managed.is_able() {
            let id = managed.id;
            self.driver.send(Command::Tell(id, Event::Recovered)).await;
        }
    }
}

fn interface_outcome(links: &LinkTable, name: &str) -> Outcome {
    match links.by_name(name) {
        None => Outcome::Down(format!("there is no interface {name}")),
        Some(link) if !link.up => Outcome::Down(format!("{name} is down")),
        Some(link) if !link.carrier => Outcome::Down(format!("{name} has no carrier")),
        Some(_) => Outcome::Up,
    }
}

fn tell_verdict(view: Option<View<'_>>, events: &Events) {
    let Some(View { name, up, last_error }) = view else { return };
    events.publish(&Occurrence::Verdict {
        probe: name.to_owned(),
        up,
        error: last_error.map(Occurrence::text),
    });
    match last_error {
        Some(error) => tracing::warn!(probe = name, up, "is down: {error}"),
        None => tracing::info!(probe = name, up, "is up"),
    }
}
