//! `global_defs`: what holds for all instances.

use std::time::Duration;

use super::keywords;
use super::notes::Notes;
use super::tree::Statement;
use super::values::{number, seconds, switch};
use crate::config::InterfaceName;

/// What instances take over where they say nothing themselves.
#[derive(Debug, Default)]
pub(super) struct Globals {
    /// `node`, from `router_id`.
    pub(super) node: Option<String>,
    pub(super) notes: Notes<()>,
    pub(super) version: Option<u8>,
    pub(super) garp_delay: Option<Duration>,
    pub(super) garp_refresh: Option<Duration>,
    /// `vrrp_min_garp`: announce once.
    pub(super) announce_once: bool,
    pub(super) strict: bool,
    pub(super) startup_delay: Option<Duration>,
    pub(super) default_interface: Option<InterfaceName>,
}

impl Globals {
    /// A `global_defs` block.
    pub(super) fn read(&mut self, block: &Statement) {
        for statement in block.statements() {
            self.statement(statement);
        }
    }

    /// A statement of such a block, or one that may stand outside of it too.
    pub(super) fn statement(&mut self, statement: &Statement) {
        let invalid = |range: &str| format!("is no value that keepalived takes ({range}); its default holds");
        match statement.keyword() {
            "router_id" => self.router_id(statement),
            "vrrp_version" => match number(statement, &(2..=3)) {
                Some(version) => self.version = Some(if version == 3 { 3 } else { 2 }),
                None => self.notes.add((), statement, invalid("2 or 3")),
            },
            "vrrp_garp_master_delay" => match seconds(statement, &(0.0..=3600.0)) {
                Some(delay) => self.garp_delay = Some(delay),
                None => self.notes.add((), statement, invalid("seconds")),
            },
            "vrrp_garp_master_refresh" => match seconds(statement, &(0.0..=86_400.0)) {
                Some(refresh) => self.garp_refresh = Some(refresh),
                None => self.notes.add((), statement, invalid("seconds")),
            },
            "vrrp_min_garp" => self.switch(statement, |globals, on| globals.announce_once = on),
            "vrrp_strict" => self.switch(statement, |globals, on| globals.strict = on),
            "vrrp_startup_delay" => match seconds(statement, &(0.0..=3600.0)) {
                Some(delay) => self.startup_delay = Some(delay),
                None => self.notes.add((), statement, invalid("seconds, here up to an hour")),
            },
            "default_interface" => match InterfaceName::new(statement.argument().unwrap_or_default()) {
                Ok(name) => self.default_interface = Some(name),
                Err(error) => self.notes.add((), statement, error),
            },
            "vrrp_mcast_group4" | "vrrp_mcast_group6" => self.group(statement),
            "vrrp_down_timer_adverts" => down_timer(statement, |why| self.notes.add((), statement, why)),
            keyword => match keywords::global(keyword) {
                Some(why) => self.notes.add((), statement, why),
                None => self.notes.add((), statement, "unknown keyword: it is left out"),
            },
        }
    }

    fn router_id(&mut self, statement: &Statement) {
        let valid = |name: &&str| {
            (1..=253).contains(&name.len()) && !name.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        match statement.argument().filter(valid) {
            Some(name) => self.node = Some(name.to_owned()),
            None => {
                self.notes.add(
                    (),
                    statement,
                    "`node` is 1-253 bytes without white space: the host's name is used",
                );
            }
        }
    }

    fn switch(&mut self, statement: &Statement, set: impl FnOnce(&mut Self, bool)) {
        match switch(statement) {
            Some(on) => set(self, on),
            None => self.notes.add((), statement, "is neither on nor off: it is left out"),
        }
    }

    fn group(&mut self, statement: &Statement) {
        let why = match statement.argument() {
            Some("224.0.0.18" | "ff02::12") => "always so",
            _ => {
                "NOT COMPATIBLE with keepalived peers: adverts go to 224.0.0.18 and ff02::12 only; take the keyword away \
                 on all nodes first, or use `unicast`"
            }
        };
        self.notes.add((), statement, why);
    }
}

/// `down_timer_adverts` and its global form.
pub(super) fn down_timer(statement: &Statement, remark: impl FnOnce(&'static str)) {
    if statement.argument() == Some("3") {
        remark("always so (RFC 9568)");
    } else {
        remark(
            "always 3 (RFC 9568): with keepalived peers that wait for fewer adverts, VIPs have two owners for a moment; \
             take the keyword away on all nodes first",
        );
    }
}
