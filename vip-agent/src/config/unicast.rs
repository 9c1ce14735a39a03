//! The schema of an instance's `unicast`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::VipAddress;
use super::field::{Field, Mapping};
use super::model::Unicast;
use super::tree::Value;
use crate::types::{Family, Priority};

/// More peers than this are pointed out: each costs a frame per advert.
const MANY_PEERS: usize = 64;

/// `vips` is `None` where some were refused: then nothing can be said about families.
pub(super) fn unicast(
    field: &Field<'_>,
    vips: Option<&[VipAddress]>,
    priority: Option<Priority>,
) -> Option<Unicast> {
    let unicast = field.mapping(&["source", "peers", "min_ttl"])?;
    let sources = unicast.required("source").and_then(|field| sources(&field));
    let peers = unicast.required("peers").and_then(|field| peers(&field));
    let min_ttl = unicast.or("min_ttl", None, |field| match field.is_null() {
        true => Some(None),
        false => field.integer(1..=255).map(|ttl| u8::try_from(ttl).ok()),
    });
    let (sources, peers, min_ttl) = (sources?, peers?, min_ttl?);
    let mut valid = peers_differ_from(&sources, &peers);
    valid &= routers_are_no_vips(&sources, &peers, vips?, priority?);
    valid &= families_match(&unicast, &sources, &peers, vips?);
    valid.then(|| Unicast {
        source_v4: sources.iter().find_map(|(_, source)| v4(*source)),
        source_v6: sources.iter().find_map(|(_, source)| v6(*source)),
        peers: peers.iter().map(|(_, peer)| *peer).collect(),
        min_ttl,
    })
}

type Addresses<'a> = Vec<(Field<'a>, IpAddr)>;

fn node<'a>(field: Field<'a>) -> Option<(Field<'a>, IpAddr)> {
    let address = field.accept(super::node(field.text()?))?;
    Some((field, address))
}

/// All of them, or `None` once each was read.
fn nodes(fields: Vec<Field<'_>>) -> Option<Addresses<'_>> {
    let nodes: Vec<_> = fields.into_iter().map(node).collect();
    nodes.into_iter().collect()
}

/// One address, or one of each family.
fn sources<'a>(field: &Field<'a>) -> Option<Addresses<'a>> {
    if !matches!(field.node.value, Value::List(_)) {
        return node(field.clone()).map(|source| vec![source]);
    }
    let sources = nodes(field.list()?)?;
    let of_v4 = sources.iter().filter(|(_, source)| source.is_ipv4()).count();
    if of_v4 > 1 || sources.len() - of_v4 > 1 || sources.is_empty() {
        return field.refuse("must be one address, or a list of one IPv4 and one IPv6 address");
    }
    Some(sources)
}

fn peers<'a>(field: &Field<'a>) -> Option<Addresses<'a>> {
    let fields = field.list()?;
    if fields.is_empty() {
        return field.refuse("needs at least one address");
    }
    if fields.len() > MANY_PEERS {
        field.warn(format_args!("has {} addresses: each costs a frame per advert", fields.len()));
    }
    let peers = nodes(fields)?;
    let mut seen = BTreeSet::new();
    let repeated: Vec<_> = peers.iter().filter(|(_, peer)| !seen.insert(*peer)).collect();
    for (field, peer) in &repeated {
        field.error(format_args!("{peer} stands in this list already"));
    }
    repeated.is_empty().then_some(peers)
}

fn peers_differ_from(sources: &Addresses<'_>, peers: &Addresses<'_>) -> bool {
    let own: Vec<_> =
        peers.iter().filter(|(_, peer)| sources.iter().any(|(_, source)| source == peer)).collect();
    for (field, peer) in &own {
        field.error(format_args!("{peer} is this node's own source: list the others only"));
    }
    own.is_empty()
}

/// A router speaks from an address that does not move; the address owner's own is the exception.
fn routers_are_no_vips(
    sources: &Addresses<'_>,
    peers: &Addresses<'_>,
    vips: &[VipAddress],
    priority: Priority,
) -> bool {
    let sources = sources.iter().filter(|_| priority != Priority::OWNER);
    let moving: Vec<_> =
        sources.chain(peers).filter(|(_, router)| vips.iter().any(|vip| vip.address == *router)).collect();
    for (field, router) in &moving {
        field.error(format_args!("{router} is a VIP: a router needs an address that stays"));
    }
    moving.is_empty()
}

/// Every family that the VIPs have needs a source and a peer, and no other one has any.
fn families_match(
    unicast: &Mapping<'_>,
    sources: &Addresses<'_>,
    peers: &Addresses<'_>,
    vips: &[VipAddress],
) -> bool {
    let mut valid = true;
    for (field, router) in sources.iter().chain(peers) {
        if vips.iter().all(|vip| vip.address.is_ipv4() != router.is_ipv4()) {
            let family = Family::of(*router);
            field.error(format_args!("{router}: the instance has no {family} VIP"));
            valid = false;
        }
    }
    for (key, what, routers) in [("source", "source", sources), ("peers", "peer", peers)] {
        let lacking =
            |vip: &&VipAddress| routers.iter().all(|(_, router)| router.is_ipv4() != vip.address.is_ipv4());
        let Some(vip) = vips.iter().find(lacking) else { continue };
        if let Some(field) = unicast.get(key) {
            let family = Family::of(vip.address);
            field.error(format_args!("has no {family} {what}, which the VIP {} needs", vip.address));
            valid = false;
        }
    }
    valid
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}
