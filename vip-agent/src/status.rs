//! What `vip-agent status` shows: the JSON of the contract, and a table made of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The agent and everything that it looks after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The configuration that runs.
    #[serde(default)]
    pub configuration: ConfigurationStatus,
    /// Real-time scheduling of the driver thread: `fifo`, or why not.
    pub realtime: String,
    /// What says priority 0 in the agent's name should it die.
    pub watcher: WatcherStatus,
    /// The HTTP API; `None`: it is off.
    #[serde(default)]
    pub api: Option<ApiStatus>,
    /// The cluster whose objects make instances; `None`: none does.
    #[serde(default)]
    pub kubernetes: Option<KubernetesStatus>,
    /// Bytes of memory that the BPF maps take.
    pub map_memory: u64,
    /// In the order of the configuration.
    pub instances: Vec<InstanceStatus>,
    /// In the order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// What peers are told of the flows of services; `None`: nobody is told.
    #[serde(default)]
    pub flow_sync: Option<FlowSyncStatus>,
    /// What an operator should look at now.
    pub alarms: Vec<Alarm>,
    /// How often each kind of alarm was raised since the agent started.
    pub alarms_total: BTreeMap<String, u64>,
}

/// The exchange of flows with peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSyncStatus {
    /// Why nothing is said or heard, or why the tables are not read; `None`: all is well.
    pub reason: Option<String>,
    /// Flows that are told.
    pub flows: u64,
    /// Flows that are not, as there are too many.
    pub untold: u64,
    /// Changes of flows that were told, those told again included.
    pub told: u64,
    /// Flows of peers, by what became of them: `yes`, `own`, `unknown`, `taken`, `over`, `full`.
    pub noted: BTreeMap<String, u64>,
    /// Flows of peers that ended.
    pub gone: u64,
    /// Datagrams of nobody who is a peer and has a key.
    pub refused: u64,
    /// Datagrams that were recordings, doubles, or too late.
    pub stale: u64,
    /// In the order of their addresses.
    pub peers: Vec<FlowPeerStatus>,
}

/// A peer of the exchange of flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPeerStatus {
    /// Where it listens.
    pub address: IpAddr,
    /// Milliseconds since something of it was believed; `None`: nothing ever was.
    pub last_heard_ms: Option<u64>,
    /// Changes that it has not acknowledged yet.
    pub behind: u64,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// The file that a reload reads.
    pub file: PathBuf,
    /// When what runs was applied (RFC 3339).
    pub applied: String,
    /// Whether that is the last good configuration, because the file was broken at the start.
    pub last_good: bool,
    /// Why what runs is not what the file said when it was read last; `None`: it is.
    pub reason: Option<String>,
}

/// The process that watches over the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherStatus {
    /// Its process; `None` while there is none that watches.
    pub pid: Option<u32>,
    /// How often one was started.
    pub starts: u64,
    /// Why there is none, or what it lacks.
    pub reason: Option<String>,
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesStatus {
    /// Whether it comes from the API server, and not from what was last known.
    pub in_sync: bool,
    /// Process id of `vip-kube`, while it runs.
    #[serde(default)]
    pub pid: Option<u32>,
    /// What keeps the agent from following it.
    pub troubles: Vec<String>,
    /// Objects that do not get what they ask for.
    pub objects: Vec<ObjectStatus>,
}

/// An object in trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// As in `Service default/web`.
    pub object: String,
    /// `Conflict`, `Invalid`, `Pending` or `Exhausted`.
    pub reason: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiStatus {
    /// Where it is to listen.
    pub listen: SocketAddr,
    /// Why it does not.
    pub reason: Option<String>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// `initialize`, `backup`, `active`, `draining` or `fault`.
    pub state: String,
    /// Why it is not Active.
    pub reason: Option<String>,
    /// As configured.
    pub priority: u8,
    /// As advertised.
    pub effective_priority: u8,
    /// VRRP version, 2 or 3.
    pub version: u8,
    /// VRID.
    pub virtual_router_id: u8,
    /// Its VIPs.
    pub vips: Vec<IpAddr>,
    /// The owner's address: our own, or that of the last advertisement.
    pub active_router: Option<IpAddr>,
    /// When the machine decided on this state (RFC 3339, to the microsecond).
    pub since: String,
    /// Changes of state since the agent started.
    pub transitions: u64,
    /// Where VIPs are answered.
    pub interface: Option<String>,
    /// `driver` or `skb`.
    pub xdp_mode: Option<String>,
    /// Whether this node answers for the VIPs now.
    pub owned: bool,
    /// For how many milliseconds it will without another advertisement.
    pub lease_ms: u64,
    /// Other routers heard.
    pub peers: Vec<PeerStatus>,
    /// What it tracks, with what its sync group does.
    pub probes: Vec<ProbeStatus>,
    /// The last time that it became Active.
    pub last_takeover: Option<Takeover>,
    /// The last time that it gave the VIPs up, or lost them, or offered them.
    #[serde(default)]
    pub last_release: Option<Takeover>,
    /// Advertisements.
    pub adverts: AdvertStatus,
    /// By what adverts are signed; `None`: by nothing.
    pub auth_trailer: Option<AuthTrailerStatus>,
    /// Connections that were still open when the grace time after a handover ended.
    pub connections_cut: u64,
}

/// Another router of the same id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its address.
    pub address: IpAddr,
    /// As it advertised; 0 = it was leaving.
    pub priority: u8,
    /// Milliseconds since it was last heard.
    pub last_advert_ms: u64,
    /// How fast detection watches it; null if it does not: it owns nothing, or does not take part.
    #[serde(default)]
    pub detect: Option<DetectStatus>,
}

/// An owner that fast detection watches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectStatus {
    /// Milliseconds since its last heartbeat.
    pub last_ms: f64,
    /// How long its last answer took, in milliseconds.
    pub echo_ms: f64,
}

/// A probe that an instance tracks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Its name.
    pub name: String,
    /// The verdict.
    pub up: bool,
    /// Why it was not up when it was looked at last.
    pub last_error: Option<String>,
}

/// Signed adverts. Keys are named by ids that tell nothing of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthTrailerStatus {
    /// The key that signs.
    pub signing_key: String,
    /// All keys that are believed.
    pub accepted_keys: Vec<String>,
    /// Whether unsigned adverts are heard, too.
    pub accept_unsigned: bool,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its VIP.
    pub vip: IpAddr,
    /// `local`, `dr`, `nat`, `tunnel` or `proxy`.
    pub mode: String,
    /// `80/tcp`, `8000-8100/udp`, `all/sctp`.
    pub ports: Vec<String>,
    /// Why the program does not steer it as configured; null: it does.
    pub reason: Option<String>,
    /// Packets to it that this node saw as the owner.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub bytes: u64,
    /// Flows that were noted.
    pub new_flows: u64,
    /// Flows that are not over, as they were counted last: every few seconds.
    pub active_flows: u64,
    /// Its packets by what became of them.
    pub outcomes: BTreeMap<String, u64>,
    /// In the order of the configuration, and those that were removed and still have flows.
    pub backends: Vec<BackendStatus>,
}

/// One backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Where it is.
    pub address: IpAddr,
    /// Share of new flows; 0: it drains.
    pub weight: u16,
    /// Whether packets may go to it.
    pub up: bool,
    /// Why not, or why it gets no new flows.
    pub reason: Option<String>,
    /// Packets that went to it.
    pub packets: u64,
    /// Flows of it that are not over, as they were counted last.
    pub active_flows: u64,
}

/// What `vip-agent flows` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowList {
    /// The first of them, by VIP and client.
    pub flows: Vec<FlowStatus>,
    /// How many there are.
    pub total: usize,
}

/// A flow that the program has noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Its service.
    pub service: String,
    /// The service's VIP.
    pub vip: IpAddr,
    /// The port that the client sends to.
    pub vip_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The client.
    pub client: IpAddr,
    /// Its port.
    pub client_port: u16,
    /// Who serves it.
    pub backend: IpAddr,
    /// `opening`, `established` or `closing`.
    pub state: String,
    /// Seconds without a packet.
    pub idle_s: u64,
}

impl FlowList {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new(&["SERVICE", "PROTO", "CLIENT", "VIP", "BACKEND", "STATE", "IDLE"]);
        for flow in &self.flows {
            table.row(&[
                flow.service.clone(),
                flow.protocol.clone(),
                SocketAddr::new(flow.client, flow.client_port).to_string(),
                SocketAddr::new(flow.vip, flow.vip_port).to_string(),
                flow.backend.to_string(),
                flow.state.clone(),
                format!("{} s", flow.idle_s),
            ]);
        }
        let mut text = table.render();
        if self.total > self.flows.len() {
            let _ =
                writeln!(text, "and {} more: choose by --vip or --backend", self.total - self.flows.len());
        }
        text
    }
}

/// How long each step of a takeover took, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// What led to it.
    pub cause: String,
    /// The probe whose verdict did, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// The first of the answers that made that verdict -> the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict_us: Option<u64>,
    /// Last advertisement of the former owner (or the probe's last answer, or the signal) -> acted on.
    pub detect_us: u64,
    /// -> the machine returned.
    pub decide_us: u64,
    /// -> the ownership word was stored (the advertisement went out before it).
    pub flip_us: u64,
    /// -> the first announcements, or the priority 0 of one that gives up, were handed to the kernel.
    pub announce_us: u64,
}

/// Advertisements counted since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertStatus {
    /// Accepted for sending.
    pub sent: u64,
    /// Refused locally.
    pub refused: u64,
    /// Received and accepted.
    pub received: u64,
    /// Received and discarded.
    pub discarded: u64,
    /// The same by reason ([`crate::vrrp::discard::Discard::name`]); reasons that did not occur are left out.
    pub discarded_by: BTreeMap<String, u64>,
    /// Received and accepted, although something about them is an alarm, by reason.
    pub remarked_by: BTreeMap<String, u64>,
}

/// Something that is wrong around this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// `foreign_owner` (another answers ARP or neighbour discovery for a VIP that we own), or the name of what is wrong
    /// with another router's advertisements.
    pub kind: String,
    /// The instance concerned.
    pub instance: String,
    /// The VIP, or the other router's address.
    pub address: IpAddr,
    /// The other's MAC.
    pub mac: String,
    /// When it was first seen (RFC 3339).
    pub since: String,
    /// When it was last seen (RFC 3339); some time after that it leaves the list.
    pub last_seen: String,
    /// How often it was reported; floods are reported once a second at most.
    pub count: u64,
}

impl Status {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new(&[
            "INSTANCE",
            "STATE",
            "OWNER",
            "PRIO",
            "VRID",
            "INTERFACE",
            "LEASE",
            "SINCE",
            "VIPS",
        ]);
        for instance in &self.instances {
            let interface = instance.interface.as_deref().unwrap_or("-");
            let mode = instance.xdp_mode.as_deref().map(|mode| format!(" ({mode})")).unwrap_or_default();
            table.row(&[
                instance.name.clone(),
                instance.state.clone(),
                instance.active_router.map_or("-".into(), |owner| owner.to_string()),
                instance.effective_priority.to_string(),
                instance.virtual_router_id.to_string(),
                format!("{interface}{mode}"),
                if instance.owned { format!("{} ms", instance.lease_ms) } else { "-".into() },
                instance.since.clone(),
                summary(&instance.vips),
            ]);
        }
        let mut text = format!("node {}  vip-agent {}  pid {}\n\n", self.node, self.version, self.pid);
        text.push_str(&table.render());
        if let Some(reason) = &self.configuration.reason {
            let file = self.configuration.file.display();
            let _ = writeln!(text, "THE CONFIGURATION FILE {file} IS NOT IN FORCE: {reason}");
        }
        for instance in &self.instances {
            if let Some(reason) = &instance.reason {
                let _ = writeln!(text, "{}: {reason}", instance.name);
            }
        }
        let probes = self.instances.iter().flat_map(|instance| &instance.probes).filter(|probe| !probe.up);
        let mut down: Vec<_> = probes.collect();
        down.sort_by_key(|probe| &probe.name);
        down.dedup();
        for ProbeStatus { name, last_error, .. } in down {
            let _ = writeln!(
                text,
                "probe {name} is down: {}",
                last_error.as_deref().unwrap_or("not up for long enough")
            );
        }
        if let Some(kubernetes) = &self.kubernetes {
            if !kubernetes.in_sync {
                text.push_str("Kubernetes: served by what was last known\n");
            }
            for trouble in &kubernetes.troubles {
                let _ = writeln!(text, "Kubernetes: {trouble}");
            }
            for ObjectStatus { object, reason, message } in &kubernetes.objects {
                let _ = writeln!(text, "{object}: {reason}: {message}");
            }
        }
        if let Some(reason) = &self.watcher.reason {
            let _ = writeln!(text, "watcher: {reason}");
        }
        if let Some(ApiStatus { reason: Some(reason), .. }) = &self.api {
            let _ = writeln!(text, "HTTP API: {reason}");
        }
        self.services_in(&mut text);
        for alarm in &self.alarms {
            let Alarm { kind, instance, address, mac, since, last_seen, count } = alarm;
            let _ = writeln!(
                text,
                "ALARM {instance}: {kind} {address} by {mac}, {count} times since {since}, last {last_seen}"
            );
        }
        text
    }
}

impl Status {
    fn services_in(&self, text: &mut String) {
        if self.services.is_empty() {
            return;
        }
        let mut table = Table::new(&["SERVICE", "MODE", "VIP", "PORTS", "BACKENDS", "FLOWS", "PACKETS"]);
        for service in &self.services {
            let up = service.backends.iter().filter(|backend| backend.up).count();
            let backends = service.backends.len();
            table.row(&[
                service.name.clone(),
                service.mode.clone(),
                service.vip.to_string(),
                service.ports.join(" "),
                if backends == 0 { "-".into() } else { format!("{up}/{backends} up") },
                service.active_flows.to_string(),
                service.packets.to_string(),
            ]);
        }
        let _ = write!(text, "\n{}", table.render());
        for service in &self.services {
            if let Some(reason) = &service.reason {
                let _ = writeln!(text, "service {}: {reason}", service.name);
            }
            for backend in &service.backends {
                if let Some(reason) = &backend.reason {
                    let _ = writeln!(text, "service {}: {} {reason}", service.name, backend.address);
                }
            }
        }
    }
}

/// The first VIPs, and how many more there are: a table with 256 in a row helps nobody.
fn summary(vips: &[IpAddr]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = vips.iter().take(SHOWN).map(ToString::to_string).collect();
    match vips.len().saturating_sub(SHOWN) {
        0 => shown.join(" "),
        more => format!("{} +{more}", shown.join(" ")),
    }
}

/// Columns as wide as their widest cell.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(ToString::to_string).collect()] }
    }

    fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn render(&self) -> String {
        let columns = self.rows[0].len();
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_vips_are_summed_up() {
        let vips: Vec<IpAddr> = (1..=5).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        assert_eq!(summary(&vips), "10.0.0.1 10.0.0.2 10.0.0.3 +2");
        assert_eq!(summary(&vips[..1]), "10.0.0.1");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["A", "B"]);
        table.row(&["long".into(), "x".into()]);
        assert_eq!(table.render(), "A     B\nlong  x\n");
    }
}
