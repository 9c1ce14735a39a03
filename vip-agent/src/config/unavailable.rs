//! Keys that the configuration knows and this version does not serve yet: accepted where they ask for nothing.

use super::field::Mapping;
use super::tree::Value;

/// Keys at the top of the file.
pub(super) fn in_file(file: &Mapping<'_>) {
    only(file, "flow_sync", &[Value::Null, Value::List(Vec::new())]);
}

fn only(mapping: &Mapping<'_>, key: &str, served: &[Value]) {
    let Some(field) = mapping.get(key) else { return };
    if served.contains(&field.node.value) {
        return;
    }
    field.error(format_args!("`{key}` is not available in this version"));
}
