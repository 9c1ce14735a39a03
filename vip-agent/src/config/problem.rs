//! What is wrong with a file: place, path and message of each problem.

use std::cell::RefCell;
use std::fmt;

/// A place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl Position {
    /// The first character.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong, or that the user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Position,
    /// The field, as `instances[1].vips[0]`; empty for the file as a whole.
    pub path: String,
    /// What and, where it helps, the remedy.
    pub message: String,
}

/// Problems of one file, by place. Displays as lines `FILE:LINE:COL: path.to.field: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    file: String,
    severity: Severity,
    list: Vec<Problem>,
    unlisted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
}

impl Problems {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One error and nothing else.
    pub(crate) fn single(file: &str, at: Position, message: &str) -> Self {
        let list = vec![Problem { at, path: String::new(), message: one_line(message) }];
        Self { file: file.to_owned(), severity: Severity::Error, list, unlisted: 0 }
    }

    /// One line each, without line ends.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let label = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        self.list.iter().map(move |Problem { at: Position { line, column }, path, message }| {
            let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
            format!("{}:{line}:{column}: {path}{label}{message}", self.file)
        })
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&line)?;
        }
        if self.unlisted > 0 {
            write!(f, "\n{}: and {} more", self.file, self.unlisted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: RefCell<Findings>,
    warnings: RefCell<Findings>,
}

#[derive(Debug, Default)]
struct Findings {
    list: Vec<Problem>,
    unlisted: usize,
}

impl Report {
    pub(super) fn error(&self, at: Position, path: &Path, message: impl fmt::Display) {
        self.errors.borrow_mut().push(at, path, &message);
    }

    pub(super) fn warning(&self, at: Position, path: &Path, message: impl fmt::Display) {
        self.warnings.borrow_mut().push(at, path, &message);
    }

    /// The warnings.
    ///
    /// # Errors
    /// The errors, if there are any.
    pub(super) fn finish(self, file: &str) -> Result<Problems, Problems> {
        let errors = self.errors.into_inner();
        if errors.list.is_empty() {
            return Ok(self.warnings.into_inner().problems(file, Severity::Warning));
        }
        Err(errors.problems(file, Severity::Error))
    }
}

impl Findings {
    /// More than anybody reads; a file of nothing but errors must not flood a log.
    const LISTED: usize = 100;

    fn push(&mut self, at: Position, path: &Path, message: &dyn fmt::Display) {
        if self.list.len() == Self::LISTED {
            self.unlisted += 1;
            return;
        }
        self.list.push(Problem { at, path: path.to_string(), message: one_line(&message.to_string()) });
    }

    fn problems(mut self, file: &str, severity: Severity) -> Problems {
        self.list.sort_by_key(|problem| problem.at);
        Problems { file: file.to_owned(), severity, list: self.list, unlisted: self.unlisted }
    }
}

/// A message may quote the file or a library: whatever that holds, it stays on its line.
fn one_line(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The way to a field from the top of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(String);

impl Path {
    pub(super) fn key(&self, key: &str) -> Self {
        // A key is anything in YAML; in a path it must stay one word on one line.
        let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
        let key: String = if plain { key.chars().take(64).collect() } else { format!("{key:.64?}") };
        if self.0.is_empty() { Self(key) } else { Self(format!("{}.{key}", self.0)) }
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
