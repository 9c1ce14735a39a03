//! What probes find becomes faults and priorities of instances.

use std::sync::Arc;
use std::time::Duration;

use super::instance::{Exit, Managed};
use super::services::asked;
use super::{Agent, BEAT};
use crate::config::{self, AllFailed, Check};
use crate::events::{Events, Occurrence};
use crate::health::{Health, Outcome, Probe, Round, Turn, View};
use crate::net::links::LinkTable;
use crate::types::{MonotonicTime, Priority};
use crate::vrrp::driver::Command;
use crate::vrrp::machine::Event;

/// How much later than it should an outcome may come before its probe counts as hung.
const SLACK: Duration = Duration::from_secs(1);

impl Agent {
    /// Tracks the probes of the configuration from now on.
    pub(super) fn set_probes(&mut self) {
        let asked = asked(&self.config);
        self.tracker.set_probes(asked.iter().map(|probe| Probe {
            name: probe.name().to_owned(),
            weight: probe.weight,
            thresholds: probe.check.thresholds(),
            expires: match &probe.check {
                Check::Interface(_) => None,
                Check::Polled(_, polling) => {
                    Some(polling.interval + polling.jitter + polling.timeout + SLACK)
                }
            },
        }));
        self.probers.set(&asked);
        self.observe_links();
    }

    /// Hands the interfaces' state to the probes that look at it.
    pub(super) fn observe_links(&mut self) {
        let links = Arc::clone(&self.links);
        let now = MonotonicTime::now();
        for probe in &self.config.probes {
            let Check::Interface(interface) = &probe.check else { continue };
            let outcome = interface_outcome(&links, interface.as_str());
            if self.tracker.observe(probe.name(), Round { outcome, began: now, ended: now }) {
                tell_verdict(self.tracker.view(probe.name()), &self.events);
                self.turned = Some(probe.name().to_owned());
            }
        }
    }

    /// Somebody has asked, and this is what it came to.
    pub(super) async fn on_round(&mut self, probe: &str, round: Round) {
        tracing::trace!(probe, ?round, "asked");
        if self.tracker.observe(probe, round) {
            tell_verdict(self.tracker.view(probe), &self.events);
            self.turned = Some(probe.to_owned());
            self.apply_verdicts().await;
            self.services.touch();
            self.keep_services();
            self.serve_proxied();
        } else if self.tracker.view(probe).is_some_and(|view| !view.up) {
            // The reason may be another one.
            self.apply_verdicts().await;
        }
        self.keep_cpus_ready();
    }

    /// Verdicts without outcomes expire. A process that was stopped could have had none: what counts is the time in which
    /// the runtime ran.
    pub(super) async fn expire_verdicts(&mut self) {
        let now = MonotonicTime::now();
        let ran = now.since(std::mem::replace(&mut self.looked_at, now)).min(2 * BEAT);
        let expired = self.tracker.grow_older(ran, now);
        for probe in &expired {
            tell_verdict(self.tracker.view(probe), &self.events);
        }
        if let Some(probe) = expired.into_iter().next() {
            self.turned = Some(probe);
            self.apply_verdicts().await;
            self.services.touch();
            self.keep_services();
            self.serve_proxied();
        }
    }

    /// Applies the verdicts to all instances: what is as it was is not told again.
    pub(super) async fn apply_verdicts(&mut self) {
        let turned = self.turned.take();
        let turn = turned.and_then(|probe| self.tracker.turn(&probe).cloned());
        for index in 0..self.instances.len() {
            if self.instances[index].exit != Exit::Left {
                self.apply_verdicts_to(index, turn.as_ref()).await;
            }
        }
    }

    /// `turn`: the verdict that is another one now, if one is.
    async fn apply_verdicts_to(&mut self, index: usize, turn: Option<&Turn>) {
        match self.health(index) {
            Health::Fault { probe, why } => {
                let turn = self.tracker.turn(&probe).cloned();
                self.unhealthy(index, why, turn).await;
            }
            Health::Able(priority) => {
                // First, so that it comes back as what it is now.
                self.prioritize(index, priority, turn).await;
                self.healthy(index, turn).await;
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

    async fn prioritize(&mut self, index: usize, priority: Priority, turn: Option<&Turn>) {
        let managed = &mut self.instances[index];
        let before = std::mem::replace(&mut managed.priority, priority);
        if before == priority {
            return;
        }
        managed.blamed = turn.cloned();
        tracing::info!(
            instance = managed.name(),
            probe = turn.map(|turn| turn.probe.as_str()),
            "priority {before} -> {priority} by the weights of its probes"
        );
        let (id, parameters, grace) = (managed.id, managed.parameters(), managed.config.grace);
        self.driver.send(Command::Reconfigure(id, parameters, grace)).await;
    }

    async fn unhealthy(&mut self, index: usize, why: String, turn: Option<Turn>) {
        let managed = &mut self.instances[index];
        match &mut managed.unhealthy {
            Some(known) => {
                // The same fault in other words is no news for the log.
                *known = why;
                return;
            }
            None => {
                tracing::warn!(instance = managed.name(), "cannot serve: {why}");
                managed.unhealthy = Some(why);
            }
        }
        let since = turn.as_ref().map(|turn| turn.last);
        managed.blamed = turn;
        self.tell_condition(index, since).await;
    }

    async fn healthy(&mut self, index: usize, turn: Option<&Turn>) {
        let managed = &mut self.instances[index];
        let Some(was) = managed.unhealthy.take() else { return };
        tracing::info!(instance = managed.name(), "healthy again (was: {was})");
        managed.blamed = turn.cloned();
        self.tell_condition(index, turn.map(|turn| turn.last)).await;
    }

    /// Tells an instance's machine what keeps it from owning, if that is something else than it was told; `since` when.
    pub(super) async fn tell_condition(&mut self, index: usize, since: Option<MonotonicTime>) {
        let managed = &mut self.instances[index];
        let open = managed.config.all_failed == AllFailed::Open;
        let unwell = managed.unhealthy.is_some();
        let faulty = managed.fault.is_some() || managed.conflict.is_some() || (unwell && !open);
        let (unwell, since) = (unwell && open, since.unwrap_or_else(MonotonicTime::now));
        let was = std::mem::replace(&mut managed.told, Condition { faulty, unwell });
        let id = managed.id;
        // What keeps it out first: it must not begin in between.
        let changes = [
            (!was.faulty && faulty, Event::Fault),
            (!was.unwell && unwell, Event::Unwell),
            (was.faulty && !faulty, Event::Recovered),
            (was.unwell && !unwell, Event::Well),
        ];
        for (_, event) in changes.into_iter().filter(|(changed, _)| *changed) {
            self.driver.send(Command::TellOf(id, event, since)).await;
        }
    }
}

/// What an instance's machine was told of its condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// It cannot own.
    faulty: bool,
    /// It should not, if another can.
    unwell: bool,
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
    let Some(View { name, up, last_error, .. }) = view else { return };
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
