//! Who may do what: service account, roles, secrets.

use serde_json::{Value, json};

use crate::defaults::named;
use crate::support::{refused, rendered};

const API_PROBE: &str = "
instances: [{ name: edge, virtual_router_id: 51, vips: [192.168.11.2/24], track: [api] }]
probes: [{ name: api, preset: kube_api }]
";

#[test]
fn a_probe_of_the_api_server_may_ask_whether_it_is_well_and_nothing_else() {
    let rendered = rendered(API_PROBE);
    assert_eq!(
        rendered.of_kind("ClusterRole")[0]["rules"],
        json!([{ "nonResourceURLs": ["/healthz"], "verbs": ["get"] }])
    );
    assert_eq!(rendered.pod()["automountServiceAccountToken"], json!(true));
    let binding = rendered.of_kind("ClusterRoleBinding")[0];
    assert_eq!(binding["roleRef"]["name"], rendered.of_kind("ClusterRole")[0]["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], rendered.pod()["serviceAccountName"]);
    assert_eq!(binding["subjects"][0]["namespace"], "vip");
}

#[test]
fn roles_can_be_left_to_others() {
    let rendered =
        rendered(&format!("{API_PROBE}rbac: {{ create: false }}\nserviceAccount: {{ name: mine }}\n"));
    assert_eq!(rendered.kinds(), ["ConfigMap", "DaemonSet"]);
    assert_eq!(rendered.pod()["serviceAccountName"], "mine");
}

#[test]
fn adverts_are_signed_by_a_key_that_others_cannot_read() {
    let rendered = rendered(&format!("{API_PROBE}signing: {{ enabled: true, existingSecret: adverts }}\n"));
    let volume = named(&rendered.pod()["volumes"], "signing");
    assert_eq!(volume["secret"], json!({ "secretName": "adverts", "defaultMode": 0o400 }));
    let (config, _) = crate::support::checked(&rendered);
    assert!(config.instances[0].auth_trailer.is_some());
    assert!(rendered.of_kind("Secret").is_empty());
}

/// Without a cluster nobody can know whether there is a key already, and a new one each time would part the nodes.
#[test]
fn no_key_is_made_where_it_could_not_be_kept() {
    let message = refused(&format!("{API_PROBE}signing: {{ enabled: true }}\n"));
    assert!(message.contains("kubectl create secret generic viplane-signing -n viplane"), "{message}");
}

#[test]
fn an_agent_that_listens_below_1024_may_do_so() {
    let rendered = rendered(&format!("{API_PROBE}api: {{ listen: '127.0.0.1:987' }}\n"));
    let added = &rendered.container()["securityContext"]["capabilities"]["add"];
    assert!(added.as_array().unwrap().contains(&Value::from("NET_BIND_SERVICE")), "{added}");
}

/// What the agent's sources read: nodes, Services with their endpoints, one ConfigMap, and the pods beside it; and what they
/// write: addresses of Services.
#[test]
fn objects_of_the_cluster_are_read_where_they_are_and_nowhere_else() {
    let kubernetes =
        "kubernetes: { sources: [configmap, service], watch_namespace: shop, configmap: edge/vips }\n";
    let rendered = rendered(kubernetes);
    let (config, _) = crate::support::checked(&rendered);
    assert!(config.kubernetes.is_some());
    let rules = |name: &str| {
        let roles = rendered.of_kind("Role").into_iter().chain(rendered.of_kind("ClusterRole"));
        let role = roles.into_iter().find(|role| role["metadata"]["name"] == name);
        role.map(|role| (role["metadata"]["namespace"].clone(), role["rules"].clone())).unwrap_or_default()
    };
    let of = |group: &str, resource: &str, verbs: Value| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    let watch = || json!(["list", "watch"]);
    assert_eq!(rules("edge-viplane-vip"), (Value::Null, json!([of("", "nodes", watch())])));
    let services = json!([
        of("", "services", watch()),
        of("discovery.k8s.io", "endpointslices", watch()),
        of("", "services/status", json!(["patch"])),
    ]);
    assert_eq!(rules("edge-viplane-services"), (json!("shop"), services));
    let (namespace, configmap) = rules("edge-viplane-configmap");
    assert_eq!((namespace, &configmap[0]["resourceNames"]), (json!("edge"), &json!(["vips"])));
    assert_eq!(rules("edge-viplane-peers").0, json!("vip"));
    assert_eq!(rules("edge-viplane-allocator"), (Value::Null, Value::Null), "there is no pool");
    assert_eq!(rendered.pod()["automountServiceAccountToken"], json!(true));
}

/// Whoever allocates writes the status of pools, which are the cluster's, and of VirtualIPs, their finalizers, and a Lease beside itself.
#[test]
fn pools_are_written_where_they_are_followed() {
    let rendered = rendered("kubernetes: { sources: [pool], watch_namespace: shop }\n");
    let of = |group: &str, resource: &str, verbs: Value| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    let role = |name: &str| {
        let roles = rendered.of_kind("Role").into_iter().chain(rendered.of_kind("ClusterRole"));
        roles.into_iter().find(|role| role["metadata"]["name"] == name).cloned().unwrap_or_default()
    };
    let pools = json!([
        of("", "nodes", json!(["list", "watch"])),
        of("events.k8s.io", "events", json!(["create", "patch"])),
        of("viplane.dev", "vippools", json!(["list", "watch", "patch"])),
        of("viplane.dev", "vippools/status", json!(["patch"])),
    ]);
    assert_eq!(role("edge-viplane-vip")["rules"], pools);
    let holders = json!([
        of("", "services", json!(["list", "watch"])),
        of("discovery.k8s.io", "endpointslices", json!(["list", "watch"])),
        of("", "services", json!(["get"])),
        of("viplane.dev", "virtualips", json!(["get", "list", "watch", "patch"])),
        of("viplane.dev", "virtualips/status", json!(["patch"])),
    ]);
    assert_eq!(role("edge-viplane-services")["rules"], holders);
    let lease = &role("edge-viplane-allocator");
    assert_eq!(lease["metadata"]["namespace"], "vip");
    assert_eq!(lease["rules"][0]["resourceNames"], json!(["viplane-allocator"]));
    assert_eq!(lease["rules"][1]["verbs"], json!(["create"]));
}
