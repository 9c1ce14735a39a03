//! Reading a `vrrp_instance`: what it says, statement by statement, and remarks where viplane cannot say it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::globals;
use super::keywords;
use super::notes::Notes;
use super::tracking::Kind;
use super::tree::Statement;
use super::unicast::Peers;
use super::values::{number, seconds, switch};
use super::vips::{self, Vip};
use crate::config::InterfaceName;
use crate::types::{Priority, VirtualRouterId};

/// Where a remark stands: the keys of an instance in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Before the instance.
    Instance,
    VirtualRouterId,
    Interface,
    VipInterface,
    Version,
    Priority,
    AdvertInterval,
    Preempt,
    PreemptDelay,
    HoldDown,
    Accept,
    Strict,
    Checksum,
    VirtualMac,
    Unicast,
    Auth,
    Vips,
    Announce,
    Track,
    SyncGroup,
    /// What concerns no key.
    Rest,
}

/// A password as the file has it; never shown but as the value of its key.
pub(super) struct Password(pub(super) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What an instance says.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) block: &'a Statement,
    pub(super) notes: Notes<Key>,
    pub(super) virtual_router_id: Option<VirtualRouterId>,
    pub(super) interface: Option<InterfaceName>,
    pub(super) version: Option<(u8, &'a Statement)>,
    pub(super) priority: Priority,
    pub(super) advert_interval: Option<(Duration, &'a Statement)>,
    /// `state MASTER`, which takes `nopreempt` and `preempt_delay` their meaning.
    pub(super) starts_active: bool,
    pub(super) nopreempt: Option<&'a Statement>,
    pub(super) preempts: bool,
    pub(super) preempt_delay: Option<(Duration, &'a Statement)>,
    pub(super) accept: Option<bool>,
    pub(super) strict: Option<bool>,
    pub(super) old_checksum: Option<&'a Statement>,
    pub(super) virtual_mac: bool,
    pub(super) peers: Peers<'a>,
    pub(super) auth_type: Option<&'a Statement>,
    pub(super) password: Option<(Password, &'a Statement)>,
    pub(super) vips: Vec<Vip<'a>>,
    pub(super) garp_delay: Option<Duration>,
    pub(super) garp_refresh: Option<Duration>,
    pub(super) trackers: Vec<(Kind, &'a Statement)>,
}

impl<'a> Draft<'a> {
    /// Reads a `vrrp_instance` block.
    pub(super) fn read(block: &'a Statement) -> Self {
        let mut draft = Self {
            block,
            notes: Notes::default(),
            virtual_router_id: None,
            interface: None,
            version: None,
            priority: Priority::DEFAULT,
            advert_interval: None,
            starts_active: false,
            nopreempt: None,
            preempts: false,
            preempt_delay: None,
            accept: None,
            strict: None,
            old_checksum: None,
            virtual_mac: false,
            peers: Peers::default(),
            auth_type: None,
            password: None,
            vips: Vec::new(),
            garp_delay: None,
            garp_refresh: None,
            trackers: Vec::new(),
        };
        let once = block.statements().iter().filter(|statement| arguments_of(statement.keyword()).is_some());
        let last: HashMap<&str, &Statement> =
            once.map(|statement| (statement.keyword(), statement)).collect();
        for statement in block.statements() {
            match last.get(statement.keyword()).filter(|last| !std::ptr::eq(**last, statement)) {
                Some(later) => {
                    let why = format!("stands again at {}, which counts", later.at);
                    draft.notes.add(place_of(statement.keyword()), statement, why);
                }
                None => draft.statement(statement),
            }
        }
        draft
    }

    fn statement(&mut self, statement: &'a Statement) {
        match statement.keyword() {
            "virtual_ipaddress" => vips::read(statement, false, &mut self.vips, &mut self.notes),
            "virtual_ipaddress_excluded" => vips::read(statement, true, &mut self.vips, &mut self.notes),
            "unicast_peer" => self.peers.read(statement, &mut self.notes),
            "authentication" => statement.statements().iter().for_each(|line| self.authentication(line)),
            keyword => {
                if let Some(kind) = Kind::of(keyword) {
                    self.trackers.extend(statement.statements().iter().map(|line| (kind, line)));
                    return;
                }
                self.single(statement);
                self.superfluous(statement);
            }
        }
    }

    /// Statements without a block.
    fn single(&mut self, statement: &'a Statement) {
        match statement.keyword() {
            "state" => self.state(statement),
            "interface" => self.interface(statement),
            "virtual_router_id" => {
                let id = number(statement, &(1..=255)).and_then(|id| u8::try_from(id).ok());
                self.virtual_router_id = id.and_then(|id| VirtualRouterId::new(id).ok());
                if self.virtual_router_id.is_none() {
                    self.notes.add(Key::VirtualRouterId, statement, "must be 1 to 255");
                }
            }
            "priority" => {
                let priority = number(statement, &(1..=255)).and_then(|priority| u8::try_from(priority).ok());
                match priority.and_then(|priority| Priority::new(priority).ok()) {
                    Some(priority) => self.priority = priority,
                    None => self.notes.add(
                        Key::Priority,
                        statement,
                        "must be 1 to 255: like keepalived, 100 is used",
                    ),
                }
            }
            "version" => match number(statement, &(2..=3)) {
                Some(version) => self.version = Some((if version == 3 { 3 } else { 2 }, statement)),
                None => self.notes.add(Key::Version, statement, "must be 2 or 3: it is left out"),
            },
            "advert_int" => match seconds(statement, &(0.01..=255.0)) {
                Some(interval) => self.advert_interval = Some((interval, statement)),
                None => {
                    let why = "keepalived takes 0.01 to 255 seconds: like there, the default of 1 is used";
                    self.notes.add(Key::AdvertInterval, statement, why);
                }
            },
            "nopreempt" => (self.nopreempt, self.preempts) = (Some(statement), false),
            "preempt" => (self.nopreempt, self.preempts) = (None, true),
            "preempt_delay" => match seconds(statement, &(0.0..=1000.0)) {
                Some(delay) => self.preempt_delay = Some((delay, statement)),
                None => self.notes.add(
                    Key::PreemptDelay,
                    statement,
                    "keepalived takes 0 to 1000 seconds: it is left out",
                ),
            },
            "accept" => self.accept = Some(true),
            "no_accept" => self.accept = Some(false),
            "strict_mode" => match switch(statement) {
                Some(on) => self.strict = Some(on),
                None => self.notes.add(Key::Strict, statement, "is neither on nor off: it is left out"),
            },
            "old_unicast_checksum" => {
                if statement.argument() == Some("never") {
                    self.notes.add(
                        Key::Checksum,
                        statement,
                        "only `strict` refuses old checksums; none are sent",
                    );
                } else {
                    self.old_checksum = Some(statement);
                }
            }
            "use_vmac" => self.virtual_mac(statement),
            "vmac_xmit_base" => {
                let why = "there is no macvlan interface: multicast adverts come from the virtual MAC, unicast ones from the interface";
                self.notes.add(Key::VirtualMac, statement, why);
            }
            "unicast_src_ip" => self.peers.source(statement, &mut self.notes),
            "garp_master_delay" => self.garp(statement, |draft, span| draft.garp_delay = Some(span)),
            "garp_master_refresh" => self.garp(statement, |draft, span| draft.garp_refresh = Some(span)),
            "down_timer_adverts" => {
                globals::down_timer(statement, |why| self.notes.add(Key::AdvertInterval, statement, why));
            }
            // Its value may be a password even here, where it has no meaning.
            "auth_type" | "auth_pass" => {
                self.notes.add(
                    Key::Auth,
                    statement,
                    "belongs into an `authentication` block: keepalived ignores it as well",
                );
            }
            keyword => {
                let key = place_of(keyword);
                match keywords::instance(keyword) {
                    Some(why) => self.notes.add(key, statement, why),
                    None => self.notes.add(key, statement, "unknown keyword: it is left out"),
                }
            }
        }
    }

    /// Arguments that keepalived does not read: often a second statement on the line.
    fn superfluous(&mut self, statement: &Statement) {
        let keyword = statement.keyword();
        if arguments_of(keyword).is_some_and(|most| statement.arguments().len() > most) {
            let why = "keepalived reads one statement per line and ignores the rest of this one, and so does this import";
            self.notes.add(place_of(keyword), statement, why);
        }
    }

    fn state(&mut self, statement: &Statement) {
        let why = match statement.argument() {
            Some("MASTER") => {
                self.starts_active = true;
                "has no effect: every router begins as Backup, and the highest priority that is alive becomes Active"
            }
            Some("BACKUP") => "as always here",
            _ => "is neither MASTER nor BACKUP; keepalived takes it for BACKUP, which is as always here",
        };
        self.notes.add(Key::Priority, statement, why);
    }

    fn interface(&mut self, statement: &Statement) {
        match InterfaceName::new(statement.argument().unwrap_or_default()) {
            Ok(name) => self.interface = Some(name),
            Err(error) => self.notes.add(Key::Interface, statement, error),
        }
    }

    fn virtual_mac(&mut self, statement: &Statement) {
        self.virtual_mac = true;
        if !statement.arguments().is_empty() {
            let why = "no interface is made, hence none is named; the MAC is RFC 9568's, 00:00:5e:00:01:VRID (IPv6: :02:)";
            self.notes.add(Key::VirtualMac, statement, why);
        }
    }

    fn garp(&mut self, statement: &Statement, set: impl FnOnce(&mut Self, Duration)) {
        match seconds(statement, &(0.0..=86_400.0)) {
            Some(span) => set(self, span),
            None => self.notes.add(Key::Announce, statement, "must be seconds, up to a day: it is left out"),
        }
    }

    /// A line of the `authentication` block. Only its keyword is ever shown.
    fn authentication(&mut self, line: &'a Statement) {
        match (line.keyword(), line.argument()) {
            ("auth_type", Some("PASS" | "AH")) => self.auth_type = Some(line),
            ("auth_pass", Some(password)) => self.password = Some((Password(password.to_owned()), line)),
            (keyword, _) => {
                let why = "is nothing that keepalived understands here: it is left out";
                self.notes.push(Key::Auth, super::notes::remark(&line.at, keyword, why));
            }
        }
    }

    /// The family of its adverts: that of its first VIP, else of its source.
    pub(super) fn is_ipv6(&self) -> bool {
        let first = self.vips.iter().find(|vip| !vip.excluded).map(|vip| vip.address.address);
        let source = self.peers.source_address();
        let native = || self.block.statements().iter().any(|line| line.keyword() == "native_ipv6");
        source.or(first).map_or_else(native, |address: IpAddr| address.is_ipv6())
    }
}

/// How many arguments are read of a keyword that counts once and has no block.
fn arguments_of(keyword: &str) -> Option<usize> {
    match keyword {
        "nopreempt" | "preempt" | "accept" | "no_accept" | "vmac_xmit_base" => Some(0),
        "state"
        | "interface"
        | "virtual_router_id"
        | "priority"
        | "version"
        | "advert_int"
        | "preempt_delay"
        | "strict_mode"
        | "unicast_src_ip"
        | "garp_master_delay"
        | "garp_master_refresh" => Some(1),
        _ => None,
    }
}

/// The key that a remark on a keyword stands at.
fn place_of(keyword: &str) -> Key {
    match keyword {
        "state" | "priority" => Key::Priority,
        "interface" | "vrf" | "dont_track_primary" => Key::Interface,
        "virtual_router_id" => Key::VirtualRouterId,
        "version" => Key::Version,
        "advert_int"
        | "lower_prio_no_advert"
        | "higher_prio_send_advert"
        | "mcast_src_ip"
        | "mcast_dst_ip" => Key::AdvertInterval,
        "nopreempt" | "preempt" => Key::Preempt,
        "preempt_delay" => Key::PreemptDelay,
        "accept" | "no_accept" => Key::Accept,
        "strict_mode" | "skip_check_adv_addr" => Key::Strict,
        "use_vmac_addr" | "use_ipvlan" | "vmac_xmit_base" => Key::VirtualMac,
        "unicast_src_ip" | "unicast_ttl" | "check_unicast_src" | "unicast_fault_no_peer" | "track_src_ip" => {
            Key::Unicast
        }
        "promote_secondaries" | "virtual_routes" | "virtual_rules" | "native_ipv6" => Key::Vips,
        "track_bfd" | "track_file" => Key::Track,
        _ if keyword.starts_with("garp_") => Key::Announce,
        _ => Key::Rest,
    }
}
