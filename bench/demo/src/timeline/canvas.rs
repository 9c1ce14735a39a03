//! Shapes by class, in pixels; colours are the style sheet's business.

use svg::node::Text;
use svg::node::element::Element;
use svg::{Document, Node as _};

/// A picture that grows downwards.
pub(super) struct Canvas {
    document: Document,
}

/// Which point of a text is at its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Canvas {
    /// `title` is what a screen reader says.
    pub(super) fn new(style: &str, title: &str) -> Self {
        let mut document = Document::new().set("role", "img").set("aria-label", title.replace('"', "'"));
        let mut sheet = Element::new("style");
        sheet.append(Text::new(style));
        document.append(sheet);
        Self { document }
    }

    pub(super) fn rect(&mut self, class: &str, area: Area, radius: f64) {
        // Narrower than this nothing is seen.
        let width = area.width.max(0.6);
        self.shape(
            "rect",
            class,
            &[
                ("x", area.x),
                ("y", area.y),
                ("width", width),
                ("height", area.height),
                ("rx", radius.min(width / 2.0)),
            ],
        );
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.shape("line", class, &[("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)]);
    }

    pub(super) fn circle(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        self.shape("circle", class, &[("cx", x), ("cy", y), ("r", radius)]);
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let mut element = Element::new("text");
        element.assign("class", class);
        element.assign("x", rounded(x));
        element.assign("y", rounded(y));
        match anchor {
            Anchor::Start => {}
            Anchor::Middle => element.assign("text-anchor", "middle"),
            Anchor::End => element.assign("text-anchor", "end"),
        }
        element.append(Text::new(text));
        self.document.append(element);
    }

    /// The picture, cut to its size.
    pub(super) fn finish(self, width: f64, height: f64) -> String {
        let view = format!("0 0 {} {}", rounded(width), rounded(height));
        format!("{}\n", self.document.set("viewBox", view))
    }

    fn shape(&mut self, name: &str, class: &str, numbers: &[(&str, f64)]) {
        let mut element = Element::new(name);
        element.assign("class", class);
        for &(name, number) in numbers.iter().filter(|(_, number)| *number != 0.0) {
            element.assign(name, rounded(number));
        }
        self.document.append(element);
    }
}

/// Tenths of pixels: more is not seen, and costs space.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
