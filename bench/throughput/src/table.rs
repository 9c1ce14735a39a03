//! The figures as text.

use std::fmt::Write as _;

use vip_lab::machine::Machine;

use crate::contender::Contender;
use crate::record::Group;

/// A table in Markdown, with what it was taken on.
pub(crate) fn text(machine: &Machine, groups: &[Group]) -> String {
    let Machine { kernel, cpu, load_before, load_after, date, .. } = machine;
    let mut text =
        format!("{cpu}, Linux {kernel}, {date}; load {load_before} before, {load_after} after\n\n");
    text.push_str(
        "| frame | flows | way | M packets/s: p10 / median / p90 | ns over the wire | to nftables | lost |\n",
    );
    text.push_str("|---:|---:|---|---:|---:|---:|---:|\n");
    for group in groups {
        let Group { contender, cell, median, p10, p90, ns_over_wire, ratio_to_nftables, lost, .. } = group;
        let [p10, median, p90] = [p10, median, p90].map(|rate| format!("{:.2}", rate / 1e6));
        let ns = ns_over_wire.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}"));
        let ratio = ratio_to_nftables.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}"));
        let _ = writeln!(
            text,
            "| {} | {} | {contender} | {p10} / {median} / {p90} | {ns} | {ratio} | {lost} |",
            cell.size, cell.flows
        );
    }
    text
}

/// Cells in which steering is less than `budget` times as fast as nftables DNAT.
pub(crate) fn missed(groups: &[Group], budget: f64) -> Vec<String> {
    let ours = groups.iter().filter(|group| group.contender == Contender::Viplane);
    let slow = |group: &&Group| group.ratio_to_nftables.is_some_and(|ratio| ratio < budget);
    ours.filter(slow).map(|group| group.cell.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::groups;
    use crate::record::tests::run;

    #[test]
    fn a_budget_is_missed_by_ours_alone() {
        let runs = [
            run(Contender::Viplane, 1, 4e6),
            run(Contender::Forward, 1, 1.1e6),
            run(Contender::Nftables, 1, 1e6),
        ];
        let groups = groups(&runs);
        assert!(missed(&groups, 4.0).is_empty());
        assert_eq!(missed(&groups, 5.0), ["60 bytes, 1024 flows"]);
    }

    #[test]
    fn each_way_has_a_line() {
        let runs = [run(Contender::Discard, 1, 1e7), run(Contender::Nftables, 1, 1e6)];
        let text = text(&Machine::describe("/nonexistent".as_ref()), &groups(&runs));
        assert!(
            text.contains("| 60 | 1024 | kernel, nftables DNAT | 1.00 / 1.00 / 1.00 | 900 | 1.0 | 1 |"),
            "{text}"
        );
    }
}
