//! Keys that the configuration knows and this version does not serve yet: accepted where they ask for nothing.

use super::field::{Field, Mapping};
use super::tree::Value;

/// Keys at the top of the file.
pub(super) fn in_file(file: &Mapping<'_>) {
    for key in ["flow_sync", "services", "kubernetes"] {
        only(file, key, &[Value::Null, Value::List(Vec::new())]);
    }
}

/// Keys of an instance.
pub(super) fn in_instance(instance: &Mapping<'_>) {
    let (close, open) = (Value::Text("close".to_owned()), Value::Text("open".to_owned()));
    one_of(instance, "all_failed", &[close], &open, "`close` or `open`");
}

fn only(mapping: &Mapping<'_>, key: &str, served: &[Value]) {
    let Some(field) = mapping.get(key) else { return };
    if served.contains(&field.node.value) {
        return;
    }
    not_available(&field, key);
}

fn one_of(mapping: &Mapping<'_>, key: &str, served: &[Value], unserved: &Value, words: &str) {
    let Some(field) = mapping.get(key) else { return };
    if served.contains(&field.node.value) {
        return;
    }
    if field.node.value != *unserved {
        field.error(format_args!("must be {words}, not {}", field.node.value));
        return;
    }
    match unserved {
        Value::Text(word) => not_available(&field, format_args!("{key}: {word}")),
        Value::Integer(number) => not_available(&field, format_args!("{key}: {number}")),
        _ => not_available(&field, key),
    }
}

pub(super) fn not_available(field: &Field<'_>, what: impl std::fmt::Display) {
    field.error(format_args!("`{what}` is not available in this version"));
}
