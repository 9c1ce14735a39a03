//! The picture: the whole run in lanes, and a close-up of each move.

mod canvas;
mod closeup;
mod overview;
mod requests;
mod scale;
mod style;

use canvas::{Anchor, Area, Canvas};

use crate::evidence::Evidence;
use crate::record::Run;

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 24.0;
const SPACE: f64 = 16.0;
/// More close-ups than this help nobody: the first rounds stand for all.
const MOST_CLOSEUPS: usize = 8;

/// The run as SVG.
pub(crate) fn render(run: &Run, evidence: &Evidence) -> String {
    let mut canvas = Canvas::new(&style::sheet(), &headline(run));
    let closeups = &run.events[..run.events.len().min(MOST_CLOSEUPS)];
    let top = overview::height(run) + SPACE;
    let rows = closeups.len().div_ceil(2);
    let height = top + rows as f64 * (closeup::HEIGHT + SPACE) + MARGIN - SPACE;
    canvas.rect("bg", Area { x: 0.0, y: 0.0, width: WIDTH, height }, 10.0);
    overview::draw(&mut canvas, run, evidence, &headline(run));
    let width = (WIDTH - 2.0 * MARGIN - SPACE) / 2.0;
    for (index, event) in closeups.iter().enumerate() {
        let x = MARGIN + (index % 2) as f64 * (width + SPACE);
        let y = top + (index / 2) as f64 * (closeup::HEIGHT + SPACE);
        let area = Area { x, y, width, height: closeup::HEIGHT };
        closeup::draw(&mut canvas, &closeup::Closeup { number: index + 1, event, run, evidence, area });
    }
    canvas.finish(WIDTH, height)
}

fn headline(run: &Run) -> String {
    format!("One VIP, {} nodes, adverts every {}", run.nodes.len(), duration(run.options.advert_ms))
}

/// Milliseconds as people write them.
fn duration(ms: f64) -> String {
    if ms >= 1000.0 {
        format!("{} s", (ms / 10.0).round() / 100.0)
    } else if ms >= 100.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{} ms", (ms * 10.0).round() / 10.0)
    }
}

/// Microseconds as people write them.
fn micros(us: f64) -> String {
    if us >= 1000.0 { duration(us / 1e3) } else { format!("{us:.0} µs") }
}

/// A numbered pin.
fn pin(canvas: &mut Canvas, (x, y): (f64, f64), number: usize) {
    canvas.circle("pin", (x, y), 9.0);
    canvas.text("w", (x, y + 4.2), Anchor::Middle, &number.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::one_move;
    use crate::measure::Kind;
    use crate::measure::tests::event;
    use crate::options::tests::plan;
    use crate::record::{Outage, Told};

    fn picture(rounds: usize) -> String {
        let evidence = one_move(1, 2, 1000.0, 1326.0, 4000.0);
        let outages = vec![Outage { node: 1, why: "<killed> & gone", from_ms: 1000.0, to_ms: None }];
        let events = vec![event(Kind::Crash, 1000.0); rounds];
        let told = Told { events, outages, end: 4000.0, ..Told::default() };
        render(&Run::new(&plan(100), told, &evidence), &evidence)
    }

    #[test]
    fn it_is_well_formed_whatever_names_hold() {
        for rounds in [0, 1, 3, 20] {
            let picture = picture(rounds);
            let parsed = roxmltree::Document::parse(&picture).unwrap();
            assert!(parsed.root_element().attribute("viewBox").is_some());
            assert!(parsed.descendants().any(|node| node.text() == Some("<killed> & gone")));
        }
    }

    #[test]
    fn losses_are_red_and_the_gap_is_named() {
        let picture = picture(1);
        let parsed = roxmltree::Document::parse(&picture).unwrap();
        let reds = parsed.descendants().filter(|node| node.attribute("class") == Some("lost")).count();
        assert!(reds >= 2, "one in the overview, one in the close-up");
        assert!(picture.contains("gap 326 ms"), "{picture}");
    }

    #[test]
    fn nothing_leaves_the_picture() {
        let picture = picture(3);
        let parsed = roxmltree::Document::parse(&picture).unwrap();
        for node in parsed.descendants().filter(|node| node.has_tag_name("rect")) {
            let number = |name: &str| node.attribute(name).map_or(0.0, |value| value.parse::<f64>().unwrap());
            assert!(number("x") >= 0.0 && number("x") + number("width") <= WIDTH + 0.1, "{node:?}");
        }
    }

    #[test]
    fn times_read_well() {
        assert_eq!(
            [0.54, 10.0, 326.04, 1000.0, 3610.0].map(duration),
            ["0.5 ms", "10 ms", "326 ms", "1 s", "3.61 s"]
        );
        assert_eq!([4.4, 999.0, 30_500.0].map(micros), ["4 µs", "999 µs", "30.5 ms"]);
    }
}
