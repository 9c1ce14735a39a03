//! The steering maps: carries plans out, and reads what the program noted. Works on any thread; blocks for milliseconds where
//! rings change.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use ipnet::IpNet;
use vip_common::steering::maglev::Candidate;
use vip_common::steering::reason::{BackendCounters, ServiceCounters};
use vip_common::steering::tables::{Backend, MAX_BACKENDS, ServiceKey, ServicePort, Source4Key, Source6Key};

use super::super::sys;
use super::super::world::{map_error, misfit};
use super::super::{Dataplane, DataplaneError};
use super::plan::Step;
use super::ring::{Ring, build};

/// The maps that the agent fills, and those that it reads.
#[derive(Debug)]
pub struct ServiceTables {
    ports: OwnedFd,
    services: OwnedFd,
    rings: OwnedFd,
    backends: OwnedFd,
    sources4: OwnedFd,
    sources6: OwnedFd,
    pub(super) flows: OwnedFd,
    pub(super) nat_flows: OwnedFd,
    pub(super) nat_returns: OwnedFd,
    pub(super) tunnel_ends: OwnedFd,
    service_counters: OwnedFd,
    backend_counters: OwnedFd,
    cpus: usize,
}

/// A plan that was not carried out to its end.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unfinished {
    /// Why.
    #[source]
    pub error: DataplaneError,
    /// What a later plan does not know of, and what has to be done before it.
    pub left: Vec<Step>,
}

impl Unfinished {
    /// The thread that was at it failed.
    pub(crate) fn died() -> Self {
        let source = io::Error::other("the thread that wrote failed");
        Self { error: map_error("SERVICES")(source), left: Vec::new() }
    }
}

/// Key of `SOURCES4`: that of an LPM trie begins with the length of its prefix.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Range4 {
    length: u32,
    key: Source4Key,
}

/// Key of `SOURCES6`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Range6 {
    length: u32,
    key: Source6Key,
}

/// Bits of a source key in front of the address.
const SERVICE_BITS: u32 = 32;

impl ServiceTables {
    /// The maps of a dataplane that has loaded steering.
    ///
    /// # Errors
    /// It has not; or there are too many files open.
    pub fn open(dataplane: &Dataplane) -> Result<Self, DataplaneError> {
        let fd = |name| {
            let map = dataplane.steering_map(name).ok_or_else(|| misfit(format!("no map {name}")))?;
            map.try_clone_to_owned().map_err(map_error(name))
        };
        Ok(Self {
            ports: fd("SERVICE_PORTS")?,
            services: fd("SERVICES")?,
            rings: fd("RINGS")?,
            backends: fd("BACKENDS")?,
            sources4: fd("SOURCES4")?,
            sources6: fd("SOURCES6")?,
            flows: fd("FLOWS")?,
            nat_flows: fd("NAT_FLOWS")?,
            nat_returns: fd("NAT_RETURNS")?,
            tunnel_ends: fd("TUNNEL_ENDS")?,
            service_counters: fd("SERVICE_COUNTERS")?,
            backend_counters: fd("BACKEND_COUNTERS")?,
            cpus: aya::util::nr_cpus()
                .map_err(|(_, source)| DataplaneError::Map { map: "SERVICE_COUNTERS", source })?,
        })
    }

    /// Carries out steps in their order.
    ///
    /// # Errors
    /// The kernel refuses one; those before it were carried out.
    pub fn apply(&self, steps: Vec<Step>) -> Result<(), Unfinished> {
        let mut steps = steps.into_iter();
        while let Some(step) = steps.next() {
            if let Err(error) = self.step(&step) {
                let left = std::iter::once(step).chain(steps).filter(Step::removes).collect();
                return Err(Unfinished { error, left });
            }
        }
        Ok(())
    }

    fn step(&self, step: &Step) -> Result<(), DataplaneError> {
        match step {
            Step::Forget(services, backends) => self.forget(services, backends),
            Step::Backends(entries) => update(&self.backends, entries).map_err(map_error("BACKENDS")),
            Step::Services(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(index, value)| (u32::from(*index), *value)).collect();
                update(&self.services, &entries).map_err(map_error("SERVICES"))
            }
            Step::Rings(rings) => self.swap(rings),
            Step::Open(entries) => update(&self.ports, entries).map_err(map_error("SERVICE_PORTS")),
            Step::Close(keys) => delete(&self.ports, keys).map_err(map_error("SERVICE_PORTS")),
            Step::Allow(ranges) => {
                let (v4, v6) = split(ranges);
                update(&self.sources4, &v4).map_err(map_error("SOURCES4"))?;
                update(&self.sources6, &v6).map_err(map_error("SOURCES6"))
            }
            Step::Disallow(ranges) => {
                let (v4, v6) = split(ranges);
                let (v4, v6): (Vec<_>, Vec<_>) = (
                    v4.into_iter().map(|(key, _)| key).collect(),
                    v6.into_iter().map(|(key, _)| key).collect(),
                );
                delete(&self.sources4, &v4).map_err(map_error("SOURCES4"))?;
                delete(&self.sources6, &v6).map_err(map_error("SOURCES6"))
            }
        }
    }

    /// Builds rings in maps that the program cannot see yet, and swaps all of them in by one command.
    fn swap(&self, rings: &[(u16, Vec<Candidate>)]) -> Result<(), DataplaneError> {
        let candidates: Vec<_> = rings.iter().map(|(_, candidates)| candidates.as_slice()).collect();
        let built = build(&candidates).map_err(map_error("RINGS"))?;
        let entries: Vec<(u32, u32)> = rings
            .iter()
            .zip(&built)
            .map(|((index, _), ring): (_, &Ring)| (u32::from(*index), ring.fd().as_raw_fd().unsigned_abs()))
            .collect();
        update(&self.rings, &entries).map_err(map_error("RINGS"))
    }

    fn forget(&self, services: &[u16], backends: &[u32]) -> Result<(), DataplaneError> {
        let services: Vec<u32> = services.iter().map(|index| (*index).into()).collect();
        self.zero(self.service_counters.as_fd(), &services, size_of::<ServiceCounters>())
            .map_err(map_error("SERVICE_COUNTERS"))?;
        self.zero(self.backend_counters.as_fd(), backends, size_of::<BackendCounters>())
            .map_err(map_error("BACKEND_COUNTERS"))
    }

    /// In bounded pieces: a value is as many as there are CPUs.
    fn zero(&self, map: BorrowedFd<'_>, indices: &[u32], size: usize) -> io::Result<()> {
        const AT_ONCE: usize = 256;
        let size = size * self.cpus;
        let zeros = vec![0; size * AT_ONCE.min(indices.len())];
        indices.chunks(AT_ONCE).try_for_each(|indices| {
            let values = zeros.get(..size * indices.len()).unwrap_or_default();
            sys::update_all(map, (bytemuck::cast_slice(indices), size_of::<u32>()), (values, size))
        })
    }

    /// What was counted of a service.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn service_counters(&self, index: u16) -> Result<ServiceCounters, DataplaneError> {
        let all: Vec<ServiceCounters> = self
            .per_cpu(self.service_counters.as_fd(), index.into())
            .map_err(map_error("SERVICE_COUNTERS"))?;
        Ok(all.iter().fold(ServiceCounters::zeroed(), |mut sum, one| {
            sum.bytes += one.bytes;
            sum.outcomes.iter_mut().zip(one.outcomes).for_each(|(sum, one)| *sum += one);
            sum
        }))
    }

    /// What was counted of a backend since it has its slot.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn backend_counters(&self, slot: u32) -> Result<BackendCounters, DataplaneError> {
        let all: Vec<BackendCounters> =
            self.per_cpu(self.backend_counters.as_fd(), slot).map_err(map_error("BACKEND_COUNTERS"))?;
        Ok(all.iter().fold(BackendCounters::zeroed(), |mut sum, one| {
            sum.packets += one.packets;
            sum.bytes += one.bytes;
            sum.new_flows += one.new_flows;
            sum
        }))
    }

    fn per_cpu<T: Pod>(&self, map: BorrowedFd<'_>, index: u32) -> io::Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.cpus];
        sys::look_up(map, bytemuck::bytes_of(&index), bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// All entries of `SERVICE_PORTS`.
    pub(super) fn all_ports(&self) -> io::Result<Vec<(ServiceKey, ServicePort)>> {
        let (map, size) = (self.ports.as_fd(), size_of::<ServiceKey>());
        let (mut found, mut at) = (Vec::new(), None);
        while sys::next_key(map, &mut at, size)? {
            let Some(key) = at.as_deref() else { break };
            let mut port = ServicePort::zeroed();
            if sys::look_up(map, key, bytemuck::bytes_of_mut(&mut port))? {
                found.push((bytemuck::pod_read_unaligned(key), port));
            }
        }
        Ok(found)
    }

    /// `BACKENDS` from slot 1 up to the last that was ever used.
    pub(super) fn all_backends(&self) -> io::Result<Vec<Backend>> {
        let mut found = Vec::new();
        for slot in 1..MAX_BACKENDS {
            let mut backend = Backend::zeroed();
            sys::look_up(
                self.backends.as_fd(),
                bytemuck::bytes_of(&slot),
                bytemuck::bytes_of_mut(&mut backend),
            )?;
            // Slots are used in their order, and a generation is never taken away.
            if backend == Backend::zeroed() {
                break;
            }
            found.push(backend);
        }
        Ok(found)
    }
}

fn update<K: Pod, V: Pod>(map: &OwnedFd, entries: &[(K, V)]) -> io::Result<()> {
    let keys: Vec<K> = entries.iter().map(|(key, _)| *key).collect();
    let values: Vec<V> = entries.iter().map(|(_, value)| *value).collect();
    let keys = (bytemuck::cast_slice(&keys), size_of::<K>());
    sys::update_all(map.as_fd(), keys, (bytemuck::cast_slice(&values), size_of::<V>()))
}

fn delete<K: Pod>(map: &OwnedFd, keys: &[K]) -> io::Result<()> {
    sys::delete_all(map.as_fd(), bytemuck::cast_slice(keys), size_of::<K>())
}

/// Keys with the value of each.
type Entries<K> = Vec<(K, u32)>;

/// Source ranges as keys of their families, with the value that an LPM trie has to have.
fn split(ranges: &[(u16, IpNet)]) -> (Entries<Range4>, Entries<Range6>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (service, range) in ranges {
        let (service, length) = (u32::from(*service), SERVICE_BITS + u32::from(range.prefix_len()));
        match range.network() {
            IpAddr::V4(address) => {
                v4.push((Range4 { length, key: Source4Key { service, address: address.octets() } }, 1));
            }
            IpAddr::V6(address) => {
                v6.push((Range6 { length, key: Source6Key { service, address: address.octets() } }, 1));
            }
        }
    }
    (v4, v6)
}
