//! Endpoints by Service: which nodes have one, and who serves a port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vip_kube_protocol::{Backend, ObjectName};

use crate::cluster::{Cluster, Endpoint, Family, Port, Slice};

/// Slices by namespace and Service.
pub(super) struct Endpoints<'a>(BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a Slice>>>);

impl<'a> Endpoints<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Self {
        let mut all: BTreeMap<&str, BTreeMap<&str, Vec<_>>> = BTreeMap::new();
        for (name, slice) in &cluster.slices {
            let services = all.entry(&name.namespace).or_default();
            services.entry(&slice.service).or_default().push(slice);
        }
        Self(all)
    }

    fn slices(&self, service: &ObjectName) -> &[&'a Slice] {
        let services = self.0.get(service.namespace.as_str());
        services.and_then(|services| services.get(service.name.as_str())).map_or(&[], Vec::as_slice)
    }

    fn all(&self, service: &ObjectName) -> impl Iterator<Item = &'a Endpoint> {
        self.slices(service).iter().flat_map(|slice| &slice.endpoints)
    }

    pub(super) fn any_ready(&self, service: &ObjectName) -> bool {
        self.all(service).any(|endpoint| endpoint.ready)
    }

    /// The nodes that they run on.
    pub(super) fn nodes(&self, service: &ObjectName, wanted: impl Fn(&Endpoint) -> bool) -> BTreeSet<String> {
        let wanted = self.all(service).filter(|endpoint| wanted(endpoint));
        wanted.filter_map(|endpoint| endpoint.node.clone()).collect()
    }

    /// Whether a Service has endpoints of a family, whatever their state.
    pub(super) fn has(&self, service: &ObjectName, family: Family) -> bool {
        self.all(service).filter_map(|endpoint| endpoint.address).any(|address| Family::of(address) == family)
    }

    /// Who serves a port of a Service by addresses of a family. `name`: the port's, empty if it has none.
    pub(super) fn serving(
        &self,
        service: &ObjectName,
        (port, name): (&Port, &str),
        family: Family,
    ) -> Serving<'a> {
        let mut by_number: BTreeMap<u16, Vec<Candidate<'a>>> = BTreeMap::new();
        for slice in self.slices(service) {
            let fits =
                |other: &&crate::cluster::SlicePort| other.protocol == port.protocol && other.name == name;
            let Some(number) = slice.ports.iter().find(fits).map(|port| port.port) else { continue };
            by_number.entry(number).or_default().extend(slice.endpoints.iter().filter_map(|endpoint| {
                let address = endpoint.address.filter(|address| Family::of(*address) == family)?;
                let state = State::of(endpoint)?;
                Some(Candidate { address, node: endpoint.node.as_deref(), state })
            }));
        }
        by_number.retain(|_, candidates| !candidates.is_empty());
        // A backend of a service is an address, whose port follows from the service's: one number for all. Of several, as pods of a new
        // version may have, the one that most take traffic at; of equals the lowest.
        let ready = |candidates: &[Candidate<'_>]| {
            candidates.iter().filter(|candidate| candidate.state == State::Ready).count()
        };
        let chosen = by_number.iter().max_by_key(|(number, all)| (ready(all), std::cmp::Reverse(**number)));
        let Some((number, _)) = chosen.map(|(number, all)| (*number, all.len())) else {
            return Serving::default();
        };
        let mut candidates = by_number.remove(&number).unwrap_or_default();
        // One that moves from a slice to another stands in both for a while.
        candidates.sort_unstable();
        candidates.dedup_by_key(|candidate| candidate.address);
        let others = by_number.into_iter().map(|(number, others)| (number, others.len())).collect();
        Serving { number: Some(number), candidates, others }
    }
}

/// Who serves a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Serving<'a> {
    /// Where they listen; `None`: there is nobody.
    pub(super) number: Option<u16>,
    /// Each address once, sorted.
    pub(super) candidates: Vec<Candidate<'a>>,
    /// Other numbers, and how many listen there.
    pub(super) others: Vec<(u16, usize)>,
}

/// An endpoint that may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate<'a> {
    pub(super) address: IpAddr,
    /// The better one first, of one that stands in two slices.
    state: State,
    node: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ready,
    Draining,
}

impl State {
    /// `None`: it serves nobody.
    const fn of(endpoint: &Endpoint) -> Option<Self> {
        match (endpoint.ready, endpoint.draining) {
            (true, _) => Some(Self::Ready),
            (false, true) => Some(Self::Draining),
            (false, false) => None,
        }
    }
}

/// The backends that candidates are; `only`: those on this node alone. Those that end get no new flows, unless there is nobody else: as
/// kube-proxy has it.
pub(super) fn backends(candidates: &[Candidate<'_>], only: Option<&str>) -> Vec<Backend> {
    let here = |candidate: &&Candidate<'_>| only.is_none_or(|node| candidate.node == Some(node));
    let candidates: Vec<_> = candidates.iter().filter(here).collect();
    let some_ready = candidates.iter().any(|candidate| candidate.state == State::Ready);
    let weight = |candidate: &Candidate<'_>| u16::from(candidate.state == State::Ready || !some_ready);
    candidates
        .iter()
        .map(|candidate| Backend { address: candidate.address, weight: weight(candidate) })
        .collect()
}
