//! Writing YAML with comments: what a serialiser cannot do.

use std::fmt::Write as _;

/// A text as a YAML scalar: plain where that cannot be taken for anything else, else in double quotes.
pub(super) fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if plain { text.to_owned() } else { quoted(text) }
}

/// A text in double quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            _ if is_printable(c) => quoted.push(c),
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// `["a", "b"]`.
pub(super) fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<_> = texts.into_iter().map(|text| scalar(text.as_ref())).collect();
    format!("[{}]", texts.join(", "))
}

/// A comment that stays on its line, whatever it quotes.
pub(super) fn comment(text: &str) -> String {
    let text: String = text.chars().map(|c| if is_printable(c) { c } else { ' ' }).collect();
    format!("# {}", text.trim_end())
}

/// YAML 1.2.2, 5.1, less what breaks lines or turns the writing around.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        && !matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scalars_are_quoted_only_where_they_must_be() {
        let table = [
            ("eth0", "eth0"),
            ("VI_1", "VI_1"),
            ("No", "\"No\""),
            ("0x1", "\"0x1\""),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a\"b\\", r#""a\"b\\""#),
            ("a\nb", r#""a\U0000000ab""#),
        ];
        for (text, expected) in table {
            assert_eq!(scalar(text), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(text in any::<String>()) {
            let yaml = format!("{}\nkey: {}\n", comment(&text), scalar(&text));
            let read: std::collections::BTreeMap<String, String> = serde_saphyr::from_str(&yaml).unwrap();
            prop_assert_eq!(&read["key"], &text);
        }
    }
}
