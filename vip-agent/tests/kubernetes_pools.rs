//! VipPools and VirtualIPs on a real API server: what is allocated is answered, once, whoever leads.

#[path = "support/agents.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::{Conversation, SOON, binary, times, vip_kube};
use vip_control_plane::ControlPlane;
use vip_control_plane::commands::CRDS;
use vip_lab::Lab;
use vip_lab::agent::Agent;
use vip_lab::wait::until;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const POOLS: &str = "/apis/viplane.dev/v1alpha1/vippools";
const VIRTUAL_IPS: &str = "/apis/viplane.dev/v1alpha1/namespaces/default/virtualips";
/// Of a change of leaders: it is known after 15 s that one is gone.
const LEADER: Duration = Duration::from_secs(60);

/// Two nodes with web servers, a client, and a control plane that knows our kinds.
struct Cluster {
    agents: Vec<Agent>,
    plane: ControlPlane,
    lab: Lab,
}

impl Cluster {
    /// `keys`: more of `kubernetes`, by node.
    fn start(keys: [Value; 2]) -> Result<Self> {
        vip_kube()?;
        let lab = Lab::builder().nodes(2).clients(2).vips(["10.0.0.50"]).web().build()?;
        let plane = ControlPlane::on(&lab.clients()[1]).start()?;
        for kind in ["vippools", "virtualips"] {
            let file = format!("{}/../deploy/chart/crds/{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
            let definition: Value = serde_saphyr::from_str(&std::fs::read_to_string(file)?)?;
            plane.create(CRDS, &definition)?;
        }
        until(SOON, || plane.get(POOLS).is_ok() && plane.get(VIRTUAL_IPS).is_ok())
            .context("our kinds are served")?;
        for node in lab.nodes() {
            plane.create(
                "/api/v1/nodes",
                &json!({"metadata": {"name": node.name(), "labels": {"node": node.name()}}}),
            )?;
            let addresses = [node.ipv4().to_string(), node.ipv6().to_string()];
            let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
            let status = json!({"status": {"addresses": addresses}});
            plane.patch(&format!("/api/v1/nodes/{}/status", node.name()), &status)?;
        }
        let mut agents = Vec::new();
        for (number, more) in (1..).zip(keys) {
            let kubeconfig = lab.node(number).file_path("kubeconfig");
            lab.node(number).write_file(&kubeconfig, plane.kubeconfig())?;
            let mut kubernetes = json!({"kubeconfig": kubeconfig, "load_balancer_class": "any"});
            let more = more.as_object().cloned().unwrap_or_default();
            more.into_iter().for_each(|(key, value)| kubernetes[key] = value);
            let agent =
                lab.agent(number, binary()).set("kubernetes", kubernetes).set("interface", json!("eth0"));
            agents.push(agent.bare().start()?);
        }
        Ok(Self { agents, plane, lab })
    }

    fn pool(&self, name: &str, spec: &Value) -> Result<()> {
        let pool = json!({
            "apiVersion": "viplane.dev/v1alpha1", "kind": "VipPool", "metadata": {"name": name}, "spec": spec,
        });
        self.plane.create(POOLS, &pool).map(drop)
    }

    /// A Service of type LoadBalancer, which a local listener serves: there is no kube-proxy here.
    fn service(&self, name: &str) -> Result<()> {
        let service = json!({
            "metadata": {"name": name, "annotations": {"viplane.dev/local-address": "active"}},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "web"}},
        });
        self.plane.create(SERVICES, &service).map(drop)
    }

    /// Waits for what an object says.
    fn wait(
        &self,
        path: &str,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        until(within, || {
            last = self.plane.get(path).unwrap_or_default();
            wanted(&last)
        })
        .with_context(|| {
            let logs: Vec<String> = self.agents.iter().map(Agent::log).collect();
            format!("{path}: not {what}: {last:#}\n{}", logs.join("\n---\n"))
        })?;
        Ok(last)
    }

    /// Waits until a Service is said to have an address; that.
    fn address(&self, service: &str) -> Result<String> {
        let path = format!("{SERVICES}/{service}");
        let of =
            |object: &Value| object["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned);
        let object = self.wait(&path, "with an address", SOON, |object| of(object).is_some())?;
        of(&object).context("an address")
    }

    /// Waits until a web server answers behind a VIP; its node's name.
    fn answers(&self, vip: &str) -> Result<String> {
        let mut answer = None;
        until(SOON, || {
            answer = Conversation::open(self.lab.client(), vip)
                .and_then(|mut conversation| conversation.ask())
                .ok();
            answer.is_some()
        })
        .with_context(|| format!("nobody answers for {vip}"))?;
        answer.context("an answer")
    }
}

/// Who has which address, by the status of a pool.
fn given(pool: &Value) -> BTreeMap<String, String> {
    let all = pool["status"]["assignments"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.iter().map(|one| (text(&one["name"]), text(&one["address"]))).collect()
}

fn is_so(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|one| one["type"] == kind && one["status"] == "True")
}

/// Building the control plane takes minutes, and starting it seconds: tests of it belong to the long suites.
fn is_full() -> bool {
    times(0, 1) == 1
}

#[test]
fn a_service_is_given_an_address_that_answers_and_gives_it_back() -> Result<()> {
    if !is_full() {
        return Ok(());
    }
    let cluster = Cluster::start([json!({}), json!({})])?;
    // What its schema refuses.
    for spec in [
        json!({}),
        json!({"addresses": []}),
        json!({"addresses": ["ten"]}),
        json!({"addresses": ["10.0.0.70"], "autoAssign": "yes"}),
    ] {
        ensure!(cluster.pool("refused", &spec).is_err(), "{spec}");
    }
    for spec in [
        json!({}),
        json!({"pool": "edge", "address": "10.0.0.90"}),
        json!({"pool": "edge", "localAddress": "often"}),
    ] {
        let object = json!({"apiVersion": "viplane.dev/v1alpha1", "kind": "VirtualIP", "metadata": {"name": "refused"}, "spec": spec});
        ensure!(cluster.plane.create(VIRTUAL_IPS, &object).is_err(), "{spec}");
    }
    cluster.pool("edge", &json!({"addresses": ["10.0.0.70-10.0.0.71"]}))?;
    cluster.service("a")?;
    let first = cluster.address("a")?;
    cluster.answers(&first)?;
    cluster.service("b")?;
    let second = cluster.address("b")?;
    cluster.answers(&second)?;
    ensure!(first != second, "{first} twice");
    // There is no third one.
    let edge = format!("{POOLS}/edge");
    let pool = cluster.wait(&edge, "exhausted", SOON, |pool| is_so(pool, "Exhausted"))?;
    ensure!(pool["status"]["allocated"] == 2 && pool["status"]["available"] == 0, "{pool:#}");
    cluster.service("c")?;
    let waits = || {
        cluster.agents[0].status().is_ok_and(|status| {
            status.raw["kubernetes"].to_string().contains("VipPool edge has no free address")
        })
    };
    until(SOON, waits).context("whoever waits is told")?;
    cluster.plane.delete(&format!("{SERVICES}/a"))?;
    ensure!(cluster.address("c")? == first, "what was freed goes to who waited");
    cluster.answers(&first)?;
    // The pool stays until its last address is back.
    cluster.plane.delete(&edge)?;
    cluster.plane.delete(&format!("{SERVICES}/b"))?;
    cluster.answers(&first)?;
    cluster.plane.delete(&format!("{SERVICES}/c"))?;
    until(SOON, || cluster.plane.get(&edge).is_err()).context("a pool without holders can go")?;
    Ok(())
}

#[test]
fn a_virtual_ip_is_owned_where_it_may_be_and_says_by_whom() -> Result<()> {
    if !is_full() {
        return Ok(());
    }
    let cluster = Cluster::start([json!({}), json!({})])?;
    cluster.pool("edge", &json!({"addresses": ["10.0.0.80/31"], "autoAssign": false}))?;
    let virtual_ip = |name: &str, spec: Value| {
        let object = json!({
            "apiVersion": "viplane.dev/v1alpha1", "kind": "VirtualIP", "metadata": {"name": name}, "spec": spec,
        });
        cluster.plane.create(VIRTUAL_IPS, &object)
    };
    virtual_ip("pooled", json!({"pool": "edge", "nodeSelector": {"node": "node2"}}))?;
    virtual_ip("written", json!({"address": "10.0.0.90"}))?;
    let path = |name: &str| format!("{VIRTUAL_IPS}/{name}");
    let pooled = cluster.wait(&path("pooled"), "ready", SOON, |object| is_so(object, "Ready"))?;
    ensure!(pooled["status"]["node"] == "node2" && pooled["status"]["address"] == "10.0.0.80", "{pooled:#}");
    ensure!(cluster.answers("10.0.0.80")? == "node2");
    let written = cluster.wait(&path("written"), "ready", SOON, |object| is_so(object, "Ready"))?;
    ensure!(written["status"]["node"] == json!(cluster.answers("10.0.0.90")?), "{written:#}");
    // A younger one that wants the same is told on itself.
    virtual_ip("rival", json!({"address": "10.0.0.80"}))?;
    cluster.wait(&path("rival"), "in conflict", SOON, |object| is_so(object, "Conflict"))?;
    let told = |object: &str, reason: &str| {
        let events =
            cluster.plane.get("/apis/events.k8s.io/v1/namespaces/default/events").unwrap_or_default();
        let events = events["items"].as_array().cloned().unwrap_or_default();
        events.iter().any(|event| event["regarding"]["name"] == object && event["reason"] == reason)
    };
    until(SOON, || told("rival", "Conflict") && told("pooled", "Active")).context("Events")?;
    // The pool knows, too.
    let edge = format!("{POOLS}/edge");
    cluster.wait(&edge, "told of the owner", SOON, |pool| {
        pool["status"]["owners"][0]["node"] == "node2"
            && pool["status"]["owners"][0]["address"] == "10.0.0.80"
    })?;
    // Another node is to own it.
    cluster.plane.patch(&path("pooled"), &json!({"spec": {"nodeSelector": {"node": "node1"}}}))?;
    cluster.wait(&path("pooled"), "node1's", SOON, |object| object["status"]["node"] == "node1")?;
    ensure!(cluster.answers("10.0.0.80")? == "node1");
    // It stays until its address is back.
    cluster.plane.delete(&path("pooled"))?;
    until(SOON, || cluster.plane.get(&path("pooled")).is_err()).context("it is gone")?;
    let pool = cluster.plane.get(&edge)?;
    ensure!(given(&pool).is_empty(), "{pool:#}");
    Ok(())
}

/// By different Leases, so that both believe to lead, one of them killed and started anew again and again.
#[test]
fn two_leaders_in_the_middle_of_allocation_give_no_address_twice() -> Result<()> {
    if !is_full() {
        return Ok(());
    }
    let elsewhere = json!({"configmap": "default/vip-configmap"});
    let cluster = Cluster::start([json!({}), elsewhere])?;
    cluster.pool("edge", &json!({"addresses": ["10.0.1.0/28"]}))?;
    // A second pool that overlaps, while allocation is under way.
    let (edge, wide) = (format!("{POOLS}/edge"), format!("{POOLS}/wide"));
    for n in 0..24 {
        cluster.service(&format!("s{n}"))?;
        if n == 8 {
            cluster.pool("wide", &json!({"addresses": ["10.0.1.8-10.0.1.23"]}))?;
        }
        if n % 6 == 5 {
            let agent = &cluster.agents[n / 6 % 2];
            let mut process = None;
            // It was killed before, and is started again after a pause.
            until(SOON, || {
                process = agent.status().ok().and_then(|status| status.raw["kubernetes"]["pid"].as_i64());
                process.is_some()
            })
            .context("a process")?;
            let process = i32::try_from(process.context("a process")?)?;
            kill(Pid::from_raw(process), Signal::SIGKILL).context("kill vip-kube")?;
        }
        ensure!(twice(&[cluster.plane.get(&edge)?, cluster.plane.get(&wide).unwrap_or_default()]).is_empty());
    }
    let all = || -> Result<[Value; 2]> { Ok([cluster.plane.get(&edge)?, cluster.plane.get(&wide)?]) };
    cluster.wait(&edge, "exhausted", LEADER, |pool| is_so(pool, "Exhausted"))?;
    cluster.wait(&wide, "in conflict with the older one", LEADER, |pool| is_so(pool, "Conflict"))?;
    // They have no address in common any more: what is left is given by the second one.
    cluster.plane.patch(&wide, &json!({"spec": {"addresses": ["10.0.1.16-10.0.1.23"]}}))?;
    let has_all = |pools: &[Value; 2]| pools.iter().map(|pool| given(pool).len()).sum::<usize>() == 24;
    until(LEADER, || all().is_ok_and(|pools| has_all(&pools))).with_context(|| format!("{:#?}", all()))?;
    ensure!(twice(&all()?).is_empty(), "{:#?}", all()?);
    // Both Leases are held.
    for namespace in ["kube-system", "default"] {
        let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/viplane-allocator");
        ensure!(cluster.plane.get(&lease)?["spec"]["holderIdentity"].is_string());
    }
    Ok(())
}

/// Addresses that two have.
fn twice(pools: &[Value]) -> Vec<String> {
    let mut all: Vec<String> = pools.iter().flat_map(given).map(|(_, address)| address).collect();
    all.sort();
    all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect()
}
