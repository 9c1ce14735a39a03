//! Attaching: modes, whose program is there already, and interfaces that come and go.

#[path = "support/bpf.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod bpf;

use std::path::Path;

use bpf::{Loaded, NIC, PEER, Sandbox, ifindex, ip, link_id, other_program, pass, run, unpinned, xdp_on};
use vip_agent::dataplane::{Dataplane, DataplaneError, LoadOptions, XdpMode, XdpModeChoice, cleanup};

fn occupied(attempt: Result<vip_agent::dataplane::Attached, DataplaneError>) -> String {
    match attempt {
        Err(error @ DataplaneError::Occupied { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn auto_means_generic_mode_on_a_veth() {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        assert_eq!(dataplane.attach_to(NIC).mode, XdpMode::Skb);
        assert_eq!(xdp_on(NIC), Some(("skb", dataplane.program_id())));
    });
}

#[test]
fn driver_mode_on_a_veth_is_taken_if_asked_for() {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Driver)).unwrap();
        assert_eq!(dataplane.attach_to(NIC).mode, XdpMode::Driver);
        assert_eq!(xdp_on(NIC), Some(("driver", dataplane.program_id())));
    });
}

#[test]
fn auto_means_driver_mode_where_a_driver_has_it() {
    Sandbox::run(|_| {
        ip("tuntap add name tap0 mode tap");
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        assert_eq!(dataplane.attach_to("tap0").mode, XdpMode::Driver);
        assert_eq!(xdp_on("tap0"), Some(("driver", dataplane.program_id())));
    });
}

#[test]
fn auto_falls_back_to_generic_mode_where_the_driver_has_none() {
    Sandbox::run(|_| {
        ip("link add bridge0 type bridge");
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        assert_eq!(dataplane.attach_to("bridge0").mode, XdpMode::Skb);
    });
}

#[test]
fn insisting_on_driver_mode_where_there_is_none_says_what_to_set() {
    Sandbox::run(|_| {
        ip("link add bridge0 type bridge");
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Driver)).unwrap();
        let error = dataplane.attach(ifindex("bridge0"), "bridge0").unwrap_err();
        assert!(matches!(error, DataplaneError::NoDriverMode { .. }), "{error}");
        assert!(error.to_string().contains("xdp_mode: auto"), "{error}");
        assert_eq!(xdp_on("bridge0"), None);
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        let error = dataplane.attach(9999, "eth7").unwrap_err();
        assert_eq!(error.to_string(), "no interface eth7 with index 9999 in this network namespace");
    });
}

#[test]
fn detaching_takes_the_program_off_at_once() {
    Sandbox::run(|sandbox| {
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.start();
        dataplane.detach(ifindex(NIC)).unwrap();
        assert_eq!(xdp_on(NIC), None);
        assert!(!sandbox.pin_dir().join("links").join(NIC).exists());
        assert!(!dataplane.attach_to(NIC).swapped, "it can be attached again");
    });
}

#[test]
fn attaching_twice_changes_nothing() {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        let first = dataplane.attach_to(NIC);
        let link = link_id(NIC);
        assert_eq!(dataplane.attach_to(NIC), first);
        assert_eq!(link_id(NIC), link);
    });
}

#[test]
fn each_interface_has_a_counter_slot_of_its_own() {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        let nic = dataplane.attach_to(NIC).slot;
        assert_ne!(dataplane.attach_to(PEER).slot, nic);
        dataplane.detach(ifindex(NIC)).unwrap();
        assert_eq!(dataplane.attach_to(NIC).slot, nic, "a free slot is used again");
    });
}

#[test]
fn somebody_elses_program_is_named_with_the_process_that_holds_it() {
    Sandbox::run(|sandbox| {
        let mut other = other_program();
        pass(&mut other).attach(NIC, aya::programs::XdpMode::Skb).unwrap();
        let (_, id) = xdp_on(NIC).unwrap();
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        let said = occupied(dataplane.attach(ifindex(NIC), NIC));
        let this_process = format!("pid {} (", std::process::id());
        let link = format!("`bpftool link detach id {}`", link_id(NIC).unwrap());
        let whose = format!("{NIC} already runs XDP program `pass` (id {id}, skb mode, loaded 2");
        for part in [&whose, " by uid 0), held by ", &this_process, &link, "or choose another interface"] {
            assert!(said.contains(part), "{part:?} is missing in: {said}");
        }
        assert_eq!(xdp_on(NIC), Some(("skb", id)), "it still runs");
    });
}

#[test]
fn a_program_attached_without_a_link_comes_with_the_command_that_removes_it() {
    Sandbox::run(|_| {
        let mut other = other_program();
        let id = pass(&mut other).info().unwrap().id();
        run("bpftool", &format!("net attach xdpgeneric id {id} dev {NIC}"));
        drop(other);
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        let said = occupied(dataplane.attach(ifindex(NIC), NIC));
        assert!(said.contains("held by no process"), "{said}");
        assert!(said.contains(&format!("`ip link set dev {NIC} xdpgeneric off`")), "{said}");
        ip(&format!("link set dev {NIC} xdpgeneric off"));
        dataplane.attach_to(NIC);
    });
}

#[test]
fn a_program_in_the_other_mode_occupies_the_interface_too() {
    Sandbox::run(|_| {
        let mut other = other_program();
        pass(&mut other).attach(NIC, aya::programs::XdpMode::Driver).unwrap();
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Skb)).unwrap();
        let said = occupied(dataplane.attach(ifindex(NIC), NIC));
        assert!(said.contains("driver mode"), "{said}");
    });
}

#[test]
fn another_viplane_is_recognised_and_its_process_named() {
    Sandbox::run(|sandbox| {
        let other = sandbox.loader(false);
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        let said = occupied(dataplane.attach(ifindex(NIC), NIC));
        assert!(said.contains(&format!("another viplane agent: stop pid {}", other.pid())), "{said}");
    });
}

#[test]
fn what_a_dead_viplane_pinned_elsewhere_is_recognised_and_cleaned_up() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let elsewhere =
            LoadOptions { pin_dir: Some(sandbox.bpffs().join("elsewhere")), ..LoadOptions::default() };
        let mut dataplane = Dataplane::load(&elsewhere).unwrap();
        let said = occupied(dataplane.attach(ifindex(NIC), NIC));
        assert!(said.contains("a dead viplane agent left it"), "{said}");
        assert!(said.contains("`vip-agent cleanup`"), "{said}");
        cleanup(&sandbox.pin_dir()).unwrap();
        dataplane.attach_to(NIC);
    });
}

#[test]
fn asking_whether_an_interface_is_free_changes_nothing() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let before = (xdp_on(NIC), link_id(NIC));
        let dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.check_interface(ifindex(NIC), NIC).unwrap();
        assert_eq!((xdp_on(NIC), link_id(NIC)), before);
        let mut other = other_program();
        pass(&mut other).attach(PEER, aya::programs::XdpMode::Skb).unwrap();
        assert!(dataplane.check_interface(ifindex(PEER), PEER).is_err());
    });
}

#[test]
fn the_pin_of_an_interface_that_was_replaced_is_replaced() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        ip(&format!("link del {NIC}"));
        ip(&format!("link add {NIC} type veth peer name {PEER}"));
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        assert!(!dataplane.start().swapped);
        assert_eq!(xdp_on(NIC), Some(("skb", dataplane.program_id())));
        drop(dataplane);
        assert_eq!(sandbox.pins(), Vec::<&Path>::new());
    });
}

#[test]
fn an_interface_replaced_under_a_running_agent_is_attached_again() {
    Sandbox::run(|sandbox| {
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.start();
        let gone = ifindex(NIC);
        ip(&format!("link del {NIC}"));
        ip(&format!("link add {NIC} type veth peer name {PEER}"));
        dataplane.detach(gone).unwrap();
        dataplane.attach_to(NIC);
        assert_eq!(xdp_on(NIC), Some(("skb", dataplane.program_id())));
    });
}

#[test]
fn a_renamed_interface_keeps_its_link_and_the_pin_follows() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let link = link_id(NIC);
        ip(&format!("link set {NIC} down"));
        ip(&format!("link set {NIC} name lan.5"));
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        assert!(dataplane.attach_to("lan.5").swapped);
        dataplane.commit().unwrap();
        assert_eq!(link_id("lan.5"), link);
        let links = sandbox.pin_dir().join("links");
        assert!(links.join("lan%2E5").exists() && !links.join(NIC).exists());
    });
}

#[test]
#[ignore = "a process of the tests above"]
fn a_loader_for_the_tests_to_kill() {
    bpf::be_the_loader();
}
