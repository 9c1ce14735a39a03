//! What must hold before anything is changed: privileges, a BPF file system, and what the kernel offers.

use std::fmt;
use std::io;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use aya::util::KernelVersion;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::CapabilitySet;

use super::loader::LoadFailure;
use super::{DataplaneError, sys};

/// Checks the effective capabilities of the calling thread.
///
/// CAP_BPF and CAP_PERFMON exist since Linux 5.8; CAP_SYS_ADMIN contains both, and the right to load XDP programs.
pub(super) fn privileges() -> Result<(), DataplaneError> {
    require(missing_capabilities(effective()?))
}

/// Checks those that the rest of the agent needs as well: netlink and raw sockets do not take CAP_SYS_ADMIN instead.
pub(super) fn agent_privileges() -> Result<(), DataplaneError> {
    let effective = effective()?;
    let mut missing = missing_capabilities(effective);
    for (capability, name) in
        [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::NET_RAW, "CAP_NET_RAW")]
    {
        if !effective.contains(capability) && !missing.contains(&name) {
            missing.push(name);
        }
    }
    require(missing)
}

fn effective() -> Result<CapabilitySet, DataplaneError> {
    let sets = rustix::thread::capabilities(None)
        .map_err(|error| DataplaneError::Refused { what: "capget(2)".to_owned(), source: error.into() })?;
    Ok(sets.effective)
}

fn require(missing: Vec<&'static str>) -> Result<(), DataplaneError> {
    if missing.is_empty() { Ok(()) } else { Err(DataplaneError::MissingCapability { missing }) }
}

fn missing_capabilities(effective: CapabilitySet) -> Vec<&'static str> {
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|(capability, _)| !effective.contains(*capability))
    .map(|(_, name)| name)
    .collect()
}

/// Checks that a directory lies on a BPF file system, or would if it were created.
pub(super) fn bpffs(pin_dir: &Path) -> Result<(), DataplaneError> {
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let fs = rustix::fs::statfs(existing)
        .map_err(io::Error::from)
        .map_err(DataplaneError::file("look at the file system", existing))?;
    if i128::from(fs.f_type) == i128::from(libc::BPF_FS_MAGIC) {
        Ok(())
    } else {
        Err(DataplaneError::NotBpffs { path: existing.to_owned() })
    }
}

/// Lifts the limit on locked memory where BPF maps still count against it (before Linux 5.11).
pub(super) fn memory_limit() {
    if KernelVersion::current().is_ok_and(|running| running >= KernelVersion::new(5, 11, 0)) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }) {
        tracing::warn!(%error, "cannot lift RLIMIT_MEMLOCK: BPF maps may not fit");
    }
}

/// Something of the kernel that the program or the agent cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// XDP programs.
    Xdp,
    /// Attaching XDP programs by a link, which can be pinned and updated in place.
    XdpLink,
    /// Array maps in shared memory.
    MmapableArray,
    /// Ring buffer maps.
    RingBuffer,
    /// Hash maps that forget their least recently used entries.
    LruHash,
    /// Looking up TCP sockets from XDP.
    SkcLookupTcp,
    /// The cheap clock.
    CoarseClock,
    /// Programs that take frames in fragments, without which an interface with jumbo frames refuses them.
    Fragments,
}

impl Feature {
    /// All of them, the most basic first.
    pub const ALL: [Self; 8] = [
        Self::Xdp,
        Self::LruHash,
        Self::SkcLookupTcp,
        Self::MmapableArray,
        Self::RingBuffer,
        Self::XdpLink,
        Self::CoarseClock,
        Self::Fragments,
    ];

    /// The release of Linux that brought it; distributions may have it in older ones.
    pub const fn since(self) -> &'static str {
        match self {
            Self::Xdp => "4.8",
            Self::LruHash => "4.10",
            Self::SkcLookupTcp => "5.2",
            Self::MmapableArray => "5.5",
            Self::RingBuffer => "5.8",
            Self::XdpLink => "5.9",
            Self::CoarseClock => "5.11",
            Self::Fragments => "5.18",
        }
    }

    /// Asks the kernel. A probe that cannot tell counts as present, so that the true error is shown instead.
    pub fn is_present(self) -> bool {
        match self {
            Self::Xdp => is_program_supported(ProgramType::Xdp).unwrap_or(true),
            Self::LruHash => is_map_supported(MapType::LruHash).unwrap_or(true),
            Self::RingBuffer => is_map_supported(MapType::RingBuf).unwrap_or(true),
            Self::SkcLookupTcp => helper(BpfHelper::BPF_FUNC_skc_lookup_tcp),
            Self::CoarseClock => helper(BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
            Self::MmapableArray => sys::has_mmapable_arrays(),
            Self::XdpLink => sys::has_xdp_links(),
            Self::Fragments => sys::has_xdp_fragments(),
        }
    }
}

fn helper(helper: BpfHelper) -> bool {
    is_helper_supported(ProgramType::Xdp, helper).unwrap_or(true)
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "XDP programs (CONFIG_BPF_SYSCALL, CONFIG_NET)",
            Self::LruHash => "LRU hash maps",
            Self::SkcLookupTcp => "bpf_skc_lookup_tcp in XDP",
            Self::MmapableArray => "mmapable array maps",
            Self::RingBuffer => "BPF ring buffers",
            Self::XdpLink => "BPF links for XDP",
            Self::CoarseClock => "bpf_ktime_get_coarse_ns",
            Self::Fragments => "XDP on frames in fragments",
        })
    }
}

/// Links are needed only after everything is loaded: this is asked before.
pub(super) fn xdp_links() -> Result<(), DataplaneError> {
    if Feature::XdpLink.is_present() { Ok(()) } else { Err(missing(Feature::XdpLink)) }
}

fn missing(feature: Feature) -> DataplaneError {
    DataplaneError::FeatureMissing { feature, running: release() }
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Names the reason why the object did not load: a missing privilege, a missing feature, or the verifier.
pub(super) fn diagnose(failure: LoadFailure, is_present: impl Fn(Feature) -> bool) -> DataplaneError {
    let (what, program, source, log) = match failure {
        LoadFailure::Object(reason) => return DataplaneError::BadObject { reason },
        LoadFailure::Map { name, error } => (format!("to make the BPF map {name}"), "", error, String::new()),
        LoadFailure::Program { name, error, log } => {
            (format!("to load the program {name}"), name, error, log)
        }
    };
    // A verifier that refuses leaves a log; EPERM without one is a matter of privilege.
    if source.raw_os_error() == Some(libc::EPERM) && log.trim().is_empty() {
        return DataplaneError::Refused { what, source };
    }
    if let Some(feature) = Feature::ALL.into_iter().find(|feature| !is_present(*feature)) {
        return missing(feature);
    }
    if log.trim().is_empty() {
        return DataplaneError::Failed { what, source };
    }
    DataplaneError::VerifierRefused { program, running: release(), log: tail(&log), source }
}

const LOG_LINES: usize = 12;

/// The end of a log: where the verifier says what it did not like.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_by_the_verifier(log: &str) -> LoadFailure {
        let error = io::Error::from_raw_os_error(libc::EINVAL);
        LoadFailure::Program { name: "vip_steer4", error, log: log.to_owned() }
    }

    fn refused_map(errno: i32) -> LoadFailure {
        LoadFailure::Map { name: "EVENTS".to_owned(), error: io::Error::from_raw_os_error(errno) }
    }

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(missing_capabilities(CapabilitySet::empty()), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing_capabilities(CapabilitySet::BPF | CapabilitySet::PERFMON), ["CAP_NET_ADMIN"]);
    }

    #[test]
    fn sys_admin_stands_for_the_others() {
        assert!(missing_capabilities(CapabilitySet::SYS_ADMIN).is_empty());
    }

    #[test]
    fn a_missing_feature_is_named_with_its_release() {
        for feature in Feature::ALL {
            let error = diagnose(refused_map(libc::EINVAL), |asked| asked != feature).to_string();
            assert!(error.contains(&feature.to_string()), "{error}");
            assert!(error.contains(&format!("Linux {}:", feature.since())), "{error}");
        }
    }

    #[test]
    fn a_refusal_by_the_verifier_shows_the_end_of_its_log() {
        let log: String = (0..100).map(|line| format!("line {line}\n")).collect();
        let error = diagnose(refused_by_the_verifier(&log), |_| true);
        assert!(error.to_string().contains("the program vip_steer4"), "{error}");
        let DataplaneError::VerifierRefused { log, .. } = error else { panic!("{error}") };
        assert!(log.starts_with("line 88\n") && log.ends_with("line 99"), "{log}");
    }

    #[test]
    fn a_missing_helper_is_no_fault_of_the_program() {
        let log = "invalid func unknown#160";
        let error = diagnose(refused_by_the_verifier(log), |asked| asked != Feature::CoarseClock);
        assert!(
            matches!(error, DataplaneError::FeatureMissing { feature: Feature::CoarseClock, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_lack_of_memory_is_no_lack_of_features() {
        let error = diagnose(refused_map(libc::ENOMEM), |_| true).to_string();
        assert!(error.starts_with("cannot make the BPF map EVENTS: Cannot allocate memory"), "{error}");
    }

    #[test]
    fn a_kernel_that_forbids_is_not_called_too_old() {
        let error = diagnose(refused_map(libc::EPERM), |_| false);
        assert!(matches!(error, DataplaneError::Refused { .. }), "{error}");
    }
}
