//! What the control socket asks for.

use serde_json::Value;
use tokio::sync::oneshot;

use super::Agent;
use crate::config;
use crate::control::{Answer, Pending, Request};
use crate::vrrp::driver::Command;
use crate::vrrp::machine::{Event, State};

impl Agent {
    pub(super) async fn on_request(&mut self, pending: Pending) {
        let Pending { request, answer } = pending;
        let now = match request {
            Request::Status => match serde_json::to_value(self.status().await) {
                Ok(status) => Answer::Ok(status),
                Err(error) => Answer::Error(error.to_string()),
            },
            Request::Config => Answer::Ok(Value::String(config::effective(&self.config))),
            Request::Drain { instance } => return self.drain(instance.as_deref(), answer).await,
            Request::Undrain { instance } => self.undrain(instance.as_deref()).await,
            Request::Reload => return self.reload(Some(answer)).await,
        };
        let _ = answer.send(now);
    }

    fn named(&self, instance: Option<&str>) -> Result<Vec<usize>, Answer> {
        let fits = |name: &str| instance.is_none_or(|wanted| wanted == name);
        let found: Vec<usize> =
            (0..self.instances.len()).filter(|&index| fits(self.instances[index].name())).collect();
        match instance {
            Some(name) if found.is_empty() => {
                let known: Vec<&str> = self.instances.iter().map(super::instance::Managed::name).collect();
                Err(Answer::Error(format!("no instance {name}; there are: {}", known.join(", "))))
            }
            _ => Ok(found),
        }
    }

    /// Answers when all of them have moved.
    async fn drain(&mut self, instance: Option<&str>, answer: oneshot::Sender<Answer>) {
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
            if matches!(managed.state, State::Active | State::Draining) {
                let (waiter, moved) = oneshot::channel();
                managed.drain_waiters.push(waiter);
                moves.push(moved);
            }
            let drained = managed.state == State::Draining;
            let id = managed.id;
            self.driver.send(Command::Tell(id, Event::Drain)).await;
            if drained && !self.driver.inspect(id).await.is_some_and(|snapshot| snapshot.answers()) {
                // Drained before: there is nothing to wait for.
                self.instances[index].answer_drain(&Answer::Ok(Value::Null));
            }
        }
        tokio::spawn(async move {
            let mut complaints = Vec::new();
            for moved in moves {
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

    async fn undrain(&mut self, instance: Option<&str>) -> Answer {
        match self.named(instance) {
            Ok(found) => {
                for index in found {
                    self.driver.send(Command::Tell(self.instances[index].id, Event::Undrain)).await;
                }
                Answer::Ok(Value::Null)
            }
            Err(error) => error,
        }
    }
}
