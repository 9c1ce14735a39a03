//! A real control plane, agents in network namespaces, and clients: objects become VIPs that answer.

#[path = "support/agents.rs"]
mod support;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::{Conversation, SOON, binary, ms, times, vip_kube};
use vip_control_plane::ControlPlane;
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::wait::until;
use vip_lab::{Lab, Node};

const MAP: &str = "/api/v1/namespaces/kube-system/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Two nodes with web servers, a client, and a control plane behind the same switch.
struct Cluster {
    agents: Vec<Agent>,
    plane: ControlPlane,
    lab: Lab,
}

impl Cluster {
    /// `keys`: more of `kubernetes`.
    fn start(keys: &Value) -> Result<Self> {
        vip_kube()?;
        // Frames that are steered by generic XDP must not wait for a device to finish their checksums.
        let lab =
            Lab::builder().nodes(2).clients(2).vips(["10.0.0.50"]).web().checksum_offload(false).build()?;
        let plane = ControlPlane::on(&lab.clients()[1]).start()?;
        for node in lab.nodes() {
            let object = json!({"metadata": {"name": node.name()}});
            plane.create("/api/v1/nodes", &object)?;
            let addresses = [node.ipv4().to_string(), node.ipv6().to_string()];
            let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
            let status = json!({"status": {"addresses": addresses}});
            plane.patch(&format!("/api/v1/nodes/{}/status", node.name()), &status)?;
        }
        let mut cluster = Self { agents: Vec::new(), plane, lab };
        for number in [1, 2] {
            cluster.agents.push(cluster.agent(number, keys)?.start()?);
        }
        Ok(cluster)
    }

    /// A Kubernetes agent without instances of its own.
    fn agent(&self, number: usize, keys: &Value) -> Result<AgentBuilder> {
        let kubeconfig = self.lab.node(number).file_path("kubeconfig");
        self.lab.node(number).write_file(&kubeconfig, self.plane.kubeconfig())?;
        let mut kubernetes = json!({"kubeconfig": kubeconfig, "load_balancer_class": "any"});
        let more = keys.as_object().into_iter().flatten();
        more.for_each(|(key, value)| kubernetes[key] = value.clone());
        Ok(self
            .lab
            .agent(number, binary())
            .set("kubernetes", kubernetes)
            .set("interface", json!("eth0"))
            .bare())
    }

    fn client(&self) -> &Node {
        self.lab.client()
    }

    /// Waits until a web server answers behind a VIP; its node's name.
    fn answers(&self, vip: &str) -> Result<String> {
        let mut answer = None;
        let ask = || Conversation::open(self.client(), vip)?.ask();
        until(SOON, || {
            answer = ask().ok();
            answer.is_some()
        })
        .with_context(|| {
            let logs: Vec<String> = self.agents.iter().map(Agent::log).collect();
            format!("nobody answers for {vip}\n{}", logs.join("\n---\n"))
        })?;
        answer.context("an answer")
    }

    /// Waits until an agent's status is as `wanted`.
    fn wait(&self, number: usize, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Result<Value> {
        let agent = &self.agents[number - 1];
        let mut last = Value::Null;
        until(SOON, || {
            last = agent.status().map(|status| status.raw).unwrap_or_default();
            wanted(&last)
        })
        .with_context(|| format!("node{number}: not {what}: {last:#}\n{}", agent.log()))?;
        Ok(last)
    }

    /// The addresses that a Service is said to have.
    fn ingress(&self, service: &str) -> Vec<String> {
        let object = self.plane.get(&format!("{SERVICES}/{service}")).unwrap_or_default();
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        ingress.iter().filter_map(|one| one["ip"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until no instance of any agent has the VIP.
    fn is_withdrawn(&self, vip: &str) -> Result<()> {
        for number in [1, 2] {
            self.wait(number, &format!("without {vip}"), |status| !vips(status).contains(&vip.to_owned()))?;
        }
        Ok(())
    }
}

fn vips(status: &Value) -> Vec<String> {
    let instances = status["instances"].as_array().cloned().unwrap_or_default();
    let vips = instances.iter().flat_map(|instance| instance["vips"].as_array().cloned().unwrap_or_default());
    vips.filter_map(|vip| vip.as_str().map(str::to_owned)).collect()
}

fn is_active(status: &Value, vip: &str) -> bool {
    let instances = status["instances"].as_array().cloned().unwrap_or_default();
    let has = |instance: &Value| instance["vips"].as_array().is_some_and(|vips| vips.contains(&json!(vip)));
    instances.iter().any(|instance| has(instance) && instance["state"] == "active")
}

/// A ConfigMap of VIPs.
fn map(data: &Value) -> Value {
    json!({"metadata": {"name": "vip-configmap"}, "data": data})
}

/// A Service of type LoadBalancer, which a local listener serves: there is no kube-proxy here.
fn service(name: &str, vip: &str, spec: &Value) -> Value {
    let mut service = json!({
        "metadata": {
            "name": name,
            "annotations": {"viplane.dev/vips": vip, "viplane.dev/local-address": "active"},
        },
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "web"}},
    });
    let more = spec.as_object().into_iter().flatten();
    more.for_each(|(key, value)| service["spec"][key] = value.clone());
    service
}

/// The endpoints of a Service: ready ones on these nodes, which are their web servers.
fn slice(service: &str, nodes: &[&str]) -> Value {
    let address = |node: &str| format!("10.0.0.{}", node.trim_start_matches("node"));
    let endpoint =
        |node: &&str| json!({"addresses": [address(node)], "nodeName": node, "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-abc"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// Building the control plane takes minutes, and starting it seconds: tests of it belong to the long suites.
fn is_full() -> bool {
    times(0, 1) == 1
}

#[test]
fn objects_become_vips_that_answer_and_let_go_of_them() -> Result<()> {
    if !is_full() {
        return Ok(());
    }
    let cluster = Cluster::start(&json!({}))?;
    let plane = &cluster.plane;

    // The ConfigMap: a VIP alone, and one of a Service, which comes and goes with its endpoints.
    plane.create(MAP, &map(&json!({"10.0.0.50": "", "10.0.0.51": "default/web:NAT"})))?;
    cluster.answers("10.0.0.50")?;
    let pending = |status: &Value| {
        let objects = status["kubernetes"]["objects"].as_array().cloned().unwrap_or_default();
        objects.iter().any(|object| object["reason"] == "Pending")
    };
    let status = cluster.wait(1, "waiting for the Service", pending)?;
    ensure!(!vips(&status).contains(&"10.0.0.51".to_owned()), "{status}");
    plane.create(SERVICES, &json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}))?;
    plane.create(SLICES, &slice("web", &["node1", "node2"]))?;
    cluster.answers("10.0.0.51")?;
    plane.delete(&format!("{SLICES}/web-abc"))?;
    cluster.is_withdrawn("10.0.0.51")?;
    cluster.answers("10.0.0.50")?;

    // A Service of type LoadBalancer; a younger one that wants the same is told.
    plane.create(SERVICES, &service("front", "10.0.0.70", &json!({})))?;
    cluster.answers("10.0.0.70")?;
    until(SOON, || cluster.ingress("front") == ["10.0.0.70"])
        .context("the owner writes the Service's address")?;
    // Ages are whole seconds: the two must differ for "older" to mean what the reader thinks.
    std::thread::sleep(Duration::from_millis(1100));
    plane.create(SERVICES, &service("back", "10.0.0.70", &json!({})))?;
    let status = cluster.wait(2, "told of the conflict", |status| status.to_string().contains("Conflict"))?;
    ensure!(status["kubernetes"]["objects"].to_string().contains("Service default/back"), "{status}");
    plane.delete(&format!("{SERVICES}/front"))?;
    cluster.wait(2, "rid of the conflict", |status| !status.to_string().contains("Conflict"))?;
    cluster.answers("10.0.0.70")?;
    // Another address lets go of the old one.
    let moved = json!({"metadata": {"annotations": {"viplane.dev/vips": "10.0.0.71"}}});
    plane.patch(&format!("{SERVICES}/back"), &moved)?;
    cluster.is_withdrawn("10.0.0.70")?;
    cluster.answers("10.0.0.71")?;
    until(SOON, || cluster.ingress("back") == ["10.0.0.71"]).context("the status follows")?;

    // Local traffic goes where there is an endpoint, and follows it.
    plane.create(SERVICES, &service("local", "10.0.0.80", &json!({"externalTrafficPolicy": "Local"})))?;
    plane.create(SLICES, &slice("local", &["node2"]))?;
    ensure!(cluster.answers("10.0.0.80")? == "node2");
    let elsewhere = slice("local", &["node1"]);
    plane.patch(&format!("{SLICES}/local-abc"), &json!({"endpoints": elsewhere["endpoints"]}))?;
    cluster.wait(1, "active for local traffic", |status| is_active(status, "10.0.0.80"))?;
    ensure!(cluster.answers("10.0.0.80")? == "node1");
    Ok(())
}

#[test]
fn a_cordoned_node_hands_over_without_losing_a_connection_and_preferences_are_heeded() -> Result<()> {
    if !is_full() {
        return Ok(());
    }
    let cluster = Cluster::start(&json!({}))?;
    let node = |number: u8| format!("/api/v1/nodes/node{number}");
    let prefer = |priority: &str| json!({"metadata": {"annotations": {"viplane.dev/priority": priority}}});
    cluster.plane.patch(&node(1), &prefer("200"))?;
    cluster.plane.create(MAP, &map(&json!({"10.0.0.50": ""})))?;
    cluster.wait(1, "active", |status| is_active(status, "10.0.0.50"))?;
    cluster.wait(2, "a unicast peer", |status| status["instances"][0]["peers"][0]["priority"] == 200)?;
    let load = cluster.lab.requests().every(ms(5)).start()?;
    cluster.plane.patch(&node(1), &json!({"spec": {"unschedulable": true}}))?;
    cluster.wait(2, "active", |status| is_active(status, "10.0.0.50"))?;
    cluster.plane.patch(&node(1), &json!({"spec": {"unschedulable": null}}))?;
    cluster.wait(1, "active again", |status| is_active(status, "10.0.0.50"))?;
    let lost = load.stop().lost().count();
    ensure!(lost == 0, "{lost} requests were lost");
    // One that is excluded takes no part at all.
    cluster.plane.patch(&node(1), &json!({"metadata": {"labels": {"viplane.dev/exclude": ""}}}))?;
    cluster.wait(1, "out", |status| vips(status).is_empty())?;
    ensure!(cluster.answers("10.0.0.50")? == "node2");
    Ok(())
}

#[test]
fn without_the_api_server_vips_fail_over_and_restarted_agents_come_up() -> Result<()> {
    if !is_full() {
        return Ok(());
    }
    let mut cluster = Cluster::start(&json!({}))?;
    cluster.plane.create(MAP, &map(&json!({"10.0.0.50": ""})))?;
    let owner = cluster.answers("10.0.0.50")?;
    let (owner, other) = if owner == "node1" { (1, 2) } else { (2, 1) };
    cluster.wait(other, "backup", |status| status["instances"][0]["state"] == "backup")?;
    cluster.plane.stop_api_server()?;
    cluster.agents[owner - 1].crash()?;
    cluster.wait(other, "active", |status| is_active(status, "10.0.0.50"))?;
    ensure!(cluster.answers("10.0.0.50")? == format!("node{other}"));
    // Both start anew while nobody tells them anything.
    cluster.agents[other - 1].crash()?;
    for number in [1, 2] {
        cluster.agents[number - 1] = cluster.agent(number, &json!({}))?.start()?;
    }
    cluster.answers("10.0.0.50")?;
    let status = cluster.wait(1, "by what was last known", |status| !vips(status).is_empty())?;
    ensure!(status["kubernetes"]["in_sync"] == false, "{status}");
    // When it is back, they follow it again.
    cluster.plane.start_api_server()?;
    cluster.plane.patch(&format!("{MAP}/vip-configmap"), &json!({"data": {"10.0.0.53": ""}}))?;
    cluster.answers("10.0.0.53")?;
    cluster.wait(1, "in sync", |status| status["kubernetes"]["in_sync"] == true)?;
    Ok(())
}

#[test]
fn a_process_that_dies_or_hangs_loses_nobodys_connection_and_catches_up() -> Result<()> {
    if !is_full() {
        return Ok(());
    }
    let cluster = Cluster::start(&json!({}))?;
    cluster.plane.create(MAP, &map(&json!({"10.0.0.50": ""})))?;
    let owner = if cluster.answers("10.0.0.50")? == "node1" { 1 } else { 2 };
    let in_sync = |former: Option<i64>| {
        move |status: &Value| {
            let kubernetes = &status["kubernetes"];
            let pid = kubernetes["pid"].as_i64();
            kubernetes["in_sync"] == true && pid.is_some() && pid != former
        }
    };
    let pid = |status: &Value| -> Result<i64> { status["kubernetes"]["pid"].as_i64().context("a process") };
    let signal =
        |pid: i64, signal| kill(Pid::from_raw(i32::try_from(pid)?), signal).context("signal vip-kube");
    let first = pid(&cluster.wait(owner, "in sync", in_sync(None))?)?;
    let load = cluster.lab.requests().every(ms(5)).start()?;
    signal(first, Signal::SIGKILL)?;
    let second = pid(&cluster.wait(owner, "in sync by another process", in_sync(Some(first)))?)?;
    signal(second, Signal::SIGSTOP)?;
    // The other node hears of it.
    cluster.plane.patch(&format!("{MAP}/vip-configmap"), &json!({"data": {"10.0.0.53": ""}}))?;
    cluster.wait(3 - owner, "told", |status| vips(status).contains(&"10.0.0.53".to_owned()))?;
    let deaf = cluster.agents[owner - 1].status()?.raw;
    ensure!(is_active(&deaf, "10.0.0.50") && !vips(&deaf).contains(&"10.0.0.53".to_owned()), "{deaf}");
    signal(second, Signal::SIGCONT)?;
    cluster.wait(owner, "active for both", |status| {
        is_active(status, "10.0.0.50") && is_active(status, "10.0.0.53")
    })?;
    ensure!(cluster.answers("10.0.0.53")? == format!("node{owner}"));
    let lost = load.stop().lost().count();
    ensure!(lost == 0, "{lost} requests were lost");
    Ok(())
}

#[test]
fn a_permission_that_is_missing_is_named() -> Result<()> {
    if !is_full() {
        return Ok(());
    }
    let mut cluster = Cluster::start(&json!({}))?;
    cluster.plane.create(MAP, &map(&json!({"10.0.0.50": ""})))?;
    cluster.answers("10.0.0.50")?;
    // Somebody whom no role names.
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.plane.create(accounts, &json!({"metadata": {"name": "nobody"}}))?;
    let request = json!({"spec": {"expirationSeconds": 3600}});
    let token = cluster.plane.create(&format!("{accounts}/nobody/token"), &request)?;
    let token = token["status"]["token"].as_str().context("a token")?.to_owned();
    let builder = cluster.agent(1, &json!({}))?;
    let node = cluster.lab.node(1);
    node.write_file(node.file_path("kubeconfig"), cluster.plane.kubeconfig_for(&token))?;
    cluster.agents[0].crash()?;
    cluster.agents[0] = builder.start()?;
    let denied = |status: &Value| {
        let troubles = status["kubernetes"]["troubles"].to_string();
        ["services", "nodes", "configmaps"]
            .iter()
            .all(|resource| troubles.contains(&format!("watch {resource}")))
    };
    let status = cluster.wait(1, "told what it may not", denied)?;
    ensure!(vips(&status) == ["10.0.0.50"], "what was last known stays: {status}");
    Ok(())
}
