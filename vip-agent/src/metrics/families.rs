//! Every metric: name, type, unit, labels, meaning. docs/metrics.md says the same, as a test makes sure.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows, while the agent runs.
    Counter,
    /// A distribution.
    Histogram,
    /// Always 1; what counts are its labels.
    Info,
}

/// A metric and all its samples.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// As samples have it; of a histogram, without `_bucket` and the like.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// Of its values, where the name ends with it (OpenMetrics wants that).
    pub unit: Option<&'static str>,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident $kind:ident $name:literal $unit:expr, $labels:expr, $help:literal;)*) => {
        $(pub(super) const $constant: Family =
            Family { name: $name, kind: Kind::$kind, unit: $unit, labels: &$labels, help: $help };)*

        /// All of them, in the order in which they are shown.
        pub const ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD_INFO Info "viplane_build_info" None, ["version", "node"],
        "The agent's version, and its name for this node.";
    CONFIG_CURRENT Gauge "viplane_config_current" None, [],
        "1 if the configuration that runs is what the file said when it was read last, 0 if that was refused.";
    CONFIG_APPLIED Gauge "viplane_config_applied_timestamp_seconds" Some("seconds"), [],
        "When the configuration that runs was applied, as a Unix time.";
    INSTANCE_STATE Gauge "viplane_instance_state" None, ["instance", "state"],
        "1 for the state that the instance is in, 0 for the others.";
    TRANSITIONS Counter "viplane_transitions_total" None, ["instance", "to", "cause"],
        "Changes of state, by the state after and the cause.";
    LEASE Gauge "viplane_lease_seconds" Some("seconds"), ["instance"],
        "For how long this node will answer for the VIPs without another advertisement of its own; 0: it does not answer.";
    TAKEOVER_PHASE Histogram "viplane_takeover_phase_seconds" Some("seconds"), ["phase"],
        "How long each phase of becoming Active took: detect, decide, flip, announce.";
    TIMER_LATENESS Histogram "viplane_timer_lateness_seconds" Some("seconds"), [],
        "How late the VRRP driver acted on timers of instances and sync groups.";
    ADVERTS Counter "viplane_adverts_total" None, ["direction", "result"],
        "Advertisements sent and received, by what became of them: ok, refused (not accepted for sending), or why discarded.";
    PROBE_UP Gauge "viplane_probe_up" None, ["probe"],
        "1 if the probe's verdict is up, 0 if it is down.";
    PROBE_DURATION Gauge "viplane_probe_duration_seconds" Some("seconds"), ["probe"],
        "How long probing took the last time.";
    XDP_PACKETS Counter "viplane_xdp_packets_total" Some("packets"), ["interface", "reason"],
        "Packets about VIPs that the XDP program saw, by what it did and why.";
    SERVICE_PACKETS Counter "viplane_service_packets_total" Some("packets"), ["service", "backend"],
        "Packets to services, by the backend that they went to; those that went to none have an empty one.";
    SERVICE_BYTES Counter "viplane_service_bytes_total" Some("bytes"), ["service", "backend"],
        "The same in bytes, from the IP header on.";
    SERVICE_FLOWS Gauge "viplane_service_flows" None, ["service", "backend"],
        "Flows that the backend has, as they were counted last (every few seconds).";
    SERVICE_OUTCOMES Counter "viplane_service_outcomes_total" None, ["service", "outcome"],
        "Packets to services, by what became of them.";
    ALARMS Counter "viplane_alarms_total" None, ["kind"],
        "Alarms raised, repeated ones included.";
    XDP_MODE Gauge "viplane_xdp_mode" None, ["interface", "mode"],
        "1 for each interface that the XDP program is attached to, by how: driver or skb.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_as_the_formats_want_it() {
        for family in ALL {
            let Family { name, kind, unit, .. } = family;
            assert!(name.starts_with("viplane_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), *kind == Kind::Info, "{name}");
            if let Some(unit) = unit {
                assert!(name.trim_end_matches("_total").ends_with(&format!("_{unit}")), "{name}");
            }
        }
    }
}
