//! What a reload has to do.

use super::super::{Change, Config, InstanceField, ProcessField, diff, vips_added, vips_removed};
use super::{config, edge, edge_and, edge_with_vips};

/// Each change in a few words.
fn changes(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Config, Config) = (config(old), config(new));
    let words = |change: &Change<'_>| match change {
        Change::Process(field) => format!("restart for {field}"),
        Change::Removed(instance) => format!("remove {}", instance.name),
        Change::Added(instance) => format!("add {}", instance.name),
        Change::Changed { old, new, fields } => {
            let how = if change.restarts_instance() { "restart" } else { "change" };
            let added = vips_added(old, new).map(|vip| format!(" +{}", vip.address));
            let removed = vips_removed(old, new).map(|vip| format!(" -{}", vip.address));
            format!("{how} {} {fields:?}{}", old.name, added.chain(removed).collect::<String>())
        }
        Change::Api => "another API".to_owned(),
        Change::Probes => "other probes".to_owned(),
        Change::Services => "other services".to_owned(),
    };
    diff(&old, &new).iter().map(words).collect()
}

#[test]
fn the_same_configuration_in_other_words_changes_nothing() {
    let other_words = edge("priority: 100\nannounce: {refresh: 1m}\nvip_interface: eth0\ntrack: []");
    assert_eq!(changes(&edge(""), &other_words), [""; 0]);
}

#[test]
fn instances_come_and_go_by_name_and_what_goes_comes_first() {
    let two = edge_and("other", 52, "eth0", "[10.0.0.51]");
    assert_eq!(changes(&edge(""), &two), ["add other"]);
    assert_eq!(changes(&two, &edge("")), ["remove other"]);
    let renamed = edge("").replace("name: edge", "name: rim");
    assert_eq!(changes(&edge(""), &renamed), ["remove edge", "add rim"]);
}

#[test]
fn what_needs_other_sockets_or_another_word_restarts_the_instance() {
    let version_2 = changes(&edge_with_vips("10.0.0.50", ""), &edge_with_vips("10.0.0.50", "version: 2"));
    assert_eq!(version_2, ["restart edge [Version]"]);
    for (line, field) in [
        ("vip_interface: eth1", InstanceField::VipInterface),
        ("virtual_mac: true", InstanceField::VirtualMac),
        ("sync_group: both", InstanceField::SyncGroup),
    ] {
        assert_eq!(changes(&edge(""), &edge(line)), [format!("restart edge [{field:?}]")]);
    }
    let moved = edge("vip_interface: eth0").replace("interface: eth0\n    vips", "interface: eth1\n    vips");
    assert_eq!(changes(&edge(""), &moved), ["restart edge [Interface]"]);
    let other_id = edge("").replace("51", "52");
    assert_eq!(changes(&edge(""), &other_id), ["restart edge [VirtualRouterId]"]);
    let v4_only = edge_with_vips("10.0.0.50/24", "");
    assert_eq!(changes(&v4_only, &edge("")), ["restart edge [Families] +fd00::50"]);
    assert_eq!(changes(&edge(""), &v4_only), ["restart edge [Families] -fd00::50"]);
}

#[test]
fn all_else_is_applied_while_the_instance_runs() {
    for (line, field) in [
        ("priority: 50", InstanceField::Priority),
        ("advert_interval: 10ms", InstanceField::AdvertInterval),
        ("preempt: false", InstanceField::Preempt),
        ("preempt_delay: 3s", InstanceField::PreemptDelay),
        ("hold_down: 3s", InstanceField::HoldDown),
        ("accept: false", InstanceField::Accept),
        ("strict: true", InstanceField::Strict),
        ("checksum: rfc9568", InstanceField::Checksum),
        ("on_conflict: fault", InstanceField::OnConflict),
        ("local_address: never", InstanceField::LocalAddress),
        ("announce: {repeat: 3}", InstanceField::Announce),
        ("grace: 1s", InstanceField::Grace),
    ] {
        assert_eq!(changes(&edge(""), &edge(line)), [format!("change edge [{field:?}]")]);
    }
    let version_2 = |lines: &str| edge_with_vips("10.0.0.50", &format!("version: 2\n{lines}"));
    let auth = ["change edge [Auth]"];
    assert_eq!(changes(&version_2(""), &version_2("auth: {password: a}")), auth);
    assert_eq!(changes(&version_2("auth: {password: a}"), &version_2("auth: {password: b}")), auth);
    assert_eq!(changes(&version_2(""), &version_2("advert_interval: 2s")), ["change edge [AdvertInterval]"]);
    let other_vips = edge_with_vips("10.0.0.50, 10.0.0.51, \"fd00::51\"", "");
    assert_eq!(changes(&edge(""), &other_vips), ["change edge [Vips] +10.0.0.51 +fd00::51 -fd00::50"]);
}

#[test]
fn other_probes_leave_the_instances_that_track_them_alone() {
    let probed = |weight: i32, lines: &str| {
        format!("probes: [{{name: a, interface: {{name: e}}, weight: {weight}}}]\n{}", edge(lines))
    };
    assert_eq!(changes(&probed(0, ""), &probed(0, "track: [a]")), ["change edge [Track]"]);
    assert_eq!(changes(&probed(0, "track: [a]"), &probed(-1, "track: [a]")), ["other probes"]);
}

#[test]
fn what_concerns_the_process_waits_for_its_restart() {
    let other = "node: b\nruntime_dir: /r\nstate_dir: /s\npin_dir: null\nlog: {level: debug, format: json}\nxdp_mode: skb\nsecurity: {seccomp: false}\n";
    let expected = [
        ProcessField::Node,
        ProcessField::RuntimeDir,
        ProcessField::StateDir,
        ProcessField::PinDir,
        ProcessField::LogLevel,
        ProcessField::LogFormat,
        ProcessField::Security,
        ProcessField::XdpMode,
    ];
    assert_eq!(
        changes(&edge(""), &(other.to_owned() + &edge(""))),
        expected.map(|field| format!("restart for {field}"))
    );
}
