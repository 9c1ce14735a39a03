//! One instance as the runtime sees it: what is configured, where it lives, what is known of its state.

use std::net::IpAddr;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::place::Place;
use crate::config;
use crate::control::Answer;
use crate::dataplane::{RouterSlot, XdpMode};
use crate::status::Takeover;
use crate::vrrp::driver::InstanceId;
use crate::vrrp::machine::State;
use crate::vrrp::socket::MulticastGroups;

/// See the module.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) id: InstanceId,
    pub(super) slot: RouterSlot,
    pub(super) config: config::Instance,
    /// Where it lives; stays while it is faulty for a passing reason.
    pub(super) home: Option<Home>,
    /// Why it cannot own.
    pub(super) fault: Option<String>,
    pub(super) state: State,
    pub(super) since: SystemTime,
    pub(super) transitions: u64,
    pub(super) last_takeover: Option<Takeover>,
    /// Until when local addresses stay after a handover.
    pub(super) lingers_until: Option<Instant>,
    pub(super) connections_cut: u64,
    /// Clients of `vip-agent drain` that wait.
    pub(super) drain_waiters: Vec<oneshot::Sender<Answer>>,
    /// Set when it is on its way out.
    pub(super) leaving: Option<Leaving>,
    /// Out: to be removed.
    pub(super) gone: bool,
}

/// What an instance holds of its interfaces.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) place: Place,
    /// How the program is attached.
    pub(super) mode: Option<XdpMode>,
    /// VIPs in the program's tables.
    pub(super) vips: Vec<IpAddr>,
    /// Solicited-node groups of the IPv6 VIPs, without which the NIC drops solicitations for them.
    pub(super) groups: MulticastGroups,
}

/// What comes after an instance that leaves.
#[derive(Debug)]
pub(super) enum Leaving {
    /// Nothing.
    Removed,
    /// Its new form.
    Replaced(Box<config::Instance>),
}

impl Managed {
    pub(super) fn new(id: InstanceId, slot: RouterSlot, config: config::Instance) -> Self {
        Self {
            id,
            slot,
            config,
            home: None,
            fault: None,
            state: State::Initialize,
            since: SystemTime::now(),
            transitions: 0,
            last_takeover: None,
            lingers_until: None,
            connections_cut: 0,
            drain_waiters: Vec::new(),
            leaving: None,
            gone: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.config.name.as_str()
    }

    pub(super) fn vips(&self) -> Vec<IpAddr> {
        self.config.vips.iter().map(|vip| vip.address).collect()
    }

    /// Answers everybody who waits for the drain.
    pub(super) fn answer_drain(&mut self, answer: &Answer) {
        for waiter in self.drain_waiters.drain(..) {
            let _ = waiter.send(answer.clone());
        }
    }
}
