//! One virtual router in the driver: its machine, sockets, prebuilt frames and ownership word.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::announcing::{Announcing, Moved, Urgency};
use super::stopwatch::Stopwatch;
use super::{InstanceId, Report, Shared, Unstage};
use crate::dataplane::announce::{Announcements, Frame};
use crate::dataplane::{OwnershipWords, RouterSlot};
use crate::types::{Family as IpFamily, MacAddr, MonotonicTime, VirtualRouterId};
use crate::vrrp::discard::{Discard, DiscardCounts};
use crate::vrrp::machine::{
    Action, Event, LEASE_INTERVALS, Machine, Output, Parameters, PeerAdvert, State, Transition,
};
use crate::vrrp::prepared::PreparedAdverts;
use crate::vrrp::receive::{Packet, Received, Rules};
use crate::vrrp::socket::{AdvertSender, AnnounceSender, SendError};

/// Other routers that are remembered per instance.
const PEERS: usize = 16;

/// All that one instance needs to send and receive on its present interfaces, prepared beforehand.
#[derive(Debug)]
pub struct Binding {
    /// Interface of the advertisements.
    pub ifindex: u32,
    /// One per family of the VIPs; IPv4 first, it breaks ties.
    pub families: ArrayVec<Family, 2>,
    /// Frames for the interface that carries the VIPs.
    pub announcements: Announcements,
    /// Frames for it that make rivals give themselves away.
    pub questions: Vec<Frame>,
    /// One that tells nobody anything when a takeover is rehearsed.
    pub rehearsal: [Frame; 1],
    /// Socket for all of these, shared by the instances on that interface.
    pub announcer: Arc<AnnounceSender>,
}

/// One family of an instance: its socket, its advertisements and what it accepts.
#[derive(Debug)]
pub struct Family {
    /// Sends the advertisements: shared by the instances that send from the same address on the same interface.
    pub sender: Arc<AdvertSender>,
    /// Our advertisement, for each destination.
    pub adverts: PreparedAdverts,
    /// The same with priority 0.
    pub leaving: PreparedAdverts,
    /// What is accepted of others; its `own` address breaks ties.
    pub rules: Rules,
}

/// Another router's advertisement that does not fit ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The sender.
    pub source: IpAddr,
    /// Its MAC.
    pub source_mac: MacAddr,
    /// What is wrong with it.
    pub why: Discard,
}

/// Another router as it was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPeer {
    /// Its address.
    pub address: IpAddr,
    /// 0-255.
    pub priority: u8,
    /// When it was last heard.
    pub heard: MonotonicTime,
}

/// How an instance is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// State of the machine.
    pub state: State,
    /// Until when this node answers; in the past = it does not.
    pub lease_until: MonotonicTime,
    /// The owner, if it is another.
    pub active_router: Option<IpAddr>,
    /// Other routers heard of late.
    pub peers: ArrayVec<SnapshotPeer, PEERS>,
    /// Advertisements sent and received.
    pub adverts: AdvertCounts,
    /// Why the last advertisement that we tried to send did not leave.
    pub refusal: Option<SendError>,
    /// The runtime has been silent for too long.
    pub runtime_silent: bool,
    /// It drains, and goes on answering until an heir is heard.
    pub hands_over: bool,
}

impl Snapshot {
    /// Whether this node answers for the VIPs.
    pub fn answers(&self) -> bool {
        MonotonicTime::now() < self.lease_until
    }
}

/// Advertisements counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdvertCounts {
    /// Accepted for sending.
    pub sent: u64,
    /// Refused locally.
    pub refused: u64,
    /// Received and accepted.
    pub received: u64,
    /// Received and discarded, by reason.
    pub discarded: DiscardCounts,
}

/// See the module.
#[derive(Debug)]
pub struct Router {
    id: InstanceId,
    virtual_router_id: VirtualRouterId,
    machine: Machine,
    grace: Duration,
    words: OwnershipWords,
    slot: RouterSlot,
    binding: Option<Box<Binding>>,
    peers: ArrayVec<SnapshotPeer, PEERS>,
    /// Who was last heard as owner, and how.
    owner: Option<Owner>,
    faulty: bool,
    runtime_silent: bool,
    adverts: AdvertCounts,
    /// The last discard that was reported, to report each kind once a second at most.
    mismatch_reported: MonotonicTime,
    refusal_reported: MonotonicTime,
    /// Why the last advertisement did not leave.
    refusal: Option<SendError>,
    /// Index of the family whose advertisement was refused last.
    refused_family: usize,
    announcing: Option<Announcing>,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    address: IpAddr,
    mac: MacAddr,
    heard: MonotonicTime,
}

/// What became of an advertisement in all families; `None` = there are no sockets at present, or the time for it is over.
pub(super) type Sent = Result<(), Option<SendError>>;

/// What an event leads to, as far as it is not carried out yet.
pub(super) struct Work {
    actions: arrayvec::IntoIter<Action, 8>,
    transition: Option<Transition>,
    stopwatch: Stopwatch,
    leaving: Sent,
    /// Whether the announcements under way are of this.
    announces: bool,
}

/// Complaints about one instance are reported once in this time.
const REPORT_GAP: Duration = Duration::from_secs(1);

impl Router {
    /// An instance in Initialize, not yet bound to interfaces.
    pub fn new(
        id: InstanceId,
        virtual_router_id: VirtualRouterId,
        parameters: Parameters,
        grace: Duration,
        words: OwnershipWords,
        slot: RouterSlot,
    ) -> Self {
        Self {
            id,
            virtual_router_id,
            machine: Machine::new(parameters),
            grace,
            words,
            slot,
            binding: None,
            peers: ArrayVec::new(),
            owner: None,
            faulty: false,
            runtime_silent: false,
            adverts: AdvertCounts::default(),
            mismatch_reported: MonotonicTime::ZERO,
            refusal_reported: MonotonicTime::ZERO,
            refusal: None,
            refused_family: 0,
            announcing: None,
        }
    }

    pub(super) fn virtual_router_id(&self) -> VirtualRouterId {
        self.virtual_router_id
    }

    pub(super) fn listens_on(&self, ifindex: u32, family: IpFamily) -> bool {
        self.binding.as_ref().is_some_and(|binding| {
            binding.ifindex == ifindex && binding.families.iter().any(|own| own.family() == family)
        })
    }

    pub(super) fn next_timer(&self) -> MonotonicTime {
        self.machine.next_timer()
    }

    /// When it takes over unless something is heard before.
    pub(super) fn takes_over_at(&self) -> MonotonicTime {
        self.machine.takes_over_at().unwrap_or(MonotonicTime::NEVER)
    }

    /// Goes the way of a takeover without a trace on the wire. After some milliseconds of other work the kernel's part
    /// of that way is in no cache any more: a first advertisement takes several times as long as one after it.
    pub(super) fn rehearse(&self) {
        let Some(binding) = &self.binding else { return };
        for family in &binding.families {
            family.sender.rehearse(&family.adverts);
        }
        // What cannot be sent now shows when it matters.
        let _ = binding.announcer.send(&binding.rehearsal);
    }

    pub(super) fn is_bound(&self) -> bool {
        self.binding.is_some()
    }

    pub(super) fn bind(&mut self, binding: Option<Box<Binding>>) -> Option<Box<Binding>> {
        if let Some(announcing) = &mut self.announcing {
            announcing.begin_again(Urgency::Takeover);
        }
        std::mem::replace(&mut self.binding, binding)
    }

    /// An advertisement of this virtual router's id has arrived.
    pub(super) fn receive(&mut self, packet: &Packet<'_>, received_at: MonotonicTime, shared: &Shared) {
        let Some(binding) = &self.binding else { return };
        let Some(index) = binding.families.iter().position(|family| family.family() == packet.family())
        else {
            return;
        };
        let family = &binding.families[index];
        let received = match packet.accept(&family.rules) {
            Ok(received) => received,
            Err(why) => return self.discarded(packet, why, shared),
        };
        let event = Event::Advert(PeerAdvert {
            priority: received.advert.priority,
            interval: received.advert.interval,
            // The first family breaks ties, or two routers could each lose in one family.
            address: if index == 0 { received.source.cmp(&family.rules.own) } else { Ordering::Less },
        });
        if let Some(remark) = received.remark {
            self.complain(packet, remark, shared);
        }
        self.adverts.received += 1;
        self.note_peer(index, &received, received_at);
        self.handle(event, received_at, shared);
    }

    pub(super) fn discarded(&mut self, packet: &Packet<'_>, why: Discard, shared: &Shared) {
        self.adverts.discarded.add(why);
        self.complain(packet, why, shared);
    }

    fn complain(&mut self, packet: &Packet<'_>, why: Discard, shared: &Shared) {
        let now = MonotonicTime::now();
        if now.since(self.mismatch_reported) >= REPORT_GAP {
            self.mismatch_reported = now;
            let (source, source_mac) = (packet.addresses.source(), packet.source_mac);
            shared.report(Report::Mismatch(self.id, Mismatch { source, source_mac, why }));
        }
    }

    fn note_peer(&mut self, family: usize, received: &Received<'_>, heard: MonotonicTime) {
        let peer = SnapshotPeer { address: received.source, priority: received.advert.priority, heard };
        if let Some(known) = self.peers.iter_mut().find(|known| known.address == peer.address) {
            *known = peer;
        } else {
            if self.peers.is_full()
                && let Some(oldest) = (0..PEERS).min_by_key(|&index| self.peers[index].heard)
            {
                self.peers.swap_remove(oldest);
            }
            self.peers.push(peer);
        }
        // Whoever advertises owns, or owned until now.
        // One that speaks both families goes by its address in the first.
        let address = match self.owner {
            Some(owner) if family > 0 && owner.mac == received.source_mac => owner.address,
            _ => received.source,
        };
        self.owner = Some(Owner { address, mac: received.source_mac, heard });
    }

    /// An event whose cause is now.
    pub(super) fn tell(&mut self, event: Event, shared: &Shared) {
        self.handle(event, self.cause_of(event), shared);
    }

    /// The timer has come. Returns what is left to be done once our advertisement was sent, if one is to be: for
    /// [`Self::advert_sent`].
    pub(super) fn on_timer(&mut self, shared: &Shared) -> Option<Work> {
        let work = self.decide(Event::Timer, self.cause_of(Event::Timer));
        self.proceed(work, shared)
    }

    fn cause_of(&self, event: Event) -> MonotonicTime {
        match (event, self.owner) {
            (Event::Timer, Some(owner)) => owner.heard,
            _ => MonotonicTime::now(),
        }
    }

    pub(super) fn tell_from_runtime(&mut self, event: Event, shared: &Shared) {
        match event {
            Event::Fault => self.faulty = true,
            Event::Recovered => {
                self.faulty = false;
                if self.runtime_silent {
                    return;
                }
            }
            _ => {}
        }
        self.tell(event, shared);
    }

    pub(super) fn runtime_is_silent(&mut self, silent: bool, shared: &Shared) {
        if std::mem::replace(&mut self.runtime_silent, silent) == silent {
            return;
        }
        if silent {
            self.tell(Event::Fault, shared);
        } else if !self.faulty {
            self.tell(Event::Recovered, shared);
        }
    }

    pub(super) fn announce_again(&mut self, shared: &Shared) {
        let now = MonotonicTime::now();
        let output = self.machine.announce_again(now);
        self.carry_out(Work::new(output, Stopwatch::start(now, now, now)), shared);
    }

    pub(super) fn reconfigure(&mut self, parameters: Parameters, grace: Duration, shared: &Shared) {
        self.grace = grace;
        let now = MonotonicTime::now();
        let output = self.machine.reconfigure(parameters, now);
        self.carry_out(Work::new(output, Stopwatch::start(now, now, now)), shared);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.machine.state();
        Snapshot {
            state,
            lease_until: self.words.load(self.slot),
            active_router: self.owner.filter(|_| state != State::Active).map(|owner| owner.address),
            peers: self.peers.clone(),
            adverts: self.adverts,
            refusal: self.refusal.clone(),
            runtime_silent: self.runtime_silent,
            hands_over: self.machine.is_handing_over(),
        }
    }

    fn handle(&mut self, event: Event, since: MonotonicTime, shared: &Shared) {
        let work = self.decide(event, since);
        self.carry_out(work, shared);
    }

    fn decide(&mut self, event: Event, since: MonotonicTime) -> Work {
        let now = MonotonicTime::now();
        let output = self.machine.handle(event, now);
        Work::new(output, Stopwatch::start(since, now, MonotonicTime::now()))
    }

    fn carry_out(&mut self, work: Work, shared: &Shared) {
        if let Some(work) = self.proceed(work, shared) {
            let sent = self.send_in_all(work.stopwatch.detected, |family| &family.adverts);
            self.advert_sent(work, sent, shared);
        }
    }

    /// Carries out all up to the next [`Action::Advertise`], and returns the rest if there is one.
    fn proceed(&mut self, mut work: Work, shared: &Shared) -> Option<Work> {
        if work.transition.is_some() {
            // What was not announced yet is not reported yet either, and came before.
            self.report_move(shared);
        }
        while let Some(action) = work.actions.next() {
            match action {
                Action::Advertise => return Some(work),
                Action::AdvertiseLeaving => {
                    work.leaving = self.send_in_all(work.stopwatch.detected, |family| &family.leaving);
                }
                Action::AdvertiseYielding => {
                    drop(self.send_in_all(work.stopwatch.detected, |family| &family.adverts));
                }
                Action::HoldLease(until) => match std::mem::replace(&mut work.leaving, Ok(())) {
                    Ok(()) => self.words.store(self.slot, until),
                    Err(error) => {
                        self.words.cap(self.slot, until);
                        self.refused(error, None, shared);
                    }
                },
                Action::Release => {
                    self.words.store(self.slot, MonotonicTime::ZERO);
                    work.stopwatch.flip();
                }
                Action::ForwardToFormer => self.forward_to_former(),
                Action::ForwardNothing => {
                    self.words.hand_over(self.slot, MacAddr::default(), MonotonicTime::ZERO);
                }
                Action::Announce => {
                    let urgency = if work.transition.is_some() { Urgency::Takeover } else { Urgency::Repeat };
                    match &mut self.announcing {
                        Some(announcing) => announcing.begin_again(urgency),
                        None => self.announcing = Some(Announcing::begin(urgency)),
                    }
                    work.announces = true;
                }
                Action::Stage => shared.report(Report::Stage(self.id)),
                Action::Unstage => shared.report(Report::Unstage(self.id, Unstage::Now)),
                Action::UnstageAfterGrace => shared.report(Report::Unstage(self.id, Unstage::AfterGrace)),
            }
        }
        let moved = Moved { transition: work.transition?, stopwatch: work.stopwatch };
        match &mut self.announcing {
            Some(announcing) if work.announces => announcing.moved = Some(moved),
            _ => self.report(moved, shared),
        }
        None
    }

    /// What became of the advertisement for which [`Self::proceed`] stopped. Only if it was accepted in all families the
    /// lease runs on: losing in one family loses both.
    pub(super) fn advert_sent(&mut self, mut work: Work, sent: Sent, shared: &Shared) {
        if let Err(error) = sent {
            return self.refused(error, work.transition, shared);
        }
        let decided = work.stopwatch.detected;
        // From the decision, not from the send: a thread that was stopped in between must not resume as an owner.
        self.words.store(self.slot, decided + self.lease());
        work.stopwatch.flip();
        self.adverts.sent += 1;
        self.refusal = None;
        self.machine.handle(Event::AdvertSent(decided), decided);
        self.carry_out(work, shared);
    }

    fn report_move(&mut self, shared: &Shared) {
        if let Some(moved) = self.announcing.as_mut().and_then(|announcing| announcing.moved.take()) {
            self.report(moved, shared);
        }
    }

    fn report(&self, moved: Moved, shared: &Shared) {
        let Moved { transition, stopwatch } = moved;
        let (phases, at) = (stopwatch.phases(), stopwatch.decided);
        shared.report(Report::Moved { id: self.id, transition, phases, at });
    }

    /// Until when an advertisement that was decided on may be sent.
    pub(super) fn latest(&self, work: &Work) -> MonotonicTime {
        work.stopwatch.detected + self.lease()
    }

    /// The family that goes first or second with the next advertisement. One that was refused goes first the next time:
    /// otherwise peers would hear in the other one, again and again, that we own, and we never would.
    pub(super) fn family_to_send(&self, round: usize) -> Option<&Family> {
        let index = if self.refused_family == 0 { round } else { 1_usize.checked_sub(round)? };
        self.binding.as_ref()?.families.get(index)
    }

    /// What one accepted advertisement is good for.
    fn lease(&self) -> Duration {
        self.machine.parameters().interval.duration() * LEASE_INTERVALS
    }

    /// Sends until one family is refused.
    fn send_in_all(&self, decided: MonotonicTime, adverts: impl Fn(&Family) -> &PreparedAdverts) -> Sent {
        if !self.is_bound() {
            return Err(None);
        }
        for family in (0..2).filter_map(|round| self.family_to_send(round)) {
            // A thread that was stopped since the decision, perhaps between two families: an heir that hears it now would
            // yield to nobody.
            if MonotonicTime::now() >= decided + self.lease() {
                return Err(None);
            }
            family.sender.send(adverts(family)).map_err(Some)?;
        }
        Ok(())
    }

    /// The advertisement was refused: what was to follow it is off, and so is a takeover that it was to begin.
    fn refused(&mut self, error: Option<SendError>, transition: Option<Transition>, shared: &Shared) {
        self.adverts.refused += 1;
        let now = MonotonicTime::now();
        self.refusal.clone_from(&error);
        self.note_refused_family(error.as_ref());
        if let Some(error) = error
            && now.since(self.refusal_reported) >= REPORT_GAP
        {
            self.refusal_reported = now;
            shared.report(Report::Refused(self.id, error));
        }
        let mut output = self.machine.handle(Event::AdvertFailed, now);
        if let (Some(promotion), Some(fall)) = (transition, &mut output.transition) {
            // Nobody saw us Active.
            fall.from = promotion.from;
            if fall.from == fall.to {
                output.transition = None;
            }
        }
        self.carry_out(Work::new(output, Stopwatch::start(now, now, now)), shared);
    }

    fn note_refused_family(&mut self, error: Option<&SendError>) {
        let Some((error, binding)) = error.zip(self.binding.as_ref()) else { return };
        let refused = |family: &Family| family.family() == IpFamily::of(error.destination);
        self.refused_family = binding.families.iter().position(refused).unwrap_or(0);
    }

    /// Whether it has something to announce and must be given a turn for it, by [`Self::announce_some`].
    pub(super) fn take_turn(&mut self) -> Option<Urgency> {
        self.announcing.as_mut()?.take_turn()
    }

    /// Announces what fits one system call.
    pub(super) fn announce_some(&mut self, shared: &Shared) {
        let Some(announcing) = &mut self.announcing else { return };
        let mut done = true;
        // Asked before each system call: a process that was stopped in between must not announce what it lost.
        if let Some(binding) = &self.binding
            && MonotonicTime::now() < self.words.load(self.slot)
        {
            let (frames, last) = announcing.next(&binding.announcements, &binding.questions);
            // A full queue costs an announcement; repeats and refreshes make up for it.
            let _ = binding.announcer.send(frames);
            if let Some(moved) = &mut announcing.moved {
                moved.stopwatch.announce();
            }
            done = last;
        }
        self.report_move(shared);
        if done {
            self.announcing = None;
        }
    }

    fn forward_to_former(&mut self) {
        let now = MonotonicTime::now();
        match self.owner {
            // A virtual MAC is by now our own, or nobody's.
            Some(owner) if owner.mac.is_unicast() && !owner.mac.is_virtual() && !self.grace.is_zero() => {
                self.words.hand_over(self.slot, owner.mac, now + self.grace);
            }
            _ => self.words.hand_over(self.slot, MacAddr::default(), MonotonicTime::ZERO),
        }
    }
}

impl Family {
    fn family(&self) -> IpFamily {
        IpFamily::of(self.rules.own)
    }
}

impl Work {
    fn new(output: Output, stopwatch: Stopwatch) -> Self {
        let Output { actions, transition } = output;
        Self { actions: actions.into_iter(), transition, stopwatch, leaving: Ok(()), announces: false }
    }
}
