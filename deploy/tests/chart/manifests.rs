//! deploy/manifests and deploy/examples are what the chart makes of them.

use serde_json::{Value, json};
use vip_agent::config;
use vip_deploy::manifests;
use vip_kube_api::{AddressRange, VipPool, VirtualIP};

use crate::support::{checked, rendered, unexpected, with_helm};

fn read(name: &str) -> String {
    std::fs::read_to_string(vip_deploy::folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn they_are_not_stale() {
    let stale = with_helm(manifests::stale).unwrap();
    assert!(stale.is_empty(), "cargo xtask manifests makes them anew: {stale:?}");
}

#[test]
fn the_definitions_are_those_of_the_types() {
    let stale = vip_deploy::crds::stale().unwrap();
    assert!(stale.is_empty(), "cargo xtask crds makes them anew: {stale:?}");
}

/// Keys that the types do not know would be dropped by the API server without a word.
#[test]
fn examples_of_our_kinds_say_what_the_types_know() {
    let text = std::fs::read_to_string(vip_deploy::root().join("docs/kubernetes.md")).unwrap();
    let examples: Vec<&str> =
        text.split("```yaml\n").skip(1).filter_map(|part| part.split("```").next()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let written: Value = serde_saphyr::from_str(example).unwrap();
        let read = match written["kind"].as_str() {
            Some("VipPool") => {
                serde_json::to_value(serde_json::from_value::<VipPool>(written.clone()).unwrap())
            }
            _ => serde_json::to_value(serde_json::from_value::<VirtualIP>(written.clone()).unwrap()),
        };
        let read = read.unwrap();
        for (key, value) in written["spec"].as_object().unwrap() {
            assert_eq!(&read["spec"][key], value, "{key}");
        }
        for range in written["spec"]["addresses"].as_array().into_iter().flatten() {
            AddressRange::parse(range.as_str().unwrap()).unwrap();
        }
    }
}

/// The kubelet alone runs it, so it names no object of the API server that it is to make reachable.
#[test]
fn the_static_pod_needs_no_api_server() {
    let pod: Value = serde_saphyr::from_str(&read("manifests/api-server-pod.yaml")).unwrap();
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], Value::Null);
    assert_eq!(spec["hostNetwork"], json!(true));
    for volume in spec["volumes"].as_array().unwrap() {
        assert!(volume["hostPath"]["path"].is_string(), "{volume}");
    }
    let (config, warnings) = config::parse(&read("manifests/api-server-config.yaml"), "x", "node").unwrap();
    // It asks its own node, by loopback.
    assert_eq!(unexpected(warnings.lines().collect()), Vec::<String>::new());
    assert_eq!(config.instances[0].track.len(), 1);
    assert!(
        !read("manifests/api-server-config.yaml").contains("preset: kube_api"),
        "it asks by the pod's own token"
    );
}

#[test]
fn the_example_for_k3s_has_the_predecessors_values_and_renders() {
    let resource: Value = serde_saphyr::from_str(&read("examples/k3s.yaml")).unwrap();
    assert_eq!(resource["kind"], "HelmChart");
    let chart = resource["spec"]["chart"].as_str().unwrap();
    let version: Value = serde_saphyr::from_str(&read("chart/Chart.yaml")).unwrap();
    assert!(chart.ends_with(&format!("/viplane-{}.tgz", version["version"].as_str().unwrap())), "{chart}");
    let rendered = rendered(resource["spec"]["valuesContent"].as_str().unwrap());
    let (config, _) = checked(&rendered);
    assert_eq!(rendered.workload()["kind"], "DaemonSet");
    assert_eq!(config.instances[0].vips[0].to_string(), "172.16.135.2/21");
}

#[test]
fn the_chart_is_of_the_agents_version() {
    let chart: Value = serde_saphyr::from_str(&read("chart/Chart.yaml")).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}
