//! Keys that the configuration knows and this version does not serve yet: accepted where they ask for nothing.

use std::net::SocketAddr;

use super::field::{Field, Mapping};
use super::tree::Value;

/// Keys at the top of the file.
pub(super) fn in_file(file: &Mapping<'_>) {
    for key in ["flow_sync", "services", "kubernetes"] {
        only(file, key, &[Value::Null, Value::List(Vec::new())]);
    }
    if let Some(field) = file.get("api") {
        api(&field);
    }
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

/// `api` is read, so that files for later versions are checked, but nothing listens.
fn api(field: &Field<'_>) {
    if field.is_null() {
        return;
    }
    field.warn("the HTTP API is not served by this version yet; `api: null` says so");
    let Some(api) = field.mapping(&["listen", "tls", "token_file"]) else { return };
    if let Some(listen) = api.get("listen")
        && let Some(text) = listen.text()
        && text.parse::<SocketAddr>().is_err()
    {
        listen.error(format_args!("must be IP:PORT as in \"127.0.0.1:9870\", not {text:?}"));
    }
    only(&api, "tls", &[Value::Null]);
    if let Some(token_file) = api.get("token_file").filter(|field| !field.is_null()) {
        let _ = token_file.absolute_path();
    }
}
