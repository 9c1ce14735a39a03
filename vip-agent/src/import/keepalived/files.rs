//! The files that a keepalived.conf is made of: reading, including, bounds.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::ImportError;

/// All files together.
const MOST_READ_MIB: usize = 2;
/// What definitions and sequences make.
const MOST_MADE_MIB: usize = 8;
/// What a line that was made costs beside its text, in bytes.
const OVERHEAD: usize = 16;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// As remarks and errors name it.
    pub(super) file: Rc<str>,
    /// From 1.
    pub(super) line: u32,
}

impl Place {
    pub(super) fn syntax(&self, message: impl Into<String>) -> ImportError {
        ImportError::Syntax { file: self.file.to_string(), line: self.line, message: message.into() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Where files come from: the disk, or a test's memory.
pub(super) trait Files {
    /// At most `most` bytes.
    fn read(&self, path: &Path, most: usize) -> io::Result<Vec<u8>>;
    /// The files that an absolute or relative pattern names, in keepalived's order.
    fn matching(&self, pattern: &Path) -> Vec<PathBuf>;
}

/// The files of this machine.
pub(super) struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let Some(pattern) = pattern.to_str() else { return Vec::new() };
        // To the C library, two stars are one.
        let pattern = pattern.replace("**", "*");
        let found = glob::glob(&pattern).into_iter().flatten().filter_map(Result::ok);
        // Like keepalived: no directories, nothing that can be executed.
        found.filter(|path| is_configuration(path)).collect()
    }
}

fn is_configuration(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 == 0)
}

/// `{a,{b,c}}` in a file name becomes each of them, as far as anybody writes it.
pub(super) fn alternatives(pattern: &str) -> Vec<String> {
    const MOST: usize = 64;
    let (mut pending, mut done) = (vec![pattern.to_owned()], Vec::new());
    while let Some(pattern) = pending.pop() {
        match choices(&pattern) {
            Some((before, choices, after)) if pending.len() + choices.len() + done.len() <= MOST => {
                pending.extend(choices.iter().rev().map(|choice| format!("{before}{choice}{after}")));
            }
            _ => done.push(pattern),
        }
    }
    done
}

/// The first `{a,b}` that is closed: what is before it, its choices, what is after it.
fn choices(pattern: &str) -> Option<(&str, Vec<&str>, &str)> {
    let open = pattern.find('{')?;
    let (mut depth, mut from, mut choices) = (0, open + 1, Vec::new());
    for (index, c) in pattern[open..].char_indices().map(|(index, c)| (open + index, c)) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (depth == 1 && c == ',') || depth == 0 {
            choices.push(&pattern[from..index]);
            from = index + 1;
        }
        if depth == 0 {
            return Some((&pattern[..open], choices, &pattern[from..]));
        }
    }
    None
}

/// What may still be read, and made by definitions and sequences, in bytes.
pub(super) struct Budget {
    files: usize,
    made: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { files: MOST_READ_MIB << 20, made: MOST_MADE_MIB << 20 }
    }

    /// Reads a file and takes its size from the budget.
    pub(super) fn read(&mut self, files: &dyn Files, path: &Path) -> Result<String, ImportError> {
        let unreadable = |source| ImportError::Unreadable { path: path.to_owned(), source };
        let bytes = files.read(path, self.files + 1).map_err(unreadable)?;
        let too_large = || ImportError::TooLarge { path: path.to_owned(), limit: MOST_READ_MIB };
        self.files = self.files.checked_sub(bytes.len()).ok_or_else(too_large)?;
        // Old files have Latin-1 comments; a value with such bytes is refused where it stands.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Takes a line that was not read but made. An empty one has its price as well.
    pub(super) fn make(&mut self, line: &str, at: &Place) -> Result<(), ImportError> {
        let too_much = || {
            at.syntax(format!("definitions and sequences make more than {MOST_MADE_MIB} MiB by now: no configuration needs that"))
        };
        self.made = self.made.checked_sub(line.len() + OVERHEAD).ok_or_else(too_much)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_file_names_are_alternatives() {
        assert_eq!(alternatives("a.conf"), ["a.conf"]);
        assert_eq!(alternatives("{a,b}.conf"), ["a.conf", "b.conf"]);
        assert_eq!(alternatives("{a,b{c,d}}"), ["a", "bc", "bd"]);
        assert_eq!(alternatives("}{"), ["}{"]);
        assert!(alternatives(&"{a,b}".repeat(20)).len() <= 64);
    }
}
