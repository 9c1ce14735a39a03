//! Steering's programs and maps, which an agent without services does without: they take about 100 MiB of kernel memory.
//!
//! They come beside a running program and change nothing for packets until a VIP has the bit that says so
//! ([`vip_common::maps::vip_flags::SERVICES`]) and the maps are filled.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{MapData, MapType};
use vip_common::steering::egress::{LocalFlow, LocalFlowKey};
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::full_nat::tables::{NatFlow, NatKey, NatReturn};
use vip_common::steering::handoff::Step;
use vip_common::steering::maglev::RingSize;
use vip_common::steering::reason::{BackendCounters, ServiceCounters};
use vip_common::steering::tables::{
    AffinityKey, Backend, Choice, FragmentKey, Gate, Service, ServiceKey, ServicePort, Source4Key,
    Source6Key, SteeredFlowKey,
};
use vip_common::steering::tunnel_end::TunnelEndKey;

use super::checks::{Feature, diagnose};
use super::loader::{self, Request};
use super::object::STEERING_OBJECT;
use super::world::{INDEX, MapSpec, Maps, map_error, misfit, release_heap, summary};
use super::{DataplaneError, egress, sys};

/// The map that outlives its agent.
pub(super) const LOCAL_FLOWS: &str = "LOCAL_FLOWS";
/// Bytes of the prefix length in front of the key of a longest-prefix match.
const PREFIX: usize = size_of::<u32>();

/// The maps that come with steering (docs/steering.md), all of which are pinned.
pub(super) static MAPS: [MapSpec; 19] = [
    MapSpec::new("SERVICE_PORTS", MapType::Hash, size_of::<ServiceKey>(), size_of::<ServicePort>()),
    MapSpec::new("SERVICES", MapType::Array, INDEX, size_of::<Service>()),
    MapSpec::new("RINGS", MapType::ArrayOfMaps, INDEX, INDEX),
    MapSpec::new("BACKENDS", MapType::Array, INDEX, size_of::<Backend>()),
    MapSpec::new("FLOWS", MapType::LruHash, size_of::<SteeredFlowKey>(), size_of::<Choice>()),
    MapSpec::new("AFFINITIES", MapType::LruHash, size_of::<AffinityKey>(), size_of::<Choice>()),
    MapSpec::new("FRAGMENTS", MapType::LruHash, size_of::<FragmentKey>(), size_of::<Choice>()),
    MapSpec::new("NAT_FLOWS", MapType::LruHash, size_of::<SteeredFlowKey>(), size_of::<NatFlow>()),
    MapSpec::new("NAT_RETURNS", MapType::LruHash, size_of::<NatKey>(), size_of::<NatReturn>()),
    MapSpec::new("NAT_PORTS", MapType::Array, INDEX, size_of::<Ports>()),
    MapSpec::new("SOURCES4", MapType::LpmTrie, PREFIX + size_of::<Source4Key>(), INDEX),
    MapSpec::new("SOURCES6", MapType::LpmTrie, PREFIX + size_of::<Source6Key>(), INDEX),
    MapSpec::new("NEW_FLOWS", MapType::PerCpuArray, INDEX, size_of::<Gate>()),
    MapSpec::new("ANSWERS", MapType::PerCpuArray, INDEX, size_of::<Gate>()),
    MapSpec::new("SERVICE_COUNTERS", MapType::PerCpuArray, INDEX, size_of::<ServiceCounters>()),
    MapSpec::new("BACKEND_COUNTERS", MapType::PerCpuArray, INDEX, size_of::<BackendCounters>()),
    MapSpec::new(LOCAL_FLOWS, MapType::LruHash, size_of::<LocalFlowKey>(), size_of::<LocalFlow>()),
    MapSpec::new("LOCAL_FRAGMENTS", MapType::LruHash, size_of::<FragmentKey>(), size_of::<LocalFlow>()),
    MapSpec::new("TUNNEL_ENDS", MapType::Hash, size_of::<TunnelEndKey>(), INDEX),
];

/// The programs of the steps, in the order of [`Step::ALL`], and the one of the way out.
const PROGRAMS: [&str; Step::ALL.len() + 1] = {
    let mut names = [egress::PROGRAM; Step::ALL.len() + 1];
    let mut at = 0;
    while at < Step::ALL.len() {
        names[at] = Step::ALL[at].program();
        at += 1;
    }
    names
};

/// Steering as it was loaded.
#[derive(Debug)]
pub(super) struct Steering {
    pub(super) maps: Vec<(&'static str, OwnedFd)>,
    pub(super) ring_size: RingSize,
    /// For the way out of interfaces.
    pub(super) egress: OwnedFd,
    verified_instructions: Vec<(&'static str, Option<u32>)>,
}

impl Steering {
    /// Loads it beside the maps that the program has already. `inherited`: those of [`MAPS`] that there are already. That is all of
    /// an agent that this one goes on in place of. Of one that is dead it is the map of local flows alone: what it says is true whoever
    /// reads it, and without it a backend's next word to a client would leave from an address that the client does not know, whose
    /// reset would end the connection.
    pub(super) fn load(
        shared: &[(&'static str, BorrowedFd<'_>)],
        inherited: Vec<(&'static str, OwnedFd)>,
        ring_size: RingSize,
    ) -> Result<Self, DataplaneError> {
        let steering = Self::build(shared, inherited, ring_size);
        release_heap();
        steering
    }

    fn build(
        shared: &[(&'static str, BorrowedFd<'_>)],
        inherited: Vec<(&'static str, OwnedFd)>,
        ring_size: RingSize,
    ) -> Result<Self, DataplaneError> {
        let there: Vec<_> =
            inherited.iter().map(|(name, map)| (*name, map.as_fd())).chain(shared.iter().copied()).collect();
        let request = Request { programs: &PROGRAMS, shared: &there, inner_entries: Some(ring_size.pairs()) };
        let mut loaded = loader::load(STEERING_OBJECT, &request)
            .map_err(|failure| diagnose(failure, Feature::is_present))?;
        for (name, map) in inherited {
            let map = MapData::from_fd(map).map_err(|error| misfit(format!("map {name}: {error}")))?;
            loaded.maps.insert(name.to_owned(), map);
        }
        let maps = Maps(loaded.maps).check(&MAPS)?;
        let steps = shared.iter().find(|(name, _)| *name == "STEERING").map(|(_, map)| *map);
        let steps = steps.ok_or_else(|| misfit("no map STEERING".to_owned()))?;
        let mut verified_instructions = Vec::new();
        for (step, (name, program)) in Step::ALL.into_iter().zip(&loaded.programs) {
            sys::set_program(steps, step as u32, program.as_fd()).map_err(map_error("STEERING"))?;
            verified_instructions.push((*name, summary(program.as_fd())?.verified_instructions));
        }
        let egress = loaded.programs.pop().filter(|(name, _)| *name == egress::PROGRAM);
        let egress = egress.ok_or_else(|| misfit(format!("no program {}", egress::PROGRAM)))?.1;
        verified_instructions.push((egress::PROGRAM, summary(egress.as_fd())?.verified_instructions));
        Ok(Self { maps, ring_size, egress, verified_instructions })
    }

    pub(super) fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.maps.iter().find(|(map, _)| *map == name).map(|(_, map)| map.as_fd())
    }

    /// The maps as they are pinned.
    pub(super) fn pinnable(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        self.maps.iter().map(|(name, fd)| (*name, fd.as_fd())).collect()
    }

    /// What the verifier went through for each program; `None` before Linux 5.16.
    pub(super) fn verified_instructions(&self) -> &[(&'static str, Option<u32>)] {
        &self.verified_instructions
    }
}
