//! `vip-agent` on a node: its configuration, its process, its status.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::node::Node;
use crate::process::{NodeCommand, Process};
use crate::wait::until;

/// A configuration and how to run it: one instance `edge`, VRID 51, priority 100, 1 s adverts, multicast, and the lab's
/// VIPs, unless said otherwise; what is not said here is the agent's own default.
#[derive(Clone, Debug)]
pub struct AgentBuilder {
    node: Node,
    binary: PathBuf,
    peers: Vec<Node>,
    top: Map<String, Value>,
    instance: Map<String, Value>,
    more_instances: Vec<Value>,
    extra_yaml: String,
    arguments: Vec<String>,
    without_capabilities: Vec<String>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
}

/// A running (or stopped, or dead) agent. Killed on drop.
#[derive(Debug)]
pub struct Agent {
    builder: AgentBuilder,
    process: Process,
}

/// What `vip-agent status --json` says, as far as the lab reads it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The agent's name of its node.
    pub node: String,
    /// One per configured instance.
    pub instances: Vec<InstanceStatus>,
    /// What needs an administrator.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// All of it.
    #[serde(skip)]
    pub raw: Value,
}

/// One instance in [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// initialize, backup, active, draining or fault.
    pub state: String,
    /// Why not active.
    pub reason: Option<String>,
    /// Whether the dataplane answers for its VIPs now.
    #[serde(default)]
    pub owned: bool,
    /// What is left of the lease, in milliseconds.
    pub lease_ms: Option<f64>,
    /// Who is Active, as far as known.
    pub active_router: Option<IpAddr>,
    /// When it entered that state: RFC 3339, to the microsecond.
    pub since: String,
    /// Changes of state since the start.
    #[serde(default)]
    pub transitions: u64,
    /// driver or generic (skb).
    pub xdp_mode: Option<String>,
    /// Phases of the last takeover.
    pub last_takeover: Option<Takeover>,
}

/// Phases of a takeover, in microseconds.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
pub struct Takeover {
    /// What caused it.
    pub cause: String,
    /// Last advert (or probe failure, or signal) to its notice by the agent.
    pub detect_us: f64,
    /// Notice to the machine's decision.
    pub decide_us: f64,
    /// Decision to the stored word.
    pub flip_us: f64,
    /// Stored word to the first announcements sent.
    pub announce_us: f64,
}

/// One alarm in [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct Alarm {
    /// `foreign_owner` and the like.
    pub kind: String,
    /// The instance it is about.
    pub instance: Option<String>,
    /// The VIP it is about.
    pub address: Option<IpAddr>,
    /// The other node's MAC address.
    pub mac: Option<String>,
    /// How often.
    #[serde(default)]
    pub count: u64,
}

/// The `vip-agent` that a benchmark measures: the one that was named, or else the one beside the running program.
///
/// # Errors
/// There is none; `how` completes the remedy "run this by ...".
pub fn binary_beside(given: Option<&Path>, how: &str) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe().context("cannot find the path of this program")?;
    let beside = own.with_file_name("vip-agent");
    if !beside.exists() {
        bail!("there is no {}: run this by {how}, or name it by --agent", beside.display());
    }
    Ok(beside)
}

// === impl AgentBuilder ===

impl AgentBuilder {
    pub(crate) fn new(node: Node, binary: &Path, vips: Vec<(IpAddr, u8)>, peers: Vec<Node>) -> Self {
        let as_map = |value: Value| if let Value::Object(map) = value { map } else { Map::new() };
        let vips: Vec<String> = vips.into_iter().map(|(vip, prefix)| format!("{vip}/{prefix}")).collect();
        Self {
            top: as_map(json!({ "node": node.name() })),
            instance: as_map(json!({
                "name": "edge", "virtual_router_id": 51, "interface": "eth0", "priority": 100, "vips": vips,
            })),
            more_instances: Vec::new(),
            // A relative path would be looked up where setpriv runs, which is here, but only as long as nobody moves.
            binary: std::path::absolute(binary).unwrap_or_else(|_| binary.to_owned()),
            node,
            peers,
            extra_yaml: String::new(),
            arguments: Vec::new(),
            without_capabilities: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// `priority`, 1-255.
    pub fn priority(self, priority: u8) -> Self {
        self.set_instance("priority", json!(priority))
    }

    /// `advert_interval`, whole milliseconds.
    pub fn interval(self, interval: Duration) -> Self {
        self.set_instance("advert_interval", milliseconds(interval))
    }

    /// `virtual_router_id`.
    pub fn vrid(self, vrid: u8) -> Self {
        self.set_instance("virtual_router_id", json!(vrid))
    }

    /// `vips`, each with or without a prefix length.
    pub fn vips<V: Into<String>>(self, vips: impl IntoIterator<Item = V>) -> Self {
        let vips: Vec<String> = vips.into_iter().map(Into::into).collect();
        self.set_instance("vips", json!(vips))
    }

    /// `unicast` to all other nodes of the lab, from this node's address of the first VIP's family.
    pub fn unicast(self) -> Self {
        let ipv6 = self.instance["vips"].get(0).and_then(Value::as_str).is_some_and(|vip| vip.contains(':'));
        let address = |node: &Node| if ipv6 { IpAddr::V6(node.ipv6()) } else { IpAddr::V4(node.ipv4()) };
        let peers: Vec<IpAddr> = self.peers.iter().map(address).collect();
        let source = address(&self.node);
        self.set_instance("unicast", json!({ "source": source, "peers": peers }))
    }

    /// `preempt`.
    pub fn preempt(self, preempt: bool) -> Self {
        self.set_instance("preempt", json!(preempt))
    }

    /// `local_address`: active, always or never.
    pub fn local_address(self, mode: &str) -> Self {
        self.set_instance("local_address", json!(mode))
    }

    /// `grace`, whole milliseconds.
    pub fn grace(self, grace: Duration) -> Self {
        self.set_instance("grace", milliseconds(grace))
    }

    /// `pin_dir: null`: nothing outlives the agent.
    pub fn unpinned(self) -> Self {
        self.set("pin_dir", Value::Null)
    }

    /// Any top-level key.
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.top.insert(key.to_owned(), value);
        self
    }

    /// Any key of the instance.
    pub fn set_instance(mut self, key: &str, value: Value) -> Self {
        self.instance.insert(key.to_owned(), value);
        self
    }

    /// One more instance, all its keys given.
    pub fn instance(mut self, instance: Value) -> Self {
        self.more_instances.push(instance);
        self
    }

    /// No instance but those of [`AgentBuilder::instance`].
    pub fn bare(mut self) -> Self {
        self.instance.clear();
        self
    }

    /// Text to append at the top level, as it is: for what must not pass a serializer.
    pub fn yaml(mut self, text: &str) -> Self {
        self.extra_yaml.push_str(text);
        self
    }

    /// An argument to `vip-agent run`, such as `--take-over`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Runs it without a capability, such as `sys_nice` (no real-time priority then) or `ipc_lock`.
    pub fn without_capability(mut self, capability: &str) -> Self {
        self.without_capabilities.push(format!("-{capability}"));
        self
    }

    /// Starts it by another program, which gets its command line appended: `["nice", "-n", "5"]`.
    pub fn under<W: Into<String>>(mut self, wrapper: impl IntoIterator<Item = W>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable, such as `RUST_LOG`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The configuration as the agent will read it.
    ///
    /// # Errors
    /// It cannot be written as YAML.
    pub fn config(&self) -> Result<String> {
        let mut top = self.top.clone();
        let first = (!self.instance.is_empty()).then(|| Value::Object(self.instance.clone()));
        let mut instances: Vec<Value> = first.into_iter().collect();
        instances.extend(self.more_instances.iter().cloned());
        top.insert("instances".to_owned(), Value::Array(instances));
        let mut yaml = serde_saphyr::to_string(&top).context("write the agent's configuration as YAML")?;
        yaml.push_str(&self.extra_yaml);
        Ok(yaml)
    }

    /// Where the configuration is written, in the node's own file system.
    pub fn config_path(&self) -> PathBuf {
        self.node.file_path("agent.yaml")
    }

    /// Writes the configuration without starting anything, for [`Agent::reload`] and `vip-agent check`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_config(&self) -> Result<()> {
        self.node.write_file(self.config_path(), self.config()?)
    }

    /// Any command of the binary in the node: `check FILE`, `cleanup`, `status`.
    pub fn command(&self, arguments: &[&str]) -> NodeCommand {
        self.node.command(&self.binary).args(arguments)
    }

    /// Writes the configuration and starts `vip-agent run`.
    ///
    /// # Errors
    /// The configuration or the log cannot be written. A missing binary shows in the log, and as exit status 127.
    pub fn start(self) -> Result<Agent> {
        self.write_config()?;
        let mut command = if let [program, arguments @ ..] = self.wrapper.as_slice() {
            self.node.command(program).args(arguments).arg(&self.binary)
        } else if self.without_capabilities.is_empty() {
            self.node.command(&self.binary)
        } else {
            let set = self.without_capabilities.join(",");
            self.node.command("setpriv").arg(format!("--bounding-set={set}")).arg("--").arg(&self.binary)
        };
        command = command.arg("run").arg("--config").arg(self.config_path()).args(&self.arguments);
        for (name, value) in &self.environment {
            command = command.env(name, value);
        }
        let process = command.spawn("agent")?;
        Ok(Agent { builder: self, process })
    }
}

// === impl Agent ===

impl Agent {
    /// The node it runs on.
    pub fn node(&self) -> &Node {
        self.process.node()
    }

    /// Its process: pid, signals, log, exit.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it was started from: to start it again, or to change the configuration and reload.
    pub fn builder(&self) -> AgentBuilder {
        self.builder.clone()
    }

    /// Sends a signal: TERM, KILL, STOP, CONT, HUP.
    ///
    /// # Errors
    /// It has exited.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills the agent alone, and waits until it is gone: its watcher tells the peers.
    ///
    /// # Errors
    /// It has exited.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Kills the agent and its watcher at one instant, as a crash of the machine would: nobody says a word.
    ///
    /// # Errors
    /// It has exited.
    pub fn crash(&self) -> Result<()> {
        self.process.kill_group()
    }

    /// The watcher's process, once it watches.
    ///
    /// # Errors
    /// There is none after `timeout`: with the log.
    pub fn wait_watcher(&self, timeout: Duration) -> Result<Pid> {
        let mut found = None;
        let there = until(timeout, || {
            let status = self.status().ok();
            let pid = status.and_then(|status| i32::try_from(status.raw["watcher"]["pid"].as_i64()?).ok());
            found = pid.map(Pid::from_raw);
            found.is_some()
        });
        there
            .ok()
            .and(found)
            .with_context(|| format!("{}: no watcher\n{}", self.node().name(), self.process().last_words()))
    }

    /// Whether it holds a limit for how deep idle CPUs may sleep.
    ///
    /// # Errors
    /// It is gone.
    pub fn keeps_cpus_ready(&self) -> Result<bool> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.process().pid()))?;
        let device = Path::new("/dev/cpu_dma_latency");
        Ok(open.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == device)))
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits for its exit.
    ///
    /// # Errors
    /// It still runs after `timeout`.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        self.process.wait(timeout)
    }

    /// Its own view of itself.
    ///
    /// # Errors
    /// It does not answer on its control socket, or says something else than the contract.
    pub fn status(&self) -> Result<Status> {
        let text = self.builder.command(&["status", "--json"]).read()?;
        let raw: Value = serde_json::from_str(&text).with_context(|| format!("read the status {text:?}"))?;
        let mut status = Status::deserialize(&raw).with_context(|| format!("read the status {raw}"))?;
        status.raw = raw;
        Ok(status)
    }

    /// Waits until every instance is in `state`, asking every 20 ms.
    ///
    /// # Errors
    /// They are not after `timeout`, or the agent has exited: with the last status and the log.
    pub fn wait_state(&self, state: &str, timeout: Duration) -> Result<Status> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.status();
            match &status {
                Ok(now) if now.instances.iter().all(|instance| instance.state == state) => return status,
                _ if Instant::now() > deadline || !self.process.is_running() => {
                    let name = self.node().name();
                    bail!(
                        "{name}: the agent is not {state} within {timeout:?}: {status:?}\n{}",
                        self.process().last_words()
                    );
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// `vip-agent drain`: returns when the VIPs have moved.
    ///
    /// # Errors
    /// What it said.
    pub fn drain(&self) -> Result<()> {
        self.builder.command(&["drain"]).read().map(drop)
    }

    /// `vip-agent undrain`.
    ///
    /// # Errors
    /// What it said.
    pub fn undrain(&self) -> Result<()> {
        self.builder.command(&["undrain"]).read().map(drop)
    }

    /// Writes the configuration of `changed` over this agent's and says `vip-agent reload`.
    ///
    /// # Errors
    /// Why the old configuration stays.
    pub fn reload(&self, changed: &AgentBuilder) -> Result<()> {
        changed.write_config()?;
        self.builder.command(&["reload"]).read().map(drop)
    }
}

fn milliseconds(span: Duration) -> Value {
    json!(format!("{}ms", span.as_millis()))
}
