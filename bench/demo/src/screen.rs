//! The terminal: a block that is redrawn in place below lines that stay; plain lines where there is no terminal.

use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::evidence::{Ms, NodeNumber};

/// Attributes off, cursor shown, what is below the cursor erased.
pub(crate) const RESTORE: &str = "\x1b[0m\x1b[?25h\x1b[J";
const HIDE_CURSOR: &str = "\x1b[?25l";
/// Without a terminal that tells its size.
const USUAL_WIDTH: usize = 80;
/// Columns before the strip.
const LABEL: usize = 32;
/// Colours of nodes in the terminal's palette of 256, like those of the picture; red is for losses.
const COLOURS: [u8; 8] = [33, 214, 141, 37, 205, 106, 130, 244];
const RED: u8 = 196;

/// Where lines go.
pub(crate) struct Screen {
    in_place: bool,
    colours: bool,
    /// Lines of the block as it stands.
    drawn: usize,
}

/// What the block shows.
pub(crate) struct View<'a> {
    pub(crate) seconds: f64,
    pub(crate) vips: &'a [IpAddr],
    /// By number, node1 first.
    pub(crate) nodes: &'a [NodeView],
    pub(crate) owner: Option<NodeNumber>,
    pub(crate) cells: &'a [Cell],
    pub(crate) per_second: usize,
    pub(crate) lost: usize,
}

/// A node in a [`View`].
pub(crate) struct NodeView {
    pub(crate) role: &'static str,
    pub(crate) priority: u8,
    pub(crate) keepalived: bool,
}

/// A column of the strip.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    /// Who answered for the VIP.
    pub(crate) owner: Option<NodeNumber>,
    /// Who answered requests.
    pub(crate) by: Option<NodeNumber>,
    /// Requests that were lost.
    pub(crate) lost: usize,
}

impl Cell {
    /// Milliseconds that a cell stands for.
    pub(crate) const SPAN: Ms = 250.0;
}

impl Screen {
    /// In place on a terminal that can, unless `plain`; colours unless NO_COLOR is set.
    pub(crate) fn new(plain: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let in_place = !plain && !dumb && std::io::stdout().is_terminal();
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { in_place, colours, drawn: 0 }
    }

    pub(crate) fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, line: &str) -> Result<()> {
        let erase = self.erase();
        self.drawn = 0;
        self.write(&format!("{erase}{line}\n"))
    }

    /// Text that stays, after the block is gone.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        self.note(text)
    }

    /// The block, over the one that stands.
    pub(crate) fn draw(&mut self, view: &View<'_>) -> Result<()> {
        let lines = block(view, width(), self.colours);
        let text = format!("{HIDE_CURSOR}{}{}\n", self.erase(), lines.join("\n"));
        self.drawn = lines.len();
        self.write(&text)
    }

    /// Erases the block and leaves the terminal as it was.
    pub(crate) fn finish(&mut self) {
        if self.in_place {
            let text = format!("{}{RESTORE}", self.erase());
            self.drawn = 0;
            // Nothing is left to be done about a terminal that is gone.
            let _ = self.write(&text);
        }
    }

    fn erase(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r\x1b[J", self.drawn) }
    }

    fn write(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.finish();
    }
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|&columns| columns > 0)
        .unwrap_or(USUAL_WIDTH)
}

/// The block's lines, none wider than `width`.
fn block(view: &View<'_>, width: usize, colours: bool) -> Vec<String> {
    let paint = |text: &str, colour: u8| {
        if colours { format!("\x1b[38;5;{colour}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let strip = width.saturating_sub(LABEL + 1);
    let cells = &view.cells[view.cells.len().saturating_sub(strip)..];
    let vips: Vec<String> = view.vips.iter().map(ToString::to_string).collect();
    let owner = view.owner.map_or("nobody".into(), |node| format!("node{node}"));
    let head = format!("{:7.2} s  {} answered by {owner}", view.seconds, vips.join(" "));
    let mut lines = vec![cut("", width), cut(&head, width)];
    for (number, node) in (1..).zip(view.nodes) {
        let owns = view.owner == Some(number);
        let what = if node.keepalived { "keepalived" } else { "" };
        let label = format!(
            "{} node{number:<2} {:>3} {:<9} {what}",
            if owns { '●' } else { '○' },
            node.priority,
            node.role
        );
        let label = format!("  {:<1$}", cut(&label, LABEL - 2), LABEL - 2);
        let marks: String = cells
            .iter()
            .map(|cell| if cell.owner == Some(number) { paint("█", colour(number)) } else { paint("·", 240) })
            .collect();
        let label = cut(&label, width);
        lines.push(format!("{}{marks}", if owns { paint(&label, colour(number)) } else { label }));
    }
    let label = format!("  {:<1$}", format!("client {}/s, {} lost", view.per_second, view.lost), LABEL - 2);
    let marks: String = cells
        .iter()
        .map(|cell| match (cell.lost, cell.by) {
            (1.., _) => paint("×", RED),
            (0, Some(node)) => paint("▂", colour(node)),
            (0, None) => " ".into(),
        })
        .collect();
    lines.push(format!("{}{marks}", cut(&label, width)));
    lines
}

fn colour(node: NodeNumber) -> u8 {
    COLOURS[(node - 1) % COLOURS.len()]
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(width: usize) -> Vec<String> {
        let node = |role, priority| NodeView { role, priority, keepalived: false };
        let owned = |owner, lost| Cell { owner: Some(owner), by: Some(owner), lost };
        let view = View {
            seconds: 12.3,
            vips: &["10.0.0.50".parse().unwrap()],
            nodes: &[node("killed", 200), node("OWNER", 190)],
            owner: Some(2),
            cells: &[owned(1, 0), owned(1, 0), Cell::default(), owned(2, 3), owned(2, 0)],
            per_second: 998,
            lost: 3,
        };
        block(&view, width, false)
    }

    #[test]
    fn each_node_has_a_strip_of_when_it_owned_and_the_client_one_of_who_answered() {
        assert_eq!(
            lines(80),
            [
                "",
                "  12.30 s  10.0.0.50 answered by node2",
                "  ○ node1  200 killed           ██···",
                "  ● node2  190 OWNER            ···██",
                "  client 998/s, 3 lost          ▂▂ ×▂",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [1, 20, 34, 36, 200] {
            assert!(
                lines(width).iter().all(|line| line.chars().count() <= width),
                "{width}: {:#?}",
                lines(width)
            );
        }
    }
}
