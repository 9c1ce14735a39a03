//! Taking over from an agent that runs (`vip-agent run --take-over`), so that nobody notices.
//!
//! Everything that takes time or may fail is done while that one serves: maps and program are loaded and filled, sockets
//! opened, instances in Initialize, by *its* configuration. Then it falls silent, and all that is left is to swap the program
//! and to go on: milliseconds. What our own configuration has otherwise is applied after that, as by a reload.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::time::{Instant, timeout};

use super::Agent;
use super::instance::Linger;
use crate::config::{self, Config};
use crate::control::Request;
use crate::control::succession::{
    Conversation, Estate, Greeting, Inherited, LOCKS, PROTOCOL, Step, network_namespace,
};
use crate::kube;
use crate::net::instance_lock::InstanceLock;
use crate::types::{MacAddr, MonotonicTime};
use crate::vrrp::driver::{AdvertCounts, Command, Inheritance};
use crate::vrrp::machine::{Carried, Event, State};

/// How long the agent that runs may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long it may take to end.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// The agent that runs.
#[derive(Debug)]
pub(super) struct Predecessor {
    conversation: Conversation,
    pub(super) greeting: Greeting,
    /// By what it serves.
    config: Config,
}

impl Predecessor {
    /// Asks the agent that listens at `socket`; `None` if there is none. Nothing is changed by that.
    ///
    /// # Errors
    /// It hands nothing over, in its words; or `wanted` does not allow to take it.
    pub(super) async fn call(socket: &Path, wanted: &Config) -> anyhow::Result<Option<Self>> {
        let place = socket.display();
        let called = Conversation::with_agent_at(socket).await;
        let Some(mut conversation) = called.with_context(|| format!("control socket {place}"))? else {
            tracing::info!("no agent listens at {place}: an ordinary start");
            return Ok(None);
        };
        conversation.say(&Request::TakeOver { protocol: PROTOCOL }, &[]).await?;
        let Ok(greeting) = timeout(ANSWER_WITHIN, conversation.answer::<Greeting>()).await else {
            let pid = conversation.peer().map_or_else(|| "its pid".to_owned(), |pid| pid.to_string());
            bail!(
                "the agent at {place} does not answer within {ANSWER_WITHIN:?}, and nothing is taken from one that may yet \
                 act: `kill -9 {pid}` tells its peers at once, then start this one"
            );
        };
        let greeting = greeting.context(
            "the agent that runs does not hand over (one that does not know how to is stopped, which moves its VIPs to a \
             peer, before this one is started)",
        )?;
        let config = config::load_text(
            greeting.config.clone(),
            "the running agent's configuration",
            &config::default_node(),
        )
        .context("this version cannot go on with what runs: stop that agent, and start this one")?
        .config;
        // Before its cluster wants something else, it keeps on disk what that follows from.
        let (config, _) = kube::with_last_known(&config);
        let predecessor = Self { conversation, greeting, config };
        predecessor.check(wanted)?;
        Ok(Some(predecessor))
    }

    /// What cannot be changed while agents change.
    fn check(&self, wanted: &Config) -> anyhow::Result<()> {
        let Self { greeting, config, .. } = self;
        let same = [
            ("pin_dir", config.pin_dir == wanted.pin_dir),
            ("state_dir", config.state_dir == wanted.state_dir),
            ("runtime_dir", config.runtime_dir == wanted.runtime_dir),
            ("xdp_mode", config.xdp_mode == wanted.xdp_mode),
        ];
        for (key, same) in same {
            ensure!(
                same,
                "{key} is another than that of the agent that runs: this takes a restart, or the former value for now"
            );
        }
        ensure!(
            greeting.network_namespace == network_namespace(),
            "the agent that runs (pid {}) serves another network namespace",
            greeting.pid
        );
        Ok(())
    }

    /// What to begin with: its instances, probes and services, all else as wanted.
    pub(super) fn serves(&self, wanted: &Config) -> Config {
        let Config { instances, probes, services, .. } = self.config.clone();
        Config { instances, probes, services, ..wanted.clone() }
    }
}

impl Agent {
    /// Goes on in place of the agent that runs, which has ended by then.
    ///
    /// # Errors
    /// It goes on itself; this one is to be abandoned.
    pub(super) async fn succeed_to(&mut self, mut predecessor: Predecessor) -> anyhow::Result<()> {
        let Greeting { notify_socket, feed_every, pid, version, services, .. } = predecessor.greeting.clone();
        self.supervisor.inherit(notify_socket, feed_every);
        self.load_services(&self.config.clone())?;
        self.inherit_services(services)?;
        for instance in self.config.instances.clone() {
            self.driver.beat();
            let name = instance.name.clone();
            self.take_in(instance, false, None).await.with_context(|| format!("instance {name}"))?;
        }
        let conversation = &mut predecessor.conversation;
        conversation.say(&Step::Yield, &[]).await.context("the agent that runs is gone")?;
        let estate = timeout(ANSWER_WITHIN, conversation.answer::<Estate>()).await;
        let estate = estate.context("it did not yield")?.context("it did not yield")?;
        let silent_since = estate.silent_since;
        self.inherit_locks(conversation.take_descriptors(), estate.runtime_dir_goes)?;
        self.inherit(estate).await?;
        // Answers come in the order of commands: by now all that go on have spoken.
        if let Some(last) = self.instances.last() {
            self.driver.inspect(last.id).await.context("the VRRP driver does not answer")?;
        }
        conversation.say(&Step::Done, &[]).await.context("it went on before this one was done")?;
        let silence = MonotonicTime::now().since(silent_since);
        if !conversation.ends_within(GONE_WITHIN).await {
            tracing::warn!(pid, "the former agent is slow to end");
        }
        let silence_us = u64::try_from(silence.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(pid, version, silence_us, "has taken over from the agent that ran");
        Ok(())
    }

    fn inherit_locks(&mut self, locks: Vec<OwnedFd>, directory_goes: bool) -> anyhow::Result<()> {
        let locks: [OwnedFd; LOCKS] =
            locks.try_into().ok().context("the agent that runs did not hand its locks over")?;
        let [namespace, directory, pins] = locks;
        let runtime_dir = &self.config.runtime_dir;
        self.lock = Some(InstanceLock::inherit(namespace, directory, runtime_dir, directory_goes)?);
        self.dataplane.inherit(pins);
        Ok(())
    }

    async fn inherit(&mut self, estate: Estate) -> anyhow::Result<()> {
        let Estate { silent_since, instances, verdicts, heard, transitions, runtime_dir_goes: _ } = estate;
        self.driver.beat();
        self.signing.inherit(heard);
        for (instance, to, cause, count) in transitions {
            self.meters.inherit_transitions(instance, &to, cause, count);
        }
        self.set_probes();
        for (probe, (up, why)) in verdicts {
            self.tracker.inherit(&probe, up, why);
        }
        self.apply_verdicts().await;
        let mut resumed = Vec::new();
        for inherited in instances {
            let found = self.instances.iter().position(|managed| managed.name() == inherited.name);
            let index = found.with_context(|| format!("instance {} is not known here", inherited.name))?;
            resumed.push((index, self.inherit_instance(index, inherited, silent_since)));
        }
        // The words are in place: from here on it is this agent's program that answers.
        self.dataplane.attach_all()?;
        for (index, inheritance) in resumed {
            let Some(inheritance) = inheritance else { continue };
            let id = self.instances[index].id;
            self.driver.send(Command::Resume(id, Box::new(inheritance))).await;
        }
        Ok(())
    }

    /// What an instance's machine goes on with; `None` if it begins anew.
    fn inherit_instance(
        &mut self,
        index: usize,
        inherited: Inherited,
        silent_since: MonotonicTime,
    ) -> Option<Inheritance> {
        let Inherited { carried, adverts: [sent, refused, received], .. } = inherited;
        let marks = self.signing.marks(&self.instances[index].config);
        let managed = &mut self.instances[index];
        managed.state = match carried {
            Carried::Active { lease_until, .. } => {
                self.dataplane.words().store(managed.slot, lease_until);
                State::Active
            }
            Carried::Backup { .. } => State::Backup,
            Carried::Nothing => managed.state,
        };
        let now = MonotonicTime::now();
        (managed.since, managed.entered_at) = (inherited.since, inherited.entered_at);
        managed.transitions = inherited.changes;
        managed.drained = inherited.drained;
        managed.last_takeover = inherited.last_takeover;
        managed.last_release = inherited.last_release;
        managed.connections_cut = inherited.connections_cut;
        managed.linger = inherited.lingers.map(|(since, until)| {
            let instant = Instant::now();
            Linger {
                since: instant.checked_sub(now.since(since)).unwrap_or(instant),
                until: instant + until.since(now),
            }
        });
        managed.started = carried != Carried::Nothing;
        let (former, until) = inherited.former;
        let adverts = AdvertCounts { sent, refused, received, ..AdvertCounts::default() };
        let former = (MacAddr(former), until);
        managed.started.then_some(Inheritance { carried, silent_since, former, marks, adverts })
    }

    /// Does what could wait until the former agent was gone, and applies what our configuration has otherwise.
    ///
    /// # Errors
    /// Pins cannot be written, or the journal: this agent is to leave.
    pub(super) async fn settle_in(&mut self, wanted: Config, source: String) -> anyhow::Result<()> {
        let needed = self.instances.iter().filter(|managed| managed.needs_addresses());
        let vips: Vec<_> = needed.flat_map(super::instance::Managed::vips).collect();
        self.add_addresses(&vips).await;
        self.keep_detecting().await;
        for index in 0..self.instances.len() {
            let managed = &self.instances[index];
            if managed.started {
                continue;
            }
            if managed.drained {
                self.driver.send(Command::Tell(managed.id, Event::Drain)).await;
            }
            if managed.config.sync_group.is_none() {
                self.start(index).await;
            }
        }
        self.start_groups().await;
        self.follow_inquiries().await;
        self.dataplane.commit()?;
        self.prepare_addresses(&wanted.instances).await?;
        let served = std::mem::replace(&mut self.config, wanted.clone());
        self.apply(&served, &wanted).await;
        self.remember(&source);
        self.source = source;
        Ok(())
    }

    /// Goes without a trace: the agent that was here before serves on.
    pub(super) fn abandon(mut self) {
        self.dataplane.abandon();
        // What keeps the locks is that agent's as well.
        std::mem::forget(self.lock.take());
    }
}
