//! Who gets which VIP, and which of them move together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vip_kube_protocol::VipAddress;

use super::claims::{Claim, Eligible, Kind, Sharing};
use super::remark::{About, Remark, Trouble};
use super::{LocalAddress, Settings};

/// VIPs that hang together: those of one object, and of all that share one of them.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Whose it is, and which of the VIPs each asked for: the oldest object first.
    pub(super) holders: Vec<(About, Vec<IpAddr>)>,
    /// In the order in which they were claimed.
    pub(super) vips: Vec<VipAddress>,
    pub(super) eligible: Eligible,
    pub(super) local_address: LocalAddress,
    pub(super) kind: Kind,
    sharing: Vec<Sharing>,
}

/// Hears all claims, older objects first. Units are in the order of their oldest objects.
pub(super) fn units(mut claims: Vec<Claim>, settings: &Settings, remarks: &mut Vec<Remark>) -> Vec<Unit> {
    claims.sort_by(|a, b| {
        (&a.age, &a.about, a.kind).cmp(&(&b.age, &b.about, b.kind)).then_with(|| {
            let vips = |claim: &Claim| claim.vips.iter().map(|vip| vip.address).collect::<Vec<_>>();
            vips(a).cmp(&vips(b))
        })
    });
    let mut units: Vec<Unit> = Vec::new();
    let mut held: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for mut claim in claims {
        let about = claim.about.clone();
        claim.vips.retain(|vip| {
            let free = !settings.taken_vips.contains(&vip.address);
            if !free {
                let message = format!("{} is a VIP of this node's own configuration file", vip.address);
                remarks.push(Remark { about: about.clone(), trouble: Trouble::Conflict, message });
            }
            free
        });
        if claim.vips.is_empty() {
            continue;
        }
        match host(&claim, &units, &held) {
            Err(message) => {
                remarks.push(Remark { about: claim.about, trouble: Trouble::Conflict, message });
            }
            Ok(None) => {
                let addresses: Vec<IpAddr> = claim.vips.iter().map(|vip| vip.address).collect();
                held.extend(addresses.iter().map(|vip| (*vip, units.len())));
                units.push(Unit {
                    holders: vec![(claim.about, addresses)],
                    vips: claim.vips,
                    eligible: claim.eligible,
                    local_address: claim.local_address,
                    kind: claim.kind,
                    sharing: claim.sharing.into_iter().collect(),
                });
            }
            Ok(Some(index)) => join(&mut units[index], index, claim, &mut held),
        }
    }
    units
}

/// The unit that a claim belongs to: none yet, or the one whose VIPs it may share.
fn host(claim: &Claim, units: &[Unit], held: &BTreeMap<IpAddr, usize>) -> Result<Option<usize>, String> {
    let mut found: Option<usize> = None;
    for vip in &claim.vips {
        let Some(&index) = held.get(&vip.address) else { continue };
        let unit = &units[index];
        if let Err(why) = may_share(claim, unit) {
            let holder = unit.holders.first().map_or_else(String::new, |(about, _)| about.to_string());
            return Err(format!("{} is held by the older {holder}, {why}", vip.address));
        }
        if found.is_some_and(|other| other != index) {
            return Err(format!("{} would tie VIPs of different Services together", vip.address));
        }
        found = Some(index);
    }
    Ok(found)
}

fn may_share(claim: &Claim, unit: &Unit) -> Result<(), String> {
    let Some(ours) = &claim.sharing else {
        return Err(format!("which does not share it: both need the same {}", super::claims::SHARING_KEY));
    };
    if unit.sharing.is_empty() || unit.sharing.iter().any(|other| other.key != ours.key) {
        return Err(format!("which does not share it: both need the same {}", super::claims::SHARING_KEY));
    }
    for other in &unit.sharing {
        if let Some(port) = other.ports.intersection(&ours.ports).next() {
            return Err(format!("which has {} port {} already", port.protocol, port.port));
        }
        if other.pods != ours.pods {
            return Err(
                "which has other pods: Services that share a VIP have externalTrafficPolicy Cluster, or all the same \
                 selector"
                    .to_owned(),
            );
        }
    }
    if claim.local_address != unit.local_address {
        return Err(format!("whose {} is another", super::claims::LOCAL_ADDRESS));
    }
    Ok(())
}

fn join(unit: &mut Unit, index: usize, claim: Claim, held: &mut BTreeMap<IpAddr, usize>) {
    let addresses = claim.vips.iter().map(|vip| vip.address).collect();
    for vip in claim.vips {
        if held.insert(vip.address, index).is_none() {
            unit.vips.push(vip);
        }
    }
    unit.eligible.and(&claim.eligible);
    unit.holders.push((claim.about, addresses));
    unit.sharing.extend(claim.sharing);
}
