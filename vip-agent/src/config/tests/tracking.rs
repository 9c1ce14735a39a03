//! Probes, who tracks them, and sync groups.

use super::super::{Check, effective, parse};
use super::{config, edge, edge_and, errors, warnings};
use crate::health::Weight;

/// `edge` that tracks `uplink`, whose probe has these further lines; `track` stands in line 7 and on.
fn probed(lines: &str) -> String {
    format!("probes: [{{name: uplink, interface: {{name: eth1}}{lines}}}]\n{}", edge("track: [uplink]"))
}

/// `edge` and `rim` in one sync group, each with further lines.
fn grouped(first: &str, second: &str) -> String {
    let second: String = second.lines().map(|line| format!("    {line}\n")).collect();
    edge(&format!("sync_group: both\n{first}"))
        + "  - name: rim\n    virtual_router_id: 52\n    interface: eth1\n    vips: [10.0.1.50]\n    sync_group: both\n"
        + &second
}

#[test]
fn an_interface_is_probed_by_its_name_and_its_loss_is_a_fault_unless_it_has_a_weight() {
    let plain = config(&probed(""));
    assert_eq!(plain.probes[0].weight, Weight::Fault);
    assert!(matches!(&plain.probes[0].check, Check::Interface(name) if name.as_str() == "eth1"));
    assert_eq!(plain.instances[0].track[0].as_str(), "uplink");
    assert_eq!(config(&probed(", weight: -40")).probes[0].weight, Weight::Lower(40));
    assert_eq!(config(&probed(", weight: 254")).probes[0].weight, Weight::Raise(254));
    for text in [probed(""), probed(", weight: -254"), grouped("", "")] {
        let (read, warnings) = parse(&effective(&config(&text)), "effective", "node").unwrap();
        assert_eq!(read.instances, config(&text).instances);
        assert_eq!(read.probes, config(&text).probes);
        assert!(warnings.is_empty(), "{warnings}");
    }
}

#[test]
fn null_probes_tracks_and_groups_ask_for_nothing() {
    let text = format!("probes: null\n{}", edge("track: null\nsync_group: null"));
    assert_eq!(config(&text), config(&edge("")));
}

#[test]
fn keys_of_polling_are_checked_and_have_no_effect_on_an_interface() {
    let polling = ", interval: 2s, timeout: 1s, fall: 2, rise: 2, initial: down, jitter: 0s";
    let told = warnings(&probed(polling));
    assert_eq!(told.len(), 6);
    assert_eq!(
        told[0],
        "1:60: probes[0].interval: warning: has no effect: the kernel tells at once how an interface is"
    );
    assert_eq!(config(&probed(polling)), config(&probed("")));
    for (lines, expected) in [
        (", interval: 2", "1:60: probes[0].interval: a duration needs a unit: `2ms` or `2s`"),
        (", timeout: 0s", "1:59: probes[0].timeout: must be 10ms to 1h, not 0s"),
        (", fall: 0", "1:56: probes[0].fall: must be a whole number, 1-1000, not the number 0"),
        (", rise: x", "1:56: probes[0].rise: must be a whole number, 1-1000, not the text \"x\""),
        (", initial: on", "1:59: probes[0].initial: must be `up` or `down`, not the text \"on\""),
        (", jitter: 2h", "1:58: probes[0].jitter: must be 0s to 1h, not 2h"),
        (", weight: 255", "1:58: probes[0].weight: a weight must be -254 to 254, not 255"),
        (", weight: -255", "1:58: probes[0].weight: a weight must be -254 to 254, not -255"),
        (", weight: 1.5", "1:58: probes[0].weight: must be a whole number, not the number 1.5"),
    ] {
        assert_eq!(errors(&probed(lines)), [expected], "{lines}");
    }
}

#[test]
fn a_probe_is_of_exactly_one_kind_that_there_is() {
    let of = |kind: &str| errors(&format!("probes: [{{name: uplink{kind}}}]\n{}", edge("track: [uplink]")));
    let kinds = "needs exactly one of http, tcp, exec, file, interface, preset";
    assert_eq!(of(""), [format!("1:10: probes[0]: {kinds}; it has none")]);
    assert_eq!(
        of(", interface: {name: a}, file: {path: /a}"),
        [format!("1:10: probes[0]: {kinds}; it has file, interface")]
    );
    assert_eq!(
        of(", interface: eth1"),
        ["1:36: probes[0].interface: must be a mapping, not the text \"eth1\""]
    );
    assert_eq!(of(", interface: {}"), ["1:36: probes[0].interface.name: is missing"]);
}

#[test]
fn names_of_probes_are_unique_and_known_where_they_are_tracked() {
    let two = "probes:\n- {name: a, interface: {name: e}}\n- {name: a, interface: {name: f}}\n";
    assert_eq!(
        errors(&format!("{two}{}", edge("track: [a, b, a]"))),
        [
            "3:10: probes[1].name: a stands already at probes[0].name",
            "9:16: instances[0].track[1]: b is no probe; there are: a, a",
            "9:19: instances[0].track[2]: a stands already in this list",
        ]
    );
    assert_eq!(errors(&edge("track: [b]")), ["6:13: instances[0].track[0]: b is no probe; there is none"]);
    assert_eq!(
        warnings(&probed("").replace("    track: [uplink]\n", "")),
        ["1:17: probes[0].name: warning: no instance tracks uplink"]
    );
}

#[test]
fn members_of_a_sync_group_agree_in_all_that_decides_the_election() {
    assert_eq!(config(&grouped("", "priority: 100\nadvert_interval: 1s")).instances.len(), 2);
    for (key, value) in [
        ("priority", "101"),
        ("advert_interval", "10ms"),
        ("preempt", "false"),
        ("preempt_delay", "1s"),
        ("hold_down", "1s"),
    ] {
        let message = format!("`{key}` must be as in edge: the members of a sync group are one election");
        let column = 5 + key.len() + 2;
        assert_eq!(
            errors(&grouped("", &format!("{key}: {value}"))),
            [format!("12:{column}: instances[1].{key}: {message}")]
        );
        // Where the member leaves it out the group is named.
        assert_eq!(
            errors(&grouped(&format!("{key}: {value}"), "")),
            [format!("12:17: instances[1].sync_group: {message}")]
        );
    }
}

#[test]
fn a_sync_group_of_one_is_pointed_out() {
    assert_eq!(
        warnings(&edge("sync_group: both")),
        ["6:17: instances[0].sync_group: warning: sync group both has no other member"]
    );
    assert_eq!(
        errors(&edge("sync_group: a/b")),
        [
            "6:17: instances[0].sync_group: a sync group's name must be 1-63 of A-Z a-z 0-9 . _ - and begin with a \
             letter or digit, not \"a/b\""
        ]
    );
}

#[test]
fn other_groups_do_not_have_to_agree() {
    let text = edge("sync_group: a\npriority: 200")
        + edge_and("rim", 52, "eth1", "[10.0.1.50]")
            .rsplit("  - ")
            .next()
            .map(|rim| format!("  - {rim}"))
            .unwrap()
            .as_str();
    assert_eq!(config(&text).instances.len(), 2);
}
