//! What a NIC says of its VLAN tags.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use vip_agent::net::offload::strips_vlan_tags;

fn run(program: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split(' ')).status().expect("a program");
    assert!(status.success(), "{program} {arguments}");
}

#[test]
fn a_nic_that_takes_tags_off_is_told_from_one_that_does_not() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: these tests need root");
    run("ip", "link add near type veth peer name far");
    for (setting, expected) in [("off", false), ("on", true)] {
        run("ethtool", &format!("-K near rxvlan {setting}"));
        assert_eq!(strips_vlan_tags("near").unwrap(), expected);
    }
    assert!(!strips_vlan_tags("lo").unwrap());
    assert!(strips_vlan_tags("missing").is_err());
}
