//! From records to figures: by event and cell, and against the budgets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vip_lab::stats::{Sample, Summary};

use crate::record::{Cell, Contender, Event, Move};

/// What a record is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// See [`crate::record::WireTimes`].
    WordToAdvertUs,
    /// See [`crate::record::WireTimes`].
    LateUs,
    /// See [`crate::record::WireTimes`].
    WordToAnnouncementUs,
    /// See [`crate::record::WireTimes`].
    AdvertToAnnouncementUs,
    /// See [`crate::record::WireTimes`].
    AdvertToAllAnnouncedUs,
    /// See [`crate::record::WireTimes`].
    DeathToWordUs,
    /// From a service's last bad answer to priority 0 by the old owner's account, and from there to the new owner's first
    /// announcement by the wire, without the skew.
    VerdictToAnnouncementUs,
    /// See [`crate::record::ClientView`].
    GapMs,
    /// From status: detect.
    DetectUs,
    /// From status: decide.
    DecideUs,
    /// From status: flip.
    FlipUs,
    /// From status: announce.
    AnnounceUs,
    /// From status: flip and announce.
    DecideToAnnouncementUs,
    /// From the decision by the new owner's clock to its first announcement on the wire.
    DecideToWireUs,
}

/// The figures of one contender, event and cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) contender: Contender,
    pub(crate) event: Event,
    pub(crate) interval_ms: u64,
    pub(crate) vips: u16,
    /// Moves.
    pub(crate) moves: usize,
    /// Requests, lost ones, slow ones, over all moves.
    pub(crate) requests: usize,
    pub(crate) lost: usize,
    pub(crate) slow: usize,
    /// Where there are values.
    pub(crate) metrics: BTreeMap<Metric, Summary>,
}

/// A limit to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Budget {
    /// What is limited.
    pub(crate) name: String,
    /// The limit, in `unit`.
    pub(crate) limit: f64,
    /// What was measured.
    pub(crate) measured: f64,
    /// `µs`, or `requests`.
    pub(crate) unit: String,
    /// Over how many moves.
    pub(crate) moves: usize,
}

// === impl Metric ===

impl Metric {
    pub(crate) const ALL: [Self; 14] = [
        Self::WordToAdvertUs,
        Self::LateUs,
        Self::WordToAnnouncementUs,
        Self::AdvertToAnnouncementUs,
        Self::AdvertToAllAnnouncedUs,
        Self::DeathToWordUs,
        Self::VerdictToAnnouncementUs,
        Self::GapMs,
        Self::DetectUs,
        Self::DecideUs,
        Self::FlipUs,
        Self::AnnounceUs,
        Self::DecideToAnnouncementUs,
        Self::DecideToWireUs,
    ];

    /// Its value, if the move has one.
    pub(crate) fn of(self, moved: &Move) -> Option<f64> {
        let phases = moved.phases.as_ref();
        match self {
            Self::WordToAdvertUs => moved.wire.word_to_advert_us,
            Self::LateUs => moved.wire.late_us,
            Self::WordToAnnouncementUs => moved.wire.word_to_announcement_us,
            Self::AdvertToAnnouncementUs => Some(moved.wire.advert_to_announcement_us),
            Self::AdvertToAllAnnouncedUs => Some(moved.wire.advert_to_all_announced_us),
            Self::DeathToWordUs => moved.wire.death_to_word_us,
            Self::VerdictToAnnouncementUs => {
                Some(moved.verdict_to_word_us? + moved.wire.word_to_announcement_us? - moved.wire.timer_us?)
            }
            Self::GapMs => Some(moved.client.gap_ms),
            Self::DetectUs => phases.map(|phases| phases.detect_us),
            Self::DecideUs => phases.map(|phases| phases.decide_us),
            Self::FlipUs => phases.map(|phases| phases.flip_us),
            Self::AnnounceUs => phases.map(|phases| phases.announce_us),
            Self::DecideToAnnouncementUs => phases.map(|phases| phases.flip_us + phases.announce_us),
            Self::DecideToWireUs => moved.decided_at_us.map(|decided| moved.wire.announced_at_us - decided),
        }
    }

    /// Of all moves that `wanted` likes.
    pub(crate) fn sample(self, moves: &[Move], wanted: impl Fn(&Move) -> bool) -> Sample {
        moves.iter().filter(|moved| wanted(moved)).filter_map(|moved| self.of(moved)).collect()
    }
}

/// The events and cells that there are records of, in the order of the tables.
pub(crate) fn cells(moves: &[Move]) -> Vec<(Event, Cell)> {
    let mut cells: Vec<(Event, Cell)> = moves.iter().map(|moved| (moved.event, moved.cell())).collect();
    cells.sort_unstable();
    cells.dedup();
    cells
}

/// All groups.
pub(crate) fn groups(moves: &[Move]) -> Vec<Group> {
    let keys = cells(moves).into_iter();
    let keys = keys.flat_map(|(event, cell)| Contender::BOTH.map(|contender| (contender, event, cell)));
    keys.map(|(contender, event, cell)| group(moves, contender, event, cell))
        .filter(|group| group.moves > 0)
        .collect()
}

/// One.
pub(crate) fn group(moves: &[Move], contender: Contender, event: Event, cell: Cell) -> Group {
    let own: Vec<Move> = moves
        .iter()
        .filter(|moved| (moved.contender, moved.event, moved.cell()) == (contender, event, cell))
        .cloned()
        .collect();
    let metric = |metric: Metric| Some((metric, metric.sample(&own, |_| true).summary()?));
    let total = |count: fn(&Move) -> usize| own.iter().map(count).sum();
    Group {
        contender,
        event,
        interval_ms: u64::try_from(cell.interval.as_millis()).unwrap_or(u64::MAX),
        vips: cell.vips,
        moves: own.len(),
        requests: total(|moved| moved.client.requests),
        lost: total(|moved| moved.client.lost),
        slow: total(|moved| moved.client.slow),
        metrics: Metric::ALL.into_iter().filter_map(metric).collect(),
    }
}

// === budgets ===

/// Those that these moves can tell something about.
pub(crate) fn budgets(moves: &[Move]) -> Vec<Budget> {
    let ours: Vec<Move> =
        moves.iter().filter(|moved| moved.contender == Contender::Viplane).cloned().collect();
    let mut budgets = Vec::new();
    let mut vips: Vec<u16> = ours.iter().map(|moved| moved.vips).collect();
    vips.sort_unstable();
    vips.dedup();
    for count in vips {
        let limit = if count == 1 { 200.0 } else { 1000.0 };
        let name = format!("decide to first announcement on the wire, {count} VIPs, p99");
        let sample = Metric::DecideToWireUs.sample(&ours, |moved| moved.vips == count);
        budgets.extend(budget(name, limit, &sample));
    }
    let ten = Duration::from_millis(10);
    let crash = |moved: &Move| moved.event == Event::Crash && moved.cell().interval == ten;
    let name = "crash at 10 ms, first advertisement after Active_Down_Interval, p99".to_owned();
    budgets.extend(budget(name, 1000.0, &Metric::LateUs.sample(&ours, crash)));
    let name = "agent dies, priority 0 on the wire, p99".to_owned();
    budgets.extend(budget(
        name,
        2000.0,
        &Metric::DeathToWordUs.sample(&ours, |moved| moved.event == Event::AgentDies),
    ));
    let name = "service dies, last bad answer to first announcement beyond the skew, p99".to_owned();
    budgets.extend(budget(name, 1000.0, &Metric::VerdictToAnnouncementUs.sample(&ours, |_| true)));
    let hundred = Duration::from_millis(100);
    let service = |moved: &Move| moved.event == Event::ServiceDies && moved.cell().interval == hundred;
    if let Some(gap) = Metric::GapMs.sample(&ours, service).summary() {
        budgets.push(Budget {
            name: "service dies at 100 ms, the longest time without an answer, max".to_owned(),
            limit: 400.0,
            measured: gap.max,
            unit: "ms".to_owned(),
            moves: gap.count,
        });
    }
    for event in [Event::Sigterm, Event::Drain, Event::Preempt] {
        let own: Vec<&Move> = ours.iter().filter(|moved| moved.event == event).collect();
        if !own.is_empty() {
            budgets.push(Budget {
                name: format!("{event}, requests lost"),
                limit: 0.0,
                measured: own.iter().map(|moved| moved.client.lost).sum::<usize>() as f64,
                unit: "requests".to_owned(),
                moves: own.len(),
            });
        }
    }
    budgets
}

fn budget(name: String, limit: f64, sample: &Sample) -> Option<Budget> {
    let measured = sample.quantile(0.99)?;
    Some(Budget { name, limit, measured, unit: "µs".to_owned(), moves: sample.len() })
}

impl Budget {
    /// Whether it is held.
    pub(crate) fn is_met(&self) -> bool {
        self.measured <= self.limit
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use vip_lab::agent::Takeover;

    use super::*;
    use crate::record::{ClientView, WireTimes};

    /// A move whose new owner was `late_us` after its timer; a client lost `lost` requests.
    pub(crate) fn moved(contender: Contender, event: Event, vips: u16, late_us: f64, lost: usize) -> Move {
        let phases = Takeover {
            cause: "timeout".to_owned(),
            detect_us: 36_000.0,
            decide_us: 1.0,
            flip_us: 20.0,
            announce_us: late_us / 10.0,
        };
        Move {
            contender,
            event,
            interval_ms: 10,
            vips,
            run: 1,
            load: 0.5,
            wire: WireTimes {
                timer_us: Some(36_000.0),
                word_to_advert_us: Some(36_000.0 + late_us),
                late_us: Some(late_us),
                word_to_announcement_us: Some(36_050.0 + late_us),
                announced_at_us: 1e15,
                advert_to_announcement_us: 50.0,
                advert_to_all_announced_us: 60.0,
                death_to_word_us: matches!(event, Event::AgentDies | Event::ServiceDies).then_some(late_us),
            },
            client: ClientView { requests: 100, lost, losses: Vec::new(), slow: 0, gap_ms: 2.0 },
            phases: (contender == Contender::Viplane).then_some(phases),
            verdict_to_word_us: (event == Event::ServiceDies).then_some(late_us),
            decided_at_us: (contender == Contender::Viplane).then_some(1e15 - 100.0),
        }
    }

    #[test]
    fn groups_are_by_contender_event_and_cell() {
        let moves = [
            moved(Contender::Viplane, Event::Crash, 1, 100.0, 0),
            moved(Contender::Viplane, Event::Crash, 1, 300.0, 2),
            moved(Contender::Keepalived, Event::Crash, 1, 500.0, 0),
            moved(Contender::Viplane, Event::Drain, 256, 100.0, 0),
        ];
        let groups = groups(&moves);
        let keys: Vec<_> = groups.iter().map(|group| (group.contender, group.event, group.moves)).collect();
        assert_eq!(
            keys,
            [
                (Contender::Viplane, Event::Crash, 2),
                (Contender::Keepalived, Event::Crash, 1),
                (Contender::Viplane, Event::Drain, 1)
            ]
        );
        assert_eq!((groups[0].requests, groups[0].lost), (200, 2));
        assert_eq!(groups[0].metrics[&Metric::LateUs].max, 300.0);
        assert!(!groups[1].metrics.contains_key(&Metric::FlipUs), "keepalived has no phases");
    }

    #[test]
    fn a_budget_is_missed_by_ours_alone() {
        let moves = [
            moved(Contender::Viplane, Event::Crash, 1, 900.0, 0),
            moved(Contender::Keepalived, Event::Crash, 1, 9000.0, 0),
        ];
        assert!(budgets(&moves).iter().all(Budget::is_met), "{:?}", budgets(&moves));
        let late = [moved(Contender::Viplane, Event::Crash, 1, 1001.0, 0)];
        let missed: Vec<Budget> = budgets(&late).into_iter().filter(|budget| !budget.is_met()).collect();
        assert_eq!(missed.len(), 1, "{missed:?}");
        assert!(missed[0].name.starts_with("crash at 10 ms"));
    }

    #[test]
    fn a_death_that_is_told_late_misses_its_budget() {
        let told = |micros| [moved(Contender::Viplane, Event::AgentDies, 256, micros, 3)];
        assert!(budgets(&told(2000.0)).iter().all(Budget::is_met), "it may cost requests");
        assert!(!budgets(&told(2001.0)).iter().all(Budget::is_met));
    }

    #[test]
    fn a_service_whose_end_is_told_late_misses_its_budget_and_that_of_an_agent_does_not() {
        let told = |micros| [moved(Contender::Viplane, Event::ServiceDies, 1, micros, 3)];
        assert!(budgets(&told(400.0)).iter().all(Budget::is_met), "{:?}", budgets(&told(400.0)));
        let missed: Vec<Budget> =
            budgets(&told(2001.0)).into_iter().filter(|budget| !budget.is_met()).collect();
        assert!(
            missed.iter().any(|budget| budget.name.starts_with("service dies, last bad answer")),
            "{missed:?}"
        );
        assert!(missed.iter().all(|budget| !budget.name.starts_with("agent dies")), "{missed:?}");
    }

    #[test]
    fn a_lost_request_of_a_planned_move_is_one_too_many() {
        let crash = [moved(Contender::Viplane, Event::Crash, 1, 0.0, 30)];
        assert!(budgets(&crash).iter().all(Budget::is_met), "a crash may cost requests");
        let drain = [moved(Contender::Viplane, Event::Drain, 1, 0.0, 1)];
        assert!(!budgets(&drain).iter().all(Budget::is_met));
    }
}
