//! What was measured, and the figures made of it.

use std::fmt;

use serde::Serialize;
use vip_lab::stats::Sample;

use crate::contender::Contender;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Cell {
    /// Bytes of a frame.
    pub(crate) size: u16,
    pub(crate) flows: u32,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, flows } = self;
        write!(f, "{size} bytes, {flows} flow{}", if *flows == 1 { "" } else { "s" })
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) contender: Contender,
    #[serde(flatten)]
    pub(crate) cell: Cell,
    pub(crate) round: u32,
    /// Frames sent.
    pub(crate) offered_per_second: f64,
    /// Frames that arrived at the backend.
    pub(crate) per_second: f64,
    /// Frames that never did.
    pub(crate) lost: u64,
    /// Load average of the last minute.
    pub(crate) load: f64,
}

/// The figures of one contender and cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) contender: Contender,
    #[serde(flatten)]
    pub(crate) cell: Cell,
    pub(crate) rounds: usize,
    /// Frames per second.
    pub(crate) median: f64,
    pub(crate) p10: f64,
    pub(crate) p90: f64,
    /// Nanoseconds per frame beyond what generator and wire take by themselves, medians.
    pub(crate) ns_over_wire: Option<f64>,
    /// Median of the ratios to nftables DNAT in the same round.
    pub(crate) ratio_to_nftables: Option<f64>,
    /// Frames, of all rounds.
    pub(crate) lost: u64,
}

/// The cells that were measured, in order.
pub(crate) fn cells(runs: &[Run]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = runs.iter().map(|run| run.cell).collect();
    cells.sort_unstable();
    cells.dedup();
    cells
}

/// All groups, by cell and contender.
pub(crate) fn groups(runs: &[Run]) -> Vec<Group> {
    let of_cell = |cell| Contender::ALL.into_iter().filter_map(move |contender| group(runs, contender, cell));
    cells(runs).into_iter().flat_map(of_cell).collect()
}

fn of(runs: &[Run], contender: Contender, cell: Cell) -> impl Iterator<Item = &Run> {
    runs.iter().filter(move |run| (run.contender, run.cell) == (contender, cell))
}

fn rates(runs: &[Run], contender: Contender, cell: Cell) -> Sample {
    of(runs, contender, cell).map(|run| run.per_second).collect()
}

fn group(runs: &[Run], contender: Contender, cell: Cell) -> Option<Group> {
    let sample = rates(runs, contender, cell);
    let median = sample.quantile(0.5)?;
    let wire = rates(runs, Contender::Discard, cell).quantile(0.5);
    let ratio = |run: &Run| {
        let mut theirs = of(runs, Contender::Nftables, cell);
        Some(run.per_second / theirs.find(|other| other.round == run.round)?.per_second)
    };
    let ratios: Sample = of(runs, contender, cell).filter_map(ratio).collect();
    Some(Group {
        contender,
        cell,
        rounds: sample.len(),
        median,
        p10: sample.quantile(0.1)?,
        p90: sample.quantile(0.9)?,
        ns_over_wire: wire.filter(|_| contender != Contender::Discard).map(|wire| 1e9 / median - 1e9 / wire),
        ratio_to_nftables: ratios.quantile(0.5),
        lost: of(runs, contender, cell).map(|run| run.lost).sum(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn run(contender: Contender, round: u32, per_second: f64) -> Run {
        let cell = Cell { size: 60, flows: 1024 };
        Run { contender, cell, round, offered_per_second: per_second, per_second, lost: 1, load: 0.5 }
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let runs = [
            run(Contender::Viplane, 1, 4e6),
            run(Contender::Nftables, 1, 1e6),
            // The machine was slow for both.
            run(Contender::Viplane, 2, 2e6),
            run(Contender::Nftables, 2, 0.5e6),
        ];
        let groups = groups(&runs);
        assert_eq!(groups[0].ratio_to_nftables, Some(4.0));
        assert_eq!((groups[0].rounds, groups[0].lost, groups[1].ratio_to_nftables), (2, 2, Some(1.0)));
    }

    #[test]
    fn time_is_counted_beyond_that_of_the_wire() {
        let runs = [run(Contender::Discard, 1, 1e7), run(Contender::Forward, 1, 2e6)];
        let groups = groups(&runs);
        assert_eq!((groups[0].ns_over_wire, groups[1].ns_over_wire), (None, Some(400.0)));
        assert_eq!(groups[1].ratio_to_nftables, None);
    }
}
