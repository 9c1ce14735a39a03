//! `~SEQ(var, start, step, end) line` and `~LST(var, a, b) line`: a line that stands for many.

/// A sequence and the line that it repeats.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sequence<'a> {
    names: Vec<&'a str>,
    turns: Turns<'a>,
    /// The line.
    pub(super) rest: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
enum Turns<'a> {
    Count { start: i64, step: i64, end: i64, hexadecimal: bool },
    List(Vec<Vec<&'a str>>),
}

/// Reads a line that begins with `~SEQ` or `~LST`; `None` if that is all it does.
pub(super) fn read(text: &str) -> Option<Sequence<'_>> {
    let (head, rest) = text.split_once('(')?;
    let (arguments, rest) = rest.split_once(')')?;
    let arguments = split(arguments)?;
    let (names, values) = arguments.split_first()?;
    let valid =
        |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if names.is_empty() || !names.iter().all(valid) {
        return None;
    }
    let turns = match head {
        "~SEQ" | "~SEQx" => count(values, head == "~SEQx")?,
        "~LST" => {
            let values: Vec<_> = values.to_vec();
            let complete = !values.is_empty() && values.iter().all(|turn| turn.len() == names.len());
            complete.then_some(Turns::List(values))?
        }
        _ => return None,
    };
    Some(Sequence { names: names.clone(), turns, rest: rest.trim_start() })
}

fn count<'a>(values: &[Vec<&str>], hexadecimal: bool) -> Option<Turns<'a>> {
    let numbers: Option<Vec<i64>> = values
        .iter()
        .map(|value| match value[..] {
            [number] => integer(number),
            _ => None,
        })
        .collect();
    let (start, step, end) = match numbers?[..] {
        [end] => (if end < 0 { -1 } else { 1 }, if end < 1 { -1 } else { 1 }, end),
        [start, end] => (start, if start <= end { 1 } else { -1 }, end),
        [start, step, end] => (start, step, end),
        _ => return None,
    };
    let endless = step == 0 || (start < end && step < 0) || (start > end && step > 0);
    (!endless && !(hexadecimal && (start < 0 || end < 0))).then_some(Turns::Count {
        start,
        step,
        end,
        hexadecimal,
    })
}

fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `a, {b, c}, d` as `[[a], [b, c], [d]]`.
fn split(text: &str) -> Option<Vec<Vec<&str>>> {
    let (mut parts, mut rest) = (Vec::new(), text.trim());
    loop {
        let after = match rest.strip_prefix('{') {
            Some(group) => {
                let (group, after) = group.split_once('}')?;
                parts.push(group.split(',').map(str::trim).collect());
                after.trim_start()
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                parts.push(vec![rest[..end].trim()]);
                &rest[end..]
            }
        };
        if after.is_empty() {
            return Some(parts);
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

impl<'a> Sequence<'a> {
    /// The values of each turn, by name.
    pub(super) fn values(&self) -> impl Iterator<Item = Vec<(&'a str, String)>> + '_ {
        let mut turn = 0;
        let mut next = match self.turns {
            Turns::Count { start, .. } => Some(start),
            Turns::List(_) => None,
        };
        std::iter::from_fn(move || match &self.turns {
            Turns::List(list) => {
                let values = list.get(turn)?;
                turn += 1;
                Some(self.names.iter().copied().zip(values.iter().map(ToString::to_string)).collect())
            }
            Turns::Count { step, end, hexadecimal, .. } => {
                let now = next.filter(|now| if *step > 0 { now <= end } else { now >= end })?;
                next = now.checked_add(*step);
                let value = if *hexadecimal { format!("{now:x}") } else { now.to_string() };
                Some(self.names.iter().map(|name| (*name, value.clone())).collect())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        let sequence = read(text).unwrap();
        let turns = sequence.values();
        turns.map(|turn| turn.into_iter().map(|(_, value)| value).collect::<Vec<_>>().join("/")).collect()
    }

    #[test]
    fn sequences_count_as_the_manual_says() {
        assert_eq!(all("~SEQ(SUBNET, 0, 3) ip"), ["0", "1", "2", "3"]);
        assert_eq!(all("~SEQx(A, 0x90, 0x10, 0xb0) x"), ["90", "a0", "b0"]);
        assert_eq!(all("~SEQ(A, 5, -2, 1) x"), ["5", "3", "1"]);
        assert_eq!(all("~SEQ(A, 3) x"), ["1", "2", "3"]);
        assert_eq!(all("~LST({IP, IP1}, {10,1},{20,4}) x"), ["10/1", "20/4"]);
        assert_eq!(all("~LST(IP, 1, 2) x"), ["1", "2"]);
    }

    #[test]
    fn what_is_no_sequence_is_refused() {
        for text in [
            "~SEQ",
            "~SEQ(",
            "~SEQ(A, 1, 0, 5) x",
            "~SEQ(A, b) x",
            "~LST(A)",
            "~LST({A,B}, {1}) x",
            "~SEQ() x",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
