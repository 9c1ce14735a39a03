//! Metrics: from what the agent knows at one moment to the text that a Prometheus scrapes. Pure.
//!
//! Not by the crate prometheus-client: it writes OpenMetrics only, which many scrapers and `promtool check metrics` do not
//! read, and it wants to hold the values, which are the driver's, the program's and the tracker's own here.

pub mod families;
mod histogram;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use vip_common::reason::Reason;

pub use self::families::{Family, Kind};
pub use self::histogram::{Histogram, SharedHistogram};
pub use self::text::Format;
use self::text::Text;
use crate::dataplane::XdpMode;
use crate::vrrp::discard::Discard;
use crate::vrrp::driver::AdvertCounts;
use crate::vrrp::machine::State;

/// What is rendered: all counters count from the agent's start and outlive reloads.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The agent's version.
    pub version: &'static str,
    /// The node's name.
    pub node: String,
    /// Whether the configuration that runs is what the file said when it was read last.
    pub config_current: bool,
    /// When it was applied, as a Unix time.
    pub config_applied: Duration,
    /// In the order of the configuration.
    pub instances: Vec<Instance>,
    /// Changes of state by instance, state after and cause.
    pub transitions: Transitions,
    /// Of takeovers.
    pub phases: PhaseTimes,
    /// Of the driver's timers.
    pub lateness: Histogram,
    /// Of all instances, those that are gone included.
    pub adverts: AdvertCounts,
    /// In the order of the configuration.
    pub probes: Vec<Probe>,
    /// By interface and reason.
    pub packets: BTreeMap<(String, Reason), u64>,
    /// In the order of the configuration.
    pub services: Vec<Service>,
    /// By kind.
    pub alarms: BTreeMap<String, u64>,
    /// How the program is attached, by interface.
    pub attached: BTreeMap<String, XdpMode>,
}

/// Changes of state by instance, state after ([`state_name`]) and cause.
pub type Transitions = BTreeMap<(String, &'static str, String), u64>;

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// For how long this node answers without another advertisement; `None`: the driver did not say.
    pub lease: Option<Duration>,
}

/// How long the phases of takeovers took ([`crate::vrrp::driver::Phases`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the phase of its name")]
pub struct PhaseTimes {
    pub detect: Histogram,
    pub decide: Histogram,
    pub flip: Histogram,
    pub announce: Histogram,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// The verdict.
    pub up: bool,
    /// How long probing took the last time; `None`: nothing was asked, as of probes that are told.
    pub took: Option<Duration>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// By the backends' addresses; what went to none has an empty one.
    pub backends: BTreeMap<String, Counted>,
    /// Its packets by what became of them.
    pub outcomes: BTreeMap<&'static str, u64>,
}

/// What was counted of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets that went to it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that it has; `None`: it can have none.
    pub flows: Option<u64>,
}

const STATES: [(State, &str); 5] = [
    (State::Initialize, "initialize"),
    (State::Backup, "backup"),
    (State::Active, "active"),
    (State::Draining, "draining"),
    (State::Fault, "fault"),
];

/// The word for a state, as in status.
pub fn state_name(state: State) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("unknown", |(_, name)| name)
}

/// The text of a snapshot.
pub fn render(snapshot: &Snapshot, format: Format) -> String {
    let mut text = Text::new(format);
    text.family(&families::BUILD_INFO).whole([snapshot.version, &snapshot.node], 1);
    text.family(&families::CONFIG_CURRENT).whole([], u64::from(snapshot.config_current));
    text.family(&families::CONFIG_APPLIED).seconds([], snapshot.config_applied);
    instances(&mut text, snapshot);
    takeovers(&mut text, snapshot);
    adverts(&mut text, &snapshot.adverts);
    probes(&mut text, &snapshot.probes);
    let mut packets = text.family(&families::XDP_PACKETS);
    for ((interface, reason), count) in &snapshot.packets {
        packets.whole([interface, reason.name()], *count);
    }
    services(&mut text, &snapshot.services);
    let mut alarms = text.family(&families::ALARMS);
    for (kind, count) in &snapshot.alarms {
        alarms.whole([kind], *count);
    }
    let mut modes = text.family(&families::XDP_MODE);
    for (interface, mode) in &snapshot.attached {
        modes.whole([interface, &mode.to_string()], 1);
    }
    text.finish()
}

fn services(text: &mut Text, services: &[Service]) {
    let all = || {
        services.iter().flat_map(|service| {
            service
                .backends
                .iter()
                .map(|(backend, counted)| (service.name.as_str(), backend.as_str(), counted))
        })
    };
    let mut packets = text.family(&families::SERVICE_PACKETS);
    for (service, backend, counted) in all() {
        packets.whole([service, backend], counted.packets);
    }
    let mut bytes = text.family(&families::SERVICE_BYTES);
    for (service, backend, counted) in all() {
        bytes.whole([service, backend], counted.bytes);
    }
    let mut flows = text.family(&families::SERVICE_FLOWS);
    for (service, backend, counted) in all() {
        if let Some(count) = counted.flows {
            flows.whole([service, backend], count);
        }
    }
    let mut outcomes = text.family(&families::SERVICE_OUTCOMES);
    for service in services {
        for (outcome, count) in &service.outcomes {
            outcomes.whole([&service.name, outcome], *count);
        }
    }
}

fn instances(text: &mut Text, snapshot: &Snapshot) {
    let mut states = text.family(&families::INSTANCE_STATE);
    for Instance { name, state, .. } in &snapshot.instances {
        for (known, word) in STATES {
            states.whole([name, word], u64::from(known == *state));
        }
    }
    let mut transitions = text.family(&families::TRANSITIONS);
    for ((instance, to, cause), count) in &snapshot.transitions {
        transitions.whole([instance, to, cause], *count);
    }
    let mut leases = text.family(&families::LEASE);
    for Instance { name, lease, .. } in &snapshot.instances {
        if let Some(lease) = lease {
            leases.seconds([name], *lease);
        }
    }
}

fn takeovers(text: &mut Text, snapshot: &Snapshot) {
    let PhaseTimes { detect, decide, flip, announce } = &snapshot.phases;
    let mut phases = text.family(&families::TAKEOVER_PHASE);
    for (phase, times) in [("detect", detect), ("decide", decide), ("flip", flip), ("announce", announce)] {
        phases.histogram([phase], times);
    }
    text.family(&families::TIMER_LATENESS).histogram([], &snapshot.lateness);
}

/// Every result, also those that did not occur: an alert on what was never there finds nothing.
fn adverts(text: &mut Text, counts: &AdvertCounts) {
    let mut adverts = text.family(&families::ADVERTS);
    adverts.whole(["sent", "ok"], counts.sent);
    adverts.whole(["sent", "refused"], counts.refused);
    adverts.whole(["received", "ok"], counts.received);
    for &why in Discard::ALL {
        adverts.whole(["received", why.name()], counts.discarded.of(why));
    }
}

fn probes(text: &mut Text, probes: &[Probe]) {
    let mut up = text.family(&families::PROBE_UP);
    for probe in probes {
        up.whole([&probe.name], u64::from(probe.up));
    }
    let mut durations = text.family(&families::PROBE_DURATION);
    for probe in probes {
        if let Some(took) = probe.took {
            durations.seconds([&probe.name], took);
        }
    }
}
