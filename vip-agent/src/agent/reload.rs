//! Applying another configuration by difference: what did not change is not touched.

use std::net::IpAddr;

use tokio::sync::oneshot;

use super::Agent;
use super::binding::{bind, parameters};
use super::housing::{check_clashes, check_places};
use super::instance::{Exit, Linger, Managed};
use crate::config::{self, Change, Config, InstanceField, LastGood, LocalAddress, ProcessField};
use crate::control::Answer;
use crate::errors::in_full;
use crate::events::Occurrence;
use crate::health::Health;
use crate::net::sysctl;
use crate::privilege;
use crate::vrrp::driver::{Command, Router};
use crate::vrrp::machine::Event;

/// Reloads under way.
#[derive(Debug, Default)]
pub(super) struct Reload {
    /// Instances that wait for others, which they exclude, to leave.
    arriving: Vec<config::Instance>,
    /// Who waits until all is applied.
    waiting: Vec<oneshot::Sender<Answer>>,
    /// What could not be done, for them.
    complaints: Vec<String>,
    /// Settings that a restart will bring into force.
    deferred: Vec<String>,
    /// The one of them that keeps another process from going on in this one's place.
    bars_upgrade: Option<ProcessField>,
    /// Whether those who follow events have yet to hear of it.
    untold: bool,
}

impl Reload {
    /// Instances that wait for others to leave.
    pub(super) fn arriving(&self) -> impl Iterator<Item = &str> {
        self.arriving.iter().map(|instance| instance.name.as_str())
    }

    /// A setting of the file that only a restart brings into force, no upgrade.
    pub(super) fn bars_upgrade(&self) -> Option<ProcessField> {
        self.bars_upgrade
    }
}

impl Agent {
    pub(super) async fn reload_by_signal(&mut self) {
        tracing::info!("SIGHUP: reloading");
        self.reload(None).await;
    }

    pub(super) async fn reload_by_change(&mut self) {
        if self.stopping.is_none() {
            tracing::info!("the configuration file has changed: reloading");
            self.reload(None).await;
        }
    }

    /// Reads the file again. An invalid one changes nothing.
    pub(super) async fn reload(&mut self, answer: Option<oneshot::Sender<Answer>>) {
        let is_read = self.stopping.is_none() && self.is_being_succeeded().is_none();
        let outcome = self.try_reload().await;
        if let Err(error) = &outcome {
            tracing::error!("configuration refused, the old one stays:\n{}", in_full(error));
            if is_read {
                self.provenance.refused(Occurrence::text(&in_full(error)));
            }
            self.events.publish(&Occurrence::Reload {
                applied: false,
                error: Some(Occurrence::text(&in_full(error))),
            });
        }
        match (&outcome, answer) {
            (Err(error), Some(answer)) => drop(answer.send(Answer::Error(in_full(error)))),
            (Ok(()), Some(answer)) => self.reload.waiting.push(answer),
            (_, None) => {}
        }
        self.reload.untold |= outcome.is_ok();
        self.answer_reload();
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        if self.stopping.is_some() {
            anyhow::bail!("the agent is ending");
        }
        if let Some(why) = self.is_being_succeeded() {
            anyhow::bail!(why);
        }
        self.file_watch.reading();
        let loaded = config::load(&self.config_file, &config::default_node())?;
        for line in loaded.warnings.lines() {
            tracing::warn!("{line}");
        }
        let file = loaded.config;
        let new = self.completed(&file);
        let old = std::mem::replace(&mut self.config, new.clone());
        let possible = match self.can_apply(&old, &new, &file).await {
            Ok(()) => self.prepare_addresses(&new.instances).await,
            Err(error) => Err(error),
        };
        if let Err(error) = possible {
            self.config = old;
            return Err(error);
        }
        self.reload.deferred.clear();
        self.reload.bars_upgrade = None;
        self.apply(&old, &new).await;
        self.config = new.clone().within_the_process_of(&old);
        self.file = file.within_the_process_of(&old);
        if self.file.may_steer() && !self.can_steer() {
            self.reload.deferred.push("kubernetes.steering".to_owned());
        }
        self.follow_cluster();
        self.file_watch.follow(new.reload_on_change);
        self.provenance.applied();
        if let Err(error) = LastGood::in_dir(&self.config.state_dir).save(&loaded.source) {
            tracing::warn!(%error, "cannot keep the configuration in state_dir");
        }
        self.source = loaded.source;
        Ok(())
    }

    /// Everything that can be known beforehand.
    pub(super) async fn can_apply(
        &mut self,
        old: &Config,
        new: &Config,
        file: &Config,
    ) -> anyhow::Result<()> {
        self.load_services(file)?;
        self.read_routes().await;
        let fresh: Vec<config::Instance> = config::diff(old, new)
            .into_iter()
            .filter_map(|change| match change {
                Change::Added(instance) => Some(instance.clone()),
                Change::Changed { new, .. } => Some(new.clone()),
                Change::Process(_) | Change::Removed(_) | Change::Api | Change::Probes | Change::Services => {
                    None
                }
            })
            .filter(|instance| Self::is_of_file(file, instance))
            .collect();
        check_places(&fresh, &self.links, &self.routes, &self.dataplane)?;
        check_clashes(&file.instances, &self.links, &self.routes)
    }

    /// Writes all addresses down at once: each time waits for the disk.
    pub(super) async fn prepare_addresses(&self, instances: &[config::Instance]) -> anyhow::Result<()> {
        let on_lo = instances.iter().filter(|instance| instance.local_address != LocalAddress::Never);
        let vips: Vec<_> = on_lo.flat_map(|instance| &instance.vips).map(|vip| vip.address).collect();
        Ok(self.addresses.prepare(&vips).await?)
    }

    pub(super) async fn apply(&mut self, old: &Config, new: &Config) {
        self.reload.complaints.clear();
        for change in config::diff(old, new) {
            let restarts = change.restarts_instance();
            match change {
                Change::Process(field) => {
                    tracing::warn!("{field} takes effect at the next start of the agent");
                    self.reload.deferred.push(field.to_string());
                    if field.stays_through_upgrade() {
                        self.reload.bars_upgrade = Some(field);
                    }
                }
                Change::Removed(instance) => self.retire(instance.name.as_str()).await,
                Change::Changed { new, .. } if restarts || self.is_arriving(new) => {
                    self.retire(new.name.as_str()).await;
                    self.reload.arriving.push(new.clone());
                }
                Change::Changed { old, new, fields } => self.change(old, new, &fields).await,
                Change::Added(instance) => self.reload.arriving.push(instance.clone()),
                Change::Api => self.api.serve(new.api.clone()),
                Change::Probes => self.set_probes(),
                Change::Services => {
                    self.set_probes();
                    self.set_services();
                }
            }
        }
        if new.runs_commands() && privilege::is_without_commands() {
            let field = "that commands of probes may become another user";
            tracing::warn!("{field} takes effect at the next start of the agent");
            self.reload.deferred.push(field.to_owned());
        }
        self.remove_left().await;
        self.apply_verdicts().await;
    }

    fn is_arriving(&self, instance: &config::Instance) -> bool {
        self.reload.arriving.iter().any(|arriving| arriving.name == instance.name)
    }

    /// Tells an instance to hand over and go.
    async fn retire(&mut self, name: &str) {
        self.reload.arriving.retain(|instance| instance.name.as_str() != name);
        let staying = |managed: &&mut Managed| managed.name() == name && managed.exit == Exit::None;
        let Some(managed) = self.instances.iter_mut().find(staying) else { return };
        managed.exit = Exit::Leaving;
        let id = managed.id;
        self.driver.send(Command::Tell(id, Event::Shutdown)).await;
    }

    /// Changes an instance without leaving its state.
    async fn change(&mut self, old: &config::Instance, new: &config::Instance, fields: &[InstanceField]) {
        let Some(index) = self.instances.iter().position(|managed| managed.name() == new.name.as_str())
        else {
            return;
        };
        let gone: Vec<_> = config::vips_removed(old, new).map(|vip| vip.address).collect();
        let come: Vec<_> = config::vips_added(old, new).map(|vip| vip.address).collect();
        let had_addresses = old.stands_on_lo() != LocalAddress::Never;
        let other_peers = fields.contains(&InstanceField::Unicast);
        self.instances[index].config = new.clone();
        let id = self.instances[index].id;
        if let Err(error) = self.rebind(index, &gone, &come).await {
            self.complain(new, &error);
            // What is half done is tried again.
            self.fault(index, in_full(&error)).await;
        }
        if other_peers {
            // It may speak from another address.
            self.settle(index).await;
            self.keep_peers_resolved();
        }
        if had_addresses && !gone.is_empty() {
            self.take_off_lo(&gone).await;
        }
        if let Health::Able(priority) = self.health(index) {
            self.instances[index].priority = priority;
        }
        let parameters = self.instances[index].parameters();
        self.driver.send(Command::Reconfigure(id, parameters, new.grace)).await;
        // `all_failed` may make another thing of the same fault.
        self.tell_condition(index, None).await;
        if self.instances[index].needs_addresses() {
            self.add_addresses(&self.instances[index].vips()).await;
        } else if old.stands_on_lo() != new.stands_on_lo() {
            self.take_off_lo(&self.instances[index].vips()).await;
        }
        if !come.is_empty() {
            self.driver.send(Command::Announce(id)).await;
        }
        tracing::info!(instance = new.name.as_str(), ?fields, "changed");
    }

    /// Other VIPs, and frames that list them.
    pub(super) async fn rebind(
        &mut self,
        index: usize,
        gone: &[IpAddr],
        come: &[IpAddr],
    ) -> anyhow::Result<()> {
        let signer = self.signer(&self.instances[index].config.clone());
        let managed = &self.instances[index];
        let Some(home) = &managed.home else { return Ok(()) };
        let router = sysctl::forwards_ipv6(&home.place.vip.name).unwrap_or(false);
        let binding = bind(&managed.config, &home.place, router, &mut self.sockets, signer.as_ref())?;
        self.change_vips(index, gone, come, router)?;
        self.give(index, binding).await;
        self.keep_detecting().await;
        Ok(())
    }

    fn complain(&mut self, instance: &config::Instance, error: &anyhow::Error) {
        tracing::error!(instance = instance.name.as_str(), "{}", in_full(error));
        self.reload.complaints.push(format!("{}: {}", instance.name, in_full(error)));
    }

    /// Removes what has left, with all that it had; brings up what had to wait for that.
    pub(super) async fn remove_left(&mut self) {
        let settled = self.instances.iter().all(|managed| managed.exit == Exit::None);
        if self.stopping.is_some() || (settled && self.reload.arriving.is_empty()) {
            return self.answer_reload();
        }
        for instance in std::mem::take(&mut self.reload.arriving) {
            let in_the_way = |managed: &Managed| managed.exit == Exit::Leaving && managed.excludes(&instance);
            if self.instances.iter().any(in_the_way) {
                self.reload.arriving.push(instance);
            } else if let Err(error) = self.succeed(instance.clone()).await {
                self.complain(&instance, &error);
            }
        }
        self.start_groups().await;
        let gone = |managed: &Managed| managed.exit == Exit::Left && managed.linger.is_none();
        let mut unneeded = Vec::new();
        while let Some(index) = self.instances.iter().position(gone) {
            unneeded.extend(self.dismantle(index).await.vips());
        }
        self.take_off_lo(&unneeded).await;
        self.tidy().await;
        self.answer_reload();
    }

    /// Brings an instance up in the place of those that have left and that it excludes. What lingers of them lingers on,
    /// and what an operator drained stays so.
    async fn succeed(&mut self, instance: config::Instance) -> anyhow::Result<()> {
        let mut former = Vec::new();
        while let Some(index) = self
            .instances
            .iter()
            .position(|managed| managed.exit == Exit::Left && managed.excludes(&instance))
        {
            former.push(self.dismantle(index).await);
        }
        let namesake = |managed: &&Managed| managed.config.name == instance.name;
        let in_group = |managed: &&Managed| {
            instance.sync_group.is_some() && managed.config.sync_group == instance.sync_group
        };
        let staying = self.instances.iter().find(|managed| in_group(managed) && managed.exit == Exit::None);
        // A sync group is drained as a whole.
        let drained = match staying {
            Some(member) => member.drained,
            None => former.iter().find(namesake).is_some_and(|managed| managed.drained),
        };
        let linger: Option<Linger> = former.iter().find_map(|managed| managed.linger);
        let brought_up = self.bring_up(instance, drained, linger).await;
        for managed in former {
            self.take_off_lo(&managed.vips()).await;
        }
        brought_up
    }

    async fn dismantle(&mut self, index: usize) -> Managed {
        self.move_out_of_tables(index);
        self.note_marks(index).await;
        self.note_counts(index).await;
        let managed = self.instances.remove(index);
        self.driver.send(Command::Remove(managed.id)).await;
        self.watch.forget(managed.slot);
        self.alarms.forget(managed.name());
        self.dataplane.free_router(managed.slot);
        tracing::info!(instance = managed.name(), "removed");
        managed
    }

    /// Takes an instance in and starts it, with what it inherits; a passing fault does not keep it from that.
    pub(super) async fn bring_up(
        &mut self,
        config: config::Instance,
        drained: bool,
        linger: Option<Linger>,
    ) -> anyhow::Result<()> {
        let vips: Vec<_> = config.vips.iter().map(|vip| vip.address).collect();
        let always = config.stands_on_lo() == LocalAddress::Always;
        let index = self.take_in(config, drained, linger).await?;
        let id = self.instances[index].id;
        if always {
            self.add_addresses(&vips).await;
        }
        if drained {
            self.driver.send(Command::Tell(id, Event::Drain)).await;
        }
        self.apply_verdicts().await;
        if self.instances[index].config.sync_group.is_none() {
            self.start(index).await;
        }
        Ok(())
    }

    /// Takes an instance in and makes it ready to be started.
    pub(super) async fn take_in(
        &mut self,
        config: config::Instance,
        drained: bool,
        linger: Option<Linger>,
    ) -> anyhow::Result<usize> {
        let id = self.free_id();
        let name = config.name.clone();
        let vips: Vec<_> = config.vips.iter().map(|vip| vip.address).collect();
        if config.stands_on_lo() != LocalAddress::Never {
            self.addresses.prepare(&vips).await?;
        }
        let slot = self.dataplane.allocate_router()?;
        let words = self.dataplane.words();
        let router =
            Router::new(id, config.virtual_router_id, parameters(&config), config.grace, words, slot)
                .in_group(self.membership(&config))
                .remembering(self.owners.interval(&config))
                .having_heard(self.signing.marks(&config));
        let position = self.config.instances.iter().position(|instance| instance.name == name);
        let index = position.unwrap_or(self.instances.len()).min(self.instances.len());
        let managed = Managed { linger, drained, ..Managed::new(id, slot, config) };
        self.instances.insert(index, managed);
        self.driver.send(Command::Add(id, Box::new(router))).await;
        self.settle(index).await;
        Ok(index)
    }

    /// Members of sync groups begin when all that are to come are there: none may take over before the others can.
    pub(super) async fn start_groups(&mut self) {
        for index in 0..self.instances.len() {
            let managed = &self.instances[index];
            let group = &managed.config.sync_group;
            let awaited = self.reload.arriving.iter().any(|instance| instance.sync_group == *group);
            if group.is_some() && !managed.started && !awaited {
                self.start(index).await;
            }
        }
    }

    pub(super) async fn start(&mut self, index: usize) {
        let managed = &mut self.instances[index];
        managed.started = true;
        let id = managed.id;
        self.begin_inquiry(index).await;
        self.driver.send(Command::Tell(id, Event::Startup)).await;
    }

    pub(super) fn answer_reload(&mut self) {
        let leaving = self.instances.iter().any(|managed| managed.exit == Exit::Leaving);
        if leaving || !self.reload.arriving.is_empty() || self.services.is_settling() {
            return;
        }
        let Reload { waiting, complaints, deferred, untold, .. } = &mut self.reload;
        if std::mem::take(untold) {
            let error = (!complaints.is_empty()).then(|| Occurrence::text(&complaints.join("\n")));
            self.events.publish(&Occurrence::Reload { applied: error.is_none(), error });
        }
        let answer = if !complaints.is_empty() {
            Answer::Error(format!("applied, but for\n{}", complaints.join("\n")))
        } else if deferred.is_empty() {
            Answer::Ok(serde_json::Value::String("applied".to_owned()))
        } else {
            let note =
                format!("applied; {} takes effect at the next start of the agent", deferred.join(", "));
            Answer::Ok(serde_json::Value::String(note))
        };
        for waiting in waiting.drain(..) {
            let _ = waiting.send(answer.clone());
        }
    }
}
