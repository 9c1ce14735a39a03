//! Instances: what each statement becomes.

use super::*;

#[test]
fn statements_become_keys() {
    let table = [
        ("priority 255", "priority: 255"),
        ("advert_int 2", "advert_interval: 2s"),
        ("advert_int 0.01", "advert_interval: 10ms"),
        ("nopreempt", "preempt: false"),
        ("preempt", "preempt: true"),
        ("preempt_delay 4.5", "preempt_delay: 4500ms"),
        ("accept", "accept: true"),
        ("no_accept", "accept: false"),
        ("strict_mode off", "strict: false"),
        ("use_vmac", "virtual_mac: true"),
        ("garp_master_refresh 30", "announce: { refresh: 30s }"),
        ("garp_master_refresh 0", "announce: { refresh: 0s }"),
        ("garp_master_delay 10", "announce: { repeat: 5, interval: 2s }"),
        ("garp_master_delay 5", "announce: { repeat: 5, interval: 1100ms }"),
        ("garp_master_delay 0", "announce: { repeat: 0 }"),
    ];
    for (statement, expected) in table {
        let yaml = with(statement);
        says(&yaml, &[&format!("\n    {expected}\n")]);
    }
}

#[test]
fn what_keepalived_would_not_take_is_remarked_and_its_default_holds() {
    let table = [
        ("priority 0", "priority 0: must be 1 to 255", "priority: 100"),
        ("advert_int 0", "advert_int 0: keepalived takes 0.01 to 255", "priority: 100"),
        ("advert_int nan", "advert_int nan: keepalived takes", "priority: 100"),
        ("preempt_delay 2000", "preempt_delay 2000: keepalived takes 0 to 1000", "vips:"),
        ("state FOO", "state FOO: is neither MASTER nor BACKUP", "priority: 100"),
        ("virtual_routter_id 7", "virtual_routter_id 7: unknown keyword", ""),
        (
            "priority 5 state BACKUP",
            "priority 5 state BACKUP: keepalived reads one statement per line",
            "priority: 5",
        ),
        ("use_vmac vrrp.51", "use_vmac vrrp.51: no interface is made", "virtual_mac: true"),
        ("down_timer_adverts 2", "down_timer_adverts 2: always 3", "vips:"),
    ];
    for (statement, remark, rest) in table {
        let yaml = with(statement);
        says(&yaml, &[&format!("# a.conf:8: {remark}")]);
        says(&yaml, &[rest]);
    }
}

#[test]
fn of_two_statements_the_later_one_counts() {
    says(
        &with("priority 1\npriority 2"),
        &["# a.conf:8: priority 1: stands again at a.conf:9, which counts", "priority: 2"],
    );
}

#[test]
fn a_master_is_no_owner_and_preempts() {
    let yaml = with("state MASTER\nnopreempt\npreempt_delay 5");
    says(
        &yaml,
        &[
            "# a.conf:8: state MASTER: has no effect",
            "# a.conf:9: nopreempt: keepalived ignores it with `state MASTER`",
            "preempt: true",
            "# a.conf:10: preempt_delay 5: keepalived ignores it",
        ],
    );
}

#[test]
fn version_2_is_kept_and_its_interval_rounded() {
    let yaml = import(
        "vrrp_instance A {\n interface eth0\n virtual_router_id 1\n advert_int 1.7\n virtual_ipaddress {\n 10.0.0.9\n }\n}\n",
    );
    says(
        &yaml,
        &[
            "# a.conf:1: vrrp_instance A: is version 2 by keepalived's default",
            "version: 2",
            "# a.conf:4: advert_int 1.7: version 2 takes steps of 1s: rounded",
            "advert_interval: 2s",
        ],
    );
    let yaml = import(
        "vrrp_instance A {\n interface eth0\n virtual_router_id 1\n advert_int 255\n virtual_ipaddress { 10.0.0.9 }\n}\n",
    );
    says(&yaml, &["version: 2", "advert_interval: 255s"]);
    says(
        &with("advert_int 41"),
        &["advert_int 41: adverts of version 3 say at most 40950ms", "advert_interval: 40950ms"],
    );
    says(
        &with("advert_int 1.234"),
        &["advert_int 1.234: version 3 takes steps of 10ms", "advert_interval: 1230ms"],
    );
}

#[test]
fn ipv6_is_version_3() {
    let yaml = import(
        "global_defs {\n vrrp_version 2\n}\nvrrp_instance A {\n interface eth0\n virtual_router_id 1\n virtual_ipaddress {\n fe80::5\n fd00::1/64\n }\n}\n",
    );
    says(&yaml, &["version: 3", "- \"fe80::5\"", "- \"fd00::1/64\""]);
}

#[test]
fn a_password_stands_in_its_key_and_nowhere_else() {
    let text = |version: &str, kind: &str, pass: &str| {
        format!(
            "vrrp_instance A {{\n interface eth0\n virtual_router_id 1\n {version}\n authentication {{\n {kind}\n {pass}\n }}\n \
             auth_pass hunter22\n virtual_ipaddress {{\n 10.0.0.9\n }}\n}}\n"
        )
    };
    let yaml = import(&text("", "auth_type PASS", "auth_pass hunter2222"));
    says(
        &yaml,
        &[
            "auth_type: the password has more than 8 characters",
            "# better: auth: { password_file: FILE }",
            "auth: { password: \"hunter22\" }",
        ],
    );
    assert_eq!(yaml.matches("hunter").count(), 1, "{yaml}");
    for (version, kind, pass, remark) in [
        ("version 3", "auth_type PASS", "auth_pass hunter22", "auth_type: version 3 has no authentication"),
        ("", "auth_type AH", "auth_pass hunter22", "auth_type: NOT COMPATIBLE"),
        ("", "", "auth_pass hunter22", "auth_pass: without auth_type"),
        ("", "auth_type PASS", "auth_pas hunter22", "auth_pas: is nothing that keepalived understands here"),
        (
            "",
            "auth_type PASS",
            "auth_pass hünter22",
            "auth_type: the password is empty, or not printable ASCII",
        ),
        ("", "auth_type PASS auth_pass hunter22", "", "auth_type: without auth_pass"),
    ] {
        let yaml = import(&text(version, kind, pass));
        says(&yaml, &[remark]);
        assert!(
            !yaml.contains("hunter") && !yaml.contains("hünter") && !yaml.contains("    auth:"),
            "{yaml}"
        );
    }
}

#[test]
fn options_of_addresses_are_remarked_and_their_interface_is_kept() {
    let yaml = import(
        "vrrp_instance A {\n interface eth0\n version 3\n virtual_router_id 1\n virtual_ipaddress {\n 10.0.0.9/24 brd 10.0.0.255 dev \
         eth1 label eth1:1\n 10.0.0.10/24 dev eth1\n 10.0.0.0/24 dev eth1\n 10.0.0.300\n }\n}\n",
    );
    says(
        &yaml,
        &[
            "interface: eth0\n",
            "vip_interface: eth1\n",
            "a.conf:9: 10.0.0.300: \"10.0.0.300\" is not an IP address",
            "# a.conf:6: 10.0.0.9/24 brd 10.0.0.255 dev eth1 label eth1:1: of its options, only `dev`",
            "- \"10.0.0.9/24\"\n      - \"10.0.0.10/24\"",
            "a.conf:8: 10.0.0.0/24 dev eth1: its prefix length",
            "- \"10.0.0.0\"",
        ],
    );
    says(
        &with("virtual_ipaddress {\n 10.0.1.1 dev eth1\n }"),
        &["# a.conf:9: 10.0.1.1 dev eth1: an instance answers", "- \"10.0.1.1\""],
    );
}

#[test]
fn repeated_and_foreign_addresses_are_commented_out() {
    let yaml = with(
        "virtual_ipaddress {\n 10.0.0.50/32\n fd00::5\n }\n}\nvrrp_instance B {\n interface eth1\n version 3\n virtual_router_id 9\n virtual_ipaddress {\n 10.0.0.50\n 10.0.0.60\n }",
    );
    says(
        &yaml,
        &[
            "- \"10.0.0.50/24\"",
            "# a.conf:9: 10.0.0.50/32: stands already at a.conf:6",
            "# - \"10.0.0.50/32\"",
            "# a.conf:10: fd00::5: keepalived ignores it",
            "# - \"fd00::5\"",
            "- name: B",
            "# - \"10.0.0.50\"",
            "- \"10.0.0.60\"",
        ],
    );
}

#[test]
fn excluded_addresses_are_served_too() {
    let yaml = with("virtual_ipaddress_excluded {\n 10.0.0.51\n fd00::51/64\n }");
    says(
        &yaml,
        &[
            "# a.conf:9: 10.0.0.51: NOT COMPATIBLE with keepalived peers",
            "- \"10.0.0.51\"",
            "# a.conf:10: fd00::51/64: moves with the others",
            "- \"fd00::51/64\"",
        ],
    );
}

#[test]
fn ipv6_addresses_of_a_version_2_router_become_an_instance_that_moves_with_it() {
    let yaml = import(
        "vrrp_instance A {\n interface eth0\n virtual_router_id 1\n authentication {\n auth_type PASS\n auth_pass x\n }\n virtual_ipaddress {\n 10.0.0.9\n }\n \
         virtual_ipaddress_excluded {\n fd00::9\n }\n}\n",
    );
    says(
        &yaml,
        &[
            "- name: A\n",
            "version: 2",
            "auth:",
            "sync_group: A-families",
            "version 2 has no IPv6",
            "- name: A-ipv6",
            "version: 3",
            "- \"fd00::9\"",
            "sync_group: A-families",
        ],
    );
    assert_eq!(yaml.matches("auth: {").count(), 2, "the key and the advice: {yaml}");
}

#[test]
fn unicast_needs_a_source_and_takes_it_from_this_host() {
    let yaml = with(
        "unicast_src_ip 10.0.0.7\nunicast_peer {\n 10.0.0.2 min_ttl 254\n 10.0.0.3 min_ttl 253 max_ttl 254\n 10.0.0.7\n fd00::1\n 10.0.0.2\n foo\n }",
    );
    says(
        &yaml,
        &[
            "a.conf:11: 10.0.0.3 min_ttl 253 max_ttl 254: there is no greatest TTL",
            "10.0.0.2: stands in the list already",
            "foo: is no address",
            "10.0.0.7: is this node itself",
            "fd00::1: is of another family",
            "unicast:\n      source: \"10.0.0.7\"\n      peers: [\"10.0.0.2\", \"10.0.0.3\"]\n      min_ttl: 253",
        ],
    );
    // The first address that the host has there is a VIP.
    says(
        &with("unicast_peer { 10.0.0.2 }"),
        &["10.0.0.1 is what this host has", "source: \"10.0.0.1\"", "peers: [\"10.0.0.2\"]"],
    );
    says(
        &with("unicast_src_ip 10.0.0.7"),
        &["unicast_src_ip 10.0.0.7: without unicast_peer adverts are multicast"],
    );
    let yaml = with("interface eth9\nunicast_peer {\n 10.0.0.2\n }");
    says(
        &yaml,
        &[
            "0 of 1 instances",
            "instances: []",
            "NOT SERVED, and commented out: unicast needs",
            "  # - name: VI_1",
            "#   unicast: { source: SOURCE",
        ],
    );
}

#[test]
fn what_cannot_be_served_is_commented_out() {
    let clash = "}\nvrrp_instance B {\n interface eth0\n virtual_router_id 51\n version 3\n virtual_ipaddress {\n 10.0.0.77\n }";
    says(
        &with(clash),
        &[
            "1 of 2 instances",
            "- name: VI_1",
            "NOT SERVED, and commented out: VRID 51 stands for IPv4 on this interface already, at a.conf:1",
            "  # - name: B\n",
        ],
    );
    let again = "}\nvrrp_instance VI_1 {\n interface eth0\n virtual_router_id 52\n virtual_ipaddress {\n 10.0.0.77\n }";
    says(&with(again), &["1 of 2 instances", "an instance of this name stands before", "  # - name: VI_1-2"]);
    says(
        &import("vrrp_instance A {\n virtual_router_id 5\n}\n"),
        &["it has no address that could be served"],
    );
    says(
        &import("vrrp_instance A {\n virtual_ipaddress { 10.0.0.1 }\n}\n"),
        &["it has no valid virtual_router_id"],
    );
}

#[test]
fn strict_mode_takes_accept_mode_with_it() {
    says(&with("strict_mode"), &["strict mode implies no_accept", "accept: false", "strict: true"]);
    assert!(!with("strict_mode\npriority 255").contains("accept: false"));
}

#[test]
fn global_defaults_reach_every_instance() {
    let yaml = import(
        "global_defs {\n vrrp_version 3\n vrrp_min_garp\n vrrp_garp_master_refresh 60\n vrrp_startup_delay 5.5\n default_interface bond0\n router_id \"a b\"\n vrrp_strict maybe\n}\n\
         vrrp_instance A {\n virtual_router_id 5\n virtual_ipaddress { 10.0.0.1 }\n}\n",
    );
    says(
        &yaml,
        &[
            "router_id a b: `node` is 1-253 bytes",
            "vrrp_strict maybe: is neither on nor off",
            "interface: bond0",
            "version: 3",
            "hold_down: 5500ms",
            "announce: { repeat: 0, refresh: 60s }",
        ],
    );
}
