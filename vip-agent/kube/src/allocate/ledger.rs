//! The pools while it is computed who gets what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vip_kube_api::{AddressRange, VipPoolStatus};
use vip_kube_protocol::Label;

use super::request::{Families, Request, taken};
use super::{MOST, MOST_RELEASED, Write, condition};
use crate::cluster::{Cluster, Family};
use crate::model::Settings;
use crate::pools::{Assignment, Offer, Pool};

/// Addresses that are looked at for a free one, beside those that are known to be somebody's: more are only passed over where another
/// pool is about to be sealed.
const MOST_TRIED: usize = 1 << 16;

/// All pools, the oldest first.
pub(super) struct Ledger<'a> {
    cluster: &'a Cluster,
    pages: Vec<Page<'a>>,
    /// Addresses that are somebody's.
    taken: BTreeSet<IpAddr>,
    /// Addresses that pools take back by what is planned here, and by which page: others may rely on that only when it is written.
    freed: BTreeMap<IpAddr, usize>,
    /// What each holder, by uid, has of which page while it is given.
    held: BTreeMap<String, Vec<(usize, IpAddr)>>,
}

/// A pool.
struct Page<'a> {
    name: &'a str,
    pool: &'a Pool,
    /// The older pool with which it has addresses in common.
    rival: Option<&'a str>,
    assignments: Vec<Assignment>,
    released: Vec<Assignment>,
    /// Where to look on: what was somebody's stays somebody's while it is planned.
    tried: BTreeMap<Family, Search>,
}

type Search = std::iter::Take<Box<dyn Iterator<Item = IpAddr>>>;

impl<'a> Ledger<'a> {
    pub(super) fn of(cluster: &'a Cluster, settings: &Settings) -> Self {
        let mut pools: Vec<(&str, &Pool)> =
            cluster.pools.iter().map(|(name, pool)| (name.as_str(), pool)).collect();
        pools.sort_by_key(|(name, pool)| (&pool.age, *name));
        let mut pages: Vec<Page<'a>> = Vec::new();
        for (name, pool) in pools {
            let overlaps = |page: &&Page<'_>| {
                let both = page.pool.offer.as_ref().ok().zip(pool.offer.as_ref().ok());
                page.rival.is_none() && both.is_some_and(|(older, younger)| older.overlaps(younger))
            };
            let rival = pages.iter().find(overlaps).map(|page| page.name);
            let assignments = pool.assignments.clone();
            pages.push(Page { name, pool, rival, assignments, released: Vec::new(), tried: BTreeMap::new() });
        }
        Self {
            cluster,
            pages,
            taken: taken(cluster, settings),
            freed: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Whether anybody of this uid has, or had, an address.
    pub(super) fn knows(&self, uid: &str) -> bool {
        self.cluster.pools.values().any(|pool| pool.assignments.iter().any(|one| one.holder.uid == uid))
    }

    /// Marks what nobody wants any more, and what its holders cannot have together. `scope`: the one namespace whose objects are known.
    pub(super) fn release(&mut self, requests: &[Request<'_>], scope: Option<&Label>) {
        let by_uid = by_uid(requests);
        for page in &mut self.pages {
            let mut together: BTreeMap<IpAddr, Vec<&Request<'_>>> = BTreeMap::new();
            for given in &mut page.assignments {
                let known = scope.is_none_or(|only| only.as_str() == given.holder.name.namespace);
                if given.released || !known || page.released.len() >= MOST_RELEASED {
                    continue;
                }
                let wanted = by_uid.get(given.holder.uid.as_str());
                let wanted = wanted.filter(|request| request.wants(page.name, given.address));
                let others = together.entry(given.address).or_default();
                match wanted {
                    Some(request) if others.iter().all(|other| request.may_share_with(other)) => {
                        others.push(request);
                    }
                    // It stays in conflict with who had it before it, so there is nothing to be confirmed.
                    Some(_) => given.released = true,
                    None => {
                        given.released = true;
                        page.released.push(given.clone());
                    }
                }
            }
        }
    }

    /// Takes back what was released long enough ago, and what others have as well.
    pub(super) fn free(&mut self, is_settled: &dyn Fn(&str, IpAddr) -> bool) {
        for (index, page) in self.pages.iter_mut().enumerate() {
            let held: BTreeSet<IpAddr> =
                page.assignments.iter().filter(|one| !one.released).map(|one| one.address).collect();
            let before = page
                .pool
                .assignments
                .iter()
                .filter(|one| one.released)
                .map(|one| (one.address, &one.holder.uid));
            let before: BTreeSet<_> = before.collect();
            page.assignments.retain(|one| {
                let was_released = one.released && before.contains(&(one.address, &one.holder.uid));
                let is_alone = !held.contains(&one.address);
                let owned = || is_owned(page.pool, one.address, self.cluster);
                let done = was_released && (!is_alone || (is_settled(page.name, one.address) && !owned()));
                if done && is_alone {
                    self.freed.insert(one.address, index);
                }
                !done
            });
        }
        for page in &self.pages {
            self.taken.extend(page.assignments.iter().map(|one| one.address));
        }
    }

    /// Lets who wants an address again keep the one that it was about to lose.
    pub(super) fn keep(&mut self, requests: &[Request<'_>]) {
        let by_uid = by_uid(requests);
        for page in self.pages.iter_mut().filter(|page| !page.pool.leaving) {
            let held: BTreeSet<IpAddr> =
                page.assignments.iter().filter(|one| !one.released).map(|one| one.address).collect();
            let released: BTreeSet<&Assignment> =
                page.pool.assignments.iter().filter(|one| one.released).collect();
            let is_wanted = |one: &&mut Assignment| {
                let request = by_uid.get(one.holder.uid.as_str());
                // What is only now released stays that.
                released.contains(&**one)
                    && !held.contains(&one.address)
                    && request.is_some_and(|request| request.wants(page.name, one.address))
            };
            page.assignments.iter_mut().filter(is_wanted).for_each(|one| one.released = false);
        }
    }

    /// Gives who has none an address, the oldest first.
    pub(super) fn give(&mut self, requests: &[Request<'_>]) {
        for (index, page) in self.pages.iter().enumerate() {
            for one in page.assignments.iter().filter(|one| !one.released) {
                self.held.entry(one.holder.uid.clone()).or_default().push((index, one.address));
            }
        }
        let mut by_key: BTreeMap<&str, Vec<&Request<'_>>> = BTreeMap::new();
        for request in requests {
            let key = request.sharing.as_ref().map(|sharing| sharing.key.as_str());
            let companions = key.map(|key| by_key.entry(key).or_default());
            let held =
                self.held(&request.holder.uid).iter().map(|(_, address)| Family::of(*address)).collect();
            let missing = request.families.missing(&held);
            if !missing.is_empty() {
                let companions = companions.as_ref().map_or(&[][..], |companions| companions.as_slice());
                self.give_to(request, &missing, companions);
            }
            if let Some(companions) = companions {
                companions.push(request);
            }
        }
    }

    fn give_to(&mut self, request: &Request<'_>, missing: &[Family], companions: &[&Request<'_>]) {
        let mut found: Vec<(usize, IpAddr)> = self.shared(request, missing, companions);
        for family in missing {
            if found.iter().any(|(_, address)| Family::of(*address) == *family) {
                continue;
            }
            if request.families == Families::One && !found.is_empty() {
                break;
            }
            found.extend(self.free_address(request, *family));
        }
        if matches!(request.families, Families::All(_)) && found.len() < missing.len() {
            return;
        }
        for (index, address) in found {
            self.taken.insert(address);
            let holder = request.holder.clone();
            self.held.entry(holder.uid.clone()).or_default().push((index, address));
            self.pages[index].assignments.push(Assignment { address, holder, released: false });
        }
    }

    /// What it may share with the first of those that it has a key in common with.
    fn shared(
        &self,
        request: &Request<'_>,
        missing: &[Family],
        companions: &[&Request<'_>],
    ) -> Vec<(usize, IpAddr)> {
        for companion in companions {
            let mut found: Vec<(usize, IpAddr)> = Vec::new();
            for &(index, address) in self.held(&companion.holder.uid) {
                let page = &self.pages[index];
                let family = Family::of(address);
                let is_new = found.iter().all(|(_, other)| Family::of(*other) != family);
                let holders = page.assignments.iter().filter(|one| one.address == address);
                let all_agree = holders.clone().all(|one| {
                    let other = companions.iter().find(|other| other.holder.uid == one.holder.uid);
                    !one.released && other.is_some_and(|other| request.may_share_with(other))
                });
                if is_new && missing.contains(&family) && page.is_open_to(request) && all_agree {
                    found.push((index, address));
                }
            }
            if !found.is_empty() {
                if request.families == Families::One {
                    found.truncate(1);
                }
                return found;
            }
        }
        Vec::new()
    }

    fn held(&self, uid: &str) -> &[(usize, IpAddr)] {
        self.held.get(uid).map_or(&[], Vec::as_slice)
    }

    fn free_address(&mut self, request: &Request<'_>, family: Family) -> Option<(usize, IpAddr)> {
        (0..self.pages.len()).find_map(|index| {
            let limit = MOST_TRIED + self.taken.len();
            let page = &mut self.pages[index];
            if !page.is_open_to(request) || page.assignments.len() >= MOST {
                return None;
            }
            let offer = page.pool.offer.as_ref().ok()?;
            let mut search = page.tried.remove(&family).unwrap_or_else(|| search(offer, family, limit));
            let found = search.find(|address| self.is_free(index, *address));
            self.pages[index].tried.insert(family, search);
            Some((index, found?))
        })
    }

    fn is_free(&self, index: usize, address: IpAddr) -> bool {
        let is_others = |(other, page): (usize, &Page<'_>)| {
            other != index && page.pool.offers(address) && !page.pool.is_sealed()
        };
        !self.taken.contains(&address)
            && self.freed.get(&address).is_none_or(|by| *by == index)
            && !self.pages.iter().enumerate().any(is_others)
    }

    /// What differs from what is written.
    pub(super) fn writes(self, now: &str) -> Vec<Write> {
        let Self { cluster, pages, taken, .. } = self;
        let written = |page: Page<'_>| {
            let status = page.status(&taken, cluster, now);
            (status != page.pool.status).then(|| Write::Status {
                pool: page.name.to_owned(),
                version: page.pool.version.clone(),
                status,
                released: page.released,
            })
        };
        pages.into_iter().filter_map(written).collect()
    }
}

fn by_uid<'r, 'c>(requests: &'r [Request<'c>]) -> BTreeMap<&'r str, &'r Request<'c>> {
    requests.iter().map(|request| (request.holder.uid.as_str(), request)).collect()
}

/// Whether a node that may be alive is written to own it.
fn is_owned(pool: &Pool, address: IpAddr, cluster: &Cluster) -> bool {
    let owners = pool.status.owners.iter().filter(|owner| owner.address.parse() == Ok(address));
    owners.into_iter().any(|owner| may_live(&owner.node, cluster))
}

/// Whether an agent may run on a node.
fn may_live(node: &str, cluster: &Cluster) -> bool {
    let runs = cluster.agents.as_ref().is_none_or(|agents| agents.values().any(|name| name == node));
    runs && cluster.nodes.contains_key(node)
}

fn search(offer: &Offer, family: Family, limit: usize) -> Search {
    let avoid_buggy = offer.avoid_buggy;
    let ranges: Vec<AddressRange> =
        offer.ranges.iter().filter(|range| range.is_ipv4() == (family == Family::V4)).copied().collect();
    let all: Box<dyn Iterator<Item = IpAddr>> =
        Box::new(ranges.into_iter().flat_map(move |range| range.addresses(avoid_buggy)));
    all.take(limit)
}

impl Page<'_> {
    /// Whether it may give this one anything now.
    fn is_open_to(&self, request: &Request<'_>) -> bool {
        let Ok(offer) = &self.pool.offer else { return false };
        let may_give = self.rival.is_none() && !self.pool.is_sealed() && !self.pool.leaving;
        request.may_have(self.name, offer) && may_give && self.pool.is_guarded()
    }

    fn status(&self, taken: &BTreeSet<IpAddr>, cluster: &Cluster, now: &str) -> VipPoolStatus {
        let former = &self.pool.status;
        let held: BTreeSet<IpAddr> =
            self.assignments.iter().filter(|one| !one.released).map(|one| one.address).collect();
        let known: BTreeSet<IpAddr> = self.assignments.iter().map(|one| one.address).collect();
        let available = self.available(taken);
        let mut owners = former.owners.clone();
        owners.retain(|owner| {
            may_live(&owner.node, cluster)
                && owner.address.parse().is_ok_and(|address| known.contains(&address))
        });
        let conditions = self.conditions(available, now);
        VipPoolStatus {
            allocated: i64::try_from(held.len()).unwrap_or(i64::MAX),
            available,
            owners,
            assignments: self.assignments.iter().map(Assignment::written).collect(),
            conditions,
        }
    }

    fn available(&self, taken: &BTreeSet<IpAddr>) -> i64 {
        let Ok(offer) = &self.pool.offer else { return 0 };
        if self.rival.is_some() || self.pool.leaving {
            return 0;
        }
        let known = taken.iter().filter(|address| offer.includes(**address)).count() as u128;
        let room = MOST.saturating_sub(self.assignments.len()) as u128;
        i64::try_from(offer.count().saturating_sub(known).min(room)).unwrap_or(i64::MAX)
    }

    fn conditions(&self, available: i64, now: &str) -> Vec<vip_kube_api::Condition> {
        let former = &self.pool.status.conditions;
        let ready = match (&self.pool.offer, self.rival) {
            (Err(why), _) => (false, "Invalid", why.clone()),
            (Ok(_), Some(_)) => {
                (false, "Conflict", "gives no addresses while it overlaps with an older pool".to_owned())
            }
            (Ok(_), None) if self.pool.leaving => (
                false,
                "Deleting",
                "gives no addresses, and is gone when the last one is released".to_owned(),
            ),
            (Ok(_), None) => (true, "Ready", "gives addresses".to_owned()),
        };
        let conflict = match self.rival {
            Some(rival) => (
                true,
                "Overlap",
                format!("has addresses that the older VipPool {rival} has: take them out of one of the two"),
            ),
            None => (false, "NoOverlap", "no older pool has any of its addresses".to_owned()),
        };
        let exhausted = match ready.0 && available == 0 {
            true => (true, "NoFreeAddress", "no address is free: add some, or release some".to_owned()),
            false => (false, "NotExhausted", "addresses are free, or it gives none".to_owned()),
        };
        [("Ready", ready), ("Conflict", conflict), ("Exhausted", exhausted)]
            .map(|(kind, (is_so, reason, message))| condition(former, kind, is_so, reason, message, now))
            .into()
    }
}
