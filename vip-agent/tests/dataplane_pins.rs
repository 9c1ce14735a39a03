//! Corrupt pins: whatever else lies where we pin is named and left alone, until cleanup removes it.

#[path = "support/bpf.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod bpf;

use std::path::{Path, PathBuf};

use bpf::{Loaded, NIC, PEER, Sandbox, other_program, pass, xdp_on};
use vip_agent::dataplane::{Dataplane, DataplaneError, cleanup};

/// Puts something in the place of a pin of a dead agent; loading must refuse it, name it, and change nothing; and
/// cleanup must remove it.
fn corrupt(pin: &str, spoil: fn(&Path), found: &str) {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let path = sandbox.pin_dir().join(pin);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).expect("remove");
        } else {
            std::fs::remove_file(&path).expect("remove");
        }
        // An unpinned link is detached by a kernel worker, a moment later.
        while pin.starts_with("links") && xdp_on(NIC).is_some() {
            std::thread::yield_now();
        }
        spoil(&path);
        let before = (sandbox.pins(), xdp_on(NIC));
        let error = Dataplane::load(&sandbox.pinned()).expect_err("a refusal");
        assert!(
            matches!(&error, DataplaneError::CorruptPin { path: named, .. } if *named == path),
            "{error}"
        );
        let said = error.to_string();
        assert!(said.contains(&format!("found {found}")), "{said}");
        assert!(said.contains("`vip-agent cleanup`"), "{said}");
        assert_eq!((sandbox.pins(), xdp_on(NIC)), before, "nothing has changed");
        cleanup(&sandbox.pin_dir()).expect("cleanup");
        assert_eq!(sandbox.pins(), Vec::<PathBuf>::new());
        Dataplane::load(&sandbox.pinned()).expect("load").start();
    });
}

fn pin_a_map(path: &Path) {
    let ebpf = other_program();
    ebpf.map("EVENT_GATES").expect("pinned").pin(path).expect("pinned");
}

fn pin_a_program(path: &Path) {
    let mut ebpf = other_program();
    pass(&mut ebpf).pin(path).expect("pinned");
}

fn make_a_directory(path: &Path) {
    std::fs::create_dir(path).expect("pinned");
}

#[test]
fn a_map_in_the_place_of_a_link_is_refused() {
    corrupt("links/nic", pin_a_map, "a map");
}

#[test]
fn a_program_in_the_place_of_a_link_is_refused() {
    corrupt("links/nic", pin_a_program, "a program");
}

#[test]
fn a_directory_in_the_place_of_a_link_is_refused() {
    corrupt("links/nic", make_a_directory, "a directory");
}

#[test]
fn a_link_to_another_program_is_refused() {
    let pin_a_link = |path: &Path| {
        let mut ebpf = other_program();
        let program = pass(&mut ebpf);
        let link = program.attach(PEER, aya::programs::XdpMode::Skb).unwrap();
        let link: aya::programs::links::FdLink = program.take_link(link).unwrap().try_into().unwrap();
        link.pin(path).unwrap();
    };
    corrupt("links/nic", pin_a_link, "the link of the program `pass`");
}

#[test]
fn a_map_in_the_place_of_the_links_is_refused() {
    corrupt("links", pin_a_map, "a map");
}

#[test]
fn a_map_of_other_sizes_is_refused() {
    corrupt("layout-4/maps/VIPS4", pin_a_map, "a map of 4-byte keys and 8-byte values");
}

#[test]
fn a_program_in_the_place_of_a_map_is_refused() {
    corrupt("layout-4/maps/DEADLINES", pin_a_program, "a program");
}

#[test]
fn another_program_in_the_place_of_ours_is_refused() {
    corrupt("layout-4/program", pin_a_program, "the program `pass`");
}

#[test]
fn a_map_in_the_place_of_the_layout_is_refused() {
    corrupt("layout-4", pin_a_map, "a map");
}

#[test]
#[ignore = "a process of the tests above"]
fn a_loader_for_the_tests_to_kill() {
    bpf::be_the_loader();
}
