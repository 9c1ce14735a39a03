use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use vip_common::steering::tables::FlowState;

use super::super::changes::IN_FLIGHT;
use super::super::exchange::{Company, Datagram, Exchange, RATE};
use super::super::session::SILENCE;
use super::super::table::{Flow, Noted};
use super::{Memory, Nonce, VIP, at, flow, key, keys, nonce};
use crate::types::MonotonicTime;

/// A node with its tables.
struct Node {
    address: IpAddr,
    exchange: Exchange,
    table: Memory,
}

/// Nodes, and what is on its way between them.
struct Network {
    nodes: Vec<Node>,
    /// From whom.
    on_the_way: Vec<(IpAddr, Datagram)>,
    recorded: Vec<(IpAddr, Datagram)>,
    now: u64,
    drawn: u64,
}

fn address(number: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, number as u8 + 1])
}

impl Network {
    fn of(tables: Vec<Memory>) -> Self {
        let mut network =
            Self { nodes: Vec::new(), on_the_way: Vec::new(), recorded: Vec::new(), now: 0, drawn: 0 };
        for (number, table) in tables.into_iter().enumerate() {
            network.nodes.push(Node { address: address(number), exchange: Exchange::new(keys()), table });
        }
        for number in 0..network.nodes.len() {
            network.introduce(number);
        }
        network
    }

    fn introduce(&mut self, number: usize) {
        let peers = (0..self.nodes.len()).filter(|other| *other != number).map(address).collect();
        self.company(number, &Company { peers, guests: false });
    }

    fn company(&mut self, number: usize, company: &Company) {
        let drawn = &mut self.drawn;
        self.nodes[number].exchange.set_company(company, || next(drawn));
    }

    /// The process dies; its tables, which are the kernel's, stay.
    fn restart(&mut self, number: usize) {
        self.nodes[number].exchange = Exchange::new(keys());
        self.introduce(number);
    }

    fn now(&self) -> MonotonicTime {
        at(self.now)
    }

    /// Everybody reads and speaks.
    fn tick(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        let now = self.now();
        for node in &mut self.nodes {
            node.exchange.read(&mut node.table, now).unwrap();
            let said = node.exchange.speak(now);
            self.on_the_way.extend(said.into_iter().map(|datagram| (node.address, datagram)));
        }
    }

    fn deliver(&mut self, from: IpAddr, datagram: &Datagram) {
        let now = self.now();
        let drawn = &mut self.drawn;
        let Some(node) = self.nodes.iter_mut().find(|node| node.address == datagram.to) else { return };
        let answer = node.exchange.hear(from, &datagram.bytes, &mut node.table, now, || next(drawn));
        self.on_the_way.extend(answer.map(|answer| (node.address, answer)));
    }

    /// Delivers what is on its way, and what comes of that.
    fn settle(&mut self, keep: impl Fn(usize) -> bool) {
        let mut number = 0;
        while !self.on_the_way.is_empty() {
            for (from, datagram) in std::mem::take(&mut self.on_the_way) {
                number += 1;
                if keep(number) {
                    self.deliver(from, &datagram);
                }
                self.recorded.push((from, datagram));
            }
        }
    }

    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.tick(100);
            self.settle(|_| true);
        }
    }

    fn noted(&self, number: usize, what: Noted) -> u64 {
        self.nodes[number].exchange.counts().noted.get(&what).copied().unwrap_or_default()
    }
}

fn next(drawn: &mut u64) -> Nonce {
    *drawn += 1;
    nonce(*drawn)
}

#[test]
fn peers_come_to_have_an_owner_s_flows_and_hear_of_changes_alone_from_then_on() {
    let owner = Memory::owner((0..500).map(flow));
    let mut network = Network::of(vec![owner.clone(), Memory::default(), Memory::default()]);
    network.run(20);
    for peer in 1..=2 {
        assert_eq!(network.nodes[peer].table.flows(), owner.flows());
        assert_eq!(network.noted(peer, Noted::Yes), 500);
    }
    owner.with(|tables| {
        tables.flows.remove(&key(7));
        tables.flows.insert(key(600), flow(600));
        tables.flows.insert(key(8), Flow { state: FlowState::Closing, ..flow(8) });
    });
    network.run(5);
    for peer in 1..=2 {
        assert_eq!(network.nodes[peer].table.flows(), owner.flows());
        assert_eq!(network.noted(peer, Noted::Yes), 502);
        assert_eq!(network.nodes[peer].exchange.counts().gone, 1);
    }
}

#[test]
fn ages_of_flows_grow_on_the_way_and_depend_on_no_clock() {
    let mut network = Network::of(vec![Memory::owner([flow(1)]), Memory::default()]);
    network.tick(0);
    network.tick(10_000);
    network.settle(|_| true);
    network.run(3);
    let idle = network.nodes[1].table.with(|tables| tables.flows[&key(1)].idle);
    assert!(idle >= Duration::from_secs(3) && idle < Duration::from_secs(14), "{idle:?}");
}

#[test]
fn a_new_owner_takes_nothing_from_the_former_one_and_tells_the_others() {
    let (first, second, third) = (Memory::owner((0..50).map(flow)), Memory::default(), Memory::default());
    let mut network = Network::of(vec![first.clone(), second.clone(), third.clone()]);
    network.run(10);
    // Both own it for a while: a split.
    second.with(|tables| tables.owned.insert(VIP));
    first.with(|tables| tables.flows.insert(key(51), flow(51)));
    second.with(|tables| tables.flows.insert(key(1), Flow { backend: [172, 16, 0, 9].into(), ..flow(1) }));
    network.run(5);
    assert_eq!(second.with(|tables| tables.flows[&key(1)].backend), IpAddr::from([172, 16, 0, 9]));
    assert!(!second.with(|tables| tables.flows.contains_key(&key(51))));
    assert!(network.noted(1, Noted::Own) > 0);
    // The former owner learns that it is none: nobody hears that its flows are over.
    first.with(|tables| tables.owned.clear());
    network.run(20);
    assert_eq!(third.flows().len(), 51, "the last that the former owner said stands until it ends by itself");
    // What it did not listen to while it was one it hears when that is told again, as flows that live are every minute.
    network.run(600);
    assert_eq!(first.with(|tables| tables.flows[&key(1)].backend), IpAddr::from([172, 16, 0, 9]));
}

#[test]
fn a_peer_that_was_started_anew_hears_everything_again_and_so_does_the_peer_of_an_owner_that_was() {
    for restarted in [0, 1] {
        let owner = Memory::owner((0..300).map(flow));
        let peer = Memory::default();
        let mut network = Network::of(vec![owner.clone(), peer.clone()]);
        network.run(20);
        peer.with(|tables| tables.flows.clear());
        network.restart(restarted);
        network.run(60);
        assert_eq!(peer.flows(), owner.flows(), "{restarted}");
    }
}

#[test]
fn a_recording_changes_nothing_and_keeps_nobody_from_being_heard() {
    let (owner, peer) = (Memory::owner((0..40).map(flow)), Memory::default());
    let mut network = Network::of(vec![owner.clone(), peer.clone()]);
    network.run(10);
    owner.with(|tables| tables.flows.clear());
    network.run(10);
    let recorded = std::mem::take(&mut network.recorded);
    let said = peer.with(|tables| tables.said);
    for _ in 0..3 {
        for (from, datagram) in &recorded {
            network.deliver(*from, datagram);
        }
        network.on_the_way.clear();
    }
    assert_eq!((peer.flows().len(), peer.with(|tables| tables.said)), (0, said));
    // Also by a process that has been started since.
    network.restart(1);
    for (from, datagram) in &recorded {
        network.deliver(*from, datagram);
    }
    network.on_the_way.clear();
    assert_eq!(peer.with(|tables| tables.said), said);
    owner.with(|tables| tables.flows.insert(key(1), flow(1)));
    network.run(60);
    assert_eq!(peer.flows(), owner.flows());
}

#[test]
fn who_is_no_peer_or_has_no_key_is_not_listened_to() {
    let peer = Memory::default();
    let mut network = Network::of(vec![Memory::owner([flow(1)]), peer.clone()]);
    network.tick(0);
    let said = std::mem::take(&mut network.on_the_way);
    for (_, datagram) in said {
        network.deliver([10, 0, 0, 99].into(), &datagram);
    }
    network.deliver(address(0), &Datagram { to: address(1), bytes: b"VPF1 or something".to_vec() });
    assert!(network.on_the_way.is_empty(), "nobody is answered");
    assert_eq!(network.nodes[1].exchange.counts().refused, 2);
}

#[test]
fn an_owner_that_hears_nobody_s_adverts_tells_whoever_calls_and_has_a_key() {
    let peer = Memory::default();
    let mut network = Network::of(vec![Memory::owner((0..50).map(flow)), peer.clone()]);
    network.company(0, &Company { guests: true, ..Company::default() });
    network.run(20);
    assert_eq!(peer.flows().len(), 50);
    // It stays one while others come and go, and is forgotten when it is silent.
    network.company(0, &Company { peers: [address(7)].into(), guests: true });
    let known = |network: &Network| network.nodes[0].exchange.peers(network.now()).count();
    assert_eq!(known(&network), 2);
    network.company(1, &Company::default());
    network.run(590);
    assert_eq!(known(&network), 2);
    network.run(20);
    assert_eq!(known(&network), 1);
    // Who is not to have guests has none.
    network.introduce(1);
    network.company(0, &Company { peers: [address(7)].into(), guests: false });
    network.run(20);
    assert_eq!(known(&network), 1);
}

#[test]
fn recordings_bring_in_so_many_guests_at_most_and_none_of_them_stays() {
    let mut network = Network::of(vec![Memory::owner([flow(1)]), Memory::default()]);
    network.run(5);
    let (_, recorded) = network.recorded.iter().find(|(from, _)| *from == address(1)).cloned().unwrap();
    network.company(0, &Company { guests: true, ..Company::default() });
    for host in 0..100 {
        network.deliver([10, 0, 9, host].into(), &recorded);
    }
    let known = |network: &Network| network.nodes[0].exchange.peers(network.now()).count();
    assert_eq!(known(&network), 32);
    network.now += SILENCE.as_millis() as u64;
    network.tick(0);
    assert_eq!(known(&network), 0);
}

#[test]
fn no_peer_is_told_more_in_a_second_than_it_is_to_bear() {
    let mut network = Network::of(vec![
        Memory::owner((0..60_000).map(|n| Flow { key: key(n), ..flow(n % 999) })),
        Memory::default(),
    ]);
    network.run(5);
    let sent = |network: &Network| network.recorded.iter().filter(|(from, _)| *from == address(0)).count();
    let before = sent(&network);
    network.run(20);
    let rate = (sent(&network) - before) / 2;
    assert!(rate <= RATE as usize, "{rate}");
    // Here a peer acknowledges once in a tick, and only so much waits for that.
    assert!(rate >= IN_FLIGHT * 5, "{rate}");
}

#[test]
fn tables_that_cannot_be_read_say_of_no_flow_that_it_is_over() {
    let (owner, peer) = (Memory::owner((0..10).map(flow)), Memory::default());
    let mut network = Network::of(vec![owner.clone(), peer.clone()]);
    network.run(10);
    owner.with(|tables| {
        tables.flows.clear();
        tables.broken = true;
    });
    let node = &mut network.nodes[0];
    assert!(node.exchange.read(&mut node.table, at(10_000)).is_err());
    let said = node.exchange.speak(at(10_000));
    network.on_the_way.extend(said.into_iter().map(|datagram| (address(0), datagram)));
    network.settle(|_| true);
    assert_eq!(peer.flows().len(), 10);
}

#[test]
fn a_flow_that_was_over_before_it_came_is_not_taken_in() {
    let old = Flow { idle: Duration::from_secs(124 * 60), ..flow(1) };
    let peer = Memory::default();
    let mut network = Network::of(vec![Memory::owner([old, flow(2)]), peer.clone()]);
    network.run(10);
    assert_eq!(peer.flows().len(), 1);
    assert_eq!(network.noted(1, Noted::Over), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Note(u16, bool),
    End(u16),
    Tick,
    /// Delivers, doubles, loses, or plays something recorded.
    Network(u8, prop::sample::Index),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_u16, any::<bool>()).prop_map(|(number, closing)| Step::Note(number, closing)),
        3 => (0..40_u16).prop_map(Step::End),
        6 => Just(Step::Tick),
        20 => (0..5_u8, any::<prop::sample::Index>()).prop_map(|(what, which)| Step::Network(what, which)),
        1 => (0..2_usize).prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever the network did, a peer has the owner's flows once it delivers again.
    #[test]
    fn in_the_end_the_peer_has_what_the_owner_has(steps in prop::collection::vec(step(), 1..150)) {
        let (owner, peer) = (Memory::owner([]), Memory::default());
        let mut network = Network::of(vec![owner.clone(), peer.clone()]);
        // What the owner had at any time: nothing else is ever at the peer.
        let mut ever: BTreeMap<_, Vec<FlowState>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Note(number, closing) => {
                    let state = if closing { FlowState::Closing } else { FlowState::Established };
                    ever.entry(key(number)).or_default().push(state);
                    owner.with(|tables| tables.flows.insert(key(number), Flow { state, ..flow(number) }));
                }
                Step::End(number) => {
                    owner.with(|tables| tables.flows.remove(&key(number)));
                }
                Step::Tick => network.tick(150),
                Step::Restart(number) => network.restart(number),
                Step::Network(what, which) => {
                    let of = if what == 4 { &network.recorded } else { &network.on_the_way };
                    if of.is_empty() {
                        continue;
                    }
                    let index = which.index(of.len());
                    let (from, datagram) = of[index].clone();
                    if what < 4 {
                        network.recorded.push((from, datagram.clone()));
                    }
                    if what < 3 {
                        network.on_the_way.remove(index);
                    }
                    if what != 2 {
                        network.deliver(from, &datagram);
                    }
                }
            }
            for flow in peer.flows() {
                prop_assert!(ever.get(&flow.key).is_some_and(|states| states.contains(&flow.state)));
            }
        }
        network.on_the_way.clear();
        // Flows that ended while nobody who knew of them lived end by themselves.
        let before = peer.flows();
        network.run(80);
        let (has, should) = (peer.flows(), owner.flows());
        for flow in &should {
            prop_assert!(has.contains(flow), "{flow:?}");
        }
        for flow in &has {
            prop_assert!(should.contains(flow) || before.contains(flow), "{flow:?}");
        }
    }
}
