//! Asks the host what it allows, by trying it on threads and a network namespace that end again.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::Access;
use rustix::time::{ClockId, clock_getres};

use super::super::host::{Host, Trial};
use crate::dataplane::{Dataplane, Feature, LoadOptions, check_privileges};
use crate::types::XdpModeChoice;
use crate::vrrp::driver::realtime;

/// The first interface of any network namespace, there from its beginning.
const LOOPBACK: (u32, &str) = (1, "lo");

/// Looks at the host. Blocks for some tens of milliseconds.
pub(in super::super) fn host() -> Host {
    let privileges = check_privileges().map_err(|error| error.to_string());
    let privileged = privileges.is_ok();
    Host {
        release: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        features: if privileged {
            Feature::ALL.map(|feature| (feature, feature.is_present())).to_vec()
        } else {
            Vec::new()
        },
        program: if privileged { aside(try_program) } else { Trial::NotTried },
        privileges,
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        own_program: rustix::fs::access("/proc/self/exe", Access::EXEC_OK)
            .map_err(|error| format!("/proc/self/exe: {error}")),
        real_time: aside(|| realtime::scheduling(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK)),
        real_time_budget: number("/proc/sys/kernel/sched_rt_runtime_us"),
        memory: realtime::memory(),
        clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        clock_resolution: Duration::try_from(clock_getres(ClockId::Monotonic)).unwrap_or(Duration::MAX),
    }
}

/// The program that follows a cluster, and whether it can be started.
pub(in super::super) fn vip_kube() -> (PathBuf, Result<(), String>) {
    let program = crate::kube::program();
    let startable = rustix::fs::access(&program, Access::EXEC_OK).map_err(|error| error.to_string());
    (program, startable)
}

/// Does something on a thread of its own, which takes what was changed of it to its end.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Loads the program as the agent would, pinned nowhere, and attaches it where nobody is.
fn try_program() -> Trial {
    let alone = unshare(CloneFlags::CLONE_NEWNET);
    let options = LoadOptions { pin_dir: None, xdp_mode: XdpModeChoice::Skb };
    let mut dataplane = match Dataplane::load(&options) {
        Ok(dataplane) => dataplane,
        Err(error) => return Trial::Refused(error.to_string()),
    };
    let instructions = dataplane.verified_instructions();
    if let Err(errno) = alone {
        return Trial::Loaded { instructions, why: format!("no network namespace for it ({errno})") };
    }
    let (ifindex, name) = LOOPBACK;
    match dataplane.attach(ifindex, name) {
        Ok(_) => Trial::Attached { instructions },
        Err(error) => Trial::Refused(error.to_string()),
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    read(path)?.parse().ok()
}
