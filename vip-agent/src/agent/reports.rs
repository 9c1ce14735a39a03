//! What the driver reports: transitions, refusals, rogues; and what the program reports of foreign owners.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::bail;
use vip_common::maps::ForeignOwner;

use super::Agent;
use super::alarms::{Kind, Seen};
use super::linger::Moving;
use crate::events::Occurrence;
use crate::health::Turn;
use crate::net::neighbors::{Neighbor, mac_of};
use crate::status::Takeover;
use crate::types::{MacAddr, MonotonicTime};
use crate::vrrp::driver::{Command, InstanceId, Mismatch, Phases, Report, Unstage};
use crate::vrrp::machine::{Cause, State, Transition};

/// Before and after a move of ours others may rightly claim what we own, by a hair: the new owner announces before we
/// have read its advertisement, the former one answers until it has read ours.
const MOVE_SETTLES: Duration = Duration::from_millis(100);

/// The cause of a change of state whose report was lost.
const UNREPORTED: &str = "unreported";

/// Claims that wait to be judged: the program tells of one in a second for each router.
const MOST_CLAIMS: usize = 256;

/// Another station's claim to a VIP that the program took for ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// Index of the ownership word.
    router: u16,
    address: IpAddr,
    mac: MacAddr,
    heard: MonotonicTime,
}

/// Reports followed without a look at anything else: what all instances of an interface say at a takeover.
const AT_ONCE: usize = 1024;

impl Agent {
    /// Follows a report and those that wait behind it: addresses of instances that move together move together.
    pub(super) async fn on_reports(&mut self, first: Report) -> anyhow::Result<()> {
        let mut moving = Moving::default();
        self.on_report(first, &mut moving).await?;
        for _ in 1..AT_ONCE {
            let Some(report) = self.driver.waiting_report() else { break };
            self.on_report(report, &mut moving).await?;
        }
        self.keep_cpus_ready();
        self.move_addresses(&mut moving).await;
        Ok(())
    }

    async fn on_report(&mut self, report: Report, moving: &mut Moving) -> anyhow::Result<()> {
        match report {
            Report::Moved { id, transition, phases, at } => {
                if let Some(index) = self.index_of(id) {
                    self.moved(index, transition, phases, at).await;
                }
            }
            Report::Stage(id) => self.stage_later(id, moving).await,
            Report::Unstage(id, when) => self.unstage_later(id, when, moving).await,
            Report::Refused(id, error) => {
                if let Some(index) = self.index_of(id) {
                    let instance = self.instances[index].name();
                    tracing::warn!(instance, "advertisement not sent: {error}");
                }
            }
            Report::WhereIs(id, owner) => {
                if let Some(index) = self.index_of(id) {
                    self.find(index, owner).await;
                }
            }
            Report::Mismatch(id, mismatch) => self.on_mismatch(id, mismatch),
            Report::Owner(id, seen) => {
                if let Some(index) = self.index_of(id) {
                    self.owners.note(&self.instances[index].config, seen);
                }
            }
            Report::Retired(retired) => drop(retired),
            Report::Died(why) => bail!("{why}"),
        }
        Ok(())
    }

    /// Makes up for reports that found no room in the queue: the driver is asked how things are.
    pub(super) async fn catch_up(&mut self) {
        let lost = self.driver.lost_reports();
        if std::mem::replace(&mut self.lost_reports, lost) != lost {
            tracing::warn!(
                lost,
                "the VRRP driver reported more than could be followed: asking it how things are"
            );
            self.behind = true;
        }
        if !self.behind {
            return;
        }
        let (mut moving, mut silent) = (Moving::default(), false);
        for index in 0..self.instances.len() {
            let Some(snapshot) = self.inspect_next(self.instances[index].id, &mut silent).await else {
                continue;
            };
            let managed = &mut self.instances[index];
            if managed.state != snapshot.state {
                tracing::info!(instance = managed.name(), to = word(&snapshot.state), "has moved meanwhile");
                managed.entered(snapshot.state, MonotonicTime::now());
                self.meters.moved(managed.name(), snapshot.state, UNREPORTED.to_owned());
            }
            let id = managed.id;
            match snapshot.state {
                State::Active => self.stage_later(id, &mut moving).await,
                State::Draining => {}
                State::Initialize | State::Backup | State::Fault => {
                    self.unstage_later(id, Unstage::Now, &mut moving).await;
                }
            }
        }
        self.keep_cpus_ready();
        self.move_addresses(&mut moving).await;
        self.remove_left().await;
        // Else it hangs, and is asked again at the next beat.
        self.behind = silent || self.driver.vitals().driver().is_err();
    }

    pub(super) fn index_of(&self, id: InstanceId) -> Option<usize> {
        self.instances.iter().position(|managed| managed.id == id)
    }

    async fn moved(&mut self, index: usize, transition: Transition, phases: Phases, at: MonotonicTime) {
        let Transition { from, to, cause } = transition;
        let managed = &mut self.instances[index];
        let takeover = Takeover::new(transition, phases, managed.blamed.as_ref());
        if from == State::Active || to == State::Active {
            // It explains one move, not a later one.
            managed.blamed = None;
        }
        tracing::info!(
            instance = managed.name(),
            from = word(&from),
            to = word(&to),
            cause = word(&cause),
            probe = takeover.probe,
            verdict_us = takeover.verdict_us,
            detect_us = takeover.detect_us,
            decide_us = takeover.decide_us,
            flip_us = takeover.flip_us,
            announce_us = takeover.announce_us,
            "{} -> {}",
            word(&from),
            word(&to),
        );
        if from != to {
            managed.entered(to, at);
            self.meters.moved(managed.name(), to, word(&cause));
        }
        self.events.publish(&Occurrence::Transition {
            instance: managed.name().to_owned(),
            from: word(&from),
            to: word(&to),
            takeover: takeover.clone(),
        });
        managed.note_exit(to);
        if to == State::Active {
            self.meters.took_over(phases);
            managed.last_takeover = Some(takeover);
        } else if from == State::Active {
            managed.last_release = Some(takeover);
        }
        self.tell_what_is_owned();
        self.answer_drain(index).await;
        self.remove_left().await;
    }

    /// Looks for the MAC by which an owner is reached on the link of the VIPs: by its address, or, if its adverts come by
    /// another link, by a VIP, which it answers for.
    async fn find(&self, index: usize, owner: IpAddr) {
        let managed = &self.instances[index];
        let Some(home) = &managed.home else { return };
        let ifindex = home.place.vip.index;
        let by_vip = home.place.advert.index != ifindex;
        let address = if by_vip { home.vips.first().copied() } else { Some(owner) };
        let Some(address) = address else { return };
        let mac = match mac_of(&self.rtnetlink, Neighbor { ifindex, address }).await {
            Ok(mac) => mac.filter(|mac| *mac != home.place.mac),
            Err(error) => {
                tracing::debug!(%error, %owner, "cannot look for the MAC of the owner");
                None
            }
        };
        self.driver.send(Command::Found(managed.id, owner, mac)).await;
    }

    fn on_mismatch(&mut self, id: InstanceId, mismatch: Mismatch) {
        let Some(index) = self.index_of(id) else { return };
        let Mismatch { source: address, source_mac: mac, why } = mismatch;
        let instance = &self.instances[index].config;
        self.alarms.raise(Seen { kind: Kind::Advert(why), instance, address, mac });
    }

    /// Somebody else answers for a VIP that this node owns.
    pub(super) fn on_foreign_owner(&mut self, event: io::Result<ForeignOwner>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return tracing::warn!(%error, "cannot read the program's events"),
        };
        let address = match event.family {
            4 => IpAddr::from([event.address[0], event.address[1], event.address[2], event.address[3]]),
            _ => IpAddr::from(event.address),
        };
        if self.claims.len() < MOST_CLAIMS {
            let claim =
                Claim { router: event.router, address, mac: MacAddr(event.mac), heard: MonotonicTime::now() };
            self.claims.push(claim);
        }
    }

    /// Raises the alarm for the claims that no move of ours explains.
    pub(super) fn judge_claims(&mut self) {
        let now = MonotonicTime::now();
        let ripe = |claim: &mut Claim| now.since(claim.heard) >= MOVE_SETTLES;
        for Claim { router, address, mac, heard } in self.claims.extract_if(.., ripe) {
            let Some(managed) = self.instances.iter().find(|managed| managed.slot.get() == router) else {
                continue;
            };
            let settled = managed.entered_at + MOVE_SETTLES <= heard;
            if managed.state == State::Active && settled {
                let instance = &managed.config;
                self.alarms.raise(Seen { kind: Kind::ForeignOwner, instance, address, mac });
            }
        }
    }
}

impl Takeover {
    fn new(transition: Transition, phases: Phases, blamed: Option<&Turn>) -> Self {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        // A verdict explains a move if it points the way that the VIPs went, and nothing else explains it better.
        let blamed = blamed.filter(|turn| match transition.cause {
            Cause::Fault | Cause::HigherPriority => transition.from == State::Active && !turn.up,
            Cause::Preempt | Cause::Recovered => transition.to == State::Active && turn.up,
            _ => false,
        });
        Self {
            cause: word(&transition.cause),
            probe: blamed.map(|turn| turn.probe.clone()),
            verdict_us: blamed.map(|turn| micros(turn.last.since(turn.first))),
            detect_us: micros(phases.detect),
            decide_us: micros(phases.decide),
            flip_us: micros(phases.flip),
            announce_us: micros(phases.announce),
        }
    }
}

/// The name that a state or cause has in JSON, for logs as well.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".into(),
    }
}
