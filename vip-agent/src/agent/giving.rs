//! Giving everything over to a successor (`vip-agent run --take-over`), or going on if that comes to nothing.
//!
//! From the greeting on nothing is changed here, so that the successor makes itself ready for what is; the VIPs are served
//! as ever. Silent is this agent only from the successor's [`Step::Yield`] on, which has everything ready by then.

use std::io;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::Agent;
use super::instance::{Exit, Managed};
use crate::control::Answer;
use crate::control::succession::{
    Conversation, Estate, Greeting, Inherited, PROTOCOL, Step, network_namespace,
};
use crate::errors::in_full;
use crate::net::instance_lock::InstanceLock;
use crate::types::MonotonicTime;
use crate::vrrp::driver::{Command, Snapshot};

/// How long a successor may make itself ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a successor may take from our silence to its adverts. Less than the shortest lease, three seconds: if it is
/// late we go on before anybody takes over.
const DONE_WITHIN: Duration = Duration::from_secs(2);

/// How long a process that was killed may take to be gone before that is worth a line in the log.
const GONE_WITHIN: Duration = Duration::from_millis(500);

/// A process that is about to take over.
#[derive(Debug)]
pub(super) struct Successor {
    conversation: Conversation,
    /// By then it has asked for the rest, or has failed.
    until: Instant,
}

/// What becomes of an agent that has handed everything on.
enum Outcome {
    Succeeded,
    Failed(String),
}

impl Agent {
    /// What the successor says next; never, while there is none.
    pub(super) async fn successor_says(successor: &mut Option<Successor>) -> io::Result<Option<Step>> {
        match successor {
            Some(Successor { conversation, until }) => tokio::select! {
                said = conversation.hear() => said,
                () = tokio::time::sleep_until(*until) => Err(io::Error::other(format!("it is not ready after {READY_WITHIN:?}"))),
            },
            None => std::future::pending().await,
        }
    }

    /// Why nothing may be changed now, if that is so.
    pub(super) fn is_being_succeeded(&self) -> Option<String> {
        let pid = self.successor.as_ref()?.conversation.peer();
        let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        Some(format!("another vip-agent{pid} is taking over from this one: ask that one, in a moment"))
    }

    /// Another process wants to take over.
    pub(super) async fn on_take_over(&mut self, protocol: u32, conversation: Conversation) {
        let refusal = self.refuses_successor(protocol);
        let said = match &refusal {
            Some(why) => conversation.say(&Answer::Error(why.clone()), &[]).await,
            None => match serde_json::to_value(self.greeting().await) {
                Ok(greeting) => conversation.say(&Answer::Ok(greeting), &[]).await,
                Err(error) => Err(error.into()),
            },
        };
        match (refusal, said) {
            (Some(why), _) => tracing::warn!(pid = conversation.peer(), "not handed over: {why}"),
            (None, Err(error)) => tracing::warn!(%error, "a successor went before it was greeted"),
            (None, Ok(())) => {
                tracing::info!(
                    pid = conversation.peer(),
                    "another vip-agent makes itself ready to take over"
                );
                self.successor = Some(Successor { conversation, until: Instant::now() + READY_WITHIN });
            }
        }
    }

    fn refuses_successor(&self, protocol: u32) -> Option<String> {
        let changing = |managed: &Managed| managed.exit != Exit::None;
        if protocol != PROTOCOL {
            Some(format!(
                "this agent ({}) hands over by protocol {PROTOCOL}, not {protocol}: stop it, which moves its VIPs to a \
                 peer, and start the new one",
                env!("CARGO_PKG_VERSION")
            ))
        } else if self.stopping.is_some() {
            Some("the agent is ending".to_owned())
        } else if self.config.pin_dir.is_none() {
            Some(
                "with `pin_dir: null` the XDP program goes with its agent and cannot be handed over: stop this agent, \
                 which moves its VIPs to a peer, and start the new one"
                    .to_owned(),
            )
        } else if let Some(field) = self.reload.bars_upgrade() {
            Some(format!(
                "{field} was changed since this agent started: this takes a restart, or the former value for now"
            ))
        } else if self.instances.iter().any(changing) || self.reload.arriving().next().is_some() {
            Some("a reload is under way: try again in a moment".to_owned())
        } else {
            self.is_being_succeeded()
        }
    }

    async fn greeting(&mut self) -> Greeting {
        // The successor reads the tables, and nothing is changed here from now on.
        self.services.rest().await;
        let (notify_socket, feed_every) = self.supervisor.place();
        Greeting {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            network_namespace: network_namespace(),
            config: self.source.clone(),
            notify_socket,
            feed_every,
            services: self.services.estate(),
        }
    }

    /// Ends this process if the successor was done.
    pub(super) async fn on_successor(&mut self, said: io::Result<Option<Step>>) {
        let Some(Successor { mut conversation, .. }) = self.successor.take() else { return };
        match said {
            Ok(Some(Step::Yield)) => match self.yield_to(&mut conversation).await {
                Outcome::Succeeded => self.give_way(&conversation),
                Outcome::Failed(why) => self.go_on(&why).await,
            },
            Ok(None) => tracing::warn!("the other vip-agent has given up: this one goes on as ever"),
            Ok(Some(Step::Done)) => tracing::warn!("the other vip-agent makes no sense: this one goes on"),
            Err(error) => tracing::warn!(%error, "the other vip-agent is given up: this one goes on"),
        }
    }

    /// Falls silent, and waits for the successor to speak.
    async fn yield_to(&mut self, conversation: &mut Conversation) -> Outcome {
        let silent_since = MonotonicTime::now();
        self.driver.beat();
        // Its place is wanted; whoever asks is told by the successor.
        self.api.serve(None);
        self.driver.send(Command::Pause).await;
        let estate = match self.estate(silent_since).await {
            Ok(estate) => estate,
            Err(why) => {
                let _ = conversation.say(&Answer::Error(why.clone()), &[]).await;
                return Outcome::Failed(why);
            }
        };
        let locks = self.lock.as_ref().map(InstanceLock::descriptors).zip(self.dataplane.pin_lock());
        let Some(([namespace, directory], pins)) = locks else {
            return Outcome::Failed("there are no locks to be handed on".to_owned());
        };
        let said = conversation.say(&Answer::Ok(estate), &[namespace, directory, pins]).await;
        if let Err(error) = said {
            return Outcome::Failed(error.to_string());
        }
        match timeout(DONE_WITHIN, conversation.hear()).await {
            Ok(Ok(Some(Step::Done))) => Outcome::Succeeded,
            Ok(Ok(None)) => Outcome::Failed("it has given up, or died".to_owned()),
            Ok(Ok(Some(Step::Yield))) => self.give_up(conversation, "it makes no sense").await,
            Ok(Err(error)) => self.give_up(conversation, &error.to_string()).await,
            Err(_) => self.give_up(conversation, &format!("it was not done after {DONE_WITHIN:?}")).await,
        }
    }

    /// A successor that may still do something is killed before this agent goes on: never two.
    async fn give_up(&self, conversation: &mut Conversation, why: &str) -> Outcome {
        let pid = conversation.peer();
        tracing::error!(pid, "the other vip-agent is killed: {why}");
        if let Some(Err(error)) = pid.map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL)) {
            tracing::error!(%error, pid, "cannot kill it");
        }
        while !conversation.ends_within(GONE_WITHIN).await {
            // The lease ends meanwhile, and peers take over: better that than two agents here.
            tracing::error!(pid, "the other vip-agent is not gone: waiting for its end");
            self.driver.beat();
        }
        Outcome::Failed(why.to_owned())
    }

    /// Everything that the successor is to have.
    async fn estate(&mut self, silent_since: MonotonicTime) -> Result<Value, String> {
        let mut instances = Vec::new();
        for index in 0..self.instances.len() {
            let name = self.instances[index].name().to_owned();
            let hangs = || format!("{name}: the VRRP driver does not answer");
            let snapshot = self.inspect(self.instances[index].id).await.ok_or_else(hangs)?;
            let managed = &self.instances[index];
            self.signing.note(&managed.config, &snapshot.marks);
            let inherited = self.inherited(managed, &snapshot);
            instances
                .push(inherited.ok_or_else(|| format!("{name} is handing over: try again in a moment"))?);
        }
        let verdicts = self.tracker.measured().filter_map(|(name, up, _)| {
            let why = self.tracker.view(name)?.last_error.map(str::to_owned);
            Some((name.to_owned(), (up, why)))
        });
        let transitions = self.meters.transitions().iter();
        let estate = Estate {
            silent_since,
            instances,
            verdicts: verdicts.collect(),
            heard: self.signing.heard(),
            transitions: transitions
                .map(|((instance, to, cause), count)| {
                    (instance.clone(), (*to).to_owned(), cause.clone(), *count)
                })
                .collect(),
            runtime_dir_goes: self.lock.as_ref().is_some_and(InstanceLock::removes_directory),
        };
        serde_json::to_value(estate).map_err(|error| error.to_string())
    }

    fn inherited(&self, managed: &Managed, snapshot: &Snapshot) -> Option<Inherited> {
        let words = self.dataplane.words();
        let (former, until) = words.handing_over(managed.slot);
        let (now, monotonic) = (Instant::now(), MonotonicTime::now());
        Some(Inherited {
            name: managed.name().to_owned(),
            carried: snapshot.carried?,
            former: (former.0, until),
            entered_at: managed.entered_at,
            since: managed.since,
            changes: managed.transitions,
            drained: managed.drained,
            last_takeover: managed.last_takeover.clone(),
            last_release: managed.last_release.clone(),
            connections_cut: managed.connections_cut,
            adverts: [snapshot.adverts.sent, snapshot.adverts.refused, snapshot.adverts.received],
            lingers: managed.linger.map(|linger| {
                let until = linger.until.saturating_duration_since(now);
                (monotonic.before(now.saturating_duration_since(linger.since)), monotonic + until)
            }),
        })
    }

    /// The successor has everything. Addresses, sysctls, pins, locks and files are its own by now, so nothing is dropped.
    fn give_way(&mut self, conversation: &Conversation) -> ! {
        let pid = conversation.peer();
        self.supervisor.succeeded_by(pid);
        // Or it would take the end of this process for a death.
        self.watch.dismiss();
        tracing::info!(pid, "another vip-agent has taken over: ended");
        std::process::exit(0);
    }

    /// Takes back what was handed on, and speaks again.
    async fn go_on(&mut self, why: &str) {
        if let Some(Err(error)) = self.lock.as_mut().map(InstanceLock::claim) {
            tracing::error!(%error, "cannot claim the lock of this agent again");
        }
        if let Err(error) = self.dataplane.reclaim() {
            tracing::error!("cannot run the XDP program of this agent again: {}", in_full(&error.into()));
        }
        // What the successor may have signed is of a later epoch than ours.
        self.signing.begin_anew();
        self.driver.send(Command::GoOn).await;
        tracing::error!("the other vip-agent did not take over, and this one goes on: {why}");
        self.rebind_signed().await;
        self.api.serve(self.config.api.clone());
    }
}
