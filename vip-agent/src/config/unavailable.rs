//! Keys that the configuration knows and this version does not serve yet: accepted where they ask for nothing.

use super::field::{Field, Mapping};
use super::service::ServiceMode;
use super::tree::Value;

/// Keys at the top of the file.
pub(super) fn in_file(file: &Mapping<'_>) {
    for key in ["flow_sync"] {
        only(file, key, &[Value::Null, Value::List(Vec::new())]);
    }
}

/// Modes of services; whether this version has it.
pub(super) fn mode(field: &Field<'_>, mode: ServiceMode) -> bool {
    let served = !matches!(mode, ServiceMode::Proxy(_));
    if !served {
        not_available(field, format_args!("mode: {mode}"));
    }
    served
}

fn only(mapping: &Mapping<'_>, key: &str, served: &[Value]) {
    let Some(field) = mapping.get(key) else { return };
    if served.contains(&field.node.value) {
        return;
    }
    not_available(&field, key);
}

fn not_available(field: &Field<'_>, what: impl std::fmt::Display) {
    field.error(format_args!("`{what}` is not available in this version"));
}
