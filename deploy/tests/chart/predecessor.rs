//! The values of keepalived-ingress-vip, as its documentation has them, and each of its knobs.

use serde_json::{Value, json};
use vip_agent::config::{self, Config};
use vip_agent::import::chart_values;
use vip_deploy::Rendered;

use crate::support::{checked, findings, rendered, unexpected, values};

/// Its documented examples: the first is no YAML there, and is corrected here; the third is in deploy/examples/k3s.yaml.
const EXAMPLES: [&str; 3] = ["predecessor-ingress.yaml", "predecessor-api.yaml", "predecessor-all.yaml"];

/// The lines below "What is not as the values said".
fn remarks(rendered: &Rendered) -> Vec<&str> {
    rendered.notes.lines().filter_map(|line| line.strip_prefix("  - ")).collect()
}

fn has(rendered: &Rendered, start: &str) -> bool {
    remarks(rendered).iter().any(|remark| remark.starts_with(start))
}

fn minimal(more: &str) -> Rendered {
    rendered(&format!("keepalived: {{ vipAddressCidr: 10.0.0.2/24{more} }}\n"))
}

#[test]
fn its_examples_are_linted_and_rendered_and_the_agent_takes_the_files() {
    for example in EXAMPLES {
        let findings = findings(&values(example));
        assert!(findings.is_empty(), "{example}: {findings:?}");
        let (config, warnings) = checked(&rendered(&values(example)));
        assert_eq!((config.instances.len(), unexpected(warnings)), (1, Vec::new()), "{example}");
    }
}

/// `vip-agent import chart-values` and the chart's templates are two readers of the same values.
#[test]
fn the_import_and_the_chart_agree() {
    let directory = tempfile::tempdir().unwrap();
    let strings = "
keepalived: { vipAddressCidr: 10.0.0.2/24, virtualRouterId: '7', checkServiceInterval: '3', checkKubelet: 'False', checkKubeApiFailAfter: '2', vrrpNoPreempt: 'True' }
pod: {}
";
    let old = "
keepalived: { vipAddressCidr: 'fd00::2/64', authPassword: secret, enableDebug: true, ingressHealthzUrl: 'http://127.0.0.1:8081/h', kubeletHealthzUrl: 'http://127.0.0.1:10255/h' }
";
    for text in EXAMPLES.map(values).iter().map(String::as_str).chain([strings, old]) {
        let file = directory.path().join("values.yaml");
        std::fs::write(&file, text).unwrap();
        let imported = chart_values::import(&file).unwrap();
        let (imported, _) =
            config::parse(&imported.yaml, "imported", "node").unwrap_or_else(|problems| panic!("{problems}"));
        let (of_chart, _) = checked(&rendered(text));
        let election = |config: &Config| (config.probes.clone(), config.log, without_password(config));
        assert_eq!(election(&imported), election(&of_chart), "{text}");
    }
}

/// Both have the same password, one by a file.
fn without_password(config: &Config) -> Vec<String> {
    let effective: Value = serde_saphyr::from_str(&config::effective(config)).expect("the agent's own YAML");
    let instances = effective["instances"].as_array().into_iter().flatten().map(|instance| {
        let mut instance = instance.clone();
        let auth = instance["auth"].take();
        format!("{instance} with password: {}", !auth.is_null())
    });
    instances.collect()
}

#[test]
fn old_keys_mean_a_deployment_of_two_with_the_old_checks() {
    let rendered = rendered(&values("predecessor-ingress.yaml"));
    let workload = rendered.workload();
    assert_eq!((&workload["kind"], &workload["spec"]["replicas"]), (&json!("Deployment"), &json!(2)));
    let (config, _) = checked(&rendered);
    let track: Vec<_> = config.instances[0].track.iter().map(ToString::to_string).collect();
    assert_eq!(track, ["service", "kubelet", "kube-api"]);
    let pod = rendered.pod();
    assert_eq!(pod["nodeSelector"], json!({ "nodeRole": "ingress" }));
    assert_eq!(pod["priorityClassName"], "system-cluster-critical");
    let soon = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 15 });
    let tolerations = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"].map(soon);
    assert_eq!(pod["tolerations"], json!(tolerations));
    assert!(has(&rendered, "kind: a Deployment of 2"), "{:?}", remarks(&rendered));
}

#[test]
fn without_old_keys_there_is_a_daemon_set_without_probes() {
    let rendered = rendered("instances: [{ name: edge, virtual_router_id: 51, vips: [10.0.0.2/24] }]");
    let (config, _) = checked(&rendered);
    assert_eq!(rendered.workload()["kind"], "DaemonSet");
    assert!(config.probes.is_empty() && config.instances[0].track.is_empty());
}

#[test]
fn daemonset_may_be_written_as_that_chart_did() {
    let rendered = rendered(&values("predecessor-api.yaml"));
    assert_eq!(rendered.workload()["kind"], "DaemonSet");
    assert!(has(&rendered, "kind: Daemonset is taken for DaemonSet"), "{:?}", remarks(&rendered));
    let keys: Vec<_> =
        rendered.pod()["tolerations"].as_array().unwrap().iter().map(|each| each["key"].clone()).collect();
    for key in [
        "node-role.kubernetes.io/controlplane",
        "node-role.kubernetes.io/etcd",
        "node-role.kubernetes.io/control-plane",
    ] {
        assert!(keys.contains(&json!(key)), "{keys:?}");
    }
}

#[test]
fn a_plain_http_probe_of_an_api_server_becomes_https() {
    let rendered = rendered(&values("predecessor-api.yaml"));
    let written: Value = serde_saphyr::from_str(rendered.config()).unwrap();
    assert_eq!(
        written["probes"][0]["http"],
        json!({ "url": "https://127.0.0.1:6443/healthz", "status": [200, 401], "insecure": true })
    );
    assert!(has(
        &rendered,
        "keepalived.checkServiceUrl: http://127.0.0.1:6443/healthz was turned into https"
    ));
}

#[test]
fn the_old_image_is_ignored_and_another_one_is_not() {
    let image = |values: &str| {
        let rendered = rendered(&format!("keepalived: {{ vipAddressCidr: 10.0.0.2/24 }}\nimage: {values}\n"));
        let ignored = has(&rendered, "image: ");
        (
            rendered.container()["image"].as_str().unwrap().to_owned(),
            rendered.container()["imagePullPolicy"].clone(),
            ignored,
        )
    };
    let ours = format!("viplane:{}", env!("CARGO_PKG_VERSION"));
    let old = "{ repository: janeczku/keepalived-ingress-vip, tag: v0.1.4, pullPolicy: Always }";
    assert_eq!(image(old), (ours.clone(), json!("IfNotPresent"), true));
    assert_eq!(image("{ tag: v0.1.2 }"), (ours, json!("IfNotPresent"), true));
    let mine = "{ repository: registry.example/viplane, tag: '1.0', pullPolicy: Always }";
    assert_eq!(image(mine), ("registry.example/viplane:1.0".to_owned(), json!("Always"), false));
}

#[test]
fn limits_that_are_too_low_are_raised_and_others_are_not() {
    let all = rendered(&values("predecessor-all.yaml"));
    assert_eq!(
        all.container()["resources"],
        json!({ "requests": { "cpu": "80m", "memory": "24Mi" }, "limits": { "memory": "64Mi", "cpu": "250m" } })
    );
    assert!(has(&all, "pod.resources.limits.memory: 12Mi was raised to 64Mi"), "{:?}", remarks(&all));
    assert!(has(&all, "pod.resources.limits.cpu: 100m was raised"));
    let enough = rendered(
        "keepalived: { vipAddressCidr: 10.0.0.2 }\npod: { resources: { limits: { memory: 0.5Gi, cpu: 1 } } }",
    );
    assert_eq!(enough.container()["resources"], json!({ "limits": { "memory": "0.5Gi", "cpu": 1 } }));
    assert!(!has(&enough, "pod.resources"), "{:?}", remarks(&enough));
}

#[test]
fn a_password_means_version_2_and_is_in_a_secret_alone() {
    let rendered = rendered(&values("predecessor-all.yaml"));
    let secret = rendered.of_kind("Secret")[0];
    assert_eq!(secret["stringData"]["password"], "s3cret-a", "keepalived uses eight characters");
    assert!(!rendered.config().contains("s3cret") && !rendered.notes.contains("s3cret"));
    let (config, _) = checked(&rendered);
    assert!(config::effective(&config).contains("version: 2"));
    assert!(minimal("").of_kind("Secret").is_empty());
    assert!(has(&minimal(""), "keepalived.authPassword: none"));
}

#[test]
fn every_other_knob_arrives() {
    let rendered = rendered(&values("predecessor-all.yaml"));
    let (config, _) = checked(&rendered);
    let edge = &config.instances[0];
    assert_eq!((edge.virtual_router_id.get(), edge.preempt), (77, false));
    let effective = config::effective(&config);
    for line in ["interface: ens160", "vip_interface: ens192", "level: debug"] {
        assert!(effective.contains(line), "{line} is missing in\n{effective}");
    }
    let pod = rendered.pod();
    assert_eq!(rendered.workload()["spec"]["replicas"], 3);
    assert_eq!(pod["serviceAccountName"], "vip-account");
    assert!(rendered.of_kind("ServiceAccount").is_empty());
    assert_eq!(pod["priorityClassName"], "important");
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "registry" }]));
    assert_eq!(pod["tolerations"][0]["key"], "dedicated");
    assert_eq!(crate::defaults::named(&rendered.container()["env"], "ZONE")["value"], "a");
    let affinity = &pod["affinity"];
    assert!(affinity["nodeAffinity"].is_object() && affinity["podAntiAffinity"].is_object(), "{affinity}");
    assert!(has(&rendered, "rbac.pspEnabled: PodSecurityPolicy is gone"));
}

#[test]
fn preemption_waits_five_seconds_unless_it_is_off() {
    let delay = |rendered: &Rendered| checked(rendered).0.instances[0].preempt_delay.as_secs();
    assert_eq!(delay(&minimal("")), 5);
    assert_eq!(delay(&minimal(", vrrpNoPreempt: true")), 0);
}
