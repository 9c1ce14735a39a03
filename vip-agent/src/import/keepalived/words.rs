//! A line becomes words and braces.

/// What a backslash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    /// A character like others: passwords and addresses.
    Literal,
    /// Takes the next character's meaning away, or gives it one: commands.
    Shell,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A word, its quotes removed.
    Word(String),
    /// `{`
    Open,
    /// `}`
    Close,
}

/// A quoted string has no end. Says nothing of the line, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a quoted string is not closed: {0} is missing")]
pub(super) struct Unterminated(char);

/// Keywords whose arguments are commands.
fn escapes_of(keyword: &str) -> Escapes {
    match keyword {
        "script" | "process" | "startup_script" | "shutdown_script" => Escapes::Shell,
        _ if keyword.starts_with("notify") => Escapes::Shell,
        _ => Escapes::Literal,
    }
}

/// The words of a line without blocks.
pub(super) fn words(text: &str, escapes: Escapes) -> Result<Vec<String>, Unterminated> {
    let mut scanner = Scanner { rest: text, braces: false };
    let mut words = Vec::new();
    while let Some(token) = scanner.next(escapes)? {
        if let Token::Word(word) = token {
            words.push(word);
        }
    }
    Ok(words)
}

/// The words and braces of a line.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Unterminated> {
    let mut scanner = Scanner { rest: text, braces: true };
    let (mut tokens, mut escapes, mut first) = (Vec::new(), Escapes::Literal, true);
    while let Some(token) = scanner.next(escapes)? {
        match &token {
            Token::Word(word) if first => (escapes, first) = (escapes_of(word), false),
            Token::Word(_) => {}
            Token::Open | Token::Close => (escapes, first) = (Escapes::Literal, true),
        }
        tokens.push(token);
    }
    Ok(tokens)
}

struct Scanner<'a> {
    rest: &'a str,
    /// Whether braces are tokens.
    braces: bool,
}

impl Scanner<'_> {
    fn next(&mut self, escapes: Escapes) -> Result<Option<Token>, Unterminated> {
        self.rest = self.rest.trim_start();
        let brace = match self.rest.chars().next() {
            None => return Ok(None),
            Some('{') => Some(Token::Open),
            Some('}') => Some(Token::Close),
            Some(_) => None,
        };
        if let Some(brace) = brace.filter(|_| self.braces) {
            self.rest = &self.rest[1..];
            return Ok(Some(brace));
        }
        self.word(escapes).map(|word| Some(Token::Word(word)))
    }

    fn word(&mut self, escapes: Escapes) -> Result<String, Unterminated> {
        let mut word = String::new();
        let mut quote = None;
        // A parameter that nobody defined: its braces are no block.
        let mut parameter = false;
        let mut characters = self.rest.char_indices();
        let end = loop {
            let Some((index, c)) = characters.next() else { break self.rest.len() };
            match (quote, c) {
                (None, _) if c.is_whitespace() => break index,
                (None, '"' | '\'') => {
                    quote = Some(c);
                    continue;
                }
                (None, '{') if word.ends_with('$') => parameter = true,
                (None, '}') if parameter => parameter = false,
                (None, '{' | '}') if self.braces => break index,
                (Some(open), _) if c == open => {
                    quote = None;
                    continue;
                }
                (_, '\\') if escapes == Escapes::Shell && quote != Some('\'') => {
                    word.extend(characters.next().map(|(_, escaped)| unescaped(escaped)));
                    continue;
                }
                _ => {}
            }
            word.push(c);
        };
        if let Some(open) = quote {
            return Err(Unterminated(open));
        }
        self.rest = &self.rest[end..];
        Ok(word)
    }
}

fn unescaped(c: char) -> char {
    match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        super::words(text, Escapes::Literal).unwrap()
    }

    #[test]
    fn quotes_join_and_vanish() {
        assert_eq!(words(r#"abcd" efg h jkl "mnop"#), ["abcd efg h jkl mnop"]);
        assert_eq!(words(r#"abcd "efg h jkl" mnop"#), ["abcd", "efg h jkl", "mnop"]);
        assert_eq!(words(r#"script "/a 'b c'""#), ["script", "/a 'b c'"]);
        assert_eq!(words(r#"x """#), ["x", ""]);
    }

    #[test]
    fn a_backslash_is_itself_but_in_commands() {
        assert_eq!(words(r"auth_pass a\b"), ["auth_pass", r"a\b"]);
        let tokens = tokens(r#"script "/a \"b\"""#).unwrap();
        assert_eq!(tokens[1], Token::Word(r#"/a "b""#.to_owned()));
    }

    #[test]
    fn braces_part_words_unless_quoted_or_of_a_parameter() {
        let word = |text: &str| Token::Word(text.to_owned());
        assert_eq!(tokens("a{b}").unwrap(), [word("a"), Token::Open, word("b"), Token::Close]);
        assert_eq!(tokens(r#""a{b}" x${Y}z"#).unwrap(), [word("a{b}"), word("x${Y}z")]);
    }

    #[test]
    fn a_string_without_an_end_is_refused_without_being_quoted() {
        let error = tokens("auth_pass \"secret").unwrap_err().to_string();
        assert_eq!(error, "a quoted string is not closed: \" is missing");
        assert!(tokens("don't").is_err());
    }
}
