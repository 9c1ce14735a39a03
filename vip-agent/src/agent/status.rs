//! Status as the contract has it, from what the agent knows and the driver says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Agent;
use super::alarms::rfc3339;
use super::instance::{Exit, Managed};
use super::reports::word;
use crate::config;
use crate::health::View;
use crate::status::{
    AdvertStatus, AuthTrailerStatus, ConfigurationStatus, DetectStatus, InstanceStatus, PeerStatus,
    ProbeStatus, Status,
};
use crate::types::MonotonicTime;
use crate::vrrp::detect::Covered;
use crate::vrrp::discard::DiscardCounts;
use crate::vrrp::driver::Snapshot;
use crate::vrrp::machine::State;

impl Agent {
    pub(super) async fn status(&self) -> Status {
        let (mut instances, mut silent) = (Vec::new(), false);
        for managed in &self.instances {
            if let Some(snapshot) = self.inspect_next(managed.id, &mut silent).await {
                instances.push(self.instance(managed, &snapshot));
            }
        }
        Status {
            node: self.config.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            configuration: ConfigurationStatus {
                file: self.config_file.clone(),
                applied: rfc3339(self.provenance.applied),
                last_good: self.provenance.last_good,
                reason: self.provenance.refused.clone(),
            },
            realtime: match &self.driver.realtime().scheduling {
                Ok(()) => "fifo".into(),
                Err(why) => why.clone(),
            },
            watcher: self.watch.status(),
            api: self.api.status(),
            kubernetes: self.kubernetes_status(),
            map_memory: self.dataplane.map_memory(),
            instances,
            services: self.with_proxied(self.service_statuses()),
            flow_sync: self.telling.status(),
            alarms: self.alarms.list(),
            alarms_total: self.alarms.totals(),
        }
    }

    fn instance(&self, managed: &Managed, snapshot: &Snapshot) -> InstanceStatus {
        let mut names: Vec<&str> = Vec::new();
        for name in self.tracked(managed) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let probe = |view: View<'_>| ProbeStatus {
            name: view.name.into(),
            up: view.up,
            last_error: view.last_error.map(Into::into),
        };
        let fault = || self.fault_of_group(managed);
        InstanceStatus {
            probes: names.into_iter().filter_map(|name| self.probe(name)).map(probe).collect(),
            ..instance(managed, snapshot, fault)
        }
    }

    /// Why a member of a sync group that could serve by itself does not.
    fn fault_of_group(&self, managed: &Managed) -> Option<String> {
        let group = managed.config.sync_group.as_ref()?;
        self.group_of(managed).find_map(|other| {
            let why = other.fault.as_ref().or(other.unhealthy.as_ref())?;
            Some(format!("{} of sync group {group} cannot serve: {why}", other.name()))
        })
    }
}

fn instance(
    managed: &Managed,
    snapshot: &Snapshot,
    fault_of_group: impl FnOnce() -> Option<String>,
) -> InstanceStatus {
    let now = MonotonicTime::now();
    let lease = snapshot.lease_until.since(now);
    let home = managed.home.as_ref();
    let config = &managed.config;
    let own = home.and_then(|home| home.place.sources.first().copied());
    InstanceStatus {
        name: managed.name().into(),
        state: word(&snapshot.state),
        reason: reason(managed, snapshot, fault_of_group),
        priority: config.priority.get(),
        effective_priority: match snapshot.state {
            State::Active => snapshot.priority.get(),
            _ => managed.priority.get(),
        },
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
                detect: snapshot
                    .covered
                    .filter(|_| snapshot.active_router == Some(peer.address))
                    .map(|covered| detect(covered, now)),
            })
            .collect(),
        probes: Vec::new(),
        last_takeover: managed.last_takeover.clone(),
        last_release: managed.last_release.clone(),
        adverts: AdvertStatus {
            sent: snapshot.adverts.sent,
            refused: snapshot.adverts.refused,
            received: snapshot.adverts.received,
            discarded: snapshot.adverts.discarded.total(),
            discarded_by: by_name(&snapshot.adverts.discarded),
            remarked_by: by_name(&snapshot.adverts.remarked),
        },
        auth_trailer: config.auth_trailer.as_ref().map(auth_trailer),
        connections_cut: managed.connections_cut,
    }
}

fn detect(covered: Covered, now: MonotonicTime) -> DetectStatus {
    let ms = |span: Duration| span.as_micros() as f64 / 1000.0;
    DetectStatus { last_ms: ms(now.since(covered.heard)), echo_ms: ms(covered.echo) }
}

fn auth_trailer(trailer: &config::AuthTrailer) -> AuthTrailerStatus {
    let accepted_keys: Vec<String> = trailer.keys.ids().map(|id| id.to_string()).collect();
    AuthTrailerStatus {
        signing_key: accepted_keys.first().cloned().unwrap_or_default(),
        accepted_keys,
        accept_unsigned: trailer.accept_unsigned,
    }
}

fn by_name(counts: &DiscardCounts) -> BTreeMap<String, u64> {
    counts.iter().map(|(why, count)| (why.name().to_owned(), count)).collect()
}

/// Why it is not Active.
fn reason(
    managed: &Managed,
    snapshot: &Snapshot,
    fault_of_group: impl FnOnce() -> Option<String>,
) -> Option<String> {
    if snapshot.runtime_silent {
        return Some(
            "the agent's runtime does not respond: addresses and verdicts are not looked after".into(),
        );
    }
    match snapshot.state {
        State::Active if snapshot.last_resort => {
            let why = managed.unhealthy.as_deref().unwrap_or("unhealthy");
            Some(format!("keeps the VIPs because nobody took them (all_failed: open): {why}"))
        }
        State::Active => None,
        State::Fault => {
            let own = [&managed.fault, &managed.unhealthy, &managed.conflict];
            let own = own.into_iter().find_map(Clone::clone);
            own.or_else(fault_of_group).or_else(|| Some("fault".into()))
        }
        State::Draining if snapshot.hands_over && managed.unhealthy.is_some() && !managed.drained => {
            let why = managed.unhealthy.as_deref().unwrap_or("unhealthy");
            Some(format!("offering the VIPs: {why}"))
        }
        State::Draining if snapshot.hands_over && !managed.drained && managed.exit == Exit::None => {
            Some("giving the VIPs back to a peer that had them before: it must not be preempted".into())
        }
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
