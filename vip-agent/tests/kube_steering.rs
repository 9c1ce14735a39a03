//! Services of a cluster that are steered: an API server's stand-in, agents in network namespaces, real servers and clients.
//!
//! How soon an endpoint that comes or goes is in the kernel's tables, and what memory thousands of Services take, are printed by the
//! long tests: `VIPLANE_FULL=1 cargo test --release -p vip-agent --test kube_steering -- --test-threads=1 --nocapture`.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/steered.rs"]
mod steered;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use agents::{Ask as _, Conversation, SOON, binary, ms, times, vip_kube};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use serde_json::{Value, json};
use vip_api_server::ApiServer;
use vip_api_server::objects::{NODES, SERVICES, SLICES, node, service, slice};
use vip_common::steering::tables::{Backend, MAX_BACKENDS, backend_flags};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, wait};

const VIP: &str = "10.0.0.50";

/// Agents on nodes 1 and 2, servers on 3 and 4 which have the VIP, and an API server beside the client.
struct Cluster {
    agents: Vec<Agent>,
    server: ApiServer,
    lab: Lab,
}

impl Cluster {
    /// An API server that knows the nodes, and no agent.
    fn new() -> Result<Self> {
        vip_kube()?;
        let lab = Lab::builder().nodes(4).clients(2).vips([VIP]).web().checksum_offload(false).build()?;
        let place = lab.clients()[1].clone();
        let listener =
            place.run(|| TcpListener::bind("0.0.0.0:6443")).context("a port for the API server")?;
        let server = ApiServer::serve(listener)?;
        for number in [1, 2] {
            let one = lab.node(number);
            server.put(NODES, node(one.name(), &[one.ipv4().into(), one.ipv6().into()]));
        }
        Ok(Self { agents: Vec::new(), server, lab })
    }

    /// `keys`: more of `kubernetes`.
    fn agent(&self, number: usize, keys: &Value) -> Result<AgentBuilder> {
        let node = self.lab.node(number);
        let kubeconfig = node.file_path("kubeconfig");
        let own = self.server.kubeconfig().replace("0.0.0.0", &self.lab.clients()[1].ipv4().to_string());
        node.write_file(&kubeconfig, own)?;
        let mut kubernetes = json!({"kubeconfig": kubeconfig});
        let more = keys.as_object().into_iter().flatten();
        more.for_each(|(key, value)| kubernetes[key] = value.clone());
        let state_dir = json!(node.file_path("state"));
        let agent = self.lab.agent(number, binary()).set("kubernetes", kubernetes);
        Ok(agent.set("state_dir", state_dir).set("interface", json!("eth0")).bare())
    }

    fn start(&mut self, number: usize, keys: &Value) -> Result<()> {
        let agent = self.agent(number, keys)?.start()?;
        self.agents.push(agent);
        Ok(())
    }

    /// The endpoints of `web`: servers on these nodes.
    fn serve_by(&self, numbers: &[usize]) {
        let endpoint = |number: &usize| (self.lab.node(*number).ipv4().into(), "elsewhere", true);
        let endpoints: Vec<_> = numbers.iter().map(endpoint).collect();
        self.server.put(SLICES, slice("web", 80, &endpoints));
    }

    /// Who answers new connections of the client.
    fn answering(&self, connections: usize) -> Result<BTreeSet<String>> {
        let ask = |_| Conversation::open(self.lab.client(), VIP)?.ask();
        (0..connections).map(ask).collect()
    }
}

/// Backends of the first service that are up: those that are leaving excluded.
fn serving(status: &Value) -> BTreeSet<String> {
    let backends = status["services"][0]["backends"].as_array().cloned().unwrap_or_default();
    let serves = |backend: &&Value| backend["up"] == true && backend["weight"] != 0;
    let settled = status["services"][0]["reason"].is_null();
    let address = |backend: &Value| backend["address"].as_str().unwrap_or_default().to_owned();
    if settled { backends.iter().filter(serves).map(address).collect() } else { BTreeSet::new() }
}

fn is_active(status: &Value) -> bool {
    status["instances"][0]["state"] == "active"
}

fn by_mode(name: &str, mode: &str) -> Value {
    service(name, &json!({"viplane.dev/vips": VIP, "viplane.dev/mode": mode}))
}

#[test]
fn endpoints_answer_behind_the_vip_as_they_come_and_go_and_when_the_owner_dies() -> Result<()> {
    let mut cluster = Cluster::new()?;
    steered::hold_vips(&cluster.lab, &[3, 4])?;
    for number in [1, 2] {
        cluster.start(number, &json!({}))?;
    }
    // None was there when the agents gave up the privilege to load what it takes.
    cluster.server.put(SERVICES, by_mode("web", "dr"));
    cluster.serve_by(&[3, 4]);
    for agent in &cluster.agents {
        agent.wait_for("steering to both", |status| serving(status).len() == 2)?;
    }
    let mut owner = None;
    wait::until(SOON, || {
        owner =
            cluster.agents.iter().position(|agent| agent.status().is_ok_and(|status| is_active(&status.raw)));
        owner.is_some()
    })?;
    let owner = owner.context("an owner")?;
    let both: BTreeSet<String> = ["node3", "node4"].map(str::to_owned).into();
    let only: BTreeSet<String> = ["node3".to_owned()].into();
    ensure!(cluster.answering(40)? == both);
    let status = cluster.agents[owner].status()?.raw;
    let steered = &status["services"][0];
    ensure!(steered["name"] == "kube-default.web-10.0.0.50" && steered["mode"] == "dr", "{steered}");

    // Who talks to an endpoint that goes, talks on; nobody else gets there.
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut conversation = Conversation::open(cluster.lab.client(), VIP)?;
        open.push((conversation.ask()?, conversation));
    }
    cluster.serve_by(&[3]);
    for agent in &cluster.agents {
        agent.wait_for("steering to one", |status| serving(status).len() == 1)?;
    }
    ensure!(cluster.answering(30)? == only);
    for (who, conversation) in &mut open {
        ensure!(conversation.ask()? == *who, "a connection went to another endpoint");
    }
    ensure!(open.iter().any(|(who, _)| who == "node4"), "nobody talked to the endpoint that went");

    cluster.agents[owner].crash()?;
    let heir = &cluster.agents[1 - owner];
    heir.wait_for("active", is_active)?;
    ensure!(cluster.answering(10)? == only);
    cluster.serve_by(&[3, 4]);
    heir.wait_for("steering to both again", |status| serving(status).len() == 2)?;
    ensure!(cluster.answering(40)? == both);
    Ok(())
}

#[test]
fn nothing_is_loaded_and_who_asks_is_told_where_steering_is_off() -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.server.put(SERVICES, by_mode("web", "nat"));
    cluster.serve_by(&[3]);
    cluster.start(1, &json!({}))?;
    cluster.start(2, &json!({"steering": false}))?;
    let told = |status: &Value| status["kubernetes"]["objects"].to_string().contains("kubernetes.steering");
    let status = cluster.agents[1].wait_for("told of the key", told)?;
    let object = &status["kubernetes"]["objects"][0];
    ensure!(object["object"] == "Service default/web" && object["reason"] == "Pending", "{object}");
    ensure!(status["services"].as_array().is_some_and(Vec::is_empty), "{status}");
    // The other one says what it cannot reach in this mode.
    let out = |status: &Value| !status["services"][0]["backends"][0]["reason"].is_null();
    let steers = cluster.agents[0].wait_for("told why a backend is out", out)?;
    ensure!(steers["services"][0]["mode"] == "nat", "{steers}");
    let maps = |status: &Value| status["map_memory"].as_u64().unwrap_or_default() >> 20;
    println!("maps: {} MiB with steering, {} MiB without", maps(&steers), maps(&status));
    ensure!(maps(&steers) > maps(&status) + 30, "{} and {} MiB", maps(&steers), maps(&status));
    Ok(())
}

// === many ===

/// Of Services that are steered: as many as the shards have room for, rounded.
const MANY: u16 = 1000;

/// Service `sNUMBER` at a VIP of its own; steered, if so wanted.
fn numbered(number: u16, steered: bool) -> Value {
    let [high, low] = number.to_be_bytes();
    let mut annotations = json!({"viplane.dev/vips": format!("10.1.{high}.{low}")});
    if steered {
        annotations["viplane.dev/mode"] = json!("nat");
    }
    let mut made = service(&format!("s{number}"), &annotations);
    // By their numbers: older ones have the room that there is.
    let time = format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3600, number / 60 % 60, number % 60);
    made["metadata"]["creationTimestamp"] = json!(time);
    made
}

/// An endpoint of it.
fn endpoint(number: u16, which: u8) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 128 + which, high, low).into()
}

/// Its endpoints: these three.
fn three(number: u16, which: [u8; 3]) -> Value {
    slice(&format!("s{number}"), 8080, &which.map(|which| (endpoint(number, which), "node1", true)))
}

impl Cluster {
    /// An agent with as many Services, whose endpoints are all on its node.
    fn with_services(count: u16, steered: u16) -> Result<Self> {
        let mut cluster = Self::new()?;
        cluster.lab.node(1).ip("route add local 10.128.0.0/9 dev lo")?;
        cluster.server.put_all(SERVICES, (1..=count).map(|n| numbered(n, n <= steered)));
        cluster.server.put_all(SLICES, (1..=count).map(|n| three(n, [1, 2, 3])));
        cluster.start(1, &json!({}))?;
        let begun = Instant::now();
        let in_place = || -> Result<bool> {
            let status = cluster.agents[0].status()?.raw;
            let services = status["services"].as_array().cloned().unwrap_or_default();
            let settled = services.iter().all(|service| {
                let backends = service["backends"].as_array().cloned().unwrap_or_default();
                service["reason"].is_null()
                    && backends.iter().filter(|backend| backend["up"] == true).count() == 3
            });
            Ok(status["kubernetes"]["in_sync"] == true && services.len() == usize::from(steered) && settled)
        };
        // Asking costs the agent a look at each backend's counters.
        let ask = || {
            std::thread::sleep(ms(500));
            in_place().unwrap_or(false)
        };
        wait::until(Duration::from_secs(60), ask)
            .with_context(|| format!("{count} Services\n{}", cluster.agents[0].log()))?;
        println!(
            "{count} Services, {steered} of them steered: in place {:?} after the agent's start",
            begun.elapsed()
        );
        Ok(cluster)
    }
}

/// The backends in the kernel, as the agent's descriptor shows them.
struct Backends(Array<MapData, [u8; size_of::<Backend>()]>);

impl Backends {
    fn of(agent: &Agent) -> Result<Self> {
        let (pid, most) = (agent.process().pid(), format!("max_entries:\t{MAX_BACKENDS}"));
        let size = format!("value_size:\t{}\n", size_of::<Backend>());
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
            if text.contains(&most) && text.contains(&size) && text.contains("map_type:\t2\n") {
                let id = text.lines().find_map(|line| line.strip_prefix("map_id:")).context("a map's id")?;
                let data = MapData::from_id(id.trim().parse()?)?;
                return Ok(Self(Array::try_from(Map::Array(data))?));
            }
        }
        anyhow::bail!("the agent has no map of backends");
    }

    fn slot(&self, slot: u32) -> Result<Backend> {
        Ok(bytemuck::pod_read_unaligned(&self.0.get(&slot, 0)?))
    }

    /// The slot in which an address takes new flows.
    fn find(&self, address: IpAddr) -> Result<Option<u32>> {
        let IpAddr::V4(address) = address else { return Ok(None) };
        for slot in 1..MAX_BACKENDS {
            let backend = self.slot(slot)?;
            if backend.address[..4] == address.octets() && serves(&backend) {
                return Ok(Some(slot));
            }
            if backend.generation == 0 && backend.family == 0 {
                break;
            }
        }
        Ok(None)
    }
}

fn serves(backend: &Backend) -> bool {
    backend.is(backend_flags::UP) && !backend.is(backend_flags::DRAINING)
}

/// What a share of measurements is at most.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}

#[test]
fn an_endpoint_that_changes_is_in_the_kernels_tables_soon() -> Result<()> {
    let rounds = times(0, 300);
    if rounds == 0 {
        return Ok(());
    }
    let cluster = Cluster::with_services(MANY, MANY)?;
    let backends = Backends::of(&cluster.agents[0])?;
    let (mut took, mut twice) = (Vec::new(), 0);
    for round in 0..rounds {
        let step = u16::try_from(round)?;
        let number = 1 + step.wrapping_mul(37) % MANY;
        let generation = u8::try_from(round / usize::from(MANY))?;
        let (old, new) = (endpoint(number, 3 + generation), 4 + generation);
        let slot = backends.find(old)?.with_context(|| format!("round {round}: {old} is not there"))?;
        // Not in step with anything of the agent's.
        std::thread::sleep(ms(20 + u64::from(step * 13 % 60)));
        let begun = Instant::now();
        cluster.server.put(SLICES, three(number, [1, 2, new]));
        // The last thing that is written: by then rings lead to the new one, if its route was known.
        let late = || format!("round {round}: {old} serves on\n{}", cluster.agents[0].log());
        while serves(&backends.slot(slot)?) {
            ensure!(begun.elapsed() < SOON, late());
            std::thread::sleep(Duration::from_micros(200));
        }
        let gone = begun.elapsed();
        let is_there = || Ok::<_, anyhow::Error>(backends.find(endpoint(number, new))?.is_some());
        if is_there()? {
            took.push(gone);
            continue;
        }
        twice += 1;
        while !is_there()? {
            ensure!(begun.elapsed() < SOON, late());
        }
        took.push(begun.elapsed());
    }
    took.sort();
    let [p50, p90, p99, most] = [0.5, 0.9, 0.99, 1.0].map(|share| quantile(&took, share));
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "{MANY} Services ({build}): from the API server to the kernel's tables, {rounds} changes of an endpoint: p50 {p50:?}, p90 {p90:?}, \
         p99 {p99:?}, max {most:?}; written twice for want of a route: {twice}"
    );
    Ok(())
}

/// `VmRSS` and the like of a process, in KiB.
fn memory(pid: i64, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse()?)
}

#[test]
fn thousands_of_services_take_little_memory() -> Result<()> {
    if times(0, 1) == 0 {
        return Ok(());
    }
    // 2040 VIPs have room in the virtual routers without local addresses.
    for (count, steered, limit) in [(100, 0, 32), (100, 100, 32), (5000, 100, 96), (5000, 2000, 96)] {
        let cluster = Cluster::with_services(count, steered)?;
        for which in 4..24 {
            cluster.server.put(SLICES, three(1, [1, 2, which]));
            std::thread::sleep(ms(50));
        }
        let status = cluster.agents[0].status()?.raw;
        let pids = [
            cluster.agents[0].process().pid().as_raw().into(),
            status["kubernetes"]["pid"].as_i64().context("vip-kube")?,
        ];
        let of = |field| -> Result<[u64; 2]> { Ok([memory(pids[0], field)?, memory(pids[1], field)?]) };
        let ([agent, kube], [own, kube_own]) = (of("VmRSS")?, of("RssAnon")?);
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        println!(
            "{count} Services, {steered} steered ({build}): vip-agent {agent} KiB resident ({own} its own), vip-kube {kube} KiB ({kube_own}), \
             together {} KiB; maps {} KiB",
            agent + kube,
            status["map_memory"].as_u64().unwrap_or_default() / 1024
        );
        let all = if cfg!(debug_assertions) { own + kube_own } else { agent + kube };
        ensure!(all < limit * 1024, "{all} KiB with {count} Services, {steered} of them steered");
    }
    Ok(())
}
