//! Who has the VIPs? Asked before an instance first enters the election: an address that somebody answers for, though no
//! router advertises it, is no address to take (RFC 5227, 2.1; RFC 4862, 5.4).
//!
//! An owner that advertises is no conflict, whatever MAC it answers by: the election is between it and us, and the owner
//! looks for rivals itself. So an answer alone says nothing; it counts once no advert was accepted for as long as a Backup
//! waits for one. With `on_conflict: alarm` the instance takes part meanwhile, and the inquiry costs it nothing; with
//! `fault` it stays out until nobody answers, or somebody advertises.
//!
//! Instances of one interface ask together, by two sockets: closing a packet socket takes the kernel some milliseconds, and
//! hundreds of them would hold up the runtime for seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::Agent;
use super::alarms::{Kind, Seen};
use super::instance::{Exit, Managed};
use super::place::Place;
use super::sockets::Sockets;
use crate::config::{self, OnConflict};
use crate::dataplane::announce::{Frame, questions};
use crate::errors::in_full;
use crate::types::{Family, MacAddr, MonotonicTime, Priority};
use crate::vrrp::driver::InstanceId;
use crate::vrrp::machine::State;
use crate::vrrp::socket::{AnnounceSender, Claim, ClaimReceiver, OpenError};

/// Each VIP is asked for so often: a frame may be lost.
const ROUNDS: u32 = 3;

/// From one round to the next, and from the last to the verdict. Kernels answer within microseconds, so that there is no
/// need for RFC 5227's seconds.
const ROUND: Duration = Duration::from_millis(200);

/// Questions sent at once: as many answers come back.
const BURST: usize = 32;

/// From one look at what has come to the next.
const PAUSE: Duration = Duration::from_millis(10);

/// Claims looked at without a pause.
const MOST_AT_ONCE: usize = 512;

/// From one inquiry to the next while there is a conflict.
const AGAIN: Duration = Duration::from_secs(5);

/// Stations that are remembered for each instance: a spoofer makes as many as it likes.
const MOST_CLAIMS: usize = 64;

const LOOKING: &str = "looking whether another station has the VIPs already";

/// Who has claimed what, and when first.
pub(crate) type Claims = BTreeMap<Claim, MonotonicTime>;

/// How far the inquiry of one instance is.
#[derive(Debug)]
pub(super) struct Inquiry {
    stage: Stage,
    /// Adverts from then on count.
    since: MonotonicTime,
}

#[derive(Debug)]
enum Stage {
    /// To be asked from then on, once there are interfaces to ask by.
    Waiting(Instant),
    /// A task asks.
    Asking,
    /// Somebody answered: is there an owner that advertises?
    Answered(Claims),
}

/// What a task has found for those who asked together.
#[derive(Debug)]
pub(super) struct Answers {
    ids: Vec<InstanceId>,
    since: MonotonicTime,
    claims: io::Result<Claims>,
}

/// All that it takes to ask.
pub(crate) struct Questioner {
    questions: Vec<Frame>,
    sender: Arc<AnnounceSender>,
    receivers: Vec<ClaimReceiver>,
    vips: BTreeSet<IpAddr>,
    own: BTreeSet<MacAddr>,
    most_claims: usize,
}

impl Inquiry {
    fn new() -> Self {
        Self { stage: Stage::Waiting(Instant::now()), since: MonotonicTime::now() }
    }
}

/// For how long a Backup of this configuration waits for an advert.
fn patience(instance: &config::Instance) -> Duration {
    let interval = instance.protocol.advert_interval();
    interval.duration() * 3 + interval.longest_skew()
}

impl Agent {
    /// Before the machine is told to begin. An address owner begins at once, and is not asked whether it may, unless it wants
    /// to be: whoever yields to it may never be heard.
    pub(super) async fn begin_inquiry(&mut self, index: usize) {
        let managed = &mut self.instances[index];
        match managed.config.on_conflict {
            OnConflict::Alarm if managed.config.priority == Priority::OWNER => {}
            OnConflict::Alarm => managed.inquiry = Some(Inquiry::new()),
            OnConflict::Fault => {
                managed.inquiry = Some(Inquiry::new());
                self.stay_out(index, LOOKING.to_owned()).await;
            }
        }
    }

    /// What is due in all inquiries.
    pub(super) async fn follow_inquiries(&mut self) {
        self.inquire().await;
        for index in 0..self.instances.len() {
            let managed = &self.instances[index];
            if managed.conflict.is_some() && managed.config.on_conflict == OnConflict::Alarm {
                // By a reload.
                self.no_conflict(index).await;
            } else if managed.inquiry.is_some() {
                self.judge(index).await;
            }
        }
    }

    /// Asks for all whose time has come.
    async fn inquire(&mut self) {
        let mut due: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, managed) in self.instances.iter_mut().enumerate() {
            let Some(Inquiry { stage: Stage::Waiting(at), .. }) = managed.inquiry else { continue };
            if managed.exit != Exit::None {
                managed.inquiry = None;
            } else if let Some(home) = &managed.home
                && at <= Instant::now()
                && managed.fault.is_none()
            {
                due.entry(home.place.vip.index).or_default().push(index);
            }
        }
        for indexes in due.into_values() {
            self.inquire_together(&indexes).await;
        }
    }

    async fn inquire_together(&mut self, indexes: &[usize]) {
        let since = MonotonicTime::now();
        let asking: Vec<&Managed> = indexes.iter().map(|&index| &self.instances[index]).collect();
        match Questioner::open(&asking, &mut self.sockets) {
            Ok(questioner) => {
                let ids = asking.iter().map(|managed| managed.id).collect();
                for &index in indexes {
                    self.instances[index].inquiry = Some(Inquiry { stage: Stage::Asking, since });
                }
                self.inquiries.spawn(async move { Answers { ids, since, claims: questioner.ask().await } });
            }
            Err(error) => {
                for &index in indexes {
                    self.cannot_ask(index, &in_full(&error)).await;
                }
            }
        }
    }

    /// A task has come back.
    pub(super) async fn on_answers(&mut self, answers: Answers) {
        let Answers { ids, since, claims } = answers;
        for id in ids {
            // One of an instance that is gone, or of a former inquiry, is nobody's any more.
            let Some(index) = self.index_of(id) else { continue };
            let managed = &mut self.instances[index];
            if !matches!(&managed.inquiry, Some(inquiry) if inquiry.since == since) {
                continue;
            }
            match &claims {
                Ok(claims) => {
                    let vips = managed.vips();
                    let of_its_vips = claims.iter().filter(|(claim, _)| vips.contains(&claim.address));
                    let claims: Claims = of_its_vips.map(|(claim, heard)| (*claim, *heard)).collect();
                    if claims.is_empty() {
                        self.no_conflict(index).await;
                    } else {
                        managed.inquiry = Some(Inquiry { stage: Stage::Answered(claims), since });
                        self.judge(index).await;
                    }
                }
                Err(error) => self.cannot_ask(index, &error.to_string()).await,
            }
        }
    }

    async fn cannot_ask(&mut self, index: usize, why: &str) {
        let managed = &mut self.instances[index];
        tracing::warn!(instance = managed.name(), "cannot look for other stations that have the VIPs: {why}");
        match managed.config.on_conflict {
            OnConflict::Alarm => managed.inquiry = None,
            OnConflict::Fault => {
                let stage = Stage::Waiting(Instant::now() + AGAIN);
                managed.inquiry = Some(Inquiry { stage, since: MonotonicTime::now() });
            }
        }
    }

    /// Whether those who answered are a conflict is known once an advert was heard, or long enough none.
    async fn judge(&mut self, index: usize) {
        let managed = &self.instances[index];
        let Some(Inquiry { stage: Stage::Answered(_), since }) = managed.inquiry else { return };
        let Some(snapshot) = self.inspect(managed.id).await else { return };
        if snapshot.peers.iter().any(|peer| peer.heard >= since) {
            return self.no_conflict(index).await;
        }
        if MonotonicTime::now().since(since) < patience(&managed.config) {
            return;
        }
        let managed = &mut self.instances[index];
        let Some(Inquiry { stage: Stage::Answered(mut claims), .. }) = managed.inquiry.take() else { return };
        // Who claims what we own by now is a foreign owner, which the program tells of.
        let owned = (managed.state == State::Active).then_some(managed.entered_at);
        claims.retain(|_, heard| owned.is_none_or(|since| *heard < since));
        for &Claim { address, mac } in claims.keys() {
            let instance = &managed.config;
            self.alarms.raise(Seen { kind: Kind::AddressConflict, instance, address, mac });
        }
        if managed.config.on_conflict == OnConflict::Fault
            && let Some(Claim { address, mac }) = claims.keys().next()
        {
            let stage = Stage::Waiting(Instant::now() + AGAIN);
            managed.inquiry = Some(Inquiry { stage, since });
            let more = match claims.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let vrid = managed.config.virtual_router_id;
            let why = format!(
                "{mac} answers for {address}{more}, but no advertisement of virtual router {vrid} is heard: take the VIP off \
                 that station"
            );
            self.stay_out(index, why).await;
        }
    }

    async fn no_conflict(&mut self, index: usize) {
        let managed = &mut self.instances[index];
        managed.inquiry = None;
        let Some(was) = managed.conflict.take() else { return };
        if was != LOOKING {
            tracing::info!(instance = managed.name(), "no conflict any more (was: {was})");
        }
        self.tell_condition(index, None).await;
    }

    async fn stay_out(&mut self, index: usize, why: String) {
        let managed = &mut self.instances[index];
        if managed.conflict.as_ref() == Some(&why) {
            return;
        }
        if why != LOOKING {
            tracing::warn!(instance = managed.name(), "cannot serve: {why}");
        }
        managed.conflict = Some(why);
        self.tell_condition(index, None).await;
    }
}

impl Questioner {
    /// For instances whose VIPs are on one interface: by that, and its own MAC, since a virtual one is where an owner is.
    fn open(asking: &[&Managed], sockets: &mut Sockets) -> anyhow::Result<Self> {
        let homes = || asking.iter().filter_map(|managed| managed.home.as_ref());
        let place = &homes().next().context("there is no interface")?.place;
        let vips: BTreeSet<IpAddr> = asking.iter().flat_map(|managed| managed.vips()).collect();
        let virtual_macs = homes().flat_map(|home| &home.virtual_macs).copied();
        let mut questioner = Self::at(place, vips, virtual_macs, sockets.of_announcements(&place.vip)?)?;
        questioner.most_claims *= asking.len();
        Ok(questioner)
    }

    /// For VIPs that are answered at one place. What it and the `virtual_macs` claim does not count.
    pub(crate) fn at(
        place: &Place,
        vips: BTreeSet<IpAddr>,
        virtual_macs: impl Iterator<Item = MacAddr>,
        sender: Arc<AnnounceSender>,
    ) -> Result<Self, OpenError> {
        let families: BTreeSet<Family> = vips.iter().map(|vip| Family::of(*vip)).collect();
        let receivers = families.into_iter().map(|family| ClaimReceiver::open(&place.vip, family));
        Ok(Self {
            questions: questions(vips.iter().copied(), place.mac, place.link_local),
            sender,
            receivers: receivers.collect::<Result<_, _>>()?,
            own: virtual_macs.chain([place.mac]).collect(),
            most_claims: MOST_CLAIMS,
            vips,
        })
    }

    /// Asks three times within 0.6 s, and yields who answered.
    ///
    /// # Errors
    /// The interface is down, or gone.
    pub(crate) async fn ask(self) -> io::Result<Claims> {
        let mut claims = Claims::new();
        for _ in 0..ROUNDS {
            let end = Instant::now() + ROUND;
            for burst in self.questions.chunks(BURST) {
                self.sender.send(burst)?;
                sleep(PAUSE).await;
                self.collect(&mut claims)?;
            }
            while Instant::now() < end {
                sleep(PAUSE).await;
                self.collect(&mut claims)?;
            }
        }
        Ok(claims)
    }

    fn collect(&self, claims: &mut Claims) -> io::Result<()> {
        for receiver in &self.receivers {
            for _ in 0..MOST_AT_ONCE {
                let Some(claim) = receiver.receive()? else { break };
                let counts = self.vips.contains(&claim.address) && !self.own.contains(&claim.mac);
                if counts && claims.len() < self.most_claims {
                    claims.entry(claim).or_insert_with(MonotonicTime::now);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::edge as instance;

    #[test]
    fn an_owner_is_waited_for_as_long_as_by_a_backup_of_the_lowest_priority() {
        assert_eq!(patience(&instance("")), Duration::from_secs(4));
        assert_eq!(patience(&instance(", advert_interval: 10ms")), Duration::from_millis(40));
        assert_eq!(patience(&instance(", version: 2, advert_interval: 3s")), Duration::from_secs(10));
    }
}
