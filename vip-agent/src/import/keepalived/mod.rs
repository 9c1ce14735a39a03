//! keepalived.conf's VRRP part as our configuration.
//!
//! Files become lines (`lines`: comments, conditions, parameters, includes), lines become statements (`tree`), statements
//! become what they say (`globals`, `instance`, `script`, `groups`), and that becomes YAML (`finish`, `addresses`,
//! `timing`,
//! `tracking`). What is meant is what keepalived 2.2.7 does with the file, also where its manual says otherwise. Nothing
//! is left out without a remark at its place.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use files::{Disk, Files};
use finish::Context;
use globals::Globals;
use groups::Groups;
use instance::Draft;
use lines::Lines;
use notes::remark;
use tracking::{Kind, Probes};
use tree::Statement;

use super::{ImportError, Imported, yaml};

mod addresses;
mod files;
mod finish;
mod globals;
mod groups;
mod instance;
mod keywords;
mod lines;
mod notes;
mod script;
mod sequence;
mod timing;
mod tracking;
mod tree;
mod unicast;
mod values;
mod vips;
mod words;

/// What keepalived takes from the host that it runs on.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// What `@conditions` are compared with: keepalived's `--config-id`, else the host's name up to its first dot.
    pub config_id: String,
    /// Interfaces' addresses: where a unicast source is not named, the first one of its family is taken.
    pub addresses: Vec<(String, IpAddr)>,
}

impl Host {
    /// This host; `config_id` as keepalived's `--config-id`.
    pub fn this(config_id: Option<String>) -> Self {
        let name = || {
            let name = nix::unistd::gethostname().ok()?.to_string_lossy().into_owned();
            name.split('.').next().map(str::to_owned)
        };
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let address = |interface: nix::ifaddrs::InterfaceAddress| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
            Some((interface.interface_name, v4.or_else(v6)?))
        };
        Self {
            config_id: config_id.or_else(name).unwrap_or_default(),
            addresses: interfaces.filter_map(address).collect(),
        }
    }
}

/// Imports a file and what it includes.
///
/// # Errors
/// It cannot be read, is too large, or has a syntax error: braces that do not match, a string without an end.
pub fn import(file: &Path, host: &Host) -> Result<Imported, ImportError> {
    import_from(&Disk, file, host)
}

fn import_from(files: &dyn Files, file: &Path, host: &Host) -> Result<Imported, ImportError> {
    // Remarks name files as seen from the first one; errors stand alone.
    let named = |error| match error {
        ImportError::Syntax { file: found, line, message } => {
            let path = file.parent().unwrap_or(Path::new("")).join(found);
            ImportError::Syntax { file: path.display().to_string(), line, message }
        }
        other => other,
    };
    let lines = lines::read(files, file, &host.config_id).map_err(named)?;
    let statements = tree::read(&lines.lines).map_err(named)?;
    let contents = Contents::sort(&statements);
    Ok(Imported { yaml: contents.written(file, host, &lines) })
}

/// The statements at the top of the file, by what they are.
#[derive(Default)]
struct Contents<'a> {
    globals: Globals,
    probes: Probes,
    groups: Vec<&'a Statement>,
    instances: Vec<&'a Statement>,
    /// Remarks on what is left out as a whole.
    others: Vec<String>,
}

impl<'a> Contents<'a> {
    fn sort(statements: &'a [Statement]) -> Self {
        let mut contents = Self::default();
        for statement in statements {
            match statement.keyword() {
                "global_defs" => contents.globals.read(statement),
                "vrrp_script" => contents.probes.define(Kind::Script, statement, script::script(statement)),
                "vrrp_track_process" | "track_process" => {
                    contents.probes.define(Kind::Process, statement, script::process(statement));
                }
                "vrrp_sync_group" => contents.groups.push(statement),
                "vrrp_instance" => contents.instances.push(statement),
                keyword => match (keywords::block(keyword), keywords::global(keyword)) {
                    (Some(why), _) => contents.others.push(remark(&statement.at, &statement.echo(), why)),
                    (None, Some(_)) => contents.globals.statement(statement),
                    (None, None) => {
                        let why = "unknown keyword: it is left out, with its block if it has one";
                        contents.others.push(remark(&statement.at, &statement.echo(), why));
                    }
                },
            }
        }
        contents
    }

    fn written(self, file: &Path, host: &Host, lines: &Lines) -> String {
        let Self { globals, probes, groups, instances, mut others } = self;
        let existing: HashSet<&str> = instances.iter().filter_map(|block| block.argument()).collect();
        let groups = Groups::read(&groups, &existing);
        let mut drafts: Vec<_> = instances.iter().map(|block| Draft::read(block)).collect();
        timing::agree(&mut drafts, &groups, &globals);
        let mut context = Context::new(&globals, &groups, host, probes);
        let mut list = Vec::new();
        let mut served = 0;
        for draft in drafts {
            let (lines, is_served) = context.instance(draft);
            list.extend(lines);
            served += usize::from(is_served);
        }
        let mut probes = context.probes;
        others.extend(groups.remarks.iter().cloned());
        others.extend(probes.leftovers());

        let mut text = header(file, served, instances.len());
        text.extend(conditions(host, lines));
        text.extend(lines.remarks.iter().map(|(at, keyword, why)| remark(at, keyword, why)));
        text.extend(globals.notes.at(&()).iter().cloned());
        text.extend(globals.node.map(|node| format!("node: {}", yaml::scalar(&node))));
        if !probes.lines.is_empty() {
            text.push("probes:".to_owned());
            text.append(&mut probes.lines);
        }
        text.push(if served == 0 { "instances: []" } else { "instances:" }.to_owned());
        text.append(&mut list);
        text.append(&mut others);
        text.push(String::new());
        text.join("\n")
    }
}

fn header(file: &Path, served: usize, all: usize) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let lines = [
        format!("Imported from {} by vip-agent {version}: {served} of {all} instances.", file.display()),
        "Read the remarks (FILE:LINE: keyword: why, and what to do) before this file is used; what says NOT COMPATIBLE".to_owned(),
        "or NOT SERVED must be settled before this node and keepalived share a VRID. Then: vip-agent check".to_owned(),
    ];
    lines.iter().map(|line| yaml::comment(line)).collect()
}

/// Lines that are for another configuration id.
fn conditions(host: &Host, lines: &Lines) -> Option<String> {
    const SHOWN: usize = 10;
    let others = &lines.for_others;
    let places: Vec<_> = others.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if others.len() > SHOWN { ", ..." } else { "" };
    let text = format!(
        "Read with the config id {:?} (--config-id): {} conditional lines are for others: {}{more}.",
        host.config_id,
        others.len(),
        places.join(", ")
    );
    (!others.is_empty()).then(|| yaml::comment(&text))
}

#[cfg(test)]
pub(super) mod tests;
