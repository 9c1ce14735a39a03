//! Lines become statements: a keyword, its arguments, perhaps a block of statements.

use super::super::ImportError;
use super::files::Place;
use super::lines::Line;
use super::words::{self, Token};

/// Blocks within blocks.
const DEEPEST: usize = 32;

/// A statement and where its keyword stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) at: Place,
    /// The keyword and its arguments; empty where a block has none.
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Statement>>,
}

impl Statement {
    /// The first word.
    pub(super) fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words behind the keyword.
    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The first argument.
    pub(super) fn argument(&self) -> Option<&str> {
        self.arguments().first().map(String::as_str)
    }

    /// The statements of its block; none where it has no block.
    pub(super) fn statements(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// All words of a block that lists names, however they are spread over lines.
    pub(super) fn listed(&self) -> impl Iterator<Item = (&Place, &str)> {
        let lines = self.statements().iter();
        lines.flat_map(|line| line.words.iter().map(|word| (&line.at, word.as_str())))
    }

    /// The statement as remarks quote it: shortened, and without what may be a password.
    pub(super) fn echo(&self) -> String {
        const LONGEST: usize = 60;
        let secret = self.words.iter().position(|word| may_precede_a_secret(word));
        // The keyword itself tells nothing; an argument may be a whole command with its password.
        let shown = secret.map_or(self.words.len(), |index| index.max(1));
        let mut text = self.words[..shown].join(" ");
        if let Some((end, _)) = text.char_indices().nth(LONGEST) {
            text.truncate(end);
            text.push_str(" ...");
        } else if shown < self.words.len() {
            text.push_str(" ...");
        }
        if text.is_empty() { "{".to_owned() } else { text }
    }
}

fn may_precede_a_secret(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    ["pass", "secret", "key", "token"].iter().any(|part| word.contains(part))
}

/// A block that is being read: the statement that it belongs to, and the statements before that one.
struct Outer {
    owner: Statement,
    before: Vec<Statement>,
}

/// Reads statements; braces must match.
pub(super) fn read(lines: &[Line]) -> Result<Vec<Statement>, ImportError> {
    let mut outer: Vec<Outer> = Vec::new();
    let mut current: Vec<Statement> = Vec::new();
    for line in lines {
        let tokens = words::tokens(&line.text).map_err(|error| line.at.syntax(error.to_string()))?;
        let mut pending: Option<Statement> = None;
        for token in tokens {
            match token {
                Token::Word(word) => {
                    let new = || Statement { at: line.at.clone(), words: Vec::new(), block: None };
                    pending.get_or_insert_with(new).words.push(word);
                }
                Token::Open => {
                    if outer.len() == DEEPEST {
                        return Err(line.at.syntax("blocks stand more than 32 deep within each other"));
                    }
                    let owner = pending.take().or_else(|| current.pop_if(|last| last.block.is_none()));
                    let owner = owner.unwrap_or_else(|| Statement {
                        at: line.at.clone(),
                        words: Vec::new(),
                        block: None,
                    });
                    outer.push(Outer { owner, before: std::mem::take(&mut current) });
                }
                Token::Close => {
                    current.extend(pending.take());
                    let Some(Outer { mut owner, before }) = outer.pop() else {
                        return Err(line.at.syntax("a `}` too many: no block is open here"));
                    };
                    owner.block = Some(std::mem::replace(&mut current, before));
                    current.push(owner);
                }
            }
        }
        current.extend(pending);
    }
    match outer.pop() {
        Some(Outer { owner, .. }) => {
            Err(owner.at.syntax(format!("the block `{}` is not closed: a `}}` is missing", owner.echo())))
        }
        None => Ok(current),
    }
}

#[cfg(test)]
#[path = "tests/tree.rs"]
mod tests;
