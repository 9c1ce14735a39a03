//! From the API's objects to what counts of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use vip_kube_api::{VipPool, VirtualIP};

use crate::book::Object;
use crate::cluster::{
    Age, ConfigMap, Endpoint, Family, Node, ObjectName, Port, Service, Slice, SlicePort, Traffic,
};
use crate::model::ANNOTATIONS;
use crate::pools::{Pool, VirtualIp};

/// Our own word for a node that shall have no VIP, and Kubernetes' one for nodes behind no load balancer.
const EXCLUDE: [&str; 2] = ["viplane.dev/exclude", "node.kubernetes.io/exclude-from-external-load-balancers"];
/// A node's preference.
const PRIORITY: &str = "viplane.dev/priority";
/// Names the Service in the labels of its slices.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Seconds for which a client keeps its endpoint where the object does not say: the API server's own default.
const AFFINITY_TIMEOUT: u32 = 10_800;

pub(super) fn name(meta: &ObjectMeta) -> ObjectName {
    ObjectName {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

pub(super) fn age(meta: &ObjectMeta) -> Age {
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Age { created, uid: meta.uid.clone().unwrap_or_default() }
}

pub(super) fn config_map(map: core::ConfigMap) -> Object {
    let age = age(&map.metadata);
    Object::ConfigMap(ConfigMap { age, data: map.data.unwrap_or_default() })
}

pub(super) fn service(service: core::Service) -> Object {
    let meta = service.metadata;
    let ingress =
        service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    let ingress = ingress.into_iter().flatten().filter_map(|ingress| ingress.ip?.parse().ok()).collect();
    let spec = service.spec.unwrap_or_default();
    // One that is being deleted has let go of its VIPs already.
    let leaving = meta.deletion_timestamp.is_some();
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !leaving && ANNOTATIONS.contains(&key.as_str()));
    let port = |port: &core::ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(tcp);
        Some(Port { protocol, port: u16::try_from(port.port).ok()? })
    };
    let ports = spec.ports.unwrap_or_default();
    let named =
        |one: &core::ServicePort| Some((port(one)?, one.name.clone().filter(|name| !name.is_empty())?));
    let by_client = spec.session_affinity.as_deref() == Some("ClientIP");
    let timeout = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
    let timeout = timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(AFFINITY_TIMEOUT);
    let traffic = Traffic {
        port_names: ports.iter().filter_map(named).collect(),
        affinity: by_client.then_some(timeout),
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
    };
    let family = |family: &String| match family.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    };
    Object::Service(
        name(&meta),
        Service {
            age: age(&meta),
            load_balancer: spec.type_.as_deref() == Some("LoadBalancer") && !leaving,
            class: spec.load_balancer_class,
            load_balancer_ip: spec.load_balancer_ip.filter(|address| !address.is_empty()),
            annotations,
            selector: spec.selector.unwrap_or_default(),
            ports: ports.iter().filter_map(port).collect(),
            families: spec.ip_families.iter().flatten().filter_map(family).collect(),
            dual_stack: spec.ip_family_policy.as_deref() == Some("RequireDualStack"),
            local: spec.external_traffic_policy.as_deref() == Some("Local"),
            ingress,
            traffic,
        },
    )
}

/// `None` if it belongs to no Service, or holds names and no addresses.
pub(super) fn slice(slice: discovery::EndpointSlice) -> Option<Object> {
    let service = label(&slice.metadata, SERVICE_NAME)?.to_owned();
    let endpoint = |endpoint: discovery::Endpoint| {
        let conditions = endpoint.conditions.unwrap_or_default();
        // Unknown is ready, as the API has it, and whether one serves is by default what it is otherwise.
        let ready = conditions.ready.unwrap_or(true);
        let serving = conditions.serving.unwrap_or(true);
        Endpoint {
            address: endpoint.addresses.first().and_then(|address| vip_kube_protocol::node(address).ok()),
            node: endpoint.node_name,
            ready,
            draining: !ready && serving && conditions.terminating.unwrap_or(false),
        }
    };
    let port = |port: discovery::EndpointPort| {
        Some(SlicePort {
            name: port.name.unwrap_or_default(),
            protocol: port.protocol.unwrap_or_else(tcp),
            port: u16::try_from(port.port?).ok().filter(|port| *port != 0)?,
        })
    };
    let endpoints = slice.endpoints.into_iter().map(endpoint).collect();
    let ports = slice.ports.into_iter().flatten().filter_map(port).collect();
    Some(Object::Slice(name(&slice.metadata), Slice { service, ports, endpoints }))
}

/// The protocol where none is said.
fn tcp() -> String {
    "TCP".to_owned()
}

pub(super) fn pool(pool: VipPool) -> Object {
    Object::Pool(pool.metadata.name.clone().unwrap_or_default(), Box::new(Pool::of(pool)))
}

pub(super) fn virtual_ip(object: VirtualIP) -> Object {
    Object::VirtualIp(name(&object.metadata), Box::new(VirtualIp::of(object)))
}

pub(super) fn node(node: core::Node) -> Object {
    let meta = &node.metadata;
    let excluded = EXCLUDE.iter().any(|key| label(meta, key).is_some_and(|value| value != "false"));
    let annotation =
        |key| meta.annotations.as_ref().and_then(|annotations: &BTreeMap<_, _>| annotations.get(key));
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let internal = addresses.into_iter().filter(|address| address.type_ == "InternalIP");
    // One that no peer can be spoken to by is none: the agent would refuse the whole of what names it.
    let address = |address: core::NodeAddress| vip_kube_protocol::node(&address.address).ok();
    Object::Node(
        meta.name.clone().unwrap_or_default(),
        Node {
            addresses: internal.filter_map(address).collect(),
            labels: meta.labels.clone().unwrap_or_default(),
            priority: annotation(PRIORITY).cloned(),
            excluded,
            cordoned: node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
        },
    )
}

/// `None` while it has no node, and once it has ended.
pub(super) fn agent(pod: core::Pod) -> Option<Object> {
    let phase = pod.status.and_then(|status| status.phase);
    let ended = matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
    let node = pod.spec.and_then(|spec| spec.node_name).filter(|_| !ended)?;
    Some(Object::Agent(pod.metadata.name.unwrap_or_default(), node))
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}
