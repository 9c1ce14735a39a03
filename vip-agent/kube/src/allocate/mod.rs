//! Who gets which address of which pool: a pure function from what is known to what is to be written.
//!
//! One agent of all does it at a time, the one that holds a Lease (`lead`), so that few writes are refused. That no address is given twice
//! does not hang on it: two that both believe to lead, by whatever views of the cluster, old ones too, cannot do that either.
//!
//! 1. Who has an address stands in the status of its pool and nowhere else. It changes by writes that name the version of the
//!    pool that they follow from (`resourceVersion`), so of two that follow from the same one, one is refused.
//! 2. Of two pools with an address in common the younger one is *sealed*: its condition `Conflict` is written, and from then on it
//!    gives nothing. A pool gives an address only if every other pool that has it is sealed. VipPools are one watch, whose
//!    events come in the order of the writes. So say *i* gives an address by view *v*, and *j* the same by a later view *u*. Was the first written
//!    before *u*, it is seen there. If not, *i* is at *u* as it was at *v*, since its version is: it has the address and is not sealed, so *j* may
//!    not give it.
//! 3. An address that its holder has no use for any more is *released* first: nodes let go of it. It is free when that was long enough ago
//!    and no node that may be alive is written to own it. Only then may another have it.
//! 4. A pool with a holder has a finalizer, or deleting it would make everything that it gave free at once.
//!
//! Addresses that are written on objects, that nodes have, or that a Service of another class is said to have, are left out; what becomes
//! of one that is written after it was given is the model's to decide, for all nodes alike.

mod conditions;
mod ledger;
mod request;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use vip_kube_api::{Condition, FINALIZER, VipPoolStatus};
use vip_kube_protocol::ObjectName;

use self::ledger::Ledger;
use crate::cluster::Cluster;
use crate::model::{Remark, Settings};
use crate::pools::{Assignment, Wants};

/// Addresses of one pool that are given at most: its object holds them all, and etcd takes 1.5 MiB of one.
pub const MOST: usize = 4096;

/// Holders that lose their addresses by one write at most: each is asked for at the API server before.
const MOST_RELEASED: usize = 32;

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The status of a pool.
    Status {
        /// The pool.
        pool: String,
        /// The version that this follows from.
        version: String,
        /// All but the owners, which are the nodes' to write, and those of addresses that are free.
        status: VipPoolStatus,
        /// What is released since its holder wants it no more by this view, to be confirmed.
        released: Vec<Assignment>,
    },
    /// What is said of a VirtualIP, but for its owner, which is the nodes' to write.
    VirtualIp {
        /// The object.
        name: ObjectName,
        /// The version that this follows from.
        version: String,
        /// Its VIP.
        address: Option<String>,
        /// How it is.
        conditions: Vec<Condition>,
    },
    /// Takes from the status of a Service the addresses that we have written there.
    Clear {
        /// The Service.
        service: ObjectName,
        /// The addresses that it is said to have.
        ingress: Vec<IpAddr>,
    },
    /// The finalizers of an object.
    Finalizers {
        /// The object.
        of: Guarded,
        /// The version that this follows from.
        version: String,
        /// All of them.
        finalizers: Vec<String>,
    },
}

/// Objects that stay until their addresses are released.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the kind of its name")]
pub enum Guarded {
    VipPool(String),
    VirtualIp(ObjectName),
}

/// What is to be written, as far as it follows from this view. `is_settled`: whether an address was released by this pool long enough ago for
/// all nodes to have let go of it. `now`: RFC 3339.
pub fn plan(
    cluster: &Cluster,
    settings: &Settings,
    is_settled: &dyn Fn(&str, IpAddr) -> bool,
    now: &str,
) -> Vec<Write> {
    let mut requests = request::requests(cluster, settings);
    let mut writes = Vec::new();
    let mut ledger = Ledger::of(cluster, settings);
    ledger.release(&requests, settings.kubernetes.watch_namespace.as_ref());
    ledger.free(is_settled);
    guard(cluster, &ledger, &mut requests, &mut writes);
    ledger.keep(&requests);
    ledger.give(&requests);
    writes.extend(ledger.writes(now));
    writes
}

/// What is to be said of VirtualIPs and Services beside that. `remarks`: of the model, which is the same for all nodes.
pub fn reports(cluster: &Cluster, settings: &Settings, remarks: &[Remark], now: &str) -> Vec<Write> {
    let mut writes = conditions::of_virtual_ips(cluster, remarks, now);
    writes.extend(conditions::of_services(cluster, settings));
    writes
}

/// Whether a holder wants what a pool gave it.
pub fn wants(cluster: &Cluster, settings: &Settings, pool: &str, given: &Assignment) -> bool {
    let requests = request::requests(cluster, settings);
    requests
        .iter()
        .any(|request| request.holder.uid == given.holder.uid && request.wants(pool, given.address))
}

/// Finalizers come before addresses, and go after them.
fn guard(
    cluster: &Cluster,
    ledger: &Ledger<'_>,
    requests: &mut Vec<request::Request<'_>>,
    writes: &mut Vec<Write>,
) {
    let with = |finalizers: &[String]| [finalizers, &[FINALIZER.to_owned()]].concat();
    let without =
        |finalizers: &[String]| finalizers.iter().filter(|one| *one != FINALIZER).cloned().collect();
    for (name, pool) in &cluster.pools {
        let of = Guarded::VipPool(name.clone());
        let version = pool.version.clone();
        let is_wanted = !pool.leaving
            && pool.offer.as_ref().is_ok_and(|offer| requests.iter().any(|one| one.may_have(name, offer)));
        if pool.is_guarded() && !is_wanted && pool.assignments.is_empty() {
            writes.push(Write::Finalizers { of, version, finalizers: without(&pool.finalizers) });
        } else if !pool.is_guarded() && is_wanted {
            writes.push(Write::Finalizers { of, version, finalizers: with(&pool.finalizers) });
        }
    }
    for (name, object) in &cluster.virtual_ips {
        let of = Guarded::VirtualIp(name.clone());
        let version = object.version.clone();
        let is_wanted = !object.leaving && matches!(object.wants, Ok(Wants::OfPool(_)));
        if object.is_guarded() && !is_wanted && !ledger.knows(&object.age.uid) {
            writes.push(Write::Finalizers { of, version, finalizers: without(&object.finalizers) });
        } else if !object.is_guarded() && is_wanted {
            writes.push(Write::Finalizers { of, version, finalizers: with(&object.finalizers) });
            requests.retain(|request| request.holder.uid != object.age.uid);
        }
    }
}

/// A condition, since now if it was otherwise before.
fn condition(
    former: &[Condition],
    kind: &str,
    is_so: bool,
    reason: &str,
    message: String,
    now: &str,
) -> Condition {
    let same = former.iter().find(|condition| condition.kind == kind && condition.status == is_so.into());
    Condition {
        kind: kind.to_owned(),
        status: is_so.into(),
        reason: reason.to_owned(),
        message,
        last_transition_time: same.map_or_else(|| now.to_owned(), |same| same.last_transition_time.clone()),
    }
}
