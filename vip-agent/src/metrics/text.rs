//! The two texts that Prometheus reads: its own format 0.0.4, and OpenMetrics 1.0.
//!
//! They differ in what a counter's family is called (OpenMetrics leaves `_total` to the sample), in the types that they know
//! (`info`), in units, and in the end mark.

use std::fmt::Write as _;
use std::time::Duration;

use super::families::{Family, Kind};
use super::histogram::{BOUNDS, Histogram};

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4: what everything reads.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The one that an HTTP `Accept` header asks for: OpenMetrics if it is named and liked no less than plain text.
    ///
    /// Whoever says nothing, or something that cannot be read, gets the one that everything reads.
    pub fn accepted_by(accept: &str) -> Self {
        let (mut open, mut plain) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut known) = (1000, true);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match (name.trim().to_ascii_lowercase().as_str(), value.trim().trim_matches('"')) {
                    ("q", value) => quality = thousandths(value),
                    ("version", value) => known = matches!(value, "0.0.1" | "0.0.4" | "1.0.0"),
                    _ => {}
                }
            }
            let best = match kind.as_str() {
                "application/openmetrics-text" if known => &mut open,
                "text/plain" | "text/*" if known => &mut plain,
                _ => continue,
            };
            *best = quality.max(*best);
        }
        if open > 0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The media type of the text.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A quality of 0 to 1 in thousandths (RFC 9110, 12.4.2); 0 if it is none.
fn thousandths(quality: &str) -> u16 {
    match quality.parse::<f32>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0-1000")]
        Ok(quality) if (0.0..=1.0).contains(&quality) => (quality * 1000.0) as u16,
        _ => 0,
    }
}

/// A text in the making: family by family, each one's samples behind its header.
#[derive(Debug)]
pub(super) struct Text {
    format: Format,
    text: String,
}

impl Text {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(16 << 10) }
    }

    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let name = match (self.format, family.kind) {
            (Format::OpenMetrics, Kind::Counter) => family.name.trim_end_matches("_total"),
            (Format::OpenMetrics, Kind::Info) => family.name.trim_end_matches("_info"),
            _ => family.name,
        };
        let kind = match (self.format, family.kind) {
            (Format::Prometheus, Kind::Info) | (_, Kind::Gauge) => "gauge",
            (Format::OpenMetrics, Kind::Info) => "info",
            (_, Kind::Counter) => "counter",
            (_, Kind::Histogram) => "histogram",
        };
        // A String takes all that is written to it.
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        if let (Format::OpenMetrics, Some(unit)) = (self.format, family.unit) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, family.help, self.format == Format::OpenMetrics);
        self.text.push('\n');
        Samples { text: &mut self.text, family }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// Takes one family's samples.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    family: &'static Family,
}

impl Samples<'_> {
    /// A count, or 0 and 1.
    pub(super) fn whole<const N: usize>(&mut self, labels: [&str; N], value: u64) {
        self.sample("", &labels, None, format_args!("{value}"));
    }

    /// A time.
    pub(super) fn seconds<const N: usize>(&mut self, labels: [&str; N], time: Duration) {
        self.sample("", &labels, None, format_args!("{}.{:09}", time.as_secs(), time.subsec_nanos()));
    }

    /// A distribution of times.
    pub(super) fn histogram<const N: usize>(&mut self, labels: [&str; N], histogram: &Histogram) {
        let bounds = BOUNDS.iter().map(|(_, label)| *label).chain(["+Inf"]);
        let mut below = 0;
        for (bound, count) in bounds.zip(histogram.buckets) {
            below += count;
            self.sample("_bucket", &labels, Some(bound), format_args!("{below}"));
        }
        let sum = Duration::from_nanos(histogram.sum);
        self.sample("_sum", &labels, None, format_args!("{}.{:09}", sum.as_secs(), sum.subsec_nanos()));
        self.sample("_count", &labels, None, format_args!("{below}"));
    }

    fn sample(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: std::fmt::Arguments<'_>) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let pairs = self.family.labels.iter().zip(labels).map(|(name, value)| (*name, *value));
        let mut separator = '{';
        for (name, value) in pairs.chain(le.map(|bound| ("le", bound))) {
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(self.text, value, true);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Whatever a label's value holds, it stays within its quotes and on its line.
fn escape(text: &mut String, value: &str, quotes: bool) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let newer = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for accept in [
            prometheus,
            newer,
            "Application/OpenMetrics-Text",
            "application/openmetrics-text; version=\"1.0.0\"",
        ] {
            assert_eq!(Format::accepted_by(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=7.0.0",
            "application/openmetrics-text;q=much",
            ";;,=,;q",
        ] {
            assert_eq!(Format::accepted_by(accept), Format::Prometheus, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn no_accept_header_does_harm(accept: String) {
            Format::accepted_by(&accept);
        }

        /// Read back by the rules of the format, a label is what it was.
        #[test]
        fn a_label_survives_whatever_it_holds(value: String) {
            let mut text = String::new();
            escape(&mut text, &value, true);
            prop_assert!(!text.contains('\n'));
            let (mut read, mut rest) = (String::new(), text.chars());
            while let Some(c) = rest.next() {
                prop_assert_ne!(c, '"');
                read.push(match c {
                    '\\' => match rest.next() {
                        Some('n') => '\n',
                        Some(c @ ('\\' | '"')) => c,
                        other => return Err(TestCaseError::fail(format!("{other:?} behind a backslash"))),
                    },
                    c => c,
                });
            }
            prop_assert_eq!(read, value);
        }
    }
}
