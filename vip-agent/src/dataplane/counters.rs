//! What the program counted, summed over CPUs, and what its maps take up.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::{fmt, fs};

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use vip_common::maps::MAX_LINKS;
use vip_common::reason::Reason;

use super::DataplaneError;
use super::tables::failed;
use super::world::{Maps, misfit};

/// Packets of one reason that arrived on one interface since it was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkCounter {
    /// The interface.
    pub ifindex: u32,
    /// What the program did with them, and why.
    pub reason: Reason,
    /// How many, over all CPUs.
    pub packets: u64,
}

/// Index of an interface's counters: below [`MAX_LINKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkSlot(u16);

impl LinkSlot {
    /// The index, as [`vip_common::maps::Vip::link`] carries it.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The lowest slot that none of these takes.
    pub(super) fn free_of(taken: impl Fn(Self) -> bool) -> Result<Self, DataplaneError> {
        (0..MAX_LINKS)
            .filter_map(|slot| u16::try_from(slot).ok().map(Self))
            .find(|slot| !taken(*slot))
            .ok_or(DataplaneError::Full { what: "interface", limit: MAX_LINKS })
    }
}

/// `COUNTERS`.
pub(super) struct Counters {
    map: PerCpuArray<MapData, u64>,
}

impl Counters {
    pub(super) fn take(maps: &mut Maps) -> Result<Self, DataplaneError> {
        let map: PerCpuArray<_, u64> = maps.take("COUNTERS")?;
        let (found, expected) = (map.len(), MAX_LINKS * Reason::COUNT);
        if found != expected {
            return Err(misfit(format!("COUNTERS holds {found} words, not {expected}")));
        }
        Ok(Self { map })
    }

    pub(super) fn read(&self, ifindex: u32, slot: LinkSlot) -> Result<Vec<LinkCounter>, DataplaneError> {
        Reason::ALL
            .into_iter()
            .map(|reason| {
                let values =
                    self.map.get(&reason.counter(slot.0), 0).map_err(|error| failed(error, "COUNTERS"))?;
                Ok(LinkCounter { ifindex, reason, packets: values.iter().sum() })
            })
            .collect()
    }

    pub(super) fn clear(&mut self, slot: LinkSlot) -> Result<(), DataplaneError> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| DataplaneError::Map { map: "COUNTERS", source: error })?;
        for reason in Reason::ALL {
            let zero = PerCpuValues::try_from(vec![0; cpus]);
            let zero = zero.map_err(|source| DataplaneError::Map { map: "COUNTERS", source })?;
            self.map.set(reason.counter(slot.0), zero, 0).map_err(|error| failed(error, "COUNTERS"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}

/// Bytes of kernel memory that a map takes (`memlock` of its fdinfo; since Linux 5.11 they count for the process's
/// memory cgroup).
pub(super) fn memory_of(map: BorrowedFd<'_>) -> u64 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()));
    info.ok()
        .as_deref()
        .and_then(|info| info.lines().find_map(|line| line.strip_prefix("memlock:")))
        .and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}
