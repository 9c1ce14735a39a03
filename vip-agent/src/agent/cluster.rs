//! What the cluster wants, applied by the path that a reload takes.

use vip_kube_protocol::Remark;

use super::Agent;
use super::instance::Managed;
use crate::config::{self, Config};
use crate::errors::in_full;
use crate::kube;
use crate::status::{KubernetesStatus, ObjectStatus};
use crate::vrrp::machine::State;

impl Agent {
    /// The cluster may want something else.
    pub(super) async fn on_cluster(&mut self) {
        if self.stopping.is_some() || self.is_being_succeeded().is_some() {
            self.behind_cluster = true;
            return;
        }
        self.behind_cluster = false;
        let new = kube::completed(&self.file, &self.kube.view().document);
        if new.instances == self.config.instances {
            // Endpoints come and go, and wait for nothing: neither for the disk nor for what concerns instances.
            if new.services != self.config.services {
                self.config.services = new.services;
                self.set_services();
            }
            return;
        }
        self.keep_cluster();
        self.read_routes().await;
        let old = std::mem::replace(&mut self.config, new.clone());
        if let Err(error) = self.prepare_addresses(&new.instances).await {
            tracing::error!("what Kubernetes wants is not applied, and tried again: {}", in_full(&error));
            self.config = old;
            self.behind_cluster = true;
            return;
        }
        self.apply(&old, &new).await;
    }

    /// Writes down what is known, first, so that a successor or a restart knows of all that there is.
    pub(super) fn keep_cluster(&mut self) {
        if let Err(error) = self.kube.keep(&self.config.state_dir) {
            tracing::warn!(%error, "cannot keep what is known of Kubernetes in state_dir: a restart without its API server has no VIPs");
        }
    }

    /// What could not be applied at its time, and what was not written down then: once a second.
    pub(super) async fn catch_up_with_cluster(&mut self) {
        if self.behind_cluster {
            self.on_cluster().await;
        }
        if self.stopping.is_none() && self.is_being_succeeded().is_none() {
            self.kube.keep_soon(&self.config.state_dir);
        }
    }

    /// A file's configuration, completed by what its cluster wants.
    pub(super) fn completed(&self, file: &Config) -> Config {
        kube::completed(file, &self.kube.view().document)
    }

    /// Follows the cluster that the file names.
    pub(super) fn follow_cluster(&mut self) {
        if let Err(error) = self.kube.follow(&self.file, self.can_steer()) {
            tracing::error!(%error, "Kubernetes cannot be followed: there is no thread for it");
        }
        // One that has just been started does not know of earlier moves.
        self.tell_what_is_owned();
    }

    /// The owner of a Service's VIPs writes them to its status.
    pub(super) fn tell_what_is_owned(&self) {
        let active = self.instances.iter().filter(|managed| managed.state == State::Active);
        self.kube.owns(active.map(Managed::name));
    }

    /// How following it goes; `None`: the file names none.
    pub(super) fn kubernetes_status(&self) -> Option<KubernetesStatus> {
        self.file.kubernetes.as_ref()?;
        let view = self.kube.view();
        let object = |remark: &Remark| {
            let Remark { object, reason, message } = remark.clone();
            ObjectStatus { object, reason, message }
        };
        Some(KubernetesStatus {
            in_sync: view.in_sync,
            pid: view.pid,
            troubles: view.troubles.iter().cloned().collect(),
            objects: view.objects.iter().map(object).collect(),
        })
    }

    /// Whether an instance is the file's own: what is wrong with one of the cluster's is said by its state, and refuses no file.
    pub(super) fn is_of_file(file: &Config, instance: &config::Instance) -> bool {
        file.instance(instance.name.as_str()).is_some()
    }
}
