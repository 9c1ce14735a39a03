//! Quantiles of measured values.

use std::fmt;
use std::time::Duration;

/// Values in ascending order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Sample {
    sorted: Vec<f64>,
}

/// What a table shows of a [`Sample`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// How many values.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// The 0.5 quantile.
    pub median: f64,
    /// The 0.99 quantile.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

// === impl Sample ===

impl Sample {
    /// Of durations, in milliseconds.
    pub fn millis(durations: impl IntoIterator<Item = Duration>) -> Self {
        durations.into_iter().map(|duration| duration.as_secs_f64() * 1e3).collect()
    }

    /// Of durations, in microseconds.
    pub fn micros(durations: impl IntoIterator<Item = Duration>) -> Self {
        durations.into_iter().map(|duration| duration.as_secs_f64() * 1e6).collect()
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The values in ascending order.
    pub fn values(&self) -> &[f64] {
        &self.sorted
    }

    /// The least value that at least the fraction `q` (0 to 1) of all values does not exceed: always one that was
    /// measured (nearest rank). None if there are no values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q.clamp(0.0, 1.0) * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied()
    }

    /// None if there are no values.
    pub fn summary(&self) -> Option<Summary> {
        Some(Summary {
            count: self.len(),
            min: *self.sorted.first()?,
            median: self.quantile(0.5)?,
            p99: self.quantile(0.99)?,
            max: *self.sorted.last()?,
        })
    }
}

impl FromIterator<f64> for Sample {
    /// Values that are no number are left out.
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }
}

// === impl Summary ===

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, min, median, p99, max } = self;
        write!(f, "min {min:.3} median {median:.3} p99 {p99:.3} max {max:.3} (n = {count})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hundred() -> Sample {
        (1..=100).rev().map(f64::from).collect()
    }

    #[test]
    fn quantiles_are_measured_values_of_nearest_rank() {
        let sample = hundred();
        assert_eq!(sample.quantile(0.5), Some(50.0));
        assert_eq!(sample.quantile(0.99), Some(99.0));
        assert_eq!(sample.quantile(0.991), Some(100.0));
        assert_eq!(sample.quantile(0.0), Some(1.0));
        assert_eq!(sample.quantile(1.0), Some(100.0));
    }

    #[test]
    fn one_value_is_all_quantiles_and_none_has_no_summary() {
        let one: Sample = [7.0].into_iter().collect();
        assert_eq!(one.summary(), Some(Summary { count: 1, min: 7.0, median: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(Sample::default().summary(), None);
    }

    #[test]
    fn the_p99_of_few_values_is_their_greatest() {
        let few: Sample = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!(few.quantile(0.99), Some(3.0));
        assert_eq!(few.quantile(0.5), Some(2.0));
    }

    #[test]
    fn durations_become_the_unit_asked_for() {
        let span = Duration::from_micros(1500);
        assert_eq!(Sample::millis([span]).values(), [1.5]);
        assert_eq!(Sample::micros([span]).values(), [1500.0]);
    }
}
