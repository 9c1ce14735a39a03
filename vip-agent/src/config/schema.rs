//! The schema: every key of the file, its type, range and default.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::field::{Field, Mapping};
use super::instance::{Draft, instance};
use super::interface::{InterfaceName, InterfacePattern, InterfaceSelector};
use super::kubernetes::kubernetes;
use super::model::{Config, Log, LogFormat, LogLevel};
use super::secrets::Secrets;
use super::security::Capabilities;
use super::tree::Value;
use super::{api, checks, flow_sync, probe, security, service};
use crate::types::XdpModeChoice;

pub(super) const KEYS: [&str; 15] = [
    "node",
    "runtime_dir",
    "state_dir",
    "pin_dir",
    "log",
    "api",
    "security",
    "reload_on_change",
    "interface",
    "xdp_mode",
    "flow_sync",
    "probes",
    "instances",
    "services",
    "kubernetes",
];

/// Longest delay that makes sense anywhere: beyond it a typing error is likelier.
pub(super) const UP_TO_AN_HOUR: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// `runtime_dir` where the file has none.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/viplane";

/// `state_dir` where the file has none.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/viplane";

/// `pin_dir` where the file has none.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/viplane";

/// The whole file; `None` after something was reported.
pub(super) fn config(root: &Field<'_>, default_node: &str, secrets: &Secrets<'_>) -> Option<Config> {
    let file = root.mapping(&KEYS)?;
    let node = file.or("node", default_node.to_owned(), node);
    let runtime_dir = file.or("runtime_dir", PathBuf::from(DEFAULT_RUNTIME_DIR), Field::absolute_path);
    let state_dir = file.or("state_dir", PathBuf::from(DEFAULT_STATE_DIR), Field::absolute_path);
    let pin_dir = file.or("pin_dir", Some(PathBuf::from(DEFAULT_PIN_DIR)), |field| {
        if field.is_null() { Some(None) } else { field.absolute_path().map(Some) }
    });
    let log = file.or("log", Log::default(), log);
    let api = api::api(&file, secrets);
    let security = security::security(&file);
    let reload_on_change = file.or("reload_on_change", false, Field::boolean);
    let xdp_mode = file.or("xdp_mode", XdpModeChoice::default(), xdp_mode);
    let interface = file.or("interface", InterfaceSelector::default(), interface);
    let flow_sync = flow_sync::flow_sync(&file, secrets);
    let probes = probe::probes(&file);
    if security.is_some_and(|security| security.capabilities == Capabilities::Drop) {
        probe::warn_of_what_is_given_up(probes.as_deref().unwrap_or_default());
    }
    let kubernetes = kubernetes(&file);
    let others = file.get("kubernetes").is_some_and(|field| !field.is_null());
    let services = service::services(&file);
    let drafts = instances(
        &file,
        others,
        interface.as_ref(),
        probes.as_deref(),
        services.as_deref().unwrap_or_default(),
        secrets,
    );
    Some(Config {
        node: node?,
        runtime_dir: runtime_dir?,
        state_dir: state_dir?,
        pin_dir: pin_dir?,
        log: log?,
        api: api?,
        security: security?,
        reload_on_change: reload_on_change?,
        interface: interface?,
        xdp_mode: xdp_mode?,
        flow_sync: flow_sync?,
        probes: probes?.into_iter().map(probe::Draft::finish).collect::<Option<_>>()?,
        instances: drafts?.into_iter().map(Draft::finish).collect::<Option<_>>()?,
        kubernetes: kubernetes?,
        services: services?.into_iter().map(service::Draft::finish).collect::<Option<_>>()?,
    })
}

/// `others`: whether instances may come from elsewhere, so that there need be none here.
fn instances<'a>(
    file: &Mapping<'a>,
    others: bool,
    interface: Option<&InterfaceSelector>,
    probes: Option<&[probe::Draft<'a>]>,
    services: &[service::Draft<'a>],
    secrets: &Secrets<'_>,
) -> Option<Vec<Draft<'a>>> {
    let field = match file.get("instances") {
        None if others => {
            service::across_services(services, &[]);
            return Some(Vec::new());
        }
        _ => file.required("instances")?,
    };
    let drafts: Vec<_> = field.list()?.iter().map(|field| instance(field, interface, secrets)).collect();
    if drafts.is_empty() && !others {
        field.warn("there is no instance: this node will hold no VIPs");
    }
    checks::across_instances(&field, &drafts);
    if let Some(probes) = probes {
        checks::tracking(probes, &drafts, services);
    }
    service::across_services(services, &drafts);
    Some(drafts)
}

fn node(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let valid = (1..=253).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if !valid {
        return field.refuse(format_args!("must be 1-253 bytes without white space, not {text:?}"));
    }
    Some(text.to_owned())
}

fn log(field: &Field<'_>) -> Option<Log> {
    let log = field.mapping(&["level", "format"])?;
    let level = log.or("level", LogLevel::default(), |field| {
        field.choice(&[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ])
    });
    let format = log.or("format", LogFormat::default(), |field| {
        field.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
    });
    Some(Log { level: level?, format: format? })
}

fn xdp_mode(field: &Field<'_>) -> Option<XdpModeChoice> {
    field.choice(&[
        ("auto", XdpModeChoice::Auto),
        ("driver", XdpModeChoice::Driver),
        ("skb", XdpModeChoice::Skb),
    ])
}

/// NAME, `{subnet: vip}`, `{default_route: true}` or `{regex: PATTERN}`.
pub(super) fn interface(field: &Field<'_>) -> Option<InterfaceSelector> {
    if !matches!(field.node.value, Value::Mapping(_)) {
        return field.accept(InterfaceName::new(field.text()?)).map(InterfaceSelector::Name);
    }
    let choice = field.mapping(&["subnet", "default_route", "regex"])?;
    match (choice.get("subnet"), choice.get("default_route"), choice.get("regex")) {
        (Some(field), None, None) => field.choice(&[("vip", InterfaceSelector::VipSubnet)]),
        (None, Some(field), None) => match field.boolean()? {
            true => Some(InterfaceSelector::DefaultRoute),
            false => field.refuse("must be true: leave it out or choose another way"),
        },
        (None, None, Some(field)) => pattern(&field),
        _ => field.refuse(
            "must be a name or exactly one of `{subnet: vip}`, `{default_route: true}`, `{regex: \"^en\"}`",
        ),
    }
}

fn pattern(field: &Field<'_>) -> Option<InterfaceSelector> {
    let text = field.text()?;
    if text.is_empty() || text.len() > 256 {
        return field.refuse("must be a regular expression of 1-256 bytes");
    }
    match InterfacePattern::new(text) {
        Ok(pattern) => Some(InterfaceSelector::Pattern(pattern)),
        Err(error) => field.refuse(format_args!("{text:?} is not a regular expression: {error}")),
    }
}
