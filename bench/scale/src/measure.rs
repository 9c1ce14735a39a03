//! The measurements, one after another: start, rest, and three ways to lose an owner.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vip_lab::stats::Sample;
use vip_lab::wire::{Packet, Wire};
use vip_lab::{Node, Stamp};

use crate::crowd::{CpuTime, Crowd, Starter};
use crate::record::{Cell, Event, Move, Outcome, Steady};

/// After the last state has changed: announcements may still be on their way.
const SETTLING: Duration = Duration::from_millis(500);

/// Fills `outcome` in, as far as it gets.
pub(crate) fn all(
    starter: &Starter<'_>,
    watch: Duration,
    capture: Duration,
    outcome: &mut Outcome,
) -> Result<()> {
    let begun = Instant::now();
    let one = starter.start(1)?;
    one.wait_until_active().context("the first start")?;
    outcome.start_ms = Some(begun.elapsed().as_secs_f64() * 1e3);
    let two = starter.start(2)?;
    two.wait_until_backup().context("the second node's start")?;
    outcome.resident_kib = Some(one.resident_kib()?);
    outcome.steady = Some(steady(starter, &one, &two, watch, capture)?);

    let moved = observe(starter, Event::HostDies, [&one, &two], || one.node().set_link(false))?;
    outcome.moves.push(moved);
    one.node().set_link(true)?;
    one.wait_until_backup().context("after its link has come back")?;

    outcome.moves.push(observe(starter, Event::Crash, [&two, &one], || two.crash())?);
    two.clear_traces(starter.lab)?;
    drop(two);
    let two = starter.start(2)?;
    two.wait_until_backup().context("the start after a crash")?;

    outcome.moves.push(observe(starter, Event::Sigterm, [&one, &two], || one.terminate())?);
    one.wait_for_end()
}

fn steady(
    starter: &Starter<'_>,
    owner: &Crowd,
    backup: &Crowd,
    watch: Duration,
    capture: Duration,
) -> Result<Steady> {
    let moves = || -> Result<u64> { Ok(owner.transitions()? + backup.transitions()?) };
    let moves_before = moves()?;
    let (begun, before) = (Instant::now(), [owner.cpu_time()?, backup.cpu_time()?]);
    std::thread::sleep(watch);
    let (span, after) = (begun.elapsed(), [owner.cpu_time()?, backup.cpu_time()?]);
    let percent = |spent: Duration| spent.as_secs_f64() / span.as_secs_f64() * 100.0;
    let of_all = |at: usize| percent(after[at].all.saturating_sub(before[at].all));
    let of_driver = |at: usize| {
        let spent = |CpuTime { driver, .. }: CpuTime| driver;
        Some(percent(spent(after[at])?.saturating_sub(spent(before[at])?)))
    };
    let wire = starter.lab.wire()?;
    std::thread::sleep(capture);
    let rhythm = Rhythm::of(&wire, owner.node(), starter.cell)?;
    Ok(Steady {
        seconds: span.as_secs_f64(),
        owner_cpu_percent: of_all(0),
        owner_driver_cpu_percent: of_driver(0),
        backup_cpu_percent: of_all(1),
        backup_driver_cpu_percent: of_driver(1),
        unasked_moves: moves()? - moves_before,
        gap_ms: rhythm.gaps_ms.summary(),
        adverts_per_second: rhythm.adverts as f64 / capture.as_secs_f64(),
        tenth_percent: rhythm.tenth_percent,
    })
}

/// How evenly adverts come.
struct Rhythm {
    adverts: usize,
    gaps_ms: Sample,
    tenth_percent: f64,
}

impl Rhythm {
    fn of(wire: &Wire, node: &Node, cell: Cell) -> Result<Self> {
        let mut times: Vec<(Stamp, u8)> = Vec::new();
        // Nothing is kept of the frames but this.
        wire.frames(|frame| {
            times
                .extend(frame.advert().filter(|_| frame.is_from(node)).map(|advert| (frame.at, advert.vrid)));
            false
        });
        ensure!(wire.lost() == 0, "the capture lost {} frames", wire.lost());
        times.sort_unstable();
        let mut last = BTreeMap::new();
        let gaps = times.iter().filter_map(|&(at, id)| Some(at - last.insert(id, at)?));
        let gaps_ms = Sample::millis(gaps.collect::<Vec<_>>());
        Ok(Self { adverts: times.len(), gaps_ms, tenth_percent: tenth_percent(&times, cell) })
    }
}

/// The greatest share of a whole interval's adverts within a tenth of it: median over intervals.
fn tenth_percent(times: &[(Stamp, u8)], cell: Cell) -> f64 {
    let Some(&(begin, _)) = times.first() else { return 0.0 };
    let interval = cell.interval();
    let mut greatest: BTreeMap<u128, usize> = BTreeMap::new();
    for (index, &(at, _)) in times.iter().enumerate() {
        let within = times[index..].iter().take_while(|(later, _)| *later - at < interval / 10).count();
        let most = greatest.entry((at - begin).as_nanos() / interval.as_nanos()).or_default();
        *most = within.max(*most);
    }
    let shares: Sample =
        greatest.into_values().map(|most| most as f64 / f64::from(cell.instances) * 100.0).collect();
    shares.quantile(0.5).unwrap_or_default()
}

/// Takes the owner out, waits until all have moved, and reads the wire.
fn observe(
    starter: &Starter<'_>,
    event: Event,
    [old, new]: [&Crowd; 2],
    strike: impl FnOnce() -> Result<()>,
) -> Result<Move> {
    let wire = starter.lab.wire()?;
    // So that its last word before the blow is captured.
    std::thread::sleep(starter.cell.interval() * 2 + Duration::from_millis(20));
    let struck = Stamp::now();
    strike()?;
    new.wait_until_active().with_context(|| event.to_string())?;
    std::thread::sleep(SETTLING);
    ensure!(wire.lost() == 0, "the capture lost {} frames", wire.lost());
    let mut seen = Seen::default();
    wire.frames(|frame| {
        if let Some(advert) = frame.advert() {
            if frame.is_from(old.node()) {
                seen.last_words.push((frame.at, advert.priority));
            } else if frame.is_from(new.node()) {
                note_first(&mut seen.adverts, advert.vrid, frame.at);
            }
        } else if let Packet::Arp(arp) = &frame.packet
            && frame.is_from(new.node())
            && frame.packet.announces(arp.sender.into())
        {
            note_first(&mut seen.announcements, arp.sender.into(), frame.at);
        }
        false
    });
    seen.judge(event, struck, starter.cell, &Sample::from_iter(new.decide_to_announcement_ms()?))
}

/// What the wire says of a move.
#[derive(Default)]
struct Seen {
    /// Adverts of the old owner, with their priorities.
    last_words: Vec<(Stamp, u8)>,
    /// By virtual router, its first by the new owner.
    adverts: BTreeMap<u8, Stamp>,
    /// By VIP, the first of the new owner.
    announcements: BTreeMap<IpAddr, Stamp>,
}

fn note_first<K: Ord>(firsts: &mut BTreeMap<K, Stamp>, what: K, at: Stamp) {
    let first = firsts.entry(what).or_insert(at);
    *first = at.min(*first);
}

impl Seen {
    fn judge(&self, event: Event, struck: Stamp, cell: Cell, decided: &Sample) -> Result<Move> {
        let missing = usize::from(cell.instances) - self.adverts.len();
        ensure!(missing == 0, "{event}: {missing} virtual routers were not taken over");
        let missing = usize::from(cell.vips) - self.announcements.len();
        ensure!(missing == 0, "{event}: {missing} VIPs were not announced");
        let first_advert = self.adverts.values().min().copied().context("no advert")?;
        let last_advert = self.adverts.values().max().copied().context("no advert")?;
        let word = self.word(event, struck, first_advert).context("the old owner was not heard")?;
        let announced: Vec<(u8, Stamp)> = self.first_announcements(cell);
        let ms = |at: Stamp| (at - word).as_secs_f64() * 1e3;
        let announcements = || self.announcements.values().copied();
        Ok(Move {
            event,
            first_advert_ms: ms(first_advert),
            last_advert_ms: ms(last_advert),
            first_announcement_ms: ms(announcements().min().context("no announcement")?),
            all_announced_ms: ms(announcements().max().context("no announcement")?),
            announced_before_others_advertised: announced.iter().filter(|(_, at)| *at < last_advert).count(),
            advert_to_announcement_ms: Sample::millis(
                announced.iter().filter_map(|(id, at)| Some(*at - *self.adverts.get(id)?)),
            )
            .summary(),
            decide_to_announcement_ms: decided.summary(),
        })
    }

    /// Its last advert before the blow, or its first priority 0 after it.
    fn word(&self, event: Event, struck: Stamp, first_advert: Stamp) -> Option<Stamp> {
        let farewell = self.last_words.iter().filter(|(at, priority)| *at >= struck && *priority == 0);
        let silence = self.last_words.iter().filter(|(at, _)| *at < first_advert);
        match event {
            Event::HostDies => silence.map(|(at, _)| *at).max(),
            Event::Crash | Event::Sigterm => {
                farewell.map(|(at, _)| *at).min().or_else(|| silence.map(|(at, _)| *at).max())
            }
        }
    }

    /// By virtual router: VIPs were dealt out in turn.
    fn first_announcements(&self, cell: Cell) -> Vec<(u8, Stamp)> {
        let mut firsts = BTreeMap::new();
        for (number, &at) in self.announcements.values().enumerate() {
            let id = number % usize::from(cell.instances) + 1;
            note_first(&mut firsts, u8::try_from(id).unwrap_or(u8::MAX), at);
        }
        firsts.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: Cell = Cell { interval_ms: 10, instances: 2, vips: 4 };

    fn us(micros: u64) -> Stamp {
        Stamp::from_nanos(1_000_000_000 + micros * 1000)
    }

    fn vip(last: u8) -> IpAddr {
        [10, 0, 1, last].into()
    }

    fn seen() -> Seen {
        Seen {
            last_words: vec![(us(0), 200), (us(1000), 200), (us(2000), 0), (us(2600), 0)],
            adverts: BTreeMap::from([(1, us(10_000)), (2, us(10_100))]),
            announcements: [10_200, 10_300, 10_250, 10_350]
                .into_iter()
                .zip(0..)
                .map(|(at, last)| (vip(last), us(at)))
                .collect(),
        }
    }

    #[test]
    fn a_handover_counts_from_the_first_priority_0_and_silence_from_the_last_advert() {
        let by = |event, seen: Seen| seen.judge(event, us(1500), CELL, &Sample::default()).unwrap();
        let handover = by(Event::Sigterm, seen());
        assert!((handover.first_advert_ms - 8.0).abs() < 1e-9);
        assert!((handover.all_announced_ms - 8.35).abs() < 1e-9);
        assert_eq!(handover.announced_before_others_advertised, 0);
        let silence = Seen { last_words: vec![(us(0), 200), (us(1000), 200)], ..seen() };
        assert!((by(Event::HostDies, silence).last_advert_ms - 9.1).abs() < 1e-9);
    }

    #[test]
    fn announcements_belong_to_the_router_that_their_vip_was_dealt_to() {
        assert_eq!(seen().first_announcements(CELL), [(1, us(10_200)), (2, us(10_300))]);
    }

    #[test]
    fn what_was_not_taken_over_is_counted() {
        let mut incomplete = seen();
        incomplete.announcements.remove(&vip(3));
        let error = incomplete.judge(Event::Crash, us(0), CELL, &Sample::default()).err().unwrap();
        assert_eq!(error.to_string(), "crash: 1 VIPs were not announced");
        incomplete.adverts.clear();
        let error = incomplete.judge(Event::Crash, us(0), CELL, &Sample::default()).err().unwrap();
        assert_eq!(error.to_string(), "crash: 2 virtual routers were not taken over");
    }

    #[test]
    fn a_burst_is_all_of_a_tenth_and_an_even_rhythm_a_tenth() {
        let interval = CELL.interval_ms * 1000;
        let burst: Vec<_> =
            (0..10).flat_map(|n| [(us(n * interval), 1), (us(n * interval + 50), 2)]).collect();
        assert!((tenth_percent(&burst, CELL) - 100.0).abs() < 1e-9);
        let cell = Cell { instances: 10, ..CELL };
        let even: Vec<_> = (0..100).map(|n| (us(n * interval / 10), (n % 10) as u8)).collect();
        assert!((tenth_percent(&even, cell) - 10.0).abs() < 1e-9);
    }
}
