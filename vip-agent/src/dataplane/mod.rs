//! The BPF side: load, pin, attach, ownership words, VIP tables, announcements, counters, events.
//!
//! An agent loads a complete fresh set of maps and program, fills it, swaps it into the links that an earlier agent may
//! have left ([`Dataplane::attach`]) and then takes charge ([`Dataplane::commit`]): nothing stale survives a restart,
//! no frame meets an interface without a program, and a kill at any moment leaves the old set or the new one at work.

pub mod announce;
mod checks;
mod counters;
mod egress;
mod error;
mod events;
mod filter;
mod full_nat;
mod holder;
mod links;
mod loader;
mod netdev;
mod object;
mod ownership;
mod peers;
mod pins;
pub mod services;
mod steering;
mod sys;
mod tables;
mod world;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use vip_common::maps::{HeartbeatLink, Vip, VlanKey};
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::maglev::RingSize;

pub use checks::Feature;
pub use counters::{LinkCounter, LinkSlot};
pub use error::DataplaneError;
pub use events::{ForeignOwnerEvents, ForeignOwnerStream, ProgramLog};
pub use full_nat::nat_ports;
pub use holder::Occupant;
pub use links::{Attached, XdpMode};
pub use object::{OBJECT, STEERING_OBJECT};
pub use ownership::{Deadlines, OwnershipWords, RouterSlot, SlotAllocator};
pub use peers::{PeerSlot, PeerWords};
pub use pins::{CleanupReport, cleanup};

pub use crate::types::XdpModeChoice;

use egress::Egress;
use links::{AttachedLink, Target};
use pins::{Hook, PinDir};
use steering::Steering;
use world::World;

use crate::types::MacAddr;

/// The program's name in the kernel, by which an agent knows its own kind.
pub const PROGRAM: &str = "viplane";

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where to pin; `None`: the program is gone as soon as the process is.
    pub pin_dir: Option<PathBuf>,
    /// How to attach.
    pub xdp_mode: XdpModeChoice,
}

/// The loaded program with its maps, and the interfaces that run it.
///
/// Dropping it is a clean exit: programs off, pins and directories removed. A killed process leaves what is pinned
/// attached, silent once the deadlines have passed, until the next agent takes it over or [`cleanup`] removes it.
///
/// All methods work in the network namespace of the calling thread, which must stay the same.
#[derive(Debug)]
pub struct Dataplane {
    world: World,
    /// Of an agent with services.
    steering: Option<Steering>,
    pins: Option<PinDir>,
    committed: bool,
    choice: XdpModeChoice,
    links: BTreeMap<u32, AttachedLink>,
    /// The way out of each of these, of an agent with services.
    egress: BTreeMap<u32, Egress>,
    /// Whether [`Self::egress`] does without links.
    filters: bool,
    /// Slots of interfaces that are to be attached.
    reserved: BTreeMap<u32, LinkSlot>,
    /// Those that are attached all at once, once the tables are complete and the words are another agent's; by name.
    put_off: Option<BTreeMap<u32, String>>,
    routers: SlotAllocator,
}

/// Checks that this process may do what an agent does: BPF, netlink and raw sockets.
///
/// # Errors
/// [`DataplaneError::MissingCapability`] names what is missing.
pub fn check_privileges() -> Result<(), DataplaneError> {
    checks::agent_privileges()
}

/// Checks a pin directory without changing it: file system, every pin in it, and that no agent has it locked.
///
/// # Errors
/// What an agent would refuse to start with.
pub fn check_pin_dir(pin_dir: &Path) -> Result<(), DataplaneError> {
    PinDir::check(pin_dir, false).map(drop)
}

/// Looks which program runs on an interface: the mode of one that an agent with this `pin_dir` would take over, or has put
/// there itself; `None` if there is none. Changes nothing, and needs nothing to be loaded.
///
/// # Errors
/// No such interface; somebody else's program is there ([`DataplaneError::Occupied`]); a pin is not what it should be.
pub fn look(ifindex: u32, name: &str, pin_dir: Option<&Path>) -> Result<Option<XdpMode>, DataplaneError> {
    let pins = pin_dir.map(PinDir::look);
    let plan = Target { ifindex, name, choice: XdpModeChoice::default() }.plan(pins.as_ref())?;
    Ok(plan.former_mode())
}

impl Dataplane {
    /// Loads a fresh set into the kernel, attached to nothing.
    ///
    /// # Errors
    /// A missing privilege, no BPF file system, another agent on `pin_dir`, a pin of ours that is something else, a
    /// kernel that lacks a feature, a verifier that refuses. Nothing has been changed then.
    pub fn load(options: &LoadOptions) -> Result<Self, DataplaneError> {
        Self::load_object(options, OBJECT)
    }

    /// As [`Self::load`], beside an agent that runs, has `pin_dir` locked and is about to hand it on ([`Self::inherit`]).
    /// Interfaces are attached when [`Self::attach_all`] says so.
    pub(crate) fn load_as_successor(options: &LoadOptions) -> Result<Self, DataplaneError> {
        Self::load_beside(options, OBJECT, true)
    }

    /// As [`Self::load`], with another object file than the one built in.
    ///
    /// # Errors
    /// As there.
    pub fn load_object(options: &LoadOptions, object: &[u8]) -> Result<Self, DataplaneError> {
        Self::load_beside(options, object, false)
    }

    fn load_beside(options: &LoadOptions, object: &[u8], succeeds: bool) -> Result<Self, DataplaneError> {
        checks::privileges()?;
        let pins = options.pin_dir.as_deref().map(|path| PinDir::check(path, succeeds));
        let mut pins = pins.transpose()?;
        checks::memory_limit();
        checks::xdp_links()?;
        let world = World::load(object)?;
        if let Some(pins) = &mut pins
            && let Err(error) = pins.stage(world.program.as_fd(), &world.pinnable())
        {
            drop(pins.remove(false));
            return Err(error);
        }
        Ok(Self {
            world,
            steering: None,
            pins,
            committed: false,
            choice: options.xdp_mode,
            links: BTreeMap::new(),
            egress: BTreeMap::new(),
            filters: false,
            reserved: BTreeMap::new(),
            put_off: succeeds.then(BTreeMap::new),
            routers: SlotAllocator::default(),
        })
    }

    /// Whether an interface could be attached, without changing anything: to be asked for all of them before the
    /// first one is attached.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn check_interface(&self, ifindex: u32, name: &str) -> Result<(), DataplaneError> {
        if self.links.contains_key(&ifindex) {
            return Ok(());
        }
        self.target(ifindex, name).plan(self.pins.as_ref()).map(drop)
    }

    /// Runs the program on an interface; in place of an earlier agent's without a gap, unless its mode must change.
    ///
    /// # Errors
    /// No such interface; somebody else's program is there; the driver refuses. Nothing has been changed then.
    pub fn attach(&mut self, ifindex: u32, name: &str) -> Result<Attached, DataplaneError> {
        if let Some(link) = self.links.get(&ifindex) {
            return Ok(link.attached);
        }
        let target = self.target(ifindex, name);
        let plan = target.plan(self.pins.as_ref())?;
        let slot = self.link_slot(ifindex)?;
        if let Some(put_off) = &mut self.put_off {
            put_off.insert(ifindex, name.to_owned());
            return Ok(Attached { mode: plan.former_mode().unwrap_or(XdpMode::Skb), slot, swapped: true });
        }
        let link = target.attach(plan, self.world.program.as_fd(), self.pins.as_ref(), slot)?;
        let attached = link.attached;
        self.links.insert(ifindex, link);
        self.reserved.remove(&ifindex);
        if let Err(error) = self.attach_egress(ifindex) {
            self.detach(ifindex)?;
            return Err(error);
        }
        Ok(attached)
    }

    /// Whether [`Self::attach`] only makes ready for [`Self::attach_all`].
    pub fn puts_off(&self) -> bool {
        self.put_off.is_some()
    }

    /// Attaches what was put off, in place of another agent's program, and puts off nothing any more.
    ///
    /// # Errors
    /// As [`Self::attach`], for the first interface that fails.
    pub fn attach_all(&mut self) -> Result<(), DataplaneError> {
        for (ifindex, name) in self.put_off.take().into_iter().flatten() {
            self.attach(ifindex, &name)?;
        }
        Ok(())
    }

    /// What keeps `pin_dir` locked, for a successor.
    pub(crate) fn pin_lock(&self) -> Option<BorrowedFd<'_>> {
        self.pins.as_ref()?.locked()
    }

    /// Goes on with the lock of the agent that was here before.
    pub(crate) fn inherit(&mut self, pin_lock: OwnedFd) {
        if let Some(pins) = &mut self.pins {
            pins.inherit(pin_lock);
        }
    }

    /// Runs this agent's program again where a successor has put its own, which did not last.
    ///
    /// # Errors
    /// The kernel refuses for some interface; the others were done.
    pub(crate) fn reclaim(&self) -> Result<(), DataplaneError> {
        let program = self.world.program.as_fd();
        let reclaimed = self.links.values().map(|link| link.run(program)).fold(Ok(()), Result::and);
        reclaimed.and(self.reclaim_egress())
    }

    /// Lets go of everything without taking anything off: the agent that was here before goes on.
    pub(crate) fn abandon(&mut self) {
        self.links.clear();
        self.egress.clear();
        if let Some(pins) = self.pins.take() {
            // What is in charge stays.
            drop(pins.remove(false));
        }
    }

    /// The slot that an interface has, or will have when it is attached: so that its VIPs can be in the tables before the
    /// program runs there.
    ///
    /// # Errors
    /// All slots are taken.
    pub fn link_slot(&mut self, ifindex: u32) -> Result<LinkSlot, DataplaneError> {
        if let Some(link) = self.links.get(&ifindex) {
            return Ok(link.attached.slot);
        }
        if let Some(slot) = self.reserved.get(&ifindex) {
            return Ok(*slot);
        }
        let taken = |slot| {
            self.links.values().any(|link| link.attached.slot == slot)
                || self.reserved.values().any(|reserved| *reserved == slot)
        };
        let slot = LinkSlot::free_of(taken)?;
        self.reserved.insert(ifindex, slot);
        Ok(slot)
    }

    fn target<'a>(&self, ifindex: u32, name: &'a str) -> Target<'a> {
        Target { ifindex, name, choice: self.choice }
    }

    /// Takes the program off an interface, which may have gone, and zeroes its counters. Fine if it is not attached.
    ///
    /// # Errors
    /// The pin cannot be removed.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        self.reserved.remove(&ifindex);
        let Some(mut link) = self.links.remove(&ifindex) else { return Ok(()) };
        let slot = link.attached.slot;
        if self.links.values().any(|other| other.pin() == link.pin()) {
            // The interface was replaced by one of its name, whose link is pinned in the same place.
            link.forget_pin();
        }
        let left = self.detach_egress(ifindex);
        link.detach()?;
        left?;
        self.world.counters.clear(slot)
    }

    /// Takes charge, once all configured interfaces are attached: the new set's pins replace those of an earlier agent
    /// and of other versions, and links that nobody claimed (interfaces that went, or left the configuration) go.
    ///
    /// # Errors
    /// A pin cannot be renamed or removed.
    pub fn commit(&mut self) -> Result<(), DataplaneError> {
        let Some(pins) = &self.pins else { return Ok(()) };
        if !self.committed {
            pins.commit()?;
            self.committed = true;
        }
        for hook in [Hook::Ingress, Hook::Egress] {
            for link in pins.links(hook)? {
                let claimed = match hook {
                    Hook::Ingress => self.links.values().any(|ours| ours.pin() == Some(link.path.as_path())),
                    Hook::Egress => self.egress.values().any(|ours| ours.pin() == Some(link.path.as_path())),
                };
                if !claimed {
                    tracing::info!(path = %link.path.display(), "removed the link of an interface that is not in use");
                    drop(sys::detach_link(link.fd.as_fd()));
                    egress::remove_filter(link.info.ifindex);
                    pins::remove(&link.path)?;
                }
            }
        }
        self.remove_former_filters();
        Ok(())
    }

    /// Leaves nothing behind: programs off, pins and directories removed.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest has been.
    pub fn shutdown(mut self) -> Result<(), DataplaneError> {
        self.clear_out()
    }

    fn clear_out(&mut self) -> Result<(), DataplaneError> {
        let mut result = Ok(());
        for egress in std::mem::take(&mut self.egress).into_values() {
            result = result.and(egress.detach());
        }
        for link in std::mem::take(&mut self.links).into_values() {
            result = result.and(link.detach());
        }
        match self.pins.take() {
            Some(pins) => result.and(pins.remove(self.committed)),
            None => result,
        }
    }

    /// The words that decide who answers: to be handed to the driver thread.
    pub fn words(&self) -> OwnershipWords {
        self.world.words.clone()
    }

    /// The words in which signs of life of other nodes are noted: to be handed to the driver thread.
    pub fn peers(&self) -> PeerWords {
        self.world.peers.clone()
    }

    /// From now on stamps and answers the frames of fast detection that come in by an interface (an attached one, or a VLAN
    /// on top of one), as this says.
    ///
    /// # Errors
    /// The table is full.
    pub fn detect_on(&mut self, ifindex: u32, link: HeartbeatLink) -> Result<(), DataplaneError> {
        self.world.tables.insert_heartbeat_link(ifindex, link)
    }

    /// Lets these frames pass again. Fine if they do.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detect_not_on(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        self.world.tables.remove_heartbeat_link(ifindex)
    }

    /// Loads steering, once: an agent without services does without its 100 MiB of kernel memory. VIPs are steered when they
    /// have [`vip_common::maps::vip_flags::SERVICES`], by what is in the maps then ([`Self::steering_map`]).
    ///
    /// # Errors
    /// The kernel refuses a map or a program; a map cannot be pinned; rings of another size are in use already; the TC program of
    /// mode `nat` cannot be attached to an interface. Nothing has been changed for packets then.
    pub fn load_steering(&mut self, ring_size: RingSize) -> Result<(), DataplaneError> {
        if let Some(steering) = &self.steering {
            return if steering.ring_size == ring_size {
                Ok(())
            } else {
                Err(world::misfit(format!("rings have {} entries already", steering.ring_size.get())))
            };
        }
        let inherited = match &self.pins {
            // Flows and all that belongs to them: the agent that runs goes on writing to them until it yields.
            Some(pins) if self.put_off.is_some() => pins.steering_maps()?,
            Some(pins) => pins.local_flows()?.map(|map| (steering::LOCAL_FLOWS, map)).into_iter().collect(),
            None => Vec::new(),
        };
        let steering = Steering::load(&self.world.pinnable(), inherited, ring_size)?;
        if let Some(pins) = &self.pins {
            pins.add(&steering.pinnable(), self.committed)?;
        }
        self.steering = Some(steering);
        let attached: Vec<u32> = self.links.keys().copied().collect();
        attached.into_iter().try_for_each(|ifindex| self.attach_egress(ifindex))
    }

    /// A map of steering by its name in docs/steering.md; `None`: no such map, or [`Self::load_steering`] was not called.
    pub fn steering_map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.steering.as_ref()?.map(name)
    }

    /// Says which ports full NAT may give to flows to backends on other nodes ([`nat_ports`]); before that, none: such flows are
    /// refused. Flows keep theirs until they end, also where the new ones do not have it.
    ///
    /// # Errors
    /// [`Self::load_steering`] was not called, or the kernel refuses.
    pub fn set_nat_ports(&mut self, ports: &Ports) -> Result<(), DataplaneError> {
        let absent = || world::misfit("no map NAT_PORTS: steering is not loaded".to_owned());
        full_nat::set_ports(self.steering_map("NAT_PORTS").ok_or_else(absent)?, ports)
    }

    /// Instructions that the verifier went through for each program of steering, if it is loaded; `None` of one where the
    /// kernel does not tell (before 5.16).
    pub fn verified_steering(&self) -> &[(&'static str, Option<u32>)] {
        self.steering.as_ref().map_or(&[], Steering::verified_instructions)
    }

    /// The map of the deadlines, for another process to map ([`Deadlines::map`]).
    pub fn deadlines(&self) -> Option<BorrowedFd<'_>> {
        self.world.pinnable().into_iter().find(|(name, _)| *name == "DEADLINES").map(|(_, map)| map)
    }

    /// Takes a slot for a virtual router, silent until a deadline is stored.
    ///
    /// # Errors
    /// All are taken.
    pub fn allocate_router(&mut self) -> Result<RouterSlot, DataplaneError> {
        self.routers.allocate()
    }

    /// Silences a router and gives its slot back. Its VIPs must have been removed.
    pub fn free_router(&mut self, slot: RouterSlot) {
        self.world.words.clear(slot);
        self.routers.free(slot);
    }

    /// Makes an address a VIP on the interface that carries it: an attached one, or a VLAN on top of one.
    ///
    /// # Errors
    /// The table is full.
    pub fn insert_vip(&mut self, ifindex: u32, address: IpAddr, vip: Vip) -> Result<(), DataplaneError> {
        self.world.tables.insert_vip(ifindex, address, vip)
    }

    /// Makes an address an ordinary one again. Fine if it is no VIP.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_vip(&mut self, ifindex: u32, address: IpAddr) -> Result<(), DataplaneError> {
        self.world.tables.remove_vip(ifindex, address)
    }

    /// What the program knows about an address.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn vip(&self, ifindex: u32, address: IpAddr) -> Result<Option<Vip>, DataplaneError> {
        self.world.tables.vip(ifindex, address)
    }

    /// Has the program take frames to a virtual MAC for the router, on the interface that carries its VIPs.
    ///
    /// # Errors
    /// The table is full.
    pub fn insert_virtual_mac(
        &mut self,
        ifindex: u32,
        mac: MacAddr,
        router: Vip,
    ) -> Result<(), DataplaneError> {
        self.world.tables.insert_virtual_mac(ifindex, mac, router)
    }

    /// Leaves frames to this MAC alone again. Fine if it is no virtual MAC of ours.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_virtual_mac(&mut self, ifindex: u32, mac: MacAddr) -> Result<(), DataplaneError> {
        self.world.tables.remove_virtual_mac(ifindex, mac)
    }

    /// The router that a virtual MAC stands for on an interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn virtual_mac(&self, ifindex: u32, mac: MacAddr) -> Result<Option<Vip>, DataplaneError> {
        self.world.tables.virtual_mac(ifindex, mac)
    }

    /// Tells the program which VLAN interface a tag on an attached interface leads to.
    ///
    /// # Errors
    /// The table is full.
    pub fn insert_vlan(&mut self, tag: VlanKey, ifindex: u32) -> Result<(), DataplaneError> {
        self.world.tables.insert_vlan(tag, ifindex)
    }

    /// Frames with this tag belong to another network again. Fine if it is unknown.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_vlan(&mut self, tag: VlanKey) -> Result<(), DataplaneError> {
        self.world.tables.remove_vlan(tag)
    }

    /// What the program counted on the attached interfaces, by interface and reason.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counters(&self) -> Result<Vec<LinkCounter>, DataplaneError> {
        let mut counters = Vec::new();
        for (ifindex, link) in &self.links {
            counters.extend(self.world.counters.read(*ifindex, link.attached.slot)?);
        }
        Ok(counters)
    }

    /// The attached interfaces by index: name, and how.
    pub fn attached(&self) -> impl Iterator<Item = (u32, &str, Attached)> {
        self.links.iter().map(|(ifindex, link)| (*ifindex, link.name.as_str(), link.attached))
    }

    /// Reports of other stations that answer for our VIPs. There is one reader: `None` the second time.
    pub fn take_events(&mut self) -> Option<ForeignOwnerEvents> {
        self.world.events.take()
    }

    /// The program's log lines; `None` the second time, or where the program logs nothing.
    pub fn take_log(&mut self) -> Option<ProgramLog> {
        self.world.log.take()
    }

    /// Bytes of kernel memory that the maps take, not part of the process's resident memory.
    pub fn map_memory(&self) -> u64 {
        let steering = self.steering.iter().flat_map(|steering| &steering.maps);
        self.world.maps.iter().chain(steering).map(|(_, map)| counters::memory_of(map.as_fd())).sum()
    }

    /// Instructions that the verifier went through; `None` where the kernel does not tell (before 5.16).
    pub fn verified_instructions(&self) -> Option<u32> {
        self.world.verified_instructions
    }

    /// The program's id.
    pub fn program_id(&self) -> u32 {
        self.world.program_id
    }

    /// The program, for measurements and tests that run it without an interface (BPF_PROG_TEST_RUN).
    pub fn program(&self) -> BorrowedFd<'_> {
        self.world.program.as_fd()
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        if let Err(error) = self.clear_out() {
            tracing::warn!(%error, "left something behind: `vip-agent cleanup` removes it");
        }
    }
}
