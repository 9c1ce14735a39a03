//! The tables of flows as the exchange with peers reads and fills them ([`crate::flow_sync`]): in terms that mean the same on every
//! node on one side, in slots of this node's tables on the other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytemuck::Zeroable;
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::full_nat::tables::{NatFlow, NatHop, NatKey, NatReturn, gives_way, life};
use vip_common::steering::tables::{Choice, FlowState, Mode, SteeredFlowKey};

use super::super::ownership::{OwnershipWords, RouterSlot};
use super::entries::{each, look_up, remove, write};
use super::slots::BackendSlot;
use super::tables::ServiceTables;
use super::wanted::{address, bytes, family};
use crate::config::PortRange;
use crate::flow_sync::table::{Flow, FlowKey, FlowTable, Noted, Translation};
use crate::types::MonotonicTime;

/// Clients to be looked for at once.
const MOST_CLIENTS: usize = 1024;

/// What the tables' numbers mean, as of the last plan that was carried out.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// By the slots of services.
    pub services: BTreeMap<u16, Known>,
    /// Whose word says who owns a VIP.
    pub routers: BTreeMap<IpAddr, RouterSlot>,
    /// The ports that full NAT may use here: answers to others do not find their flow. `None`: none yet.
    pub ports: Option<Ports>,
}

/// A service in the tables.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its VIP.
    pub vip: IpAddr,
    /// How packets get to its backends.
    pub mode: Mode,
    /// What it serves.
    pub ports: Vec<PortRange>,
    /// Its backends on other nodes: flows of those here end with their node.
    pub backends: BTreeMap<IpAddr, BackendSlot>,
}

impl Known {
    fn backend(&self, number: u32, generation: u16) -> Option<IpAddr> {
        let is_it = |slot: &BackendSlot| slot.number.get() == number && slot.generation == generation;
        self.backends.iter().find(|(_, slot)| is_it(slot)).map(|(address, _)| *address)
    }

    fn serves(&self, protocol: u8, port: u16) -> Option<bool> {
        let of_protocol = self.ports.iter().filter(|range| range.transport().number() == protocol);
        let mut specific = of_protocol.clone().filter(|range| !range.is_all());
        if specific.any(|range| range.numbers().contains(&port)) {
            return Some(true);
        }
        of_protocol.clone().any(PortRange::is_all).then_some(false)
    }
}

impl Directory {
    /// Whose port it is: one that is named comes before all of them.
    fn service(&self, key: &FlowKey) -> Option<(u16, &Known)> {
        let here = self.services.iter().filter(|(_, known)| known.vip == key.vip);
        let serving = here
            .filter_map(|(index, known)| Some((known.serves(key.protocol, key.vip_port)?, (*index, known))));
        serving.max_by_key(|(named, _)| *named).map(|(_, service)| service)
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.is_some_and(|ports| ports.contains(port))
    }
}

/// The agent's end of what the exchange knows of the tables' numbers.
#[derive(Clone, Debug, Default)]
pub struct SharedDirectory(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    directory: Arc<Directory>,
    clients: BTreeSet<IpAddr>,
}

impl SharedDirectory {
    /// This is how things are from now on.
    pub fn set(&self, directory: Directory) {
        self.lock().directory = Arc::new(directory);
    }

    /// Clients of flows that peers have told since this was last asked, 1024 at most: the program will need the MACs of
    /// their next hops as soon as this node owns their VIP.
    pub fn take_clients(&self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.lock().clients)
    }

    fn get(&self) -> Arc<Directory> {
        Arc::clone(&self.lock().directory)
    }

    fn note_client(&self, client: IpAddr) {
        let clients = &mut self.lock().clients;
        if clients.len() < MOST_CLIENTS {
            clients.insert(client);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `FLOWS`, `NAT_FLOWS` and `NAT_RETURNS`.
#[derive(Debug)]
pub struct ToldFlows {
    tables: Arc<ServiceTables>,
    directory: SharedDirectory,
    words: OwnershipWords,
}

impl ToldFlows {
    /// Of these tables, whose numbers mean what the directory says.
    pub const fn new(tables: Arc<ServiceTables>, directory: SharedDirectory, words: OwnershipWords) -> Self {
        Self { tables, directory, words }
    }

    fn is_owner(&self, directory: &Directory, vip: IpAddr) -> bool {
        let slot = directory.routers.get(&vip);
        slot.is_some_and(|slot| self.words.load(*slot) > MonotonicTime::now())
    }

    fn read_steered(&self, directory: &Directory, visit: &mut dyn FnMut(Flow)) -> io::Result<()> {
        let now = MonotonicTime::now();
        each(self.tables.flows.as_fd(), |key: &SteeredFlowKey, choice: &Choice| {
            let known = self.own_service(directory, key.service);
            // What mode nat has here is of a backend on this node, and ends with it.
            let Some(known) = known.filter(|known| known.mode != Mode::Nat) else { return };
            let Some(backend) = known.backend(choice.backend, choice.generation) else { return };
            let (state, idle) = (FlowState::of(choice.state), now.0.saturating_sub(choice.seen));
            let idle = Duration::from_nanos(idle);
            visit(Flow { key: flow_key(key, known.vip), backend, translation: None, state, idle });
        })
    }

    fn read_translated(&self, directory: &Directory, visit: &mut dyn FnMut(Flow)) -> io::Result<()> {
        let now = MonotonicTime::now();
        each(self.tables.nat_flows.as_fd(), |key: &SteeredFlowKey, flow: &NatFlow| {
            let Some(known) = self.own_service(directory, key.service) else { return };
            let Some(backend) = known.backend(flow.backend, flow.generation) else { return };
            let back = look_up::<_, NatReturn>(self.tables.nat_returns.as_fd(), &flow.way).ok().flatten();
            let (state, seen) = life(Some(flow), back.as_ref());
            let way = &flow.way;
            let translation = Some(Translation {
                own: address(way.own, way.family),
                own_port: u16::from_be_bytes(way.own_port),
                backend_port: u16::from_be_bytes(way.backend_port),
            });
            let idle = Duration::from_nanos(now.0.saturating_sub(seen));
            visit(Flow { key: flow_key(key, known.vip), backend, translation, state, idle });
        })
    }

    fn own_service<'a>(&self, directory: &'a Directory, index: u16) -> Option<&'a Known> {
        directory.services.get(&index).filter(|known| self.is_owner(directory, known.vip))
    }

    fn note_steered(&self, key: &SteeredFlowKey, flow: &Flow, slot: BackendSlot) -> io::Result<Noted> {
        let (backend, generation) = (slot.number.get(), slot.generation);
        let choice =
            Choice { seen: seen(flow.idle), backend, generation, state: flow.state as u8, reserved: 0 };
        write(self.tables.flows.as_fd(), key, &choice)?;
        Ok(Noted::Yes)
    }

    /// The way back first, as the program does it: where the port is somebody else's, there is no flow.
    fn note_translated(
        &self,
        key: &SteeredFlowKey,
        flow: &Flow,
        translation: &Translation,
        slot: BackendSlot,
    ) -> io::Result<Noted> {
        let (flows, returns) = (self.tables.nat_flows.as_fd(), self.tables.nat_returns.as_fd());
        let family = family(flow.key.vip);
        let way = NatKey {
            backend: bytes(flow.backend),
            own: bytes(translation.own),
            backend_port: translation.backend_port.to_be_bytes(),
            own_port: translation.own_port.to_be_bytes(),
            protocol: flow.key.protocol,
            family,
            reserved: [0; 2],
        };
        let there = look_up::<_, NatReturn>(returns, &way)?;
        if let Some(other) = there.filter(|back| back.client != *key) {
            let its = look_up::<_, NatFlow>(flows, &other.client)?.filter(|flow| flow.way == way);
            if !gives_way(its.as_ref(), Some(&other), flow.key.protocol, MonotonicTime::now().0) {
                return Ok(Noted::Taken);
            }
            if its.is_some() {
                remove(flows, &other.client)?;
            }
        }
        let (seen, state) = (seen(flow.idle), flow.state as u8);
        let (backend, generation) = (slot.number.get(), slot.generation);
        // The way to the client is each owner's own: what this one knows of it already stays.
        let hop = there.filter(|back| back.client == *key).map_or(NatHop::zeroed(), |back| back.hop);
        if hop.ifindex == 0 {
            self.directory.note_client(flow.key.client);
        }
        let vip = bytes(flow.key.vip);
        let back = NatReturn { seen, client: *key, vip, hop, backend, generation, state, reserved: [0; 5] };
        let before = look_up::<_, NatFlow>(flows, key)?;
        write(returns, &way, &back)?;
        write(flows, key, &NatFlow { seen, backend, generation, state, reserved: 0, way })?;
        if let Some(before) = before.filter(|before| before.way != way) {
            remove(returns, &before.way)?;
        }
        Ok(Noted::Yes)
    }
}

impl FlowTable for ToldFlows {
    fn read(&mut self, visit: &mut dyn FnMut(Flow)) -> io::Result<()> {
        let directory = self.directory.get();
        // A backup has nothing to tell, and looking through empty tables takes milliseconds.
        if !directory.routers.keys().any(|vip| self.is_owner(&directory, *vip)) {
            return Ok(());
        }
        self.read_steered(&directory, visit)?;
        self.read_translated(&directory, visit)
    }

    fn owns(&self, vip: IpAddr) -> bool {
        self.is_owner(&self.directory.get(), vip)
    }

    fn note(&mut self, flow: &Flow) -> Noted {
        let directory = self.directory.get();
        if self.is_owner(&directory, flow.key.vip) {
            return Noted::Own;
        }
        if flow.is_over() {
            return Noted::Over;
        }
        let Some((index, known)) = directory.service(&flow.key) else { return Noted::Unknown };
        let Some(slot) = known.backends.get(&flow.backend).copied() else { return Noted::Unknown };
        let key = table_key(&flow.key, index);
        let noted = match (&flow.translation, known.mode) {
            (None, Mode::Direct | Mode::Tunnel) => self.note_steered(&key, flow, slot),
            // To its backend a flow is the VIP's, which comes to whoever owns that.
            (Some(translation), Mode::Nat) if translation.own == known.vip => {
                if !directory.has_port(translation.own_port) {
                    return Noted::Taken;
                }
                self.note_translated(&key, flow, translation, slot)
            }
            _ => return Noted::Unknown,
        };
        noted.unwrap_or(Noted::Full)
    }

    fn forget(&mut self, key: &FlowKey) {
        let directory = self.directory.get();
        let Some((index, _)) = directory.service(key) else { return };
        if self.is_owner(&directory, key.vip) {
            return;
        }
        // What cannot be removed is over by itself, later.
        let key = table_key(key, index);
        let _ = remove(self.tables.flows.as_fd(), &key);
        if let Ok(Some(flow)) = look_up::<_, NatFlow>(self.tables.nat_flows.as_fd(), &key) {
            let _ = remove(self.tables.nat_flows.as_fd(), &key);
            let _ = remove(self.tables.nat_returns.as_fd(), &flow.way);
        }
    }
}

fn seen(idle: Duration) -> u64 {
    MonotonicTime::now().0.saturating_sub(u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX))
}

fn flow_key(key: &SteeredFlowKey, vip: IpAddr) -> FlowKey {
    FlowKey {
        client: address(key.client, family(vip)),
        vip,
        client_port: u16::from_be_bytes(key.client_port),
        vip_port: u16::from_be_bytes(key.vip_port),
        protocol: key.protocol,
    }
}

fn table_key(key: &FlowKey, service: u16) -> SteeredFlowKey {
    SteeredFlowKey {
        client: bytes(key.client),
        client_port: key.client_port.to_be_bytes(),
        vip_port: key.vip_port.to_be_bytes(),
        service,
        protocol: key.protocol,
        reserved: 0,
    }
}
