//! Listens on the segment for adverts, and asks who has the VIPs: as the agent does, but without a word of its own.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::agent::inquiry::Questioner;
use crate::agent::place::Place;
use crate::agent::sockets::Sockets;
use crate::config;
use crate::errors::in_full;
use crate::types::{Family, MacAddr};
use crate::vrrp::receive::Packet;
use crate::vrrp::socket::{Claim, OpenError, PacketReceiver};

/// Others may have longer intervals than ours: three of those that everybody has by default.
const SHORTEST: Duration = Duration::from_secs(3);

/// Intervals may be up to 255 s.
const LONGEST: Duration = Duration::from_secs(12);

/// From one look at what has come to the next.
const PAUSE: Duration = Duration::from_millis(20);

/// Routers that are told apart on an interface.
const MOST_ROUTERS: usize = 1024;

/// What makes an advert another router's: virtual router, address, MAC.
type Router = (u8, IpAddr, MacAddr);

/// A receiver for each interface and family, with the first advert of each router that was heard.
#[derive(Default)]
pub(in super::super) struct Listening {
    receivers: BTreeMap<(u32, Family), PacketReceiver>,
    heard: BTreeMap<(u32, Family), BTreeMap<Router, Vec<u8>>>,
}

/// For how long to listen for these instances' sake.
pub(in super::super) fn span<'a>(instances: impl Iterator<Item = &'a config::Instance>) -> Duration {
    let longest = instances.map(three_intervals).max().unwrap_or_default();
    longest.clamp(SHORTEST, LONGEST)
}

/// An owner that is silent for so long is none.
pub(in super::super) fn three_intervals(instance: &config::Instance) -> Duration {
    instance.protocol.advert_interval().duration() * 3
}

impl Listening {
    /// Begins to listen at a place, joined to the advert groups.
    pub(in super::super) fn open(&mut self, place: &Place) -> Result<(), OpenError> {
        for family in place.sources.iter().map(|source| Family::of(*source)) {
            if let Entry::Vacant(unheard) = self.receivers.entry((place.advert.index, family)) {
                let mut receiver = PacketReceiver::open(&place.advert, family)?;
                receiver.join_group()?;
                unheard.insert(receiver);
            }
        }
        Ok(())
    }

    /// Listens for so long.
    pub(in super::super) async fn listen(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            sleep(PAUSE).await;
            for (at, receiver) in &mut self.receivers {
                let heard = self.heard.entry(*at).or_default();
                // An interface that goes down is told of by others.
                let Ok(frames) = receiver.receive() else { continue };
                for frame in frames.filter(|frame| !frame.truncated) {
                    let Ok(packet) = Packet::parse(frame.bytes) else { continue };
                    let vrid = packet.virtual_router_id.get();
                    let router = (vrid, packet.addresses.source(), packet.source_mac);
                    if heard.len() < MOST_ROUTERS {
                        heard.entry(router).or_insert_with(|| frame.bytes.to_vec());
                    }
                }
            }
        }
    }

    /// What was heard at a place.
    pub(in super::super) fn frames(&self, place: &Place) -> Vec<&[u8]> {
        let families = place.sources.iter().map(|source| Family::of(*source));
        let heard = families.filter_map(|family| self.heard.get(&(place.advert.index, family)));
        heard.flat_map(BTreeMap::values).map(Vec::as_slice).collect()
    }
}

/// What it takes to ask for the VIPs of one interface.
struct Asked<'a> {
    place: &'a Place,
    vips: BTreeSet<IpAddr>,
    virtual_macs: BTreeSet<MacAddr>,
}

/// Who answers for the VIPs, by the index of the interface that carries them: instances of one interface ask together.
pub(in super::super) async fn ask<'a>(
    homes: impl Iterator<Item = (&'a config::Instance, &'a Place)>,
    sockets: &mut Sockets,
) -> BTreeMap<u32, Result<Vec<Claim>, String>> {
    let mut asked: BTreeMap<u32, Asked<'_>> = BTreeMap::new();
    for (instance, place) in homes {
        let new = || Asked { place, vips: BTreeSet::new(), virtual_macs: BTreeSet::new() };
        let asked = asked.entry(place.vip.index).or_insert_with(new);
        asked.vips.extend(instance.vips.iter().map(|vip| vip.address));
        asked.virtual_macs.extend(place.virtual_macs(instance));
    }
    let mut questioners = Vec::new();
    let mut answers = BTreeMap::new();
    for (ifindex, Asked { place, vips, virtual_macs }) in asked {
        let sender = sockets.of_announcements(&place.vip);
        match sender.and_then(|sender| Questioner::at(place, vips, virtual_macs.into_iter(), sender)) {
            Ok(questioner) => questioners.push(async move { (ifindex, questioner.ask().await) }),
            Err(error) => drop(answers.insert(ifindex, Err(in_full(&error.into())))),
        }
    }
    for (ifindex, claims) in join_all(questioners).await {
        let claims = claims.map(|claims| claims.into_keys().collect()).map_err(|error| error.to_string());
        answers.insert(ifindex, claims);
    }
    answers
}
