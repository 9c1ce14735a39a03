//! Backends of mode `nat` on other nodes: what they need of this one, and why they may have to do without.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::reason::Outcome;

use super::super::Agent;
use super::Services;
use super::judge::{self, Carrier};
use crate::config::{PortRange, Service, ServiceMode};
use crate::dataplane::nat_ports;
use crate::dataplane::services::Way;
use crate::errors::in_full;
use crate::net::next_hops::{Reached, provoke};
use crate::net::sysctl::{Setting, Sysctl};

/// A look at all flows that takes so long at most may be had four times a second: a twentieth of the time.
const QUICK: Duration = Duration::from_millis(12);

/// Services whose dropped answers are looked at four times a second: a microsecond each. The others' clients wait for the next count.
const MOST_NOTICED: usize = 256;

/// What stands in the kernel, and what it depends on.
#[derive(Debug, Default)]
pub(super) struct FullNat {
    /// VIPs whose bit is set, once they are steered.
    vips: BTreeSet<IpAddr>,
    ports: Option<Ports>,
    /// Why nothing can go to other nodes.
    fault: Option<String>,
    /// Answers that were dropped for want of a way to their clients, as of the last look.
    lost: Option<u64>,
    /// What keeps interfaces from forwarding, by family, as it was when it was last looked at: plans and status say the same.
    closed: BTreeMap<u32, [Option<Setting>; 2]>,
}

impl FullNat {
    pub(super) fn has(&self, vip: IpAddr) -> bool {
        self.vips.contains(&vip)
    }

    pub(super) const fn ports(&self) -> Option<Ports> {
        self.ports
    }

    /// Of a former agent: packets of flows that are there must find them from the first one on. Who asks in vain loses nothing.
    pub(super) fn inherit(&mut self, services: &[Service]) {
        self.vips = services.iter().filter(is_nat).map(|service| service.vip).collect();
    }
}

fn is_nat(service: &&Service) -> bool {
    matches!(service.mode, ServiceMode::Nat)
}

impl Agent {
    fn has_nat(&self) -> bool {
        self.config.services.iter().any(|service| is_nat(&service))
    }

    /// The interfaces that carry VIPs.
    pub(super) fn carriers(&self) -> BTreeMap<IpAddr, Carrier> {
        let homes = self.instances.iter().filter_map(|managed| managed.home.as_ref());
        homes
            .flat_map(|home| {
                let ifindex = home.place.vip.index;
                let [v4, v6] = self.services.full_nat.closed.get(&ifindex).copied().unwrap_or_default();
                let carrier =
                    move |vip: &IpAddr| Carrier { ifindex, closed: if vip.is_ipv4() { v4 } else { v6 } };
                home.vips.iter().map(move |vip| (*vip, carrier(vip)))
            })
            .collect()
    }

    /// What keeps interfaces with VIPs from forwarding, by family; of none, if nobody asks.
    fn read_closed(&self) -> BTreeMap<u32, [Option<Setting>; 2]> {
        let closed = |interface: &str| {
            [Setting::Ipv4Forwarding, Setting::Ipv6Forwarding].map(|setting| {
                let forwards = Sysctl::new(interface, setting).read().is_ok_and(|value| value != 0);
                Some(setting).filter(|_| !forwards)
            })
        };
        let homes = self.instances.iter().filter_map(|managed| managed.home.as_ref());
        let carriers = homes.filter(|_| self.has_nat()).map(|home| &home.place.vip);
        carriers.map(|carrier| (carrier.index, closed(&carrier.name))).collect()
    }

    /// How a backend is reached, whatever its probe says.
    pub(super) fn judged(
        &self,
        service: &Service,
        backend: IpAddr,
        reached: &Reached,
        carriers: &BTreeMap<IpAddr, Carrier>,
    ) -> Result<Way, String> {
        let carrier = carriers.get(&service.vip).copied();
        let way = judge::way(service.mode, carrier, reached.get(&backend), &self.links)?;
        match (&service.mode, way, &self.services.full_nat.fault) {
            (ServiceMode::Nat, Way::Via { .. }, Some(fault)) => Err(fault.clone()),
            (_, way, _) => Ok(way),
        }
    }

    /// Before a plan: the ports are there before the first packet needs one.
    pub(super) fn prepare_full_nat(&mut self) {
        self.services.full_nat.closed = self.read_closed();
        self.keep_nat_ports();
    }

    /// After a plan, before it is carried out: who asks in vain loses nothing, who does not ask loses packets.
    pub(super) fn begin_full_nat(&mut self) {
        let wanted = self.services.book.full_nat_vips();
        let coming: BTreeSet<IpAddr> = wanted.difference(&self.services.full_nat.vips).copied().collect();
        self.services.full_nat.vips.extend(&coming);
        // Those that are not steered yet get this bit with the other.
        let steered: BTreeSet<IpAddr> = coming.intersection(&self.services.steered).copied().collect();
        if !steered.is_empty() {
            self.mark_vips(&steered);
        }
    }

    /// After a plan was carried out.
    pub(super) fn end_full_nat(&mut self) {
        let Services { full_nat, book, .. } = &mut self.services;
        let wanted = book.full_nat_vips();
        let going: BTreeSet<IpAddr> = full_nat.vips.difference(&wanted).copied().collect();
        if !going.is_empty() {
            full_nat.vips.retain(|vip| wanted.contains(vip));
            self.mark_vips(&going);
        }
    }

    /// Once a second: nobody tells when these settings change.
    pub(super) fn look_after_full_nat(&mut self) {
        if self.services.tables.is_none() || !self.has_nat() || self.is_being_succeeded().is_some() {
            return;
        }
        self.keep_nat_ports();
        let closed = self.read_closed();
        if closed != self.services.full_nat.closed {
            self.services.full_nat.closed = closed;
            self.services.touch();
        }
    }

    fn keep_nat_ports(&mut self) {
        if !self.has_nat() {
            return;
        }
        let fault = self.set_nat_ports().err().map(|error| in_full(&error));
        if self.services.full_nat.fault != fault {
            if let Some(fault) = &fault {
                tracing::warn!("services of mode nat reach no backend on another node: {fault}");
            }
            self.services.full_nat.fault = fault;
            self.services.touch();
        }
    }

    fn set_nat_ports(&mut self) -> anyhow::Result<()> {
        let vips: BTreeSet<IpAddr> =
            self.config.services.iter().filter(is_nat).map(|service| service.vip).collect();
        let beside = self.config.services.iter().filter(|service| vips.contains(&service.vip));
        let taken: Vec<RangeInclusive<u16>> = beside
            .flat_map(|service| &service.ports)
            .filter(|range| !range.is_all())
            .map(PortRange::numbers)
            .collect();
        let ports = nat_ports(&taken)?;
        if self.services.full_nat.ports != Some(ports) {
            self.dataplane.set_nat_ports(&ports)?;
            self.services.full_nat.ports = Some(ports);
            self.publish_directory();
        }
        anyhow::ensure!(
            ports.count() > 0,
            "no port is left for flows to other nodes: narrow net.ipv4.ip_local_port_range"
        );
        Ok(())
    }

    /// Four times a second: an answer was dropped as nobody knows the way to its client. It is not to wait for the next count.
    pub(in super::super) fn notice_strangers(&mut self) {
        let Some(tables) = self.services.tables.as_ref().filter(|_| !self.services.full_nat.vips.is_empty())
        else {
            return;
        };
        let indices = self.config.services.iter().filter(is_nat).take(MOST_NOTICED);
        let indices = indices.filter_map(|service| self.services.book.index(service.name.as_str()));
        let counters = indices.filter_map(|index| tables.service_counters(index).ok());
        let lost = counters.map(|counters| counters.outcomes[Outcome::NoWayBack as usize]).sum();
        let more = self.services.full_nat.lost.replace(lost).is_some_and(|before| before < lost);
        // Strangers who do not exist are not to keep this node busy.
        if more && self.services.count_took < QUICK {
            self.services.count_next = None;
            self.count_flows();
        }
    }

    /// Has the kernel ask for the MACs of clients that it does not know, so that their answers find the way.
    pub(super) fn resolve_strangers(&self) {
        let strangers = self.services.counts.strangers();
        if !strangers.is_empty() {
            tokio::spawn(provoke(strangers.clone()));
        }
    }
}
