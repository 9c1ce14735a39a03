//! Groups on one node and on two, by a virtual clock. Times are milliseconds since the start.

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::types::{Centiseconds, Priority};
use crate::vrrp::machine::{Action, Cause, LEASE_INTERVALS, Parameters};

/// Active_Down of priority 100 and 200, at 1 s.
const TAKEOVER: f64 = 3609.375;
const TAKEOVER_200: f64 = 3218.75;
const SKEW: f64 = 609.375;

/// One member, its actions carried out as the driver does.
struct Member {
    machine: Machine,
    word: MonotonicTime,
    faulty: bool,
    muted: bool,
    refused: bool,
    staging_takes: Option<Duration>,
    staged_at: MonotonicTime,
}

/// The members of one node, and what they said and became.
struct Node {
    members: Vec<Member>,
    now: MonotonicTime,
    /// Member and priority of each advertisement that went out since it was last looked at.
    sent: Vec<(usize, u8)>,
    /// Time, member, new state and cause.
    history: Vec<(f64, usize, State, Cause)>,
}

/// Two nodes whose members of one place share a network each.
struct Pair {
    nodes: [Node; 2],
    /// Networks that carry nothing.
    cut: Vec<bool>,
}

fn ms(time: f64) -> MonotonicTime {
    MonotonicTime(1_000_000_000_000) + Duration::from_nanos((time * 1e6).round() as u64)
}

impl Members for Node {
    fn count(&self) -> usize {
        self.members.len()
    }

    fn machine(&self, member: usize) -> &Machine {
        &self.members[member].machine
    }

    fn tell(&mut self, member: usize, event: Event) {
        let output = self.members[member].machine.handle(event, self.now);
        let at = self.now.since(ms(0.0)).as_nanos() as f64 / 1e6;
        let advertised = self.members[member].machine.parameters().priority.get();
        let own = &mut self.members[member];
        let mut refused = false;
        for action in &output.actions {
            match *action {
                Action::Advertise if own.muted => {
                    refused = true;
                    break;
                }
                Action::Advertise => {
                    self.sent.push((member, advertised));
                    own.word = self.now + own.machine.parameters().interval.duration() * LEASE_INTERVALS;
                    own.refused = false;
                    own.machine.handle(Event::AdvertSent(self.now), self.now);
                }
                Action::AdvertiseLeaving if !own.muted => self.sent.push((member, 0)),
                Action::AdvertiseYielding if !own.muted => self.sent.push((member, advertised)),
                Action::Ask if !own.muted => self.sent.push((member, 1)),
                Action::HoldLease(until) => own.word = until,
                Action::Release => own.word = MonotonicTime::ZERO,
                Action::Stage => {
                    own.staged_at = own.staging_takes.map_or(MonotonicTime::NEVER, |time| self.now + time);
                }
                Action::Unstage | Action::UnstageAfterGrace => own.staged_at = MonotonicTime::NEVER,
                _ => {}
            }
        }
        if let Some(transition) = output.transition.filter(|_| !refused) {
            self.history.push((at, member, transition.to, transition.cause));
        }
        if refused {
            own.refused = true;
            self.tell(member, Event::AdvertFailed);
        }
    }

    fn is_faulty(&self, member: usize) -> bool {
        self.members[member].faulty
    }

    fn was_refused(&self, member: usize) -> bool {
        self.members[member].refused
    }
}

impl Node {
    /// As many members at 1 s, not started.
    fn new(members: usize, priority: u8) -> Self {
        Self::with(members, priority, |_| {})
    }

    fn with(members: usize, priority: u8, change: impl Fn(&mut Parameters)) -> Self {
        let mut parameters = Parameters {
            priority: Priority::new(priority).unwrap(),
            interval: Centiseconds::SECOND.into(),
            phase: None,
            preempt: true,
            preempt_delay: Duration::ZERO,
            hold_down: Duration::ZERO,
            staging: false,
            announce_repeat: 0,
            announce_interval: Duration::from_secs(1),
            announce_refresh: None,
        };
        change(&mut parameters);
        let member = |_| Member {
            machine: Machine::new(parameters),
            word: MonotonicTime::ZERO,
            faulty: false,
            muted: false,
            refused: false,
            staging_takes: None,
            staged_at: MonotonicTime::NEVER,
        };
        let members = (0..members).map(member).collect();
        Self { members, now: ms(0.0), sent: Vec::new(), history: Vec::new() }
    }

    fn started(mut self) -> Self {
        for member in 0..self.count() {
            tell(&mut self, member, Event::Startup);
        }
        self.history.clear();
        self
    }

    /// Alone, until it owns; the history begins then.
    fn active(self) -> Self {
        let mut node = self.started();
        node.at(5000.0);
        assert!(node.states().iter().all(|state| *state == State::Active));
        node.history.clear();
        node
    }

    fn next(&self) -> MonotonicTime {
        let staged = self.members.iter().map(|member| member.staged_at).min();
        next_timer(self).min(staged.unwrap_or(MonotonicTime::NEVER))
    }

    fn step(&mut self) {
        for member in 0..self.count() {
            if self.members[member].staged_at <= self.now {
                self.members[member].staged_at = MonotonicTime::NEVER;
                tell(self, member, Event::Staged);
            }
        }
        on_timer(self, self.now);
        self.check();
    }

    fn at(&mut self, time: f64) -> &mut Self {
        while self.next() <= ms(time) {
            self.now = self.now.max(self.next());
            self.step();
            assert!(self.next() > self.now, "spins: {:?}", self.states());
        }
        self.now = ms(time);
        self
    }

    fn stopped_until(&mut self, time: f64) -> &mut Self {
        self.now = ms(time);
        self
    }

    fn hear(&mut self, member: usize, priority: u8) -> &mut Self {
        let sender = Ipv4Addr::new(10, 0, u8::try_from(member).unwrap(), 2).into();
        let advert =
            PeerAdvert { priority, interval: Centiseconds::SECOND.into(), address: Ordering::Less, sender };
        self.hear_advert(member, advert)
    }

    fn hear_advert(&mut self, member: usize, advert: PeerAdvert) -> &mut Self {
        let before = Before::of(self.machine(member));
        self.members_tell(member, advert);
        heard(self, member, before, advert, self.now);
        self.check();
        self
    }

    fn members_tell(&mut self, member: usize, advert: PeerAdvert) {
        Members::tell(self, member, Event::Advert(advert));
    }

    fn event(&mut self, member: usize, event: Event) -> &mut Self {
        tell(self, member, event);
        self.check();
        self
    }

    fn faulty(&mut self, member: usize, faulty: bool) -> &mut Self {
        self.members[member].faulty = faulty;
        share_faults(self);
        self.check();
        self
    }

    fn states(&self) -> Vec<State> {
        self.members.iter().map(|member| member.machine.state()).collect()
    }

    fn owned(&self) -> usize {
        self.members.iter().filter(|member| member.word > self.now).count()
    }

    /// The machines know what their words say.
    fn check(&self) {
        for member in &self.members {
            assert_eq!(member.machine.owns(self.now), member.word > self.now, "{:?}", member.machine);
        }
    }
}

impl Pair {
    fn new(networks: usize, first: Node, second: Node) -> Self {
        Self { nodes: [first.started(), second.started()], cut: vec![false; networks] }
    }

    /// The node of higher priority owns.
    fn settled(networks: usize) -> Self {
        let mut pair = Self::new(networks, Node::new(networks, 200), Node::new(networks, 100));
        pair.at(10_000.0);
        assert_eq!(pair.owned(), [networks, 0]);
        pair.nodes.iter_mut().for_each(|node| node.history.clear());
        pair
    }

    fn at(&mut self, time: f64) -> &mut Self {
        self.deliver();
        loop {
            let next = self.nodes[0].next().min(self.nodes[1].next());
            if next > ms(time) {
                break;
            }
            let now = self.nodes[0].now.max(next);
            for node in &mut self.nodes {
                node.now = now;
                node.step();
            }
            self.deliver();
        }
        for node in &mut self.nodes {
            node.now = ms(time);
        }
        self
    }

    fn deliver(&mut self) {
        while self.nodes.iter().any(|node| !node.sent.is_empty()) {
            for from in 0..2 {
                for (network, priority) in std::mem::take(&mut self.nodes[from].sent) {
                    if !self.cut[network] {
                        self.carry(from, network, priority);
                    }
                }
            }
        }
    }

    fn carry(&mut self, from: usize, network: usize, priority: u8) {
        let host = u8::try_from(from + 1).unwrap();
        let sender = Ipv4Addr::new(10, 0, u8::try_from(network).unwrap(), host).into();
        // The first member's address breaks ties.
        let address = if network == 0 { from.cmp(&(1 - from)) } else { Ordering::Less };
        let advert = PeerAdvert { priority, interval: Centiseconds::SECOND.into(), address, sender };
        self.nodes[1 - from].hear_advert(network, advert);
    }

    fn owned(&self) -> [usize; 2] {
        [self.nodes[0].owned(), self.nodes[1].owned()]
    }

    fn tell_all(&mut self, node: usize, event: Event) -> &mut Self {
        for member in 0..self.nodes[node].count() {
            self.nodes[node].event(member, event);
        }
        self
    }
}

#[test]
fn sync_group_fault_and_joint_promotion() {
    let mut node = Node::new(3, 100).active();
    node.faulty(1, true);
    assert_eq!((node.states(), node.owned()), (vec![State::Fault; 3], 0));
    assert_eq!(node.sent.iter().filter(|(_, priority)| *priority == 0).count(), 3, "each says priority 0");
    node.at(6000.0).faulty(2, true).at(7000.0).faulty(1, false);
    assert_eq!(node.states(), [State::Fault; 3], "the last one counts");
    node.history.clear();
    node.at(8000.0).faulty(2, false).at(60_000.0);
    let back = [0, 1, 2].map(|member| (8000.0, member, State::Backup, Cause::Recovered));
    let promoted = [0, 1, 2].map(|member| (8000.0 + TAKEOVER, member, State::Active, Cause::Timeout));
    assert_eq!(node.history, [back, promoted].concat());
}

#[test]
fn a_fault_before_the_start_keeps_all_out() {
    let mut node = Node::new(2, 255);
    node.faulty(1, true);
    let mut node = node.started();
    node.at(60_000.0);
    assert_eq!(node.states(), [State::Fault; 2]);
    assert!(node.sent.is_empty());
}

#[test]
fn they_take_over_together_when_the_last_of_them_may() {
    let mut node = Node::new(2, 100).started();
    node.at(100.0).hear(0, 200).at(1000.0).hear(1, 200).at(60_000.0);
    // Nobody is sure that the lease of the second one's owner has ended before.
    let expected = [0, 1].map(|member| (1000.0 + TAKEOVER, member, State::Active, Cause::Timeout));
    assert_eq!(node.history, expected);
}

#[test]
fn an_owner_that_any_member_hears_is_left_alone() {
    let mut node = Node::with(2, 100, |parameters| parameters.staging = true).started();
    for second in 0..60 {
        node.at(f64::from(second) * 1000.0).hear(1, 200);
    }
    assert!(node.history.is_empty() && node.sent.is_empty());
    // Nor does the one that hears nothing get ready for it.
    assert_eq!(node.members[0].staged_at, MonotonicTime::NEVER);
}

#[test]
fn priority_zero_heard_by_one_is_heard_by_all() {
    let mut node = Node::new(2, 100).started();
    node.hear(0, 200).hear(1, 200).at(500.0).hear(0, 0).at(5000.0);
    let expected = [0, 1].map(|member| (500.0 + SKEW, member, State::Active, Cause::PriorityZero));
    assert_eq!(node.history, expected);
}

#[test]
fn a_planned_takeover_waits_for_the_last_members_addresses() {
    let mut node = Node::with(2, 100, |parameters| parameters.staging = true).started();
    node.members[0].staging_takes = Some(Duration::from_millis(1));
    node.members[1].staging_takes = Some(Duration::from_millis(640));
    node.hear(0, 200).hear(1, 200).at(500.0).hear(0, 0).hear(1, 0).at(5000.0);
    let expected = [0, 1].map(|member| (1140.0, member, State::Active, Cause::PriorityZero));
    assert_eq!(node.history, expected);
}

#[test]
fn a_member_that_has_not_begun_holds_the_others_back() {
    let mut node = Node::new(2, 100);
    node.event(0, Event::Startup).at(20_000.0);
    assert_eq!(node.states(), [State::Backup, State::Initialize]);
    node.history.clear();
    node.event(1, Event::Startup).at(60_000.0);
    let expected = [0, 1].map(|member| (20_000.0 + TAKEOVER, member, State::Active, Cause::Timeout));
    assert_eq!(node.history[1..], expected);
}

#[test]
fn a_member_that_comes_later_takes_over_after_its_own_wait() {
    let mut node = Node::new(2, 100).active();
    let late = Node::new(1, 100).members.pop().unwrap();
    node.members.push(late);
    node.event(2, Event::Startup).at(20_000.0);
    assert_eq!(node.history[1..], [(5000.0 + TAKEOVER, 2, State::Active, Cause::Timeout)]);
    assert_eq!(node.owned(), 3);
}

#[test]
fn a_higher_priority_heard_by_one_is_yielded_to_by_all() {
    let mut node = Node::new(3, 100).active();
    node.hear(1, 200);
    assert_eq!((node.states(), node.owned()), (vec![State::Backup; 3], 0));
    assert!(node.history.iter().all(|(at, _, _, cause)| (*at, *cause) == (5000.0, Cause::HigherPriority)));
}

#[test]
fn a_stopped_group_is_fenced_as_a_whole() {
    let mut node = Node::new(2, 100).active();
    node.stopped_until(60_000.0).event(0, Event::Staged);
    assert_eq!((node.states(), node.owned()), (vec![State::Backup; 2], 0));
}

#[test]
fn a_member_whose_adverts_are_refused_ends_it_for_all_and_goes_first_the_next_time() {
    let mut node = Node::new(2, 100).active();
    node.members[1].muted = true;
    node.at(9000.0);
    assert_eq!(node.owned(), 0, "{:?}", node.history);
    let said = node.sent.len();
    node.at(60_000.0);
    assert_eq!(node.sent.len(), said, "nobody hears that we own what we do not");
    node.members[1].muted = false;
    node.at(70_000.0);
    assert_eq!(node.owned(), 2);
}

#[test]
fn an_heir_heard_by_one_member_is_the_heir_of_all() {
    let mut node = Node::new(2, 100).active();
    node.event(0, Event::Drain).event(1, Event::Drain);
    node.at(5500.0).hear(0, 50);
    assert_eq!(node.owned(), 1, "the other answers until its own heir is heard");
    node.at(60_000.0);
    assert_eq!((node.states(), node.owned()), (vec![State::Draining; 2], 0));
}

#[test]
fn a_drain_without_an_heir_leaves_all_with_the_owner() {
    let mut node = Node::new(2, 100).active();
    node.event(0, Event::Drain).event(1, Event::Drain).at(60_000.0);
    assert_eq!((node.states(), node.owned()), (vec![State::Active; 2], 2));
}

#[test]
fn a_partition_of_one_members_network_moves_nothing_and_flaps_not() {
    let mut pair = Pair::settled(2);
    pair.cut[0] = true;
    pair.at(100_000.0);
    pair.cut[0] = false;
    pair.at(200_000.0);
    assert!(pair.nodes.iter().all(|node| node.history.is_empty()));
    assert_eq!(pair.owned(), [2, 0]);
}

#[test]
fn a_partition_of_all_networks_makes_two_owners_until_any_of_them_heals() {
    let mut pair = Pair::settled(2);
    pair.cut.fill(true);
    pair.at(20_000.0);
    assert_eq!(pair.owned(), [2, 2]);
    pair.cut[1] = false;
    pair.at(21_001.0);
    assert_eq!(pair.owned(), [2, 0]);
    pair.at(100_000.0);
    assert_eq!(pair.nodes[1].history.len(), 4, "once out and once in: {:?}", pair.nodes[1].history);
}

#[test]
fn a_fault_of_one_member_moves_the_group_and_its_recovery_moves_it_back() {
    let mut pair = Pair::settled(3);
    pair.nodes[0].faulty(1, true);
    pair.at(10_000.0 + SKEW);
    assert_eq!(pair.owned(), [0, 3]);
    pair.at(20_000.0);
    pair.nodes[0].faulty(1, false);
    pair.at(40_000.0);
    assert_eq!(pair.owned(), [3, 0]);
    assert_eq!(pair.nodes[1].history.len(), 6);
}

#[test]
fn a_node_that_cannot_send_on_one_network_leaves_the_group_to_the_other() {
    let mut pair = Pair::settled(2);
    pair.nodes[0].members[1].muted = true;
    pair.at(20_000.0);
    assert_eq!(pair.owned(), [0, 2]);
    pair.nodes[1].history.clear();
    pair.at(120_000.0);
    assert!(pair.nodes[1].history.is_empty(), "flaps: {:?}", pair.nodes[1].history);
}

#[test]
fn equal_priorities_leave_one_owner_of_the_whole_group() {
    let mut pair = Pair::new(3, Node::new(3, 100), Node::new(3, 100));
    pair.at(30_000.0);
    let mut owned = pair.owned();
    owned.sort_unstable();
    assert_eq!(owned, [0, 3]);
}

#[test]
fn a_drain_of_the_group_is_made_before_it_breaks() {
    let mut pair = Pair::settled(2);
    // Priority 0 is said again after 10 ms.
    let moves = 10_000.0 + 10.0 + SKEW;
    pair.tell_all(0, Event::Drain).at(moves - 1.0);
    assert_eq!(pair.owned(), [2, 0]);
    pair.at(moves);
    assert_eq!(pair.owned(), [0, 2]);
}

#[test]
fn a_group_that_must_not_preempt_gives_all_back_to_the_owner_that_was_there_before() {
    let without = |parameters: &mut Parameters| parameters.preempt = false;
    let mut pair = Pair::new(2, Node::with(2, 200, without), Node::new(2, 100));
    pair.cut.fill(true);
    pair.at(10_000.0);
    assert_eq!(pair.owned(), [2, 2]);
    pair.cut.fill(false);
    pair.at(12_500.0);
    assert_eq!(pair.owned(), [0, 2], "{:?}", pair.nodes[0].history);
    pair.at(60_000.0);
    assert_eq!(pair.owned(), [0, 2]);
}

#[test]
fn the_takeover_time_of_a_group_is_that_of_one() {
    let mut node = Node::new(8, 200).started();
    node.at(60_000.0);
    assert!(node.history.iter().all(|(at, ..)| *at == TAKEOVER_200));
}

#[derive(Clone, Copy, Debug)]
enum Mischief {
    Wait(u16),
    Cut(usize, bool),
    Mute(usize, usize, bool),
    Fault(usize, usize, bool),
}

fn mischief() -> impl Strategy<Value = Mischief> {
    let (node, network) = (0..2_usize, 0..3_usize);
    prop_oneof![
        4 => (0..9000_u16).prop_map(Mischief::Wait),
        2 => (network.clone(), any::<bool>()).prop_map(|(network, cut)| Mischief::Cut(network, cut)),
        1 => (node.clone(), network.clone(), any::<bool>()).prop_map(|(n, m, on)| Mischief::Mute(n, m, on)),
        1 => (node, network, any::<bool>()).prop_map(|(n, m, on)| Mischief::Fault(n, m, on)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A node owns all of a group or nothing, whatever happens to its networks; and all is well once they are whole.
    #[test]
    fn a_group_is_owned_as_a_whole(
        first in 1..255_u8,
        second in 1..255_u8,
        preempt: bool,
        steps in proptest::collection::vec(mischief(), 1..40),
    ) {
        let node = |priority| Node::with(3, priority, |parameters| parameters.preempt = preempt);
        let mut pair = Pair::new(3, node(first), node(second));
        let mut now = 0.0;
        for step in steps {
            match step {
                Mischief::Wait(time) => {
                    now += f64::from(time);
                    pair.at(now);
                }
                Mischief::Cut(network, cut) => pair.cut[network] = cut,
                Mischief::Mute(node, member, muted) => pair.nodes[node].members[member].muted = muted,
                Mischief::Fault(node, member, faulty) => {
                    pair.nodes[node].faulty(member, faulty);
                    pair.deliver();
                }
            }
            for node in &pair.nodes {
                let active = node.states().iter().filter(|state| **state == State::Active).count();
                prop_assert!(active == 0 || active == 3, "{:?} {:?}", node.states(), node.history);
            }
        }
        pair.cut.fill(false);
        for node in &mut pair.nodes {
            for member in 0..3 {
                node.members[member].muted = false;
                node.faulty(member, false);
            }
        }
        pair.at(now + 30_000.0);
        let mut owned = pair.owned();
        let winner = if owned[0] > 0 { first } else { second };
        owned.sort_unstable();
        prop_assert_eq!(owned, [0, 3]);
        prop_assert!(!preempt || winner == first.max(second));
        let moves = pair.nodes.each_ref().map(|node| node.history.len());
        pair.at(now + 90_000.0);
        prop_assert_eq!(pair.nodes.each_ref().map(|node| node.history.len()), moves);
    }
}
