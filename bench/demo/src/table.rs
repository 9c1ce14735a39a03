//! The table of phases.

use crate::record::{EventRecord, Run};

/// Columns of the table: what, and its unit. docs/demo.md explains them.
const COLUMNS: [[&str; 2]; 9] = [
    ["event", ""],
    ["owner", ""],
    ["detect", "ms"],
    ["decide", "us"],
    ["flip", "us"],
    ["announce", "us"],
    ["on the wire", "ms"],
    ["client's gap", "ms"],
    ["lost", ""],
];
/// The first columns are words.
const WORDS: usize = 2;

/// Events and their phases, one per line, under a head of two lines.
pub(crate) fn render(run: &Run) -> String {
    let head = [0, 1].map(|line| COLUMNS.map(|column| column[line].to_owned()));
    let rows: Vec<[String; 9]> = head.into_iter().chain(run.events.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let line = |row: &[String; 9]| {
        let cell = |(column, text): (usize, &String)| {
            let width = widths[column];
            if column < WORDS { format!("{text:<width$}") } else { format!("{text:>width$}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn row(event: &EventRecord) -> [String; 9] {
    let shown =
        |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
    let mark = if event.failures.is_empty() { "" } else { " FAILED" };
    [
        format!("{}{mark}", event.event.title()),
        format!("{} -> {}", event.from, event.to),
        shown(event.detect_us.map(|micros| micros / 1e3), 1),
        shown(event.decide_us, 0),
        shown(event.flip_us, 0),
        shown(event.announce_us, 0),
        shown(event.event_to_announcement_ms, 1),
        shown(event.gap_ms, 1),
        format!("{} of {}", event.lost, event.requests),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::one_move;
    use crate::measure::Kind;
    use crate::measure::tests::event;
    use crate::options::tests::plan;
    use crate::record::Told;

    fn table(takeover: Option<vip_lab::agent::Takeover>) -> String {
        let evidence = one_move(1, 2, 1000.0, 1326.0, 4000.0);
        let events = vec![crate::measure::Event { takeover, ..event(Kind::Crash, 1000.0) }];
        render(&Run::new(&plan(100), Told { events, end: 4000.0, ..Told::default() }, &evidence))
    }

    #[test]
    fn phases_stand_in_columns_under_their_units() {
        let takeover = vip_lab::agent::Takeover {
            cause: "timeout".into(),
            detect_us: 325_812.0,
            decide_us: 3.0,
            flip_us: 41.0,
            announce_us: 88.0,
        };
        assert_eq!(
            table(Some(takeover)),
            "\
event          owner           detect  decide  flip  announce  on the wire  client's gap         lost
                                   ms      us    us        us           ms            ms
kill -9 node1  node1 -> node2   325.8       3    41        88        326.0         326.5  326 of 3000
"
        );
    }

    #[test]
    fn a_peer_that_tells_no_phases_has_dashes() {
        assert!(
            table(None).contains("node2       -       -     -         -        326.0"),
            "{}",
            table(None)
        );
    }
}
