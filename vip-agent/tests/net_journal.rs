//! Undoing what the journal lists, and going on where something cannot be undone.

#[path = "support/sandbox.rs"]
mod support;

use std::io;
use std::path::{Path, PathBuf};

use support::{Sandbox, sandbox};
use vip_agent::net::Rtnetlink;
use vip_agent::net::journal::{Journal, UndoError};
use vip_agent::net::sysctl::silence_arp;

#[test]
fn pins_are_removed_by_whoever_knows_them() {
    sandbox(async |host: Sandbox| {
        let journal = Journal::open(host.dir()).expect("a journal");
        for pin_dir in ["/sys/fs/bpf/one", "/sys/fs/bpf/two"] {
            journal.record_pin_dir(pin_dir.into()).expect("to record it");
        }
        let mut removed = Vec::new();
        let rtnetlink = Rtnetlink::connect().expect("netlink");
        let failures = journal
            .undo_all(&rtnetlink, |pin_dir: &Path| {
                removed.push(pin_dir.to_owned());
                Ok(())
            })
            .await;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(removed, [PathBuf::from("/sys/fs/bpf/one"), PathBuf::from("/sys/fs/bpf/two")]);
        assert!(Journal::open(host.dir()).expect("a journal").is_empty());
    });
}

#[test]
fn what_fails_stays_and_the_rest_is_undone() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        let journal = Journal::open(host.dir()).expect("a journal");
        silence_arp("eth0", &journal).expect("to set it");
        journal.record_addresses(["10.0.0.50".parse().expect("an address")]).expect("to record it");
        journal.record_pin_dir("/sys/fs/bpf/viplane".into()).expect("to record it");
        let rtnetlink = Rtnetlink::connect().expect("netlink");
        let failures = journal.undo_all(&rtnetlink, |_| Err(io::ErrorKind::ReadOnlyFilesystem.into())).await;
        assert!(matches!(failures[..], [UndoError::Pins { .. }]), "{failures:?}");
        let left = Journal::open(host.dir()).expect("a journal").entries();
        assert!(left.sysctls.is_empty() && left.addresses.is_empty());
        assert_eq!(left.pin_dirs.len(), 1);
        let value = std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/arp_ignore").expect("a sysctl");
        assert_eq!(value, "0\n");
    });
}

#[test]
fn an_agent_that_died_between_writing_down_and_changing_leaves_nothing_to_undo() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        let page = r#"{"interface": "eth0", "setting": "arp_ignore"}"#;
        let journal = Journal::open(host.dir()).expect("a journal");
        journal
            .record_sysctl(vip_agent::net::sysctl::SavedSysctl {
                sysctl: serde_json::from_str(page).expect("a sysctl"),
                previous: 5,
                ours: 3,
            })
            .expect("to record it");
        journal.record_addresses(["10.0.0.50".parse().expect("an address")]).expect("to record it");
        let rtnetlink = Rtnetlink::connect().expect("netlink");
        let failures = journal.undo_all(&rtnetlink, |_| Ok(())).await;
        assert!(failures.is_empty(), "{failures:?}");
        assert!(journal.is_empty());
        let value = std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/arp_ignore").expect("a sysctl");
        assert_eq!(value, "0\n", "5 was never replaced by us");
    });
}

#[test]
fn a_journal_of_another_network_namespace_does_not_reach_into_this_one() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        host.ip("netns add other");
        let state = host.dir().to_owned();
        host.inside("other", move || {
            std::fs::write("/proc/sys/net/ipv4/conf/lo/arp_ignore", "0").expect("a sysctl");
            silence_arp("lo", &Journal::open(&state).expect("a journal")).expect("to set it");
        });
        std::fs::write("/proc/sys/net/ipv4/conf/lo/arp_ignore", "3").expect("a sysctl");
        assert!(Journal::open(host.dir()).expect("a journal").is_empty());
    });
}
