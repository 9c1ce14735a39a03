//! Missing privileges, kernels that lack something or forbid it, objects that do not fit: named, and nothing changed.

#[path = "support/bpf.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod bpf;

use bpf::{Loaded, PEER, Sandbox, unpinned};
use rustix::thread::{CapabilitySet, CapabilitySets};
use vip_agent::dataplane::{Dataplane, DataplaneError, Feature, OBJECT, XdpModeChoice};

#[test]
fn each_missing_privilege_is_named_and_nothing_is_changed() {
    Sandbox::run(|sandbox| {
        let rights = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        let inheritable = CapabilitySet::empty();
        let sets = CapabilitySets { effective: rights, permitted: rights, inheritable };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = Dataplane::load(&sandbox.pinned()).unwrap_err();
        assert!(
            matches!(&error, DataplaneError::MissingCapability { missing } if missing == &["CAP_PERFMON"]),
            "{error}"
        );
        assert!(error.to_string().starts_with("missing CAP_PERFMON: run as root"), "{error}");
        assert!(!sandbox.pin_dir().exists());
    });
}

#[test]
fn the_three_capabilities_suffice() {
    Sandbox::run(|sandbox| {
        let rights = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
        let inheritable = CapabilitySet::empty();
        let sets = CapabilitySets { effective: rights, permitted: rights, inheritable };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let mut dataplane = Dataplane::load(&sandbox.pinned()).unwrap();
        dataplane.attach_to(PEER);
        dataplane.commit().unwrap();
        dataplane.shutdown().unwrap();
    });
}

#[test]
fn a_stale_object_is_not_believed() {
    Sandbox::run(|_| {
        let renamed = replace(OBJECT.to_vec(), b"EVENT_GATES", b"EVENT_GATEZ");
        let error = Dataplane::load_object(&unpinned(XdpModeChoice::Auto), &renamed).unwrap_err();
        assert!(matches!(error, DataplaneError::BadObject { .. }), "{error}");
        assert!(error.to_string().contains("no map EVENT_GATES"), "{error}");
    });
}

fn replace(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    for start in 0..bytes.len() - from.len() {
        if &bytes[start..start + from.len()] == from {
            bytes[start..start + from.len()].copy_from_slice(to);
        }
    }
    bytes
}

#[test]
fn this_kernel_has_every_feature_that_is_asked_for() {
    Sandbox::run(|_| {
        for feature in Feature::ALL {
            assert!(feature.is_present(), "{feature}");
        }
    });
}

#[test]
fn a_kernel_without_links_for_xdp_is_named_so_before_anything_is_changed() {
    Sandbox::run(|sandbox| {
        refuse_bpf_command(LINK_DETACH);
        let error = Dataplane::load(&sandbox.pinned()).unwrap_err();
        assert!(matches!(error, DataplaneError::FeatureMissing { feature: Feature::XdpLink, .. }), "{error}");
        assert!(error.to_string().contains("came with Linux 5.9"), "{error}");
        assert!(!sandbox.pin_dir().exists());
    });
}

#[test]
fn a_host_that_forbids_bpf_in_spite_of_the_capabilities_is_told_apart() {
    Sandbox::run(|sandbox| {
        answer_bpf_command(MAP_CREATE, libc::EPERM);
        let error = Dataplane::load(&sandbox.pinned()).unwrap_err();
        assert!(matches!(error, DataplaneError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("seccomp"), "{error}");
        assert!(!sandbox.pin_dir().exists());
    });
}

const MAP_CREATE: u32 = 0;
const LINK_DETACH: u32 = 34;

/// Makes the calling thread's kernel one that does not know a command of bpf(2).
fn refuse_bpf_command(command: u32) {
    answer_bpf_command(command, libc::EINVAL);
}

/// Has a seccomp filter answer a command of bpf(2), for the calling thread.
fn answer_bpf_command(command: u32, errno: i32) {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let skip_unless = |value, skip| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skip);
    let verdict = |value| statement(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    let number = u32::try_from(libc::SYS_bpf).expect("a number");
    // Offsets into struct seccomp_data: the call's number, the low half of its first argument (little-endian).
    let mut filter = [
        load(0),
        skip_unless(number, 3),
        load(16),
        skip_unless(command, 1),
        verdict(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()),
        verdict(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to the six instructions above, alive across the call; the filter binds this thread
    // only, which ends with its test.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("a code"), jt, jf, k }
}
