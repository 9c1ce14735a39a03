//! Scripts, processes, interfaces and groups.

use super::*;

const SCRIPTS: &str = "}\nvrrp_script chk {\n script \"/bin/chk -a 'b c'\"\n interval 2\n timeout 3\n weight -4\n fall 2\n rise 3\n user nobody\n init_fail\n}\n\
                       vrrp_script port {\n script \"</dev/tcp/127.0.0.1/80\"\n}\nvrrp_script shell {\n script \"a | b\"\n}\nvrrp_script unused {\n script /bin/true\n}\n\
                       vrrp_script none {\n interval 1.5\n";

fn tracking(lines: &str) -> String {
    with(&format!("{lines}\n{SCRIPTS}"))
}

#[test]
fn scripts_become_probes_with_keepaliveds_defaults() {
    let yaml = tracking("track_script {\n chk\n port\n shell weight 5\n}");
    says(
        &yaml,
        &[
            "user nobody: probes run as the agent's user",
            "init_fail: always so",
            "- name: chk\n    exec: { command: [\"/bin/chk\", \"-a\", \"b c\"] }\n    interval: 2s\n    timeout: 3s\n    fall: 2\n    rise: 3\n    initial: down\n    weight: -4\n",
            "became a `tcp` probe",
            "- name: port\n    tcp: { address: \"127.0.0.1:80\" }\n    interval: 1s\n    timeout: 1s\n    fall: 1\n    rise: 1\n    initial: down\n    weight: 0\n",
            "has a shell's syntax",
            "- name: shell-plus5\n    exec: { command: [\"/bin/sh\", \"-c\", \"a | b\"] }",
            "track: [chk, port, shell-plus5]",
            "# a.conf:30: vrrp_script unused: is tracked by no instance",
            "none: has no `script`",
        ],
    );
}

#[test]
fn each_weight_is_a_probe_of_its_own() {
    let yaml = tracking(
        "track_script {\n chk\n }\n}\nvrrp_instance B {\n interface eth1\n version 3\n virtual_router_id 1\n virtual_ipaddress { 10.0.0.77 }\n track_script {\n chk weight 0\n chk weight -4\n }",
    );
    says(
        &yaml,
        &[
            "- name: chk\n",
            "weight: -4",
            "- name: chk-fault\n",
            "weight: 0",
            "track: [chk]",
            "track: [chk-fault, chk]",
        ],
    );
}

#[test]
fn interfaces_are_tracked_by_weight() {
    let yaml = with(
        "track_interface {\n eth0\n eth1\n eth2 weight 20\n eth3 weight -10 reverse\n eth4 weight 300\n a/b\n }",
    );
    says(
        &yaml,
        &[
            "- name: link-eth1\n    interface: { name: eth1 }\n    weight: 0\n",
            "- name: link-eth2-plus20\n    interface: { name: eth2 }\n    weight: 20\n",
            "- name: link-eth4\n",
            "# a.conf:9: eth0: its own interface is tracked in any case",
            "# a.conf:12: eth3 weight -10 reverse: `reverse` has no equivalent",
            "# a.conf:13: eth4 weight 300: keepalived takes weights of -253 to 253",
            "a/b: an interface's name must be",
            "track: [link-eth1, link-eth2-plus20, link-eth4]",
        ],
    );
}

#[test]
fn processes_become_pgrep_where_that_says_the_same() {
    let yaml = with(
        "track_process {\n web\n two weight 5\n gone\n }\n}\nvrrp_track_process web {\n process nginx.x\n weight 30\n delay 2\n}\nvrrp_track_process two {\n process a b\n quorum 2\n",
    );
    says(
        &yaml,
        &[
            "delay 2: use the probe's `fall` and `rise`",
            "- name: web\n    exec: { command: [pgrep, \"-x\", \"--\", \"nginx\\\\.x\"] }",
            "weight: 30",
            "# a.conf:10: two weight 5: could not become a probe",
            "# a.conf:11: gone: is defined nowhere",
            "track: [web]",
            "process a b: parameters are not compared",
        ],
    );
}

#[test]
fn the_owner_has_no_weights() {
    says(
        &with("priority 255\ntrack_interface {\n eth1 weight 20\n}"),
        &["the address owner's priority does not change", "track: [link-eth1]"],
    );
}

const PAIR: &str = "global_defs {\n vrrp_version 3\n}\nvrrp_instance A {\n interface eth0\n virtual_router_id 1\n virtual_ipaddress { 10.0.0.1 }\n track_interface {\n eth1 weight 5\n }\n}\n\
                    vrrp_instance B {\n interface eth1\n virtual_router_id 2\n virtual_ipaddress { 10.0.1.1 }\n}\n";

#[test]
fn sync_groups_keep_their_members_and_take_their_weights() {
    let yaml = import(&format!(
        "{PAIR}vrrp_sync_group G1 {{\n group {{\n A\n B\n C\n }}\n notify_master /bin/x\n smtp_alert\n track_interface {{\n eth2 weight 7\n }}\n foo\n}}\n"
    ));
    says(
        &yaml,
        &[
            "- name: link-eth1\n",
            "- name: link-eth2-plus7\n",
            "- name: A",
            "eth1 weight 5: keepalived gives members of a sync group no weights",
            "track: [link-eth1, link-eth2-plus7]",
            "C: is no instance",
            "notify_master /bin/x: viplane runs nothing",
            "smtp_alert: viplane sends no mail",
            "foo: unknown keyword",
            "sync_group: G1",
            "- name: B",
            "track: [link-eth2-plus7]",
            "sync_group: G1",
        ],
    );
}

#[test]
fn a_group_can_keep_its_members_weights() {
    for keyword in ["sync_group_tracking_weight", "global_tracking"] {
        let yaml = import(&format!("{PAIR}vrrp_sync_group G1 {{\n group {{ A B }}\n {keyword}\n}}\n"));
        says(
            &yaml,
            &[
                "- name: link-eth1-plus5",
                "eth1 weight 5: counts for all members of the sync group",
                "track: [link-eth1-plus5]",
                "sync_group: G1",
                "sync_group: G1",
            ],
        );
    }
}

#[test]
fn groups_that_are_none_are_remarked() {
    let yaml = import(&format!(
        "{PAIR}vrrp_sync_group G1 {{\n A\n B\n}}\nvrrp_sync_group \"my group\" {{\n group {{ A B }}\n}}\nvrrp_sync_group G3 {{\n group {{\n A\n }}\n}}\n\
         vrrp_sync_group G4 {{\n group {{\n X\n }}\n}}\n"
    ));
    says(
        &yaml,
        &["vrrp_sync_group my group: is named my-group here", "sync_group: my-group", "sync_group: my-group"],
    );
    says(
        &yaml,
        &[
            "vrrp_sync_group G1: has fewer than two members",
            "vrrp_sync_group G3: has fewer",
            "vrrp_sync_group G4: has fewer",
        ],
    );
}

#[test]
fn members_of_a_group_come_to_agree_in_what_decides_their_election() {
    let instance = |name: &str, id: u8, lines: &str| {
        format!(
            "vrrp_instance {name} {{\n interface eth0\n virtual_router_id {id}\n virtual_ipaddress {{ 10.0.0.{id} }}\n{lines}\n}}\n"
        )
    };
    let yaml = import(&format!(
        "vrrp_sync_group G {{\n group {{ A B C }}\n}}\n{}{}{}",
        instance("A", 1, "version 3\npriority 150\nadvert_int 0.25\nnopreempt"),
        instance("B", 2, "priority 120\nadvert_int 2\nstate MASTER\nnopreempt"),
        instance("C", 3, "priority 150\nadvert_int 3\nnopreempt"),
    ));
    says(
        &yaml,
        &[
            "name: A",
            "priority: 150",
            "its interval 250ms becomes 2s; version 3 learns it",
            "advert_interval: 2s",
            "preempt: false",
            "name: B",
            "its priority 120 becomes 150, that of A",
            "priority: 150",
            "advert_interval: 2s",
            "it does not preempt, as A",
            "preempt: false",
            "name: C",
            "priority: 150",
            "its interval 3s becomes 2s; NOT COMPATIBLE with keepalived peers",
            "advert_interval: 2s",
            "preempt: false",
        ],
    );
}

#[test]
fn an_interval_that_version_3_cannot_say_is_shortened_where_both_versions_move_together() {
    let instance = |name: &str, id: u8, lines: &str| {
        format!(
            "vrrp_instance {name} {{\n interface eth0\n virtual_router_id {id}\n virtual_ipaddress {{ 10.0.0.{id} }}\n{lines}\n}}\n"
        )
    };
    let group = import(&format!(
        "vrrp_sync_group G {{\n group {{ A B }}\n}}\n{}{}",
        instance("A", 1, "version 3"),
        instance("B", 2, "advert_int 60"),
    ));
    says(
        &group,
        &[
            "its interval 1s becomes 40s; version 3 learns it",
            "advert_interval: 40s",
            "its interval 1m becomes 40s; NOT COMPATIBLE",
            "advert_interval: 40s",
        ],
    );
    let families = import(&instance("A", 1, "advert_int 60\nvirtual_ipaddress_excluded { fd00::1 }"));
    says(
        &families,
        &[
            "version: 2",
            "its IPv6 addresses take adverts of version 3",
            "its interval 1m becomes 40s; NOT COMPATIBLE",
            "advert_interval: 40s",
            "version: 3",
            "advert_interval: 40s",
        ],
    );
}
