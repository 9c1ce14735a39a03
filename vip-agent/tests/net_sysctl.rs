//! arp_ignore and arp_announce are set only where they have to be, and put back only where they are still ours.

#[path = "support/sandbox.rs"]
mod support;

use std::fs;

use support::{Sandbox, sandbox};
use vip_agent::net::Rtnetlink;
use vip_agent::net::journal::Journal;
use vip_agent::net::sysctl::{Held, SysctlError, ask_as_oneself, forwards_ipv6, restore_arp, silence_arp};

fn file(interface: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore")
}

fn arp_ignore(interface: &str) -> String {
    fs::read_to_string(file(interface)).expect("a sysctl").trim().to_owned()
}

fn set(interface: &str, value: &str) {
    fs::write(file(interface), value).expect("a sysctl");
}

/// A sandbox's journal, with eth0 beside it.
fn journal(host: &Sandbox) -> Journal {
    Journal::open(host.dir()).expect("a journal")
}

#[test]
fn arp_ignore_is_set_and_restored() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        let journal = journal(&host);
        assert_eq!(silence_arp("eth0", &journal).expect("to set it"), Held::Set);
        assert_eq!(arp_ignore("eth0"), "3");
        assert_eq!(silence_arp("eth0", &journal).expect("to see it"), Held::AlreadyOurs);
        restore_arp("eth0", &journal).expect("to restore it");
        assert_eq!(arp_ignore("eth0"), "0");
        assert!(journal.is_empty());
    });
}

#[test]
fn an_administrators_value_is_left_alone_on_the_interface_and_on_all() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        let journal = journal(&host);
        set("eth0", "1");
        assert_eq!(silence_arp("eth0", &journal).expect("to see it"), Held::Administrators(1));
        assert_eq!(arp_ignore("eth0"), "1");
        set("eth0", "0");
        set("all", "2");
        assert_eq!(silence_arp("eth0", &journal).expect("to see it"), Held::Administrators(2));
        assert_eq!(arp_ignore("eth0"), "0");
        // Even our own number is the administrator's where no journal says otherwise.
        set("all", "0");
        set("eth0", "3");
        assert_eq!(silence_arp("eth0", &journal).expect("to see it"), Held::Administrators(3));
        restore_arp("eth0", &journal).expect("nothing to do");
        assert_eq!(arp_ignore("eth0"), "3");
        assert!(journal.is_empty());
    });
}

#[test]
fn arp_announce_is_raised_to_2_and_restored() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        let journal = journal(&host);
        let read = || fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/arp_announce").expect("a sysctl");
        for administrators in ["0", "1"] {
            fs::write("/proc/sys/net/ipv4/conf/eth0/arp_announce", administrators).expect("a sysctl");
            assert_eq!(ask_as_oneself("eth0", &journal).expect("to set it"), Held::Set);
            assert_eq!(silence_arp("eth0", &journal).expect("to set it"), Held::Set);
            assert_eq!(read().trim(), "2");
            restore_arp("eth0", &journal).expect("to restore both");
            assert_eq!((read().trim(), arp_ignore("eth0").as_str()), (administrators, "0"));
            assert!(journal.is_empty());
        }
        fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "2").expect("a sysctl");
        assert_eq!(ask_as_oneself("eth0", &journal).expect("to see it"), Held::Administrators(2));
    });
}

#[test]
fn a_value_that_was_changed_after_us_is_not_restored() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        let journal = journal(&host);
        silence_arp("eth0", &journal).expect("to set it");
        set("eth0", "8");
        restore_arp("eth0", &journal).expect("nothing to do");
        assert_eq!(arp_ignore("eth0"), "8");
        assert!(journal.is_empty());
    });
}

#[test]
fn what_a_killed_agent_set_is_restored_to_what_it_was_before_that_agent() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        host.link("lan.5");
        let dead = journal(&host);
        silence_arp("eth0", &dead).expect("to set it");
        silence_arp("lan.5", &dead).expect("to set it");
        drop(dead);
        host.ip("link del lan.5");
        let journal = journal(&host);
        // Taking over without undoing first must not take our 3 for the administrator's.
        assert_eq!(silence_arp("eth0", &journal).expect("to see it"), Held::AlreadyOurs);
        let failures = journal.undo_all(&Rtnetlink::connect().expect("netlink"), |_| Ok(())).await;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(arp_ignore("eth0"), "0");
        assert!(journal.is_empty(), "an interface that is gone leaves nothing to undo");
    });
}

#[test]
fn a_read_only_proc_is_told_with_its_remedy_and_leaves_nothing_in_the_journal() {
    sandbox(async |host: Sandbox| {
        host.link("lan.5");
        host.protect_sysctls();
        let journal = journal(&host);
        let error = silence_arp("lan.5", &journal).expect_err("it is read-only");
        assert!(matches!(error, SysctlError::ReadOnly { wanted: 3, .. }), "{error:?}");
        assert!(error.to_string().contains("`sysctl -w net.ipv4.conf.lan/5.arp_ignore=3`"), "{error}");
        assert!(journal.is_empty());
    });
}

#[test]
fn what_cannot_be_restored_stays_in_the_journal() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        let journal = journal(&host);
        silence_arp("eth0", &journal).expect("to set it");
        host.protect_sysctls();
        let failures = journal.undo_all(&Rtnetlink::connect().expect("netlink"), |_| Ok(())).await;
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(Journal::open(host.dir()).expect("a journal").entries().sysctls.len(), 1);
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    sandbox(async |host: Sandbox| {
        let journal = journal(&host);
        for name in ["eth7", "", "..", "../../vm"] {
            let error = silence_arp(name, &journal).expect_err("there is none");
            assert!(matches!(error, SysctlError::NoInterface { .. }), "{name}: {error:?}");
        }
        assert!(journal.is_empty());
    });
}

#[test]
fn forwarding_is_read_for_each_interface() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        assert!(!forwards_ipv6("eth0").expect("a sysctl"));
        fs::write("/proc/sys/net/ipv6/conf/eth0/forwarding", "1").expect("a sysctl");
        assert!(forwards_ipv6("eth0").expect("a sysctl"));
        assert!(!forwards_ipv6("eth0x").expect("a sysctl"));
        assert!(!forwards_ipv6("eth7").expect("no IPv6 there"));
    });
}
