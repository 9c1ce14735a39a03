//! What the chart grants, on a real API server: an agent with the chart's service account, file and pod, and with no other right.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vip_control_plane::ControlPlane;
use vip_control_plane::commands::CRDS;
use vip_deploy::{Helm, PROGRAMS, Release, Rendered};
use vip_lab::wait::until;
use vip_lab::{Lab, Node, Process};

const SOON: Duration = Duration::from_secs(30);
const CONTROL: [&str; 2] = ["--control", "/run/viplane/agent.sock"];
const POOLS: &str = "/apis/viplane.dev/v1alpha1/vippools";
const VIRTUAL_IPS: &str = "/apis/viplane.dev/v1alpha1/namespaces/default/virtualips";
const ACCOUNT: &str = "/api/v1/namespaces/viplane/serviceaccounts";

/// The folder of this build's programs.
fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let built = own.ancestors().nth(2).context("tests are in deps/")?;
    for name in PROGRAMS {
        ensure!(built.join(name).is_file(), "there is no {name}: run `cargo build --package {name}`");
    }
    Ok(built.to_owned())
}

/// Where objects of a kind are made.
fn collection(object: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let version = text(&object["apiVersion"]).context("an object has a version")?;
    let kind = text(&object["kind"]).context("an object has a kind")?;
    let namespace = text(&object["metadata"]["namespace"]).map(|name| format!("/namespaces/{name}"));
    let root = if version.contains('/') { "apis" } else { "api" };
    Ok(format!("/{root}/{version}{}/{}s", namespace.unwrap_or_default(), kind.to_lowercase()))
}

/// Makes what grants the agents something; yields the account's token.
fn grant(plane: &ControlPlane, rendered: &Rendered) -> Result<String> {
    plane.create("/api/v1/namespaces", &json!({"metadata": {"name": "viplane"}}))?;
    for kind in ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"] {
        for object in rendered.of_kind(kind) {
            plane.create(&collection(object)?, object).with_context(|| object.to_string())?;
        }
    }
    let account = rendered.pod()["serviceAccountName"].as_str().context("the pod has an account")?;
    let request = json!({"spec": {"expirationSeconds": 3600}});
    let token = plane.create(&format!("{ACCOUNT}/{account}/token"), &request)?;
    Ok(token["status"]["token"].as_str().context("a token")?.to_owned())
}

/// The pod, as if a kubelet had it.
fn pod(plane: &ControlPlane, rendered: &Rendered) -> Result<()> {
    let labels = &rendered.workload()["spec"]["template"]["metadata"]["labels"];
    let spec = json!({"nodeName": "node1", "containers": [{"name": "agent", "image": "viplane"}]});
    let pod = json!({"metadata": {"name": "viplane-abc", "labels": labels}, "spec": spec});
    until(SOON, || plane.get(&format!("{ACCOUNT}/default")).is_ok())
        .context("the namespace's own account")?;
    plane.create("/api/v1/namespaces/viplane/pods", &pod).map(drop)
}

/// Our own kinds, as the chart has them.
fn define(plane: &ControlPlane) -> Result<()> {
    for definition in vip_kube_api::definitions() {
        plane.create(CRDS, &serde_json::to_value(definition)?)?;
    }
    until(SOON, || plane.get(POOLS).is_ok() && plane.get(VIRTUAL_IPS).is_ok()).context("our kinds are served")
}

/// All that is written for pools: an address given, owned, told of, and taken back.
fn pools(plane: &ControlPlane) -> Result<()> {
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "viplane.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    plane.create(POOLS, &object("VipPool", "edge", json!({"addresses": ["10.0.0.80-10.0.0.81"]})))?;
    plane.create(VIRTUAL_IPS, &object("VirtualIP", "dns", json!({"pool": "edge"})))?;
    let service =
        json!({"metadata": {"name": "given"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    plane.create("/api/v1/namespaces/default/services", &service)?;
    let edge = || plane.get(&format!("{POOLS}/edge")).map(|pool| pool["status"].clone());
    let owned = |status: &Value| status["owners"].as_array().map_or(0, Vec::len) == 2;
    until(SOON, || edge().is_ok_and(|status| owned(&status))).with_context(|| format!("{:#?}", edge()))?;
    let dns = format!("{VIRTUAL_IPS}/dns");
    until(SOON, || plane.get(&dns).is_ok_and(|dns| dns["status"]["node"] == "node1"))
        .context("it is owned")?;
    let events = || plane.get("/apis/events.k8s.io/v1/namespaces/default/events");
    until(SOON, || events().is_ok_and(|events| events.to_string().contains("node1 serves its VIPs")))
        .context("Events")?;
    plane.delete("/api/v1/namespaces/default/services/given")?;
    plane.delete(&dns)?;
    until(SOON, || plane.get(&dns).is_err()).context("a VirtualIP that is deleted is gone")?;
    until(SOON, || edge().is_ok_and(|status| status["allocated"] == 0)).context("both are back")
}

fn agent(node: &Node, programs: &Path, config: &str) -> Result<Process> {
    let file = node.file_path("config.yaml");
    node.write_file(&file, config)?;
    let mut command =
        node.command(programs.join("vip-agent")).args(CONTROL).args(["run", "--config"]).arg(&file);
    for (name, value) in [("NODE_NAME", "node1"), ("POD_NAME", "viplane-abc"), ("POD_NAMESPACE", "viplane")] {
        command = command.env(name, value);
    }
    command.spawn("agent")
}

#[test]
fn the_agent_needs_no_more_than_the_chart_grants() -> Result<()> {
    if std::env::var_os("VIPLANE_FULL").is_none() {
        return Ok(());
    }
    let programs = programs()?;
    let lab = Lab::builder().nodes(1).clients(2).vips(["10.0.0.70"]).build()?;
    let node = lab.node(1);
    let kubeconfig = node.file_path("kubeconfig");
    let values = format!(
        "config: {{ interface: eth0 }}\n\
         kubernetes: {{ sources: [configmap, annotation, service, pool], load_balancer_class: any, kubeconfig: {} }}",
        kubeconfig.display()
    );
    let rendered = Helm::start()?.render(Release::default(), &values)?;
    let plane = ControlPlane::on(&lab.clients()[1]).start()?;
    node.write_file(&kubeconfig, plane.kubeconfig_for(&grant(&plane, &rendered)?))?;
    pod(&plane, &rendered)?;
    define(&plane)?;
    plane.create("/api/v1/nodes", &json!({"metadata": {"name": "node1"}}))?;

    let agent = agent(node, &programs, rendered.config())?;
    let service = json!({
        "metadata": {"name": "web", "annotations": {"viplane.dev/vips": "10.0.0.70"}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    });
    plane.create("/api/v1/namespaces/default/services", &service)?;
    let map = json!({"metadata": {"name": "vip-configmap"}, "data": {"10.0.0.71": ""}});
    plane.create("/api/v1/namespaces/kube-system/configmaps", &map)?;

    let ask = || -> Result<Value> {
        let asked =
            node.command(programs.join("vip-agent")).args(CONTROL).args(["status", "--json"]).output()?;
        Ok(serde_json::from_slice(&asked.stdout)?)
    };
    let mut last = Value::Null;
    until(SOON, || {
        last = ask().unwrap_or_default();
        let instances = last["instances"].as_array().map_or(0, Vec::len);
        last["kubernetes"]["in_sync"] == true && instances == 2
    })
    .with_context(|| format!("{last:#}\n{}", agent.log()))?;
    let address = || {
        plane
            .get("/api/v1/namespaces/default/services/web")
            .map(|web| web["status"]["loadBalancer"]["ingress"][0]["ip"].clone())
    };
    until(SOON, || address().is_ok_and(|address| address == "10.0.0.70")).with_context(|| {
        format!("the status is not written: {:#}\n{}", ask().unwrap_or_default(), agent.log())
    })?;
    pools(&plane).with_context(|| format!("{:#}\n{}", ask().unwrap_or_default(), agent.log()))?;
    ensure!(ask()?["kubernetes"]["troubles"] == json!([]), "{}", agent.log());
    Ok(())
}
