//! Arguments as keepalived reads them: numbers, seconds, switches, names.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::tree::Statement;

/// The first argument as a whole number.
pub(super) fn number(statement: &Statement, range: &RangeInclusive<i64>) -> Option<i64> {
    statement.argument()?.parse().ok().filter(|number| range.contains(number))
}

/// The first argument as seconds, with a fraction or not, in whole microseconds.
pub(super) fn seconds(statement: &Statement, range: &RangeInclusive<f64>) -> Option<Duration> {
    let seconds: f64 = statement.argument()?.parse().ok()?;
    range.contains(&seconds).then(|| Duration::from_micros((seconds * 1e6).round() as u64))
}

/// A switch: on without an argument.
pub(super) fn switch(statement: &Statement) -> Option<bool> {
    match statement.argument() {
        None | Some("on" | "true" | "yes") => Some(true),
        Some("off" | "false" | "no") => Some(false),
        Some(_) => None,
    }
}

/// Names that viplane allows, made of names that keepalived allows, each once.
#[derive(Debug, Default)]
pub(super) struct Names {
    made: HashSet<String>,
    /// How often each name was asked for.
    asked: HashMap<String, u32>,
}

impl Names {
    /// The name itself if it is valid and new, else one like it.
    pub(super) fn make(&mut self, name: &str) -> String {
        const LONGEST: usize = 63;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let mut base: String = name.chars().map(|c| if allowed(c) { c } else { '-' }).take(LONGEST).collect();
        if !base.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            base = format!("x{base}").chars().take(LONGEST).collect();
        }
        let count = self.asked.entry(base.clone()).or_default();
        let mut made = base.clone();
        loop {
            *count += 1;
            if *count > 1 {
                let suffix = format!("-{count}");
                made = base.chars().take(LONGEST - suffix.len()).collect();
                made.push_str(&suffix);
            }
            if self.made.insert(made.clone()) {
                return made;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_valid_and_stay_apart() {
        let mut names = Names::default();
        let mut make = |name: &str| names.make(name);
        assert_eq!(make("VI_1"), "VI_1");
        assert_eq!(make("VI_1"), "VI_1-2");
        assert_eq!(make("web front"), "web-front");
        assert_eq!(make("web/front"), "web-front-2");
        assert_eq!(make("_x"), "x_x");
        assert_eq!(make(""), "x");
        assert_eq!(make(&"a".repeat(80)).len(), 63);
        assert_eq!(make(&"a".repeat(80)).len(), 63);
    }
}
