//! Two and three nodes over networks that lose, double, delay and record.

mod changing;
mod coding;
mod exchanging;
mod sessions;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vip_common::steering::tables::FlowState;

use super::codec::Nonce;
use super::table::{Flow, FlowKey, FlowTable, Noted, Translation};
use crate::types::MonotonicTime;
use crate::vrrp::trailer::KeyRing;

fn keys() -> KeyRing {
    KeyRing::parse(&"5e".repeat(32)).unwrap()
}

fn nonce(number: u64) -> Nonce {
    Nonce::new(number).unwrap()
}

fn at(milliseconds: u64) -> MonotonicTime {
    MonotonicTime::ZERO + Duration::from_secs(1_000_000) + Duration::from_millis(milliseconds)
}

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 50));

fn key(number: u16) -> FlowKey {
    let [high, low] = number.to_be_bytes();
    FlowKey { client: [192, 0, high, low].into(), vip: VIP, client_port: 40_000, vip_port: 80, protocol: 6 }
}

/// An established connection through full NAT.
fn flow(number: u16) -> Flow {
    let translation = Some(Translation { own: VIP, own_port: 20_000 + number, backend_port: 8080 });
    Flow {
        key: key(number),
        backend: [172, 16, 0, 1].into(),
        translation,
        state: FlowState::Established,
        idle: Duration::from_secs(3),
    }
}

/// Tables in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    flows: BTreeMap<FlowKey, Flow>,
    owned: BTreeSet<IpAddr>,
    /// What peers said, whatever became of it.
    said: usize,
    broken: bool,
}

impl Memory {
    fn with<T>(&self, use_it: impl FnOnce(&mut Tables) -> T) -> T {
        use_it(&mut self.0.lock().unwrap())
    }

    fn owner(flows: impl IntoIterator<Item = Flow>) -> Self {
        let memory = Self::default();
        memory.with(|tables| {
            tables.owned.insert(VIP);
            tables.flows.extend(flows.into_iter().map(|flow| (flow.key, flow)));
        });
        memory
    }

    /// Without what changes on the way: ages.
    fn flows(&self) -> Vec<Flow> {
        self.with(|tables| tables.flows.values().map(|flow| Flow { idle: Duration::ZERO, ..*flow }).collect())
    }
}

impl FlowTable for Memory {
    fn read(&mut self, visit: &mut dyn FnMut(Flow)) -> io::Result<()> {
        self.with(|tables| {
            let owned = tables.flows.values().filter(|flow| tables.owned.contains(&flow.key.vip));
            owned.for_each(|flow| visit(*flow));
            if tables.broken { Err(io::Error::other("broken")) } else { Ok(()) }
        })
    }

    fn owns(&self, vip: IpAddr) -> bool {
        self.with(|tables| tables.owned.contains(&vip))
    }

    fn note(&mut self, flow: &Flow) -> Noted {
        self.with(|tables| {
            tables.said += 1;
            if tables.owned.contains(&flow.key.vip) {
                return Noted::Own;
            }
            tables.flows.insert(flow.key, *flow);
            Noted::Yes
        })
    }

    fn forget(&mut self, key: &FlowKey) {
        self.with(|tables| {
            if !tables.owned.contains(&key.vip) {
                tables.flows.remove(key);
            }
        });
    }
}
