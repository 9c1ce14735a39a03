//! An agent's turn: production's rules ([`conduct`]) over simulated sockets and words, and where mutations break them.

use std::fmt::Arguments;
use std::net::IpAddr;
use std::time::Duration;

use vip_agent::types::{AdvertInterval, Centiseconds, MonotonicTime, Priority};
use vip_agent::vrrp::conduct::{self, Effects as _, FRAMES_PER_WAKE, Message};
use vip_agent::vrrp::machine::{Action, Cause, Event, Machine, Output, PeerAdvert, State, Transition};

use crate::mutation::Mutation;
use crate::network::{Network, What};
use crate::node::{Command, Frame, Node, Renewal};
use crate::time::Instant;

/// Intervals that a thread may be stopped for in the middle of something, at most.
const LONGEST_STALL: u32 = 4;

/// One node's turn. It is a moment, unless the thread is stopped within it: then what is left of it happens later.
struct Turning<'a> {
    network: &'a mut Network,
    node: usize,
    /// The present of this thread.
    cursor: Instant,
    /// When the machine was asked last, in the node's time.
    asked_at: MonotonicTime,
    /// Whether all of the message really left.
    accepted: bool,
    /// Whether any of it did.
    said: bool,
}

impl Network {
    /// Lets an agent do what there is to do, if it can.
    pub(crate) fn turn(&mut self, node: usize) {
        let router = &self.nodes[node];
        if !router.acts(self.now) {
            if router.busy_until > self.now {
                self.wake(node, router.busy_until);
            }
            return;
        }
        let out_of_order = self.mutated(Mutation::TimerBeforeQueue);
        let (cursor, asked_at) = (self.now, MonotonicTime::ZERO);
        let mut turning = Turning { network: self, node, cursor, asked_at, accepted: true, said: false };
        if out_of_order {
            conduct::Turn::take_commands(&mut turning);
            conduct::Turn::act_on_timers(&mut turning);
            conduct::Turn::drain_sockets(&mut turning);
        } else {
            conduct::turn(&mut turning);
        }
        self.nodes[node].busy_until = turning.cursor;
        let busy = self.nodes[node].busy_until > self.now;
        if !busy {
            self.check_books(node);
            if self.nodes[node].ending && self.state(node) == State::Initialize {
                self.end(node, true);
                return;
            }
        }
        self.schedule(node);
    }

    fn schedule(&mut self, node: usize) {
        let router = &self.nodes[node];
        let waiting = !router.inbox.is_empty() || !router.commands.is_empty();
        let at = if waiting || router.busy_until > self.now {
            router.busy_until.max(self.now)
        } else {
            let due = router.clock.shows(router.machine.next_timer(), self.now);
            if due >= router.wakes_at {
                return;
            }
            due + self.noise.span(self.lateness)
        };
        self.wake(node, at);
    }
}

impl conduct::Turn for Turning<'_> {
    fn take_commands(&mut self) {
        while !self.is_stopped()
            && let Some(command) = self.router_mut().commands.pop_front()
        {
            match command {
                Command::Tell(event) => self.handle(event, format_args!("{event:?}")),
                Command::Reconfigure(parameters) => {
                    self.router_mut().parameters = parameters;
                    self.network.count_move(self.node);
                    let (state, now) = self.ask();
                    let output = self.machine().reconfigure(parameters, now);
                    self.perform(state, output, format_args!("reload"));
                }
                Command::AnnounceAgain => {
                    let (state, now) = self.ask();
                    let output = self.machine().announce_again(now);
                    self.perform(state, output, format_args!("announce again"));
                }
            }
        }
    }

    fn drain_sockets(&mut self) {
        for _ in 0..FRAMES_PER_WAKE {
            if self.is_stopped() {
                return;
            }
            let Some(frame) = self.router_mut().inbox.pop_front() else { return };
            self.receive(&frame);
        }
    }

    fn act_on_timers(&mut self) {
        if !self.is_stopped() && self.router().machine.next_timer() <= self.now() {
            self.handle(Event::Timer, format_args!("timer"));
        }
    }
}

impl Turning<'_> {
    fn router(&self) -> &Node {
        &self.network.nodes[self.node]
    }

    fn router_mut(&mut self) -> &mut Node {
        &mut self.network.nodes[self.node]
    }

    /// Whether the thread was stopped within this turn: it goes on with the next.
    fn is_stopped(&self) -> bool {
        self.cursor > self.network.now
    }

    fn receive(&mut self, frame: &Frame) {
        let own = self.node as u8;
        let address = conduct::tie_break(frame.family == 0, &frame.from, &own);
        let sender = IpAddr::from([10, 0, frame.family, frame.from]);
        let advert = PeerAdvert { priority: frame.priority, interval: frame.interval, address, sender };
        if let Some(advert) = self.distort(advert) {
            let (from, family) = (frame.from, frame.family);
            self.handle(
                Event::Advert(advert),
                format_args!("n{from} says {} in family {family}", frame.priority),
            );
        }
    }

    /// What a mutation makes of an advert before the machine sees it.
    fn distort(&mut self, mut advert: PeerAdvert) -> Option<PeerAdvert> {
        let Some(mutation) = self.network.variation.mutation else { return Some(advert) };
        let (state, parameters) = (self.router().machine.state(), self.router().parameters);
        let lower = advert.priority > 0 && advert.priority < parameters.priority.get();
        match mutation {
            Mutation::RearmOnLower if state == State::Backup && parameters.preempt && lower => {
                advert.priority = parameters.priority.get();
            }
            Mutation::ReversedTie if self.node == 0 => advert.address = advert.address.reverse(),
            Mutation::HeedQuestions if advert.priority == Priority::LOWEST.get() => advert.priority += 1,
            Mutation::DeafToLeaving if advert.priority == 0 => return None,
            Mutation::Impatient => {
                if let AdvertInterval::V3(interval) = advert.interval
                    && let Ok(shorter) = Centiseconds::new(interval.get() * 2 / 3)
                {
                    advert.interval = shorter.into();
                }
            }
            Mutation::UnboundedReplies if state == State::Active && lower => {
                let _ = self.send(Message::Yielding, self.first_family());
            }
            _ => {}
        }
        Some(advert)
    }

    /// State and time before the machine is asked.
    fn ask(&mut self) -> (State, MonotonicTime) {
        self.asked_at = self.now();
        (self.router().machine.state(), self.asked_at)
    }

    fn handle(&mut self, event: Event, cause: Arguments<'_>) {
        let (state, now) = self.ask();
        let output = self.machine().handle(event, now);
        self.perform(state, output, cause);
    }

    fn perform(&mut self, before: State, output: Output, cause: Arguments<'_>) {
        let promoted = output.transition.filter(|transition| transition.to == State::Active);
        if self.network.variation.traced {
            self.write_down(&output, cause);
        }
        if let Some(promotion) = promoted {
            self.network.check_takeover(self.node, promotion.cause);
        }
        conduct::carry_out(self, output, self.asked_at);
        let after = self.router().machine.state();
        if after == State::Backup && (before != State::Backup || promoted.is_some()) {
            let now = self.network.now;
            self.router_mut().listens_since = now;
            if before != State::Active {
                self.network.watch.disturb(now);
            }
        }
    }

    fn write_down(&mut self, output: &Output, cause: Arguments<'_>) {
        let mut line = cause.to_string();
        if let Some(Transition { from, to, cause }) = output.transition {
            line += &format!(": {from:?} -> {to:?}, {cause:?}");
        }
        if !output.actions.is_empty() {
            let own = self.router().clock.read(self.network.now);
            let words = output.actions.iter().map(|action| match action {
                Action::HoldLease(until) => format!("HoldLease({:?})", until.since(own)),
                action => format!("{action:?}"),
            });
            line += &format!(" => {}", words.collect::<Vec<_>>().join(", "));
        }
        self.network.note(self.node, &line);
    }

    /// Each message begins with it.
    fn first_family(&self) -> usize {
        usize::from(self.router().refused == 1 && self.network.families == 2)
    }

    /// The thread may be stopped here.
    fn stall(&mut self) {
        let (permille, interval) =
            (self.network.stalls_permille, self.router().parameters.interval.duration());
        if self.network.noise.permille(permille) {
            let span = self.network.noise.span(interval * LONGEST_STALL);
            self.cursor = self.cursor + span;
            self.network.watch.disturb(self.cursor);
            if self.network.variation.traced {
                self.network.note(self.node, &format!("its thread stands still for {span:?}"));
            }
        }
    }

    /// The word becomes this when the thread gets there.
    fn store(&mut self, until: MonotonicTime, held: bool, renewal: Option<Renewal>) {
        self.router_mut().promised = until;
        if self.is_stopped() {
            let (node, life) = (self.node, self.router().life);
            self.network.agenda.plan(self.cursor, What::Store { node, life, word: until, held, renewal });
        } else {
            self.network.store(self.node, until, held, renewal);
        }
    }
}

impl conduct::Effects for Turning<'_> {
    type Refusal = ();

    fn machine(&mut self) -> &mut Machine {
        &mut self.router_mut().machine
    }

    fn begins(&mut self, output: &Output, _at: MonotonicTime) {
        if let Some(transition) = output.transition {
            self.router_mut().gives_back = transition.cause == Cause::HandBack;
        }
    }

    fn now(&self) -> MonotonicTime {
        self.router().clock.read(self.cursor)
    }

    fn families(&self) -> Result<usize, ()> {
        Ok(self.network.families)
    }

    fn refused_family(&mut self) -> &mut usize {
        &mut self.router_mut().refused
    }

    fn too_late() {}

    fn send(&mut self, message: Message, family: usize) -> Result<(), ()> {
        if message == Message::Yielding && self.network.mutated(Mutation::SilentYield) {
            return Ok(());
        }
        self.stall();
        if family == self.first_family() {
            (self.accepted, self.said) = (true, false);
        }
        if message == Message::Question {
            self.router_mut().asked = self.network.now;
        }
        let (node, cursor, decided) = (self.node, self.cursor, self.network.now);
        let router = self.router();
        let (muted, own) = (router.muted[family], *router.machine.parameters());
        let unnoticed = match message {
            Message::Advert => self.network.mutated(Mutation::RenewThoughRefused),
            Message::Leaving => self.network.mutated(Mutation::HoldThoughRefused),
            Message::Yielding | Message::Question => false,
        };
        self.accepted &= !muted;
        if muted && !unnoticed {
            if self.said {
                // One family says that this router owns, and it does not.
                self.network.watch.disturb(cursor);
            }
            return Err(());
        }
        if !muted {
            if !self.said {
                self.network.count_message(node);
            }
            self.said = true;
            let priority = match message {
                Message::Leaving => 0,
                Message::Question => Priority::LOWEST.get(),
                Message::Advert | Message::Yielding => own.priority.get(),
            };
            let (from, family, interval) = (node as u8, family as u8, own.interval);
            let frame = Frame { from, to: from, family, priority, interval, decided };
            self.network.broadcast(frame, cursor);
        }
        Ok(())
    }

    fn renew(&mut self, until: MonotonicTime) {
        self.stall();
        let interval = self.router().parameters.interval.duration();
        let until = match self.network.variation.mutation {
            Some(Mutation::LongerLease) => until + interval,
            Some(Mutation::LeaseFromSend) => self.now() + until.since(self.asked_at),
            _ => until,
        };
        self.network.check_lease(self.node, self.asked_at, until, self.accepted);
        let decided = self.network.now;
        let renewal = Renewal { decided, interval, paused: Duration::ZERO };
        // Only what has left can have been lost.
        self.store(until, false, self.accepted.then_some(renewal));
    }

    fn hold(&mut self, until: MonotonicTime) {
        if self.router().gives_back && self.network.mutated(Mutation::GiveBackAtOnce) {
            return self.release();
        }
        self.stall();
        self.network.check_hold(self.node, self.asked_at, until, self.accepted);
        self.store(until, self.accepted, None);
    }

    fn cap(&mut self, until: MonotonicTime) {
        if until < self.router().promised {
            self.store(until, false, None);
        }
    }

    fn release(&mut self) {
        if !self.network.mutated(Mutation::KeepAnswering) {
            self.store(MonotonicTime::ZERO, false, None);
        }
    }

    fn refused(&mut self, (): ()) {
        if self.network.variation.traced {
            self.network.note(self.node, "refused");
        }
    }

    fn forward_to_former(&mut self) {}

    fn forward_nothing(&mut self) {}

    fn announce(&mut self, _at_takeover: bool) {
        let owned = self.now() < self.router().promised;
        if owned || self.network.mutated(Mutation::AnnounceBlindly) {
            self.network.check_announcement(self.node, owned);
            self.router_mut().announced = self.cursor;
        }
    }

    fn stage(&mut self) {
        let (node, life, cursor) = (self.node, self.router().life, self.cursor);
        if let Some(delay) = self.router().setup.staging {
            self.network.agenda.plan(cursor + delay, What::Staged { node, life });
        }
    }

    fn unstage(&mut self) {}

    fn unstage_after_grace(&mut self) {}

    fn moved(&mut self, _transition: Transition) {
        self.network.count_move(self.node);
    }
}
