//! Drain and undrain: who waits for VIPs to move, and what they are told.

use serde_json::Value;
use tokio::sync::oneshot;

use super::Agent;
use super::instance::Managed;
use crate::control::Answer;
use crate::vrrp::driver::Command;
use crate::vrrp::machine::{DRAIN_MARGIN, Event, State};

impl Agent {
    /// Answers when all of them have moved.
    pub(super) async fn drain(&mut self, instance: Option<&str>, answer: oneshot::Sender<Answer>) {
        let found = match self.named(instance) {
            Ok(found) => found,
            Err(error) => {
                let _ = answer.send(error);
                return;
            }
        };
        let mut moves = Vec::new();
        for index in found {
            let managed = &mut self.instances[index];
            let (waiter, moved) = oneshot::channel();
            managed.drain_waiters.push(waiter);
            managed.drained = true;
            moves.push(moved);
            let id = managed.id;
            self.driver.send(Command::Tell(id, Event::Drain)).await;
            self.answer_drain(index).await;
        }
        tokio::spawn(async move {
            let mut complaints = Vec::new();
            for moved in moves {
                // An instance that was removed meanwhile is out, too.
                if let Ok(Answer::Error(complaint)) = moved.await {
                    complaints.push(complaint);
                }
            }
            let answered = if complaints.is_empty() {
                Answer::Ok(Value::Null)
            } else {
                Answer::Error(complaints.join("\n"))
            };
            let _ = answer.send(answered);
        });
    }

    pub(super) async fn undrain(&mut self, instance: Option<&str>) -> Answer {
        match self.named(instance) {
            Ok(found) => {
                for index in found {
                    let managed = &mut self.instances[index];
                    managed.drained = false;
                    let complaint = format!("{} was undrained before its VIPs had moved", managed.name());
                    managed.answer_drain(&Answer::Error(complaint));
                    let id = managed.id;
                    self.driver.send(Command::Tell(id, Event::Undrain)).await;
                }
                Answer::Ok(Value::Null)
            }
            Err(error) => error,
        }
    }

    /// Looks after everybody who waits, whatever became of the reports.
    pub(super) async fn answer_drains(&mut self) {
        for index in 0..self.instances.len() {
            self.answer_drain(index).await;
        }
    }

    /// Answers those who wait for an instance as soon as it is clear how its drain went. What the driver says counts,
    /// not the reports: those may be of the time before.
    pub(super) async fn answer_drain(&mut self, index: usize) {
        let managed = &self.instances[index];
        if managed.drain_waiters.is_empty() {
            return;
        }
        let Some(snapshot) = self.inspect(managed.id).await else { return };
        let managed = &mut self.instances[index];
        match snapshot.state {
            State::Draining if snapshot.hands_over => {}
            State::Draining | State::Fault | State::Initialize => {
                managed.answer_drain(&Answer::Ok(Value::Null));
            }
            state @ (State::Active | State::Backup) => {
                managed.drained = false;
                let complaint = not_drained(managed, state);
                managed.answer_drain(&Answer::Error(complaint));
            }
        }
    }

    /// The instance of that name with its sync group, which owns together or not at all; or all of them.
    fn named(&self, instance: Option<&str>) -> Result<Vec<usize>, Answer> {
        let wanted = |managed: &Managed| instance.is_none_or(|name| name == managed.name());
        let fits = |managed: &Managed| wanted(managed) || self.group_of(managed).any(wanted);
        let found: Vec<usize> =
            (0..self.instances.len()).filter(|&index| fits(&self.instances[index])).collect();
        match instance {
            Some(name) if found.is_empty() => {
                let known: Vec<&str> = self.instances.iter().map(Managed::name).collect();
                Err(Answer::Error(format!("no instance {name}; there are: {}", known.join(", "))))
            }
            _ => Ok(found),
        }
    }
}

fn not_drained(managed: &Managed, state: State) -> String {
    let name = managed.name();
    if state == State::Active {
        let waited = managed.config.protocol.advert_interval().longest_skew() + DRAIN_MARGIN;
        format!(
            "{name}: no peer took over within {waited:?}, so this node keeps the VIPs and is not drained; \
             is a peer up, and does it hear this node's advertisements?"
        )
    } else {
        format!(
            "{name}: lost the VIPs before a peer was heard, and is not drained: see the log, and drain again"
        )
    }
}
