//! `detect` and its key, which nothing shows.

use std::time::Duration;

use vip_common::heartbeat::Key;

use super::super::{Config, CpuLatency, Problems, Secrets, effective, parse_with};
use super::{config, edge, edge_and, errors};

const KEY: [u8; 16] = [0x5e; 16];

/// With a key file that holds [`KEY`].
fn read(text: &str) -> Result<Config, Problems> {
    let secrets = Secrets { detect_key_file: &|_| Ok(Key::new(KEY)), ..Secrets::NONE };
    parse_with(text, "file.yaml", "this-node", &secrets).map(|(config, _)| config)
}

#[test]
fn nothing_is_detected_unless_asked_for_and_then_in_four_milliseconds() {
    assert_eq!(config(&edge("")).instances[0].detect, None);
    assert_eq!(config(&edge("detect: null")).instances[0].detect, None);
    let detect = config(&edge("detect: {}")).instances[0].detect.clone().unwrap();
    assert_eq!((detect.settings.interval, detect.settings.multiplier), (Duration::from_millis(1), 4));
    assert_eq!((detect.key_file, detect.key), (None, Key::PUBLIC));
    assert_eq!(detect.cpu_latency, CpuLatency::Auto);
}

#[test]
fn idle_cpus_may_be_told_within_which_time_to_wake() {
    for (text, expected) in [
        ("auto", CpuLatency::Auto),
        ("any", CpuLatency::Any),
        ("0s", CpuLatency::AtMost(Duration::ZERO)),
        ("20us", CpuLatency::AtMost(Duration::from_micros(20))),
    ] {
        let config = config(&edge(&format!("detect: {{cpu_latency: {text}}}")));
        assert_eq!(config.instances[0].detect.as_ref().unwrap().cpu_latency, expected);
        assert!(effective(&config).contains(&format!("cpu_latency: {text}")), "{text}");
    }
}

#[test]
fn what_cannot_be() {
    let at = |field: &str| format!("6:{field}");
    for (line, expected) in [
        ("detect: 1ms", at("13: instances[0].detect: ")),
        ("detect: {interval: 500us}", at("24: instances[0].detect.interval: ")),
        ("detect: {interval: 2s}", at("24: instances[0].detect.interval: ")),
        ("detect: {interval: 5}", at("24: instances[0].detect.interval: ")),
        ("detect: {multiplier: 2}", at("26: instances[0].detect.multiplier: ")),
        ("detect: {multiplier: 51}", at("26: instances[0].detect.multiplier: ")),
        ("detect: {key_file: detect.key}", at("24: instances[0].detect.key_file: ")),
        (
            "detect: {key_file: /etc/detect.key}",
            at("24: instances[0].detect.key_file: /etc/detect.key: is not read here"),
        ),
        ("detect: {cpu_latency: 11ms}", at("27: instances[0].detect.cpu_latency: must be 0s to 10ms")),
        ("detect: {cpu_latency: none}", at("27: instances[0].detect.cpu_latency: ")),
        ("detect: {timeout: 1ms}", at("14: instances[0].detect.timeout: unknown key")),
    ] {
        let errors = errors(&edge(line));
        assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        assert!(errors[0].starts_with(&expected), "{line}: {errors:?}");
    }
}

#[test]
fn a_detection_that_is_no_sooner_than_adverts_is_refused() {
    let line =
        |multiplier| format!("advert_interval: 100ms\ndetect: {{interval: 10ms, multiplier: {multiplier}}}");
    assert_eq!(config(&edge(&line(29))).instances[0].detect.as_ref().unwrap().settings.multiplier, 29);
    let refused = errors(&edge(&line(30)));
    let expected = "7:13: instances[0].detect: would find a dead owner in 300ms: \
                    that is not sooner than its adverts do (300ms)";
    assert!(refused.len() == 1 && refused[0].starts_with(expected), "{refused:?}");
}

#[test]
fn its_key_is_not_shown() {
    let config = read(&edge("detect: {key_file: /etc/detect.key}")).unwrap();
    assert_eq!(config.instances[0].detect.as_ref().unwrap().key, Key::new(KEY));
    for shown in [effective(&config), format!("{config:?}")] {
        assert!(shown.contains("/etc/detect.key"), "{shown}");
        assert!(!shown.contains("5e5e") && !shown.contains("94, 94"), "{shown}");
    }
}

#[test]
fn the_instances_of_an_interface_share_a_key() {
    let two = |interface: &str, first: &str, second: &str| {
        let text = edge_and("more", 52, interface, "[\"10.0.0.60\"]") + &format!("    {second}\n");
        text.replacen("    interface: eth0\n", &format!("    interface: eth0\n    {first}\n"), 1)
    };
    let (public, secret) = ("detect: {}", "detect: {key_file: /etc/detect.key}");
    for (first, second) in [(public, public), (secret, secret), (secret, "detect: null")] {
        assert!(read(&two("eth0", first, second)).is_ok(), "{first} {second}");
    }
    assert!(read(&two("eth1", public, secret)).is_ok());
    let refused = read(&two("eth0", public, secret)).unwrap_err().to_string();
    assert!(
        refused.contains(
            "11:13: instances[1].detect: must have the key of edge: the instances of an interface (eth0)"
        ),
        "{refused}"
    );
}
