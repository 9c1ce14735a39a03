//! Reading typed values out of the tree: a field knows its path and its place, and reports what does not fit.
//!
//! Readers yield `None` after they have reported; the caller goes on to the next field, so that one run finds all.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::duration::Span;
use super::problem::{Path, Report};
use super::tree::{Entry, Node, Value};

/// A value of the file.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) path: Path,
    pub(super) node: &'a Node,
    report: &'a Report,
}

impl<'a> Field<'a> {
    pub(super) fn root(node: &'a Node, report: &'a Report) -> Self {
        Self { path: Path::default(), node, report }
    }

    /// Reports an error at this field.
    pub(super) fn error(&self, message: impl Display) {
        self.report.error(self.node.at, &self.path, message);
    }

    /// Reports an error at this field; `None` for the caller to return.
    pub(super) fn refuse<T>(&self, message: impl Display) -> Option<T> {
        self.error(message);
        None
    }

    pub(super) fn warn(&self, message: impl Display) {
        self.report.warning(self.node.at, &self.path, message);
    }

    /// The result's value, or its error reported here.
    pub(super) fn accept<T, E: Display>(&self, result: Result<T, E>) -> Option<T> {
        result.map_or_else(|error| self.refuse(error), Some)
    }

    fn mismatch<T>(&self, expected: impl Display) -> Option<T> {
        self.refuse(format_args!("must be {expected}, not {}", self.node.value))
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.node.value {
            Value::Bool(value) => Some(value),
            _ => self.mismatch("true or false"),
        }
    }

    /// The text, if it is one: what else it may be is for another reader to say.
    pub(super) fn word(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                self.refuse(format_args!("must be a text, not {}: put it in quotes", self.node.value))
            }
            _ => self.mismatch("a text"),
        }
    }

    pub(super) fn integer(&self, range: RangeInclusive<u16>) -> Option<u16> {
        let expected = format_args!("a whole number, {}-{}", range.start(), range.end()).to_string();
        let Value::Integer(number) = self.node.value else { return self.mismatch(expected) };
        match u16::try_from(number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.mismatch(expected),
        }
    }

    /// A number for a type that knows its range and says so.
    pub(super) fn number<T: TryFrom<u64, Error: Display>>(&self) -> Option<T> {
        match self.node.value {
            Value::Integer(number) => match u64::try_from(number) {
                Ok(number) => self.accept(T::try_from(number)),
                Err(_) => self.refuse(format_args!("must not be negative, as {number} is")),
            },
            _ => self.mismatch("a whole number"),
        }
    }

    /// A whole number that may be negative, for a type that knows its range.
    pub(super) fn whole_number(&self) -> Option<i64> {
        match self.node.value {
            // What does not fit is out of any range.
            Value::Integer(number) => Some(i64::try_from(number).unwrap_or(i64::MAX)),
            _ => self.mismatch("a whole number"),
        }
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        match &self.node.value {
            Value::Text(text) => self.accept(text.parse::<Span>()).map(|span| span.0),
            Value::Integer(number) => {
                self.refuse(format_args!("a duration needs a unit: `{number}ms` or `{number}s`"))
            }
            Value::Float(number) => {
                self.refuse(format_args!("a duration needs a unit: `{number}ms` or `{number}s`"))
            }
            _ => self.mismatch("a duration such as `10ms` or `3s`"),
        }
    }

    pub(super) fn duration_within(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = self.duration()?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let (least, most) = (Span(*range.start()), Span(*range.end()));
        self.refuse(format_args!("must be {least} to {most}, not {}", Span(duration)))
    }

    /// One of the words.
    pub(super) fn choice<T: Clone>(&self, words: &[(&str, T)]) -> Option<T> {
        let found =
            words.iter().find(|(word, _)| matches!(&self.node.value, Value::Text(text) if text == word));
        if let Some((_, choice)) = found {
            return Some(choice.clone());
        }
        let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        self.mismatch(words.join(" or "))
    }

    /// A path from the root of the file system.
    pub(super) fn absolute_path(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if !text.starts_with('/') || text.contains('\0') {
            return self.refuse(format_args!("must be an absolute path, not {text:?}"));
        }
        Some(PathBuf::from(text))
    }

    pub(super) fn list(&self) -> Option<Vec<Field<'a>>> {
        let Value::List(nodes) = &self.node.value else { return self.mismatch("a list") };
        let field = |(index, node)| Field { path: self.path.index(index), node, report: self.report };
        Some(nodes.iter().enumerate().map(field).collect())
    }

    /// A mapping of any keys.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Field<'a>)>> {
        let Value::Mapping(entries) = &self.node.value else { return self.mismatch("a mapping") };
        let field = |entry: &'a Entry| {
            let field = Field { path: self.path.key(&entry.key), node: &entry.node, report: self.report };
            (entry.key.as_str(), field)
        };
        Some(entries.iter().map(field).collect())
    }

    /// A mapping of the known keys; reports all others.
    pub(super) fn mapping(&self, known: &[&str]) -> Option<Mapping<'a>> {
        let Value::Mapping(entries) = &self.node.value else { return self.mismatch("a mapping") };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let hint = match nearest(&entry.key, known) {
                Some(key) => format!("did you mean `{key}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.report.error(entry.key_at, &self.path.key(&entry.key), format_args!("unknown key; {hint}"));
        }
        Some(Mapping { field: self.clone(), entries })
    }
}

/// A mapping whose keys are known.
#[derive(Clone)]
pub(super) struct Mapping<'a> {
    pub(super) field: Field<'a>,
    entries: &'a [Entry],
}

impl<'a> Mapping<'a> {
    /// The field of that key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Field { path: self.field.path.key(key), node: &entry.node, report: self.field.report })
    }

    /// The field of that key; reports that it is missing.
    pub(super) fn required(&self, key: &str) -> Option<Field<'a>> {
        self.get(key).or_else(|| {
            let Field { path, node, report } = &self.field;
            report.error(node.at, &path.key(key), "is missing");
            None
        })
    }

    /// What `read` makes of that key's field; the default if there is none.
    pub(super) fn or<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&Field<'a>) -> Option<T>,
    ) -> Option<T> {
        self.get(key).map_or(Some(default), |field| read(&field))
    }
}

/// The known key that a mistyped one may have meant.
fn nearest<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    if typed.len() > 64 {
        return None;
    }
    let typed = typed.to_lowercase().replace('-', "_");
    let mut beginnings = known.iter().filter(|key| typed.len() >= 3 && key.starts_with(&typed));
    if let (Some(key), None) = (beginnings.next(), beginnings.next()) {
        return Some(key);
    }
    let slips = |key: &str| strsim::damerau_levenshtein(&typed, key);
    let (slips, key) = known.iter().map(|key| (slips(key), *key)).min()?;
    (slips <= 1 + key.len() / 5).then_some(key)
}
