//! What can go wrong on the BPF side, each with the place and the remedy.

use std::io;
use std::path::PathBuf;

use super::checks::Feature;
use super::holder::Occupant;

/// An error of the dataplane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataplaneError {
    /// The process lacks capabilities.
    #[error(
        "missing {}: run as root, or grant CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW (CAP_SYS_ADMIN stands for the first two)",
        .missing.join(" and ")
    )]
    MissingCapability {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// The process has the capabilities, and the kernel refuses all the same.
    #[error(
        "the kernel refuses {what} although the capabilities are there: run outside of a user namespace, \
         and look for a seccomp profile, an LSM or kernel lockdown that denies bpf(2)"
    )]
    Refused {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel failed for a reason of its own (memory, for one).
    #[error("cannot {}: {source}", .what.trim_start_matches("to "))]
    Failed {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `pin_dir` lies on another kind of file system.
    #[error("{path}: not on a BPF file system: `mount -t bpf bpf /sys/fs/bpf`, or set `pin_dir: null`", path = .path.display())]
    NotBpffs {
        /// `pin_dir`, or the nearest directory above it that exists.
        path: PathBuf,
    },
    /// Another process holds the lock on `pin_dir`.
    #[error("{path}: another agent uses this pin_dir (agents of different network namespaces need different ones)", path = .path.display())]
    PinDirInUse {
        /// `pin_dir`.
        path: PathBuf,
    },
    /// The kernel lacks something.
    #[error("this kernel ({running}) lacks {feature}, which came with Linux {}: run a newer kernel", .feature.since())]
    FeatureMissing {
        /// What it lacks.
        feature: Feature,
        /// Its release.
        running: String,
    },
    /// The verifier did not accept the program.
    #[error(
        "the kernel's verifier refused the program {program} (kernel {running}); the end of its log:\n{log}"
    )]
    VerifierRefused {
        /// Its name.
        program: &'static str,
        /// The kernel's release.
        running: String,
        /// The last lines of the log.
        log: String,
        /// The system call's error.
        #[source]
        source: io::Error,
    },
    /// The object that was built in is not what this agent expects.
    #[error(
        "the built-in BPF object does not fit this agent: {reason}: build it anew with `cargo xtask build-ebpf`"
    )]
    BadObject {
        /// What is wrong with it.
        reason: String,
    },
    /// A path of ours pins something that we did not put there.
    #[error("{path}: expected {expected}, found {found}: remove what is pinned with `vip-agent cleanup`", path = .path.display())]
    CorruptPin {
        /// The path.
        path: PathBuf,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// There is no such interface in this network namespace.
    #[error("no interface {name} with index {ifindex} in this network namespace")]
    NoSuchInterface {
        /// Its name.
        name: String,
        /// Its index.
        ifindex: u32,
    },
    /// Somebody else's XDP program runs there.
    #[error("{interface} already runs {occupant}")]
    Occupied {
        /// The interface.
        interface: String,
        /// Who.
        occupant: Box<Occupant>,
    },
    /// The driver has no XDP of its own, and the configuration insists.
    #[error("{interface}: its driver does not run XDP programs ({source}): set `xdp_mode: auto` or `skb`")]
    NoDriverMode {
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Attaching failed otherwise.
    #[error("{interface}: cannot attach the XDP program: {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The TC program of services in mode `nat` cannot be attached.
    #[error(
        "{interface}: cannot attach the TC program by which answers of local backends leave: {source}; see who else has \
         filters there (`tc filter show dev {interface} egress`)"
    )]
    AttachEgress {
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More interfaces, routers or VIPs than the maps were made for.
    #[error("no room for another {what}: at most {limit}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many fit.
        limit: u32,
    },
    /// A map operation failed.
    #[error("BPF map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("{path}: cannot {action}: {source}", path = .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's routing socket failed.
    #[error("cannot ask the kernel about interface {ifindex}: {source}")]
    Netlink {
        /// The interface.
        ifindex: u32,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl DataplaneError {
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
