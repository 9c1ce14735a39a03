//! Time to pixels, and marks at round times.

use crate::evidence::Ms;

/// A stretch of time over a stretch of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) from: Ms,
    pub(super) to: Ms,
    pub(super) left: f64,
    pub(super) width: f64,
}

impl Scale {
    /// Where `at` is; at the edge if it is outside.
    pub(super) fn x(&self, at: Ms) -> f64 {
        let span = (self.to - self.from).max(f64::MIN_POSITIVE);
        self.left + ((at - self.from) / span).clamp(0.0, 1.0) * self.width
    }

    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    /// Milliseconds per pixel.
    pub(super) fn per_pixel(&self) -> Ms {
        (self.to - self.from) / self.width
    }

    /// Whether any of `from` to `to` is within.
    pub(super) fn shows(&self, from: Ms, to: Ms) -> bool {
        from < self.to && to > self.from
    }

    /// Round times, counted from `zero`, at most `most` of them.
    pub(super) fn marks(&self, zero: Ms, most: usize) -> Vec<Ms> {
        let span = self.to - self.from;
        let fits = |step: &Ms| span / step <= most as f64;
        // 1, 2 and 5 times powers of ten from a millisecond to some hours.
        let steps = (0..8).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        let step = steps.into_iter().find(fits).unwrap_or(span);
        let first = ((self.from - zero) / step).ceil() as i64;
        let last = ((self.to - zero) / step).floor() as i64;
        (first..=last).map(|n| zero + n as f64 * step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { from: 1000.0, to: 3000.0, left: 100.0, width: 500.0 };

    #[test]
    fn times_outside_are_at_the_edges() {
        assert_eq!(
            [0.0, 1000.0, 2000.0, 3000.0, 9000.0].map(|at| SCALE.x(at)),
            [100.0, 100.0, 350.0, 600.0, 600.0]
        );
        assert_eq!(SCALE.per_pixel(), 4.0);
    }

    #[test]
    fn marks_are_round_times_from_zero() {
        assert_eq!(SCALE.marks(0.0, 5), [1000.0, 1500.0, 2000.0, 2500.0, 3000.0]);
        assert_eq!(SCALE.marks(1300.0, 5), [1300.0, 1800.0, 2300.0, 2800.0]);
        assert!(SCALE.marks(0.0, 20).len() <= 21);
    }
}
