//! Objects as tests need them by the thousand.

use std::net::IpAddr;

use serde_json::{Value, json};

/// The collections' paths, as [`crate::ApiServer::put`] wants them.
pub const NODES: &str = "/api/v1/nodes";
/// See [`NODES`].
pub const SERVICES: &str = "/api/v1/services";
/// See [`NODES`].
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// See [`NODES`].
pub const CONFIG_MAPS: &str = "/api/v1/configmaps";

/// A node with these internal addresses.
pub fn node(name: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    json!({"metadata": {"name": name}, "status": {"addresses": addresses}})
}

/// `default/NAME` of type LoadBalancer with the class `viplane.dev/vip`, TCP port 80, at port 8080 of its endpoints, and these annotations.
pub fn service(name: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "viplane.dev/vip", "selector": {"app": name},
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

/// The endpoints of `default/SERVICE` at a TCP port: address, node, and whether it is ready.
pub fn slice(service: &str, port: u16, endpoints: &[(IpAddr, &str, bool)]) -> Value {
    let family =
        if endpoints.first().is_some_and(|(address, ..)| address.is_ipv6()) { "IPv6" } else { "IPv4" };
    let endpoint = |(address, node, ready): &(IpAddr, &str, bool)| {
        json!({
            "addresses": [address], "nodeName": node,
            "conditions": {"ready": ready, "serving": ready, "terminating": false},
        })
    };
    json!({
        "metadata": {
            "name": format!("{service}-{}", family.to_lowercase()), "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// The ConfigMap of VIPs.
pub fn config_map(data: &Value) -> Value {
    json!({"metadata": {"name": "vip-configmap", "namespace": "kube-system"}, "data": data})
}
