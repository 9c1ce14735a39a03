//! Checks across services: VIPs that there are, ports that nobody else has, and how much fits into the program's tables.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use vip_common::steering::maglev::RingSize;
use vip_common::steering::tables::{MAX_BACKENDS, MAX_SERVICE_PORTS, MAX_SERVICES};

use super::super::field::Field;
use super::super::instance;
use super::super::model::Name;
use super::super::problem::Path;
use super::ports::{PortRange, Transport};
use super::read::Draft;

/// Fewer than half of the slots, as a change that replaces all backends needs as many beside them, and fewer than a ring has
/// entries.
pub(crate) const MOST_BACKENDS: u32 = 16_000;
const _: () = assert!(2 * MOST_BACKENDS < MAX_BACKENDS && MOST_BACKENDS < RingSize::DEFAULT.get());

/// Reports what two services share and must not, VIPs that no instance has, and totals that the tables cannot hold.
pub(in super::super) fn across_services(drafts: &[Draft<'_>], instances: &[instance::Draft<'_>]) {
    names(drafts);
    vips(drafts, instances);
    ports(drafts);
    backends(drafts, instances);
    totals(drafts);
}

fn names(drafts: &[Draft<'_>]) {
    let mut first: HashMap<&Name, Path> = HashMap::new();
    for (field, name) in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
        if let Some(path) = first.get(name) {
            field.error(format_args!("{name} stands already at {path}"));
        } else {
            first.insert(name, field.path.clone());
        }
    }
}

fn vips(drafts: &[Draft<'_>], instances: &[instance::Draft<'_>]) {
    let mut accepting: HashMap<IpAddr, Option<&Name>> = HashMap::new();
    for instance in instances {
        let refuses = instance.instance().filter(|instance| !instance.accepts());
        for (_, vip) in &instance.vips {
            accepting.insert(vip.address, refuses.map(|instance| &instance.name));
        }
    }
    for (field, vip) in drafts.iter().filter_map(|draft| draft.vip.as_ref()) {
        match accepting.get(vip) {
            Some(None) => {}
            Some(Some(instance)) => {
                field.error(format_args!(
                    "{vip}: instance {instance} takes no traffic to it (`accept: false`)"
                ));
            }
            None => field.error(format_args!("{vip} is no instance's VIP: add it to the `vips` of one")),
        }
    }
}

/// A port of a VIP belongs to one service.
fn ports(drafts: &[Draft<'_>]) {
    type Claims<'d, 'a> = Vec<&'d (Field<'a>, PortRange)>;
    let mut claims: HashMap<(IpAddr, Transport), Claims<'_, '_>> = HashMap::new();
    for draft in drafts {
        let Some((_, vip)) = &draft.vip else { continue };
        for claim in &draft.ports {
            claims.entry((*vip, claim.1.transport())).or_default().push(claim);
        }
    }
    for ((vip, _), claims) in &mut claims {
        // All ports, as 0, are before any other.
        claims.sort_by_key(|(_, range)| *range.numbers().start());
        let mut furthest: Option<&(Field<'_>, PortRange)> = None;
        for &claim in claims.iter() {
            let (field, range) = claim;
            if let Some((other, taken)) = furthest.filter(|(_, taken)| taken.overlaps(range)) {
                // Said where the file has it second.
                let claims = [(field, range), (other, taken)];
                let [(first, has), (second, wants)] =
                    if other.node.at < field.node.at { [claims[1], claims[0]] } else { claims };
                second.error(format_args!("{wants} of {vip} is taken already at {} ({has})", first.path));
            }
            if furthest.is_none_or(|(_, taken)| taken.numbers().end() <= range.numbers().end()) {
                furthest = Some(claim);
            }
        }
    }
}

/// A packet that is sent to a VIP again would go round.
fn backends(drafts: &[Draft<'_>], instances: &[instance::Draft<'_>]) {
    let vips: HashSet<IpAddr> =
        instances.iter().flat_map(|instance| &instance.vips).map(|(_, vip)| vip.address).collect();
    for (field, address) in drafts.iter().flat_map(|draft| &draft.backends) {
        if vips.contains(address) {
            field.error(format_args!("{address} is a VIP: a backend is named by an address of its own"));
        }
    }
}

fn totals(drafts: &[Draft<'_>]) {
    let Some(last) = drafts.last().and_then(|draft| draft.name.as_ref()) else { return };
    let ports: usize =
        drafts.iter().flat_map(|draft| &draft.ports).map(|(_, range)| range.numbers().len()).sum();
    let steered = drafts.iter().filter(|draft| draft.mode.is_steered());
    let backends: usize = steered.map(|draft| draft.backends.len()).sum();
    for (what, count, most) in [
        ("services", drafts.len(), MAX_SERVICES),
        ("ports of services, each of a range counted", ports, MAX_SERVICE_PORTS),
        ("backends of services", backends, MOST_BACKENDS),
    ] {
        if u32::try_from(count).map_or(true, |count| count > most) {
            last.0.error(format_args!("makes {count} {what}: at most {most} fit"));
        }
    }
}
