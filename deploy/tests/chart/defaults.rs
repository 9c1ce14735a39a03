//! What comes of no values, or of few.

use serde_json::{Value, json};

use crate::support::{checked, findings, rendered};

const EDGE: &str = "
instances:
  - { name: edge, virtual_router_id: 51, vips: ['192.168.11.2/24'] }
";

#[test]
fn without_values_a_daemon_set_waits_for_vips() {
    let rendered = rendered("{}");
    assert_eq!(rendered.kinds(), ["ConfigMap", "DaemonSet", "ServiceAccount"]);
    let (config, warnings) = checked(&rendered);
    assert_eq!((config.instances.len(), config.probes.len()), (0, 0));
    assert!(warnings[0].contains("there is no instance"), "{warnings:?}");
    assert!(rendered.notes.contains("No VIP yet"), "{}", rendered.notes);
    assert!(!rendered.notes.contains("What is not as the values said"), "{}", rendered.notes);
    assert!(findings("{}").is_empty(), "{:?}", findings("{}"));
}

#[test]
fn an_instance_is_the_agents_own_and_is_applied_without_a_restart() {
    let rendered = rendered(EDGE);
    let (config, warnings) = checked(&rendered);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.instances[0].name.as_str(), "edge");
    assert!(config.reload_on_change);
    let template = &rendered.workload()["spec"]["template"]["metadata"];
    assert_eq!(template["annotations"], Value::Null, "a checksum would restart the agents");
    let changed = crate::support::rendered(&EDGE.replace("51", "52"));
    assert_eq!(rendered.workload(), changed.workload());
    assert_ne!(rendered.config(), changed.config());
}

#[test]
fn rendering_is_repeatable() {
    for values in [
        "{}",
        EDGE,
        &crate::support::values("everything.yaml"),
        &crate::support::values("predecessor-all.yaml"),
    ] {
        assert_eq!(rendered(values), rendered(values));
    }
}

#[test]
fn the_pod_may_do_what_the_agent_needs_and_no_more() {
    let rendered = rendered(EDGE);
    let (pod, container) = (rendered.pod(), rendered.container());
    assert_eq!(pod["hostNetwork"], json!(true));
    assert_eq!(pod["automountServiceAccountToken"], json!(false), "nothing asks the API server");
    assert_eq!(pod["hostPID"], Value::Null);
    let security = &container["securityContext"];
    assert_eq!(security["privileged"], Value::Null);
    assert_eq!(security["allowPrivilegeEscalation"], json!(false));
    assert_eq!(security["readOnlyRootFilesystem"], json!(true));
    let capabilities = &security["capabilities"];
    assert_eq!(capabilities["drop"], json!(["ALL"]));
    assert_eq!(
        capabilities["add"],
        json!(["NET_ADMIN", "NET_RAW", "BPF", "PERFMON", "SYS_NICE", "IPC_LOCK"]),
        "docs/prerequisites.md"
    );
}

/// /proc/sys is read-only in a container, so the host's is mounted elsewhere; in a privileged one it is not.
#[test]
fn sysctls_are_written_where_they_can_be() {
    let sysctls = |values: &str| {
        let rendered = rendered(values);
        let container = rendered.container();
        let variable = named(&container["env"], "VIPLANE_PROC_SYS")["value"].clone();
        (variable, named(&container["volumeMounts"], "sysctls")["mountPath"].clone())
    };
    assert_eq!(sysctls(EDGE), (json!("/host/proc/sys"), json!("/host/proc/sys/net")));
    assert_eq!(sysctls(&format!("{EDGE}privileged: true\n")), (Value::Null, Value::Null));
}

#[test]
fn what_agents_leave_on_the_host_is_on_the_host() {
    let rendered = rendered(EDGE);
    let (config, _) = checked(&rendered);
    for (name, path) in [("runtime", &config.runtime_dir), ("state", &config.state_dir)] {
        let volume = named(&rendered.pod()["volumes"], name);
        assert_eq!(volume["hostPath"], json!({ "path": path, "type": "DirectoryOrCreate" }));
        assert_eq!(named(&rendered.container()["volumeMounts"], name)["mountPath"], json!(path));
    }
    let bpf = named(&rendered.pod()["volumes"], "bpf")["hostPath"]["path"].clone();
    assert!(config.pin_dir.unwrap().starts_with(bpf.as_str().unwrap()));
}

#[test]
fn the_kubelet_asks_the_agent_where_it_listens() {
    let asked = |listen: &str| {
        let rendered = rendered(&format!("{EDGE}api: {{ listen: '{listen}' }}\n"));
        let (config, _) = checked(&rendered);
        assert_eq!(config.api.unwrap().listen.to_string(), listen);
        let container = rendered.container();
        let of = |probe: &str| container[probe]["httpGet"].clone();
        assert_eq!(of("livenessProbe")["path"], "/healthz");
        assert_eq!(of("readinessProbe")["path"], "/readyz");
        assert_eq!(of("livenessProbe")["host"], of("readinessProbe")["host"]);
        (of("livenessProbe")["host"].clone(), of("livenessProbe")["port"].clone())
    };
    assert_eq!(asked("127.0.0.1:9870"), (json!("127.0.0.1"), json!(9870)));
    assert_eq!(asked("0.0.0.0:9000"), (json!("127.0.0.1"), json!(9000)));
    assert_eq!(asked("[::]:9000"), (json!("::1"), json!(9000)));
    assert_eq!(asked("10.0.0.1:9000"), (json!("10.0.0.1"), json!(9000)));
}

#[test]
fn an_end_leaves_time_for_what_sigterm_does() {
    let rendered = rendered(EDGE);
    let (config, _) = checked(&rendered);
    let grace = config.instances[0].grace.as_secs() + 10;
    assert!(rendered.pod()["terminationGracePeriodSeconds"].as_u64().unwrap() > grace);
}

#[test]
fn a_node_is_updated_at_a_time_and_no_two_agents_meet_on_one() {
    let daemons = rendered(EDGE);
    assert_eq!(
        daemons.workload()["spec"]["updateStrategy"],
        json!({ "rollingUpdate": { "maxUnavailable": 1 } })
    );
    let deployment = rendered(&format!("{EDGE}kind: Deployment\nreplicas: 3\n"));
    let spec = &deployment.workload()["spec"];
    assert_eq!(spec["replicas"], 3);
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({ "maxSurge": 0, "maxUnavailable": 1 }));
    let apart = &spec["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        [0];
    assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(apart["labelSelector"]["matchLabels"], spec["selector"]["matchLabels"]);
    assert_eq!(deployment.of_kind("PodDisruptionBudget").len(), 1);
    assert!(
        daemons.of_kind("PodDisruptionBudget").is_empty(),
        "draining a node leaves a DaemonSet's pods alone"
    );
}

/// The item of a list that has this name; null if none has.
pub(crate) fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    items.iter().find(|item| item["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn who_steers_is_given_the_memory_that_the_maps_take() {
    let limit = |values: &str| rendered(values).container()["resources"]["limits"]["memory"].clone();
    assert_eq!(limit("kubernetes: { sources: [service] }"), "256Mi");
    assert_eq!(limit("kubernetes: { sources: [service], steering: false }"), "128Mi");
    assert_eq!(limit("kubernetes: { sources: [service] }\nresources: { limits: { memory: 1Gi } }"), "1Gi");
    assert_eq!(limit("{}"), "128Mi");
}
