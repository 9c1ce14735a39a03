//! A complete set of maps with its program, loaded into the kernel and attached to nothing yet.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData, MapInfo, MapType};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use aya_log::EbpfLogger;
use vip_common::maps::{FlowKey, ForeignOwner, Handover, Vip, Vip4Key, Vip6Key, VlanKey};

use super::checks::{Feature, diagnose};
use super::counters::Counters;
use super::events::{ForeignOwnerEvents, ProgramLog, ToTracing};
use super::tables::Tables;
use super::{DataplaneError, OwnershipWords, PROGRAM};

/// A map that agent and program share.
#[derive(Debug)]
pub(super) struct MapSpec {
    pub(super) name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
}

impl MapSpec {
    const fn new(name: &'static str, kind: MapType, key_size: usize, value_size: usize) -> Self {
        Self { name, kind, key_size, value_size }
    }

    /// Whether an existing map has this type and these sizes.
    pub(super) fn is_like(&self, info: &MapInfo) -> bool {
        info.map_type().ok() == Some(self.kind)
            && info.key_size() as usize == self.key_size
            && info.value_size() as usize == self.value_size
    }
}

impl fmt::Display for MapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, key_size, value_size } = self;
        write!(f, "the {kind:?} map {name} of {key_size}-byte keys and {value_size}-byte values")
    }
}

const INDEX: usize = size_of::<u32>();
const WORD: usize = size_of::<u64>();

/// The maps of the contract with the program, all of which are pinned.
pub(super) const MAPS: [MapSpec; 9] = [
    MapSpec::new("DEADLINES", MapType::Array, INDEX, WORD),
    MapSpec::new("HANDOVERS", MapType::Array, INDEX, size_of::<Handover>()),
    MapSpec::new("VIPS4", MapType::Hash, size_of::<Vip4Key>(), size_of::<Vip>()),
    MapSpec::new("VIPS6", MapType::Hash, size_of::<Vip6Key>(), size_of::<Vip>()),
    MapSpec::new("VLANS", MapType::Hash, size_of::<VlanKey>(), INDEX),
    MapSpec::new("COUNTERS", MapType::PerCpuArray, INDEX, WORD),
    MapSpec::new("EVENTS", MapType::RingBuf, 0, 0),
    MapSpec::new("EVENT_GATES", MapType::Array, INDEX, WORD),
    MapSpec::new("HANDOVER_FLOWS", MapType::LruHash, size_of::<FlowKey>(), WORD),
];

/// Size of a record of `EVENTS`; the ring buffer itself has none.
pub(super) const EVENT: usize = size_of::<ForeignOwner>();

/// What one load made. Everything vanishes with it unless pinned or attached.
#[derive(Debug)]
pub(super) struct World {
    pub(super) program: OwnedFd,
    pub(super) program_id: u32,
    pub(super) verified_instructions: Option<u32>,
    /// Descriptors of [`MAPS`], for pinning and for what the kernel says about them.
    pub(super) maps: Vec<(&'static str, OwnedFd)>,
    pub(super) words: OwnershipWords,
    pub(super) tables: Tables,
    pub(super) counters: Counters,
    pub(super) events: Option<ForeignOwnerEvents>,
    pub(super) log: Option<ProgramLog>,
}

impl World {
    /// Loads the object anew. Takes nothing over from what may be pinned.
    pub(super) fn load(object: &[u8]) -> Result<Self, DataplaneError> {
        let world = Self::build(object);
        release_heap();
        world
    }

    fn build(object: &[u8]) -> Result<Self, DataplaneError> {
        let probe = Feature::is_present;
        // The program needs no relocation against the kernel's own types.
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
            .load(object)
            .map_err(|error| diagnose(error, probe))?;
        let maps = check_maps(&ebpf)?;

        let program = ebpf.program_mut(PROGRAM).ok_or_else(|| misfit(format!("no program `{PROGRAM}`")))?;
        let xdp: &mut Xdp = program.try_into().map_err(|error| misfit(format!("`{PROGRAM}`: {error}")))?;
        xdp.load().map_err(|error| diagnose(error.into(), probe))?;
        let info = xdp.info().map_err(|error| diagnose(error.into(), probe))?;
        let program = xdp.fd().map_err(|error| diagnose(error.into(), probe))?.as_fd().try_clone_to_owned();
        let program = program.map_err(map_error(PROGRAM))?;

        let log = EbpfLogger::init_with_logger(&mut ebpf, ToTracing).ok().map(ProgramLog::new);
        let deadlines = array(&ebpf, "DEADLINES")?;
        let handovers = array(&ebpf, "HANDOVERS")?;
        let words = OwnershipWords::map(deadlines, handovers).map_err(map_error("DEADLINES"))?;
        let tables = Tables::take(&mut ebpf)?;
        let counters = Counters::take(&mut ebpf)?;
        let events = Some(ForeignOwnerEvents::take(&mut ebpf)?);
        Ok(Self {
            program,
            program_id: info.id(),
            verified_instructions: info.verified_instruction_count(),
            maps,
            words,
            tables,
            counters,
            events,
            log,
        })
    }

    /// The maps as they are pinned.
    pub(super) fn pinnable(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        self.maps.iter().map(|(name, fd)| (*name, fd.as_fd())).collect()
    }
}

pub(super) fn misfit(reason: String) -> DataplaneError {
    DataplaneError::BadObject { reason }
}

pub(super) fn map_error(map: &'static str) -> impl FnOnce(io::Error) -> DataplaneError {
    move |source| DataplaneError::Map { map, source }
}

/// Removes a map from the loaded object, in the type that the caller works with.
pub(super) fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, DataplaneError>
where
    T: TryFrom<Map>,
    T::Error: fmt::Display,
{
    let map = ebpf.take_map(name).ok_or_else(|| misfit(format!("no map {name}")))?;
    map.try_into().map_err(|error| misfit(format!("map {name}: {error}")))
}

fn array<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, DataplaneError> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => Ok(map.fd().as_fd()),
        _ => Err(misfit(format!("no array map {name}"))),
    }
}

/// Compares the object's maps with the contract, so that a stale object is never believed.
fn check_maps(ebpf: &Ebpf) -> Result<Vec<(&'static str, OwnedFd)>, DataplaneError> {
    let mut maps = Vec::with_capacity(MAPS.len());
    for spec in &MAPS {
        let data =
            ebpf.map(spec.name).and_then(map_data).ok_or_else(|| misfit(format!("no map {}", spec.name)))?;
        let info = data.info().map_err(|error| misfit(format!("map {}: {error}", spec.name)))?;
        if !spec.is_like(&info) {
            return Err(misfit(format!("{} is not {spec}", spec.name)));
        }
        maps.push((spec.name, data.fd().as_fd().try_clone_to_owned().map_err(map_error(spec.name))?));
    }
    Ok(maps)
}

fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// Gives back what parsing took: aya reads the kernel's own type information (megabytes, asked for or not).
fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only returns free pages to the kernel; it has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
