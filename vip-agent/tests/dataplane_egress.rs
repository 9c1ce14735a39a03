//! The TC program of services: attached, pinned, swapped and removed as that of XDP, beside those of others.

#[path = "support/bpf.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod bpf;

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::PathBuf;

use aya::maps::MapData;
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use bpf::{Loaded, NIC, PEER, Sandbox, be_the_loader_with, ifindex, run, unpinned};
use vip_agent::dataplane::{Dataplane, DataplaneError, XdpModeChoice, cleanup};
use vip_common::steering::maglev::RingSize;

const PROGRAM: &str = "vip_egress";

fn load_steering(dataplane: &mut Dataplane) {
    dataplane.load_steering(RingSize::new(251).expect("a prime")).expect("steering");
}

/// The programs of TCX links on the way out of an interface, in the order in which they run.
fn programs_of(interface: &str) -> Vec<ProgramInfo> {
    SchedClassifier::query_tcx(interface, TcAttachType::Egress).expect("a kernel that has them").1
}

/// The id of the link by which the program runs there.
fn runs_on(interface: &str) -> Option<u64> {
    let programs = programs_of(interface);
    let ours = programs.iter().find(|program| program.name_as_str() == Some(PROGRAM))?;
    let links: serde_json::Value = serde_json::from_str(&run("bpftool", "-j link show")).expect("JSON");
    let link = links.as_array().expect("a list").iter().find(|link| link["prog_id"] == ours.id());
    link.and_then(|link| link["id"].as_u64())
}

/// Whether a filter runs it on [`NIC`].
fn is_filter() -> bool {
    run("tc", &format!("filter show dev {NIC} egress")).contains(PROGRAM)
}

fn pin(sandbox: &Sandbox) -> PathBuf {
    sandbox.pin_dir().join("egress").join(NIC)
}

#[test]
#[ignore = "what other tests start"]
fn a_loader_for_the_tests_to_kill() {
    be_the_loader_with(load_steering);
}

#[test]
fn it_comes_with_steering_whichever_came_first_and_goes_with_the_interface() {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        dataplane.attach_to(NIC);
        assert_eq!(runs_on(NIC), None, "without services");
        load_steering(&mut dataplane);
        assert!(runs_on(NIC).is_some());
        dataplane.attach_to(PEER);
        assert!(runs_on(PEER).is_some());
        dataplane.detach(ifindex(PEER)).unwrap();
        assert_eq!(runs_on(PEER), None);
        dataplane.shutdown().unwrap();
        assert_eq!(runs_on(NIC), None);
    });
}

#[test]
fn a_killed_agents_link_stays_and_the_next_one_takes_it_over() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let left = runs_on(NIC).expect("it stays");
        assert!(pin(sandbox).exists());
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        load_steering(&mut dataplane);
        dataplane.start();
        assert_eq!(runs_on(NIC), Some(left), "the same link, without a gap");
        drop(dataplane);
        assert_eq!((runs_on(NIC), sandbox.pins()), (None, vec![]));
    });
}

#[test]
fn an_agent_without_services_removes_what_one_with_them_left() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.start();
        assert_eq!(runs_on(NIC), None);
        assert!(!pin(sandbox).exists());
    });
}

#[test]
fn cleanup_removes_it() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let report = cleanup(&sandbox.pin_dir()).unwrap();
        assert!(report.removed.contains(&pin(sandbox)) && report.left.is_empty(), "{report:?}");
        assert_eq!((runs_on(NIC), sandbox.pins()), (None, vec![]));
    });
}

#[test]
fn a_filter_goes_with_its_agent() {
    Sandbox::run(|sandbox| {
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.attach_by_filters();
        load_steering(&mut dataplane);
        dataplane.start();
        assert!(is_filter() && programs_of(NIC).is_empty());
        drop(dataplane);
        assert!(!is_filter());
    });
}

#[test]
fn those_of_others_are_left_alone_and_cannot_keep_packets_from_it() {
    Sandbox::run(|_| {
        let mut administrators = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        load_steering(&mut administrators);
        let id = id_of(administrators.egress_program().unwrap());
        let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id).unwrap();
        let mut other = SchedClassifier::from_program_info(info, "other".into()).unwrap();
        other.attach(NIC, TcAttachType::Egress).unwrap();
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        load_steering(&mut dataplane);
        dataplane.attach_to(NIC);
        let order = || programs_of(NIC).iter().map(ProgramInfo::id).collect::<Vec<_>>();
        assert_eq!(order(), [id_of(dataplane.egress_program().unwrap()), id]);
        drop(dataplane);
        assert_eq!(order(), [id]);
    });
}

fn id_of(program: BorrowedFd<'_>) -> u32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()));
    let info = info.expect("what the kernel says of a descriptor");
    let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")).expect("a program");
    id.trim().parse().expect("a number")
}

#[test]
fn a_pin_that_is_something_else_is_named_and_nothing_changed() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        std::fs::remove_file(pin(sandbox)).unwrap();
        std::fs::rename(sandbox.pin_dir().join("links").join(NIC), pin(sandbox)).unwrap();
        let error = Dataplane::load(&sandbox.pinned()).unwrap_err();
        assert!(matches!(error, DataplaneError::CorruptPin { .. }), "{error}");
        assert!(error.to_string().contains("expected the TCX link of a `vip_egress` program"), "{error}");
    });
}

#[test]
fn flows_of_local_backends_outlive_the_agent() {
    Sandbox::run(|sandbox| {
        sandbox.loader(true).kill();
        let pinned = || {
            let path = sandbox.pins().into_iter().find(|path| path.ends_with("LOCAL_FLOWS")).expect("pinned");
            MapData::from_pin(path).unwrap()
        };
        let former = pinned().info().unwrap().id();
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        load_steering(&mut dataplane);
        dataplane.start();
        let map = dataplane.steering_map("LOCAL_FLOWS").unwrap().try_clone_to_owned().unwrap();
        assert_eq!(MapData::from_fd(map).unwrap().info().unwrap().id(), former);
        assert_eq!(pinned().info().unwrap().id(), former);
    });
}
