//! One machine on a virtual clock, its actions carried out as the driver does. Times are milliseconds since the start.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::super::{
    Action, Carried, Cause, Event, LEASE_INTERVALS, Machine, Output, Parameters, PeerAdvert, State,
    Transition, longer,
};
use crate::types::{AdvertInterval, Centiseconds, MonotonicTime, Priority, Seconds};

/// What went out by the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Advert,
    Leaving,
    Yielding,
    Question,
}

/// How the local addresses behave.
#[derive(Clone, Copy, Debug)]
enum Addresses {
    InPlaceAfter(Duration),
    Never,
}

pub(super) struct Rig {
    parameters: Parameters,
    machine: Machine,
    /// Where the test's clock begins.
    origin: MonotonicTime,
    now: MonotonicTime,
    /// The ownership word, as the BPF map would hold it.
    word: MonotonicTime,
    muted: bool,
    addresses: Addresses,
    staged_at: Option<MonotonicTime>,
    /// What another process goes on with.
    carried: Option<Carried>,
    pub(super) wire: Vec<(f64, Sent)>,
    pub(super) announcements: Vec<f64>,
    pub(super) transitions: Vec<(f64, Transition)>,
    /// Everything carried out, in order.
    pub(super) actions: Vec<(f64, Action)>,
}

/// Who advertises unless a test says otherwise.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

pub(super) fn duration(ms: f64) -> Duration {
    Duration::from_nanos((ms * 1e6).round() as u64)
}

/// Building.
impl Rig {
    /// Priority 100, 1 s, preempting at once, nothing to stage, one announcement.
    pub(super) fn new() -> Self {
        let parameters = Parameters {
            priority: Priority::new(100).unwrap(),
            interval: Centiseconds::new(100).unwrap().into(),
            phase: None,
            preempt: true,
            preempt_delay: Duration::ZERO,
            hold_down: Duration::ZERO,
            staging: false,
            announce_repeat: 0,
            announce_interval: Duration::from_millis(1100),
            announce_refresh: None,
        };
        let origin = MonotonicTime(1_000_000_000_000);
        Self {
            parameters,
            machine: Machine::new(parameters),
            origin,
            now: origin,
            word: MonotonicTime::ZERO,
            muted: false,
            addresses: Addresses::InPlaceAfter(Duration::ZERO),
            staged_at: None,
            carried: None,
            wire: Vec::new(),
            announcements: Vec::new(),
            transitions: Vec::new(),
            actions: Vec::new(),
        }
    }

    pub(super) fn parameters(&self) -> Parameters {
        self.parameters
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Parameters)) -> Self {
        change(&mut self.parameters);
        self.machine = Machine::new(self.parameters);
        self
    }

    pub(super) fn priority(self, priority: u8) -> Self {
        self.with(|p| p.priority = Priority::new(priority).unwrap())
    }

    pub(super) fn interval_cs(self, interval: u16) -> Self {
        self.with(|p| p.interval = Centiseconds::new(interval).unwrap().into())
    }

    pub(super) fn version_2(self, seconds: u8) -> Self {
        self.with(|p| p.interval = Seconds::new(seconds).unwrap().into())
    }

    pub(super) fn no_preempt(self) -> Self {
        self.with(|p| p.preempt = false)
    }

    pub(super) fn preempt_delay(self, ms: f64) -> Self {
        self.with(|p| p.preempt_delay = duration(ms))
    }

    pub(super) fn hold_down(self, ms: f64) -> Self {
        self.with(|p| p.hold_down = duration(ms))
    }

    pub(super) fn staging_takes(mut self, ms: f64) -> Self {
        self.addresses = Addresses::InPlaceAfter(duration(ms));
        self.with(|p| p.staging = true)
    }

    pub(super) fn staging_hangs(mut self) -> Self {
        self.addresses = Addresses::Never;
        self.with(|p| p.staging = true)
    }

    pub(super) fn announce(self, repeat: u16, interval_ms: f64, refresh_ms: Option<f64>) -> Self {
        self.with(|p| {
            p.announce_repeat = repeat;
            p.announce_interval = duration(interval_ms);
            p.announce_refresh = refresh_ms.map(duration);
        })
    }

    /// What it knows of another owner from before a restart.
    pub(super) fn remembering(mut self, interval_cs: u16) -> Self {
        self.machine = self.machine.remembering(Some(Centiseconds::new(interval_cs).unwrap().into()));
        self
    }

    pub(super) fn muted(mut self) -> Self {
        self.muted = true;
        self
    }

    pub(super) fn started(mut self) -> Self {
        self.event(Event::Startup);
        self
    }

    /// Started, alone, and just become Active; the clock and the records begin here.
    pub(super) fn active(mut self) -> Self {
        self.event(Event::Startup);
        while self.state() != State::Active {
            let next = self.next_event().expect("a lone router becomes Active");
            self.run_to(next);
        }
        self.forget()
    }

    /// Started under an owner (priority 200, same interval) that was heard just now; clock and records begin here.
    pub(super) fn backup(self) -> Self {
        self.backup_of(200)
    }

    /// The same under an owner of this priority.
    pub(super) fn backup_of(mut self, priority: u8) -> Self {
        self.event(Event::Startup);
        self.advert(priority);
        self.forget()
    }

    fn forget(mut self) -> Self {
        self.origin = self.now;
        self.wire.clear();
        self.announcements.clear();
        self.transitions.clear();
        self.actions.clear();
        self
    }
}

/// Making things happen.
impl Rig {
    /// Lets time go by, timers firing as they fall due.
    pub(super) fn at(&mut self, ms: f64) -> &mut Self {
        self.run_to(self.origin + duration(ms));
        self
    }

    /// Lets time go by as for a stopped process: nothing is handled.
    pub(super) fn stopped_until(&mut self, ms: f64) -> &mut Self {
        self.now = self.origin + duration(ms);
        self
    }

    /// From now on sends are refused, or not any more.
    pub(super) fn mute(&mut self, muted: bool) -> &mut Self {
        self.muted = muted;
        self
    }

    /// An advertisement with our own interval, from a lower address.
    pub(super) fn advert(&mut self, priority: u8) -> &mut Self {
        self.advert_from(priority, Ordering::Less)
    }

    pub(super) fn advert_from(&mut self, priority: u8, address: Ordering) -> &mut Self {
        let interval = self.machine.parameters().interval;
        self.event(Event::Advert(PeerAdvert { priority, interval, address, sender: PEER }))
    }

    /// An advertisement by router 10.0.0.NUMBER.
    pub(super) fn advert_by(&mut self, number: u8, priority: u8) -> &mut Self {
        let interval = self.machine.parameters().interval;
        let sender = Ipv4Addr::new(10, 0, 0, number).into();
        self.event(Event::Advert(PeerAdvert { priority, interval, address: Ordering::Less, sender }))
    }

    pub(super) fn advert_announcing(&mut self, priority: u8, interval_cs: u16) -> &mut Self {
        self.advert_of(priority, Centiseconds::new(interval_cs).unwrap().into())
    }

    /// An advertisement of the version and with the interval given, from a lower address.
    pub(super) fn advert_of(&mut self, priority: u8, interval: AdvertInterval) -> &mut Self {
        self.event(Event::Advert(PeerAdvert { priority, interval, address: Ordering::Less, sender: PEER }))
    }

    /// The timer, if it is due: what the driver does once its queues are empty.
    pub(super) fn timer(&mut self) -> &mut Self {
        if self.machine.next_timer() <= self.now {
            self.event(Event::Timer);
            assert!(self.machine.next_timer() > self.now, "the timer spins in {:?}", self.machine);
        }
        self
    }

    pub(super) fn event(&mut self, event: Event) -> &mut Self {
        let output = self.machine.handle(event, self.now);
        self.carry_out(&output);
        self
    }

    pub(super) fn reconfigure(&mut self, change: impl FnOnce(&mut Parameters)) -> &mut Self {
        change(&mut self.parameters);
        let output = self.machine.reconfigure(self.parameters, self.now);
        self.carry_out(&output);
        self
    }

    pub(super) fn announce_again(&mut self) -> &mut Self {
        let output = self.machine.announce_again(self.now);
        self.carry_out(&output);
        self
    }

    /// Announces the longer interval; the clock must not run on but to [`Self::succeeded`].
    pub(super) fn pause(&mut self) -> &mut Self {
        let own = self.parameters.interval;
        self.parameters.interval = longer(own);
        let output = self.machine.announce_interval(self.parameters.interval, self.now);
        self.carry_out(&output);
        self.parameters.interval = own;
        self.carried = self.machine.carry(self.now);
        self
    }

    /// After so many milliseconds another process goes on, which was told these, and overheard a router of this priority.
    pub(super) fn succeeded(&mut self, after_ms: f64, told: &[Event], overheard: Option<u8>) -> &mut Self {
        self.now = self.now + duration(after_ms);
        let text = serde_json::to_string(&self.carried.take()).unwrap();
        let carried: Option<Carried> = serde_json::from_str(&text).unwrap();
        self.machine = Machine::new(self.parameters);
        for event in told {
            self.machine.handle(*event, self.now);
        }
        let interval = self.parameters.interval;
        let overheard = overheard.map(|priority| PeerAdvert {
            priority,
            interval,
            address: Ordering::Less,
            sender: PEER,
        });
        let output = self.machine.resume(carried.unwrap(), overheard, self.now);
        self.carry_out(&output);
        self
    }

    /// Whether another process could go on.
    pub(super) fn can_be_succeeded(&self) -> bool {
        self.machine.carry(self.now).is_some()
    }

    fn next_event(&self) -> Option<MonotonicTime> {
        let next = self.machine.next_timer().min(self.staged_at.unwrap_or(MonotonicTime::NEVER));
        (next != MonotonicTime::NEVER).then_some(next)
    }

    fn run_to(&mut self, end: MonotonicTime) {
        assert!(end >= self.now, "the clock does not run backwards");
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            if self.staged_at.take_if(|at| *at <= self.now).is_some() {
                self.event(Event::Staged);
            }
            self.timer();
        }
        self.now = end;
    }

    fn carry_out(&mut self, output: &Output) {
        let at = self.clock();
        self.transitions.extend(output.transition.map(|transition| (at, transition)));
        let mut report = None;
        for action in &output.actions {
            self.actions.push((at, *action));
            match *action {
                Action::Advertise if self.muted => {
                    report = Some(Event::AdvertFailed);
                    break;
                }
                Action::Advertise => {
                    self.wire.push((at, Sent::Advert));
                    self.word = self.now + self.parameters.interval.duration() * LEASE_INTERVALS;
                    self.machine.handle(Event::AdvertSent(self.now), self.now);
                }
                Action::AdvertiseLeaving if !self.muted => self.wire.push((at, Sent::Leaving)),
                Action::AdvertiseYielding if !self.muted => self.wire.push((at, Sent::Yielding)),
                Action::Ask if !self.muted => self.wire.push((at, Sent::Question)),
                Action::HoldLease(until) if self.muted => {
                    self.word = self.word.min(until);
                    report = Some(Event::AdvertFailed);
                }
                Action::HoldLease(until) => self.word = until,
                Action::Release => self.word = MonotonicTime::ZERO,
                Action::Announce => {
                    assert!(self.word > self.now, "announced without owning");
                    self.announcements.push(at);
                }
                Action::Stage => {
                    self.staged_at = match self.addresses {
                        Addresses::InPlaceAfter(delay) => Some(self.now + delay),
                        Addresses::Never => None,
                    };
                }
                Action::Unstage | Action::UnstageAfterGrace => self.staged_at = None,
                Action::AdvertiseLeaving
                | Action::AdvertiseYielding
                | Action::Ask
                | Action::ForwardToFormer
                | Action::ForwardNothing => {}
            }
        }
        if let Some(event) = report {
            let output = self.machine.handle(event, self.now);
            self.carry_out(&output);
        }
        assert_eq!(
            self.machine.owns(self.now),
            self.word > self.now,
            "machine and ownership word disagree at {at} ms: {:?}",
            self.machine
        );
    }
}

/// Looking.
impl Rig {
    fn clock(&self) -> f64 {
        self.now.since(self.origin).as_nanos() as f64 / 1e6
    }

    /// Where the test's clock begins.
    pub(super) fn origin(&self) -> MonotonicTime {
        self.origin
    }

    pub(super) fn state(&self) -> State {
        self.machine.state()
    }

    /// The priority that it advertises.
    pub(super) fn priority_now(&self) -> u8 {
        self.machine.parameters().priority.get()
    }

    pub(super) fn owns(&self) -> bool {
        self.machine.owns(self.now)
    }

    /// When the ownership word ends; `None` if it is clear.
    pub(super) fn answers_until(&self) -> Option<f64> {
        (self.word != MonotonicTime::ZERO).then(|| self.word.since(self.origin).as_nanos() as f64 / 1e6)
    }

    /// When the timer is due; `None` if it is not armed.
    pub(super) fn timer_at(&self) -> Option<f64> {
        let next = self.machine.next_timer();
        (next != MonotonicTime::NEVER).then(|| next.since(self.origin).as_nanos() as f64 / 1e6)
    }

    /// States entered, with cause and time.
    pub(super) fn history(&self) -> Vec<(f64, State, Cause)> {
        self.transitions.iter().map(|(at, transition)| (*at, transition.to, transition.cause)).collect()
    }

    /// Times of the advertisements sent, the regular kind.
    pub(super) fn adverts(&self) -> Vec<f64> {
        self.wire.iter().filter(|(_, sent)| *sent == Sent::Advert).map(|(at, _)| *at).collect()
    }

    pub(super) fn times_of(&self, action: Action) -> Vec<f64> {
        self.actions.iter().filter(|(_, done)| *done == action).map(|(at, _)| *at).collect()
    }

    /// Actions carried out at this time, in order.
    pub(super) fn actions_at(&self, ms: f64) -> Vec<Action> {
        self.actions.iter().filter(|(at, _)| *at == ms).map(|(_, action)| *action).collect()
    }
}
