//! Moving instances in and out of interfaces: program, tables, groups, sysctls, sockets. Follows the links.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use vip_common::maps::{Vip, VlanKey, vip_flags};

use super::Agent;
use super::binding::{answering, bind};
use super::instance::{Exit, Home, Managed};
use super::place::{Misplaced, Place, off_subnet, place};
use super::sockets::{Memberships, Sockets};
use crate::config::{self, LocalAddress};
use crate::dataplane::{Dataplane, DataplaneError, LinkSlot, RouterSlot};
use crate::errors::in_full;
use crate::net::journal::Journal;
use crate::net::links::{DefaultRoutes, LinkTable, promiscuity};
use crate::net::neighbors::Neighbor;
use crate::net::offload::strips_vlan_tags;
use crate::net::sysctl::{self, SysctlError};
use crate::types::{Family, MacAddr};
use crate::vrrp::driver::Command;
use crate::vrrp::socket::{Interface, PacketReceiver, UnicastFilter};

impl Agent {
    /// Links or addresses have changed.
    pub(super) async fn on_links(&mut self, links: Arc<LinkTable>) {
        self.links = links;
        // First: a fault is to be told at once.
        self.observe_links();
        self.apply_verdicts().await;
        self.read_routes().await;
        for index in 0..self.instances.len() {
            self.settle(index).await;
        }
        self.tidy().await;
        // MACs, MTUs and carriers of next hops.
        self.services.touch();
        self.keep_services();
    }

    /// Default routes matter only where somebody chooses an interface by them.
    pub(super) async fn read_routes(&mut self) {
        let by_route = |instance: &config::Instance| {
            [&instance.interface, &instance.vip_interface].contains(&&config::InterfaceSelector::DefaultRoute)
        };
        if self.instances.iter().any(|managed| by_route(&managed.config)) {
            match DefaultRoutes::read(&self.rtnetlink).await {
                Ok(routes) => self.routes = routes,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the default routes: keeping the former choice");
                }
            }
        }
    }

    /// Brings an instance to where it belongs now, or tells it that there is no such place.
    pub(super) async fn settle(&mut self, index: usize) {
        let managed = &self.instances[index];
        if managed.exit == Exit::Left {
            return;
        }
        let housed = match place(&managed.config, &self.links, &self.routes) {
            Ok(place)
                if managed.fault.is_none()
                    && managed.home.as_ref().is_some_and(|home| home.place == place) =>
            {
                return;
            }
            Ok(place) => self.move_in(index, place).await,
            Err(misplaced) => Err(misplaced.into()),
        };
        match housed {
            Ok(()) => self.recovered(index).await,
            Err(error) => self.fault(index, in_full(&error)).await,
        }
    }

    /// Tries again what did not work; says nothing unless something is different.
    pub(super) async fn retry_faults(&mut self) {
        let faulty = |managed: &Managed| managed.fault.is_some() && managed.exit == Exit::None;
        if self.instances.iter().any(faulty) {
            // One that came after the last news of the links.
            self.read_routes().await;
        }
        for index in 0..self.instances.len() {
            if faulty(&self.instances[index]) {
                self.settle(index).await;
            }
        }
    }

    async fn recovered(&mut self, index: usize) {
        let managed = &mut self.instances[index];
        if let Some(fault) = managed.fault.take() {
            tracing::info!(instance = managed.name(), "can serve again (was: {fault})");
            self.tell_condition(index, None).await;
        }
    }

    pub(super) async fn fault(&mut self, index: usize, why: String) {
        let managed = &mut self.instances[index];
        if managed.fault.as_ref() == Some(&why) {
            return;
        }
        tracing::warn!(instance = managed.name(), "cannot serve: {why}");
        managed.fault = Some(why);
        self.tell_condition(index, None).await;
    }

    /// Makes everything that an instance needs at a place, replacing what it had elsewhere.
    async fn move_in(&mut self, index: usize, place: Place) -> anyhow::Result<()> {
        let config = self.instances[index].config.clone();
        let router = sysctl::forwards_ipv6(&place.vip.name).unwrap_or(false);
        let signer = self.signer(&config);
        let binding = bind(&config, &place, router, &mut self.sockets, signer.as_ref())?;
        self.check_tags(&place)?;
        let groups = join_groups(&config, &place, &mut self.sockets)?;
        let virtual_macs = place.virtual_macs(&config);
        let filter = self.receive_at(&place.attach, &virtual_macs).await?;
        for vip in off_subnet(&config, &place, &self.links) {
            tracing::warn!(
                instance = config.name.as_str(),
                "{vip} lies in no subnet of {}: only hosts that have a route to it by this network will ask for it",
                place.vip.name
            );
        }
        // Where it was already, nothing is taken out to be put in again: between the two the kernel would answer for VIPs
        // that still linger on lo, beside their owner.
        let is_there = |home: &Home| home.place.vip == place.vip && home.place.tags == place.tags;
        if !self.instances[index].home.as_ref().is_some_and(is_there) {
            self.move_out_of_tables(index);
        }
        if place.tags.outer != 0 {
            self.dataplane.insert_vlan(vlan_key(&place), place.vip.index)?;
        }
        let link = self.dataplane.link_slot(place.attach.index)?;
        let managed = &self.instances[index];
        let answering = answering(&config, &place);
        let value = |mac| vip_value(managed, link, &place, router, mac);
        let flags = |vip| self.services.flags(vip, &config);
        let vips: Vec<IpAddr> = config.vips.iter().map(|vip| vip.address).collect();
        for &vip in &vips {
            let value = value(answering.mac(Family::of(vip)));
            let value = Vip { flags: value.flags | flags(vip), ..value };
            self.dataplane.insert_vip(place.vip.index, vip, value)?;
        }
        for &mac in &virtual_macs {
            self.dataplane.insert_virtual_mac(place.vip.index, mac, value(mac))?;
        }
        silence_arp(&config, &place, &self.journal)?;
        // The tables first: no question for a VIP may pass a program that does not know it yet.
        let attached = self.dataplane.attach(place.attach.index, &place.attach.name);
        let mode = attached.as_ref().ok().map(|attached| attached.mode);
        self.instances[index].home = Some(Home { place, mode, vips, groups, virtual_macs, _filter: filter });
        if let Err(error) = attached {
            self.move_out_of_tables(index);
            return Err(error.into());
        }
        self.listen().await?;
        self.keep_detecting().await;
        self.keep_peers_resolved();
        self.give(index, binding).await;
        self.services.touch();
        Ok(())
    }

    /// Other VIPs at the same place.
    pub(super) fn change_vips(
        &mut self,
        index: usize,
        gone: &[IpAddr],
        come: &[IpAddr],
        router: bool,
    ) -> anyhow::Result<()> {
        let managed = &mut self.instances[index];
        let Some(home) = &mut managed.home else { return Ok(()) };
        for vip in gone {
            forget_vip(&mut self.dataplane, home.place.vip.index, *vip, managed.slot)?;
            home.vips.retain(|known| known != vip);
            if let IpAddr::V6(vip) = vip {
                home.groups.leave(*vip);
            }
        }
        let link = self.dataplane.link_slot(home.place.attach.index)?;
        for vip in come {
            if let IpAddr::V6(vip) = vip {
                home.groups.join(*vip)?;
            }
            home.vips.push(*vip);
        }
        // Those that stay may be accepted, or not, from now on.
        let Some(home) = &managed.home else { return Ok(()) };
        let answering = answering(&managed.config, &home.place);
        for vip in &home.vips {
            let value = vip_value(managed, link, &home.place, router, answering.mac(Family::of(*vip)));
            let flags = value.flags | self.services.flags(*vip, &managed.config);
            let value = Vip { flags, ..value };
            self.dataplane.insert_vip(home.place.vip.index, *vip, value)?;
        }
        silence_arp(&managed.config, &home.place, &self.journal)
    }

    /// Tags that a NIC takes off before XDP sees the frame make its VLANs look like the interface itself.
    ///
    /// Virtual interfaces say so of themselves, too, but what arrives by them depends on who sent it: they get a warning.
    fn check_tags(&self, place: &Place) -> anyhow::Result<()> {
        if place.tags.outer == 0 {
            return Ok(());
        }
        let parent = place.attach.index;
        let below = self.links.iter().filter(|link| link.ifindex == parent || link.master == Some(parent));
        for link in below.filter(|link| strips_vlan_tags(&link.name).unwrap_or(false)) {
            let name = link.name.as_str();
            let why = format!(
                "{name} takes VLAN tags off before XDP sees the frames of {}: `ethtool -K {name} rxvlan off`",
                place.vip
            );
            anyhow::ensure!(link.kind.is_some(), why);
            tracing::warn!("{why}");
        }
        Ok(())
    }

    /// Puts virtual MACs into the filter of the interface whose frames the program sees.
    async fn receive_at(
        &self,
        attach: &Interface,
        virtual_macs: &[MacAddr],
    ) -> anyhow::Result<Option<UnicastFilter>> {
        if virtual_macs.is_empty() {
            return Ok(None);
        }
        let before = promiscuity(&self.rtnetlink, attach.index).await;
        let filter = UnicastFilter::open(attach, virtual_macs.iter().copied())?;
        let after = promiscuity(&self.rtnetlink, attach.index).await;
        if let (Ok(before), Ok(after)) = (before, after)
            && after > before
        {
            tracing::info!(
                interface = %attach,
                "the driver has no filter for further MACs: the kernel has made {attach} promiscuous for the virtual MAC"
            );
        }
        Ok(Some(filter))
    }

    /// Takes an instance's VIPs out of the program's tables; from then on they are addresses like others.
    pub(super) fn move_out_of_tables(&mut self, index: usize) {
        let slot = self.instances[index].slot;
        let Some(home) = self.instances[index].home.take() else { return };
        for vip in &home.vips {
            if let Err(error) = forget_vip(&mut self.dataplane, home.place.vip.index, *vip, slot) {
                tracing::warn!(%error, %vip, "cannot take a VIP out of the program's table");
            }
        }
        for mac in &home.virtual_macs {
            if let Err(error) = forget_virtual_mac(&mut self.dataplane, home.place.vip.index, *mac, slot) {
                tracing::warn!(%error, %mac, "cannot take a virtual MAC out of the program's table");
            }
        }
        let shared = self.homes().any(|other| other.place.vip == home.place.vip);
        if !shared
            && home.place.tags.outer != 0
            && let Err(error) = self.dataplane.remove_vlan(vlan_key(&home.place))
        {
            tracing::warn!(%error, "cannot take a VLAN out of the program's table");
        }
        let needed: BTreeSet<&str> = self.homes().flat_map(|other| other.place.to_silence()).collect();
        let idle = home.place.to_silence().filter(|interface| !needed.contains(interface));
        if let Err(error) = restore_arp(idle, &self.journal) {
            tracing::warn!("{}", in_full(&error));
        }
    }

    /// Lets go of interfaces that nobody needs any more.
    pub(super) async fn tidy(&mut self) {
        // It needs the program where an instance may not.
        self.keep_detecting().await;
        let mut used = self.detection_needs();
        used.extend(self.homes().map(|home| home.place.attach.index));
        let unused: Vec<u32> = self
            .dataplane
            .attached()
            .map(|(ifindex, ..)| ifindex)
            .filter(|ifindex| !used.contains(ifindex))
            .collect();
        for ifindex in unused {
            self.note_packets(ifindex);
            if let Err(error) = self.dataplane.detach(ifindex) {
                tracing::warn!(%error, "cannot take the program off an interface that is no longer used");
            }
        }
        if let Err(error) = self.listen().await {
            tracing::warn!("{}", in_full(&error));
        }
        self.keep_peers_resolved();
    }

    /// Opens a receiver for each interface and family that instances use, and closes the others.
    async fn listen(&mut self) -> anyhow::Result<()> {
        let wanted: BTreeSet<(u32, Family)> = self
            .homes()
            .flat_map(|home| {
                home.place.sources.iter().map(|source| (home.place.advert.index, Family::of(*source)))
            })
            .collect();
        let unwanted: Vec<_> = self.listening.difference(&wanted).copied().collect();
        for (ifindex, family) in unwanted {
            self.driver.send(Command::Unlisten(ifindex, family)).await;
            self.listening.remove(&(ifindex, family));
        }
        for (ifindex, family) in wanted {
            if self.listening.contains(&(ifindex, family)) {
                continue;
            }
            let home = self.homes().find(|home| home.place.advert.index == ifindex);
            let Some(interface) = home.map(|home| home.place.advert.clone()) else { continue };
            let mut receiver = PacketReceiver::open(&interface, family)?;
            // Harmless for unicast instances, and another instance on the interface may be multicast.
            receiver.join_group()?;
            self.driver.send(Command::Listen(Box::new(receiver))).await;
            self.listening.insert((ifindex, family));
        }
        Ok(())
    }

    /// An expired neighbour entry would delay a unicast advertisement by its resolution. Peers behind a router have none.
    pub(super) fn keep_peers_resolved(&self) {
        let peers = self.instances.iter().filter_map(|managed| {
            let (home, unicast) = (managed.home.as_ref()?, managed.config.unicast.as_ref()?);
            let ifindex = home.place.advert.index;
            let link = self.links.get(ifindex)?;
            let near = unicast.peers.iter().filter(|peer| link.is_on_link(**peer));
            Some(near.map(move |&address| Neighbor { ifindex, address }))
        });
        self.neighbors.set(peers.flatten().collect());
    }

    fn homes(&self) -> impl Iterator<Item = &Home> {
        self.instances.iter().filter_map(|managed: &Managed| managed.home.as_ref())
    }
}

/// Takes a VIP out of the table, unless another instance has taken it over.
fn forget_vip(
    dataplane: &mut Dataplane,
    ifindex: u32,
    vip: IpAddr,
    slot: RouterSlot,
) -> Result<(), DataplaneError> {
    match dataplane.vip(ifindex, vip)? {
        Some(known) if known.router == slot.get() => dataplane.remove_vip(ifindex, vip),
        _ => Ok(()),
    }
}

/// Takes a virtual MAC out of the table, unless another instance has taken it over.
fn forget_virtual_mac(
    dataplane: &mut Dataplane,
    ifindex: u32,
    mac: MacAddr,
    slot: RouterSlot,
) -> Result<(), DataplaneError> {
    match dataplane.virtual_mac(ifindex, mac)? {
        Some(known) if known.router == slot.get() => dataplane.remove_virtual_mac(ifindex, mac),
        _ => Ok(()),
    }
}

/// Checks, before anything is changed, that every instance has a place, or will have one without anybody's help.
pub(super) fn check_places(
    instances: &[config::Instance],
    links: &LinkTable,
    routes: &DefaultRoutes,
    dataplane: &Dataplane,
) -> anyhow::Result<()> {
    for instance in instances {
        let name = instance.name.as_str();
        match place(instance, links, routes) {
            Ok(place) => dataplane
                .check_interface(place.attach.index, &place.attach.name)
                .with_context(|| format!("instance {name}"))?,
            Err(misplaced) if misplaced.is_permanent() => return Err(in_instance(misplaced, name)),
            Err(_) => {}
        }
    }
    Ok(())
}

fn in_instance(misplaced: Misplaced, name: &str) -> anyhow::Error {
    anyhow::Error::from(misplaced).context(format!("instance {name}"))
}

/// Checks that no two instances are the same virtual router: they may choose one interface by different words. And that
/// none have the same virtual MAC: their VIPs may be on one interface, though their adverts are not.
pub(crate) fn check_clashes(
    instances: &[config::Instance],
    links: &LinkTable,
    routes: &DefaultRoutes,
) -> anyhow::Result<()> {
    let mut seen = BTreeMap::new();
    let mut virtual_macs = BTreeMap::new();
    for instance in instances {
        let Ok(place) = place(instance, links, routes) else { continue };
        for source in &place.sources {
            let router = (place.advert.index, Family::of(*source), instance.virtual_router_id);
            if let Some(other) = seen.insert(router, instance.name.as_str()) {
                anyhow::bail!(
                    "instances {other} and {} are both virtual router {} on {}: choose another virtual_router_id",
                    instance.name,
                    instance.virtual_router_id,
                    place.advert
                );
            }
        }
        for mac in place.virtual_macs(instance) {
            if let Some(other) = virtual_macs.insert((place.vip.index, mac), instance.name.as_str()) {
                anyhow::bail!(
                    "instances {other} and {} both have the virtual MAC {mac} on {}: choose another virtual_router_id",
                    instance.name,
                    place.vip
                );
            }
        }
    }
    Ok(())
}

/// Puts back what [`silence_arp`] set.
pub(super) fn restore_arp<'a>(
    mut interfaces: impl Iterator<Item = &'a str>,
    journal: &Journal,
) -> anyhow::Result<()> {
    interfaces.try_for_each(|interface| {
        sysctl::restore_arp(interface, journal).context("restoring arp_ignore and arp_announce")
    })
}

/// What the program cannot keep the kernel from, with VIPs on lo: answering ARP for them where there is no program, and
/// claiming them by questions of its own, which XDP does not see.
fn silence_arp(config: &config::Instance, place: &Place, journal: &Journal) -> anyhow::Result<()> {
    if config.stands_on_lo() == LocalAddress::Never || config.vips_v4().next().is_none() {
        return Ok(());
    }
    let held = place.to_silence().flat_map(|interface| {
        [
            (
                sysctl::silence_arp(interface, journal),
                "without the XDP program this node's kernel would answer ARP for its VIPs",
            ),
            (
                sysctl::ask_as_oneself(interface, journal),
                "while this node ends its connections after a handover, its kernel may draw clients back by its ARP requests",
            ),
        ]
    });
    for (outcome, otherwise) in held {
        match outcome {
            Ok(_) => {}
            Err(error @ SysctlError::ReadOnly { .. }) => tracing::warn!("{error}: {otherwise}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Without membership the NIC's filter drops solicitations for the VIPs.
fn join_groups(
    config: &config::Instance,
    place: &Place,
    sockets: &mut Sockets,
) -> anyhow::Result<Memberships> {
    let mut groups = sockets.memberships(&place.vip);
    for vip in config.vips_v6() {
        groups.join(vip)?;
    }
    Ok(groups)
}

/// What the program is told of a VIP for which this MAC answers, and of the MAC.
fn vip_value(managed: &Managed, link: LinkSlot, place: &Place, router: bool, answering: MacAddr) -> Vip {
    let config = &managed.config;
    let router = if router { vip_flags::ROUTER } else { 0 };
    let accept = if config.accepts() { 0 } else { vip_flags::NOT_ACCEPTED };
    Vip {
        router: managed.slot.get(),
        link: link.get(),
        mac: place.mac.0,
        answering: answering.0,
        flags: router | accept,
    }
}

fn vlan_key(place: &Place) -> VlanKey {
    VlanKey { parent: place.attach.index, outer: place.tags.outer, inner: place.tags.inner }
}
