//! Actions carried out where sends are refused and the thread stands still.

use std::cmp::Ordering;
use std::time::Duration;

use super::*;
use crate::types::{Centiseconds, Priority};
use crate::vrrp::machine::{Cause, Parameters, PeerAdvert, State};

/// What was done, and the word that came of it.
struct Bench {
    machine: Machine,
    now: MonotonicTime,
    word: MonotonicTime,
    refusing: bool,
    /// The one family of two that refuses.
    refusing_family: Option<usize>,
    refused_family: usize,
    /// How long each send takes.
    sending: Duration,
    done: Vec<&'static str>,
    moves: Vec<Transition>,
}

const START: MonotonicTime = MonotonicTime(1_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    /// A Backup that is to take over by its timer; clock and records begin there.
    fn due() -> Self {
        let parameters = Parameters {
            priority: Priority::new(100).unwrap(),
            interval: Centiseconds::SECOND.into(),
            phase: None,
            preempt: true,
            preempt_delay: Duration::ZERO,
            hold_down: Duration::ZERO,
            staging: false,
            announce_repeat: 0,
            announce_interval: SECOND,
            announce_refresh: None,
        };
        let mut machine = Machine::new(parameters);
        machine.handle(Event::Startup, START);
        let now = machine.next_timer();
        let (done, moves) = (Vec::new(), Vec::new());
        Self {
            machine,
            now,
            word: MonotonicTime::ZERO,
            refusing: false,
            refusing_family: None,
            refused_family: 0,
            sending: Duration::ZERO,
            done,
            moves,
        }
    }

    fn active() -> Self {
        let mut bench = Self::due();
        bench.event(Event::Timer);
        bench.done.clear();
        bench.moves.clear();
        bench
    }

    fn event(&mut self, event: Event) {
        let at = self.now;
        let output = self.machine.handle(event, at);
        carry_out(self, output, at);
    }

    fn word_lasts(&self) -> Duration {
        self.word.since(self.now)
    }
}

impl Effects for Bench {
    type Refusal = ();

    fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn now(&self) -> MonotonicTime {
        self.now
    }

    fn families(&self) -> Result<usize, ()> {
        Ok(if self.refusing_family.is_some() { 2 } else { 1 })
    }

    fn refused_family(&mut self) -> &mut usize {
        &mut self.refused_family
    }

    fn too_late() {}

    fn send(&mut self, message: Message, family: usize) -> Result<(), ()> {
        self.now = self.now + self.sending;
        if self.refusing || self.refusing_family == Some(family) {
            return Err(());
        }
        self.done.push(match message {
            Message::Advert => "advert",
            Message::Yielding => "yielding",
            Message::Leaving => "leaving",
            Message::Question => "question",
        });
        Ok(())
    }

    fn renew(&mut self, until: MonotonicTime) {
        self.done.push("renew");
        self.word = until;
    }

    fn hold(&mut self, until: MonotonicTime) {
        self.done.push("hold");
        self.word = until;
    }

    fn cap(&mut self, until: MonotonicTime) {
        self.done.push("cap");
        self.word = self.word.min(until);
    }

    fn release(&mut self) {
        self.done.push("release");
        self.word = MonotonicTime::ZERO;
    }

    fn refused(&mut self, (): ()) {
        self.done.push("refused");
    }

    fn forward_to_former(&mut self) {
        self.done.push("forward");
    }

    fn forward_nothing(&mut self) {
        self.done.push("forward nothing");
    }

    fn announce(&mut self, at_takeover: bool) {
        self.done.push(if at_takeover { "announce" } else { "announce again" });
    }

    fn stage(&mut self) {
        self.done.push("stage");
    }

    fn unstage(&mut self) {
        self.done.push("unstage");
    }

    fn unstage_after_grace(&mut self) {
        self.done.push("unstage after grace");
    }

    fn moved(&mut self, transition: Transition) {
        self.moves.push(transition);
    }
}

#[test]
fn a_takeover_advertises_before_it_answers_and_answers_before_it_announces() {
    let mut bench = Bench::due();
    bench.event(Event::Timer);
    assert_eq!(bench.done, ["forward nothing", "advert", "renew", "announce"]);
    assert_eq!(bench.word_lasts(), SECOND * 3);
    assert_eq!(bench.moves.len(), 1);
}

#[test]
fn a_lease_counts_from_the_decision_however_long_the_send_takes() {
    let mut bench = Bench::due();
    bench.sending = SECOND * 2;
    bench.event(Event::Timer);
    assert_eq!(bench.word_lasts(), SECOND);
    assert!(bench.machine.owns(bench.now));
    bench.sending = SECOND * 4;
    bench.event(Event::Timer);
    assert_eq!(bench.word_lasts(), Duration::ZERO);
    assert!(!bench.machine.owns(bench.now));
}

#[test]
fn a_refused_takeover_answers_nothing_announces_nothing_and_was_none() {
    let mut bench = Bench::due();
    bench.refusing = true;
    bench.event(Event::Timer);
    assert_eq!(bench.done, ["forward nothing", "refused", "release", "forward nothing", "unstage"]);
    assert_eq!((bench.word, bench.machine.state()), (MonotonicTime::ZERO, State::Backup));
    assert!(bench.moves.is_empty());
}

#[test]
fn a_refused_advert_leaves_the_lease_as_it_was_and_drops_what_follows() {
    let mut bench = Bench::active();
    bench.refusing = true;
    let word = bench.word;
    bench.now = bench.now + SECOND;
    bench.event(Event::Advert(PeerAdvert {
        priority: 50,
        interval: Centiseconds::SECOND.into(),
        address: Ordering::Less,
        sender: [192, 0, 2, 1].into(),
    }));
    assert_eq!((&bench.done[..], bench.word), (&["refused"][..], word));
    assert_eq!(bench.machine.state(), State::Active);
}

#[test]
fn an_advert_that_is_refused_when_the_lease_is_over_ends_it() {
    let mut bench = Bench::active();
    bench.now = bench.now + SECOND;
    bench.refusing = true;
    bench.sending = SECOND * 2;
    bench.event(Event::Timer);
    assert_eq!(bench.word, MonotonicTime::ZERO);
    let fall = Transition { from: State::Active, to: State::Backup, cause: Cause::LeaseExpired };
    assert_eq!(bench.moves, [fall]);
}

#[test]
fn a_leaving_owner_holds_its_word_if_its_peers_were_told_and_never_longer_than_its_lease_otherwise() {
    let mut told = Bench::active();
    told.now = told.now + SECOND * 2;
    told.event(Event::Drain);
    assert_eq!(told.done, ["leaving", "hold"]);
    assert_eq!(told.word_lasts(), SECOND + Duration::from_millis(100));

    let mut untold = Bench::active();
    untold.now = untold.now + SECOND * 5 / 2;
    untold.refusing = true;
    untold.event(Event::Drain);
    assert_eq!(untold.done, ["cap", "refused"]);
    assert_eq!(untold.word_lasts(), SECOND / 2);
    assert_eq!(untold.moves.len(), 1);
}

#[test]
fn nothing_is_sent_once_the_lease_of_the_decision_is_over() {
    let mut bench = Bench::active();
    let at = bench.now + SECOND;
    let output = bench.machine.handle(Event::Timer, at);
    assert_eq!(output.actions[..], [Action::Advertise]);
    bench.now = at + SECOND * 3;
    carry_out(&mut bench, output, at);
    assert_eq!(bench.done, ["refused", "release", "forward nothing", "unstage"]);
    assert_eq!(bench.machine.state(), State::Backup);
}

#[test]
fn the_family_that_was_refused_goes_first_the_next_time_and_nothing_is_said_in_the_other() {
    let mut bench = Bench::active();
    bench.refusing_family = Some(1);
    bench.now = bench.now + SECOND;
    bench.event(Event::Timer);
    assert_eq!((&bench.done[..], bench.refused_family), (&["advert", "refused"][..], 1));
    bench.done.clear();
    bench.now = bench.now + SECOND;
    bench.event(Event::Timer);
    assert_eq!(bench.done, ["refused"]);
    bench.refusing_family = Some(2);
    bench.done.clear();
    bench.now = bench.now + SECOND / 2;
    bench.event(Event::Advert(PeerAdvert {
        priority: 50,
        interval: Centiseconds::SECOND.into(),
        address: Ordering::Less,
        sender: [192, 0, 2, 1].into(),
    }));
    assert_eq!(bench.done[..3], ["advert", "advert", "renew"]);
}

#[test]
fn a_turn_reads_the_queues_before_it_acts_on_timers() {
    #[derive(Default)]
    struct Order(Vec<&'static str>);
    impl Turn for Order {
        fn take_commands(&mut self) {
            self.0.push("commands");
        }
        fn drain_sockets(&mut self) {
            self.0.push("sockets");
        }
        fn act_on_timers(&mut self) {
            self.0.push("timers");
        }
    }
    let mut order = Order::default();
    turn(&mut order);
    assert_eq!(order.0, ["commands", "sockets", "timers"]);
}
