//! The figures as Markdown.

use std::fmt::Write as _;

use vip_lab::machine::Machine;
use vip_lab::stats::Summary;

use crate::record::{Outcome, Results};

/// Everything.
pub(crate) fn markdown(results: &Results) -> String {
    let Machine { kernel, cpu, cpus, memory_mib, viplane, keepalived, date, load_before, load_after, .. } =
        &results.machine;
    let mut text = format!(
        "{cpus} x {cpu}, {memory_mib} MiB, Linux {kernel} · {viplane} · {keepalived} · {date} · load before {load_before}, after \
         {load_after}\n\n"
    );
    text.push_str(&at_rest(&results.outcomes));
    text.push_str(&moves(&results.outcomes));
    for outcome in &results.outcomes {
        if let Some(error) = &outcome.error {
            let first = error.lines().next().unwrap_or_default();
            let _ = writeln!(text, "Not finished: {}, {}: {first}", outcome.contender, outcome.cell);
        }
    }
    text
}

fn at_rest(outcomes: &[Outcome]) -> String {
    let mut text = "### At rest\n\n\
         `CPU`: share of one CPU of the owner and of the Backup, in brackets the thread that runs VRRP; on veths a sender also \
         does the work of the receiving side's interrupt. `gap`: from one advert of a virtual router to its next on the wire, \
         median / p99 / max. `tenth`: the greatest share of an interval's adverts within a tenth of it.\n\n\
         | | interval | routers | VIPs | start | resident | CPU owner | CPU Backup | adverts/s | gap | tenth | unasked moves |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for outcome in outcomes {
        let start = outcome.start_ms.map_or("-".to_owned(), |ms| format!("{:.2} s", ms / 1e3));
        let resident =
            outcome.resident_kib.map_or("-".to_owned(), |kib| format!("{:.1} MiB", kib as f64 / 1024.0));
        let rest = outcome.steady.as_ref().map_or("- | - | - | - | - | -".to_owned(), |steady| {
            let driver =
                |percent: Option<f64>| percent.map_or(String::new(), |percent| format!(" ({percent:.1})"));
            let gap = |gap: Summary| format!("{:.2} / {:.2} / {:.1} ms", gap.median, gap.p99, gap.max);
            format!(
                "{:.1}{} % | {:.1}{} % | {:.0} | {} | {:.0} % | {} in {:.0} s",
                steady.owner_cpu_percent,
                driver(steady.owner_driver_cpu_percent),
                steady.backup_cpu_percent,
                driver(steady.backup_driver_cpu_percent),
                steady.adverts_per_second,
                steady.gap_ms.map_or("-".to_owned(), gap),
                steady.tenth_percent,
                steady.unasked_moves,
                steady.seconds,
            )
        });
        let _ = writeln!(text, "{} | {start} | {resident} | {rest} |", row_start(outcome));
    }
    text.push('\n');
    text
}

fn moves(outcomes: &[Outcome]) -> String {
    let mut text = "### All at once\n\n\
         From the old owner's last word (its last advert, or its first priority 0): the new one's first advert, the first of the \
         last virtual router, the first announcement, and until every VIP had been announced. `early`: virtual routers that \
         announced before another's first advert. Then by virtual router, median / p99 / max: its first advert to its first \
         announcement, and what the agent says of decision to announcement.\n\n\
         | | interval | routers | VIPs | event | first advert | last | first announcement | all | early | advert to announcement \
         | decide to announcement |\n\
         |---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for outcome in outcomes {
        for moved in &outcome.moves {
            let _ = writeln!(
                text,
                "{} | {} | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} ms | {} | {} | {} |",
                row_start(outcome),
                moved.event,
                moved.first_advert_ms,
                moved.last_advert_ms,
                moved.first_announcement_ms,
                moved.all_announced_ms,
                moved.announced_before_others_advertised,
                spread(moved.advert_to_announcement_ms),
                spread(moved.decide_to_announcement_ms),
            );
        }
    }
    text.push('\n');
    text
}

fn row_start(outcome: &Outcome) -> String {
    let Outcome { contender, cell, .. } = outcome;
    format!("| {contender} | {} ms | {} | {}", cell.interval_ms, cell.instances, cell.vips)
}

fn spread(summary: Option<Summary>) -> String {
    summary.map_or("-".to_owned(), |ms| format!("{:.2} / {:.2} / {:.1} ms", ms.median, ms.p99, ms.max))
}
