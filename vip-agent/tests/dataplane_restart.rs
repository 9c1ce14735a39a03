//! Restarts, kills and exits: what is left attached, what is swapped without a gap, what is removed.

#[path = "support/bpf.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod bpf;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bpf::{ArpClient, Loaded, NIC, PEER, Sandbox, VIP, VIP_MAC, ifindex, ip, link_id, unpinned, xdp_on};
use vip_agent::dataplane::{Dataplane, DataplaneError, LoadOptions, XdpModeChoice, cleanup};

fn nothing() -> Vec<PathBuf> {
    Vec::new()
}

#[test]
fn a_clean_exit_leaves_nothing() {
    Sandbox::run(|sandbox| {
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.start();
        assert!(sandbox.pin_dir().join("links").join(NIC).exists());
        dataplane.shutdown().unwrap();
        assert_eq!(xdp_on(NIC), None);
        assert_eq!(sandbox.pins(), nothing());
    });
}

#[test]
fn an_error_on_the_way_leaves_nothing_either() {
    Sandbox::run(|sandbox| {
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.attach_to(NIC);
        drop(dataplane);
        assert_eq!(xdp_on(NIC), None);
        assert_eq!(sandbox.pins(), nothing());
    });
}

#[test]
fn what_is_pinned_is_all_there() {
    Sandbox::run(|sandbox| {
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.start();
        let layout = sandbox.pin_dir().join(format!("layout-{}", vip_common::maps::LAYOUT_VERSION));
        let maps = [
            "COUNTERS",
            "DEADLINES",
            "EVENTS",
            "EVENT_GATES",
            "HANDOVERS",
            "HANDOVER_FLOWS",
            "VIPS4",
            "VIPS6",
            "VLANS",
        ];
        for pin in maps.map(|map| Path::new("maps").join(map)).iter().chain([&PathBuf::from("program")]) {
            assert!(layout.join(pin).exists(), "{}", pin.display());
        }
    });
}

#[test]
fn a_killed_agent_that_pins_leaves_its_program_attached_and_answering() {
    Sandbox::run(|sandbox| {
        let loader = sandbox.loader(true);
        let program = xdp_on(NIC);
        loader.kill();
        assert!(program.is_some());
        assert_eq!(xdp_on(NIC), program);
        assert_eq!(ArpClient::new().ask(VIP), Some(VIP_MAC), "its deadline has not passed");
    });
}

#[test]
fn a_killed_agent_that_does_not_pin_vanishes() {
    Sandbox::run(|sandbox| {
        let loader = sandbox.loader(false);
        assert!(xdp_on(NIC).is_some());
        loader.kill();
        assert_eq!(xdp_on(NIC), None);
        assert_eq!(sandbox.pins(), nothing());
    });
}

#[test]
fn cleanup_removes_what_a_killed_agent_left() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let report = cleanup(&sandbox.pin_dir()).unwrap();
        assert_eq!(xdp_on(NIC), None, "detached at once");
        assert_eq!(sandbox.pins(), nothing());
        assert_eq!(report.removed[0], sandbox.pin_dir().join("links").join(NIC));
        assert_eq!(report.left, nothing());
    });
}

#[test]
fn cleanup_leaves_alone_what_is_not_ours() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let theirs = sandbox.pin_dir().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        let report = cleanup(&sandbox.pin_dir()).unwrap();
        assert_eq!(report.left, std::slice::from_ref(&theirs));
        assert_eq!(sandbox.pins(), [sandbox.pin_dir(), theirs]);
    });
}

#[test]
fn cleanup_where_nothing_is_does_nothing() {
    Sandbox::run(|sandbox| {
        assert_eq!(cleanup(&sandbox.pin_dir()).unwrap().removed, nothing());
    });
}

#[test]
fn cleanup_refuses_while_an_agent_runs() {
    Sandbox::run(|sandbox| {
        let _agent = sandbox.loader(true);
        let before = sandbox.pins();
        let refused = cleanup(&sandbox.pin_dir()).unwrap_err();
        assert!(matches!(refused, DataplaneError::PinDirInUse { .. }), "{refused}");
        assert_eq!(sandbox.pins(), before);
    });
}

#[test]
fn a_second_agent_on_the_same_pin_dir_is_refused() {
    Sandbox::run(|sandbox| {
        let _agent = sandbox.loader(true);
        let before = (sandbox.pins(), xdp_on(NIC));
        let refused = Dataplane::load(&sandbox.pinned()).unwrap_err();
        assert!(matches!(refused, DataplaneError::PinDirInUse { .. }), "{refused}");
        assert_eq!((sandbox.pins(), xdp_on(NIC)), before);
    });
}

#[test]
fn a_restart_swaps_the_program_within_the_same_link() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let (link, former) = (link_id(NIC), xdp_on(NIC));
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        assert_eq!(xdp_on(NIC), former, "loading changes nothing");
        assert!(dataplane.start().swapped);
        assert_eq!(link_id(NIC), link);
        assert_eq!(xdp_on(NIC), Some(("skb", dataplane.program_id())));
        assert_ne!(xdp_on(NIC), former);
    });
}

#[test]
fn nothing_stale_survives_a_restart() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.attach_to(NIC);
        assert_eq!(dataplane.vip(ifindex(NIC), VIP.into()).unwrap(), None);
        assert!(ArpClient::new().nobody_has(VIP));
    });
}

#[test]
fn no_question_goes_unanswered_while_agents_are_killed_and_restarted() {
    Sandbox::run(|sandbox| {
        let client = ArpClient::new();
        sandbox.loader(true).kill();
        let stop = AtomicBool::new(false);
        let (asked, unanswered) = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let (mut asked, mut unanswered) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    asked += 1;
                    unanswered += u32::from(client.ask(VIP) != Some(VIP_MAC));
                }
                (asked, unanswered)
            });
            for _ in 0..5 {
                sandbox.loader(true).kill();
            }
            stop.store(true, Ordering::Relaxed);
            client.join().unwrap()
        });
        assert!(asked > 100, "{asked} questions are too few to tell");
        assert_eq!(unanswered, 0, "of {asked}");
    });
}

#[test]
fn a_kill_at_any_moment_of_a_restart_leaves_a_program_at_work() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let client = ArpClient::new();
        let began = Instant::now();
        let mut starting = sandbox.loader_starting();
        starting.wait_for("attached");
        let takes = began.elapsed();
        starting.kill();
        for moment in 0..20 {
            let starting = sandbox.loader_starting();
            std::thread::sleep(takes * moment / 20);
            starting.kill();
            assert_eq!(client.ask(VIP), Some(VIP_MAC), "killed after {moment}/20 of {takes:?}");
        }
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        assert!(dataplane.start().swapped);
        drop(dataplane);
        assert_eq!(sandbox.pins(), nothing());
    });
}

#[test]
fn what_a_kill_in_the_middle_left_is_tidied_up() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        // Killed between the two renames, and before a link pin had its name.
        let layout =
            |suffix| sandbox.pin_dir().join(format!("layout-{}{suffix}", vip_common::maps::LAYOUT_VERSION));
        std::fs::rename(layout(""), layout("-old")).unwrap();
        std::fs::create_dir(layout("-new")).unwrap();
        let links = sandbox.pin_dir().join("links");
        std::fs::rename(links.join(NIC), links.join("%new")).unwrap();
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        assert!(dataplane.start().swapped);
        assert!(layout("").exists() && !layout("-old").exists() && !layout("-new").exists());
        assert!(links.join(NIC).exists() && !links.join("%new").exists());
    });
}

#[test]
fn another_mode_means_another_link() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let driver = LoadOptions { xdp_mode: XdpModeChoice::Driver, ..sandbox.pinned() };
        let mut dataplane = Dataplane::load(&driver).unwrap();
        assert!(!dataplane.start().swapped);
        assert_eq!(xdp_on(NIC), Some(("driver", dataplane.program_id())));
        dataplane.shutdown().unwrap();
        assert_eq!(sandbox.pins(), nothing());
    });
}

#[test]
fn an_interface_that_left_the_configuration_is_detached_when_the_agent_takes_charge() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.attach_to(PEER);
        assert!(xdp_on(NIC).is_some(), "not yet");
        dataplane.commit().unwrap();
        assert_eq!(xdp_on(NIC), None);
        assert!(!sandbox.pin_dir().join("links").join(NIC).exists());
    });
}

#[test]
fn another_layout_is_replaced_in_one_step() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let ours = sandbox.pin_dir().join(format!("layout-{}", vip_common::maps::LAYOUT_VERSION));
        let older = sandbox.pin_dir().join("layout-0");
        std::fs::rename(&ours, &older).unwrap();
        let link = link_id(NIC);
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        assert!(older.exists());
        assert!(dataplane.start().swapped);
        assert_eq!(link_id(NIC), link);
        assert!(ours.exists() && !older.exists());
    });
}

#[test]
fn without_a_bpf_file_system_the_error_names_the_mount_command() {
    Sandbox::run(|sandbox| {
        let elsewhere = tempfile::tempdir().unwrap();
        let pin_dir = elsewhere.path().join("viplane");
        let options = LoadOptions { pin_dir: Some(pin_dir.clone()), ..sandbox.pinned() };
        let error = Dataplane::load(&options).unwrap_err().to_string();
        assert!(error.contains("not on a BPF file system"), "{error}");
        assert!(error.contains("`mount -t bpf bpf /sys/fs/bpf`, or set `pin_dir: null`"), "{error}");
        assert!(!pin_dir.exists());
    });
}

#[test]
fn unpinned_agents_need_no_bpf_file_system() {
    Sandbox::run(|sandbox| {
        nix::mount::umount(&sandbox.bpffs()).unwrap();
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        dataplane.start();
        assert_eq!(ArpClient::new().ask(VIP), Some(VIP_MAC));
    });
}

#[test]
fn a_pin_of_another_namespaces_interface_of_the_same_index_is_not_swapped() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip(&format!("link add {NIC} type veth peer name {PEER}"));
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        assert!(!dataplane.attach_to(NIC).swapped);
        assert_eq!(xdp_on(NIC), Some(("skb", dataplane.program_id())));
    });
}

#[test]
#[ignore = "a process of the tests above"]
fn a_loader_for_the_tests_to_kill() {
    bpf::be_the_loader();
}
