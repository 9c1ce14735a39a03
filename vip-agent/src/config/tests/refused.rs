//! What is refused, where, and in which words.

use super::super::{LoadError, effective, load};
use super::{config, edge, edge_and, edge_with_vips, errors};

/// Each text has exactly these errors.
fn refused(table: &[(&str, &[&str])]) {
    for (text, expected) in table {
        assert_eq!(errors(text), *expected, "\n{text}");
    }
}

/// `edge` with each of these lines added has exactly that error.
fn refused_in_instance(table: &[(&str, &str)]) {
    for (line, expected) in table {
        assert_eq!(errors(&edge(line)), [*expected], "{line}");
    }
}

#[test]
fn text_that_is_no_yaml() {
    refused(&[
        ("instances:\n  - name: edge\n\tvips: []\n", &["3:1: a tab indents this line: YAML wants spaces"]),
        ("log:\n\tlevel: info\n", &["2:1: a tab indents this line: YAML wants spaces"]),
        ("instances: [\n", &["1:12: is not YAML: unclosed bracket '['"]),
        ("instances: *edge\n", &["1:12: is not YAML: reference to unknown value"]),
        ("node: a\nlog: {}\nnode: b\n", &["3:1: the key \"node\" stands twice in one mapping"]),
        ("node: a\n---\nnode: b\n", &["2:1: a second document begins here: the configuration is one"]),
    ]);
}

#[test]
fn an_alias_bomb_and_a_deep_nest() {
    let too_much = "the file is too deeply nested, or its aliases (`*name`) multiply to too much";
    let level =
        |name: char, below: char| format!("{name}: &{name} [{}]\n", vec![format!("*{below}"); 10].join(","));
    let bomb: String = ('b'..='h').zip('a'..='g').map(|(name, below)| level(name, below)).collect();
    let found = errors(&format!("a: &a [x,x,x,x,x,x,x,x,x,x]\n{bomb}"));
    assert!(found.len() == 1 && found[0].ends_with(too_much), "{found:?}");
    let found = errors(&format!("{}{}", "[".repeat(50), "]".repeat(50)));
    assert!(found.len() == 1 && found[0].ends_with(too_much), "{found:?}");
}

#[test]
fn a_file_that_says_nothing() {
    let nothing = "1:1: the file says nothing: it needs `instances` at least";
    for text in ["", "\n\n", "# only a comment\n", "---\n", "null\n"] {
        assert_eq!(errors(text), [nothing], "{text:?}");
    }
    refused(&[
        ("node: a\n", &["1:1: instances: is missing"]),
        ("- a\n", &["1:1: must be a mapping, not a list"]),
        ("instances:\n", &["1:10: instances: must be a list, not null"]),
    ]);
}

#[test]
fn an_unknown_key_with_the_one_that_was_meant() {
    refused(&[
        (
            "insatnces: []\nNode: a\n",
            &[
                "1:1: insatnces: unknown key; did you mean `instances`?",
                "1:1: instances: is missing",
                "2:1: Node: unknown key; did you mean `node`?",
            ],
        ),
        (
            "instances: []\nlog: { lvl: info, colour: true }\n",
            &[
                "2:8: log.lvl: unknown key; did you mean `level`?",
                "2:19: log.colour: unknown key; known here: level, format",
            ],
        ),
        (
            "instances: []\n\"a\\nb\": 1\nlog: {\"\": 1}\n",
            &[
                "2:1: \"a\\nb\": unknown key; known here: node, runtime_dir, state_dir, pin_dir, log, api, security, \
             reload_on_change, interface, xdp_mode, flow_sync, probes, instances, services, kubernetes",
                "3:7: log.\"\": unknown key; known here: level, format",
            ],
        ),
    ]);
    refused_in_instance(&[
        ("priorty: 100", "6:5: instances[0].priorty: unknown key; did you mean `priority`?"),
        ("prio: 100", "6:5: instances[0].prio: unknown key; did you mean `priority`?"),
        (
            "advert-interval: 1s",
            "6:5: instances[0].advert-interval: unknown key; did you mean `advert_interval`?",
        ),
        (
            "announce: { count: 3 }",
            "6:17: instances[0].announce.count: unknown key; known here: repeat, interval, refresh",
        ),
    ]);
}

#[test]
fn a_value_of_the_wrong_type() {
    refused(&[
        ("instances: []\nnode: 12\n", &["2:7: node: must be a text, not the number 12: put it in quotes"]),
        (
            "instances: []\nnode: \"a b\"\n",
            &["2:7: node: must be 1-253 bytes without white space, not \"a b\""],
        ),
        ("instances: []\nlog: info\n", &["2:6: log: must be a mapping, not the text \"info\""]),
        (
            "instances: []\nlog: {format: yaml}\n",
            &["2:15: log.format: must be `text` or `json`, not the text \"yaml\""],
        ),
        (
            "instances: []\nxdp_mode: native\n",
            &["2:11: xdp_mode: must be `auto` or `driver` or `skb`, not the text \"native\""],
        ),
        ("instances: []\nstate_dir: state\n", &["2:12: state_dir: must be an absolute path, not \"state\""]),
        ("instances: []\nruntime_dir: null\n", &["2:14: runtime_dir: must be a text, not null"]),
        ("instances: [5]\n", &["1:13: instances[0]: must be a mapping, not the number 5"]),
    ]);
    refused_in_instance(&[
        ("virtual_mac: 1", "6:18: instances[0].virtual_mac: must be true or false, not the number 1"),
        ("accept: no", "6:13: instances[0].accept: must be true or false, not the text \"no\""),
        ("strict: yes", "6:13: instances[0].strict: must be true or false, not the text \"yes\""),
        ("priority: \"100\"", "6:15: instances[0].priority: must be a whole number, not the text \"100\""),
        ("priority: 99.5", "6:15: instances[0].priority: must be a whole number, not the number 99.5"),
        ("grace:", "6:10: instances[0].grace: must be a duration such as `10ms` or `3s`, not null"),
        (
            "checksum: rfc",
            "6:15: instances[0].checksum: must be `pseudo` or `rfc9568` or `old_unicast`, not the text \"rfc\"",
        ),
        (
            "local_address: lo",
            "6:20: instances[0].local_address: must be `active` or `always` or `never`, not the text \"lo\"",
        ),
    ]);
}

#[test]
fn a_number_out_of_range() {
    refused_in_instance(&[
        (
            "priority: 0",
            "6:15: instances[0].priority: a priority must be 1-254, or 255 for the address owner, not 0",
        ),
        (
            "priority: 256",
            "6:15: instances[0].priority: a priority must be 1-254, or 255 for the address owner, not 256",
        ),
        ("priority: -5", "6:15: instances[0].priority: must not be negative, as -5 is"),
        (
            "announce: {repeat: -1}",
            "6:24: instances[0].announce.repeat: must be a whole number, 0-100, not the number -1",
        ),
    ]);
    for (id, found) in [("0", "0"), ("256", "256"), ("0x1ff", "511")] {
        let text = edge("").replace("virtual_router_id: 51", &format!("virtual_router_id: {id}"));
        let expected =
            format!("3:24: instances[0].virtual_router_id: a virtual router id must be 1-255, not {found}");
        assert_eq!(errors(&text), [expected]);
    }
}

#[test]
fn a_duration_out_of_range_or_without_its_unit() {
    refused_in_instance(&[
        ("advert_interval: 1", "6:22: instances[0].advert_interval: a duration needs a unit: `1ms` or `1s`"),
        (
            "advert_interval: 0.5",
            "6:22: instances[0].advert_interval: a duration needs a unit: `0.5ms` or `0.5s`",
        ),
        (
            "advert_interval: \"1\"",
            "6:22: instances[0].advert_interval: a duration needs a unit: `1ms` or `1s`",
        ),
        (
            "advert_interval: 0s",
            "6:22: instances[0].advert_interval: must be 10ms to 40.95s in steps of 10ms, not 0s",
        ),
        (
            "advert_interval: 5ms",
            "6:22: instances[0].advert_interval: must be 10ms to 40.95s in steps of 10ms, not 5ms",
        ),
        (
            "advert_interval: 15ms",
            "6:22: instances[0].advert_interval: must be 10ms to 40.95s in steps of 10ms, not 15ms",
        ),
        (
            "advert_interval: 40.96s",
            "6:22: instances[0].advert_interval: must be 10ms to 40.95s in steps of 10ms, not 40960ms",
        ),
        ("grace: 2h", "6:12: instances[0].grace: must be 0s to 1h, not 2h"),
        ("hold_down: 3601s", "6:16: instances[0].hold_down: must be 0s to 1h, not 3601s"),
        (
            "preempt_delay: 1 s",
            "6:20: instances[0].preempt_delay: \"1 s\" is not a duration: write a number and one of us, ms, s, m, h, as in `10ms`, `1.5s`, `1m`",
        ),
        ("announce: {interval: 0s}", "6:26: instances[0].announce.interval: must be 10ms to 1h, not 0s"),
        ("announce: {refresh: 10ms}", "6:25: instances[0].announce.refresh: must be 1s to 24h, not 10ms"),
    ]);
}

#[test]
fn what_stands_twice() {
    refused(&[
        (
            &edge_and("edge", 52, "eth0", "[10.0.0.51]"),
            &["6:11: instances[1].name: edge stands already at instances[0].name"],
        ),
        (
            &edge_and("other", 51, "eth0", "[10.0.0.51]"),
            &[
                "7:24: instances[1].virtual_router_id: 51 stands already at instances[0].virtual_router_id for the same interface, eth0",
            ],
        ),
        (
            &edge_and("other", 52, "eth1", "[10.0.0.51, 10.0.0.50]"),
            &["9:23: instances[1].vips[1]: 10.0.0.50 stands already at instances[0].vips[0]"],
        ),
        (
            &edge_with_vips("fd00::50, 10.0.0.50, \"fd00:0::0050/64\"", ""),
            &["5:33: instances[0].vips[2]: fd00::50 stands already at instances[0].vips[0]"],
        ),
    ]);
}

#[test]
fn one_vrid_is_fine_on_two_interfaces_and_for_two_families() {
    config(&edge_and("other", 51, "eth1", "[10.0.0.51]"));
    let v4 = edge_with_vips("10.0.0.50", "");
    let v6 = "  - name: other\n    virtual_router_id: 51\n    interface: eth0\n    vips: [fd00::50]\n";
    config(&(v4 + v6));
}

#[test]
fn one_vrid_twice_where_the_interface_is_chosen_says_that_a_name_would_tell() {
    let text = edge_and("other", 51, "{subnet: vip}", "[10.0.0.51]").replacen("eth0", "{subnet: vip}", 1);
    assert_eq!(
        errors(&text),
        [
            "7:24: instances[1].virtual_router_id: 51 stands already at instances[0].virtual_router_id for the same \
          interface, {subnet: vip} (should they be different interfaces, name them)"
        ]
    );
}

#[test]
fn vips_that_are_none() {
    refused(&[
        (&edge_with_vips("", ""), &["5:11: instances[0].vips: needs at least one address"]),
        (
            &edge_with_vips("127.0.0.1", ""),
            &["5:12: instances[0].vips[0]: 127.0.0.1 is a loopback address: it cannot name one node"],
        ),
        (
            &edge_with_vips("7", ""),
            &["5:12: instances[0].vips[0]: must be a text, not the number 7: put it in quotes"],
        ),
        (
            &edge_with_vips("a.example", ""),
            &[
                "5:12: instances[0].vips[0]: \"a.example\" is not an IP address, with or without a prefix length (`10.0.0.50`, `10.0.0.50/24`, `fd00::50/64`)",
            ],
        ),
    ]);
}

#[test]
fn more_vips_than_an_advert_holds() {
    let many = |count: u16| {
        (0..count).map(|n| format!("10.1.{}.{}", n / 200, n % 200 + 1)).collect::<Vec<_>>().join(", ")
    };
    config(&edge_with_vips(&many(255), ""));
    assert_eq!(
        errors(&edge_with_vips(&many(256), "")),
        ["5:11: instances[0].vips: has 256 IPv4 addresses: an advert holds 255; make another instance"]
    );
}

#[test]
fn more_than_the_maps_hold() {
    let instance = |n: usize| {
        let (interface, id) = (n / 255, n % 255 + 1);
        format!(
            "- {{name: i{n}, virtual_router_id: {id}, interface: eth{interface}, vips: [10.{}.{}.1]}}\n",
            n / 200,
            n % 200
        )
    };
    let file = |count| format!("instances:\n{}", (0..count).map(instance).collect::<String>());
    config(&file(1024));
    assert_eq!(
        errors(&file(1025)),
        [
            "2:3: instances: make 1025 virtual routers (one for each family of each instance): at most 1024 fit"
        ]
    );
}

#[test]
fn more_vips_than_the_maps_hold() {
    let instance = |n: usize| {
        let vips: Vec<_> = (1..=241).map(|host| format!("10.0.{n}.{host}")).collect();
        format!("- {{name: i{n}, virtual_router_id: {}, vips: [{}]}}\n", n + 1, vips.join(","))
    };
    let file = |count| format!("instances:\n{}", (0..count).map(instance).collect::<String>());
    config(&file(33));
    assert_eq!(errors(&file(34)), ["2:3: instances: have 8194 IPv4 VIPs: at most 8192 fit"]);
}

#[test]
fn an_interface_that_cannot_be() {
    let interfaces = [
        ("a/b", "an interface's name must be 1-15 bytes without `/`, `:` and white space, not \"a/b\""),
        (
            "abcdefghijklmnop",
            "an interface's name must be 1-15 bytes without `/`, `:` and white space, not \"abcdefghijklmnop\"",
        ),
        (
            "{}",
            "must be a name or exactly one of `{subnet: vip}`, `{default_route: true}`, `{regex: \"^en\"}`",
        ),
        (
            "{subnet: vip, default_route: true}",
            "must be a name or exactly one of `{subnet: vip}`, `{default_route: true}`, `{regex: \"^en\"}`",
        ),
    ];
    for (interface, expected) in interfaces {
        assert_eq!(
            errors(&format!("instances: []\ninterface: {interface}\n")),
            [format!("2:12: interface: {expected}")]
        );
    }
    refused(&[
        (
            "instances: []\ninterface: {subnet: lan}\n",
            &["2:21: interface.subnet: must be `vip`, not the text \"lan\""],
        ),
        (
            "instances: []\ninterface: {default_route: false}\n",
            &["2:28: interface.default_route: must be true: leave it out or choose another way"],
        ),
        (
            "instances: []\ninterface: {regex: \"(\"}\n",
            &[
                "2:20: interface.regex: \"(\" is not a regular expression: found open group without closing ')'",
            ],
        ),
    ]);
}

#[test]
fn names_that_would_break_paths_and_metrics() {
    for name in ["../edge", "-edge", "a b", "", "ä", &"a".repeat(64)] {
        let text = edge("").replace("name: edge", &format!("name: \"{name}\""));
        let expected = format!(
            "2:11: instances[0].name: an instance's name must be 1-63 of A-Z a-z 0-9 . _ - and begin with a letter or digit, not {name:?}"
        );
        assert_eq!(errors(&text), [expected]);
    }
}

#[test]
fn unicast_that_does_not_fit() {
    let sources = "unicast: {source: [10.0.0.1, \"fd00::1\"], peers: ";
    let table = [
        (
            "unicast: {}".to_owned(),
            vec![
                "6:14: instances[0].unicast.source: is missing",
                "6:14: instances[0].unicast.peers: is missing",
            ],
        ),
        (format!("{sources}[]}}"), vec!["6:53: instances[0].unicast.peers: needs at least one address"]),
        (
            format!("{sources}[10.0.0.2]}}"),
            vec!["6:53: instances[0].unicast.peers: has no IPv6 peer, which the VIP fd00::50 needs"],
        ),
        (
            "unicast: {source: 10.0.0.1, peers: [10.0.0.2, \"fd00::2\"]}".to_owned(),
            vec!["6:23: instances[0].unicast.source: has no IPv6 source, which the VIP fd00::50 needs"],
        ),
        (
            format!("{sources}[10.0.0.2, \"fd00::2\", 10.0.0.2]}}"),
            vec!["6:75: instances[0].unicast.peers[2]: 10.0.0.2 stands in this list already"],
        ),
        (
            format!("{sources}[10.0.0.1, \"fd00::2\"]}}"),
            vec![
                "6:54: instances[0].unicast.peers[0]: 10.0.0.1 is this node's own source: list the others only",
            ],
        ),
        (
            format!("{sources}[10.0.0.50, \"fd00::2\"]}}"),
            vec![
                "6:54: instances[0].unicast.peers[0]: 10.0.0.50 is a VIP: a router needs an address that stays",
            ],
        ),
        (
            format!("{sources}[10.0.0.2, \"fd00::2\"], min_ttl: 0}}"),
            vec!["6:85: instances[0].unicast.min_ttl: must be a whole number, 1-255, not the number 0"],
        ),
        (
            "unicast: {source: [10.0.0.1, 10.0.0.3], peers: [224.0.0.18, x]}".to_owned(),
            vec![
                "6:23: instances[0].unicast.source: must be one address, or a list of one IPv4 and one IPv6 address",
                "6:53: instances[0].unicast.peers[0]: 224.0.0.18 is a multicast address: it cannot name one node",
                "6:65: instances[0].unicast.peers[1]: \"x\" is not an IP address",
            ],
        ),
    ];
    for (line, expected) in table {
        assert_eq!(errors(&edge(&line)), expected, "{line}");
    }
    assert_eq!(
        errors(&edge_with_vips("10.0.0.50", "unicast: {source: 10.0.0.1, peers: [10.0.0.2, \"fd00::2\"]}")),
        ["6:51: instances[0].unicast.peers[1]: fd00::2: the instance has no IPv6 VIP"]
    );
}

#[test]
fn what_this_version_does_not_serve_yet() {
    refused_in_instance(&[
        ("version: 4", "6:14: instances[0].version: must be 2 or 3, not the number 4"),
        ("all_failed: no", "6:17: instances[0].all_failed: must be `close` or `open`, not the text \"no\""),
    ]);
}

#[test]
fn everything_at_once_in_the_files_order() {
    let text = "log: {level: loud}\ninstances:\n- name: a\n  virtual_router_id: 1\n  vips: [10.0.0.1]\n  grace: 5\n\
                - name: a\n  virtual_router_id: 300\n  vips: [10.0.0.1, x]\n";
    assert_eq!(
        errors(text),
        [
            "1:14: log.level: must be `error` or `warn` or `info` or `debug` or `trace`, not the text \"loud\"",
            "6:10: instances[0].grace: a duration needs a unit: `5ms` or `5s`",
            "7:9: instances[1].name: a stands already at instances[0].name",
            "8:22: instances[1].virtual_router_id: a virtual router id must be 1-255, not 300",
            "9:10: instances[1].vips[0]: 10.0.0.1 stands already at instances[0].vips[0]",
            "9:20: instances[1].vips[1]: \"x\" is not an IP address, with or without a prefix length (`10.0.0.50`, `10.0.0.50/24`, `fd00::50/64`)",
        ]
    );
}

#[test]
fn a_flood_of_errors_is_cut_short() {
    let problems = super::parse(&format!("instances: [{}]", "1, ".repeat(300)), "f", "n").unwrap_err();
    assert_eq!(problems.lines().count(), 100);
    assert!(problems.to_string().ends_with("\nf: and 200 more"));
}

#[test]
fn files_that_cannot_be_read_are_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let failure = || load(&path, "n").unwrap_err().to_string().replace(&path.display().to_string(), "FILE");
    assert_eq!(failure(), "FILE: cannot be read: No such file or directory (os error 2)");
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(failure(), "FILE: is larger than 1 MiB, which no configuration needs");
    std::fs::write(&path, b"node: a\nlog: \xff").unwrap();
    assert_eq!(failure(), "FILE:2:6: is not UTF-8 text from here on");
    std::fs::write(&path, "instances: []\nnode: 5").unwrap();
    assert_eq!(failure(), "FILE:2:7: node: must be a text, not the number 5: put it in quotes");
    std::fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
    assert_eq!(failure(), "FILE:1:1: the file says nothing: it needs `instances` at least");
    std::fs::write(&path, edge("")).unwrap();
    let loaded = load(&path, "node-7").unwrap();
    assert_eq!(loaded.source, edge(""));
    assert!(effective(&loaded.config).contains("node: node-7\n"));
}

#[test]
fn without_any_file_both_ways_are_named() {
    let message = LoadError::Nowhere.to_string();
    for way in ["/etc/viplane/config.yaml", "--config", "POD_NAME", "not available in this version"] {
        assert!(message.contains(way), "{message}");
    }
}
