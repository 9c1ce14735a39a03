//! The configuration file: schema, validation with positions, difference.
//!
//! A file's text becomes a tree of nodes that know their place (`tree`), the tree becomes a typed [`Config`]
//! (`schema`, `instance`, `unicast`), checked across instances (`checks`). All problems are found in one run, each
//! as `FILE:LINE:COL: path.to.field: message`.

mod api;
mod auth_trailer;
mod check;
mod checks;
mod detect;
mod diff;
pub mod duration;
mod field;
mod flow_sync;
mod http;
mod instance;
mod interface;
mod kubernetes;
mod last_good;
mod load;
mod model;
mod probe;
mod problem;
mod protocol;
mod schema;
mod secrets;
mod security;
mod service;
mod template;
pub(crate) mod tree;
mod unicast;

#[cfg(test)]
mod tests;

pub use api::{Api, DEFAULT_LISTEN, Tls, TokenFile};
pub use check::{
    BodyMatch, Check, CommandLine, Headers, HostHeader, Http, Identity, Polling, Preset, Question, StatusSet,
    Url,
};
pub use detect::{CpuLatency, Detect};
pub use diff::{Change, InstanceField, ProcessField, diff, vips_added, vips_removed};
pub use flow_sync::FlowSync;
pub use interface::{
    InterfaceName, InterfacePattern, InterfaceSelector, LinkView, ResolveError, in_subnet_of, resolve,
};
pub use last_good::{LastGood, Stale, load_or_last_good};
pub use load::{DEFAULT_FILE, LARGEST_FILE, LoadError, Loaded, default_node, find, load, load_text};
pub use model::{
    AllFailed, Announce, Auth, AuthTrailer, Config, Instance, InstanceName, LocalAddress, Log, LogFormat,
    LogLevel, Name, OnConflict, Probe, Protocol, Unicast, control_socket,
};
pub use problem::{Position, Problem, Problems};
pub use schema::{DEFAULT_PIN_DIR, DEFAULT_RUNTIME_DIR, DEFAULT_STATE_DIR};
pub use secrets::{
    DetectKeyError, IdentityFileError, SecretFileError, Secrets, read_detect_key_file, read_key_file,
    read_password_file, read_server_identity, read_token_file,
};
pub use security::{Capabilities, Security};
pub(crate) use service::MOST_BACKENDS;
pub use service::{Backend, NoBackend, PortRange, ProxyProtocol, Service, ServiceMode, Transport};
pub use vip_kube_protocol::{
    Kubernetes, LEAST_ROUTERS, Label, LoadBalancerClass, OUR_CLASS, ObjectName, Sources, VipAddress,
};
pub(crate) use vip_kube_protocol::{node, vip};

pub use crate::types::XdpModeChoice;

/// An instance for the tests of other modules: `edge` on eth0, with VRID 51 and 10.0.0.50, and these `keys` beside (", key: value").
#[cfg(test)]
pub(crate) fn edge(keys: &str) -> Instance {
    let text = format!(
        "instances: [{{name: edge, virtual_router_id: 51, interface: eth0, vips: [10.0.0.50]{keys}}}]"
    );
    parse(&text, "test", "node").expect("valid keys").0.instances.remove(0)
}

/// Reads a configuration; `file` is its name in messages, `default_node` the node's name where the text has none.
///
/// Yields the warnings beside it. Pure: the bound on the size is [`load`]'s, and a `password_file` is an error.
///
/// # Errors
/// All that is wrong, by place.
pub fn parse(text: &str, file: &str, default_node: &str) -> Result<(Config, Problems), Problems> {
    parse_with(text, file, default_node, &Secrets::NONE)
}

/// [`parse`] for a text whose password files can be read.
///
/// # Errors
/// All that is wrong, by place.
pub fn parse_with(
    text: &str,
    file: &str,
    default_node: &str,
    secrets: &Secrets<'_>,
) -> Result<(Config, Problems), Problems> {
    let root = tree::Node::read(text)
        .map_err(|malformed| Problems::single(file, malformed.at, &malformed.message))?;
    if root.value == tree::Value::Null {
        let message = "the file says nothing: it needs `instances` at least";
        return Err(Problems::single(file, Position::START, message));
    }
    of_tree(&root, file, default_node, secrets)
}

/// [`parse`] for what a program of ours says in JSON; `said_by` is its name in messages.
///
/// # Errors
/// All that is wrong, by path.
pub(crate) fn of_json(value: &serde_json::Value, said_by: &str) -> Result<Config, Problems> {
    of_tree(&value.into(), said_by, said_by, &Secrets::NONE).map(|(config, _)| config)
}

fn of_tree(
    root: &tree::Node,
    file: &str,
    default_node: &str,
    secrets: &Secrets<'_>,
) -> Result<(Config, Problems), Problems> {
    let report = problem::Report::default();
    let config = schema::config(&field::Field::root(root, &report), default_node, secrets);
    let warnings = report.finish(file)?;
    let unexplained = || Problems::single(file, Position::START, "is not valid");
    Ok((config.ok_or_else(unexplained)?, warnings))
}

/// The configuration as a file that says everything: [`parse_with`] makes the same of it.
///
/// A password is masked, by a text that is refused where it is read again.
pub fn effective(config: &Config) -> String {
    let text = serde_saphyr::to_string(config);
    text.unwrap_or_else(|error| format!("# cannot be written as YAML: {error}\n"))
}
