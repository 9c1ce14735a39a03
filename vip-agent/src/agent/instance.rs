//! One instance as the runtime sees it: what is configured, where it lives, what is known of its state.

use std::net::IpAddr;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::binding::parameters;
use super::health::Condition;
use super::inquiry::Inquiry;
use super::place::Place;
use super::sockets::Memberships;
use crate::config::{self, LocalAddress};
use crate::control::Answer;
use crate::dataplane::{RouterSlot, XdpMode};
use crate::health::Turn;
use crate::status::Takeover;
use crate::types::{MacAddr, MonotonicTime, Priority};
use crate::vrrp::driver::{AdvertCounts, InstanceId};
use crate::vrrp::machine::{Parameters, State};
use crate::vrrp::socket::UnicastFilter;

/// See the module.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) id: InstanceId,
    pub(super) slot: RouterSlot,
    pub(super) config: config::Instance,
    /// Where it lives; stays while it is faulty for a passing reason.
    pub(super) home: Option<Home>,
    /// Why it cannot own, for its interfaces.
    pub(super) fault: Option<String>,
    /// Why it cannot own, for its probes.
    pub(super) unhealthy: Option<String>,
    /// What its machine was told of all that.
    pub(super) told: Condition,
    /// The verdict that last changed what it can do.
    pub(super) blamed: Option<Turn>,
    /// Why it cannot own, for another station that has its VIPs.
    pub(super) conflict: Option<String>,
    /// The look for such stations, until it is over.
    pub(super) inquiry: Option<Inquiry>,
    /// As configured, changed by the weights of its probes.
    pub(super) priority: Priority,
    /// Whether its machine was told to begin.
    pub(super) started: bool,
    pub(super) state: State,
    pub(super) since: SystemTime,
    /// The same moment.
    pub(super) entered_at: MonotonicTime,
    pub(super) transitions: u64,
    pub(super) last_takeover: Option<Takeover>,
    pub(super) last_release: Option<Takeover>,
    /// The time after a handover.
    pub(super) linger: Option<Linger>,
    /// Whether the machine counts on the local addresses (`local_address: active`).
    pub(super) staged: bool,
    pub(super) connections_cut: u64,
    /// As the driver last told them.
    pub(super) adverts: AdvertCounts,
    /// Whether an operator keeps it out.
    pub(super) drained: bool,
    /// Clients of `vip-agent drain` that wait.
    pub(super) drain_waiters: Vec<oneshot::Sender<Answer>>,
    /// On its way out, or out.
    pub(super) exit: Exit,
}

/// How far an instance is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// It stays.
    None,
    /// It was told to hand over and go.
    Leaving,
    /// It has; its local addresses may linger.
    Left,
}

/// The time after a handover in which local addresses stay, so that open connections can end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    pub(super) since: Instant,
    pub(super) until: Instant,
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
    pub(super) groups: Memberships,
    /// Virtual MACs in the program's tables.
    pub(super) virtual_macs: Vec<MacAddr>,
    /// Those in the NIC's filter, without which it drops frames to them.
    pub(super) _filter: Option<UnicastFilter>,
}

impl Managed {
    pub(super) fn new(id: InstanceId, slot: RouterSlot, config: config::Instance) -> Self {
        Self {
            id,
            slot,
            priority: config.priority,
            config,
            home: None,
            fault: None,
            unhealthy: None,
            told: Condition::default(),
            blamed: None,
            conflict: None,
            inquiry: None,
            started: false,
            state: State::Initialize,
            since: SystemTime::now(),
            entered_at: MonotonicTime::now(),
            transitions: 0,
            last_takeover: None,
            last_release: None,
            linger: None,
            staged: false,
            connections_cut: 0,
            adverts: AdvertCounts::default(),
            drained: false,
            drain_waiters: Vec::new(),
            exit: Exit::None,
        }
    }

    /// Its machine is in another state, since `at`.
    pub(super) fn entered(&mut self, state: State, at: MonotonicTime) {
        self.state = state;
        self.since = SystemTime::now() - MonotonicTime::now().since(at);
        self.entered_at = at;
        self.transitions += 1;
        if state == State::Active {
            self.linger = None;
        }
        self.note_exit(state);
    }

    /// One that was told to leave has left when it says Initialize, even if it had not begun yet (hold-down).
    pub(super) fn note_exit(&mut self, state: State) {
        if state == State::Initialize && self.exit == Exit::Leaving {
            self.exit = Exit::Left;
        }
    }

    /// What its machine goes by.
    pub(super) fn parameters(&self) -> Parameters {
        Parameters { priority: self.priority, ..parameters(&self.config) }
    }

    pub(super) fn name(&self) -> &str {
        self.config.name.as_str()
    }

    pub(super) fn vips(&self) -> Vec<IpAddr> {
        self.config.vips.iter().map(|vip| vip.address).collect()
    }

    /// Whether its VIPs' local addresses are in use.
    pub(super) fn needs_addresses(&self) -> bool {
        match self.config.stands_on_lo() {
            LocalAddress::Never => false,
            LocalAddress::Always if self.exit == Exit::None => true,
            LocalAddress::Always | LocalAddress::Active => self.staged || self.linger.is_some(),
        }
    }

    /// Whether the two cannot be at the same time: the same name, virtual router or VIP.
    pub(super) fn excludes(&self, other: &config::Instance) -> bool {
        let own = &self.config;
        let same_vip = |vip: &IpAddr| other.vips.iter().any(|theirs| theirs.address == *vip);
        own.name == other.name
            || own.virtual_router_id == other.virtual_router_id
            || self.vips().iter().any(same_vip)
    }

    /// Answers everybody who waits for the drain.
    pub(super) fn answer_drain(&mut self, answer: &Answer) {
        for waiter in self.drain_waiters.drain(..) {
            let _ = waiter.send(answer.clone());
        }
    }
}
