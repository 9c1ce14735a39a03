//! The allocator: while this agent leads, what `allocate` plans is written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use vip_kube_api::{HolderKind, VipPool, VirtualIP};

use crate::allocate::{self, Guarded, Write};
use crate::book::Object;
use crate::cluster::Cluster;
use crate::convert;
use crate::lead::{self, Candidate};
use crate::model::{Remark, Settings};
use crate::pools::Assignment;
use crate::publish;
use crate::trouble::{Troubles, refusal};

/// From one write to the next.
const PAUSE: Duration = Duration::from_millis(250);
/// After a write that failed for another reason than that somebody else was faster, and after one whose effect is not seen.
const AGAIN: Duration = Duration::from_secs(10);
/// How long nodes have to let go of an address that was released: they hear of it within milliseconds, if they hear of anything.
const SETTLED: Duration = Duration::from_secs(5);
/// What it is called where it is in trouble.
const PART: &str = "allocation";

type Plan = Arc<Vec<Write>>;

/// The session's end of it.
#[derive(Debug)]
pub(super) struct Allocator {
    candidate: Sender<bool>,
    leads: Receiver<Option<Instant>>,
    plans: Sender<Plan>,
    /// Addresses that are on their way back, and since when that is known here.
    released: BTreeMap<(String, IpAddr), Instant>,
}

impl Allocator {
    /// Its tasks end with the session's.
    pub(super) fn start(
        client: &Client,
        candidate: Candidate,
        settings: &Settings,
        tasks: &mut JoinSet<()>,
        troubles: &Troubles,
    ) -> Self {
        let ((wanted, their_wanted), (their_leads, leads)) = (channel(false), channel(None));
        let (plans, their_plans) = channel(Plan::default());
        tasks.spawn(lead::run(client.clone(), candidate, their_wanted, their_leads, troubles.clone()));
        tasks.spawn(write(client.clone(), their_plans, settings.clone(), troubles.clone()));
        Self { candidate: wanted, leads, plans, released: BTreeMap::new() }
    }

    /// Something may be to be allocated, or not any more.
    ///
    /// `remarks`: what the model says of objects.
    pub(super) fn look(&mut self, cluster: &Cluster, settings: &Settings, remarks: &[Remark]) {
        // Where there is nothing to allocate or to be told, nobody has to be elected for it.
        let is_needed = !cluster.pools.is_empty() || !cluster.virtual_ips.is_empty() || !remarks.is_empty();
        self.candidate.send_if_modified(|former| std::mem::replace(former, is_needed) != is_needed);
        self.note_released(cluster);
        let plan = match self.leads_now() {
            false => Plan::default(),
            true => {
                let now = Instant::now();
                let is_settled = |pool: &str, address| {
                    self.released
                        .get(&(pool.to_owned(), address))
                        .is_some_and(|since| now >= *since + SETTLED)
                };
                let now = seconds();
                let mut writes = allocate::plan(cluster, settings, &is_settled, &now);
                writes.extend(allocate::reports(cluster, settings, remarks, &now));
                Arc::new(writes)
            }
        };
        self.plans.send_if_modified(|former| {
            let differs = *former != plan;
            *former = plan;
            differs
        });
    }

    /// Waits until it is to look again, whatever changes.
    pub(super) async fn wake(&mut self) {
        let next =
            self.released.values().map(|since| *since + SETTLED).filter(|at| *at > Instant::now()).min();
        let settled = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.leads.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = settled => {}
        }
    }

    /// Whether this agent is to allocate.
    pub(super) fn leads_now(&self) -> bool {
        self.leads.borrow().is_some_and(|until| Instant::now() < until)
    }

    fn note_released(&mut self, cluster: &Cluster) {
        let now = Instant::now();
        let mut former = std::mem::take(&mut self.released);
        for (name, pool) in &cluster.pools {
            for given in pool.assignments.iter().filter(|given| given.released) {
                let key = (name.clone(), given.address);
                let since = former.remove(&key).unwrap_or(now);
                self.released.insert(key, since);
            }
        }
    }
}

/// Now, as RFC 3339 in whole seconds.
pub(super) fn seconds() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string()
}

/// Writes what is planned, one thing at a time.
async fn write(client: Client, mut plans: Receiver<Plan>, settings: Settings, troubles: Troubles) {
    let writer = Writer { client, settings };
    // What was tried already: nothing else can come of it while the object is the same.
    let mut tried: BTreeMap<(String, String), Instant> = BTreeMap::new();
    loop {
        let now = Instant::now();
        let plan = Arc::clone(&plans.borrow_and_update());
        // What others have written to a Service is not ours to take away, however often it is tried.
        let is_cleared = |key: &(String, String)| {
            plan.iter().any(|write| matches!(write, Write::Clear { .. }) && self::key(write) == *key)
        };
        tried.retain(|key, at| now < *at + AGAIN || is_cleared(key));
        let next = plan.iter().find(|write| !tried.contains_key(&key(write))).cloned();
        let Some(write) = next else {
            let again = async {
                match tried.values().min() {
                    Some(first) => sleep_until(*first + AGAIN).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = plans.changed() => if changed.is_err() { return },
                () = again => {}
            }
            continue;
        };
        let outcome = writer.perform(&write).await;
        let refused = match &outcome {
            // Somebody was faster: what is to be done now follows from what they have written.
            Err((_, kube::Error::Api(status))) if matches!(status.code, 404 | 409) => None,
            Err((what, error)) => Some(refusal(what, &key(&write).0, error)),
            Ok(()) => None,
        };
        troubles.set(PART, refused);
        tried.insert(key(&write), Instant::now());
        sleep(PAUSE).await;
    }
}

/// The object, and its version.
fn key(write: &Write) -> (String, String) {
    match write {
        Write::Status { pool, version, .. } => (format!("the status of VipPool {pool}"), version.clone()),
        Write::VirtualIp { name, version, .. } => {
            (format!("the status of VirtualIP {name}"), version.clone())
        }
        Write::Clear { service, ingress } => {
            (format!("the status of Service {service}"), format!("{ingress:?}"))
        }
        Write::Finalizers { of: Guarded::VipPool(name), version, .. } => {
            (format!("VipPool {name}"), version.clone())
        }
        Write::Finalizers { of: Guarded::VirtualIp(name), version, .. } => {
            (format!("VirtualIP {name}"), version.clone())
        }
    }
}

/// What was refused, as a role has to grant it.
type Refused = (&'static str, kube::Error);

struct Writer {
    client: Client,
    settings: Settings,
}

impl Writer {
    async fn perform(&self, write: &Write) -> Result<(), Refused> {
        match write {
            Write::Status { pool, version, status, released } => {
                for given in released {
                    if self.is_still_wanted(pool, given).await? {
                        // What this follows from is older than what that object says now.
                        return Ok(());
                    }
                }
                let change = json!({"metadata": {"resourceVersion": version}, "status": status});
                let pools = Api::<VipPool>::all(self.client.clone());
                let written = pools.patch_status(pool, &PatchParams::default(), &Patch::Merge(&change)).await;
                written.map(drop).map_err(|error| ("patch vippools/status", error))
            }
            Write::VirtualIp { name, version, address, conditions } => {
                let status = json!({"address": address, "conditions": conditions});
                let change = json!({"metadata": {"resourceVersion": version}, "status": status});
                let objects = Api::<VirtualIP>::namespaced(self.client.clone(), &name.namespace);
                let written =
                    objects.patch_status(&name.name, &PatchParams::default(), &Patch::Merge(&change)).await;
                written.map(drop).map_err(|error| ("patch virtualips/status", error))
            }
            Write::Clear { service, .. } => {
                let cleared = publish::write(&self.client, service, &[]).await;
                cleared.map_err(|error| ("patch services/status", error))
            }
            Write::Finalizers { of: Guarded::VipPool(name), version, finalizers } => {
                let pools = Api::<VipPool>::all(self.client.clone());
                self.guard(&pools, name, version, finalizers).await.map_err(|error| ("patch vippools", error))
            }
            Write::Finalizers { of: Guarded::VirtualIp(name), version, finalizers } => {
                let objects = Api::<VirtualIP>::namespaced(self.client.clone(), &name.namespace);
                let written = self.guard(&objects, &name.name, version, finalizers).await;
                written.map_err(|error| ("patch virtualips", error))
            }
        }
    }

    async fn guard<K>(
        &self,
        api: &Api<K>,
        name: &str,
        version: &str,
        finalizers: &[String],
    ) -> Result<(), kube::Error>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let change: Value = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await.map(drop)
    }

    /// Asks for the holder itself: the view may be older than what was given by it.
    async fn is_still_wanted(&self, pool: &str, given: &Assignment) -> Result<bool, Refused> {
        let name = &given.holder.name;
        let mut cluster = Cluster::default();
        match given.holder.kind {
            HolderKind::Service => {
                let services = Api::<Service>::namespaced(self.client.clone(), &name.namespace);
                let found = services.get_opt(&name.name).await.map_err(|error| ("get services", error))?;
                if let Some(Object::Service(name, service)) = found.map(convert::service) {
                    cluster.services.insert(name, service);
                }
            }
            HolderKind::VirtualIP => {
                let objects = Api::<VirtualIP>::namespaced(self.client.clone(), &name.namespace);
                let found = objects.get_opt(&name.name).await.map_err(|error| ("get virtualips", error))?;
                if let Some(Object::VirtualIp(name, object)) = found.map(convert::virtual_ip) {
                    cluster.virtual_ips.insert(name, *object);
                }
            }
        }
        Ok(allocate::wants(&cluster, &self.settings, pool, given))
    }
}
