//! One round: a pair of routers, and every event once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use vip_lab::wire::Wire;
use vip_lab::{Lab, Stamp};

use crate::measure::{Wanted, Word, client_view, is_advert_of, wire_times};
use crate::record::{Cell, ClientView, Event, Move, WireTimes};
use crate::router::{Router, Starter};
use vip_lab::machine::load;

/// Priorities of `node1`, which owns whenever it can, and of `node2`.
const PRIORITIES: [u8; 2] = [200, 100];
/// Beyond what the timers ask for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that belong to a move begin until so long after it.
const AFTERMATH: Duration = Duration::from_millis(100);
/// What the server takes for an answer: so many milliseconds are so many requests in flight.
const SERVICE: Duration = Duration::from_millis(10);

/// What a round yields.
pub(crate) struct Yield {
    /// The moves that were asked for, up to the failure if there was one.
    pub(crate) moves: Vec<Move>,
    /// Takeovers that nobody asked for.
    pub(crate) unasked: usize,
    /// Why it was not finished.
    pub(crate) failure: Option<Error>,
}

/// A round under way.
struct Round<'a> {
    starter: &'a Starter<'a>,
    wire: &'a Wire,
    number: usize,
    /// Without the client's view, which comes at the end, and the time that it is to be taken over.
    watched: Vec<(Move, Stamp, Stamp)>,
    unasked: usize,
}

/// Runs it. `events` are those to keep; what they need in between happens anyway.
///
/// # Errors
/// The pair cannot be started, or what is left of it cannot be removed.
pub(crate) fn run(starter: &Starter<'_>, wire: &Wire, number: usize, events: &[Event]) -> Result<Yield> {
    let mut round = Round { starter, wire, number, watched: Vec::new(), unasked: 0 };
    let mut first = starter.start(1, PRIORITIES[0])?;
    let second = starter.start(2, PRIORITIES[1])?;
    let requests = starter.lab.requests().delay(SERVICE).start()?;
    let outcome = round.begin(&first, &second).and_then(|()| round.play(&mut first, &second, events));
    let report = requests.stop();
    let with_view = |(moved, from, to)| Move { client: client_view(&report, from, to), ..moved };
    let moves =
        round.watched.into_iter().map(with_view).filter(|moved| events.contains(&moved.event)).collect();
    // The backup first, and to its end: the owner would hand over to it, and stay for its connections.
    let failure = match outcome.and_then(|()| end([&second, &first])) {
        Ok(()) => None,
        Err(error) => {
            let logs = format!("node1:\n{}node2:\n{}", last_lines(&first), last_lines(&second));
            starter.lab.switch().set_cable(starter.lab.node(1), true)?;
            starter.lab.stop_web(1);
            starter.lab.start_web(1)?;
            for router in [first, second] {
                router.abandon(starter.lab)?;
            }
            Some(error.context(logs))
        }
    };
    Ok(Yield { moves, unasked: round.unasked, failure })
}

fn end(routers: [&Router; 2]) -> Result<()> {
    routers.iter().try_for_each(|router| {
        router.terminate()?;
        router.wait_for_end()
    })
}

fn last_lines(router: &Router) -> String {
    let log = router.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(8)..].iter().map(|line| format!("  {line}\n")).collect()
}

impl Round<'_> {
    /// Waits until both are what they are to be.
    fn begin(&self, first: &Router, second: &Router) -> Result<()> {
        let patience = self.starter.cell.interval * 5 + PATIENCE;
        first.wait_until_active(patience)?;
        second.wait_until_backup(patience)
    }

    fn play(&mut self, first: &mut Router, second: &Router, events: &[Event]) -> Result<()> {
        for &event in &causes(events) {
            if event.is_known_to(self.starter.contender) {
                self.leave(event, first, second).with_context(|| format!("{event}"))?;
                self.come_back(event, first).with_context(|| format!("preempt after {event}"))?;
            }
        }
        Ok(())
    }

    /// `node1` leaves by `event`, and `node2` takes over.
    fn leave(&mut self, event: Event, first: &Router, second: &Router) -> Result<()> {
        let [old, new] = self.nodes();
        let (active_down, skew) = timers(self.starter.cell, PRIORITIES[1]);
        let word = match self.starter.detection() {
            Some(time) if event == Event::HostDies => Word::Silence(time + of_skew(time, PRIORITIES[1])),
            _ if event.is_told() => Word::PriorityZero(skew),
            _ => Word::Advert(active_down),
        };
        self.settle(old, new)?;
        let (switch, node) = (self.starter.lab.switch(), self.starter.lab.node(1));
        let times = self.watch(event, [old, new], word, || match event {
            Event::Crash => first.crash(),
            Event::AgentDies => first.lose_one(),
            Event::HostDies => switch.set_cable(node, false),
            Event::Drain => first.drain(),
            Event::ServiceDies => {
                self.starter.lab.stop_web(1);
                Ok(())
            }
            Event::Sigterm | Event::Preempt => first.terminate(),
        });
        let (mut moved, from, to) = times?;
        if event == Event::ServiceDies {
            moved.verdict_to_word_us = first.verdict_to_word_us()?;
        }
        self.note((moved, from, to), second)
    }

    /// `node1` comes back and preempts.
    fn come_back(&mut self, event: Event, first: &mut Router) -> Result<()> {
        let [new, old] = self.nodes();
        let Starter { lab, .. } = *self.starter;
        if event == Event::Sigterm {
            first.wait_for_end()?;
        }
        match event {
            Event::Crash => first.clear_traces(lab)?,
            Event::AgentDies => first.wait_for_the_rest()?,
            _ => {}
        }
        self.settle(old, new)?;
        let starter = self.starter;
        let moved = self.watch(Event::Preempt, [old, new], Word::None, || match event {
            Event::HostDies => revive(lab),
            Event::Drain => first.undrain(),
            Event::ServiceDies => lab.start_web(1),
            Event::Crash | Event::AgentDies | Event::Sigterm | Event::Preempt => {
                *first = starter.start(1, PRIORITIES[0])?;
                Ok(())
            }
        });
        self.note(moved?, first)
    }

    fn nodes(&self) -> [&'static str; 2] {
        ["node1", "node2"]
    }

    /// Waits until `owner` alone has advertised for some time, and then for a part of an interval that differs from round
    /// to round.
    fn settle(&mut self, owner: &str, other: &str) -> Result<()> {
        const TRIES: usize = 20;
        let interval = self.starter.cell.interval;
        let quiet = (interval * 3).clamp(Duration::from_millis(80), Duration::from_millis(300));
        for _ in 0..TRIES {
            self.wire.clear();
            let begin = Stamp::now();
            sleep(quiet);
            let patience = interval * 5 + PATIENCE;
            self.wire
                .wait_first(begin, patience, |frame| is_advert_of(frame, owner))
                .with_context(|| format!("{owner} does not become the owner"))?;
            sleep(interval.mul_f64(spread(self.number + self.watched.len())));
            if self.wire.first(begin, |frame| is_advert_of(frame, other)).is_none() {
                return Ok(());
            }
            self.unasked += 1;
            eprintln!(
                "round {}: {other} advertised beside {owner}: {}",
                self.number,
                self.adverts_since(begin)
            );
        }
        bail!("{owner} and {other} do not come to rest")
    }

    /// Who advertised when, for a look at what nobody asked for.
    fn adverts_since(&self, begin: Stamp) -> String {
        let adverts = self.wire.frames(|frame| frame.at > begin && frame.advert().is_some());
        let told = adverts.iter().map(|frame| {
            let ms = (frame.at - begin).as_secs_f64() * 1e3;
            let priority = frame.advert().map_or(0, |advert| advert.priority);
            format!("{ms:.1} ms {} ({priority})", frame.source)
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// Does what moves the VIPs from `old` to `new`, and waits until they have moved.
    fn watch(
        &self,
        event: Event,
        [old, new]: [&str; 2],
        word: Word,
        trigger: impl FnOnce() -> Result<()>,
    ) -> Result<(Move, Stamp, Stamp)> {
        let Starter { lab, contender, cell, .. } = *self.starter;
        let load = load();
        let from = Stamp::now();
        let deadline = Instant::now() + cell.interval * 5 + PATIENCE;
        trigger()?;
        let wanted = Wanted { since: from, old, new, vips: lab.vips(), word };
        let wire = loop {
            match wire_times(&self.wire.frames(|_| true), &wanted) {
                Ok(times) => break times,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(5)),
            }
        };
        sleep(AFTERMATH);
        // A request that began last still has to be answered before the next event.
        let to = Stamp::now();
        sleep(SERVICE * 5);
        let moved = Move {
            contender,
            event,
            interval_ms: u64::try_from(cell.interval.as_millis()).unwrap_or(u64::MAX),
            vips: cell.vips,
            run: self.number,
            load,
            wire: WireTimes {
                death_to_word_us: wire
                    .death_to_word_us
                    .filter(|_| matches!(event, Event::AgentDies | Event::ServiceDies)),
                ..wire
            },
            client: ClientView::default(),
            phases: None,
            verdict_to_word_us: None,
            decided_at_us: None,
        };
        Ok((moved, from, to))
    }

    fn note(&mut self, (mut moved, from, to): (Move, Stamp, Stamp), new_owner: &Router) -> Result<()> {
        if let Some((takeover, since)) = new_owner.last_takeover()? {
            moved.phases = Some(takeover);
            moved.decided_at_us = Some(since.as_nanos() as f64 / 1e3);
        }
        self.watched.push((moved, from, to));
        Ok(())
    }
}

/// Plugs the cable in again. A host that starts has no neighbours yet; one whose cable was out has some for which its last
/// question was lost, and asks again only after a second.
fn revive(lab: &Lab) -> Result<()> {
    lab.switch().set_cable(lab.node(1), true)?;
    lab.node(1).ip("neighbour flush dev eth0").map(drop)
}

/// The events that take `node1` away; for coming back it has to be away.
fn causes(events: &[Event]) -> Vec<Event> {
    let causes: Vec<Event> =
        Event::ALL.into_iter().filter(|event| *event != Event::Preempt && events.contains(event)).collect();
    if causes.is_empty() { vec![Event::Sigterm] } else { causes }
}

/// Active_Down_Interval and Skew_Time of a backup of `priority` (RFC 9568, 6.1).
fn timers(cell: Cell, priority: u8) -> (Duration, Duration) {
    let skew = of_skew(cell.interval, priority);
    (cell.interval * 3 + skew, skew)
}

/// What a priority waits of the longest skew.
fn of_skew(longest: Duration, priority: u8) -> Duration {
    longest * (256 - u32::from(priority)) / 256
}

/// Numbers of 0 to 1 that fill that range evenly, however many are taken: multiples of the golden ratio.
fn spread(number: usize) -> f64 {
    (number as f64 * 0.618_033_988_749_895).fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_those_of_the_rfc() {
        let cell = Cell { interval: Duration::from_millis(10), vips: 1 };
        let (active_down, skew) = timers(cell, 100);
        assert_eq!(skew, Duration::from_nanos(6_093_750));
        assert_eq!(active_down, Duration::from_nanos(36_093_750));
    }

    #[test]
    fn to_come_back_a_node_has_to_be_away() {
        assert_eq!(causes(&[Event::Preempt]), [Event::Sigterm]);
        assert_eq!(causes(&[Event::Preempt, Event::Drain, Event::Crash]), [Event::Crash, Event::Drain]);
    }

    #[test]
    fn the_spread_leaves_no_wide_gap() {
        let mut points: Vec<f64> = (0..20).map(spread).collect();
        points.sort_by(f64::total_cmp);
        assert!(points.windows(2).all(|pair| pair[1] - pair[0] < 0.1), "{points:?}");
    }
}
