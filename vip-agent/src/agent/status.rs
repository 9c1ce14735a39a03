//! Status as the contract has it, from what the agent knows and the driver says.

use super::Agent;
use super::alarms::rfc3339;
use super::instance::{Exit, Managed};
use super::reports::word;
use crate::status::{AdvertStatus, InstanceStatus, PeerStatus, Status};
use crate::types::MonotonicTime;
use crate::vrrp::driver::Snapshot;
use crate::vrrp::machine::State;

impl Agent {
    pub(super) async fn status(&self) -> Status {
        let mut instances = Vec::new();
        for managed in &self.instances {
            if let Some(snapshot) = self.driver.inspect(managed.id).await {
                instances.push(instance(managed, &snapshot));
            }
        }
        Status {
            node: self.config.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            realtime: match &self.driver.realtime().scheduling {
                Ok(()) => "fifo".into(),
                Err(why) => why.clone(),
            },
            watcher: self.watch.status(),
            map_memory: self.dataplane.map_memory(),
            instances,
            services: Vec::new(),
            alarms: self.alarms.list(),
        }
    }
}

fn instance(managed: &Managed, snapshot: &Snapshot) -> InstanceStatus {
    let now = MonotonicTime::now();
    let lease = snapshot.lease_until.since(now);
    let home = managed.home.as_ref();
    let config = &managed.config;
    let own = home.and_then(|home| home.place.sources.first().copied());
    InstanceStatus {
        name: managed.name().into(),
        state: word(&snapshot.state),
        reason: reason(managed, snapshot),
        priority: config.priority.get(),
        effective_priority: config.priority.get(),
        version: config.protocol.version().get(),
        virtual_router_id: config.virtual_router_id.get(),
        vips: managed.vips(),
        active_router: if snapshot.state == State::Active { own } else { snapshot.active_router },
        since: rfc3339(managed.since),
        transitions: managed.transitions,
        interface: home.map(|home| home.place.vip.name.to_string()),
        xdp_mode: home.and_then(|home| home.mode).map(|mode| mode.to_string()),
        owned: !lease.is_zero(),
        lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        peers: snapshot
            .peers
            .iter()
            .map(|peer| PeerStatus {
                address: peer.address,
                priority: peer.priority,
                last_advert_ms: u64::try_from(now.since(peer.heard).as_millis()).unwrap_or(u64::MAX),
            })
            .collect(),
        probes: Vec::new(),
        last_takeover: managed.last_takeover.clone(),
        adverts: AdvertStatus {
            sent: snapshot.adverts.sent,
            refused: snapshot.adverts.refused,
            received: snapshot.adverts.received,
            discarded: snapshot.adverts.discarded.total(),
            discarded_by: (snapshot.adverts.discarded.iter())
                .map(|(why, count)| (why.name().to_owned(), count))
                .collect(),
        },
        connections_cut: managed.connections_cut,
    }
}

/// Why it is not Active.
fn reason(managed: &Managed, snapshot: &Snapshot) -> Option<String> {
    if snapshot.runtime_silent {
        return Some(
            "the agent's runtime does not respond: addresses and verdicts are not looked after".into(),
        );
    }
    match snapshot.state {
        State::Active => None,
        State::Fault => managed.fault.clone().or_else(|| Some("fault".into())),
        State::Draining if snapshot.hands_over => {
            Some("handing over: answering until a peer is heard".into())
        }
        State::Draining => Some("drained by an operator".into()),
        State::Initialize if managed.exit != Exit::None => Some("ended".into()),
        State::Initialize => Some("holding down after start".into()),
        State::Backup => {
            let owner = snapshot.active_router.map(|owner| format!("{owner} is active"));
            let owner = owner.unwrap_or_else(|| "no owner heard yet".into());
            Some(match &snapshot.refusal {
                Some(refusal) => format!("{owner}; our last advertisement did not leave: {refusal}"),
                None => owner,
            })
        }
    }
}
