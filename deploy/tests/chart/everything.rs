//! All of our own values at once, none at its default.

use serde_json::json;

use crate::defaults::named;
use crate::support::{checked, findings, rendered, values};

#[test]
fn every_value_arrives_where_it_belongs() {
    let rendered = rendered(&values("everything.yaml"));
    assert_eq!(
        rendered.kinds(),
        [
            "ClusterRole",
            "ClusterRoleBinding",
            "ConfigMap",
            "Deployment",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "PodMonitor",
            "Service",
            "ServiceAccount",
            "ServiceMonitor",
        ]
    );
    let (pod, container) = (rendered.pod(), rendered.container());
    assert_eq!(rendered.workload()["metadata"]["name"], "edge-vips");
    assert_eq!(container["image"], "registry.example/viplane:9.9");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "registry" }]));
    assert_eq!(container["securityContext"]["privileged"], json!(true));
    assert_eq!(container["resources"]["limits"]["memory"], "256Mi");
    assert_eq!(pod["priorityClassName"], "important");
    assert_eq!(pod["nodeSelector"], json!({ "edgenode": "true" }));
    assert_eq!(pod["tolerations"], json!([{ "key": "dedicated", "operator": "Exists" }]));
    let apart = &pod["affinity"]["podAntiAffinity"];
    assert_eq!(apart["preferredDuringSchedulingIgnoredDuringExecution"].as_array().unwrap().len(), 1);
    assert_eq!(apart["requiredDuringSchedulingIgnoredDuringExecution"].as_array().unwrap().len(), 1);
    assert_eq!(pod["terminationGracePeriodSeconds"], 120);
    assert_eq!(named(&container["env"], "ZONE")["value"], "a");
    assert_eq!(container["livenessProbe"]["httpGet"]["scheme"], "HTTPS");
    let template = &rendered.workload()["spec"]["template"]["metadata"];
    assert_eq!(
        (&template["annotations"]["example/a"], &template["labels"]["team"]),
        (&json!("b"), &json!("network"))
    );
    assert_eq!(rendered.of_kind("ServiceAccount")[0]["metadata"]["annotations"]["example/c"], "d");
    assert_eq!(rendered.of_kind("PodDisruptionBudget")[0]["spec"]["maxUnavailable"], 2);
    assert_eq!(rendered.of_kind("NetworkPolicy")[0]["spec"]["ingress"][0]["ports"][0]["port"], 9871);
    for kind in ["PodMonitor", "ServiceMonitor"] {
        let monitor = rendered.of_kind(kind)[0];
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        let endpoint = [&monitor["spec"]["podMetricsEndpoints"][0], &monitor["spec"]["endpoints"][0]];
        let endpoint = endpoint.into_iter().find(|endpoint| !endpoint.is_null()).unwrap();
        assert_eq!((&endpoint["scheme"], &endpoint["interval"]), (&json!("https"), &json!("5s")));
        assert_eq!(endpoint["authorization"]["credentials"]["name"], "api-token");
    }
    let findings = findings(&values("everything.yaml"));
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn the_agents_file_says_all_of_it() {
    let rendered = rendered(&values("everything.yaml"));
    let (config, _) = checked(&rendered);
    let effective = vip_agent::config::effective(&config);
    for line in [
        "level: warn",
        "format: json",
        "xdp_mode: skb",
        "seccomp: false",
        "runtime_dir: /run/vips",
        "pin_dir: /run/bpf/viplane",
    ] {
        assert!(effective.contains(line), "{line} is missing in\n{effective}");
    }
    let edge = &config.instances[0];
    assert!(edge.auth_trailer.is_some() && edge.detect.is_some() && edge.vips.len() == 2);
    let api = config.api.unwrap();
    assert!(api.tls.is_some() && api.token.is_some());
}

#[test]
fn monitors_come_by_themselves_only_where_they_are_known_and_can_read() {
    // The engine's offline API knows no Prometheus operator.
    let open = rendered("api: { listen: '0.0.0.0:9870' }\n");
    assert!(open.of_kind("PodMonitor").is_empty());
    let message = crate::support::refused("metrics: { podMonitor: true }\n");
    assert!(message.contains("a PodMonitor needs an api.listen that Prometheus reaches"), "{message}");
}
