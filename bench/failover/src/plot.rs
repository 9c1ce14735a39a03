//! The picture: every move as a point on a logarithmic time axis, ours above keepalived's, medians as bars. By hand, since
//! it follows the reader's light or dark scheme by CSS, which chart libraries do not write.

use std::fmt::Write as _;

use vip_lab::stats::Sample;

use crate::record::{Cell, Contender, Event, Move};
use crate::summary::{Metric, cells};
use crate::table::{span, vip_counts};
use vip_lab::machine::Machine;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 24.0;
/// Height of a strip; a row has one per contender, and a gap.
const STRIP: f64 = 13.0;
const ROW_GAP: f64 = 8.0;
const HEAD: f64 = 58.0;
const PANEL_HEAD: f64 = 44.0;
const PANEL_FOOT: f64 = 30.0;
/// Nothing is drawn as less: a logarithm has no zero, and below this stamps say nothing.
const LEAST_US: f64 = 1.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2933}.h{font-size:18px;font-weight:600}.b{font-size:14px;font-weight:600}\
.s{font-size:11.5px;fill:#52606d}.bg{fill:#fff}.grid{stroke:#d9dee4;stroke-width:1}.rule{stroke:#eef1f4;stroke-width:1}\
.viplane{fill:#15803d}.keepalived{fill:#c2570c}.p{opacity:.42}.m{stroke-width:3;stroke-linecap:round}\
.m.viplane{stroke:#15803d}.m.keepalived{stroke:#c2570c}\
@media (prefers-color-scheme:dark){.bg{fill:#0d1117}text{fill:#e6edf3}.s{fill:#9da7b3}.grid{stroke:#30363d}.rule{stroke:#1c2128}\
.viplane{fill:#4ade80}.keepalived{fill:#fb923c}.m.viplane{stroke:#4ade80}.m.keepalived{stroke:#fb923c}}";

/// One axis with rows.
struct Panel {
    title: &'static str,
    explanation: &'static str,
    rows: Vec<Row>,
}

/// What is compared: microseconds of each contender.
struct Row {
    label: String,
    samples: [Sample; 2],
}

/// A logarithmic axis over whole decades.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    first: i32,
    last: i32,
}

/// The whole picture as SVG.
pub(crate) fn svg(machine: &Machine, moves: &[Move]) -> String {
    let panels: Vec<Panel> = panels(moves).into_iter().filter(|panel| !panel.rows.is_empty()).collect();
    let height = HEAD + panels.iter().map(Panel::height).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Times that moves of \
         VIPs take, viplane beside keepalived\">\n<style>{STYLE}</style>\n<rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    let Machine { kernel, cpus, keepalived, date, .. } = machine;
    let peer = keepalived.split('(').next().unwrap_or_default().trim();
    text(&mut svg, 16.0, 26.0, "h", "A VIP moves: viplane beside keepalived");
    text(
        &mut svg,
        16.0,
        46.0,
        "s",
        &format!("each point a move, each bar a median · {peer} · Linux {kernel}, {cpus} CPUs · {date}"),
    );
    legend(&mut svg);
    let mut top = HEAD;
    for panel in &panels {
        panel.draw(&mut svg, top);
        top += panel.height();
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    for (contender, x) in Contender::BOTH.into_iter().zip([WIDTH - 220.0, WIDTH - 120.0]) {
        let _ = writeln!(svg, "<circle class=\"{contender}\" cx=\"{x}\" cy=\"22\" r=\"5\"/>");
        text(svg, x + 10.0, 26.0, "t", &contender.to_string());
    }
}

fn panels(moves: &[Move]) -> [Panel; 4] {
    [
        Panel {
            title: "After the last word: how late the backup takes over",
            explanation: "first advertisement after what RFC 9568's timers ask for (crash, host dies: 3 intervals + skew; \
                          SIGTERM, drain: skew)",
            rows: by_event(moves, |event| event != Event::Preempt, Metric::LateUs, 1.0),
        },
        Panel {
            title: "First advertisement to first announcement",
            explanation: "gratuitous ARP or unsolicited NA, all events and intervals",
            rows: by_vips(moves, Metric::AdvertToAnnouncementUs),
        },
        Panel {
            title: "First advertisement until every VIP is announced",
            explanation: "all events and intervals",
            rows: by_vips(moves, Metric::AdvertToAllAnnouncedUs),
        },
        Panel {
            title: "What a client sees: longest time without an answer",
            explanation: "one request each millisecond",
            rows: by_event(moves, |event| event != Event::Crash, Metric::GapMs, 1e3),
        },
    ]
}

fn by_event(moves: &[Move], wanted: impl Fn(Event) -> bool, metric: Metric, unit_us: f64) -> Vec<Row> {
    let wanted = cells(moves).into_iter().filter(|(event, _)| wanted(*event));
    let row = |(event, cell): (Event, Cell)| {
        let sample = |contender| {
            let own = |moved: &Move| (moved.contender, moved.event, moved.cell()) == (contender, event, cell);
            metric.sample(moves, own).values().iter().map(|value| value * unit_us).collect()
        };
        Row { label: format!("{event}, {cell}"), samples: Contender::BOTH.map(sample) }
    };
    wanted.map(row).filter(Row::has_points).collect()
}

fn by_vips(moves: &[Move], metric: Metric) -> Vec<Row> {
    let row = |vips| {
        let sample =
            |contender| metric.sample(moves, |moved| (moved.contender, moved.vips) == (contender, vips));
        let label = if vips == 1 { "1 VIP".to_owned() } else { format!("{vips} VIPs") };
        Row { label, samples: Contender::BOTH.map(sample) }
    };
    vip_counts(moves).into_iter().map(row).filter(Row::has_points).collect()
}

// === impl Panel ===

impl Panel {
    fn height(&self) -> f64 {
        PANEL_HEAD + self.rows.len() as f64 * Row::HEIGHT + PANEL_FOOT
    }

    fn draw(&self, svg: &mut String, top: f64) {
        text(svg, 16.0, top + 16.0, "b", self.title);
        text(svg, 16.0, top + 33.0, "s", self.explanation);
        let axis = Axis::over(self.rows.iter().flat_map(|row| &row.samples));
        let (above, below) = (top + PANEL_HEAD, top + self.height() - PANEL_FOOT);
        for (micros, is_decade) in axis.ticks() {
            let x = axis.x(micros);
            let class = if is_decade { "grid" } else { "rule" };
            let _ = writeln!(
                svg,
                "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{above}\" y2=\"{below}\"/>"
            );
            if is_decade {
                let _ = writeln!(
                    svg,
                    "<text class=\"s\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                    below + 15.0,
                    decade(micros)
                );
            }
        }
        for (index, row) in self.rows.iter().enumerate() {
            row.draw(svg, above + index as f64 * Row::HEIGHT, axis);
        }
    }
}

// === impl Row ===

impl Row {
    const HEIGHT: f64 = 2.0 * STRIP + ROW_GAP;

    fn has_points(&self) -> bool {
        self.samples.iter().any(|sample| !sample.is_empty())
    }

    fn draw(&self, svg: &mut String, top: f64, axis: Axis) {
        let middle = top + ROW_GAP / 2.0 + STRIP;
        let _ = writeln!(
            svg,
            "<text text-anchor=\"end\" x=\"{}\" y=\"{}\">{}</text>",
            LEFT - 12.0,
            middle + 4.0,
            self.label
        );
        for (index, (contender, sample)) in Contender::BOTH.into_iter().zip(&self.samples).enumerate() {
            let center = middle + (index as f64 - 0.5) * STRIP;
            for (number, &micros) in sample.values().iter().enumerate() {
                // Neighbours in size at different heights, so that they do not hide each other.
                let y = center + [-3.0, 1.5, -1.5, 3.0, 0.0][number % 5];
                let x = axis.x(micros);
                let _ =
                    writeln!(svg, "<circle class=\"p {contender}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.4\"/>");
            }
            if let Some(median) = sample.quantile(0.5) {
                let (x, from, to) = (axis.x(median), center - 5.0, center + 5.0);
                let _ = writeln!(
                    svg,
                    "<line class=\"m {contender}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from:.1}\" y2=\"{to:.1}\"><title>{contender}: \
                     median {}, n = {}</title></line>",
                    span(median),
                    sample.len()
                );
            }
        }
    }
}

// === impl Axis ===

impl Axis {
    /// Whole decades, one at least, that hold all of `samples`.
    fn over<'a>(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let ends = samples.flat_map(|sample| [sample.quantile(0.0), sample.quantile(1.0)]).flatten();
        let (least, greatest) = ends
            .map(|value| value.max(LEAST_US))
            .fold((f64::MAX, LEAST_US), |(least, greatest), value| (least.min(value), greatest.max(value)));
        let first = least.min(greatest).log10().floor() as i32;
        Self { first, last: (greatest.log10().ceil() as i32).max(first + 1) }
    }

    fn x(self, micros: f64) -> f64 {
        let decades = f64::from(self.last - self.first);
        let part = (micros.max(LEAST_US).log10() - f64::from(self.first)) / decades;
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    /// 1, 2, 3 ... 9 of each decade; true for the 1.
    fn ticks(self) -> impl Iterator<Item = (f64, bool)> {
        let within = (self.first..self.last)
            .flat_map(|decade| (1..10).map(move |digit| (f64::from(digit) * 10f64.powi(decade), digit == 1)));
        within.chain([(10f64.powi(self.last), true)])
    }
}

/// `10 µs`, `1 ms`.
fn decade(micros: f64) -> String {
    let (value, unit) = match micros {
        few if few < 999.0 => (few, "µs"),
        more if more < 999_999.0 => (more / 1e3, "ms"),
        many => (many / 1e6, "s"),
    };
    format!("{value:.0} {unit}")
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{content}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::moved;

    #[test]
    fn the_axis_takes_whole_decades() {
        let sample: Sample = [30.0, 4000.0].into_iter().collect();
        let axis = Axis::over([&sample].into_iter());
        assert_eq!(axis, Axis { first: 1, last: 4 });
        assert_eq!(axis.x(10.0), LEFT);
        assert_eq!(axis.x(10_000.0), WIDTH - RIGHT);
        assert_eq!(axis.ticks().filter(|(_, decade)| *decade).count(), 4);
    }

    #[test]
    fn what_has_no_logarithm_stands_at_the_axis() {
        let sample: Sample = [-5.0, 0.0].into_iter().collect();
        let axis = Axis::over([&sample].into_iter());
        assert_eq!(axis, Axis { first: 0, last: 1 });
        assert_eq!((axis.x(-5.0), axis.x(0.0)), (LEFT, LEFT));
    }

    #[test]
    fn decades_are_written_in_the_unit_of_their_size() {
        let texts = [1.0, 10.0, 100.0, 1e3, 1e5, 1e6, 1e7].map(decade);
        assert_eq!(texts, ["1 µs", "10 µs", "100 µs", "1 ms", "100 ms", "1 s", "10 s"]);
    }

    #[test]
    fn every_move_is_a_point_in_each_panel_that_it_has_a_value_for() {
        let machine = Machine::describe("/nonexistent".as_ref());
        let moves = [
            moved(Contender::Viplane, Event::Sigterm, 1, 100.0, 0),
            moved(Contender::Keepalived, Event::Sigterm, 1, 3000.0, 0),
            moved(Contender::Viplane, Event::Sigterm, 1, 120.0, 0),
        ];
        let svg = svg(&machine, &moves);
        assert_eq!(svg.matches("\"p viplane\"").count(), 2 * 4);
        assert_eq!(svg.matches("\"p keepalived\"").count(), 4);
        assert_eq!(svg.matches("\"m keepalived\"").count(), 4, "a median in each panel");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
