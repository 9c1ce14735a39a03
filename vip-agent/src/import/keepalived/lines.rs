//! Files become logical lines: without comments, conditions decided, parameters replaced, includes in their place.
//!
//! As keepalived 2.2.7 does it, in its order: comment, `@condition`, definition, `~SEQ` and `~LST`, parameters, include.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::ImportError;
use super::files::{Budget, Files, Place, alternatives};
use super::sequence;
use super::words::{self, Escapes};

/// Includes within includes, and definitions within definitions.
const DEEPEST: usize = 32;
/// Bytes of a line after everything was replaced; keepalived itself stops far below.
const LONGEST: usize = 64 << 10;

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: Place,
    pub(super) text: String,
}

/// All lines, and what the user should know about how they came about.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) lines: Vec<Line>,
    /// Includes without a file, sequences that are none: where, the keyword, why.
    pub(super) remarks: Vec<(Place, String, String)>,
    /// Lines for another configuration id.
    pub(super) for_others: Vec<Place>,
}

/// A parameter's value: one line, or several where the parameter ends its line.
#[derive(Clone, Debug)]
enum Definition {
    Word(String),
    Lines(Vec<String>),
}

struct Reader<'a> {
    files: &'a dyn Files,
    config_id: &'a str,
    /// What remarks leave out of file names.
    directory: PathBuf,
    path: PathBuf,
    budget: Budget,
    definitions: HashMap<String, Definition>,
    /// The multi-line definition that goes on.
    open: Option<(String, Vec<String>)>,
    found: Lines,
}

/// Reads a file and all that it includes; `config_id` decides `@conditions`.
pub(super) fn read(files: &dyn Files, file: &Path, config_id: &str) -> Result<Lines, ImportError> {
    let mut reader = Reader {
        files,
        config_id,
        directory: file.parent().unwrap_or(Path::new("")).to_owned(),
        path: file.to_owned(),
        budget: Budget::new(),
        definitions: HashMap::new(),
        open: None,
        found: Lines::default(),
    };
    reader.file(0)?;
    Ok(reader.found)
}

impl Reader<'_> {
    /// Reads `self.path`.
    fn file(&mut self, depth: usize) -> Result<(), ImportError> {
        let text = self.budget.read(self.files, &self.path)?;
        let name = self.path.strip_prefix(&self.directory).unwrap_or(&self.path);
        let file: Rc<str> = name.display().to_string().into();
        for (line, text) in (1..).zip(text.lines()) {
            let at = Place { file: Rc::clone(&file), line };
            if text.len() > LONGEST {
                return Err(at.syntax("is longer than 64 KiB, which no line of a configuration is"));
            }
            let text = without_comment(text);
            if !self.goes_on(&text) && !text.is_empty() {
                self.line(text, &at, depth)?;
            }
        }
        self.close_definition();
        Ok(())
    }

    /// Whether the line belongs to a definition of several lines.
    fn goes_on(&mut self, text: &str) -> bool {
        let Some((_, lines)) = &mut self.open else { return false };
        let (text, more) = match text.strip_suffix('\\') {
            Some(text) => (text.trim_end(), true),
            None => (text, false),
        };
        if !text.is_empty() {
            lines.push(text.to_owned());
        }
        if !more {
            self.close_definition();
        }
        true
    }

    fn close_definition(&mut self) {
        if let Some((name, lines)) = self.open.take() {
            self.definitions.insert(name, Definition::Lines(lines));
        }
    }

    fn line(&mut self, mut text: String, at: &Place, depth: usize) -> Result<(), ImportError> {
        if depth > DEEPEST {
            return Err(at.syntax("includes or defines itself: more than 32 within each other"));
        }
        loop {
            if text.len() > LONGEST {
                return Err(at.syntax("becomes longer than 64 KiB when its parameters are replaced"));
            }
            if text.starts_with('@') {
                let Some(rest) = self.condition(&text) else {
                    self.found.for_others.push(at.clone());
                    return Ok(());
                };
                text = rest;
            }
            if self.define(&text) {
                return Ok(());
            }
            if text.starts_with("~SEQ") || text.starts_with("~LST") {
                return self.sequence(&text, at, depth);
            }
            match self.replace_one(&text) {
                None => break,
                Some(Replaced::Line(replaced)) => {
                    self.budget.make(&replaced, at)?;
                    text = replaced;
                }
                Some(Replaced::Lines(lines)) => {
                    return lines.into_iter().try_for_each(|line| self.made(line, at, depth));
                }
            }
        }
        if text.is_empty() || self.include(&text, at, depth)? {
            return Ok(());
        }
        self.found.lines.push(Line { at: at.clone(), text });
        Ok(())
    }

    /// A line that stands in no file.
    fn made(&mut self, text: String, at: &Place, depth: usize) -> Result<(), ImportError> {
        self.budget.make(&text, at)?;
        self.line(text, at, depth + 1)
    }

    /// What follows `@id` or `@^id` if it is for this configuration id.
    fn condition(&self, text: &str) -> Option<String> {
        let (negated, rest) = match text[1..].strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, &text[1..]),
        };
        let (id, rest) = rest.split_once([' ', '\t'])?;
        ((id == self.config_id) != negated).then(|| rest.trim_start().to_owned())
    }

    /// Whether the line was a definition, `$NAME=VALUE`.
    fn define(&mut self, text: &str) -> bool {
        let definition = text.strip_prefix('$').and_then(|text| text.split_once('='));
        let Some((name, value)) = definition.filter(|(name, _)| is_name(name)) else { return false };
        let value = value.trim_start();
        match value.strip_suffix('\\') {
            Some(first) => {
                let first = first.trim_end();
                let lines = if first.is_empty() { Vec::new() } else { vec![first.to_owned()] };
                self.open = Some((name.to_owned(), lines));
            }
            None => {
                self.definitions.insert(name.to_owned(), Definition::Word(value.to_owned()));
            }
        }
        true
    }

    fn sequence(&mut self, text: &str, at: &Place, depth: usize) -> Result<(), ImportError> {
        let Some(sequence) = sequence::read(text) else {
            self.remark(at, &text[..4], "is no sequence that keepalived or viplane understand; left out");
            return Ok(());
        };
        for values in sequence.values() {
            for (name, value) in values {
                self.definitions.insert(name.to_owned(), Definition::Word(value));
            }
            self.made(sequence.rest.to_owned(), at, depth)?;
        }
        Ok(())
    }

    /// Replaces the first parameter that is defined.
    fn replace_one(&self, text: &str) -> Option<Replaced> {
        let mut from = 0;
        while let Some(found) = text[from..].find('$') {
            let start = from + found;
            from = start + 1;
            let Some((name, length)) = parameter(&text[start..]) else { continue };
            let (before, after) = (&text[..start], &text[start + length..]);
            let value = match self.definitions.get(name) {
                Some(Definition::Word(value)) => value.clone(),
                Some(Definition::Lines(lines)) if after.is_empty() => {
                    let mut lines = lines.clone();
                    match lines.first_mut() {
                        Some(first) => first.insert_str(0, before),
                        None => lines.push(before.to_owned()),
                    }
                    return Some(Replaced::Lines(lines));
                }
                Some(Definition::Lines(_)) => continue,
                None => match self.predefined(name) {
                    Some(value) => value,
                    None => continue,
                },
            };
            return Some(Replaced::Line(format!("{before}{value}{after}")));
        }
        None
    }

    fn predefined(&self, name: &str) -> Option<String> {
        match name {
            "_PWD" => {
                let directory = self.path.parent().unwrap_or(Path::new(""));
                let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
                Some(directory.display().to_string())
            }
            "_INSTANCE" => Some(self.config_id.to_owned()),
            "_HASH" => Some("#".to_owned()),
            "_BANG" => Some("!".to_owned()),
            _ => None,
        }
    }

    /// Whether the line was an include; its files stand in its place.
    fn include(&mut self, text: &str, at: &Place, depth: usize) -> Result<bool, ImportError> {
        const KEYWORDS: [&str; 6] = ["include", "includer", "includem", "includew", "includeb", "includea"];
        if !text.starts_with("include") {
            return Ok(false);
        }
        let words = words::words(text, Escapes::Literal).map_err(|error| at.syntax(error.to_string()))?;
        let [keyword, pattern] = &words[..] else { return Ok(false) };
        if !KEYWORDS.contains(&keyword.as_str()) {
            return Ok(false);
        }
        let here = self.path.parent().unwrap_or(Path::new("")).to_owned();
        let found: Vec<PathBuf> = alternatives(pattern)
            .iter()
            .flat_map(|pattern| self.files.matching(&here.join(pattern)))
            .collect();
        if found.is_empty() {
            let echo = format!("{keyword} {pattern}");
            self.remark(
                at,
                &echo,
                "no such file (or it can be executed, which keepalived skips): is a part missing here?",
            );
        }
        for path in found {
            if depth >= DEEPEST {
                return Err(at.syntax("includes itself: more than 32 files within each other"));
            }
            let outer = std::mem::replace(&mut self.path, path);
            let read = self.file(depth + 1);
            self.path = outer;
            match read {
                Err(ImportError::Unreadable { path, source }) => {
                    let why = format!("{} cannot be read ({source}): a part is missing here", path.display());
                    self.remark(at, keyword, &why);
                }
                read => read?,
            }
        }
        Ok(true)
    }

    fn remark(&mut self, at: &Place, keyword: &str, why: &str) {
        self.found.remarks.push((at.clone(), keyword.to_owned(), why.to_owned()));
    }
}

enum Replaced {
    Line(String),
    Lines(Vec<String>),
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name and the whole length of `$NAME` (which white space, `,`, `)` or the end follows) or `${NAME}`.
fn parameter(text: &str) -> Option<(&str, usize)> {
    let name_ends =
        |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, length, ended) = match text.strip_prefix("${") {
        Some(rest) => {
            let end = name_ends(rest);
            (&rest[..end], end + 3, rest[end..].starts_with('}'))
        }
        None => {
            let rest = &text[1..];
            let end = name_ends(rest);
            (&rest[..end], end + 1, rest[end..].is_empty() || rest[end..].starts_with([' ', '\t', ',', ')']))
        }
    };
    (ended && is_name(name)).then_some((name, length))
}

/// Cuts off the comment (`!` or `#` outside of double quotes, not escaped) and white space around the rest.
fn without_comment(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut quoted = false;
    let mut characters = line.trim_matches([' ', '\t', '\r']).chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' => quoted = !quoted,
            '!' | '#' if !quoted => break,
            '\\' => {
                match characters.next_if(|next| !quoted && matches!(next, '!' | '#')) {
                    Some(escaped) => text.push(escaped),
                    None => {
                        text.push(c);
                        text.extend(characters.next());
                    }
                }
                continue;
            }
            _ => {}
        }
        text.push(c);
    }
    text.truncate(text.trim_end_matches([' ', '\t']).len());
    text
}

#[cfg(test)]
#[path = "tests/lines.rs"]
mod tests;
