//! `vrrp_sync_group`: instances that move together.

use std::collections::{HashMap, HashSet};

use super::keywords;
use super::notes::{Notes, remark};
use super::tracking::Kind;
use super::tree::Statement;
use super::values::Names;

/// A group.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// As viplane names it; `None` with a single member, which needs no group.
    pub(super) name: Option<String>,
    /// `sync_group_tracking_weight`, `global_tracking`: members' trackers keep their weights.
    pub(super) keeps_weights: bool,
    /// What all members track.
    pub(super) trackers: Vec<(Kind, &'a Statement)>,
    /// Shown at the first member.
    pub(super) remarks: Vec<String>,
}

/// All groups, and the one that each instance is in, by keepalived's name.
#[derive(Debug, Default)]
pub(super) struct Groups<'a> {
    pub(super) groups: Vec<Group<'a>>,
    pub(super) of: HashMap<&'a str, usize>,
    /// Of groups that are none.
    pub(super) remarks: Vec<String>,
}

impl<'a> Groups<'a> {
    /// Reads all `vrrp_sync_group` blocks; `instances` are those that exist.
    pub(super) fn read(blocks: &[&'a Statement], instances: &HashSet<&str>) -> Self {
        let mut groups = Self::default();
        let mut names = Names::default();
        let mut seen = HashSet::new();
        for block in blocks {
            let name = block.argument().unwrap_or_default();
            if name.is_empty() || !seen.insert(name) {
                let why =
                    "has no name, or one that stood before: keepalived skips it, and so does this import";
                groups.remarks.push(remark(&block.at, &block.echo(), why));
                continue;
            }
            groups.group(block, &mut names, instances);
        }
        groups
    }

    fn group(&mut self, block: &'a Statement, names: &mut Names, instances: &HashSet<&str>) {
        let mut notes = Notes::default();
        let mut group = Group { name: None, keeps_weights: false, trackers: Vec::new(), remarks: Vec::new() };
        let mut members = Vec::new();
        for statement in block.statements() {
            match statement.keyword() {
                "group" => {
                    for (at, member) in statement.listed() {
                        if !instances.contains(member) {
                            notes.push(
                                (),
                                remark(at, member, "is no instance: keepalived ignores it as well"),
                            );
                        } else if self.of.contains_key(member) || members.contains(&member) {
                            let why = "is in a sync group already: keepalived ignores this one as well";
                            notes.push((), remark(at, member, why));
                        } else {
                            members.push(member);
                        }
                    }
                }
                "sync_group_tracking_weight" => group.keeps_weights = true,
                keyword => {
                    if keyword == "global_tracking" {
                        group.keeps_weights = true;
                    }
                    match (Kind::of(keyword), keywords::sync_group(keyword)) {
                        (Some(kind), _) => {
                            group.trackers.extend(statement.statements().iter().map(|line| (kind, line)));
                        }
                        (None, Some(why)) => notes.add((), statement, why),
                        (None, None) => notes.add((), statement, "unknown keyword: it is left out"),
                    }
                }
            }
        }
        let mut remarks = notes.at(&()).to_vec();
        if members.len() < 2 {
            let why = "has fewer than two members: nothing to synchronise";
            remarks.insert(0, remark(&block.at, &block.echo(), why));
        } else {
            let name = block.argument().unwrap_or_default();
            let made = names.make(name);
            if made != name {
                remarks.insert(0, remark(&block.at, &block.echo(), format_args!("is named {made} here")));
            }
            group.name = Some(made);
        }
        if members.is_empty() {
            self.remarks.append(&mut remarks);
            return;
        }
        group.remarks = remarks;
        self.of.extend(members.iter().map(|member| (*member, self.groups.len())));
        self.groups.push(group);
    }
}
