//! A fuzz target: any order of events and times, with the checks of the property tests.
//!
//! As a test it takes a few seconds of random steps; `cargo xtask fuzz machine` looks for long, led by coverage.

use std::time::Duration;

use bolero::{TypeGenerator, check, generator::*};

use super::super::{AdvertPhase, Parameters};
use super::properties::{Check, Step};
use super::*;
use crate::types::VirtualRouterId;

/// How long random inputs are tried.
fn time() -> Duration {
    Duration::from_secs(if std::env::var_os("VIPLANE_FULL").is_some() { 60 } else { 2 })
}

#[test]
fn no_order_of_events_and_times_breaks_the_machine() {
    let steps = produce::<Vec<Move>>().with().len(0..200_usize);
    check!(name = "machine")
        .with_test_time(time())
        .with_iterations(usize::MAX)
        .with_generator((produce::<Settings>(), steps))
        .for_each(|(settings, moves)| {
            let mut check = Check::new(settings.parameters());
            for step in moves {
                check.step(step.step());
            }
        });
}

/// A step, made of plain numbers.
#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Move {
    Advert {
        priority: Rank,
        interval: Interval,
        address: u8,
        sender: bool,
    },
    /// Of a router that speaks as we do.
    Good {
        priority: Rank,
        sender: bool,
    },
    Startup,
    Shutdown,
    Staged,
    Fault,
    Recovered,
    Unwell,
    Well,
    Drain,
    Undrain,
    GroupLost,
    GroupHandedOver,
    Timer,
    Due,
    Wait(Span),
    WaitForTimer {
        late_micros: u16,
    },
    Reconfigure(Settings),
    AnnounceAgain,
    Mute(bool),
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Span {
    Nanos(u32),
    Micros(u16),
    Millis(u16),
    Seconds(u16),
    Forever,
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Interval {
    Shortest,
    Second,
    Centiseconds(u16),
    Seconds(u8),
}

/// A priority, mostly one of a few.
#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Rank {
    Leaving,
    Low,
    Middle,
    High,
    Owner,
    Any(u8),
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
struct Settings {
    priority: Rank,
    interval: Interval,
    /// Of the virtual router of this id.
    phase: Option<u8>,
    preempt: bool,
    preempt_delay: Option<Span>,
    hold_down: Option<Span>,
    staging: bool,
    announce_repeat: u8,
    announce_interval: Span,
    announce_refresh: Option<Span>,
}

// === impl Move ===

impl Move {
    fn step(self) -> Step {
        let event = match self {
            Self::Advert { priority, interval, address, sender } => {
                let address = [Ordering::Less, Ordering::Equal, Ordering::Greater][usize::from(address) % 3];
                advert(priority, interval, address, sender)
            }
            Self::Good { priority, sender } => advert(priority, Interval::Shortest, Ordering::Less, sender),
            Self::Startup => Event::Startup,
            Self::Shutdown => Event::Shutdown,
            Self::Staged => Event::Staged,
            Self::Fault => Event::Fault,
            Self::Recovered => Event::Recovered,
            Self::Unwell => Event::Unwell,
            Self::Well => Event::Well,
            Self::Drain => Event::Drain,
            Self::Undrain => Event::Undrain,
            Self::GroupLost => Event::GroupLost,
            Self::GroupHandedOver => Event::GroupHandedOver,
            Self::Timer => Event::Timer,
            Self::Due => return Step::Timer,
            // The clock does not reach its end in a thousand steps.
            Self::Wait(span) => return Step::Wait(span.duration().min(Duration::from_secs(1 << 20))),
            Self::WaitForTimer { late_micros } => {
                return Step::WaitForTimer(Duration::from_micros(late_micros.into()));
            }
            Self::Reconfigure(settings) => return Step::Reconfigure(settings.parameters()),
            Self::AnnounceAgain => return Step::AnnounceAgain,
            Self::Mute(muted) => return Step::Mute(muted),
        };
        Step::Event(event)
    }
}

/// Of one of two senders.
fn advert(priority: Rank, interval: Interval, address: Ordering, sender: bool) -> Event {
    let sender = [10, 0, 0, 2 + u8::from(sender)].into();
    Event::Advert(PeerAdvert { priority: priority.number(), interval: interval.interval(), address, sender })
}

impl Span {
    fn duration(self) -> Duration {
        match self {
            Self::Nanos(nanos) => Duration::from_nanos(nanos.into()),
            Self::Micros(micros) => Duration::from_micros(micros.into()),
            Self::Millis(millis) => Duration::from_millis(millis.into()),
            Self::Seconds(seconds) => Duration::from_secs(seconds.into()),
            Self::Forever => Duration::MAX,
        }
    }
}

impl Interval {
    fn interval(self) -> AdvertInterval {
        let centiseconds = |value: u16| AdvertInterval::V3(Centiseconds::new(value).unwrap());
        match self {
            Self::Shortest => centiseconds(1),
            Self::Second => centiseconds(100),
            Self::Centiseconds(value) => centiseconds(1 + value % 4095),
            Self::Seconds(value) => AdvertInterval::V2(Seconds::new(value.max(1)).unwrap()),
        }
    }
}

impl Rank {
    fn number(self) -> u8 {
        match self {
            Self::Leaving => 0,
            Self::Low => 50,
            Self::Middle => 100,
            Self::High => 200,
            Self::Owner => 255,
            Self::Any(priority) => priority,
        }
    }
}

impl Settings {
    fn parameters(self) -> Parameters {
        let span = |span: Option<Span>| span.map_or(Duration::ZERO, Span::duration);
        Parameters {
            priority: Priority::new(self.priority.number().max(1)).unwrap(),
            interval: self.interval.interval(),
            phase: self.phase.map(|id| AdvertPhase::of(VirtualRouterId::new(id.max(1)).unwrap())),
            preempt: self.preempt,
            preempt_delay: span(self.preempt_delay),
            hold_down: span(self.hold_down),
            staging: self.staging,
            announce_repeat: self.announce_repeat.into(),
            announce_interval: self.announce_interval.duration(),
            announce_refresh: self.announce_refresh.map(Span::duration),
        }
    }
}
