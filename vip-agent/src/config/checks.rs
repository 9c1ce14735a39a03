//! Checks across instances: what must not stand twice, and how much there can be.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use vip_common::maps::{MAX_ROUTERS, MAX_VIPS};

use super::field::Field;
use super::instance::Draft;
use super::interface::InterfaceSelector;
use super::model::{AllFailed, Instance, Name};
use super::probe;
use super::problem::Path;
use super::service;
use crate::types::Family;

/// Reports what two instances share and must not, and totals that the maps cannot hold.
pub(super) fn across_instances(list: &Field<'_>, drafts: &[Draft<'_>]) {
    names(drafts);
    virtual_router_ids(drafts);
    vips(drafts);
    totals(list, drafts);
    sync_groups(drafts);
    detection_keys(drafts);
}

/// Probes have names of their own, instances and backends name probes that there are and that can be asked of them, and
/// every probe is named.
pub(super) fn tracking(probes: &[probe::Draft<'_>], drafts: &[Draft<'_>], services: &[service::Draft<'_>]) {
    let mut first = Firsts::default();
    let named = || probes.iter().filter_map(|probe| probe.name.as_ref());
    for (field, name) in named() {
        if let Some(path) = first.see(name.clone(), field) {
            field.error(format_args!("{name} stands already at {path}"));
        }
    }
    let tracked = || drafts.iter().flat_map(|draft| &draft.track);
    let of_backends = || services.iter().flat_map(service::Draft::probes);
    let known: HashSet<&Name> = named().map(|(_, name)| name).collect();
    for (field, name) in tracked().chain(of_backends()).filter(|(_, name)| !known.contains(name)) {
        let known: Vec<&str> = named().map(|(_, name)| name.as_str()).collect();
        let known = if known.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        field.error(format_args!("{name} is no probe; {known}"));
    }
    let named_by: HashSet<&Name> = tracked().chain(of_backends()).map(|(_, name)| name).collect();
    for (field, name) in named().filter(|(_, name)| !named_by.contains(name)) {
        field.warn(format_args!("no instance tracks {name}"));
    }
    let templates = probes.iter().filter(|probe| probe.is_of_backends());
    let templates: HashSet<&Name> =
        templates.filter_map(|probe| probe.name.as_ref()).map(|(_, name)| name).collect();
    for (field, name) in tracked().filter(|(_, name)| templates.contains(name)) {
        field.error(format_args!(
            "{name} asks `{{address}}`, which backends have: only their `probe` can name it"
        ));
    }
}

/// A sync group is one election, so its members agree in all that decides it.
fn sync_groups(drafts: &[Draft<'_>]) {
    let mut first: HashMap<&Name, (&Draft<'_>, usize)> = HashMap::new();
    for draft in drafts {
        let Some((field, group)) = &draft.sync_group else { continue };
        let (leader, members) = first.entry(group).or_insert((draft, 0));
        *members += 1;
        if *members > 1 {
            agree(leader, draft, field);
        }
    }
    for draft in drafts.iter().filter(|draft| draft.sync_group.is_some()) {
        let open = draft.instance().is_some_and(|instance| instance.all_failed == AllFailed::Open);
        if let Some(field) =
            draft.mapping.as_ref().filter(|_| open).and_then(|mapping| mapping.get("all_failed"))
        {
            field.error("must be `close` in a sync group: its members give their VIPs up together");
        }
    }
    for (field, group) in drafts.iter().filter_map(|draft| draft.sync_group.as_ref()) {
        if first.get(group).is_some_and(|(_, members)| *members == 1) {
            field.warn(format_args!("sync group {group} has no other member"));
        }
    }
}

/// Whether two instances agree in something.
type Same = fn(&Instance, &Instance) -> bool;

fn agree(leader: &Draft<'_>, member: &Draft<'_>, group: &Field<'_>) {
    let (Some(ours), Some(theirs), Some(mapping)) = (member.instance(), leader.instance(), &member.mapping)
    else {
        return;
    };
    let keys: [(&str, Same); 5] = [
        ("priority", |a, b| a.priority == b.priority),
        ("advert_interval", |a, b| {
            a.protocol.advert_interval().duration() == b.protocol.advert_interval().duration()
        }),
        ("preempt", |a, b| a.preempt == b.preempt),
        ("preempt_delay", |a, b| a.preempt_delay == b.preempt_delay),
        ("hold_down", |a, b| a.hold_down == b.hold_down),
    ];
    for (key, _) in keys.into_iter().filter(|(_, same)| !same(ours, theirs)) {
        let at = mapping.get(key);
        at.as_ref().unwrap_or(group).error(format_args!(
            "`{key}` must be as in {}: the members of a sync group are one election",
            theirs.name
        ));
    }
}

fn names(drafts: &[Draft<'_>]) {
    let mut first = Firsts::default();
    for (field, name) in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
        if let Some(path) = first.see(name.clone(), field) {
            field.error(format_args!("{name} stands already at {path}"));
        }
    }
}

/// The instances of an interface share their heartbeats, and so the key.
fn detection_keys(drafts: &[Draft<'_>]) {
    let mut first: HashMap<String, &Instance> = HashMap::new();
    for draft in drafts {
        let (Some(instance), Some(mapping)) = (draft.instance(), &draft.mapping) else { continue };
        let Some(detect) = &instance.detect else { continue };
        let other = *first.entry(instance.interface.to_string()).or_insert(instance);
        if other.detect.as_ref().is_some_and(|others| others.key != detect.key)
            && let Some(field) = mapping.get("detect")
        {
            field.error(format_args!(
                "must have the key of {}: the instances of an interface ({}) share their heartbeats",
                other.name, instance.interface
            ));
        }
    }
}

/// Virtual routers are told apart by VRID, family and interface; unicast ones too.
fn virtual_router_ids(drafts: &[Draft<'_>]) {
    let mut first = Firsts::default();
    for draft in drafts {
        let (Some((field, id)), Some(interface)) = (&draft.virtual_router_id, &draft.interface) else {
            continue;
        };
        let taken = [true, false]
            .into_iter()
            .filter(|v4| draft.vips.iter().any(|(_, vip)| vip.address.is_ipv4() == *v4));
        let taken: Vec<_> =
            taken.filter_map(|v4| first.see((interface.to_string(), *id, v4), field)).collect();
        let Some(path) = taken.first() else { continue };
        let hint = match interface {
            InterfaceSelector::Name(_) => "",
            _ => " (should they be different interfaces, name them)",
        };
        field.error(format_args!("{id} stands already at {path} for the same interface, {interface}{hint}"));
    }
}

fn vips(drafts: &[Draft<'_>]) {
    let mut first = Firsts::default();
    for (field, vip) in drafts.iter().flat_map(|draft| &draft.vips) {
        if let Some(path) = first.see(vip.address, field) {
            field.error(format_args!("{} stands already at {path}", vip.address));
        }
    }
}

fn totals(list: &Field<'_>, drafts: &[Draft<'_>]) {
    let (mut routers, mut vips) = (0, [0; 2]);
    for draft in drafts {
        let v4 = draft.vips.iter().filter(|(_, vip)| vip.address.is_ipv4()).count();
        let v6 = draft.vips.len() - v4;
        routers += usize::from(v4 > 0) + usize::from(v6 > 0);
        vips[0] += v4;
        vips[1] += v6;
    }
    if exceeds(routers, MAX_ROUTERS) {
        list.error(format_args!(
            "make {routers} virtual routers (one for each family of each instance): at most {MAX_ROUTERS} fit"
        ));
    }
    for (family, count) in [(Family::V4, vips[0]), (Family::V6, vips[1])] {
        if exceeds(count, MAX_VIPS) {
            list.error(format_args!("have {count} {family} VIPs: at most {MAX_VIPS} fit"));
        }
    }
}

fn exceeds(count: usize, most: u32) -> bool {
    u32::try_from(count).map_or(true, |count| count > most)
}

/// Where each value was seen first.
struct Firsts<T>(HashMap<T, Path>);

impl<T> Default for Firsts<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Firsts<T> {
    /// The path of the value's first occurrence, if this is a later one.
    fn see(&mut self, value: T, field: &Field<'_>) -> Option<Path> {
        if let Some(path) = self.0.get(&value) {
            return Some(path.clone());
        }
        self.0.insert(value, field.path.clone());
        None
    }
}
