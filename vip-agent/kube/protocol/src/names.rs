//! Names of objects.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {range}, not {found:?}")]
pub struct NameError {
    what: &'static str,
    range: &'static str,
    found: String,
}

/// A name that RFC 1123 calls a label: 1-63 of `a-z 0-9 -`, a letter or digit at both ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl Label {
    /// # Errors
    /// Empty, too long or of other characters.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if is_label(text) {
            return Ok(Self(text.to_owned()));
        }
        let range = "1-63 of a-z 0-9 - and begin and end with a letter or digit";
        Err(NameError { what: "a namespace", range, found: text.to_owned() })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

/// An object's namespace and name; as text `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName {
    /// Its namespace; empty for what has none.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ObjectName {
    /// Reads `namespace/name`.
    ///
    /// # Errors
    /// No slash, or parts that no object has.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let parts =
            text.split_once('/').filter(|(namespace, name)| is_label(namespace) && is_subdomain(name));
        let Some((namespace, name)) = parts else {
            return Err(NameError { what: "an object", range: "`namespace/name`", found: text.to_owned() });
        };
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl TryFrom<String> for ObjectName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.to_string()
    }
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text is what RFC 1123 calls a subdomain, as most objects' names are: labels, which may be longer here, between dots; 253 bytes
/// at most.
pub fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_api_server_takes() {
        let long = format!("default/{}", "a".repeat(253));
        for text in ["kube-system/vip-configmap", "a/b", "default/web.example.com", long.as_str()] {
            assert_eq!(ObjectName::parse(text).unwrap().to_string(), text);
        }
        let too_long = format!("default/{}", "a".repeat(254));
        for text in
            ["", "web", "/", "a/", "/b", "a/b/c", "A/b", "a/B", "a.b/c", "a/-b", "a/b..c", "a/b-", &too_long]
        {
            assert!(ObjectName::parse(text).is_err(), "{text}");
        }
    }
}
