//! Which backend a connection goes to: as the XDP program chooses for the other modes, by the same rings. Pure.
//!
//! What the ring says is the same on every node. Where this node cannot follow it, the next backend in the ring's order is
//! tried: that is the order, too, in which another node would try them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use arrayvec::ArrayVec;
use tokio::time::Instant;
use vip_common::steering::hash;
use vip_common::steering::maglev::{self, Candidate, Refused, RingSize};
use vip_common::steering::tables::MAX_AFFINITIES;

use super::service::ProxyBackend;

/// Backends that are tried for one connection.
pub(super) const ATTEMPTS: usize = 4;

/// How long a backend that did not accept a connection is the last to be tried. Its probe, if it has one, knows better soon.
const DISTRUST: Duration = Duration::from_secs(2);

/// Where to try, in this order: indexes into the backends.
pub(super) type Candidates = ArrayVec<usize, ATTEMPTS>;

/// A set of backends, ready to be chosen from.
#[derive(Debug)]
pub(super) struct Ring {
    /// Index into the backends + 1; 0 where there is none to choose.
    entries: Box<[u32]>,
    /// Of those that may get new connections: as many as have entries.
    choosable: usize,
}

// === impl Ring ===

impl Ring {
    /// The ring of those that are up and do not drain.
    ///
    /// # Errors
    /// An address is there twice, or more backends than a ring has entries.
    pub(super) fn new(backends: &[ProxyBackend]) -> Result<Self, Refused> {
        let numbered = backends.iter().zip(1..).filter(|(backend, _)| is_choosable(backend));
        let mut candidates: Vec<Candidate> = numbered
            .filter_map(|(backend, slot)| {
                Some(Candidate::new(identity(backend.address), NonZeroU32::new(slot)?, backend.weight))
            })
            .collect();
        let size = RingSize::DEFAULT;
        let mut entries = vec![maglev::UNSET; size.get() as usize].into_boxed_slice();
        maglev::fill(&mut entries, size, &mut candidates)?;
        Ok(Self { entries, choosable: candidates.len() })
    }

    /// Backends in the order of the ring from where this hash points to.
    fn from(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        let start = hash::position(hash, self.entries.len() as u32) as usize;
        let (before, from) = self.entries.split_at(start);
        from.iter().chain(before).filter_map(|slot| (*slot as usize).checked_sub(1))
    }
}

fn is_choosable(backend: &ProxyBackend) -> bool {
    backend.up && backend.weight > 0
}

/// As the rings of the XDP program have it (RFC 4291, 2.5.5.2).
fn identity(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// What a connection is hashed by: its client's address, and unless the service has affinity, both ports.
fn hash_of(client: SocketAddr, port: u16, by_client: bool) -> u64 {
    let ([a, b], [c, d]) = (client.port().to_be_bytes(), port.to_be_bytes());
    match (client.ip(), by_client) {
        (IpAddr::V4(address), false) => hash::of_flow4(address.octets(), [a, b, c, d]),
        (IpAddr::V6(address), false) => hash::of_flow6(address.octets(), [a, b, c, d]),
        (IpAddr::V4(address), true) => hash::of_client4(address.octets()),
        (IpAddr::V6(address), true) => hash::of_client6(address.octets()),
    }
}

/// What a node remembers of its choices: they are for the time in which sets change or backends fail.
#[derive(Debug, Default)]
pub(super) struct Memory {
    affinities: Affinities,
    /// Backends that did not accept a connection, until when that counts.
    distrusted: HashMap<IpAddr, Instant>,
}

// === impl Memory ===

impl Memory {
    /// Where a connection from `client` to `port` of the VIP is to be tried; empty: nobody can serve it.
    pub(super) fn candidates(
        &mut self,
        backends: &[ProxyBackend],
        ring: &Ring,
        affinity: Option<Duration>,
        client: SocketAddr,
        port: u16,
        now: Instant,
    ) -> Candidates {
        self.distrusted.retain(|_, until| *until > now);
        let kept = affinity.and_then(|timeout| self.affinities.get(client.ip(), now, timeout));
        let kept = kept.and_then(|kept| {
            backends.iter().position(|backend| backend.address == kept && is_choosable(backend))
        });
        let most = ring.choosable.min(ATTEMPTS + self.distrusted.len());
        let mut order: Vec<usize> = Vec::with_capacity(most);
        for index in kept.into_iter().chain(ring.from(hash_of(client, port, affinity.is_some()))) {
            if order.len() >= most {
                break;
            }
            if !order.contains(&index) {
                order.push(index);
            }
        }
        let is_trusted = |index: &usize| !self.distrusted.contains_key(&backends[*index].address);
        let (trusted, distrusted): (Vec<usize>, Vec<usize>) = order.into_iter().partition(is_trusted);
        trusted.into_iter().chain(distrusted).take(ATTEMPTS).collect()
    }

    /// `client` is at `backend` now.
    pub(super) fn connected(&mut self, client: IpAddr, backend: IpAddr, affinity: bool, now: Instant) {
        self.distrusted.remove(&backend);
        if affinity {
            self.affinities.note(client, backend, now);
        }
    }

    /// `backend` did not accept a connection.
    pub(super) fn failed(&mut self, backend: IpAddr, now: Instant) {
        self.distrusted.insert(backend, now + DISTRUST);
    }
}

/// Where clients were sent last. Bounded: what was not used for longest goes first, by halves.
#[derive(Debug, Default)]
struct Affinities {
    young: HashMap<Ipv6Addr, (IpAddr, Instant)>,
    old: HashMap<Ipv6Addr, (IpAddr, Instant)>,
}

impl Affinities {
    const HALF: usize = MAX_AFFINITIES as usize / 2;

    fn get(&self, client: IpAddr, now: Instant, timeout: Duration) -> Option<IpAddr> {
        let client = identity(client).into();
        let (backend, since) = self.young.get(&client).or_else(|| self.old.get(&client))?;
        (now.saturating_duration_since(*since) < timeout).then_some(*backend)
    }

    fn note(&mut self, client: IpAddr, backend: IpAddr, now: Instant) {
        if self.young.len() >= Self::HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(identity(client).into(), (backend, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(numbers: impl IntoIterator<Item = u8>) -> Vec<ProxyBackend> {
        let backend = |number| ProxyBackend { address: [10, 0, 1, number].into(), weight: 1, up: true };
        numbers.into_iter().map(backend).collect()
    }

    fn client(number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([192, 0, high, low], 1024 + number))
    }

    fn chosen(backends: &[ProxyBackend], client: SocketAddr) -> Vec<IpAddr> {
        let ring = Ring::new(backends).unwrap();
        let order = Memory::default().candidates(backends, &ring, None, client, 80, Instant::now());
        order.into_iter().map(|index| backends[index].address).collect()
    }

    #[test]
    fn nodes_that_learned_the_backends_in_another_order_try_the_same_ones() {
        let (one, other) = (backends(1..=9), backends((1..=9).rev()));
        for number in 0..50 {
            assert_eq!(chosen(&one, client(number)), chosen(&other, client(number)));
        }
    }

    #[test]
    fn the_choice_is_that_of_the_program() {
        let set = backends(1..=9);
        let mut candidates: Vec<Candidate> = set
            .iter()
            .zip(1..)
            .map(|(backend, slot)| {
                Candidate::new(identity(backend.address), NonZeroU32::new(slot).unwrap(), 1)
            })
            .collect();
        let mut ring = vec![0; RingSize::DEFAULT.get() as usize];
        maglev::fill(&mut ring, RingSize::DEFAULT, &mut candidates).unwrap();
        let client: SocketAddr = "192.0.2.7:51234".parse().unwrap();
        let entry =
            hash::position(hash::of_flow4([192, 0, 2, 7], [0xc8, 0x22, 0, 80]), RingSize::DEFAULT.get());
        let index = ring[entry as usize] as usize - 1;
        assert_eq!(chosen(&set, client)[0], set[index].address);
    }

    #[test]
    fn each_is_tried_once_and_no_more_than_four_are() {
        for number in 0..50 {
            let mut order = chosen(&backends(1..=9), client(number));
            assert_eq!(order.len(), ATTEMPTS);
            order.sort_unstable();
            order.dedup();
            assert_eq!(order.len(), ATTEMPTS);
        }
        assert_eq!(chosen(&backends(1..=2), client(1)).len(), 2);
        assert!(chosen(&[], client(1)).is_empty());
    }

    #[test]
    fn those_that_are_down_or_drain_get_nothing() {
        let mut set = backends(1..=4);
        set[0].up = false;
        set[1].weight = 0;
        for number in 0..50 {
            let order = chosen(&set, client(number));
            assert_eq!(order.len(), 2, "{order:?}");
            assert!(order.iter().all(|address| [set[2].address, set[3].address].contains(address)));
        }
    }

    #[test]
    fn weights_are_shares() {
        let mut set = backends(1..=2);
        set[0].weight = 3;
        let first = (0..4000).filter(|number| chosen_quickly(&set, *number) == 0).count();
        assert!((2850..3150).contains(&first), "{first} of 4000 went to the one of weight 3 of 4");
    }

    fn chosen_quickly(set: &[ProxyBackend], number: u16) -> usize {
        thread_local!(static RING: std::cell::OnceCell<Ring> = const { std::cell::OnceCell::new() });
        RING.with(|ring| {
            let ring = ring.get_or_init(|| Ring::new(set).unwrap());
            Memory::default().candidates(set, ring, None, client(number), 80, Instant::now())[0]
        })
    }

    #[test]
    fn one_that_failed_is_the_last_for_a_while() {
        let set = backends(1..=3);
        let (ring, mut memory, now) = (Ring::new(&set).unwrap(), Memory::default(), Instant::now());
        let first = memory.candidates(&set, &ring, None, client(1), 80, now)[0];
        memory.failed(set[first].address, now);
        let order = memory.candidates(&set, &ring, None, client(1), 80, now);
        assert_eq!((order.len(), order[2]), (3, first));
        let later = memory.candidates(&set, &ring, None, client(1), 80, now + DISTRUST);
        assert_eq!(later[0], first);
    }

    #[test]
    fn with_affinity_a_client_has_one_backend_whatever_its_port() {
        let set = backends(1..=9);
        let (ring, mut memory, now) = (Ring::new(&set).unwrap(), Memory::default(), Instant::now());
        let timeout = Some(Duration::from_secs(60));
        let mut first = |port| {
            let client = SocketAddr::from(([192, 0, 2, 7], port));
            memory.candidates(&set, &ring, timeout, client, 80, now)[0]
        };
        let one = first(1024);
        assert!((1025..1100).all(|port| first(port) == one));
    }

    #[test]
    fn a_client_stays_with_its_backend_while_the_set_changes_until_that_drains_or_time_is_over() {
        let mut memory = Memory::default();
        let (now, timeout) = (Instant::now(), Duration::from_secs(60));
        let first = |memory: &mut Memory, set: &[ProxyBackend], now| {
            let ring = Ring::new(set).unwrap();
            set[memory.candidates(set, &ring, Some(timeout), client(7), 80, now)[0]].address
        };
        let small = backends(1..=2);
        let kept = first(&mut memory, &small, now);
        memory.connected(client(7).ip(), kept, true, now);
        // A set in which the ring says something else.
        let mut set = small;
        for number in 3.. {
            set.extend(backends([number]));
            if first(&mut Memory::default(), &set, now) != kept {
                break;
            }
        }
        assert_eq!(first(&mut memory, &set, now), kept);
        assert_ne!(first(&mut memory, &set, now + timeout), kept);
        set.iter_mut().filter(|backend| backend.address == kept).for_each(|backend| backend.weight = 0);
        assert_ne!(first(&mut memory, &set, now), kept);
    }

    #[test]
    fn memory_of_clients_is_bounded() {
        let (mut affinities, now) = (Affinities::default(), Instant::now());
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..3 * MAX_AFFINITIES {
            affinities.note(address(number), address(1), now);
        }
        assert!(affinities.young.len() + affinities.old.len() <= MAX_AFFINITIES as usize);
        assert!(affinities.get(address(3 * MAX_AFFINITIES - 1), now, DISTRUST).is_some());
        assert!(affinities.get(address(0), now, DISTRUST).is_none());
    }
}
