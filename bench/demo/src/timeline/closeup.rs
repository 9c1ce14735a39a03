//! One move, close up: the old owner, the new one and the client, in milliseconds from the event.

use super::canvas::{Anchor, Area, Canvas};
use super::scale::Scale;
use super::{duration, micros, pin, requests, style};
use crate::evidence::{Evidence, Family, Ms, NodeNumber};
use crate::measure::Kind;
use crate::record::{EventRecord, Run};

pub(super) const HEIGHT: f64 = 222.0;

const LABELS: f64 = 66.0;
const PADDING: f64 = 16.0;
/// For the half of the last mark's text.
const EDGE: f64 = 18.0;
/// A column of requests holds so many, as long as all goes well: fewer make a moire.
const REQUESTS: f64 = 4.0;
const LANES: f64 = 96.0;
const LANE: f64 = 20.0;
const PITCH: f64 = 26.0;
/// Shorter gaps are the client's ordinary pace.
const WORTH_A_BRACKET: Ms = 8.0;

/// What is drawn, and where.
pub(super) struct Closeup<'a> {
    pub(super) number: usize,
    pub(super) event: &'a EventRecord,
    pub(super) run: &'a Run,
    pub(super) evidence: &'a Evidence,
    pub(super) area: Area,
}

pub(super) fn draw(canvas: &mut Canvas, closeup: &Closeup<'_>) {
    let Closeup { number, event, evidence, area, .. } = *closeup;
    let scale = closeup.scale();
    let text_x = area.x + PADDING + 26.0;
    canvas.rect("card", area, 8.0);
    pin(canvas, (area.x + PADDING + 9.0, area.y + 24.0), number);
    canvas.text("b", (text_x, area.y + 28.0), Anchor::Start, &closeup.title());
    canvas.text("s", (text_x, area.y + 46.0), Anchor::Start, &closeup.phases());
    canvas.text(
        if event.failures.is_empty() { "b" } else { "b r" },
        (area.x + area.width - PADDING, area.y + 28.0),
        Anchor::End,
        &outcome(event),
    );
    closeup.draw_axis(canvas, &scale);
    let lanes = [event.event.from, event.event.to];
    for (index, node) in lanes.into_iter().enumerate() {
        closeup.draw_node(canvas, &scale, node, closeup.lane(index));
    }
    let y = closeup.lane(lanes.len());
    canvas.text("b", (area.x + PADDING, y + 15.0), Anchor::Start, "client");
    let step = scale.per_pixel().max(REQUESTS * closeup.run.options.request_every_ms);
    requests::draw(canvas, evidence, &scale, y, LANE, step);
    closeup.draw_brackets(canvas, &scale);
}

fn outcome(event: &EventRecord) -> String {
    let gap = event.gap_ms.map_or("no answers".into(), |gap| format!("gap {}", duration(gap)));
    format!("{gap}, {} of {} lost", event.lost, event.requests)
}

impl Closeup<'_> {
    /// What the new owner tells of itself.
    fn phases(&self) -> String {
        let EventRecord { detect_us, decide_us, flip_us, announce_us, .. } = *self.event;
        let heir = self.run.nodes.get(self.event.event.to - 1);
        let active_down = match heir {
            Some(heir) if !self.event.kind.is_planned() => {
                format!("Active_Down {} · ", duration(heir.active_down_ms))
            }
            _ => String::new(),
        };
        let (Some(detect), Some(decide), Some(flip), Some(announce)) =
            (detect_us, decide_us, flip_us, announce_us)
        else {
            return format!("{active_down}keepalived tells no phases");
        };
        let [detect, decide, flip, announce] = [detect, decide, flip, announce].map(micros);
        format!("{active_down}detect {detect} · decide {decide} · flip {flip} · announce {announce}")
    }

    fn title(&self) -> String {
        format!("{}: {} → {}", self.event.event.title(), self.event.from, self.event.to)
    }

    /// From the former owner's last adverts to some time after the move.
    fn scale(&self) -> Scale {
        let measures = &self.event.measures;
        let advert = self.run.options.advert_ms;
        let at = self.event.at_ms;
        let moved = measures.moved.unwrap_or(at + 3.0 * advert);
        // The agent's start takes most of a return: the move itself is at its end.
        let begin = if self.event.event.kind == Kind::Return { moved } else { at };
        let begin = measures.last_advert.map_or(begin, |last| last.min(begin));
        let (gap_from, gap_to) = self.gap().unwrap_or((begin, moved));
        let (begin, end) = (begin.min(gap_from), moved.max(gap_to));
        let span = (end - begin).max(advert * 0.5).max(20.0);
        let left = self.area.x + PADDING + LABELS;
        let width = self.area.width - 2.0 * PADDING - LABELS - EDGE;
        let from = (begin - span * 0.18).max(0.0);
        Scale { from, to: end + span * 0.25, left, width }
    }

    /// The gap, if it is more than the client's ordinary pace.
    fn gap(&self) -> Option<(Ms, Ms)> {
        self.event.measures.gap.filter(|(from, to)| to - from >= WORTH_A_BRACKET)
    }

    fn lane(&self, index: usize) -> f64 {
        self.area.y + LANES + index as f64 * PITCH
    }

    fn draw_axis(&self, canvas: &mut Canvas, scale: &Scale) {
        let zero = self.zero();
        let bottom = self.lane(3) - 2.0;
        for at in scale.marks(zero, 9) {
            let x = scale.x(at);
            canvas.line("grid", (x, self.lane(0) - 5.0), (x, bottom));
            canvas.text("s", (x, bottom + 15.0), Anchor::Middle, &format!("{:.0} ms", at - zero));
        }
        if scale.shows(self.event.at_ms, self.event.at_ms) {
            let x = scale.x(self.event.at_ms);
            canvas.line("mark", (x, self.lane(0) - 6.0), (x, bottom));
        }
    }

    /// What the axis counts from: the event, or the move where the event is long before.
    fn zero(&self) -> Ms {
        let moved = self.event.measures.moved.filter(|_| self.event.event.kind == Kind::Return);
        moved.unwrap_or(self.event.at_ms)
    }

    fn draw_node(&self, canvas: &mut Canvas, scale: &Scale, node: NodeNumber, y: f64) {
        let place = Area { x: scale.left, y, width: scale.width, height: LANE };
        canvas.text("b", (self.area.x + PADDING, y + 15.0), Anchor::Start, &format!("node{node}"));
        canvas.rect("lane", place, 3.0);
        let owned: Vec<(Ms, Ms)> = self
            .evidence
            .families
            .iter()
            .flat_map(Family::spans)
            .filter(|span| span.node == node && scale.shows(span.from_ms, span.to_ms))
            .map(|span| (span.from_ms, span.to_ms))
            .collect();
        for &(from, to) in &owned {
            let x = scale.x(from);
            canvas.rect(&style::node(node), Area { x, width: scale.x(to) - x, ..place }, 2.0);
        }
        let sent =
            self.evidence.adverts.iter().filter(|sent| sent.by == node && scale.shows(sent.at, sent.at));
        for sent in sent {
            let x = scale.x(sent.at);
            let over = owned.iter().any(|&(from, to)| (from..=to).contains(&sent.at));
            canvas.line(if over { "ad" } else { "ad0" }, (x, y + 4.0), (x, y + LANE - 4.0));
        }
    }

    fn draw_brackets(&self, canvas: &mut Canvas, scale: &Scale) {
        let measures = &self.event.measures;
        if let (Some(last), Some(announced)) = (measures.last_advert, measures.announced) {
            let text = format!("last advert to announcement: {}", duration(announced - last));
            bracket(
                canvas,
                "span",
                (scale.x(last), scale.x(announced), scale.right()),
                self.lane(0) - 12.0,
                "s",
                &text,
            );
        }
        if let Some((from, to)) = self.gap() {
            let y = self.lane(3) + 36.0;
            let text = format!("gap {}", duration(to - from));
            bracket(canvas, "bad", (scale.x(from), scale.x(to), scale.right()), y, "r", &text);
        }
    }
}

/// A span with a word: over it if there is room, else beside it.
fn bracket(
    canvas: &mut Canvas,
    class: &str,
    (from, to, right): (f64, f64, f64),
    y: f64,
    words: &str,
    text: &str,
) {
    canvas.line(class, (from, y), (to, y));
    for x in [from, to] {
        canvas.line(class, (x, y - 4.0), (x, y + 4.0));
    }
    let estimate = text.chars().count() as f64 * 6.4;
    if to - from > estimate + 16.0 {
        canvas.text(words, ((from + to) / 2.0, y - 5.0), Anchor::Middle, text);
    } else if to + 8.0 + estimate < right {
        canvas.text(words, (to + 8.0, y + 4.0), Anchor::Start, text);
    } else {
        canvas.text(words, (from - 8.0, y + 4.0), Anchor::End, text);
    }
}
