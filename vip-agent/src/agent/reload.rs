//! Applying another configuration by difference: what did not change is not touched.

use tokio::sync::oneshot;

use super::Agent;
use super::binding::{bind, parameters};
use super::housing::{check_clashes, check_places};
use super::instance::{Leaving, Managed};
use crate::config::{self, Change, Config, InstanceField, LastGood, LocalAddress};
use crate::control::Answer;
use crate::net::sysctl;
use crate::vrrp::driver::{Command, Router};
use crate::vrrp::machine::Event;

/// Reloads under way.
#[derive(Debug, Default)]
pub(super) struct Reload {
    /// Who waits until the instances that are to go have gone.
    waiting: Vec<oneshot::Sender<Answer>>,
    /// Settings that a restart will bring into force.
    deferred: Vec<String>,
}

impl Agent {
    pub(super) async fn reload_by_signal(&mut self) {
        tracing::info!("SIGHUP: reloading");
        self.reload(None).await;
    }

    /// Reads the file again. An invalid one changes nothing.
    pub(super) async fn reload(&mut self, answer: Option<oneshot::Sender<Answer>>) {
        let outcome = self.try_reload().await;
        if let Err(error) = &outcome {
            tracing::error!("configuration refused, the old one stays:\n{error:#}");
        }
        match (outcome, answer) {
            (Err(error), Some(answer)) => drop(answer.send(Answer::Error(format!("{error:#}")))),
            (Ok(()), Some(answer)) => self.reload.waiting.push(answer),
            (_, None) => {}
        }
        self.answer_reload();
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        if self.stopping.is_some() {
            anyhow::bail!("the agent is ending");
        }
        let loaded = config::load(&self.config_file, &config::default_node())?;
        for line in loaded.warnings.lines() {
            tracing::warn!("{line}");
        }
        let new = loaded.config;
        let old = std::mem::replace(&mut self.config, new.clone());
        if let Err(error) = self.can_apply(&old, &new).await {
            self.config = old;
            return Err(error);
        }
        self.apply(&old, &new).await;
        if let Err(error) = LastGood::in_dir(&self.config.state_dir).save(&loaded.source) {
            tracing::warn!(%error, "cannot keep the configuration in state_dir");
        }
        Ok(())
    }

    /// Everything that can be known beforehand.
    async fn can_apply(&mut self, old: &Config, new: &Config) -> anyhow::Result<()> {
        self.read_routes().await;
        let fresh: Vec<config::Instance> = config::diff(old, new)
            .into_iter()
            .filter_map(|change| match change {
                Change::Added(instance) => Some(instance.clone()),
                Change::Changed { new, .. } => Some(new.clone()),
                Change::Process(_) | Change::Removed(_) => None,
            })
            .collect();
        check_places(self, &fresh)?;
        check_clashes(self, &new.instances)
    }

    async fn apply(&mut self, old: &Config, new: &Config) {
        self.reload.deferred.clear();
        for change in config::diff(old, new) {
            let restarts = change.restarts_instance();
            match change {
                Change::Process(field) => {
                    tracing::warn!("{field} takes effect at the next start of the agent");
                    self.reload.deferred.push(field.to_string());
                }
                Change::Removed(instance) => self.retire(instance.name.as_str(), Leaving::Removed).await,
                Change::Changed { new, .. } if restarts => {
                    self.retire(new.name.as_str(), Leaving::Replaced(Box::new(new.clone()))).await;
                }
                Change::Changed { old, new, fields } => self.change(old, new, &fields).await,
                Change::Added(instance) => {
                    if let Err(error) = self.bring_up(instance.clone()).await {
                        tracing::error!(instance = instance.name.as_str(), "cannot be brought up: {error:#}");
                    }
                }
            }
        }
        self.tidy().await;
    }

    /// Tells an instance to hand over and go.
    async fn retire(&mut self, name: &str, leaving: Leaving) {
        let Some(managed) = self.instances.iter_mut().find(|managed| managed.name() == name) else { return };
        managed.leaving = Some(leaving);
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
        let had_addresses = old.local_address != LocalAddress::Never;
        self.instances[index].config = new.clone();
        let id = self.instances[index].id;
        if let Some(home) = &self.instances[index].home {
            let place = home.place.clone();
            let router = sysctl::forwards_ipv6(&place.vip.name).unwrap_or(false);
            let binding = match bind(new, &place, router) {
                Ok(binding) => binding,
                Err(error) => {
                    return tracing::error!(instance = new.name.as_str(), %error, "cannot be changed");
                }
            };
            if let Err(error) = self.change_vips(index, &gone, &come, router) {
                tracing::error!(instance = new.name.as_str(), "{error:#}");
            }
            self.driver.send(Command::Bind(id, Some(binding))).await;
        }
        if had_addresses && !gone.is_empty() {
            self.take_off_lo(&gone).await;
        }
        let parameters = parameters(new);
        self.driver.send(Command::Reconfigure(id, parameters, new.grace)).await;
        match new.local_address {
            LocalAddress::Always => self.add_addresses(index, &self.instances[index].vips()).await,
            LocalAddress::Active if self.holds_addresses(index) => {
                self.add_addresses(index, &self.instances[index].vips()).await;
            }
            LocalAddress::Active | LocalAddress::Never if fields.contains(&InstanceField::LocalAddress) => {
                self.take_off_lo(&self.instances[index].vips()).await;
            }
            LocalAddress::Active | LocalAddress::Never => {}
        }
        if !come.is_empty() {
            self.driver.send(Command::Announce(id)).await;
        }
        tracing::info!(instance = new.name.as_str(), ?fields, "changed");
    }

    fn holds_addresses(&self, index: usize) -> bool {
        use crate::vrrp::machine::State;
        self.instances[index].state == State::Active || self.instances[index].lingers_until.is_some()
    }

    /// Removes what has gone, with all that it had; sets up what replaces it.
    pub(super) async fn remove_gone(&mut self) {
        while let Some(index) = self.instances.iter().position(|managed| managed.gone) {
            let mut managed = self.dismantle(index).await;
            if let Some(Leaving::Replaced(new)) = managed.leaving.take() {
                let name = new.name.clone();
                if let Err(error) = self.bring_up(*new).await {
                    tracing::error!(instance = name.as_str(), "cannot be brought up: {error:#}");
                }
            }
        }
        self.tidy().await;
        self.answer_reload();
    }

    async fn dismantle(&mut self, index: usize) -> Managed {
        self.move_out_of_tables(index);
        let managed = self.instances.remove(index);
        self.driver.send(Command::Remove(managed.id)).await;
        self.take_off_lo(&managed.vips()).await;
        self.dataplane.free_router(managed.slot);
        tracing::info!(instance = managed.name(), "removed");
        managed
    }

    /// Takes an instance in and starts it; a passing fault does not keep it from that.
    pub(super) async fn bring_up(&mut self, config: config::Instance) -> anyhow::Result<()> {
        let slot = self.dataplane.allocate_router()?;
        let id = self.free_id();
        let name = config.name.clone();
        let vips: Vec<_> = config.vips.iter().map(|vip| vip.address).collect();
        let always = config.local_address == LocalAddress::Always;
        if config.local_address != LocalAddress::Never {
            self.addresses.prepare(&vips).await?;
        }
        let router = Router::new(
            id,
            config.virtual_router_id,
            parameters(&config),
            config.grace,
            self.dataplane.words(),
            slot,
        );
        let position = self.config.instances.iter().position(|instance| instance.name == name);
        let index = position.unwrap_or(self.instances.len()).min(self.instances.len());
        self.instances.insert(index, Managed::new(id, slot, config));
        self.driver.send(Command::Add(id, Box::new(router))).await;
        self.settle(index).await;
        if always {
            self.add_addresses(index, &vips).await;
        }
        self.driver.send(Command::Tell(id, Event::Startup)).await;
        Ok(())
    }

    fn answer_reload(&mut self) {
        if self.instances.iter().any(|managed| managed.leaving.is_some()) {
            return;
        }
        let deferred = &self.reload.deferred;
        let note = if deferred.is_empty() {
            "applied".to_owned()
        } else {
            format!("applied; {} takes effect at the next start of the agent", deferred.join(", "))
        };
        for answer in self.reload.waiting.drain(..) {
            let _ = answer.send(Answer::Ok(serde_json::Value::String(note.clone())));
        }
    }
}
