//! The hands of a router: sockets, ownership word and reports, by which [`conduct`] carries out actions.

use std::time::Duration;

use super::super::announcing::{Announcing, Moved, Urgency};
use super::super::stopwatch::Stopwatch;
use super::super::{Report, Shared, Unstage};
use super::{Family, REPORT_GAP, Router};
use crate::types::{Family as IpFamily, MacAddr, MonotonicTime, Priority};
use crate::vrrp::codec::LEAVING;
use crate::vrrp::conduct::{self, Message};
use crate::vrrp::machine::{Action, Event, Machine, Output, State, Transition};
use crate::vrrp::prepared::PreparedAdverts;
use crate::vrrp::socket::SendError;

/// How long frames to a virtual MAC may be on their way while it moves: the tail of a queue, or of the system calls of a new
/// owner's first adverts.
const TRANSIT: Duration = Duration::from_millis(10);

/// Why an advertisement did not leave; `None` = there are no sockets at present, or the time for it is over.
pub(in super::super) type Refusal = Option<SendError>;

/// What an event leads to, as far as it is not carried out yet: it waits for our advertisement.
pub(in super::super) struct Work {
    work: conduct::Work<Refusal>,
    stopwatch: Stopwatch,
    announces: bool,
}

/// A router while it carries out what one event led to.
struct Acting<'a> {
    router: &'a mut Router,
    stopwatch: Stopwatch,
    /// Whether the announcements under way are of this event.
    announces: bool,
    shared: &'a Shared,
}

impl Router {
    /// The timer has come. Returns what is left to be done once our advertisement was sent, if one is to be: for
    /// [`Self::advert_sent`].
    pub(in super::super) fn on_timer(&mut self, shared: &Shared) -> Option<Work> {
        let since = self.cause_of(Event::Timer);
        let (output, stopwatch) = self.decide(Event::Timer, since);
        let at = stopwatch.detected;
        let mut acting = Acting { router: self, stopwatch, announces: false, shared };
        let work = conduct::begin(&mut acting, output, at)?;
        Some(Work { work, stopwatch: acting.stopwatch, announces: acting.announces })
    }

    /// What became of the advertisement for which [`Self::on_timer`] stopped.
    pub(in super::super) fn advert_sent(&mut self, work: Work, sent: Result<(), Refusal>, shared: &Shared) {
        self.note_refused_family(sent.as_ref().err());
        let Work { work, stopwatch, announces } = work;
        conduct::sent(&mut Acting { router: self, stopwatch, announces, shared }, work, sent);
    }

    /// Signs the advertisement that is about to be sent; false if there are no sockets for it.
    pub(in super::super) fn sign(&mut self) -> bool {
        let Some(binding) = &mut self.binding else { return false };
        binding.families.iter_mut().for_each(|family| family.adverts.sign());
        true
    }

    /// Until when the advertisement that `work` waits for may be sent.
    pub(in super::super) fn latest(&self, work: &Work) -> MonotonicTime {
        conduct::latest(&self.machine, work.work.decided())
    }

    /// The family that goes first or second with the next advertisement.
    pub(in super::super) fn family_to_send(&self, round: usize) -> Option<&Family> {
        let index = *conduct::order(self.refused_family).get(round)?;
        self.binding.as_ref()?.families.get(index)
    }

    pub(super) fn handle(&mut self, event: Event, since: MonotonicTime, shared: &Shared) {
        let (output, stopwatch) = self.decide(event, since);
        self.carry_out(output, stopwatch, shared);
    }

    pub(super) fn carry_out(&mut self, output: Output, stopwatch: Stopwatch, shared: &Shared) {
        let at = stopwatch.detected;
        conduct::carry_out(&mut Acting { router: self, stopwatch, announces: false, shared }, output, at);
    }

    fn decide(&mut self, event: Event, since: MonotonicTime) -> (Output, Stopwatch) {
        let now = MonotonicTime::now();
        let output = self.machine.handle(event, now);
        if self.machine.parameters().priority != self.said {
            self.say_our_priority();
        }
        (output, Stopwatch::start(since, now, MonotonicTime::now()))
    }

    fn note_refused_family(&mut self, refusal: Option<&Refusal>) {
        let Some((Some(error), binding)) = refusal.zip(self.binding.as_ref()) else { return };
        let refused = |family: &Family| family.family() == IpFamily::of(error.destination);
        self.refused_family = binding.families.iter().position(refused).unwrap_or(0);
    }

    /// Whether it has something to announce and must be given a turn for it, by [`Self::announce_some`].
    pub(in super::super) fn take_turn(&mut self) -> Option<Urgency> {
        self.announcing.as_mut()?.take_turn()
    }

    /// Announces what fits one system call.
    pub(in super::super) fn announce_some(&mut self, shared: &Shared) {
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

    fn report_move(&mut self, shared: &Shared) {
        if let Some(moved) = self.announcing.as_mut().and_then(|announcing| announcing.moved.take()) {
            self.report(&moved, shared);
        }
    }

    fn report(&self, moved: &Moved, shared: &Shared) {
        let (transition, phases, at) = (moved.transition, moved.stopwatch.phases(), moved.stopwatch.decided);
        shared.report(Report::Moved { id: self.id, transition, phases, at });
    }

    fn forward_to_former(&mut self) {
        let now = MonotonicTime::now();
        let former = self.owner.and_then(|owner| self.former.mac_of(owner, self.tells_its_mac(owner)));
        match former {
            Some(mac) if !self.grace.is_zero() => self.words.hand_over(self.slot, mac, now + self.grace),
            _ => self.words.hand_over(self.slot, MacAddr::default(), MonotonicTime::ZERO),
        }
    }
}

impl conduct::Effects for Acting<'_> {
    type Refusal = Refusal;

    fn begins(&mut self, output: &Output, at: MonotonicTime) {
        let Some(transition) = output.transition else { return };
        // What was not announced yet is not reported yet either, and came before.
        self.router.report_move(self.shared);
        let leaves = output.actions.contains(&Action::UnstageAfterGrace);
        if transition.to == State::Active || leaves {
            self.router.words.expect(self.router.slot, at + TRANSIT);
        }
    }

    fn machine(&mut self) -> &mut Machine {
        &mut self.router.machine
    }

    fn now(&self) -> MonotonicTime {
        MonotonicTime::now()
    }

    fn families(&self) -> Result<usize, Refusal> {
        Ok(self.router.binding.as_ref().ok_or(None)?.families.len())
    }

    fn refused_family(&mut self) -> &mut usize {
        &mut self.router.refused_family
    }

    fn send(&mut self, message: Message, family: usize) -> Result<(), Refusal> {
        let own = self.router.machine.parameters().priority.get();
        let binding = self.router.binding.as_mut().ok_or(None)?;
        let family = binding.families.get_mut(family).ok_or(None)?;
        let send = |adverts: &mut PreparedAdverts| {
            adverts.sign();
            family.sender.send(adverts)
        };
        let sent = match message {
            Message::Advert => send(&mut family.adverts),
            Message::Yielding => send(family.yielding.as_mut().unwrap_or(&mut family.adverts)),
            Message::Leaving => {
                let sent = send(&mut family.leaving);
                self.stopwatch.announce();
                sent
            }
            Message::Question => {
                // From the interface's own MAC: the virtual one is where the owner is that we ask for.
                let (question, otherwise) = match &mut family.yielding {
                    Some(yielding) => (yielding, own),
                    None => (&mut family.leaving, LEAVING),
                };
                question.set_priority(Priority::LOWEST.get());
                let sent = send(question);
                question.set_priority(otherwise);
                sent
            }
        };
        sent.map_err(Some)
    }

    fn too_late() -> Refusal {
        None
    }

    fn renew(&mut self, until: MonotonicTime) {
        self.router.words.store(self.router.slot, until);
        self.stopwatch.flip();
        self.router.adverts.sent += 1;
        self.router.refusal = None;
    }

    fn hold(&mut self, until: MonotonicTime) {
        self.router.words.store(self.router.slot, until);
    }

    fn cap(&mut self, until: MonotonicTime) {
        self.router.words.cap(self.router.slot, until);
    }

    fn release(&mut self) {
        self.router.words.store(self.router.slot, MonotonicTime::ZERO);
        self.stopwatch.flip();
    }

    fn refused(&mut self, refusal: Refusal) {
        let router = &mut *self.router;
        router.adverts.refused += 1;
        router.words.expect(router.slot, MonotonicTime::ZERO);
        router.refusal.clone_from(&refusal);
        let now = MonotonicTime::now();
        if let Some(error) = refusal
            && now.since(router.refusal_reported) >= REPORT_GAP
        {
            router.refusal_reported = now;
            self.shared.report(Report::Refused(router.id, error));
        }
    }

    fn decided_anew(&mut self, at: MonotonicTime) {
        self.stopwatch = Stopwatch::start(at, at, at);
        self.announces = false;
    }

    fn forward_to_former(&mut self) {
        self.router.forward_to_former();
    }

    fn forward_nothing(&mut self) {
        self.router.words.hand_over(self.router.slot, MacAddr::default(), MonotonicTime::ZERO);
    }

    /// Later, in turns: adverts come first.
    fn announce(&mut self, at_takeover: bool) {
        let urgency = if at_takeover { Urgency::Takeover } else { Urgency::Repeat };
        match &mut self.router.announcing {
            Some(announcing) => announcing.begin_again(urgency),
            None => self.router.announcing = Some(Announcing::begin(urgency)),
        }
        self.announces = true;
    }

    fn stage(&mut self) {
        self.shared.report(Report::Stage(self.router.id));
    }

    fn unstage(&mut self) {
        self.shared.report(Report::Unstage(self.router.id, Unstage::Now));
    }

    fn unstage_after_grace(&mut self) {
        self.shared.report(Report::Unstage(self.router.id, Unstage::AfterGrace));
    }

    /// Told once the first announcements are out, if there are any.
    fn moved(&mut self, transition: Transition) {
        let moved = Moved { transition, stopwatch: self.stopwatch };
        match &mut self.router.announcing {
            Some(announcing) if self.announces => announcing.moved = Some(moved),
            _ => self.router.report(&moved, self.shared),
        }
    }
}
