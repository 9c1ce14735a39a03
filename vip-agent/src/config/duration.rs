//! Durations as the configuration writes them: a number and its unit, `10ms`, `1.5s`, `1m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in whole microseconds that reads and prints as the configuration writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Units from the largest on, in microseconds.
const UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// A number alone.
    #[error("a duration needs a unit: `{0}ms` or `{0}s`")]
    NoUnit(String),
    /// Something else.
    #[error("{0:?} is not a duration: write a number and one of us, ms, s, m, h, as in `10ms`, `1.5s`, `1m`")]
    Malformed(String),
    /// Parts of a microsecond.
    #[error("{0:?} is finer than a microsecond")]
    TooFine(String),
    /// More than fits.
    #[error("{0:?} is too long")]
    TooLong(String),
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let malformed = || SpanError::Malformed(text.to_owned());
        let too_long = || SpanError::TooLong(text.to_owned());
        let number_ends = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(number_ends);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(malformed());
        }
        if unit.is_empty() {
            return Err(SpanError::NoUnit(number.to_owned()));
        }
        let (_, micros) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        let whole: u64 = whole.parse().map_err(|_| too_long())?;
        let fraction = fraction.trim_end_matches('0');
        let scale = u32::try_from(fraction.len()).ok().and_then(|places| 10_u64.checked_pow(places));
        let (Some(scale), Ok(numerator)) = (scale, format!("0{fraction}").parse::<u64>()) else {
            return Err(SpanError::TooFine(text.to_owned()));
        };
        let part = u128::from(numerator) * u128::from(*micros);
        if !part.is_multiple_of(u128::from(scale)) {
            return Err(SpanError::TooFine(text.to_owned()));
        }
        let part = u64::try_from(part / u128::from(scale)).map_err(|_| too_long())?;
        let total =
            whole.checked_mul(*micros).and_then(|total| total.checked_add(part)).ok_or_else(too_long)?;
        Ok(Self(Duration::from_micros(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        // The unit that needs no fraction: exact, and never longer than it must be.
        let whole = UNITS.iter().find(|(_, unit)| micros.is_multiple_of(u128::from(*unit)));
        let (name, unit) = whole.unwrap_or(&("us", 1));
        write!(f, "{}{name}", micros / u128::from(*unit))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> Result<u128, SpanError> {
        text.parse::<Span>().map(|span| span.0.as_micros())
    }

    #[test]
    fn reads_a_number_and_its_unit() {
        let table = [
            ("0s", 0),
            ("250us", 250),
            ("10ms", 10_000),
            ("3s", 3_000_000),
            ("1.5s", 1_500_000),
            ("1.50s", 1_500_000),
            ("40.95s", 40_950_000),
            ("0.001ms", 1),
            ("1m", 60_000_000),
            ("24h", 86_400_000_000),
        ];
        for (text, expected) in table {
            assert_eq!(micros(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration_and_says_how_to_write_one() {
        let table = [
            ("10", "a duration needs a unit: `10ms` or `10s`"),
            ("1.5", "a duration needs a unit: `1.5ms` or `1.5s`"),
            ("0.0001ms", "\"0.0001ms\" is finer than a microsecond"),
            (
                "0.00000000000000000000000001h",
                "\"0.00000000000000000000000001h\" is finer than a microsecond",
            ),
            ("99999999999999999999s", "\"99999999999999999999s\" is too long"),
            ("18446744073709551615h", "\"18446744073709551615h\" is too long"),
        ];
        for (text, expected) in table {
            assert_eq!(micros(text).unwrap_err().to_string(), expected, "{text}");
        }
        for text in ["", "s", ".5s", "1.s", "1..5s", "-1s", "+1s", "1 s", "1S", "1d", "1s2", "1m30s", "١s"] {
            assert_eq!(micros(text), Err(SpanError::Malformed(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads_back(micros in any::<u64>()) {
            let span = Span(Duration::from_micros(micros));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = text.parse::<Span>();
        }
    }
}
