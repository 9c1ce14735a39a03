//! The texts as a whole, and the page that documents them.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// One of everything.
fn snapshot() -> Snapshot {
    let mut phases = PhaseTimes::default();
    phases.detect.observe(Duration::from_millis(304));
    phases.flip.observe(Duration::from_micros(25));
    phases.flip.observe(Duration::from_micros(26));
    let mut adverts = AdvertCounts { sent: 7, received: 9, ..AdvertCounts::default() };
    adverts.discarded.add(Discard::BadTtl);
    Snapshot {
        version: "0.1.0",
        node: "node1".into(),
        config_current: true,
        config_applied: Duration::from_millis(1_780_000_000_500),
        instances: vec![
            Instance {
                name: "edge".into(),
                state: State::Active,
                lease: Some(Duration::from_micros(287_500)),
            },
            Instance { name: "rim".into(), state: State::Fault, lease: None },
        ],
        transitions: [(("edge".to_owned(), "active", "timeout".to_owned()), 3)].into(),
        phases,
        lateness: Histogram::default(),
        adverts,
        probes: vec![
            Probe { name: "ingress".into(), up: true, took: Some(Duration::from_millis(12)) },
            Probe { name: "uplink".into(), up: false, took: None },
        ],
        packets: [(("eth0".to_owned(), Reason::ArpAnswered), 41)].into(),
        services: vec![Service {
            name: "web".into(),
            backends: [
                (String::new(), Counted { packets: 2, bytes: 80, flows: None }),
                ("10.0.1.7".to_owned(), Counted { packets: 40, bytes: 4000, flows: Some(3) }),
            ]
            .into(),
            outcomes: [("steered", 40), ("rejected", 2)].into(),
        }],
        alarms: [("foreign_owner".to_owned(), 2)].into(),
        attached: [("eth0".to_owned(), XdpMode::Skb)].into(),
    }
}

/// The lines that speak of one family.
fn lines<'a>(text: &'a str, family: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.contains(family)).collect()
}

#[test]
fn each_format_has_its_own_names_types_and_end() {
    let [plain, open] = [Format::Prometheus, Format::OpenMetrics].map(|format| render(&snapshot(), format));
    let help = "Changes of state, by the state after and the cause.";
    let sample = "viplane_transitions_total{instance=\"edge\",to=\"active\",cause=\"timeout\"} 3";
    assert_eq!(
        lines(&plain, "viplane_transitions"),
        [
            "# TYPE viplane_transitions_total counter",
            &format!("# HELP viplane_transitions_total {help}"),
            sample
        ]
    );
    assert_eq!(
        lines(&open, "viplane_transitions"),
        ["# TYPE viplane_transitions counter", &format!("# HELP viplane_transitions {help}"), sample]
    );
    assert_eq!(lines(&plain, "viplane_build")[0], "# TYPE viplane_build_info gauge");
    assert_eq!(lines(&open, "viplane_build")[0], "# TYPE viplane_build info");
    assert_eq!(lines(&open, "viplane_build")[2], "viplane_build_info{version=\"0.1.0\",node=\"node1\"} 1");
    assert!(open.ends_with("\n# EOF\n") && !plain.contains("EOF"));
    let units: Vec<_> = open.lines().filter(|line| line.starts_with("# UNIT ")).collect();
    assert_eq!(
        units,
        [
            "# UNIT viplane_config_applied_timestamp_seconds seconds",
            "# UNIT viplane_lease_seconds seconds",
            "# UNIT viplane_takeover_phase_seconds seconds",
            "# UNIT viplane_timer_lateness_seconds seconds",
            "# UNIT viplane_probe_duration_seconds seconds",
            "# UNIT viplane_xdp_packets packets",
            "# UNIT viplane_service_packets packets",
            "# UNIT viplane_service_bytes bytes",
        ]
    );
    assert!(!plain.contains("# UNIT"));
}

#[test]
fn values_are_in_seconds_and_buckets_add_up() {
    let text = render(&snapshot(), Format::Prometheus);
    assert_eq!(
        lines(&text, "viplane_lease_seconds{"),
        ["viplane_lease_seconds{instance=\"edge\"} 0.287500000"]
    );
    assert_eq!(
        lines(&text, "probe_duration_seconds{"),
        ["viplane_probe_duration_seconds{probe=\"ingress\"} 0.012000000"]
    );
    let flip = lines(&text, "{phase=\"flip\"");
    assert_eq!(flip[0], "viplane_takeover_phase_seconds_bucket{phase=\"flip\",le=\"0.00001\"} 0");
    assert_eq!(flip[1], "viplane_takeover_phase_seconds_bucket{phase=\"flip\",le=\"0.000025\"} 1");
    assert_eq!(flip[2], "viplane_takeover_phase_seconds_bucket{phase=\"flip\",le=\"0.00005\"} 2");
    assert_eq!(
        flip[flip.len() - 3..],
        [
            "viplane_takeover_phase_seconds_bucket{phase=\"flip\",le=\"+Inf\"} 2",
            "viplane_takeover_phase_seconds_sum{phase=\"flip\"} 0.000051000",
            "viplane_takeover_phase_seconds_count{phase=\"flip\"} 2",
        ]
    );
    assert!(text.contains("\nviplane_timer_lateness_seconds_bucket{le=\"+Inf\"} 0\n"), "{text}");
}

#[test]
fn an_instance_has_one_state_out_of_five() {
    let text = render(&snapshot(), Format::Prometheus);
    let states = lines(&text, "viplane_instance_state{instance=\"edge\"");
    assert_eq!(states.len(), 5);
    let on: Vec<_> = states.into_iter().filter(|line| line.ends_with(" 1")).collect();
    assert_eq!(on, ["viplane_instance_state{instance=\"edge\",state=\"active\"} 1"]);
}

#[test]
fn packets_of_a_service_add_up_over_its_backends_and_none() {
    let text = render(&snapshot(), Format::Prometheus);
    assert_eq!(
        lines(&text, "viplane_service_packets_total{"),
        [
            "viplane_service_packets_total{service=\"web\",backend=\"\"} 2",
            "viplane_service_packets_total{service=\"web\",backend=\"10.0.1.7\"} 40",
        ]
    );
    assert_eq!(
        lines(&text, "viplane_service_flows{"),
        ["viplane_service_flows{service=\"web\",backend=\"10.0.1.7\"} 3"]
    );
    let rejected = "viplane_service_outcomes_total{service=\"web\",outcome=\"rejected\"} 2";
    assert!(lines(&text, "viplane_service_outcomes_total{").contains(&rejected));
}

#[test]
fn every_result_of_adverts_is_there_from_the_start() {
    let text = render(&Snapshot::default(), Format::OpenMetrics);
    for result in [
        "sent\",result=\"ok",
        "sent\",result=\"refused",
        "received\",result=\"ok",
        "received\",result=\"bad_ttl",
    ] {
        assert!(text.contains(&format!("viplane_adverts_total{{direction=\"{result}\"}} 0\n")), "{result}");
    }
}

#[test]
fn every_family_is_there_in_both_formats_even_without_samples() {
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let text = render(&Snapshot::default(), format);
        for family in families::ALL {
            let name = family.name.trim_end_matches("_total").trim_end_matches("_info");
            assert!(text.contains(&format!("# TYPE {name}")), "{}", family.name);
            assert!(text.contains(&format!("{}\n", family.help)), "{}", family.name);
        }
    }
}

#[test]
fn the_page_on_metrics_says_what_the_code_does() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `viplane_")).collect();
    let expected: Vec<String> = families::ALL.iter().map(|family| row(family)).collect();
    assert_eq!(rows, expected);
}

fn row(family: &Family) -> String {
    let kind = match family.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    };
    let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    let Family { name, unit, help, .. } = family;
    format!("| `{name}` | {kind} | {} | {} | {help} |", unit.unwrap_or(""), labels.join(", "))
}

proptest! {
    /// Whatever is in a name that somebody else chose: one sample stays one line, and its value the last word.
    #[test]
    fn no_name_breaks_a_line(name: String) {
        let mut snapshot = snapshot();
        snapshot.alarms = [(name, 5)].into();
        let text = render(&snapshot, Format::OpenMetrics);
        let alarms = lines(&text, "viplane_alarms_total{kind=");
        prop_assert_eq!(alarms.len(), 1);
        let ends = alarms[0].ends_with("\"} 5");
        prop_assert!(ends);
    }
}
