//! How deep idle CPUs may sleep: while hosts are watched, and while a move is at hand.

use std::time::Duration;

use super::Agent;
use super::instance::Managed;
use crate::config::Check;
use crate::idle::{self, IdleLimit};
use crate::vrrp::machine::State;

/// Probes that ask less often are not waited for: it would be long, and matter little.
const SOON: Duration = Duration::from_secs(1);

/// The limit that the agent holds.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    limit: IdleLimit,
}

impl Agent {
    /// Keeps CPUs from a sleep that would make their timers late where one is about to decide; else they sleep as they like.
    pub(super) fn keep_cpus_ready(&mut self) {
        let detection = self.detection_latency();
        // It lasts for a skew or an interval of a probe: what that costs in power is nothing.
        let expects_move = self.instances.iter().any(Managed::expects_takeover) || self.expects_fault();
        let limit = detection.into_iter().chain(expects_move.then(idle::suitable)).min();
        match self.readiness.limit.hold(limit) {
            Ok(true) => {
                tracing::debug!(
                    limit_us = limit.map(|limit| limit.as_micros()),
                    "how deep idle CPUs may sleep"
                );
            }
            Ok(false) => {}
            Err(error) if detection.is_some() => tracing::warn!(
                "idle CPUs may sleep deep, and dead hosts be found some milliseconds late: {error}; \
                 let the agent open the device, or say `cpu_latency: any`"
            ),
            Err(error) => {
                tracing::debug!("idle CPUs may sleep deep, and moves be some milliseconds late: {error}");
            }
        }
    }

    /// Whether an owner's probe has failed, and may soon have done so often enough.
    fn expects_fault(&self) -> bool {
        let doubted = self.config.probes.iter().any(|probe| {
            matches!(&probe.check, Check::Polled(_, polling) if polling.interval <= SOON)
                && self.tracker.view(probe.name()).is_some_and(|view| view.up && view.last_error.is_some())
        });
        doubted && self.instances.iter().any(|managed| managed.state == State::Active)
    }
}

impl Managed {
    /// Whether its addresses are there for a takeover that has not come yet: the owner leaves, or was not heard.
    fn expects_takeover(&self) -> bool {
        self.staged && self.state == State::Backup
    }
}
