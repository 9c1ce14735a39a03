//! The figures as Markdown.

use std::fmt::Write as _;

use vip_lab::stats::Sample;

use crate::record::{Contender, Event, Move, interval_text};
use crate::summary::{Budget, Metric, cells};
use vip_lab::machine::Machine;

/// Everything, section by section.
pub(crate) fn markdown(machine: &Machine, moves: &[Move], budgets: &[Budget]) -> String {
    let sections = [
        environment(machine),
        takeovers(moves),
        deaths(moves),
        services(moves),
        announcements(moves),
        clients(moves),
        phases(moves),
        budget_table(budgets),
    ];
    sections.join("\n")
}

fn environment(machine: &Machine) -> String {
    let Machine { kernel, cpu, cpus, memory_mib, viplane, keepalived, date, load_before, load_after, .. } =
        machine;
    format!(
        "{cpus} x {cpu}, {memory_mib} MiB, Linux {kernel} · {viplane} · {keepalived} · {date} · load before {load_before}, after \
         {load_after}\n\nPairs of figures are median / p99; with fewer than 100 values the p99 is their greatest, and said to \
         be `max`. n counts moves.\n"
    )
}

fn takeovers(moves: &[Move]) -> String {
    let mut text = heading(
        "From the old owner's last word to the new one's first announcement",
        "The word is its last advertisement (crash, host dies) or priority 0 (SIGTERM, drain). `timer`: what RFC 9568 asks for \
         from there on; `late`: the first advertisement after that.",
    );
    text.push_str(
        "| event | interval | VIPs | timer | viplane | late | keepalived | late | n |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (event, cell) in cells(moves) {
        let of = |contender| {
            move |moved: &Move| {
                (moved.contender, moved.event, moved.cell()) == (contender, event, cell)
                    && moved.wire.word_to_advert_us.is_some()
            }
        };
        let timer = moves.iter().find(|moved| of(moved.contender)(moved));
        let Some(timer) = timer.and_then(|moved| moved.wire.timer_us) else { continue };
        let _ = write!(text, "{}| {} ", row_start(event, cell.interval.as_millis(), cell.vips), span(timer));
        for contender in Contender::BOTH {
            let word = Metric::WordToAnnouncementUs.sample(moves, of(contender));
            let late = Metric::LateUs.sample(moves, of(contender));
            let _ = write!(text, "| {} | {} ", pair(&word, span), pair(&late, span));
        }
        let _ = writeln!(text, "| {} |", counts(moves, of));
    }
    text
}

fn deaths(moves: &[Move]) -> String {
    let mut text = heading(
        "From the death of one process to priority 0 on the wire",
        "kill -9 of viplane's agent alone, said by its watcher; of keepalived's parent alone, said by its \
         child.",
    );
    text.push_str("| interval | VIPs | viplane | keepalived | n |\n|---:|---:|---:|---:|---:|\n");
    for (event, cell) in cells(moves) {
        let of = |contender| {
            move |moved: &Move| {
                event == Event::AgentDies
                    && (moved.contender, moved.event, moved.cell()) == (contender, event, cell)
                    && moved.wire.death_to_word_us.is_some()
            }
        };
        if !Contender::BOTH.into_iter().any(|contender| moves.iter().any(of(contender))) {
            continue;
        }
        let _ = write!(text, "| {} | {} ", interval_text(cell.interval.as_millis()), cell.vips);
        for contender in Contender::BOTH {
            let _ = write!(text, "| {} ", pair(&Metric::DeathToWordUs.sample(moves, of(contender)), span));
        }
        let _ = writeln!(text, "| {} |", counts(moves, of));
    }
    text
}

/// Nothing where none died.
fn services(moves: &[Move]) -> String {
    if moves.iter().all(|moved| moved.event != Event::ServiceDies) {
        return String::new();
    }
    let mut text = heading(
        "When the owner's service dies",
        "Its web server ends. viplane asks it every 100 ms by an `http` probe, keepalived every second by a `vrrp_script` (its \
         shortest interval) that connects; two bad answers are a verdict. `death`: to priority 0 on the wire; `verdict`: from the \
         last bad answer to the new owner's first announcement, without the skew (viplane's account of itself, and the wire); \
         `gap`: the longest time without an answer that a client sees.",
    );
    text.push_str(
        "| interval | VIPs | viplane death | verdict | gap | keepalived death | gap | n |\n|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (event, cell) in cells(moves).into_iter().filter(|(event, _)| *event == Event::ServiceDies) {
        let of = |contender| {
            move |moved: &Move| (moved.contender, moved.event, moved.cell()) == (contender, event, cell)
        };
        let _ = write!(text, "| {} | {} ", interval_text(cell.interval.as_millis()), cell.vips);
        for contender in Contender::BOTH {
            let death = Metric::DeathToWordUs.sample(moves, of(contender));
            let _ = write!(text, "| {} ", pair(&death, span));
            if contender == Contender::Viplane {
                let verdict = Metric::VerdictToAnnouncementUs.sample(moves, of(contender));
                let _ = write!(text, "| {} ", pair(&verdict, span));
            }
            let gap = Metric::GapMs.sample(moves, of(contender));
            let _ = write!(text, "| {} ", pair(&gap, |ms| span(ms * 1e3)));
        }
        let _ = writeln!(text, "| {} |", counts(moves, of));
    }
    text
}

fn announcements(moves: &[Move]) -> String {
    let mut text = heading(
        "From the new owner's first advertisement to its announcements",
        "On the wire, over all events and intervals; `all`: until every VIP has been announced once.",
    );
    text.push_str(
        "| VIPs | viplane first | all | keepalived first | all | n |\n|---:|---:|---:|---:|---:|---:|\n",
    );
    for vips in vip_counts(moves) {
        let of = |contender| move |moved: &Move| (moved.contender, moved.vips) == (contender, vips);
        let _ = write!(text, "| {vips} ");
        for contender in Contender::BOTH {
            for metric in [Metric::AdvertToAnnouncementUs, Metric::AdvertToAllAnnouncedUs] {
                let _ = write!(text, "| {} ", pair(&metric.sample(moves, of(contender)), span));
            }
        }
        let _ = writeln!(text, "| {} |", counts(moves, of));
    }
    text
}

fn clients(moves: &[Move]) -> String {
    let mut text = heading(
        "What a client sees",
        "One request each millisecond, answered after 10 ms. `lost`: without an answer in 3 s; `slow`: answered after more than \
         200 ms (a SYN sent again); both over all moves. `gap`: the longest time without an answer in one move.",
    );
    text.push_str(
        "| event | interval | VIPs | viplane lost | slow | gap | keepalived lost | slow | gap | n |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (event, cell) in cells(moves) {
        let of = |contender| {
            move |moved: &Move| (moved.contender, moved.event, moved.cell()) == (contender, event, cell)
        };
        text.push_str(&row_start(event, cell.interval.as_millis(), cell.vips));
        for contender in Contender::BOTH {
            let own: Vec<&Move> = moves.iter().filter(|moved| of(contender)(moved)).collect();
            if own.is_empty() {
                text.push_str("| - | - | - ");
                continue;
            }
            let total = |count: fn(&Move) -> usize| own.iter().map(|moved| count(moved)).sum::<usize>();
            let _ = write!(
                text,
                "| {} of {} | {} | {} ",
                total(|moved| moved.client.lost),
                total(|moved| moved.client.requests),
                total(|moved| moved.client.slow),
                pair(&Metric::GapMs.sample(moves, of(contender)), |ms| span(ms * 1e3)),
            );
        }
        let _ = writeln!(text, "| {} |", counts(moves, of));
    }
    text
}

fn phases(moves: &[Move]) -> String {
    let mut text = heading(
        "viplane's own account",
        "From `vip-agent status`: decide (the machine), flip (advertisement sent, word stored), announce (the first system call \
         with announcements returned), over all events and intervals. On this network of veths a system call that sends \
         returns when all receivers have been served; `wire`: from the decision to the first announcement at the switch.",
    );
    text.push_str(
        "| VIPs | decide | flip | announce | decide to announced | wire | n |\n|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for vips in vip_counts(moves) {
        let own = |moved: &Move| moved.vips == vips && moved.phases.is_some();
        let _ = write!(text, "| {vips} ");
        for metric in [
            Metric::DecideUs,
            Metric::FlipUs,
            Metric::AnnounceUs,
            Metric::DecideToAnnouncementUs,
            Metric::DecideToWireUs,
        ] {
            let _ = write!(text, "| {} ", pair(&metric.sample(moves, own), span));
        }
        let _ = writeln!(text, "| {} |", moves.iter().filter(|moved| own(moved)).count());
    }
    text
}

fn budget_table(budgets: &[Budget]) -> String {
    let mut text = heading("Limits", "viplane's own, over all moves that concern them.");
    text.push_str("| what | limit | measured | n | |\n|---|---:|---:|---:|---|\n");
    for budget in budgets {
        let Budget { name, limit, measured, unit, moves } = budget;
        let verdict = if budget.is_met() { "held" } else { "**missed**" };
        let _ = writeln!(text, "| {name} | {limit:.0} {unit} | {measured:.0} {unit} | {moves} | {verdict} |");
    }
    text
}

fn heading(title: &str, explanation: &str) -> String {
    format!("### {title}\n\n{explanation}\n\n")
}

fn row_start(event: Event, interval_ms: u128, vips: u16) -> String {
    format!("| {event} | {} | {vips} ", interval_text(interval_ms))
}

/// How many moves of each: `20 + 20`, or `20` if only one took part.
fn counts<F: Fn(&Move) -> bool>(moves: &[Move], of: impl Fn(Contender) -> F) -> String {
    let counts = Contender::BOTH.map(|contender| moves.iter().filter(|moved| of(contender)(moved)).count());
    match counts {
        [ours, 0] => ours.to_string(),
        [ours, theirs] => format!("{ours} + {theirs}"),
    }
}

/// `VIPs` that occur.
pub(crate) fn vip_counts(moves: &[Move]) -> Vec<u16> {
    let mut counts: Vec<u16> = moves.iter().map(|moved| moved.vips).collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Median and p99, or the greatest of few.
fn pair(sample: &Sample, text: impl Fn(f64) -> String) -> String {
    let Some(summary) = sample.summary() else { return "-".to_owned() };
    let greatest = if summary.count < 100 { format!("max {}", text(summary.max)) } else { text(summary.p99) };
    format!("{} / {greatest}", text(summary.median))
}

/// Microseconds in the unit that suits them, with three digits.
pub(crate) fn span(micros: f64) -> String {
    let (value, unit) = match micros.abs() {
        size if size < 1e3 => (micros, "µs"),
        size if size < 1e6 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    match value.abs() {
        size if size < 10.0 => format!("{value:.2} {unit}"),
        size if size < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::moved;

    #[test]
    fn spans_have_three_digits_and_a_unit() {
        let texts: Vec<String> = [0.0, 1.234, 56.78, 999.4, 36_094.0, 3_609_375.0, -12.3].map(span).into();
        assert_eq!(texts, ["0.00 µs", "1.23 µs", "56.8 µs", "999 µs", "36.1 ms", "3.61 s", "-12.3 µs"]);
    }

    #[test]
    fn the_greatest_of_few_is_not_called_p99() {
        let few: Sample = [1.0, 2.0, 3.0].into_iter().collect();
        assert_eq!(pair(&few, span), "2.00 µs / max 3.00 µs");
        let many: Sample = (1..=200).map(f64::from).collect();
        assert_eq!(pair(&many, span), "100 µs / 198 µs");
        assert_eq!(pair(&Sample::default(), span), "-");
    }

    #[test]
    fn ours_and_theirs_stand_in_one_row() {
        let moves = [
            moved(Contender::Viplane, Event::Crash, 1, 100.0, 0),
            moved(Contender::Keepalived, Event::Crash, 1, 3000.0, 0),
            moved(Contender::Viplane, Event::Drain, 1, 100.0, 0),
        ];
        let table = takeovers(&moves);
        let row = table.lines().find(|line| line.starts_with("| crash")).unwrap();
        assert_eq!(
            row,
            "| crash | 10 ms | 1 | 36.0 ms | 36.1 ms / max 36.1 ms | 100 µs / max 100 µs | 39.0 ms / max 39.0 ms \
             | 3.00 ms / max 3.00 ms | 1 + 1 |"
        );
        let row = clients(&moves).lines().find(|line| line.starts_with("| drain")).unwrap().to_owned();
        assert_eq!(row, "| drain | 10 ms | 1 | 0 of 100 | 0 | 2.00 ms / max 2.00 ms | - | - | - | 1 |");
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_head() {
        let moves = [
            moved(Contender::Viplane, Event::Sigterm, 256, 100.0, 0),
            moved(Contender::Keepalived, Event::Preempt, 1, 3000.0, 0),
            moved(Contender::Viplane, Event::ServiceDies, 1, 100.0, 0),
        ];
        for table in
            [takeovers(&moves), services(&moves), announcements(&moves), clients(&moves), phases(&moves)]
        {
            let cells: Vec<usize> = table
                .lines()
                .filter(|line| line.starts_with('|'))
                .map(|line| line.matches('|').count())
                .collect();
            assert!(cells.len() > 2 && cells.iter().all(|count| *count == cells[0]), "{table}");
        }
    }
}
