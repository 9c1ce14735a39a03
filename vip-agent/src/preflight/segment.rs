//! Judges the network segment: who advertises, who answers for the VIPs, whether our own adverts get out. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::report::{Check, Finding};
use crate::types::{Family, MacAddr, VirtualRouterId};
use crate::vrrp::discard::Discard;
use crate::vrrp::receive::{Packet, Rules, Senders};
use crate::vrrp::socket::Claim;

/// Lines about stations that claim VIPs, for one instance: a spoofer makes as many as it likes.
const MOST_LINES: usize = 8;

/// An instance, and what was heard where it lives.
pub(super) struct Segment<'a> {
    /// "instance NAME"
    pub(super) subject: String,
    /// Interface of the adverts.
    pub(super) interface: String,
    pub(super) virtual_router_id: VirtualRouterId,
    /// What it would accept, for each family of its VIPs.
    pub(super) rules: Vec<&'a Rules>,
    /// Frames with adverts that came in by the interface, each router's once.
    pub(super) frames: Vec<&'a [u8]>,
    /// For how long was listened.
    pub(super) listened: Duration,
    /// Whether that is three of its intervals.
    pub(super) long_enough: bool,
    pub(super) vips: Vec<IpAddr>,
    /// Who answered for them.
    pub(super) claims: Vec<Claim>,
}

/// Adverts of an instance's own virtual router.
#[derive(Default)]
struct Heard {
    /// From whom, and what is worth a word about them.
    routers: BTreeMap<(IpAddr, MacAddr), Option<Discard>>,
    /// Those that are not accepted, and why.
    refused: BTreeMap<(IpAddr, MacAddr), Discard>,
    /// Routers that advertise VIPs of ours as another virtual router.
    rivals: BTreeMap<(IpAddr, MacAddr), u8>,
    /// All virtual routers on the segment, with who advertises them.
    others: BTreeMap<u8, BTreeSet<IpAddr>>,
}

pub(super) fn judge(segment: &Segment<'_>) -> Vec<Finding> {
    let heard = segment.hear();
    let mut findings: Vec<Finding> = segment.multicast(&heard).into_iter().collect();
    findings.extend(segment.vrid(&heard));
    findings.extend(segment.vips(&heard));
    findings
}

impl Segment<'_> {
    fn hear(&self) -> Heard {
        let mut heard = Heard::default();
        for frame in &self.frames {
            let Ok(packet) = Packet::parse(frame) else { continue };
            let router = (packet.addresses.source(), packet.source_mac);
            let Some(rules) = self.rules_of(packet.family()) else { continue };
            if packet.virtual_router_id != self.virtual_router_id {
                let vrid = packet.virtual_router_id.get();
                heard.others.entry(vrid).or_default().insert(router.0);
                if packet.accept(rules).is_ok_and(|accepted| accepted.advert.lists_any(&rules.vips)) {
                    heard.rivals.insert(router, vrid);
                }
                continue;
            }
            match packet.accept(rules) {
                Ok(accepted) => drop(heard.routers.insert(router, accepted.remark)),
                Err(why) => drop(heard.refused.insert(router, why)),
            }
        }
        heard
    }

    fn rules_of(&self, family: Family) -> Option<&Rules> {
        self.rules.iter().copied().find(|rules| Family::of(rules.own) == family)
    }

    fn vrid(&self, heard: &Heard) -> Vec<Finding> {
        let Self { subject, interface, virtual_router_id: vrid, .. } = self;
        let mut findings: Vec<Finding> =
            heard.routers.iter().map(|(router, remark)| self.router(*router, *remark, heard)).collect();
        findings.extend(heard.refused.iter().map(|(router, why)| self.refused(*router, *why, heard)));
        findings.extend(heard.rivals.iter().map(|((address, mac), other)| {
            Finding::error(
                Check::Vrid,
                subject,
                format!("{address} ({mac}) advertises VIPs of ours as virtual router {other}, not {vrid}: both would own them"),
                "set the same `virtual_router_id` on all nodes, or take the VIPs off one group",
            )
        }));
        if findings.is_empty() {
            let others: Vec<String> =
                heard.others.iter().map(|(vrid, by)| format!("{vrid} ({})", list(by))).collect();
            let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
            let listened = humantime::format_duration(self.listened);
            let found = format!(
                "nobody advertises virtual router {vrid} on {interface} within {listened}; others: {others}"
            );
            findings.push(Finding::ok(Check::Vrid, subject, found));
        }
        if !self.long_enough {
            let found = format!(
                "listened for {} only, less than three intervals: a router may have gone unheard",
                humantime::format_duration(self.listened)
            );
            let remedy = format!("listen longer: `tcpdump -ni {interface} proto 112`");
            findings.push(Finding::warning(Check::Vrid, subject, found, remedy));
        }
        findings
    }

    /// A router that our instance hears.
    fn router(&self, (address, mac): (IpAddr, MacAddr), remark: Option<Discard>, heard: &Heard) -> Finding {
        let Self { subject, virtual_router_id: vrid, .. } = self;
        match remark {
            Some(Discard::VridClash | Discard::AddressMismatch | Discard::OwnMac) => {
                self.refused((address, mac), remark.unwrap_or(Discard::VridClash), heard)
            }
            None => Finding::ok(
                Check::Vrid,
                subject,
                format!("{address} ({mac}) is the Active router of virtual router {vrid} with our VIPs"),
            ),
            Some(remark) => Finding::warning(
                Check::Vrid,
                subject,
                format!(
                    "{address} ({mac}) is the Active router of virtual router {vrid} with our VIPs, but: {remark}"
                ),
                "make the instance the same on all nodes",
            ),
        }
    }

    /// A router of our virtual router ID that our instance does not hear, or should not.
    fn refused(&self, (address, mac): (IpAddr, MacAddr), why: Discard, heard: &Heard) -> Finding {
        let Self { subject, interface, virtual_router_id: vrid, .. } = self;
        let who = format!("{address} ({mac})");
        let (found, remedy) = match why {
            Discard::VridClash => (
                format!(
                    "{who} advertises virtual router {vrid} on {interface} with none of our VIPs: another group uses it"
                ),
                format!("choose a virtual_router_id that is free: not {}", self.taken(heard)),
            ),
            Discard::AddressMismatch => {
                let found = format!("{who} advertises virtual router {vrid} with another list of VIPs");
                return Finding::warning(Check::Vrid, subject, found, "make `vips` the same on all nodes");
            }
            Discard::OwnSource => (
                format!("{who} advertises from our own address: two hosts have it"),
                "give each host its own address".to_owned(),
            ),
            Discard::OwnMac => (
                format!("{who} advertises from our own MAC: a loop of the network, or a cloned machine"),
                "look for the loop, or give the clone another MAC".to_owned(),
            ),
            other => (
                format!(
                    "{who} advertises virtual router {vrid} on {interface}, and would not be heard: {other}"
                ),
                refusal(other).to_owned(),
            ),
        };
        Finding::error(Check::Vrid, subject, found, remedy)
    }

    fn taken(&self, heard: &Heard) -> String {
        let mut taken: BTreeSet<u8> = heard.others.keys().copied().collect();
        taken.insert(self.virtual_router_id.get());
        list(&taken)
    }

    /// Who was heard proves that the groups work, in one direction; silence proves nothing.
    fn multicast(&self, heard: &Heard) -> Option<Finding> {
        if !self.rules.iter().any(|rules| rules.senders == Senders::Multicast) {
            return None;
        }
        let routers = heard.routers.keys().chain(heard.refused.keys()).map(|(address, _)| *address);
        let routers: BTreeSet<IpAddr> = routers.chain(heard.others.values().flatten().copied()).collect();
        let found = if routers.is_empty() {
            "joined; no advert came, so that only a second node can tell whether the network lets them through".to_owned()
        } else {
            format!("joined; adverts of {} arrive", list(&routers))
        };
        Some(Finding::ok(Check::Multicast, &self.subject, found))
    }

    fn vips(&self, heard: &Heard) -> Vec<Finding> {
        let Self { subject, virtual_router_id: vrid, .. } = self;
        if self.claims.is_empty() {
            let found = format!("nobody answers for {}", shortened(&self.vips));
            return vec![Finding::ok(Check::Vip, subject, found)];
        }
        let owner = heard.routers.iter().find(|(_, remark)| **remark != Some(Discard::VridClash));
        let mut findings: Vec<Finding> = self
            .claims
            .iter()
            .take(MOST_LINES)
            .map(|Claim { address, mac }| match owner {
                Some(((owner, _), _)) => {
                    let found = format!("{mac} answers for {address}: {owner} advertises it");
                    Finding::ok(Check::Vip, subject, found)
                }
                None => Finding::error(
                    Check::Vip,
                    subject,
                    format!("{mac} answers for {address}, but no advert of virtual router {vrid} is heard from an owner"),
                    format!("find that station and take {address} off it; or take it out of `vips`"),
                ),
            })
            .collect();
        if let Some(more) = self.claims.len().checked_sub(MOST_LINES).filter(|more| *more > 0)
            && let Some(last) = findings.last_mut()
        {
            last.found.push_str(&format!(" (and {more} more)"));
        }
        findings
    }
}

/// What to do about a router whose adverts would be discarded.
fn refusal(why: Discard) -> &'static str {
    match why {
        Discard::VersionMismatch => "set the same `version` on all nodes",
        Discard::IntervalMismatch => "set the same `advert_interval` on all nodes",
        Discard::AuthTypeMismatch | Discard::WrongPassword => "set the same `auth` on all nodes",
        Discard::Unsigned | Discard::UnknownKey | Discard::BadSignature => {
            "give all nodes the same `auth_trailer`, with `accept_unsigned: true` while they change over"
        }
        Discard::UnknownPeer => "add it to `unicast.peers`, or give the groups different virtual_router_ids",
        Discard::WrongDestination => {
            "set `unicast` on all nodes or on none, or give the groups different virtual_router_ids"
        }
        Discard::BadChecksum => "set the same `checksum` on all nodes",
        _ => "make the instance the same on all nodes, or choose another virtual_router_id",
    }
}

fn list<T: ToString>(items: &BTreeSet<T>) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

fn shortened(vips: &[IpAddr]) -> String {
    let named: Vec<String> = vips.iter().take(4).map(ToString::to_string).collect();
    let more = vips.len().saturating_sub(named.len());
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

#[cfg(test)]
#[path = "segment/tests.rs"]
mod tests;
