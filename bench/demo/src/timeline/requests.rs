//! The client's lane: columns of requests, coloured by who answered, red as far as they were lost.

use super::canvas::{Area, Canvas};
use super::scale::Scale;
use super::style;
use crate::evidence::{Asked, Evidence, Ms, NodeNumber};

/// A column's worth of requests; neighbours that look the same are one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) from: Ms,
    pub(super) to: Ms,
    /// Who answered most of them.
    pub(super) by: Option<NodeNumber>,
    /// How many of them were lost, in eighths; never none if one was.
    pub(super) lost: usize,
}

const EIGHTHS: usize = 8;

/// Columns of `width` milliseconds from `from` to `to`.
pub(super) fn columns(evidence: &Evidence, from: Ms, to: Ms, width: Ms) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let count = ((to - from) / width).ceil() as usize;
    for index in 0..count {
        let begin = from + index as f64 * width;
        let asked = evidence.asked_between(begin, begin + width);
        if asked.is_empty() {
            continue;
        }
        let lost = asked.iter().filter(|asked| asked.by.is_none()).count();
        let column = Column {
            from: begin,
            to: begin + width,
            by: most(asked),
            lost: (lost * EIGHTHS).div_ceil(asked.len()),
        };
        match columns.last_mut() {
            Some(last)
                if last.by == column.by && last.lost == column.lost && begin - last.to < width / 2.0 =>
            {
                last.to = column.to;
            }
            _ => columns.push(column),
        }
    }
    columns
}

pub(super) fn draw(canvas: &mut Canvas, evidence: &Evidence, scale: &Scale, y: f64, height: f64, step: Ms) {
    canvas.rect("lane", Area { x: scale.left, y, width: scale.width, height }, 3.0);
    for Column { from, to, by, lost } in columns(evidence, scale.from, scale.to, step) {
        let (x, width) = (scale.x(from), scale.x(to) - scale.x(from));
        let red = height * lost as f64 / EIGHTHS as f64;
        if let Some(node) = by {
            canvas.rect(&style::node(node), Area { x, y, width, height: height - red }, 0.0);
        }
        if lost > 0 {
            canvas.rect("lost", Area { x, y: y + height - red, width: width.max(1.5), height: red }, 0.0);
        }
    }
}

fn most(asked: &[Asked]) -> Option<NodeNumber> {
    let answered = || asked.iter().filter_map(|asked| asked.by);
    answered().max_by_key(|&node| answered().filter(|&by| by == node).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::one_move;

    #[test]
    fn neighbours_that_look_the_same_are_one_column_and_losses_are_never_hidden() {
        let mut evidence = one_move(1, 2, 100.0, 150.0, 300.0);
        evidence.requests[220].by = None;
        let shape: Vec<_> = columns(&evidence, 0.0, 300.0, 50.0)
            .iter()
            .map(|column| (column.from, column.to, column.by, column.lost))
            .collect();
        assert_eq!(
            shape,
            [
                (0.0, 100.0, Some(1), 0),
                (100.0, 150.0, None, 8),
                (150.0, 200.0, Some(2), 0),
                (200.0, 250.0, Some(2), 1),
                (250.0, 300.0, Some(2), 0),
            ]
        );
    }

    #[test]
    fn nothing_asked_is_nothing_drawn() {
        let mut evidence = one_move(1, 1, 300.0, 300.0, 300.0);
        evidence.requests.retain(|asked| !(100.0..200.0).contains(&asked.start));
        let shape: Vec<_> =
            columns(&evidence, 0.0, 300.0, 10.0).iter().map(|column| (column.from, column.to)).collect();
        assert_eq!(shape, [(0.0, 100.0), (200.0, 300.0)]);
    }
}
