//! Whatever happens in whatever order.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::{AdvertPhase, DRAIN_MARGIN, LEASE_INTERVALS, Machine, Output, Parameters, Transition};
use super::*;
use crate::types::{MonotonicTime, VirtualRouterId};

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Event(Event),
    /// The driver's timer, when it is due.
    Timer,
    Wait(Duration),
    /// Up to the next timer, and this much later.
    WaitForTimer(Duration),
    Reconfigure(Parameters),
    AnnounceAgain,
    Mute(bool),
}

fn interval() -> impl Strategy<Value = AdvertInterval> {
    let version_3 = prop_oneof![3 => Just(1), 1 => Just(100), 1 => Just(4095), 1 => 1..=4095_u16]
        .prop_map(|centiseconds| AdvertInterval::V3(Centiseconds::new(centiseconds).unwrap()));
    let version_2 = prop_oneof![2 => Just(1), 1 => Just(255), 1 => 1..=255_u8]
        .prop_map(|seconds| AdvertInterval::V2(Seconds::new(seconds).unwrap()));
    prop_oneof![3 => version_3, 2 => version_2]
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        (0..50_000_000_u64).prop_map(Duration::from_nanos),
        (0..5000_u64).prop_map(Duration::from_millis),
        Just(Duration::MAX),
    ]
}

prop_compose! {
    fn parameters()(
        priority in prop_oneof![1..=255_u8, Just(1), Just(254), Just(255)],
        interval in interval(),
        phase in phase(),
        preempt: bool,
        preempt_delay in span(),
        hold_down in prop_oneof![3 => Just(Duration::ZERO), 1 => span()],
        staging: bool,
        announce_repeat in prop_oneof![0..4_u16, Just(u16::MAX)],
        announce_interval in span(),
        announce_refresh in proptest::option::of(span()),
    ) -> Parameters {
        Parameters {
            priority: Priority::new(priority).unwrap(),
            interval, phase, preempt, preempt_delay, hold_down, staging, announce_repeat, announce_interval, announce_refresh,
        }
    }
}

fn phase() -> impl Strategy<Value = Option<AdvertPhase>> {
    proptest::option::of((1..=255_u8).prop_map(|id| AdvertPhase::of(VirtualRouterId::new(id).unwrap())))
}

/// What comes from outside; the results of sends are reported as they are asked for.
fn event() -> impl Strategy<Value = Event> {
    let ordering = prop_oneof![Just(Ordering::Less), Just(Ordering::Equal), Just(Ordering::Greater)];
    let sender = select(&[[10, 0, 0, 2], [10, 0, 0, 3]][..]).prop_map(IpAddr::from);
    let advert =
        (any::<u8>(), interval(), ordering, sender).prop_map(|(priority, interval, address, sender)| {
            Event::Advert(PeerAdvert { priority, interval, address, sender })
        });
    prop_oneof![
        6 => advert,
        2 => Just(Event::Startup),
        2 => Just(Event::Staged),
        1 => Just(Event::Shutdown),
        1 => Just(Event::Fault),
        2 => Just(Event::Recovered),
        1 => Just(Event::Unwell),
        1 => Just(Event::Well),
        1 => Just(Event::Drain),
        2 => Just(Event::Undrain),
        1 => Just(Event::Timer),
        1 => owner_life().prop_map(Event::Owner),
        1 => Just(Event::GroupLost),
        1 => Just(Event::GroupHandedOver),
    ]
}

fn owner_life() -> impl Strategy<Value = OwnerLife> {
    let dead = (0..u64::MAX / 2, 0..10_000_u64, 0..30_000_u64);
    let dead = dead.prop_map(|(since, longest_skew, others_first)| OwnerLife::Dead {
        since: MonotonicTime(since),
        longest_skew: Duration::from_millis(longest_skew),
        others_first: Duration::from_millis(others_first),
    });
    prop_oneof![Just(OwnerLife::Alive), Just(OwnerLife::Suspected), dead]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => event().prop_map(Step::Event),
        4 => Just(Step::Timer),
        3 => (0..60_000_000_u64).prop_map(|nanos| Step::Wait(Duration::from_nanos(nanos))),
        1 => (0..200_000_u64).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        8 => (0..1_000_000_u64).prop_map(|nanos| Step::WaitForTimer(Duration::from_nanos(nanos))),
        1 => parameters().prop_map(Step::Reconfigure),
        1 => Just(Step::AnnounceAgain),
        1 => any::<bool>().prop_map(Step::Mute),
    ]
}

/// A driver that only checks.
pub(super) struct Check {
    machine: Machine,
    now: MonotonicTime,
    word: MonotonicTime,
    /// Time and lease of the last advertisement that was accepted.
    accepted: Option<(MonotonicTime, Duration)>,
    muted: bool,
    /// When an owner last held us back, and for how long at least, if nothing has changed that since.
    held: Option<(MonotonicTime, Duration)>,
}

impl Check {
    pub(super) fn new(parameters: Parameters) -> Self {
        Self {
            machine: Machine::new(parameters),
            now: MonotonicTime(1),
            word: MonotonicTime::ZERO,
            accepted: None,
            muted: false,
            held: None,
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Wait(span) => self.now = self.now + span,
            Step::WaitForTimer(late) => {
                let next = self.machine.next_timer();
                if next != MonotonicTime::NEVER {
                    self.now = self.now.max(next) + late;
                }
            }
            Step::Mute(muted) => self.muted = muted,
            Step::Event(event) => self.handle(event),
            Step::Timer if self.machine.next_timer() <= self.now => {
                self.handle(Event::Timer);
                assert!(self.machine.next_timer() > self.now, "spins: {:?}", self.machine);
            }
            Step::Timer => {}
            Step::Reconfigure(parameters) => {
                self.held = None;
                let output = self.machine.reconfigure(parameters, self.now);
                self.carry_out(&output);
            }
            Step::AnnounceAgain => {
                let output = self.machine.announce_again(self.now);
                self.carry_out(&output);
            }
        }
        self.check();
    }

    fn handle(&mut self, event: Event) {
        let before = self.machine.state();
        let output = self.machine.handle(event, self.now);
        self.check_holding(before, event, &output);
        self.carry_out(&output);
    }

    /// Nobody takes over for want of adverts before three intervals of the last that held it have passed.
    fn check_holding(&mut self, before: State, event: Event, output: &Output) {
        if let Some(Transition { to: State::Active, cause: Cause::Timeout, .. }) = output.transition
            && let Some((since, patience)) = self.held
        {
            assert!(
                self.now.since(since) >= patience,
                "not even {patience:?} of patience: {:?}",
                self.machine
            );
        }
        let ours = self.machine.parameters();
        let holds = |advert: PeerAdvert| {
            advert.priority >= ours.priority.get() && advert.interval.version() == ours.version()
        };
        self.held = match event {
            Event::Advert(advert) if holds(advert) && before == State::Backup => {
                // Version 2 knows no interval but our own.
                let interval = match advert.interval {
                    AdvertInterval::V3(_) => advert.interval,
                    AdvertInterval::V2(_) => ours.interval,
                };
                Some((self.now, interval.duration() * LEASE_INTERVALS))
            }
            // Another version is not heard at all, and the rest is no word of an owner.
            Event::Advert(advert) if advert.interval.version() == ours.version() => None,
            _ if self.machine.state() != State::Backup => None,
            _ => self.held,
        };
    }

    /// What holds for the actions of one event, whatever led to them.
    fn check_actions(&self, output: &Output) {
        let state = self.machine.state();
        if let Some(transition) = output.transition {
            assert_eq!(transition.to, state, "{output:?}");
        }
        let at = |wanted: Action| output.actions.iter().position(|action| *action == wanted);
        let owning = at(Action::Advertise).or(at(Action::Announce));
        assert!(owning.is_none() || state == State::Active, "{state:?} speaks as an owner: {output:?}");
        if let (Some(release), Some(owning)) = (at(Action::Release), owning) {
            // The address owner is Active as soon as it may be.
            let owner = self.machine.parameters().priority == Priority::OWNER;
            assert!(owner && release < owning, "gives up and owns at once: {output:?}");
        }
        if let (Some(advertise), Some(announce)) = (at(Action::Advertise), at(Action::Announce)) {
            assert!(advertise < announce, "announces before it owns: {output:?}");
        }
        for action in &output.actions {
            if let Action::HoldLease(until) = *action {
                let longest = self.machine.parameters().interval.longest_skew() + DRAIN_MARGIN;
                assert!(
                    until.since(self.now) <= longest,
                    "answers for too long after its farewell: {output:?}"
                );
            }
        }
    }

    fn carry_out(&mut self, output: &Output) {
        self.check_actions(output);
        let mut refused = false;
        for action in &output.actions {
            match *action {
                Action::Advertise if self.muted => {
                    refused = true;
                    break;
                }
                Action::Advertise => {
                    let lease = self.machine.parameters().interval.duration() * LEASE_INTERVALS;
                    self.word = self.now + lease;
                    self.accepted = Some((self.now, lease));
                    assert!(self.machine.handle(Event::AdvertSent(self.now), self.now) == Output::default());
                }
                Action::HoldLease(until) if self.muted => {
                    self.word = self.word.min(until);
                    refused = true;
                }
                Action::HoldLease(until) => self.word = until,
                Action::Release => self.word = MonotonicTime::ZERO,
                Action::Announce => assert!(self.word > self.now, "announced without owning: {output:?}"),
                _ => {}
            }
        }
        if refused {
            self.handle(Event::AdvertFailed);
        }
    }

    fn check(&self) {
        assert_eq!(
            self.machine.owns(self.now),
            self.word > self.now,
            "word {:?} at {:?}: {:?}",
            self.word,
            self.now,
            self.machine
        );
        if self.machine.state() == State::Active && self.machine.owns(self.now) {
            let (accepted, lease) = self.accepted.expect("no ownership without an accepted advertisement");
            assert!(self.now.since(accepted) < lease, "{:?}", self.machine);
        }
        if !matches!(self.machine.state(), State::Active | State::Draining) {
            assert_eq!(self.word, MonotonicTime::ZERO, "a word is left in {:?}", self.machine);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Nor does it announce or answer without a lease, or leave its timer in the past.
    #[test]
    fn no_order_of_events_breaks_the_machine(
        parameters in parameters(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut check = Check::new(parameters);
        for step in steps {
            check.step(step);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// With a driver that is never late, whatever the parameters: at most a few wake-ups per shortest gap.
    #[test]
    fn a_lone_router_is_active_and_sleeps(parameters in parameters()) {
        prop_assume!(parameters.hold_down < Duration::from_secs(3600));
        let mut check = Check::new(parameters);
        check.handle(Event::Startup);
        // A question waits for its answer.
        let span = parameters.interval.duration() * 6 + Duration::from_millis(50);
        let end = check.now + parameters.hold_down + span;
        let mut wake_ups: u128 = 0;
        while check.machine.next_timer() <= end {
            check.step(Step::WaitForTimer(Duration::ZERO));
            check.step(Step::Timer);
            wake_ups += 1;
        }
        check.now = end;
        prop_assert!(check.machine.owns(end));
        // Two adverts (or announcements) per 10 ms at the very most.
        let most = 10 + 2 * (span.as_millis() / 10);
        prop_assert!(wake_ups <= most, "{} wake-ups", wake_ups);
    }
}
