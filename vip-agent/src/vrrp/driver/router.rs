//! One virtual router in the driver: its machine, sockets, prebuilt frames and ownership word.

mod acting;
mod detecting;
mod pausing;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

pub(super) use self::acting::{Refusal, Work};
pub use self::pausing::Inheritance;
use self::pausing::Pause;
use super::announcing::{Announcing, Urgency};
use super::complaints::Complaints;
use super::former::{Former, Owner};
use super::snapshot::{AdvertCounts, Mismatch, PEERS, Snapshot, SnapshotPeer};
use super::stopwatch::Stopwatch;
use super::{InstanceId, Membership, Report, SeenOwner, Shared};
use crate::dataplane::announce::{Announcements, Frame};
use crate::dataplane::{OwnershipWords, RouterSlot};
use crate::types::{AdvertInterval, Family as IpFamily, MacAddr, MonotonicTime, Priority, VirtualRouterId};
use crate::vrrp::conduct;
use crate::vrrp::detect;
use crate::vrrp::discard::Discard;
use crate::vrrp::machine::{Event, LEASE_INTERVALS, Machine, OwnerLife, Parameters, PeerAdvert, State};
use crate::vrrp::prepared::PreparedAdverts;
use crate::vrrp::receive::{Packet, Received, Rules};
use crate::vrrp::socket::{AdvertSender, AnnounceSender, SendError};
use crate::vrrp::trailer::{Freshness, Marks};

/// All that one instance needs to send and receive on its present interfaces, prepared beforehand.
#[derive(Debug)]
pub struct Binding {
    /// Interface of the advertisements.
    pub ifindex: u32,
    /// Whether the VIPs are on that interface, too: then the source of an advertisement is its sender's MAC there.
    pub one_link: bool,
    /// How fast detection takes part there, if it does.
    pub detect: Option<detect::Settings>,
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

impl Binding {
    /// Signs the advertisements with priority 0 as the last that is ever said: for somebody who says it when we cannot.
    pub fn sign_farewells(&mut self) {
        self.families.iter_mut().for_each(|family| family.leaving.sign_farewell());
    }
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
    /// Our advertisement from the interface's own MAC, if the others come from a virtual one: who yields must not draw the
    /// virtual MAC back to its port.
    pub yielding: Option<PreparedAdverts>,
    /// What is accepted of others; its `own` address breaks ties.
    pub rules: Rules,
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
    /// What the machine was told of it by fast detection.
    life: OwnerLife,
    former: Former,
    faulty: bool,
    /// When what the runtime told last happened, until the machine has heard of it.
    told_of: Option<MonotonicTime>,
    /// The priority that our advertisements have.
    said: Priority,
    runtime_silent: bool,
    adverts: AdvertCounts,
    complaints: Complaints,
    /// What was heard last of each sender that signs.
    marks: Marks,
    refusal_reported: MonotonicTime,
    /// Why the last advertisement did not leave.
    refusal: Option<SendError>,
    /// Index of the family whose advertisement was refused last.
    refused_family: usize,
    /// The sync group, until it is told to leave for good.
    membership: Option<Membership>,
    /// Whether our address breaks ties: in a sync group only one member's does.
    breaks_ties: bool,
    /// The owner that was reported last, for the memory of what it announced.
    seen: Option<SeenOwner>,
    seen_reported: MonotonicTime,
    announcing: Option<Announcing>,
    /// It is silent, and another process may go on in its place.
    pause: Option<Pause>,
    /// The best advertisement that came while it took no part, and when.
    overheard: Option<(PeerAdvert, MonotonicTime)>,
}

/// Refusals of one instance's advertisements are reported once in this time.
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
            life: OwnerLife::Alive,
            former: Former::default(),
            faulty: false,
            told_of: None,
            said: parameters.priority,
            runtime_silent: false,
            adverts: AdvertCounts::default(),
            complaints: Complaints::default(),
            marks: Marks::default(),
            refusal_reported: MonotonicTime::ZERO,
            refusal: None,
            refused_family: 0,
            announcing: None,
            membership: None,
            breaks_ties: true,
            seen: None,
            seen_reported: MonotonicTime::ZERO,
            pause: None,
            overheard: None,
        }
    }

    /// Knows what was heard before the agent, or the instance, was started again.
    #[must_use]
    pub fn having_heard(self, marks: Marks) -> Self {
        Self { marks, ..self }
    }

    /// Makes it a member of a sync group.
    #[must_use]
    pub fn in_group(self, membership: Option<Membership>) -> Self {
        Self { membership, ..self }
    }

    /// Tells it what interval another owner announced before a restart.
    #[must_use]
    pub fn remembering(self, interval: Option<AdvertInterval>) -> Self {
        Self { machine: self.machine.remembering(interval), ..self }
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn membership(&self) -> Option<Membership> {
        self.membership
    }

    pub(super) fn leave_group(&mut self) {
        self.membership = None;
        self.breaks_ties = true;
    }

    pub(super) fn let_break_ties(&mut self, breaks_ties: bool) {
        self.breaks_ties = breaks_ties;
    }

    /// Whether it cannot serve, whatever the others of its group can.
    pub(super) fn is_faulty(&self) -> bool {
        self.faulty || self.runtime_silent
    }

    pub(super) fn was_refused(&self) -> bool {
        self.refusal.is_some()
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
        if self.is_paused() { MonotonicTime::NEVER } else { self.machine.next_timer() }
    }

    /// When it takes over unless something is heard before.
    pub(super) fn takes_over_at(&self) -> MonotonicTime {
        let takes_over_at = self.machine.takes_over_at().filter(|_| !self.is_paused());
        takes_over_at.unwrap_or(MonotonicTime::NEVER)
    }

    /// Goes the way of a takeover without a trace on the wire. After some milliseconds of other work the kernel's part
    /// of that way is in no cache any more: a first advertisement takes several times as long as one after it.
    pub(super) fn rehearse(&self) {
        let Some(binding) = &self.binding else { return };
        for family in &binding.families {
            // What is refused now will be refused when it matters, and then it will be told.
            let _ = family.sender.rehearse(&family.adverts);
        }
        // What cannot be sent now shows when it matters.
        let _ = binding.announcer.send(&binding.rehearsal);
    }

    pub(super) fn bind(&mut self, binding: Option<Box<Binding>>) -> Option<Box<Binding>> {
        let former = std::mem::replace(&mut self.binding, binding);
        self.say_our_priority();
        if let Some(announcing) = &mut self.announcing {
            announcing.begin_again(Urgency::Takeover);
        }
        former
    }

    /// The advertisements were built by the configuration; what holds is the machine's priority, weights included.
    fn say_our_priority(&mut self) {
        self.said = self.machine.parameters().priority;
        let priority = self.said.get();
        for family in self.binding.iter_mut().flat_map(|binding| &mut binding.families) {
            family.adverts.set_priority(priority);
            if let Some(yielding) = &mut family.yielding {
                yielding.set_priority(priority);
            }
        }
    }

    /// An advertisement of this virtual router's id has arrived. Yields what the machine was told, if it was.
    pub(super) fn receive(
        &mut self,
        packet: &Packet<'_>,
        received_at: MonotonicTime,
        shared: &Shared,
    ) -> Option<PeerAdvert> {
        let binding = self.binding.as_ref()?;
        let index = binding.families.iter().position(|family| family.family() == packet.family())?;
        let family = &binding.families[index];
        let received = match packet.accept(&family.rules) {
            Ok(received) => received,
            Err(why) => {
                self.discarded(packet, why, shared);
                return None;
            }
        };
        if let Some(signed) = received.signed {
            match self.marks.admit(received.source, signed, received_at) {
                Freshness::Fresh => {}
                Freshness::Doubled => {
                    self.adverts.discarded.add(Discard::Replayed);
                    return None;
                }
                Freshness::Replayed => {
                    self.discarded(packet, Discard::Replayed, shared);
                    return None;
                }
            }
        }
        // One family of one member breaks ties, or two routers could each lose in one.
        let ties = index == 0 && self.breaks_ties;
        let advert = PeerAdvert {
            priority: received.advert.priority,
            interval: received.advert.interval,
            address: conduct::tie_break(ties, &received.source, &family.rules.own),
            sender: received.source,
        };
        if let Some(remark) = received.remark {
            self.adverts.remarked.add(remark);
            self.complain(packet, remark, shared);
        }
        self.adverts.received += 1;
        self.note_peer(index, &received, received_at, shared);
        if self.is_paused() || self.machine.state() == State::Initialize {
            self.overhear(advert, received_at);
        }
        if self.is_paused() {
            return None;
        }
        self.handle(Event::Advert(advert), received_at, shared);
        self.note_owner(index, advert, shared);
        Some(advert)
    }

    /// Reports who owns, and how often it says so, when that is another than before.
    fn note_owner(&mut self, family: usize, advert: PeerAdvert, shared: &Shared) {
        let PeerAdvert { priority, interval, sender: address, .. } = advert;
        // In its other family an owner has another address.
        let same = self
            .seen
            .is_some_and(|seen| seen.interval == interval && (family > 0 || seen.address == address));
        if same || priority == 0 || self.machine.state() != State::Backup {
            return;
        }
        let now = MonotonicTime::now();
        if now.since(self.seen_reported) >= REPORT_GAP {
            self.seen_reported = now;
            let seen = SeenOwner { address, interval };
            self.seen = Some(seen);
            shared.report(Report::Owner(self.id, seen));
        }
    }

    pub(super) fn discarded(&mut self, packet: &Packet<'_>, why: Discard, shared: &Shared) {
        self.adverts.discarded.add(why);
        self.complain(packet, why, shared);
    }

    fn complain(&mut self, packet: &Packet<'_>, why: Discard, shared: &Shared) {
        let (source, source_mac) = (packet.addresses.source(), packet.source_mac);
        if self.complaints.is_due(why, source, source_mac, MonotonicTime::now()) {
            shared.report(Report::Mismatch(self.id, Mismatch { source, source_mac, why }));
        }
    }

    fn note_peer(&mut self, family: usize, received: &Received<'_>, heard: MonotonicTime, shared: &Shared) {
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
            Some(owner) if family > 0 && self.is_station_of(owner, received, heard) => owner.address,
            _ => received.source,
        };
        let owner = Owner { address, mac: received.source_mac, heard };
        self.owner = Some(owner);
        if !self.tells_its_mac(owner) && self.former.must_ask(owner) {
            shared.report(Report::WhereIs(self.id, address));
        }
    }

    /// Whether an advertisement of another family than the owner's last is the owner's, too. Its virtual MACs differ, so they
    /// say so only while it is heard in both.
    fn is_station_of(&self, owner: Owner, received: &Received<'_>, heard: MonotonicTime) -> bool {
        let lately = heard.before(received.advert.interval.duration() * LEASE_INTERVALS);
        let is_heard = || self.peers.iter().any(|peer| peer.address == owner.address && peer.heard >= lately);
        let virtual_macs = owner.mac.is_virtual() && received.source_mac.is_virtual();
        owner.mac == received.source_mac || virtual_macs && is_heard()
    }

    /// Whether an owner's advertisements come from its own MAC, by which it is reached on the VIPs' link.
    fn tells_its_mac(&self, owner: Owner) -> bool {
        !owner.mac.is_virtual() && self.binding.as_ref().is_some_and(|binding| binding.one_link)
    }

    /// The runtime has looked for the MAC of a router.
    pub(super) fn learn(&mut self, address: IpAddr, mac: Option<MacAddr>) {
        self.former.learn(address, mac);
    }

    /// An event whose cause is now, or what the runtime has just told of.
    pub(super) fn tell(&mut self, event: Event, shared: &Shared) {
        if self.is_paused() {
            return;
        }
        let since = self.told_of.take().unwrap_or_else(|| self.cause_of(event));
        self.handle(event, since, shared);
    }

    fn cause_of(&self, event: Event) -> MonotonicTime {
        match (event, self.owner) {
            (Event::Timer, Some(_)) => self.owner_seen(),
            _ => MonotonicTime::now(),
        }
    }

    /// What comes next is not what the runtime has told of.
    pub(super) fn heard_of_all(&mut self) {
        self.told_of = None;
    }

    /// Notes what the runtime says of the instance; whether its machine, if in no group, is to be told.
    pub(super) fn note_condition(&mut self, event: Event, since: Option<MonotonicTime>) -> bool {
        self.told_of = since;
        match event {
            Event::Fault => self.faulty = true,
            Event::Recovered => self.faulty = false,
            _ => {}
        }
        event != Event::Recovered || !self.runtime_silent
    }

    /// The machine of a member is told with its whole group.
    pub(super) fn runtime_is_silent(&mut self, silent: bool, shared: &Shared) {
        if std::mem::replace(&mut self.runtime_silent, silent) == silent || self.membership.is_some() {
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
        self.carry_out(output, Stopwatch::start(now, now, now), shared);
    }

    pub(super) fn reconfigure(&mut self, parameters: Parameters, grace: Duration, shared: &Shared) {
        self.grace = grace;
        let now = MonotonicTime::now();
        let output = self.machine.reconfigure(parameters, now);
        self.say_our_priority();
        self.carry_out(output, Stopwatch::start(now, now, now), shared);
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
            priority: self.said,
            last_resort: self.machine.is_last_resort(),
            covered: None,
            marks: self.marks.clone(),
            carried: self.carry(),
        }
    }
}

impl Family {
    fn family(&self) -> IpFamily {
        IpFamily::of(self.rules.own)
    }
}
