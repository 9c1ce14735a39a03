//! Allocation as objects see it: a store that takes conditional writes as the API server does, and who has what in the end.

mod pools;
mod races;
mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::json;
use vip_kube_api as api;
use vip_kube_protocol::{Kubernetes, LoadBalancerClass, ObjectName, Steering};

use super::{Guarded, Write, plan};
use crate::cluster::{Age, Cluster, Family, Node, Port, Service};
use crate::model::Settings;
use crate::pools::{Pool, VirtualIp};

const NOW: &str = "2026-01-01T00:00:00Z";

fn settings() -> Settings {
    let kubernetes = Kubernetes { load_balancer_class: LoadBalancerClass::Any, ..Kubernetes::default() };
    let steering = Steering::Off;
    Settings { node: "node1".into(), kubernetes, taken_ids: [].into(), taken_vips: [].into(), steering }
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

/// A Service without an address, made in that second.
fn service(created: i64) -> Service {
    Service {
        age: Age { created, uid: format!("service-{created}") },
        load_balancer: true,
        ports: [Port { protocol: "TCP".into(), port: 80 }].into(),
        ..Service::default()
    }
}

fn with(mut service: Service, annotations: &[(&str, &str)]) -> Service {
    service.annotations.extend(annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())));
    service
}

fn dual(service: Service, is_required: bool) -> Service {
    Service { families: [Family::V4, Family::V6].into(), dual_stack: is_required, ..service }
}

/// What the API server has.
#[derive(Clone, Debug, Default)]
struct Store {
    version: u64,
    pools: BTreeMap<String, api::VipPool>,
    virtual_ips: BTreeMap<String, api::VirtualIP>,
    services: BTreeMap<ObjectName, Service>,
    nodes: Vec<&'static str>,
}

impl Store {
    fn stamp(&mut self) -> Option<String> {
        self.version += 1;
        Some(self.version.to_string())
    }

    /// A pool of these addresses, made in that second; `more`: of its spec.
    fn pool(&mut self, name: &str, created: i64, addresses: &[&str], more: serde_json::Value) -> &mut Self {
        let mut spec = more;
        spec["addresses"] = json!(addresses);
        let mut pool = api::VipPool::new(name, serde_json::from_value(spec).unwrap());
        pool.metadata.uid = Some(format!("pool-{name}-{created}"));
        pool.metadata.creation_timestamp =
            serde_json::from_value(json!(format!("2026-01-01T00:00:{created:02}Z"))).unwrap();
        pool.metadata.resource_version = self.stamp();
        self.pools.insert(name.to_owned(), pool);
        self
    }

    fn edit(&mut self, name: &str, change: impl FnOnce(&mut api::VipPool)) {
        let version = self.stamp();
        let Some(pool) = self.pools.get_mut(name) else { return };
        change(pool);
        pool.metadata.resource_version = version;
        self.collect();
    }

    /// As `kubectl delete` does.
    fn delete_pool(&mut self, name: &str) {
        let now = serde_json::from_value(json!(NOW)).unwrap();
        self.edit(name, |pool| pool.metadata.deletion_timestamp = now);
    }

    fn collect(&mut self) {
        self.pools.retain(|_, pool| {
            pool.metadata.deletion_timestamp.is_none()
                || pool.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty())
        });
        self.virtual_ips.retain(|_, object| {
            object.metadata.deletion_timestamp.is_none()
                || object.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty())
        });
    }

    fn service(&mut self, text: &str, service: Service) -> &mut Self {
        self.services.insert(name(text), service);
        self
    }

    fn virtual_ip(&mut self, text: &str, created: i64, pool: &str) {
        let name = name(text);
        let spec = serde_json::from_value(json!({"pool": pool})).unwrap();
        let mut object = api::VirtualIP::new(&name.name, spec);
        object.metadata.namespace = Some(name.namespace);
        object.metadata.uid = Some(format!("vip-{created}"));
        object.metadata.resource_version = self.stamp();
        self.virtual_ips.insert(text.to_owned(), object);
    }

    fn cluster(&self) -> Cluster {
        let node = |node: &&str| ((*node).to_owned(), Node::default());
        let virtual_ip =
            |(text, object): (&String, &api::VirtualIP)| (name(text), VirtualIp::of(object.clone()));
        Cluster {
            pools: self.pools.iter().map(|(name, pool)| (name.clone(), Pool::of(pool.clone()))).collect(),
            virtual_ips: self.virtual_ips.iter().map(virtual_ip).collect(),
            services: self.services.clone(),
            nodes: self.nodes.iter().map(node).collect(),
            ..Cluster::default()
        }
    }

    /// Whether the server takes it: not if it follows from another version than there is.
    fn apply(&mut self, write: &Write) -> bool {
        let stamp = self.stamp();
        let is_taken = match write {
            Write::Status { pool, version, status, .. } => {
                let pool = self.pools.get_mut(pool);
                let pool = pool.filter(|pool| pool.metadata.resource_version.as_ref() == Some(version));
                pool.is_some_and(|pool| {
                    pool.status = Some(status.clone());
                    pool.metadata.resource_version = stamp;
                    true
                })
            }
            Write::VirtualIp { .. } | Write::Clear { .. } => {
                panic!("nothing is allocated by that: {write:?}")
            }
            Write::Finalizers { of, version, finalizers } => {
                let metadata = match of {
                    Guarded::VipPool(name) => self.pools.get_mut(name).map(|pool| &mut pool.metadata),
                    Guarded::VirtualIp(name) => {
                        self.virtual_ips.get_mut(&name.to_string()).map(|object| &mut object.metadata)
                    }
                };
                let metadata =
                    metadata.filter(|metadata| metadata.resource_version.as_ref() == Some(version));
                metadata.is_some_and(|metadata| {
                    metadata.finalizers = Some(finalizers.clone());
                    metadata.resource_version = stamp;
                    true
                })
            }
        };
        self.collect();
        is_taken
    }

    /// One leader, who sees everything at once, until there is nothing more to be written.
    fn settle(&mut self) -> &mut Self {
        self.settle_with(true)
    }

    /// `is_settled`: whether nodes have had time to let go.
    fn settle_with(&mut self, is_settled: bool) -> &mut Self {
        for _ in 0..100 {
            let writes = plan(&self.cluster(), &settings(), &|_, _| is_settled, NOW);
            if writes.is_empty() {
                return self;
            }
            for write in writes {
                self.apply(&write);
            }
        }
        panic!("it never ends: {:#?}", self.pools);
    }

    /// `ADDRESS HOLDER`, as pools have it, `-` before what is on its way back.
    fn given(&self) -> Vec<String> {
        let cluster = self.cluster();
        let all = cluster.pools.values().flat_map(|pool| &pool.assignments);
        all.map(|one| format!("{}{} {}", if one.released { "-" } else { "" }, one.address, one.holder.name))
            .collect()
    }

    fn status(&self, pool: &str) -> api::VipPoolStatus {
        self.pools[pool].status.clone().unwrap_or_default()
    }

    /// Whether a condition of a pool is so.
    fn is(&self, pool: &str, kind: &str) -> bool {
        let conditions = self.status(pool).conditions;
        conditions.iter().any(|one| one.kind == kind && one.status == api::Truth::True)
    }

    fn own(&mut self, pool: &str, address: &str, node: &str) {
        let owner = api::AddressOwner { address: address.into(), node: node.into(), since: NOW.into() };
        self.edit(pool, |pool| pool.status.get_or_insert_default().owners.push(owner));
    }
}

/// Addresses that several have, whoever they are.
fn twice(store: &Store) -> Vec<IpAddr> {
    let cluster = store.cluster();
    let mut seen: BTreeMap<IpAddr, usize> = BTreeMap::new();
    cluster
        .pools
        .values()
        .flat_map(|pool| &pool.assignments)
        .for_each(|one| *seen.entry(one.address).or_default() += 1);
    seen.into_iter().filter(|(_, count)| *count > 1).map(|(address, _)| address).collect()
}
