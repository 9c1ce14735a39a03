//! The whole run: a lane per node, one for the client, pins where something was done.

use super::canvas::{Anchor, Area, Canvas};
use super::scale::Scale;
use super::{MARGIN, WIDTH, duration, pin, requests, style};
use crate::evidence::Evidence;
use crate::record::{NodeRecord, Run};

const TITLE: f64 = 42.0;
const SUBTITLE: f64 = 64.0;
const PINS: f64 = 98.0;
const LANES: f64 = 136.0;
const LANE: f64 = 26.0;
const PITCH: f64 = 34.0;
const LABELS: f64 = 146.0;
/// Pixels of a column of requests.
const COLUMN: f64 = 2.0;
/// A pin's words need so much room to the next pin.
const WORDS: f64 = 150.0;

pub(super) fn height(run: &Run) -> f64 {
    axis(run) + 56.0
}

pub(super) fn draw(canvas: &mut Canvas, run: &Run, evidence: &Evidence, headline: &str) {
    let left = MARGIN + LABELS;
    let scale = Scale { from: 0.0, to: run.duration_ms, left, width: WIDTH - MARGIN - left };
    canvas.text("h", (MARGIN, TITLE), Anchor::Start, headline);
    canvas.text("s", (MARGIN, SUBTITLE), Anchor::Start, &subtitle(run));
    verdict(canvas, run);
    draw_axis(canvas, run, &scale);
    for (index, node) in run.nodes.iter().enumerate() {
        draw_node(canvas, run, evidence, &scale, (index + 1, node));
    }
    let y = lane(run.nodes.len());
    canvas.text("b", (MARGIN, y + 13.0), Anchor::Start, "client");
    canvas.text(
        "s",
        (MARGIN, y + 27.0),
        Anchor::Start,
        &format!("a request every {}", duration(run.options.request_every_ms)),
    );
    let step = (COLUMN * scale.per_pixel()).max(4.0 * run.options.request_every_ms);
    requests::draw(canvas, evidence, &scale, y, LANE, step);
    draw_pins(canvas, run, &scale);
    draw_legend(canvas, run);
}

fn lane(index: usize) -> f64 {
    LANES + index as f64 * PITCH
}

fn axis(run: &Run) -> f64 {
    lane(run.nodes.len() + 1)
}

fn subtitle(run: &Run) -> String {
    let vips: Vec<String> = run.options.watched_vips.iter().map(ToString::to_string).collect();
    let more = run.options.vips.saturating_sub(vips.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let client = &run.client;
    format!("VIP {}{more} · {} requests, {} lost in all", vips.join(" and "), client.requests, client.lost)
}

fn verdict(canvas: &mut Canvas, run: &Run) {
    let place = (WIDTH - MARGIN, TITLE);
    if run.ok {
        canvas.text("b", place, Anchor::End, "never two owners, all as expected");
    } else {
        canvas.text("b r", place, Anchor::End, &format!("{} expectations failed", run.failures.len()));
    }
}

fn draw_axis(canvas: &mut Canvas, run: &Run, scale: &Scale) {
    let bottom = axis(run) - 4.0;
    for at in scale.marks(0.0, 16) {
        let x = scale.x(at);
        canvas.line("grid", (x, LANES - 6.0), (x, bottom));
        canvas.text("s", (x, bottom + 16.0), Anchor::Middle, &format!("{} s", at / 1e3));
    }
}

fn draw_node(
    canvas: &mut Canvas,
    run: &Run,
    evidence: &Evidence,
    scale: &Scale,
    (number, node): (usize, &NodeRecord),
) {
    let y = lane(number - 1);
    let area = |from: f64, to: f64, inset: f64| Area {
        x: scale.x(from),
        y: y + inset,
        width: scale.x(to) - scale.x(from),
        height: LANE - 2.0 * inset,
    };
    canvas.text("b", (MARGIN, y + 13.0), Anchor::Start, &node.name);
    canvas.text(
        "s",
        (MARGIN, y + 27.0),
        Anchor::Start,
        &format!("{}, priority {}", node.runs, node.priority),
    );
    canvas.rect("lane", area(scale.from, scale.to, 0.0), 3.0);
    for outage in run.outages.iter().filter(|outage| outage.node == number) {
        let (from, to) = (outage.from_ms, outage.to_ms.unwrap_or(scale.to));
        canvas.rect("out", area(from, to, 2.0), 3.0);
        canvas.text("s", ((scale.x(from) + scale.x(to)) / 2.0, y + 17.0), Anchor::Middle, outage.why);
    }
    // Families move together; where they do not, the lane shows both spans one over the other.
    for family in &evidence.families {
        for span in family.spans().iter().filter(|span| span.node == number) {
            canvas.rect(&style::node(number), area(span.from_ms, span.to_ms, 0.0), 3.0);
        }
    }
}

fn draw_pins(canvas: &mut Canvas, run: &Run, scale: &Scale) {
    let bottom = axis(run) - 4.0;
    let room = |index: usize| {
        let here = run.events[index].at_ms;
        scale.x(run.events.get(index + 1).map_or(scale.to, |next| next.at_ms)) - scale.x(here)
    };
    // All or none: some pins with words and some without look like an accident.
    let words = (0..run.events.len()).all(|index| room(index) >= WORDS);
    for (index, event) in run.events.iter().enumerate() {
        let x = scale.x(event.at_ms);
        canvas.line("mark", (x, PINS + 9.0), (x, bottom));
        pin(canvas, (x, PINS), index + 1);
        if words {
            canvas.text("b", (x + 14.0, PINS - 1.0), Anchor::Start, &event.event.title());
            let gap = event.gap_ms.map_or("no answers".into(), |gap| format!("gap {}", duration(gap)));
            canvas.text("s", (x + 14.0, PINS + 14.0), Anchor::Start, &format!("{gap}, {} lost", event.lost));
        }
    }
}

fn draw_legend(canvas: &mut Canvas, run: &Run) {
    let y = axis(run) + 36.0;
    let mut x = MARGIN + LABELS;
    let mut entry = |canvas: &mut Canvas, class: &str, text: &str, room: f64| {
        canvas.rect(class, Area { x, y: y - 10.0, width: 14.0, height: 11.0 }, 2.0);
        canvas.text("s", (x + 20.0, y), Anchor::Start, text);
        x += room;
    };
    entry(canvas, &style::node(1), "this node answers ARP and ND for the VIP, or the request", 378.0);
    entry(canvas, "lane", "silent", 76.0);
    entry(canvas, "out", "cannot own", 104.0);
    entry(canvas, "lost", "request lost", 108.0);
    canvas.line("ad0", (x + 7.0, y - 10.0), (x + 7.0, y + 1.0));
    canvas.text("s", (x + 20.0, y), Anchor::Start, "advert (in the close-ups)");
}
