//! The model as its users meet it: objects in, virtual routers and remarks out.

mod load_balancers;
mod nodes;
mod predecessors;
mod properties;
mod steering;

use std::collections::BTreeSet;

use vip_kube_protocol::{Kubernetes, LoadBalancerClass, ObjectName, Room, Steering};

use super::{Desired, Remark, Router, Settings, Trouble, claims, desired};
use crate::cluster::{Age, Cluster, ConfigMap, Endpoint, Node, Port, Service, Slice};

/// A cluster of three nodes, `node1` with 10.0.0.1 and fd00::1 and so on, and nothing else.
fn cluster() -> Cluster {
    let node = |n: u8| {
        let addresses = vec![[10, 0, 0, n].into(), format!("fd00::{n}").parse().unwrap()];
        (format!("node{n}"), Node { addresses, ..Node::default() })
    };
    Cluster { nodes: (1..=3).map(node).collect(), ..Cluster::default() }
}

/// `node1`, with all sources, and Services of any class.
fn settings() -> Settings {
    let kubernetes = Kubernetes { load_balancer_class: LoadBalancerClass::Any, ..Kubernetes::default() };
    let room = Room { services: 4096, ports: 65_536, backends: 16_000, sources: 65_536, ..Room::default() };
    Settings {
        node: "node1".to_owned(),
        kubernetes,
        taken_ids: BTreeSet::new(),
        taken_vips: BTreeSet::new(),
        steering: Steering::On(room),
    }
}

fn on(node: &str) -> Settings {
    Settings { node: node.to_owned(), ..settings() }
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

/// A Service made in that second, with these annotations, of type LoadBalancer, on port 80.
fn service(created: i64, annotations: &[(&str, &str)]) -> Service {
    Service {
        age: Age { created, uid: format!("uid-{created}") },
        load_balancer: true,
        annotations: annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        selector: [("app".to_owned(), "web".to_owned())].into(),
        ports: [port(80)].into(),
        ..Service::default()
    }
}

fn port(port: u16) -> Port {
    Port { protocol: "TCP".into(), port }
}

/// A Service that wants these VIPs.
fn wants(created: i64, vips: &str) -> Service {
    service(created, &[(claims::VIPS, vips)])
}

/// Endpoints of `default/SERVICE`: node and readiness of each.
fn slice(service: &str, endpoints: &[(&str, bool)]) -> (ObjectName, Slice) {
    let endpoint = |(node, ready): &(&str, bool)| Endpoint {
        address: Some([10, 0, 9, 9].into()),
        node: Some((*node).to_owned()),
        ready: *ready,
        draining: false,
    };
    let endpoints = endpoints.iter().map(endpoint).collect();
    let slice = Slice { service: service.to_owned(), endpoints, ..Slice::default() };
    (name(&format!("default/{service}-abc")), slice)
}

fn config_map(entries: &[(&str, &str)]) -> ConfigMap {
    let data = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ConfigMap { age: Age { created: 1, uid: "map".into() }, data }
}

impl Desired {
    /// `NAME VRID: VIP VIP`, one of each router.
    fn lines(&self) -> Vec<String> {
        let line = |instance: &Router| {
            let vips: Vec<String> = instance.vips.iter().map(ToString::to_string).collect();
            format!("{} {}: {}", instance.name, instance.virtual_router_id, vips.join(" "))
        };
        self.instances.iter().map(line).collect()
    }

    /// All VIPs, sorted.
    fn vips(&self) -> Vec<String> {
        let vips = self.instances.iter().flat_map(|instance| &instance.vips);
        let mut vips: Vec<String> = vips.map(|vip| vip.address.to_string()).collect();
        vips.sort();
        vips
    }

    /// The trouble that there is, one line of each.
    fn troubles(&self) -> Vec<String> {
        self.remarks.iter().map(ToString::to_string).collect()
    }

    fn has(&self, trouble: Trouble, about: &str) -> bool {
        let fits = |remark: &Remark| remark.trouble == trouble && remark.about.to_string() == about;
        self.remarks.iter().any(fits)
    }
}
