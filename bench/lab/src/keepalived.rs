//! keepalived on a node: a peer that is not ours.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::Node;
use crate::process::Process;
use crate::wait::until;

/// The most VIPs that a VRRP advert can list; keepalived owns further ones without listing them.
const MOST_ADVERTISED: usize = 255;
/// Long enough for a machine with few, busy cores.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// In lower case: what keepalived 2.2.7 says of adverts that it does not like (and of a bad configuration).
const COMPLAINTS: [&str; 16] = [
    "bogus",
    "configuration error",
    "conflict",
    "duplicate",
    "equal priority advert received from remote host with our ip",
    "expect",
    "icast packet",
    "incomplete",
    "invalid",
    "mismatch",
    "not a unicast peer",
    "not in range",
    "not present in master advert",
    "packet too",
    "too short",
    "unknown vrid",
];

/// A configuration of keepalived: VRRPv3, VRID 51, priority 100, 1 s adverts, initial state BACKUP, preempting, multicast,
/// and the lab's VIPs (one VRRP instance per family), unless said otherwise.
#[derive(Clone, Debug)]
pub struct KeepalivedBuilder {
    node: Node,
    peers: Vec<Node>,
    vips: Vec<(IpAddr, u8)>,
    /// Further instances: virtual router id and VIPs.
    others: Vec<(u8, Vec<(IpAddr, u8)>)>,
    version: u8,
    state: &'static str,
    priority: u8,
    interval: Duration,
    vrid: u8,
    unicast: bool,
    virtual_mac: bool,
    preempt: bool,
    log_detail: bool,
    global_lines: String,
    scripts: String,
    instance_lines: String,
    more_instances: String,
}

/// One `vrrp_instance`.
struct Instance<'a> {
    name: String,
    vrid: u8,
    vips: Vec<&'a (IpAddr, u8)>,
}

/// A running keepalived: a parent and its VRRP child. Killed on drop.
#[derive(Debug)]
pub struct Keepalived {
    builder: KeepalivedBuilder,
    parent: Process,
    child: Pid,
}

// === impl KeepalivedBuilder ===

impl KeepalivedBuilder {
    pub(crate) fn new(node: Node, vips: Vec<(IpAddr, u8)>, peers: Vec<Node>) -> Self {
        Self {
            node,
            peers,
            vips,
            others: Vec::new(),
            version: 3,
            state: "BACKUP",
            priority: 100,
            interval: Duration::from_secs(1),
            vrid: 51,
            unicast: false,
            virtual_mac: false,
            preempt: true,
            log_detail: true,
            global_lines: String::new(),
            scripts: String::new(),
            instance_lines: String::new(),
            more_instances: String::new(),
        }
    }

    /// 2 or 3.
    pub fn version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// `auth_type PASS` with this password, of 1-8 letters and digits (version 2).
    pub fn password(self, password: &str) -> Self {
        self.each_instance(&format!(
            "authentication {{\n        auth_type PASS\n        auth_pass {password}\n    }}"
        ))
    }

    /// Starts as MASTER: sends adverts at once.
    pub fn starts_active(mut self) -> Self {
        self.state = "MASTER";
        self
    }

    /// 1-255.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Steps of 10 ms (version 3), or whole seconds.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// 1-255.
    pub fn vrid(mut self, vrid: u8) -> Self {
        self.vrid = vrid;
        self
    }

    /// Unicast to all other nodes of the lab.
    pub fn unicast(mut self) -> Self {
        self.unicast = true;
        self
    }

    /// Holds the VIPs on macvlan interfaces with the virtual MACs (`use_vmac`).
    pub fn virtual_mac(mut self) -> Self {
        self.virtual_mac = true;
        self
    }

    /// Does not take over from a lower priority.
    pub fn nopreempt(mut self) -> Self {
        self.preempt = false;
        self
    }

    /// Does not log each frame that it sends: with many VIPs that is most of what it does.
    pub fn terse(mut self) -> Self {
        self.log_detail = false;
        self
    }

    /// Other VIPs than the lab's, with prefix lengths.
    pub fn vips(mut self, vips: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        self.vips = vips.into_iter().collect();
        self
    }

    /// One more virtual router, with everything else as the first.
    pub fn also(mut self, vrid: u8, vips: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        self.others.push((vrid, vips.into_iter().collect()));
        self
    }

    /// A line for `global_defs`, such as `vrrp_skip_check_adv_addr`.
    pub fn global(mut self, line: &str) -> Self {
        self.global_lines.push_str(&format!("    {line}\n"));
        self
    }

    /// A line for every `vrrp_instance`, such as `garp_master_delay 1`, `use_vmac` or `accept`.
    pub fn each_instance(mut self, line: &str) -> Self {
        self.instance_lines.push_str(&format!("    {line}\n"));
        self
    }

    /// A `vrrp_script` that every instance tracks, run each second (keepalived takes no fraction of one), with `fall 2` and
    /// `rise 2`: a file that is executable.
    pub fn track(mut self, name: &str, script: &Path) -> Self {
        let script = script.display();
        self.scripts.push_str(&format!(
            "vrrp_script {name} {{\n    script {script}\n    interval 1\n    fall 2\n    rise 2\n}}\n"
        ));
        self.global("script_user root").each_instance(&format!("track_script {{\n        {name}\n    }}"))
    }

    /// One more `vrrp_instance`, written out; [`Keepalived::wait_state`] does not look at it.
    pub fn instance(mut self, text: &str) -> Self {
        self.more_instances.push_str(text);
        self
    }

    /// The configuration file.
    pub fn config(&self) -> String {
        let mut text = format!(
            "global_defs {{\n    router_id {}\n    vrrp_version {}\n{}}}\n",
            self.node.name(),
            self.version,
            self.global_lines
        );
        text.push_str(&self.scripts);
        for instance in self.instances() {
            self.write_instance(&mut text, &instance);
        }
        text.push_str(&self.more_instances);
        text
    }

    fn instances(&self) -> Vec<Instance<'_>> {
        let others = self.others.iter().map(|(vrid, vips)| (format!("_{vrid}"), *vrid, vips));
        let routers = std::iter::once((String::new(), self.vrid, &self.vips)).chain(others);
        let by_family = routers.flat_map(|(suffix, vrid, vips)| {
            let (ipv4, ipv6): (Vec<_>, Vec<_>) = vips.iter().partition(|(vip, _)| vip.is_ipv4());
            [("VI_4", ipv4), ("VI_6", ipv6)].map(|(family, vips)| Instance {
                name: format!("{family}{suffix}"),
                vrid,
                vips,
            })
        });
        by_family.filter(|instance| !instance.vips.is_empty()).collect()
    }

    fn write_instance(&self, text: &mut String, instance: &Instance<'_>) {
        let Instance { name, vrid, vips } = instance;
        let Self { state, priority, .. } = self;
        let seconds = self.interval.as_secs_f64();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "vrrp_instance {name} {{\n    state {state}\n    interface eth0\n    virtual_router_id {vrid}\n    \
             priority {priority}\n    advert_int {seconds}\n{}",
            self.instance_lines
        );
        if self.virtual_mac {
            text.push_str("    use_vmac\n");
        }
        if !self.preempt {
            text.push_str("    nopreempt\n");
        }
        if self.unicast {
            let family = vips[0].0;
            let peers: Vec<String> =
                self.peers.iter().map(|peer| peer.address_like(family).to_string()).collect();
            let source = self.node.address_like(family);
            let _ =
                write!(text, "    unicast_src_ip {source}\n    unicast_peer {{ {} }}\n", peers.join("\n"));
        }
        let (listed, further) = vips.split_at(vips.len().min(MOST_ADVERTISED));
        for (block, vips) in [("virtual_ipaddress", listed), ("virtual_ipaddress_excluded", further)] {
            if vips.is_empty() {
                continue;
            }
            let _ = writeln!(text, "    {block} {{");
            for (vip, prefix) in vips {
                // Without a name they go to the instance's interface: the macvlan, where there is one.
                let device = if self.virtual_mac { "" } else { " dev eth0" };
                let _ = writeln!(text, "        {vip}/{prefix}{device}");
            }
            text.push_str("    }\n");
        }
        text.push_str("}\n");
    }

    /// Writes the configuration, starts keepalived and waits for its VRRP child.
    ///
    /// # Errors
    /// keepalived is missing or refuses the configuration: with its log.
    pub fn start(self) -> Result<Keepalived> {
        if self.virtual_mac {
            // As keepalived's notes on VMACs have it: or the interface below the macvlan answers for its addresses, and asks
            // in their name.
            self.node.set_sysctl("net.ipv4.conf.eth0.arp_ignore", 1)?;
            self.node.set_sysctl("net.ipv4.conf.eth0.arp_announce", 2)?;
        }
        let config = self.node.file_path("keepalived.conf");
        self.node.write_file(&config, self.config())?;
        let [pid_file, child_pid_file] =
            ["keepalived.pid", "keepalived-vrrp.pid"].map(|name| self.node.file_path(name));
        // After a crash keepalived would take the dead child, as long as nobody has reaped it, for a running one.
        self.node.command("rm").arg("-f").args([&pid_file, &child_pid_file]).read()?;
        let parent = self
            .node
            .command("keepalived")
            .args(["--dont-fork", "--log-console", "--vrrp"])
            .args(self.log_detail.then_some("--log-detail"))
            .arg("--use-file")
            .arg(&config)
            .arg("--pid")
            .arg(&pid_file)
            .arg("--vrrp_pid")
            .arg(&child_pid_file)
            .spawn("keepalived")?;
        let child = wait_for_child(&parent, &child_pid_file)?;
        Ok(Keepalived { builder: self, parent, child })
    }
}

// === impl Keepalived ===

impl Keepalived {
    /// The node it runs on.
    pub fn node(&self) -> &Node {
        self.parent.node()
    }

    /// Its parent process: TERM it to stop keepalived in good order.
    pub fn process(&self) -> &Process {
        &self.parent
    }

    /// The VRRP child's process id.
    pub fn child(&self) -> Pid {
        self.child
    }

    /// What it was started from, to start it again.
    pub fn builder(&self) -> KeepalivedBuilder {
        self.builder.clone()
    }

    /// Sends a signal to the parent.
    ///
    /// # Errors
    /// It has exited.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.parent.signal(signal)
    }

    /// Kills parent and child at once, as a crash of the machine would: no priority 0, and the VIPs stay on `eth0`.
    ///
    /// # Errors
    /// It has exited.
    pub fn crash(&self) -> Result<()> {
        // The child asks for SIGTERM when the parent dies, the parent restarts a dead child: both stand still first.
        self.parent.signal(Signal::SIGSTOP)?;
        kill(self.child, Signal::SIGSTOP).context("stop keepalived's VRRP child")?;
        kill(self.child, Signal::SIGKILL).context("kill keepalived's VRRP child")?;
        self.parent.kill()
    }

    /// Waits until the VRRP child has ended, of whatever cause.
    ///
    /// # Errors
    /// It still runs after `timeout`.
    pub fn wait_child_end(&self, timeout: Duration) -> Result<()> {
        let ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child)).unwrap_or_default();
            // Not there, or a zombie that nobody has reaped yet.
            stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
        };
        until(timeout, ended)
            .with_context(|| format!("keepalived's VRRP child still runs\n{}", self.parent.last_words()))
    }

    /// Stops it in good order (SIGTERM: priority 0, VIPs removed) and waits for its end.
    ///
    /// # Errors
    /// It still runs after ten seconds.
    pub fn stop(&self) -> Result<()> {
        self.parent.signal(Signal::SIGTERM)?;
        self.parent.wait(START_TIMEOUT).map(drop)
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        self.parent.log()
    }

    /// The lines of its log that complain about adverts it received.
    pub fn complaints(&self) -> Vec<String> {
        let complains = |line: &&str| {
            let line = line.to_lowercase();
            COMPLAINTS.iter().any(|complaint| line.contains(complaint))
        };
        self.log().lines().filter(complains).map(str::to_owned).collect()
    }

    /// Waits until all of its instances have last logged that they entered `MASTER`, `BACKUP` or `FAULT`.
    ///
    /// # Errors
    /// They have not after `timeout`: with the log.
    pub fn wait_state(&self, state: &str, timeout: Duration) -> Result<()> {
        let instances = self.builder.instances();
        until(timeout, || {
            let log = self.log();
            instances.iter().all(|instance| last_state(&log, &instance.name) == Some(state))
        })
        .with_context(|| {
            format!("{}: keepalived is not {state}\n{}", self.node().name(), self.parent.last_words())
        })
    }
}

/// What the last line like `(VI_4) Entering MASTER STATE` says.
fn last_state<'a>(log: &'a str, instance: &str) -> Option<&'a str> {
    let marker = format!("({instance}) Entering ");
    let line = log.lines().rfind(|line| line.contains(&marker))?;
    line.split(&marker).nth(1)?.split_whitespace().next()
}

fn wait_for_child(parent: &Process, pid_file: &Path) -> Result<Pid> {
    let mut child = None;
    let started = until(START_TIMEOUT, || {
        let pid = parent.node().read_file(pid_file).ok().and_then(|pid| pid.trim().parse().ok());
        child = pid.map(Pid::from_raw);
        child.is_some() || !parent.is_running()
    });
    started.ok().and(child).with_context(|| {
        format!(
            "{}: keepalived did not start (is it installed?)\n{}",
            parent.node().name(),
            parent.last_words()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transition_is_the_state() {
        let log = "Tue (VI_4) Entering BACKUP STATE (init)\nTue (VI_6) Entering BACKUP STATE\nTue (VI_4) Entering MASTER STATE\n";
        assert_eq!(last_state(log, "VI_4"), Some("MASTER"));
        assert_eq!(last_state(log, "VI_6"), Some("BACKUP"));
        assert_eq!(last_state(log, "VI_7"), None);
    }
}
