//! The picture: for each cell every measurement as a point, medians as bars. By hand, as bench/failover's: it follows the
//! reader's light or dark scheme by CSS.

use std::fmt::Write as _;

use vip_lab::machine::Machine;

use crate::contender::Contender;
use crate::record::{Cell, Group, Run, cells};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 90.0;
const HEAD: f64 = 84.0;
const FOOT: f64 = 34.0;
/// Height of a contender's strip, and of the gap between cells.
const STRIP: f64 = 14.0;
const GAP: f64 = 26.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2933}.h{font-size:18px;font-weight:600}.b{font-weight:600}\
.s{font-size:11.5px;fill:#52606d}.bg{fill:#fff}.grid{stroke:#d9dee4;stroke-width:1}\
.discard{fill:#8895a5}.reflect{fill:#2563eb}.viplane{fill:#15803d}.forward{fill:#a16207}.nftables{fill:#c2570c}.ipvs{fill:#9333ea}\
.m{opacity:.55}.p{opacity:.9}\
@media (prefers-color-scheme:dark){.bg{fill:#0d1117}text{fill:#e6edf3}.s{fill:#9da7b3}.grid{stroke:#30363d}\
.discard{fill:#6e7b8b}.reflect{fill:#60a5fa}.viplane{fill:#4ade80}.forward{fill:#eab308}.nftables{fill:#fb923c}.ipvs{fill:#c084fc}}";

/// The whole picture as SVG.
pub(crate) fn svg(machine: &Machine, groups: &[Group], runs: &[Run]) -> String {
    let cells = cells(runs);
    let of = |cell: Cell| groups.iter().filter(move |group| group.cell == cell);
    let below: f64 = cells.iter().map(|cell| of(*cell).count() as f64 * STRIP + GAP).sum();
    let height = HEAD + below + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Packets per second \
         through a node to a backend\">\n<style>{STYLE}</style>\n<rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    let Machine { kernel, cpu, date, .. } = machine;
    text(&mut svg, 16.0, 26.0, "h", "Packets per second to a backend");
    let about = format!("one CPU does all: sender, node and receiver · {cpu} · Linux {kernel} · {date}");
    text(&mut svg, 16.0, 45.0, "s", &about);
    legend(&mut svg);
    let axis = Axis::over(runs);
    for rate in axis.ticks() {
        let x = axis.x(rate);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{HEAD}\" y2=\"{}\"/>\n<text class=\"s\" text-anchor=\"middle\" x=\"{x:.1}\" \
             y=\"{}\">{} M</text>",
            height - FOOT,
            height - FOOT + 16.0,
            rate / 1e6
        );
    }
    let mut top = HEAD + GAP / 2.0;
    for cell in cells {
        let count = of(cell).count() as f64;
        let label = cell.to_string();
        let middle = top + count * STRIP / 2.0 + 4.0;
        let _ =
            writeln!(svg, "<text text-anchor=\"end\" x=\"{}\" y=\"{middle:.1}\">{label}</text>", LEFT - 12.0);
        for group in of(cell) {
            strip(&mut svg, top, axis, group, runs);
            top += STRIP;
        }
        top += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let mut x = 16.0;
    for contender in Contender::ALL {
        let _ =
            writeln!(svg, "<circle class=\"{}\" cx=\"{}\" cy=\"64\" r=\"5\"/>", contender.name(), x + 5.0);
        let label = contender.to_string();
        text(svg, x + 15.0, 68.0, "s", &label);
        x += 45.0 + 6.3 * label.len() as f64;
    }
}

fn strip(svg: &mut String, top: f64, axis: Axis, group: &Group, runs: &[Run]) {
    let class = group.contender.name();
    let end = axis.x(group.median);
    let _ = writeln!(
        svg,
        "<rect class=\"m {class}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\"><title>{}: median {:.2} M/s</title></rect>",
        top + 1.5,
        end - LEFT,
        STRIP - 3.0,
        group.contender,
        group.median / 1e6
    );
    let own = runs.iter().filter(|run| (run.contender, run.cell) == (group.contender, group.cell));
    for run in own {
        let _ = writeln!(
            svg,
            "<circle class=\"p {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.8\"/>",
            axis.x(run.per_second),
            top + STRIP / 2.0
        );
    }
    if let Some(ratio) = group.ratio_to_nftables.filter(|_| group.contender == Contender::Viplane) {
        let x = WIDTH - RIGHT + 8.0;
        text(svg, x, top + STRIP - 3.5, "b", &format!("{ratio:.1} x DNAT"));
    }
}

/// From zero to a whole number of steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    step: f64,
    last: f64,
}

// === impl Axis ===

impl Axis {
    /// Ten steps at most.
    fn over(runs: &[Run]) -> Self {
        let greatest = runs.iter().map(|run| run.per_second).fold(1e5, f64::max);
        let steps = [1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7];
        let step = steps.into_iter().find(|step| greatest / step <= 10.0).unwrap_or(1e8);
        Self { step, last: (greatest / step).ceil() * step }
    }

    fn x(self, rate: f64) -> f64 {
        LEFT + rate / self.last * (WIDTH - LEFT - RIGHT)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        let count = (self.last / self.step).round() as u32;
        (0..=count).map(move |number| f64::from(number) * self.step)
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{content}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::groups;
    use crate::record::tests::run;

    #[test]
    fn the_axis_takes_whole_steps_from_zero() {
        let axis = Axis::over(&[run(Contender::Discard, 1, 8.3e6)]);
        assert_eq!(axis, Axis { step: 1e6, last: 9e6 });
        assert_eq!((axis.x(0.0), axis.x(9e6)), (LEFT, WIDTH - RIGHT));
        assert_eq!(axis.ticks().count(), 10);
    }

    #[test]
    fn every_measurement_is_a_point_and_every_way_a_bar() {
        let runs = [
            run(Contender::Viplane, 1, 4e6),
            run(Contender::Viplane, 2, 4.1e6),
            run(Contender::Nftables, 1, 0.6e6),
        ];
        let svg = svg(&Machine::describe("/nonexistent".as_ref()), &groups(&runs), &runs);
        assert_eq!((svg.matches("\"p viplane\"").count(), svg.matches("\"m viplane\"").count()), (2, 1));
        assert!(svg.contains("6.7 x DNAT"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
