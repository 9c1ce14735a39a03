//! What the schema and the templates refuse, and that they know as much as the agent does.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use vip_agent::config;

use crate::support::{refused, rendered};

#[test]
fn typing_errors_are_refused_by_name() {
    for (values, named) in [
        ("instanses: []", "instanses"),
        (
            "instances: [{ name: a, virtual_router_id: 1, vips: [10.0.0.1], advert_intervall: 1s }]",
            "advert_intervall",
        ),
        ("instances: [{ name: a, vips: [10.0.0.1] }]", "virtual_router_id"),
        ("instances: [{ name: a, virtual_router_id: 256, vips: [10.0.0.1] }]", "virtual_router_id"),
        ("instances: [{ name: a, virtual_router_id: 1, vips: [10.0.0.1], grace: 5 }]", "grace"),
        ("probes: [{ name: a, preset: kublet }]", "preset"),
        ("config: { xdpmode: skb }", "xdpmode"),
        ("config: { node: a }", "node"),
        ("kind: StatefulSet", "kind"),
        ("replicas: 0", "replicas"),
        ("api: { listen: '9870' }", "listen"),
        ("image: { repo: a }", "repo"),
        ("metrics: { podMonitor: maybe }", "podMonitor"),
        ("keepalived: { vipAddressCidr: 10.0.0.1/24, chekKubelet: true }", "chekKubelet"),
        ("keepalived: { vipAddressCidr: 10.0.0.1/24, virtualRouterId: 300 }", "virtualRouterId"),
        ("pod: { replica: 2 }", "replica"),
    ] {
        let message = refused(values);
        assert!(message.contains(named), "{values}: {message}");
    }
}

#[test]
fn what_no_schema_can_say_the_templates_do() {
    for (values, said) in [
        ("keepalived: { debug: true }", "keepalived.vipAddressCidr is missing"),
        ("resources: { limits: { memory: 12Megs } }", "\"12Megs\" is no quantity"),
    ] {
        let message = refused(values);
        assert!(message.contains(said), "{values}: {message}");
    }
}

/// The schema refuses unknown keys, so it must know every one that the agent serves.
#[test]
fn the_schema_knows_every_key_of_the_agents() {
    let file = "
        probes: [{ name: a, preset: kubelet }]
        instances: [{ name: a, virtual_router_id: 1, vips: [10.0.0.1], interface: eth0, track: [a] }]
    ";
    let config = config::parse(file, "x", "node").unwrap().0;
    let effective: Value = serde_saphyr::from_str(&config::effective(&config)).unwrap();
    let schema = std::fs::read_to_string(vip_deploy::chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let known = |pointer: &str| keys(schema.pointer(pointer).unwrap());
    assert_eq!(
        &keys(&effective["instances"][0]) - &known("/definitions/instance/properties"),
        BTreeSet::new()
    );
    assert_eq!(&keys(&effective["probes"][0]) - &known("/definitions/probe/properties"), BTreeSet::new());
    // Of the node, or of the chart itself.
    let own = ["node", "runtime_dir", "state_dir", "pin_dir", "api", "probes", "instances", "kubernetes"];
    let own: BTreeSet<String> = own.iter().map(|&key| key.to_owned()).collect();
    assert_eq!(&(&keys(&effective) - &known("/properties/config/properties")) - &own, BTreeSet::new());
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flat_map(|object| object.keys().cloned()).collect()
}

#[test]
fn defaults_say_every_value_that_the_schema_knows() {
    let schema = std::fs::read_to_string(vip_deploy::chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let text = std::fs::read_to_string(vip_deploy::chart().join("values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let of_predecessor = ["keepalived", "pod", "serviceAccountName", "global"].map(str::to_owned);
    let known = &keys(&schema["properties"]) - &BTreeSet::from(of_predecessor);
    assert_eq!(keys(&values), known);
    assert_eq!(rendered("{}"), rendered(&text), "the defaults, said once more, change nothing");
    assert_eq!(values["kubernetes"], json!({}));
}

/// Rancher's form writes values by these names.
#[test]
fn the_form_asks_for_nothing_that_the_schema_does_not_know() {
    let read = |name: &str| std::fs::read_to_string(vip_deploy::chart().join(name)).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let form: Value = serde_saphyr::from_str(&read("questions.yaml")).unwrap();
    for question in form["questions"].as_array().unwrap() {
        let variable = question["variable"].as_str().unwrap();
        let pointer = match variable.strip_prefix("instances[0].") {
            Some(key) => format!("/definitions/instance/properties/{}", key.trim_end_matches("[0]")),
            None => format!("/properties/{}", variable.replace('.', "/properties/")),
        };
        assert!(schema.pointer(&pointer).is_some(), "{variable}");
    }
}
