//! Which addresses an instance serves, where, and whom it speaks to.

use std::net::IpAddr;

use super::super::yaml;
use super::finish::{Context, Work};
use super::instance::Key;
use super::notes::remark;
use super::vips::Vip;
use crate::types::Priority;
use crate::vrrp::codec::MAX_ADDRESSES;

impl<'a> Context<'a> {
    /// `vips` and `vip_interface`.
    pub(super) fn vips(&mut self, work: &mut Work<'a>) {
        let vips = std::mem::take(&mut work.draft.vips);
        let mut lines = Vec::new();
        for vip in &vips {
            let why_not = self.why_not(work, vip);
            let note = |why: &str| format!("  {}", remark(&vip.line.at, &vip.line.echo(), why));
            if let Some(why) = &why_not {
                lines.push(note(why));
                lines.push(format!("  # - {}", yaml::quoted(&vip.address.to_string())));
                continue;
            }
            let address = vip.address.address;
            self.vips.insert(address, vip.line.at.clone());
            if vip.options {
                lines.push(note(
                    "of its options, only `dev` has an equivalent: a VIP is on no NIC, but (`local_address`) a /32 or /128 on lo",
                ));
            }
            if vip.line.keyword().contains('/') && vip.address.prefix.is_none() {
                lines
                    .push(note("its prefix length makes it the first or last address of a subnet: left out"));
            }
            let foreign = address.is_ipv6() != work.ipv6;
            if vip.excluded && !foreign {
                lines.push(note(
                    "NOT COMPATIBLE with keepalived peers: viplane lists all VIPs in its adverts, and keepalived takes \
                     none with another list; move it to virtual_ipaddress on all nodes first",
                ));
            }
            if vip.excluded && foreign {
                lines.push(note(
                    "moves with the others, by adverts of its own family, which keepalived does not send",
                ));
            }
            work.served.push(address);
            let line = format!("  - {}", yaml::quoted(&vip.address.to_string()));
            if foreign && work.version == 2 { &mut work.second } else { &mut lines }.push(line);
        }
        if work.served.len() == work.second.len() {
            work.off("it has no address that could be served");
        }
        lines.insert(0, "vips:".to_owned());
        work.lines.insert(Key::Vips, lines);
        self.vip_interface(work, &vips);
    }

    /// Why a VIP is left out, if it is.
    fn why_not(&self, work: &Work<'a>, vip: &Vip<'a>) -> Option<String> {
        let address = vip.address.address;
        let foreign = address.is_ipv6() != work.ipv6;
        let family = work.served.iter().filter(|served| served.is_ipv6() == address.is_ipv6());
        if let Some(first) = self.vips.get(&address) {
            return Some(format!(
                "stands already at {first}: left out. keepalived lists a VIP that stands twice in an instance twice in \
                 its adverts: take one away on all nodes first"
            ));
        }
        if foreign && !vip.excluded {
            return Some(
                "keepalived ignores it, as its first VIP is of the other family. Here both may stand together: should it \
                 be served, take the comment sign away"
                    .to_owned(),
            );
        }
        if foreign && !work.draft.peers.peers.is_empty() {
            return Some(
                "left out: it needs an address of its family in `unicast.source`, and one of each peer in \
                 `unicast.peers`; add them and take the comment sign away"
                    .to_owned(),
            );
        }
        (family.count() >= MAX_ADDRESSES).then(|| {
            format!(
                "left out: an advert holds {MAX_ADDRESSES} addresses; make an instance of the rest, with a VRID of its \
                 own and the same `sync_group`"
            )
        })
    }

    /// One for all VIPs; keepalived has one for each.
    fn vip_interface(&self, work: &mut Work<'a>, vips: &[Vip<'a>]) {
        let own = work.draft.interface.clone().or_else(|| self.globals.default_interface.clone());
        let on = |vip: &'_ Vip<'a>| vip.interface.clone().or_else(|| own.clone());
        let Some(first) = vips.first().map(on) else { return };
        if vips.iter().all(|vip| on(vip) == first) {
            if let Some(name) = first.filter(|name| Some(name) != own.as_ref()) {
                work.set(Key::VipInterface, format!("vip_interface: {}", yaml::scalar(name.as_str())));
            }
            return;
        }
        for vip in vips.iter().filter(|vip| on(vip) != own) {
            let why = "an instance answers for all its VIPs on one `vip_interface`: give those of another interface an \
                       instance of their own, with a VRID of its own and the same `sync_group`, on all nodes";
            work.draft.notes.add(Key::VipInterface, vip.line, why);
        }
    }

    /// `unicast`.
    pub(super) fn unicast(&self, work: &mut Work<'a>) {
        let peers = std::mem::take(&mut work.draft.peers);
        let block = work.draft.block;
        if peers.peers.is_empty() {
            if let Some(statement) = peers.source_statement() {
                let why = "without unicast_peer adverts are multicast, and come from the interface's own first address";
                work.draft.notes.add(Key::Unicast, statement, why);
            }
            return;
        }
        let explicit = peers.source_address().filter(|source| source.is_ipv6() == work.ipv6);
        let source = explicit.or_else(|| {
            let found = self.source_of_this_host(work)?;
            let why = format!("no unicast_src_ip: {found} is what this host has on the interface, as keepalived would choose; compare it");
            work.draft.notes.add(Key::Unicast, block, why);
            Some(found)
        });
        let Some(source) = source else {
            work.off("unicast needs this node's address as `unicast.source`, which keepalived takes from the interface: write it in place of SOURCE");
            work.set(
                Key::Unicast,
                format!(
                    "unicast: {{ source: SOURCE, peers: {} }}",
                    yaml::list(peers.peers.iter().map(|(peer, _)| peer.to_string()))
                ),
            );
            return;
        };
        if work.served.contains(&source) && work.draft.priority != Priority::OWNER {
            work.off("its unicast source is one of its VIPs: a router needs an address that stays");
        }
        let mut kept = Vec::new();
        for (peer, line) in &peers.peers {
            let why = match () {
                () if peer.is_ipv6() != work.ipv6 => {
                    "is of another family than the adverts: keepalived ignores it as well"
                }
                () if *peer == source => "is this node itself: left out",
                () if work.served.contains(peer) => "is a VIP, no router: left out",
                () => {
                    kept.push(*peer);
                    continue;
                }
            };
            work.draft.notes.add(Key::Unicast, line, why);
        }
        if kept.is_empty() {
            work.off("no unicast peer is left");
        }
        let mut lines = vec![
            "unicast:".to_owned(),
            format!("  source: {}", yaml::quoted(&source.to_string())),
            format!("  peers: {}", yaml::list(kept.iter().map(ToString::to_string))),
        ];
        if let Some(ttl) = peers.min_ttl(&kept, &mut work.draft.notes) {
            lines.push(format!("  min_ttl: {ttl}"));
        }
        work.lines.insert(Key::Unicast, lines);
    }

    /// The interface's first address of the family, if this host has it and it is no VIP.
    fn source_of_this_host(&self, work: &Work<'a>) -> Option<IpAddr> {
        let interface = work.draft.interface.as_ref()?;
        let addresses = self.host.addresses.iter().filter(|(name, _)| name == interface.as_str());
        let is_vip = |address: &IpAddr| self.vips.contains_key(address);
        addresses
            .map(|(_, address)| *address)
            .find(|address| address.is_ipv6() == work.ipv6 && !is_vip(address))
    }
}
