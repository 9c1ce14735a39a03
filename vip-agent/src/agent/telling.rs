//! `flow_sync`: what the exchange of flows with peers has to know of the configuration, the tables and the routers around.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context as _;
use tokio::time::{Duration, Instant};
use vip_common::steering::tables::Mode;

use super::Agent;
use crate::config::{Service, ServiceMode};
use crate::dataplane::RouterSlot;
use crate::dataplane::services::{Directory, Known, SharedDirectory, ToldFlows};
use crate::flow_sync::exchange::{Company, Counts, PeerView};
use crate::flow_sync::thread::{FlowSync, View};
use crate::net::next_hops::provoke;
use crate::status::{FlowPeerStatus, FlowSyncStatus};

/// How often it is asked who sends adverts, where somebody is known; where nobody is, each time that there is a chance.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Only where it is configured and there are services.
    sync: Option<FlowSync>,
    directory: SharedDirectory,
    /// As the directory has them.
    routers: BTreeMap<IpAddr, RouterSlot>,
    look: Option<Instant>,
    heard: BTreeSet<IpAddr>,
}

impl Telling {
    /// `flow_sync` of status.
    pub(super) fn status(&self) -> Option<FlowSyncStatus> {
        let View { reason, peers, flows, untold, counts } = self.sync.as_ref()?.view();
        let Counts { told, noted, gone, refused, stale } = counts;
        let peer = |peer: &PeerView| FlowPeerStatus {
            address: peer.address,
            last_heard_ms: peer.silent.map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
            behind: peer.behind,
        };
        let flows = u64::try_from(flows).unwrap_or(u64::MAX);
        let noted = noted.into_iter().map(|(what, count)| (what.name().to_owned(), count)).collect();
        let peers = peers.iter().map(peer).collect();
        Some(FlowSyncStatus { reason, flows, untold, told, noted, gone, refused, stale, peers })
    }
}

impl Agent {
    /// Begins, if it is configured and something is steered, and was not begun before.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn tell_flows(&mut self) -> anyhow::Result<()> {
        let (Some(config), Some(tables)) = (&self.config.flow_sync, self.services.tables()) else {
            return Ok(());
        };
        if self.telling.sync.is_none() {
            let table = ToldFlows::new(tables, self.telling.directory.clone(), self.dataplane.words());
            let sync = FlowSync::start(config.listen, config.keys.clone(), Box::new(table));
            self.telling.sync = Some(sync.context("flow_sync: starting its thread")?);
        }
        self.publish_directory();
        Ok(())
    }

    /// Says what the tables' numbers mean now.
    pub(super) fn publish_directory(&mut self) {
        if self.telling.sync.is_none() {
            return;
        }
        let routers = self.routers();
        self.telling.routers.clone_from(&routers);
        let services = self.config.services.iter().filter_map(|service| self.known(service)).collect();
        let ports = self.services.nat_ports();
        self.telling.directory.set(Directory { services, routers, ports });
    }

    fn routers(&self) -> BTreeMap<IpAddr, RouterSlot> {
        let homes = self.instances.iter().filter_map(|managed| Some((managed.slot, managed.home.as_ref()?)));
        homes.flat_map(|(slot, home)| home.vips.iter().map(move |vip| (*vip, slot))).collect()
    }

    fn known(&self, service: &Service) -> Option<(u16, Known)> {
        let mode = match service.mode {
            ServiceMode::Local | ServiceMode::Proxy(_) => return None,
            ServiceMode::Direct => Mode::Direct,
            ServiceMode::Nat => Mode::Nat,
            ServiceMode::Tunnel => Mode::Tunnel,
        };
        let name = service.name.as_str();
        let index = self.services.book().index(name)?;
        let here = |address: &IpAddr| self.links.iter().any(|link| link.has_address(*address));
        let backends: BTreeMap<_, _> = self
            .services
            .book()
            .holders(name)
            .filter(|holder| !here(&holder.address))
            .map(|holder| (holder.address, holder.slot))
            .collect();
        Some((index, Known { vip: service.vip, mode, ports: service.ports.clone(), backends }))
    }

    /// Has the kernel ask for the next hops of clients that this node may have to answer soon.
    pub(super) fn look_for_clients(&self) {
        let clients = self.telling.directory.take_clients();
        if !clients.is_empty() {
            tokio::spawn(provoke(clients));
        }
    }

    /// Whether an instance has VIPs with services.
    pub(super) fn carries_services(&self, instance: usize) -> bool {
        let vips = self.instances[instance].vips();
        self.config.services.iter().any(|service| vips.contains(&service.vip))
    }

    /// Who the peers are: whom the configuration names, or else whoever takes part in the elections.
    pub(super) async fn look_for_peers(&mut self) {
        if self.telling.sync.is_some() && self.telling.routers != self.routers() {
            self.publish_directory();
        }
        let Some(config) = &self.config.flow_sync else { return };
        if self.telling.sync.is_none() || self.telling.look.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let (own, named) = (config.listen.ip(), config.peers.clone());
        let company = match named {
            Some(peers) => Company { peers, guests: false },
            None => {
                let carriers: Vec<usize> =
                    (0..self.instances.len()).filter(|index| self.carries_services(*index)).collect();
                let unicast =
                    carriers.iter().filter_map(|index| self.instances[*index].config.unicast.as_ref());
                let mut peers: BTreeSet<IpAddr> =
                    unicast.flat_map(|unicast| unicast.peers.iter().copied()).collect();
                let mut silent = false;
                for index in carriers {
                    let snapshot = self.inspect_next(self.instances[index].id, &mut silent).await;
                    let heard = snapshot.into_iter().flat_map(|snapshot| snapshot.peers);
                    self.telling.heard.extend(heard.map(|peer| peer.address));
                }
                // Who was heard once is a peer for good. An owner hears nobody while its backups are: they call.
                peers.extend(&self.telling.heard);
                // Nor does it say by which link it is.
                let reached = |peer: &IpAddr| match peer {
                    IpAddr::V4(_) => own.is_ipv4(),
                    IpAddr::V6(peer) => own.is_ipv6() && !peer.is_unicast_link_local(),
                };
                peers.retain(|peer| *peer != own && reached(peer));
                Company { peers, guests: true }
            }
        };
        self.telling.look = (!company.peers.is_empty()).then(|| Instant::now() + LOOK_AROUND);
        if let Some(sync) = &self.telling.sync {
            sync.set_company(company);
        }
    }
}
