//! What is counted: connections and bytes of services and backends, and why connections failed. Packets are the kernel's business.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A service's counters at one moment. All but `active` only ever grow, while the service is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Its name.
    pub name: String,
    /// Connections that clients opened.
    pub new_flows: u64,
    /// Those that are open now.
    pub active_flows: u64,
    /// Bytes from clients to backends.
    pub received: u64,
    /// Bytes from backends to clients.
    pub sent: u64,
    /// Connections that no backend got, by the reason ([`Failure::name`]); reasons that did not occur are left out.
    pub failed: BTreeMap<&'static str, u64>,
    /// Connections that did not end by both sides' closing them, by the reason ([`Ending::name`]).
    pub broken: BTreeMap<&'static str, u64>,
    /// By address.
    pub backends: BTreeMap<IpAddr, BackendCounts>,
}

/// A backend's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendCounts {
    /// Connections that it accepted.
    pub new_flows: u64,
    /// Those that are open now.
    pub active_flows: u64,
    /// Bytes from clients to it.
    pub received: u64,
    /// Bytes from it to clients.
    pub sent: u64,
    /// Connections that it did not accept, by the reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// What was wrong with the last of those.
    pub last_error: Option<String>,
}

/// Why a connection did not come about: with one backend, or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client is in none of `source_ranges`.
    NotAllowed,
    /// No backend is up, or all drain.
    NoBackend,
    /// Nobody listens at the backend.
    Refused,
    /// The backend did not answer in time.
    TimedOut,
    /// No way leads to the backend.
    Unreachable,
    /// This node has no local port left towards the backend.
    NoPort,
    /// This process has no file descriptor left.
    NoFile,
    /// The client went away before a backend was found.
    ClientGone,
    /// Something else.
    Other,
}

/// How a connection ended that was not closed by both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client broke it off.
    ClientReset,
    /// The backend did.
    BackendReset,
    /// Nothing passed for too long.
    Idle,
    /// The VIP has moved, or the service is gone, and `grace` is over.
    Cut,
}

// === impl Failure ===

impl Failure {
    const ALL: [Self; 9] = [
        Self::NotAllowed,
        Self::NoBackend,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::NoPort,
        Self::NoFile,
        Self::ClientGone,
        Self::Other,
    ];

    /// As status and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::NoBackend => "no_backend",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no_port",
            Self::NoFile => "no_file",
            Self::ClientGone => "client_gone",
            Self::Other => "other",
        }
    }

    /// Of an attempt to connect.
    pub(super) fn of(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Self::Refused,
            Some(libc::ETIMEDOUT) => Self::TimedOut,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => {
                Self::Unreachable
            }
            Some(libc::EADDRNOTAVAIL | libc::EAGAIN) => Self::NoPort,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Self::NoFile,
            _ => Self::Other,
        }
    }

    /// Whether it is the backend that failed, and not this node or the client.
    pub(super) const fn is_the_backends(self) -> bool {
        matches!(self, Self::Refused | Self::TimedOut | Self::Unreachable)
    }
}

// === impl Ending ===

impl Ending {
    const ALL: [Self; 4] = [Self::ClientReset, Self::BackendReset, Self::Idle, Self::Cut];

    /// As status and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::Idle => "idle",
            Self::Cut => "cut",
        }
    }
}

/// Connections and bytes, counted by whoever moves them.
#[derive(Debug, Default)]
pub(super) struct Flows {
    pub(super) new: AtomicU64,
    pub(super) active: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// Reasons, counted.
#[derive(Debug)]
pub(super) struct Reasons<const N: usize>([AtomicU64; N]);

/// Why connections failed.
pub(super) type Failures = Reasons<{ Failure::ALL.len() }>;
/// How connections broke.
pub(super) type Endings = Reasons<{ Ending::ALL.len() }>;

// === impl Reasons ===

impl<const N: usize> Default for Reasons<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Reasons<N> {
    fn add(&self, index: usize) {
        self.0[index].fetch_add(1, Relaxed);
    }

    fn by_name(&self, names: impl Iterator<Item = &'static str>) -> BTreeMap<&'static str, u64> {
        let counted = self.0.iter().map(|count| count.load(Relaxed));
        names.zip(counted).filter(|(_, count)| *count > 0).collect()
    }
}

impl Failures {
    pub(super) fn count(&self, failure: Failure) {
        self.add(failure as usize);
    }

    pub(super) fn read(&self) -> BTreeMap<&'static str, u64> {
        self.by_name(Failure::ALL.into_iter().map(Failure::name))
    }
}

impl Endings {
    pub(super) fn count(&self, ending: Ending) {
        self.add(ending as usize);
    }

    pub(super) fn read(&self) -> BTreeMap<&'static str, u64> {
        self.by_name(Ending::ALL.into_iter().map(Ending::name))
    }
}

// === impl Flows ===

impl Flows {
    /// One more is open until what this returns is dropped.
    pub(super) fn open(&self) -> Open<'_> {
        self.new.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
        Open(self)
    }
}

/// A connection that counts as open.
pub(super) struct Open<'a>(&'a Flows);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_under_their_own_names() {
        let failures = Failures::default();
        for failure in Failure::ALL {
            failures.count(failure);
            assert_eq!(failures.read().get(failure.name()), Some(&1));
        }
        let endings = Endings::default();
        for ending in Ending::ALL {
            endings.count(ending);
            assert_eq!(endings.read().get(ending.name()), Some(&1));
        }
        assert_eq!((failures.read().len(), endings.read().len()), (Failure::ALL.len(), Ending::ALL.len()));
    }

    #[test]
    fn what_is_open_is_counted_until_it_ends() {
        let flows = Flows::default();
        let open = [flows.open(), flows.open()];
        assert_eq!((flows.new.load(Relaxed), flows.active.load(Relaxed)), (2, 2));
        drop(open);
        assert_eq!((flows.new.load(Relaxed), flows.active.load(Relaxed)), (2, 0));
    }
}
