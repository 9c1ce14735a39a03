//! A keepalived instance becomes one of ours: what it says, completed by globals, groups and what keepalived assumes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::super::yaml;
use super::Host;
use super::files::Place;
use super::globals::Globals;
use super::groups::Groups;
use super::instance::{Draft, Key};
use super::notes::remark;
use super::tracking::{Kind, Probes, Weights};
use super::values::Names;
use crate::config::duration::Span;
use crate::types::{Family, Priority};

/// Probes of one instance: far more than anybody has, and a bound to what groups multiply.
const MOST_TRACKED: usize = 64;

/// An instance's YAML by key, without indentation.
pub(super) type Lines = BTreeMap<Key, Vec<String>>;

/// What instances share.
pub(super) struct Context<'a> {
    pub(super) globals: &'a Globals,
    pub(super) groups: &'a Groups<'a>,
    pub(super) host: &'a Host,
    pub(super) probes: Probes,
    names: Names,
    /// Names as keepalived has them.
    instances: HashSet<&'a str>,
    pub(super) vips: HashMap<IpAddr, Place>,
    /// Interface, VRID, whether IPv6.
    routers: HashMap<(String, u8, bool), Place>,
    groups_shown: HashSet<usize>,
}

/// An instance being finished.
pub(super) struct Work<'a> {
    pub(super) draft: Draft<'a>,
    name: String,
    pub(super) lines: Lines,
    pub(super) ipv6: bool,
    pub(super) version: u8,
    /// VIPs that are served, here or by the second instance.
    pub(super) served: Vec<IpAddr>,
    /// Of a version 2 router: its IPv6 VIPs, which a second instance serves by version 3.
    pub(super) second: Vec<String>,
    /// Why it cannot be served as it is.
    off: Option<String>,
}

impl<'a> Context<'a> {
    pub(super) fn new(globals: &'a Globals, groups: &'a Groups<'a>, host: &'a Host, probes: Probes) -> Self {
        Self {
            globals,
            groups,
            host,
            probes,
            names: Names::default(),
            instances: HashSet::new(),
            vips: HashMap::new(),
            routers: HashMap::new(),
            groups_shown: HashSet::new(),
        }
    }

    /// The lines of an instance (two, where a version 2 router has IPv6 addresses) and whether it can be served.
    pub(super) fn instance(&mut self, draft: Draft<'a>) -> (Vec<String>, bool) {
        let mut work = self.begin(draft);
        self.router(&mut work);
        self.timing(&mut work);
        modes(&mut work, self.globals);
        self.vips(&mut work);
        self.unicast(&mut work);
        authentication(&mut work);
        announce(&mut work, self.globals);
        self.tracking(&mut work);
        let group = self.sync_group(&mut work);
        self.clash(&mut work);
        let twin = second(&mut work, group);
        let served = work.off.is_none();
        let mut lines = work.written();
        lines.extend(twin);
        (lines, served)
    }

    fn begin(&mut self, draft: Draft<'a>) -> Work<'a> {
        let written = draft.block.argument().unwrap_or_default();
        let name = self.names.make(written);
        let mut work = Work {
            ipv6: draft.is_ipv6(),
            draft,
            name,
            lines: Lines::new(),
            version: 2,
            served: Vec::new(),
            second: Vec::new(),
            off: None,
        };
        if written.is_empty() {
            work.off("it has no name: keepalived skips it");
        } else if !self.instances.insert(written) {
            work.off("an instance of this name stands before: keepalived skips this one");
        } else if work.name != written {
            let why = format!("is named {} here: names are 1-63 of A-Z a-z 0-9 . _ -", work.name);
            work.draft.notes.add(Key::Instance, work.draft.block, why);
        }
        if work.draft.block.arguments().len() > 1 {
            work.draft.notes.add(
                Key::Instance,
                work.draft.block,
                "has more than a name: keepalived skips it; its first word is used",
            );
        }
        work
    }

    fn router(&self, work: &mut Work<'a>) {
        match work.draft.virtual_router_id {
            Some(id) => work.set(Key::VirtualRouterId, format!("virtual_router_id: {id}")),
            None => {
                work.set(Key::VirtualRouterId, "virtual_router_id: 1".to_owned());
                work.off("it has no valid virtual_router_id");
            }
        }
        match work.draft.interface.as_ref().or(self.globals.default_interface.as_ref()) {
            Some(name) => {
                let line = format!("interface: {}", yaml::scalar(name.as_str()));
                work.set(Key::Interface, line);
            }
            None => {
                let why = "names no interface: the one with an address in a VIP's subnet is taken; name it if there is none";
                work.draft.notes.add(Key::Interface, work.draft.block, why);
            }
        }
        let priority = work.draft.priority;
        work.set(Key::Priority, format!("priority: {priority}"));
    }

    fn tracking(&mut self, work: &mut Work<'a>) {
        let group = work.draft.block.argument().and_then(|name| self.groups.of.get(name));
        let group = group.and_then(|&index| self.groups.groups.get(index));
        let weights = match group {
            _ if work.draft.priority == Priority::OWNER => Weights::Owner,
            Some(group) if !group.keeps_weights => Weights::Grouped,
            Some(group) if group.name.is_some() => Weights::Common,
            _ => Weights::Kept,
        };
        let of_group = if weights == Weights::Owner { Weights::Owner } else { Weights::Kept };
        let own = work.draft.trackers.iter().map(|tracker| (*tracker, weights));
        let shared =
            group.into_iter().flat_map(|group| group.trackers.iter().map(|tracker| (*tracker, of_group)));
        let mut names: Vec<String> = Vec::new();
        for ((kind, line), weights) in own.chain(shared) {
            if names.len() == MOST_TRACKED {
                work.draft.notes.add(
                    Key::Track,
                    line,
                    "and what follows is left out: viplane tracks up to 64 things",
                );
                break;
            }
            let interface = work.draft.interface.as_ref().map_or("", |name| name.as_str());
            if kind == Kind::Interface && line.keyword() == interface {
                work.draft.notes.add(Key::Track, line, "its own interface is tracked in any case");
                continue;
            }
            let made = self.probes.track(kind, line, weights, &mut work.draft.notes, Key::Track);
            if let Some(name) = made.filter(|name| !names.contains(name)) {
                names.push(name);
            }
        }
        if !names.is_empty() {
            work.set(Key::Track, format!("track: {}", yaml::list(&names)));
        }
    }

    fn sync_group(&mut self, work: &mut Work<'a>) -> Option<&'a str> {
        let index = *self.groups.of.get(work.draft.block.argument()?)?;
        let group = self.groups.groups.get(index)?;
        if self.groups_shown.insert(index) {
            for remark in &group.remarks {
                work.draft.notes.push(Key::SyncGroup, remark.clone());
            }
        }
        let name = group.name.as_deref()?;
        work.set(Key::SyncGroup, format!("sync_group: {}", yaml::scalar(name)));
        Some(name)
    }

    /// Two routers of one VRID and family on one interface; what is left out clashes with nothing.
    fn clash(&mut self, work: &mut Work<'a>) {
        if work.off.is_some() {
            work.served.iter().for_each(|vip| drop(self.vips.remove(vip)));
            return;
        }
        let Some(id) = work.draft.virtual_router_id else { return };
        let interface = work.lines.get(&Key::Interface).map(|lines| lines.concat()).unwrap_or_default();
        for ipv6 in [false, true] {
            if !work.served.iter().any(|vip| vip.is_ipv6() == ipv6) {
                continue;
            }
            let key = (interface.clone(), id.get(), ipv6);
            if let Some(first) = self.routers.get(&key) {
                let family = if ipv6 { Family::V6 } else { Family::V4 };
                work.off(&format!(
                    "VRID {id} stands for {family} on this interface already, at {first}; viplane tells routers apart by \
                     interface, family and VRID alone: give one of them another VRID, on all nodes"
                ));
                work.served.iter().for_each(|vip| drop(self.vips.remove(vip)));
                return;
            }
            self.routers.insert(key, work.draft.block.at.clone());
        }
    }
}

/// Preemption, accept mode, strictness, checksum, virtual MAC.
fn modes(work: &mut Work<'_>, globals: &Globals) {
    if let Some(statement) = work.draft.nopreempt {
        if work.draft.starts_active {
            work.draft.notes.add(
                Key::Preempt,
                statement,
                "keepalived ignores it with `state MASTER`, and so does this import",
            );
            work.set(Key::Preempt, "preempt: true".to_owned());
        } else {
            work.set(Key::Preempt, "preempt: false".to_owned());
        }
    } else if work.draft.preempts {
        work.set(Key::Preempt, "preempt: true".to_owned());
    }
    if let Some((delay, statement)) = work.draft.preempt_delay {
        let why = match work.draft.nopreempt {
            _ if work.draft.starts_active => {
                Some("keepalived ignores it with `state MASTER`, and so does this import")
            }
            Some(_) => Some("has no effect without preemption"),
            None if work.draft.priority == Priority::OWNER => Some("the address owner does not wait"),
            None => None,
        };
        match why {
            Some(why) => work.draft.notes.add(Key::PreemptDelay, statement, why),
            None => work.set(Key::PreemptDelay, format!("preempt_delay: {}", Span(delay))),
        }
    }
    let strict = work.draft.strict.unwrap_or(globals.strict);
    let owner = work.draft.priority == Priority::OWNER;
    match work.draft.accept {
        Some(accept) => work.set(Key::Accept, format!("accept: {accept}")),
        None if strict && !owner => {
            let why = "strict mode implies no_accept: this node takes no traffic to the VIPs itself";
            work.draft.notes.add(Key::Accept, work.draft.block, why);
            work.set(Key::Accept, "accept: false".to_owned());
        }
        None => {}
    }
    if strict {
        let why = "keepalived's strict mode refuses configurations; `strict` drops adverts that RFC 9568 lets pass with a log line";
        work.draft.notes.add(Key::Strict, work.draft.block, why);
        work.set(Key::Strict, "strict: true".to_owned());
    } else if work.draft.strict.is_some() {
        work.set(Key::Strict, "strict: false".to_owned());
    }
    if let Some(statement) = work.draft.old_checksum {
        if work.version == 3 && !work.ipv6 && !work.draft.peers.peers.is_empty() {
            work.set(Key::Checksum, "checksum: old_unicast".to_owned());
        } else {
            work.draft.notes.add(
                Key::Checksum,
                statement,
                "concerns unicast adverts of version 3 over IPv4 only: left out",
            );
        }
    }
    if work.draft.virtual_mac {
        work.set(Key::VirtualMac, "virtual_mac: true".to_owned());
    }
}

/// The password of a version 2 instance; it appears as the value of its key only.
fn authentication(work: &mut Work<'_>) {
    const LONGEST: usize = 8;
    let (kind, password) = (work.draft.auth_type, work.draft.password.take());
    let Some(statement) = kind.or(password.as_ref().map(|(_, statement)| *statement)) else { return };
    let mut note = |why: &str| {
        work.draft.notes.push(Key::Auth, remark(&statement.at, statement.keyword(), why));
    };
    let kind = kind.and_then(|statement| statement.argument());
    let password = match (kind, password) {
        _ if work.version == 3 => {
            return note("version 3 has no authentication: keepalived ignores it as well");
        }
        (Some("PASS"), Some((password, _))) => password.0,
        (Some("AH"), _) => {
            return note(
                "NOT COMPATIBLE with keepalived peers: viplane has no AH; change to PASS, or version 3 without \
                 authentication, on all nodes first",
            );
        }
        (Some(_), _) => return note("without auth_pass there is no password: left out"),
        (None, _) => return note("without auth_type keepalived sends no password: left out"),
    };
    if password.is_empty() || !password.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return note(
            "the password is empty, or not printable ASCII: write its bytes to a file and name it by `auth: { password_file: FILE }`",
        );
    }
    if password.len() > LONGEST {
        note("the password has more than 8 characters: keepalived uses the first 8, and so does this import");
    }
    let comment = yaml::comment("better: auth: { password_file: FILE }, which nobody else can read");
    let cut = &password[..password.len().min(LONGEST)];
    work.lines.insert(Key::Auth, vec![comment, format!("auth: {{ password: {} }}", yaml::quoted(cut))]);
}

fn announce(work: &mut Work<'_>, globals: &Globals) {
    /// Rounds after the first, unless configured otherwise.
    const ROUNDS: u32 = 5;
    let default = crate::config::Announce::default().interval;
    let mut parts = Vec::new();
    match work.draft.garp_delay.or(globals.garp_delay) {
        _ if globals.announce_once && work.draft.garp_delay.is_none() => parts.push("repeat: 0".to_owned()),
        Some(Duration::ZERO) => parts.push("repeat: 0".to_owned()),
        // keepalived's second set comes after the delay: here, the last round does, or later.
        Some(delay) => {
            let interval = (delay / ROUNDS).clamp(default, Duration::from_secs(3600));
            parts.push(format!("repeat: {ROUNDS}, interval: {}", Span(interval)));
        }
        None => {}
    }
    if let Some(refresh) = work.draft.garp_refresh.or(globals.garp_refresh) {
        let seconds = refresh.as_secs();
        parts.push(format!("refresh: {seconds}s"));
    }
    if !parts.is_empty() {
        work.set(Key::Announce, format!("announce: {{ {} }}", parts.join(", ")));
    }
}

/// A version 2 router's IPv6 addresses: an instance of version 3 that moves with it.
fn second(work: &mut Work<'_>, group: Option<&str>) -> Vec<String> {
    if work.second.is_empty() {
        return Vec::new();
    }
    let mut vips = std::mem::take(&mut work.second);
    let group = match group {
        Some(group) => group.to_owned(),
        None => {
            let made = format!("{}-families", work.name.chars().take(54).collect::<String>());
            work.set(Key::SyncGroup, format!("sync_group: {made}"));
            made
        }
    };
    let mut lines = work.lines.clone();
    for key in [Key::Auth, Key::Checksum, Key::Unicast] {
        lines.remove(&key);
    }
    vips.insert(0, "vips:".to_owned());
    lines.insert(Key::Vips, vips);
    lines.insert(Key::Version, vec!["version: 3".to_owned()]);
    lines.insert(Key::SyncGroup, vec![format!("sync_group: {}", yaml::scalar(&group))]);
    let name = format!("{}-ipv6", work.name.chars().take(58).collect::<String>());
    let why = "version 2 has no IPv6: the IPv6 addresses are an instance of version 3 that moves with it";
    let first = remark(&work.draft.block.at, &work.draft.block.echo(), why);
    let mut written = vec![format!("  {first}")];
    written.extend(write(&name, &lines, work.off.is_some()));
    written
}

impl Work<'_> {
    /// Writes a key anew.
    pub(super) fn set(&mut self, key: Key, line: String) {
        self.lines.insert(key, vec![line]);
    }

    /// It cannot be served; the first reason counts.
    pub(super) fn off(&mut self, why: &str) {
        self.off.get_or_insert_with(|| why.to_owned());
    }

    /// All lines, indented as an item of `instances`; behind comment signs if it cannot be served.
    fn written(self) -> Vec<String> {
        let mut lines = self.lines;
        for key in lines.keys().copied().chain(ALL).collect::<std::collections::BTreeSet<_>>() {
            let notes = self.draft.notes.at(&key);
            if key != Key::Instance && !notes.is_empty() {
                lines.entry(key).or_default().splice(0..0, notes.iter().cloned());
            }
        }
        let mut before: Vec<String> = Vec::new();
        if let Some(why) = &self.off {
            let why = format!("NOT SERVED, and commented out: {why}");
            before.push(remark(&self.draft.block.at, &self.draft.block.echo(), why));
        }
        before.extend(self.draft.notes.at(&Key::Instance).iter().cloned());
        let before = before.into_iter().map(|remark| format!("  {remark}"));
        before.chain(write(&self.name, &lines, self.off.is_some())).collect()
    }
}

const ALL: [Key; 20] = [
    Key::VirtualRouterId,
    Key::Interface,
    Key::VipInterface,
    Key::Version,
    Key::Priority,
    Key::AdvertInterval,
    Key::Preempt,
    Key::PreemptDelay,
    Key::HoldDown,
    Key::Accept,
    Key::Strict,
    Key::Checksum,
    Key::VirtualMac,
    Key::Unicast,
    Key::Auth,
    Key::Vips,
    Key::Announce,
    Key::Track,
    Key::SyncGroup,
    Key::Rest,
];

fn write(name: &str, lines: &Lines, off: bool) -> Vec<String> {
    let hide = |line: String| match line.trim_start().starts_with('#') {
        false if off => line.replacen("  ", "  # ", 1),
        _ => line,
    };
    let first = format!("  - name: {}", yaml::scalar(name));
    let others = lines.values().flatten().map(|line| format!("    {line}"));
    std::iter::once(first).chain(others).map(hide).collect()
}
