//! Goes through the configured instances and their interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use super::super::instances;
use super::super::links::{self, Link};
use super::super::report::{Check, Finding};
use super::super::segment::{self, Segment};
use super::super::settings::{self, Settings};
use super::listening::{self, Listening};
use crate::agent::binding::bind;
use crate::agent::housing::check_clashes;
use crate::agent::place::{Misplaced, Place, choose, off_subnet, place};
use crate::agent::sockets::Sockets;
use crate::config::{self, Config, LocalAddress};
use crate::dataplane;
use crate::errors::in_full;
use crate::net::links::{DefaultRoutes, LinkState, LinkTable, route_to};
use crate::net::sysctl::{Setting, Sysctl};
use crate::net::{NetlinkError, Rtnetlink, ethtool, offload};
use crate::types::Family;
use crate::vrrp::driver::Binding;
use crate::vrrp::socket::{Claim, MulticastGroups};

/// Links and routes of this network namespace.
pub(in super::super) struct Network {
    rtnetlink: Rtnetlink,
    links: LinkTable,
    routes: DefaultRoutes,
}

/// An instance with what was found for it.
struct Home<'a> {
    instance: &'a config::Instance,
    place: Place,
    binding: Box<Binding>,
}

impl Network {
    /// Reads them.
    pub(in super::super) async fn read() -> Result<Self, NetlinkError> {
        let rtnetlink = Rtnetlink::connect()?;
        Ok(Self {
            links: LinkTable::read(&rtnetlink).await?,
            routes: DefaultRoutes::read(&rtnetlink).await?,
            rtnetlink,
        })
    }

    /// The interface that carries an instance's VIPs, in whatever state.
    fn vip_link(&self, instance: &config::Instance) -> Option<&LinkState> {
        choose(&instance.vip_interface, instance, &self.links, &self.routes).ok()
    }
}

/// All that there is to say about instances, interfaces and the segment.
pub(in super::super) async fn findings(config: &Config, network: &Network) -> Vec<Finding> {
    let clash = check_clashes(&config.instances, &network.links, &network.routes);
    let mut findings = vec![instances::clash(clash.map_err(|error| in_full(&error)))];
    let mut places = Vec::new();
    for instance in &config.instances {
        let place = place(instance, &network.links, &network.routes);
        let off_subnet: Vec<IpAddr> = match &place {
            Ok(place) => off_subnet(instance, place, &network.links).collect(),
            Err(_) => Vec::new(),
        };
        findings.push(instances::interface(instance, &place, &off_subnet));
        findings.push(instances::vip_here(instance, &network.links));
        places.push((instance, place));
    }
    findings.extend(attached(config, network));
    findings.extend(carrying(config, network).await);
    findings.extend(segment(places).await);
    findings
}

/// The interfaces that the program is to be attached to.
fn attached(config: &Config, network: &Network) -> Vec<Finding> {
    let mut vlans: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for link in config.instances.iter().filter_map(|instance| network.vip_link(instance)) {
        let Ok(point) = network.links.attach_point(link.ifindex) else { continue };
        let tagged = vlans.entry(point.ifindex).or_default();
        tagged.extend((point.outer != 0).then(|| link.name.clone()));
    }
    let judged = vlans.into_iter().filter_map(|(ifindex, vlans)| {
        let state = network.links.get(ifindex)?;
        Some(match link(config, network, state, vlans) {
            Ok(link) => links::judge(&link),
            Err(error) => vec![Finding::unknown(Check::XdpMode, &state.name, error)],
        })
    });
    judged.flatten().collect()
}

fn link(
    config: &Config,
    network: &Network,
    state: &LinkState,
    vlans: BTreeSet<String>,
) -> std::io::Result<Link> {
    let LinkState { ifindex, name, kind, mtu, .. } = state;
    let active = offload::active(*ifindex)?.unwrap_or_default();
    // A bond's members take the tags off.
    let below = network.links.iter().filter(|link| link.ifindex == *ifindex || link.master == Some(*ifindex));
    let stripping = below.filter(|link| offload::strips_vlan_tags(&link.name).unwrap_or(false));
    Ok(Link {
        name: name.clone(),
        kind: kind.clone(),
        driver: ethtool::driver(name)?,
        mtu: *mtu,
        choice: config.xdp_mode,
        running: dataplane::look(*ifindex, name, config.pin_dir.as_deref())
            .map_err(|error| error.to_string()),
        xdp: offload::xdp_features(*ifindex)?,
        channels: ethtool::channels(name)?,
        cpus: thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        lro: offload::has_lro(name)?,
        gro_hw: active.contains("rx-gro-hw"),
        vlans: vlans.into_iter().collect(),
        strippers: stripping.map(|link| (link.name.clone(), link.kind.is_some())).collect(),
    })
}

/// The interfaces that carry VIPs, with the kernel's settings of them.
async fn carrying(config: &Config, network: &Network) -> Vec<Finding> {
    let mut carried: BTreeMap<u32, Vec<&config::Instance>> = BTreeMap::new();
    for instance in &config.instances {
        if let Some(link) = network.vip_link(instance) {
            carried.entry(link.ifindex).or_default().push(instance);
        }
    }
    let mut findings = Vec::new();
    for (ifindex, instances) in carried {
        let Some(link) = network.links.get(ifindex) else { continue };
        match settings(network, link, &instances).await {
            Ok(settings) => findings.extend(settings::judge(&settings)),
            Err(error) => findings.push(Finding::unknown(Check::RpFilter, &link.name, error)),
        }
    }
    findings
}

async fn settings(
    network: &Network,
    link: &LinkState,
    instances: &[&config::Instance],
) -> Result<Settings, NetlinkError> {
    let sysctl = |setting| Sysctl::new(link.name.as_str(), setting);
    let in_force = |setting| sysctl(setting).in_force().map_err(|error| error.to_string());
    let name = |ifindex: u32| network.links.get(ifindex).map(|link| link.name.clone());
    let mut replies = Vec::new();
    for vip in neighbourhoods(instances) {
        let by = route_to(&network.rtnetlink, neighbour_of(vip)).await?;
        replies.push((vip, by.and_then(name)));
    }
    let on_lo = |instance: &&&config::Instance| instance.stands_on_lo() != LocalAddress::Never;
    Ok(Settings {
        interface: link.name.clone(),
        on_lo: instances.iter().filter(on_lo).any(|instance| instance.vips_v4().next().is_some()),
        ipv6: instances.iter().any(|instance| instance.vips_v6().next().is_some()),
        arp_ignore: in_force(Setting::ArpIgnore),
        arp_announce: in_force(Setting::ArpAnnounce),
        rp_filter: in_force(Setting::RpFilter),
        disable_ipv6: sysctl(Setting::DisableIpv6).read().map_err(|error| error.to_string()),
        settable: sysctl(Setting::ArpIgnore).check_writable().map_err(|error| error.to_string()),
        replies,
        default_route: network.routes.v4.first().copied().and_then(name),
    })
}

/// One VIP of each /24: their neighbours share a way.
fn neighbourhoods(instances: &[&config::Instance]) -> Vec<Ipv4Addr> {
    let vips = instances.iter().flat_map(|instance| instance.vips_v4());
    let each: BTreeMap<[u8; 3], Ipv4Addr> = vips
        .map(|vip| {
            let [a, b, c, _] = vip.octets();
            ([a, b, c], vip)
        })
        .collect();
    each.into_values().collect()
}

/// An address of the same subnet, whatever its prefix: the VIP itself may be on lo.
fn neighbour_of(vip: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(vip.to_bits() ^ 1)
}

/// Who is on the segment: for instances that have a place there.
async fn segment(places: Vec<(&config::Instance, Result<Place, Misplaced>)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sockets = Sockets::default();
    let mut listening = Listening::default();
    let mut homes = Vec::new();
    for (instance, place) in places {
        let Ok(place) = place else { continue };
        match bind(instance, &place, false, &mut sockets, None) {
            Ok(binding) => homes.push(Home { instance, place, binding }),
            Err(error) => findings.push(instances::sockets(instance, Err(error.to_string()))),
        }
    }
    for home in &homes {
        findings.extend(home.sockets(&mut listening));
    }
    let span = listening::span(homes.iter().map(|home| home.instance));
    let places = homes.iter().map(|home| (home.instance, &home.place));
    let ((), answers) =
        futures_util::future::join(listening.listen(span), listening::ask(places, &mut sockets)).await;
    for home in &homes {
        let subject = instances::subject(home.instance);
        let vips: Vec<IpAddr> = home.instance.vips.iter().map(|vip| vip.address).collect();
        let claims = match answers.get(&home.place.vip.index) {
            Some(Ok(claims)) => {
                claims.iter().filter(|claim| vips.contains(&claim.address)).copied().collect()
            }
            Some(Err(why)) => {
                findings.push(Finding::unknown(Check::Vip, &subject, why));
                Vec::<Claim>::new()
            }
            None => Vec::new(),
        };
        findings.extend(segment::judge(&Segment {
            subject,
            interface: home.place.advert.to_string(),
            virtual_router_id: home.instance.virtual_router_id,
            rules: home.binding.families.iter().map(|family| &family.rules).collect(),
            frames: listening.frames(&home.place),
            listened: span,
            long_enough: listening::three_intervals(home.instance) <= span,
            vips,
            claims,
        }));
    }
    findings
}

impl Home<'_> {
    /// Tries what the instance's sockets are for, as far as that stays in this host.
    fn sockets(&self, listening: &mut Listening) -> Vec<Finding> {
        let Self { instance, place, binding } = self;
        let mut groups = MulticastGroups::new(&place.vip);
        let joined = instance.vips_v6().try_for_each(|vip| groups.join(vip));
        let opened = listening.open(place).and(joined).map(|()| binding.families.len());
        let interface: &str = &place.advert.name;
        let multicast = ethtool::does_multicast(interface).unwrap_or(true);
        let mut findings = vec![
            instances::sockets(instance, opened.map_err(|error| error.to_string())),
            instances::firewall(instance, self.rehearse()),
        ];
        findings.extend(instances::multicast_flag(instance, interface, multicast));
        findings
    }

    /// Sends adverts that end before the interface; `None` if there are none of that kind.
    fn rehearse(&self) -> Option<Result<(), String>> {
        let tried = self.binding.families.iter().filter(|family| Family::of(family.rules.own) == Family::V4);
        tried.map(|family| family.sender.rehearse(&family.adverts)).find_map(|tried| match tried {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(refused) => Some(Err(refused.to_string())),
        })
    }
}
