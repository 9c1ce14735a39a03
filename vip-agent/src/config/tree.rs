//! The file as a tree of YAML nodes, each with its place: what lets one run report all that is wrong.
//!
//! Deserialising straight into the typed configuration would stop at the first wrong value.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, MessageFormatter, Options, Spanned, UserMessageFormatter};

use super::problem::Position;

/// A node and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Its first character; of an alias: where it is used.
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) node: Node,
}

/// Text that is no YAML, or YAML that costs too much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) at: Position,
    pub(crate) message: String,
}

impl Node {
    /// Reads one YAML document; nothing but comments and white space is null.
    pub(crate) fn read(text: &str) -> Result<Self, Malformed> {
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| malformed(&error, text))
    }
}

/// What a program of ours says, which has no places, and no bounds either.
impl From<&serde_json::Value> for Node {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(truth) => Value::Bool(*truth),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Value::Integer(integer.into()),
                (None, Some(integer)) => Value::Integer(integer.into()),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(values) => Value::List(values.iter().map(Self::from).collect()),
            Json::Object(fields) => Value::Mapping(
                fields
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        key_at: Position::START,
                        node: value.into(),
                    })
                    .collect(),
            ),
        };
        Self { at: Position::START, value }
    }
}

/// Bounds that a configuration of a thousand instances keeps and an alias bomb does not.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            max_documents: 1,
            max_aliases: 10_000,
            max_nodes: 100_000,
            max_total_scalar_bytes: 4 << 20,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        // `no` is a text: YAML 1.1 would make it false.
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
    }
}

fn malformed(error: &Error, text: &str) -> Malformed {
    let at = error.location().map_or(Position::START, position);
    let mut cause = error;
    while let Error::AliasError { error, .. } = cause {
        cause = error;
    }
    let message = match cause {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key:?} stands twice in one mapping")
        }
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. } | Error::MultipleDocuments { .. } => {
            "a second document begins here: the configuration is one".to_owned()
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => {
            "the file is too deeply nested, or its aliases (`*name`) multiply to too much".to_owned()
        }
        _ => match indented_by_tab(text, at) {
            Some(at) => {
                return Malformed { at, message: "a tab indents this line: YAML wants spaces".to_owned() };
            }
            None => format!("is not YAML: {}", UserMessageFormatter.format_message(cause)),
        },
    };
    Malformed { at, message }
}

/// The tab that indents the line of a syntax error or the next one, as the parser blames what stands before it.
fn indented_by_tab(text: &str, at: Position) -> Option<Position> {
    let lines = (1_u64..).zip(text.lines());
    let near = lines.skip_while(|(line, _)| *line < at.line).take(2);
    near.filter_map(|(line, text)| {
        let spaces = text.chars().take_while(|c| *c == ' ').count();
        let tab = text.chars().nth(spaces) == Some('\t');
        tab.then_some(Position { line, column: spaces as u64 + 1 })
    })
    .next()
}

fn position(location: Location) -> Position {
    if location == Location::UNKNOWN {
        return Position::START;
    }
    Position { line: location.line().max(1), column: location.column().max(1) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: position(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = map.next_value()?;
            entries.push(Entry { key: key.value, key_at: position(key.referenced), node });
        }
        Ok(Value::Mapping(entries))
    }
}

/// As error messages name it: `null`, `the number 5`, `the text "x"`, `a list`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(number) => write!(f, "the number {number}"),
            Self::Float(number) => write!(f, "the number {number}"),
            Self::Text(text) if text.chars().count() > LONGEST => {
                write!(f, "the text {:?}...", text.chars().take(LONGEST).collect::<String>())
            }
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Mapping(_) => f.write_str("a mapping"),
        }
    }
}
