//! Fast detection's upkeep: on which interfaces it runs, and by which key.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use vip_common::heartbeat::Key;
use vip_common::maps::{HeartbeatLink, VlanKey};

use super::Agent;
use crate::config::CpuLatency;
use crate::errors::in_full;
use crate::idle;
use crate::net::links::AttachPoint;
use crate::types::MacAddr;
use crate::vrrp::driver::{Command, Detection};
use crate::vrrp::socket::{HeartbeatSocket, Interface};

/// See the module.
#[derive(Debug)]
pub(super) struct Detecting {
    /// What tells this agent's frames from others': drawn at each start, never 0.
    node: u64,
    /// What runs, by the index of the interface.
    running: BTreeMap<u32, Wanted>,
}

/// Fast detection on one interface of adverts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    interface: Interface,
    mac: MacAddr,
    key: Key,
    /// Where XDP sees its frames, and their tags there.
    attach: Interface,
    tags: AttachPoint,
}

impl Default for Detecting {
    fn default() -> Self {
        // The seed is the system's randomness; the number need not be secret, only another each time.
        Self { node: RandomState::new().build_hasher().finish().max(1), running: BTreeMap::new() }
    }
}

impl Agent {
    /// Interfaces that need the program for fast detection alone.
    pub(super) fn detection_needs(&self) -> BTreeSet<u32> {
        self.detecting.running.values().map(|wanted| wanted.attach.index).collect()
    }

    /// Starts and ends fast detection where instances that want it come and go. Where it cannot run adverts decide.
    pub(super) async fn keep_detecting(&mut self) {
        if self.dataplane.puts_off() {
            // Another agent still does, whose answers are not ours.
            return;
        }
        let wanted = self.wanted();
        let over: Vec<u32> = (self.detecting.running.iter())
            .filter_map(|(ifindex, running)| (wanted.get(ifindex) != Some(running)).then_some(*ifindex))
            .collect();
        for ifindex in over {
            self.detecting.running.remove(&ifindex);
            self.driver.send(Command::Undetect(ifindex)).await;
            if let Err(error) = self.dataplane.detect_not_on(ifindex) {
                tracing::warn!(%error, "cannot end fast detection in the program");
            }
        }
        for (ifindex, wanted) in wanted {
            if self.detecting.running.contains_key(&ifindex) {
                continue;
            }
            match self.detect(&wanted) {
                Ok(detection) => {
                    self.driver.send(Command::Detect(Box::new(detection))).await;
                    tracing::info!(
                        interface = %wanted.interface,
                        sealed = wanted.key != Key::PUBLIC,
                        "detects dead hosts by heartbeats"
                    );
                    self.detecting.running.insert(ifindex, wanted);
                }
                Err(error) => tracing::warn!(
                    interface = %wanted.interface,
                    "no fast detection, dead hosts are found by their adverts: {}",
                    in_full(&error)
                ),
            }
        }
        self.keep_cpus_ready();
    }

    /// Within which time idle CPUs must wake while hosts are watched: the shortest of those that watch.
    pub(super) fn detection_latency(&self) -> Option<Duration> {
        let limits = self.instances.iter().filter_map(|managed| {
            let watched = self.detecting.running.contains_key(&managed.home.as_ref()?.place.advert.index);
            match managed.config.detect.as_ref().filter(|_| watched)?.cpu_latency {
                CpuLatency::Auto => Some(idle::suitable()),
                CpuLatency::AtMost(limit) => Some(limit),
                CpuLatency::Any => None,
            }
        });
        limits.min()
    }

    fn detect(&mut self, wanted: &Wanted) -> anyhow::Result<Detection> {
        let Wanted { interface, mac, key, attach, tags } = wanted;
        let socket = HeartbeatSocket::open(interface, *mac)?;
        let slot = self.dataplane.attach(attach.index, &attach.name)?.slot;
        if tags.outer != 0 {
            let tags = VlanKey { parent: attach.index, outer: tags.outer, inner: tags.inner };
            self.dataplane.insert_vlan(tags, interface.index)?;
        }
        let node = self.detecting.node;
        self.dataplane
            .detect_on(interface.index, HeartbeatLink { key: *key, node, mac: mac.0, slot: slot.get() })?;
        Ok(Detection::new(socket, self.dataplane.peers(), *key, node))
    }

    fn wanted(&self) -> BTreeMap<u32, Wanted> {
        let mut wanted = BTreeMap::new();
        for managed in &self.instances {
            let (Some(home), Some(detect)) = (&managed.home, &managed.config.detect) else { continue };
            let interface = home.place.advert.clone();
            let Ok(tags) = self.links.attach_point(interface.index) else {
                tracing::warn!(
                    instance = managed.name(),
                    "no fast detection: XDP cannot see the frames of {interface}"
                );
                continue;
            };
            let parent = self.links.get(tags.ifindex).map(|link| link.name.as_str().into());
            let attach =
                Interface { index: tags.ifindex, name: parent.unwrap_or_else(|| interface.name.clone()) };
            let mac = home.place.advert_mac;
            let known = wanted.entry(interface.index);
            known.or_insert(Wanted { interface, mac, key: detect.key, attach, tags });
        }
        wanted
    }
}
