//! What the control socket asks for.

use serde_json::Value;

use super::Agent;
use super::services::Which;
use crate::config;
use crate::control::{Answer, Pending, Request};

impl Agent {
    pub(super) async fn on_request(&mut self, pending: Pending) {
        let Pending { request, answer, successor } = pending;
        if let (Request::TakeOver { protocol }, Some(successor)) = (&request, successor) {
            return self.on_take_over(*protocol, successor).await;
        }
        let changes = !matches!(request, Request::Status | Request::Config | Request::Flows { .. });
        if let Some(why) = self.is_being_succeeded().filter(|_| changes) {
            let _ = answer.send(Answer::Error(why));
            return;
        }
        let now = match request {
            Request::Status => match serde_json::to_value(self.status().await) {
                Ok(status) => Answer::Ok(status),
                Err(error) => Answer::Error(error.to_string()),
            },
            Request::Config => Answer::Ok(Value::String(config::effective(&self.config))),
            Request::Drain { instance } => return self.drain(instance.as_deref(), answer).await,
            Request::Undrain { instance } => self.undrain(instance.as_deref()).await,
            Request::Reload => return self.reload(Some(answer)).await,
            Request::Flows { vip, backend } => return self.list_flows(Which { vip, backend }, answer),
            // Dealt with above.
            Request::TakeOver { .. } => return,
        };
        let _ = answer.send(now);
    }
}
