//! A complete set of maps with its program, loaded into the kernel and attached to nothing yet.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use std::collections::BTreeMap;

use aya::maps::{Map, MapData, MapInfo, MapType};
use aya_log::EbpfLogger;
use vip_common::maps::{
    FlowKey, ForeignOwner, Handover, HeartbeatLink, Peer, Vip, Vip4Key, Vip6Key, VirtualMacKey, VlanKey,
};

use vip_common::steering::handoff::Handoff;

use super::checks::{Feature, diagnose};
use super::counters::Counters;
use super::events::{ForeignOwnerEvents, ProgramLog, ToTracing};
use super::loader::{self, Request};
use super::sys::ProgramSummary;
use super::tables::Tables;
use super::{DataplaneError, OwnershipWords, PROGRAM, PeerWords, sys};

/// A map that agent and program share.
#[derive(Debug)]
pub(super) struct MapSpec {
    pub(super) name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
}

impl MapSpec {
    pub(super) const fn new(name: &'static str, kind: MapType, key_size: usize, value_size: usize) -> Self {
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

pub(super) const INDEX: usize = size_of::<u32>();
const WORD: usize = size_of::<u64>();

/// The maps of the contract with the program, all of which are pinned. [`super::steering::MAPS`] come to them with services.
pub(super) static MAPS: [MapSpec; 15] = [
    MapSpec::new("DEADLINES", MapType::Array, INDEX, WORD),
    MapSpec::new("HANDOVERS", MapType::Array, INDEX, size_of::<Handover>()),
    MapSpec::new("FILTER", MapType::Array, INDEX, WORD),
    MapSpec::new("VIPS4", MapType::Hash, size_of::<Vip4Key>(), size_of::<Vip>()),
    MapSpec::new("VIPS6", MapType::Hash, size_of::<Vip6Key>(), size_of::<Vip>()),
    MapSpec::new("VIRTUAL_MACS", MapType::Hash, size_of::<VirtualMacKey>(), size_of::<Vip>()),
    MapSpec::new("VLANS", MapType::Hash, size_of::<VlanKey>(), INDEX),
    MapSpec::new("COUNTERS", MapType::PerCpuArray, INDEX, WORD),
    MapSpec::new("EVENTS", MapType::RingBuf, 0, 0),
    MapSpec::new("EVENT_GATES", MapType::Array, INDEX, WORD),
    MapSpec::new("HANDOVER_FLOWS", MapType::LruHash, size_of::<FlowKey>(), WORD),
    MapSpec::new("HEARTBEAT_LINKS", MapType::Hash, INDEX, size_of::<HeartbeatLink>()),
    MapSpec::new("PEERS", MapType::Array, INDEX, size_of::<Peer>()),
    MapSpec::new("STEERING", MapType::ProgramArray, INDEX, INDEX),
    MapSpec::new("SCRATCH", MapType::PerCpuArray, INDEX, size_of::<Handoff>()),
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
    pub(super) peers: PeerWords,
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
        let request = Request { programs: &[PROGRAM], ..Request::default() };
        let loaded =
            loader::load(object, &request).map_err(|failure| diagnose(failure, Feature::is_present))?;
        let mut maps = Maps(loaded.maps);
        let pinned = maps.check(&MAPS)?;
        let program = loaded.programs.into_iter().next().ok_or_else(|| misfit("no program".to_owned()))?.1;
        let summary = summary(program.as_fd())?;
        let words = OwnershipWords::map(maps.fd("DEADLINES")?, maps.fd("HANDOVERS")?);
        Ok(Self {
            program,
            program_id: summary.id,
            verified_instructions: summary.verified_instructions,
            maps: pinned,
            words: words.map_err(map_error("DEADLINES"))?,
            peers: PeerWords::map(maps.fd("PEERS")?).map_err(map_error("PEERS"))?,
            tables: Tables::take(&mut maps)?,
            counters: Counters::take(&mut maps)?,
            events: Some(ForeignOwnerEvents::take(&mut maps)?),
            log: program_log(summary.id),
        })
    }

    /// The maps as they are pinned.
    pub(super) fn pinnable(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        self.maps.iter().map(|(name, fd)| (*name, fd.as_fd())).collect()
    }
}

/// What the kernel says about a program that was loaded.
pub(super) fn summary(program: BorrowedFd<'_>) -> Result<ProgramSummary, DataplaneError> {
    let what = || "to read what was loaded".to_owned();
    sys::program_summary(program).map_err(|source| DataplaneError::Failed { what: what(), source })
}

pub(super) fn misfit(reason: String) -> DataplaneError {
    DataplaneError::BadObject { reason }
}

pub(super) fn map_error(map: &'static str) -> impl FnOnce(io::Error) -> DataplaneError {
    move |source| DataplaneError::Map { map, source }
}

/// The maps of a loaded object, by name.
pub(super) struct Maps(pub(super) BTreeMap<String, MapData>);

impl Maps {
    /// Removes a map, in the type that the caller works with.
    pub(super) fn take<T>(&mut self, name: &'static str) -> Result<T, DataplaneError>
    where
        T: TryFrom<Map>,
        T::Error: fmt::Display,
    {
        let data = self.0.remove(name).ok_or_else(|| misfit(format!("no map {name}")))?;
        let kind = data.info().and_then(|info| info.map_type());
        let map = match kind.map_err(|error| misfit(format!("map {name}: {error}")))? {
            MapType::Array => Map::Array(data),
            MapType::Hash => Map::HashMap(data),
            MapType::PerCpuArray => Map::PerCpuArray(data),
            MapType::RingBuf => Map::RingBuf(data),
            _ => Map::Unsupported(data),
        };
        map.try_into().map_err(|error| misfit(format!("map {name}: {error}")))
    }

    fn get(&self, name: &str) -> Result<&MapData, DataplaneError> {
        self.0.get(name).ok_or_else(|| misfit(format!("no map {name}")))
    }

    fn fd(&self, name: &str) -> Result<BorrowedFd<'_>, DataplaneError> {
        self.get(name).map(|data| data.fd().as_fd())
    }

    /// Compares the object's maps with the contract, so that a stale object is never believed.
    pub(super) fn check(
        &self,
        specs: &'static [MapSpec],
    ) -> Result<Vec<(&'static str, OwnedFd)>, DataplaneError> {
        let check = |spec: &'static MapSpec| {
            let data = self.get(spec.name)?;
            let info = data.info().map_err(|error| misfit(format!("map {}: {error}", spec.name)))?;
            if !spec.is_like(&info) {
                return Err(misfit(format!("{} is not {spec}", spec.name)));
            }
            Ok((spec.name, data.fd().as_fd().try_clone_to_owned().map_err(map_error(spec.name))?))
        };
        specs.iter().map(check).collect()
    }
}

/// The program's log; finding it takes CAP_SYS_ADMIN, without which its rare lines stay unread.
fn program_log(program: u32) -> Option<ProgramLog> {
    match EbpfLogger::init_from_id_with_logger(program, ToTracing) {
        Ok(logger) => Some(ProgramLog::new(logger)),
        Err(error) => {
            tracing::debug!(%error, "no log lines of the XDP program");
            None
        }
    }
}

/// Gives back what parsing the object took.
pub(super) fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only returns free pages to the kernel; it has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
