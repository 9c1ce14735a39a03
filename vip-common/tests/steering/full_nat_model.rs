//! Full NAT once more, written without the code under test: who has which port, and what either end sees of the other.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use vip_common::rewrite::Verdict;
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::reason::Outcome;

use crate::legs::inner;
use crate::model::Model;
use crate::packets::{ENDS4, ENDS6, Ends, Kind, OWN, Sent};
use crate::world::{GATEWAY, Member, Plan, SECOND, World};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
/// Few, so that they run out.
const PORTS: [u16; 5] = [20_000, 20_001, 20_002, 20_005, 20_006];

/// What a client's packets name: client (which ends too), protocol, ports.
type Flow = ([u8; 16], u8, (u16, u16));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Opening,
    Established,
    Closing,
}

/// A flow as the model has it.
#[derive(Clone, Debug)]
struct Entry {
    sent: Sent,
    member: Member,
    port: u16,
    life: Life,
    answered: bool,
    answer_closed: bool,
    seen: u64,
}

#[derive(Default)]
struct Nat {
    flows: BTreeMap<Flow, Entry>,
    ring: Model,
}

type Expected = (Verdict, Outcome, Vec<u8>);

fn key(sent: &Sent) -> Flow {
    let protocol = if sent.kind == Kind::Tcp { 6 } else { 17 };
    (sent.ends.wide().0, protocol, sent.ports)
}

fn frame(to: [u8; 6], sent: &Sent) -> Vec<u8> {
    [&to[..], &OWN, &sent.bytes()[12..]].concat()
}

impl Entry {
    fn gives_way(&self, now: u64) -> bool {
        let minutes = if self.sent.kind == Kind::Tcp { 124 } else { 5 };
        let limit = match self.life {
            Life::Established if !self.answer_closed => minutes * 60,
            _ => 10,
        };
        now - self.seen >= limit * SECOND
    }

    /// Whether both would be the same to their backend.
    fn competes(&self, sent: &Sent, member: Member) -> bool {
        self.sent.ends.family() == sent.ends.family()
            && self.member.number == member.number
            && self.sent.ports.1 == sent.ports.1
            && key(&self.sent).1 == key(sent).1
    }

    fn to_backend(&self, sent: &Sent) -> Vec<u8> {
        let ports = (self.port, sent.ports.1 + 1000);
        let ends = inner(sent.ends, self.member);
        frame(self.member.mac(), &Sent { ends, ports, hops: sent.hops - 1, ..sent.clone() })
    }

    /// What its backend sends.
    fn answer(&self, flags: u8) -> Sent {
        let ports = (self.sent.ports.1 + 1000, self.port);
        Sent { ends: inner(self.sent.ends, self.member).reversed(), ports, flags, ..self.sent.clone() }
    }

    fn to_client(&self, answer: &Sent) -> Vec<u8> {
        let ports = (self.sent.ports.1, self.sent.ports.0);
        let ends = self.sent.ends.reversed();
        frame(GATEWAY, &Sent { ends, ports, hops: answer.hops - 1, ..answer.clone() })
    }
}

impl Nat {
    fn client(&mut self, plans: &[Plan], now: u64, random: u32, sent: &Sent) -> Expected {
        let index = usize::from(matches!(sent.ends, Ends::V6(..)));
        let plan = &plans[index];
        let tcp = sent.kind == Kind::Tcp;
        let (opens, closes) = (tcp && sent.flags & 0x12 == SYN, tcp && sent.flags & 5 != 0);
        let usable = |entry: &Entry| {
            let slot = plan.backends.iter().find(|member| {
                (member.number, member.generation) == (entry.member.number, entry.member.generation)
            });
            slot.is_some_and(|member| member.up && !(opens && member.draining))
        };
        if let Some(entry) = self.flows.get_mut(&key(sent)).filter(|entry| usable(entry)) {
            entry.seen = now;
            entry.life = match entry.life {
                _ if opens => Life::Opening,
                Life::Closing => Life::Closing,
                _ if closes => Life::Closing,
                Life::Opening if !entry.answered => Life::Opening,
                _ => Life::Established,
            };
            if opens {
                (entry.answered, entry.answer_closed) = (false, false);
            }
            return (Verdict::Transmit, Outcome::Steered, entry.to_backend(sent));
        }
        let dropped = |outcome| (Verdict::Drop, outcome, sent.bytes());
        let Some(member) = self.ring.pick(plan, index, now, sent) else { return dropped(Outcome::Closed) };
        let member = plan.backends[member];
        if tcp && sent.flags & RST != 0 {
            return dropped(Outcome::Unmapped);
        }
        self.flows.remove(&key(sent));
        let Some(port) = self.port(now, random, sent, member) else { return dropped(Outcome::NoPort) };
        let entry = Entry {
            sent: sent.clone(),
            member,
            port,
            life: Life::Opening,
            answered: false,
            answer_closed: false,
            seen: now,
        };
        let there = entry.to_backend(sent);
        self.flows.insert(key(sent), entry);
        (Verdict::Transmit, Outcome::NewFlow, there)
    }

    /// The client's own, else one by chance, else the next.
    fn port(&mut self, now: u64, random: u32, sent: &Sent, member: Member) -> Option<u16> {
        let chance = (f64::from(random) / 4_294_967_296.0 * 5.0).floor() as usize;
        let own = PORTS.into_iter().filter(|port| *port == sent.ports.0);
        let wanted: Vec<u16> = own.chain((0..5).map(|more| PORTS[(chance + more) % 5])).collect();
        for port in wanted {
            let holder =
                self.flows.iter().find(|(_, entry)| entry.port == port && entry.competes(sent, member));
            match holder.map(|(key, entry)| (*key, entry.gives_way(now))) {
                None => return Some(port),
                Some((key, true)) => {
                    self.flows.remove(&key);
                    return Some(port);
                }
                Some((_, false)) => {}
            }
        }
        None
    }

    /// What becomes of a flow's answer: the flow is one of those that are known.
    fn backend(&mut self, now: u64, flow: &Flow, answer: &Sent) -> Expected {
        let entry = self.flows.get_mut(flow).expect("known");
        entry.seen = now;
        entry.answered = true;
        entry.answer_closed |= answer.kind == Kind::Tcp && answer.flags & 5 != 0;
        (Verdict::Transmit, Outcome::Returned, entry.to_client(answer))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Client(Sent, u32),
    /// Of one of the flows, with these flags.
    Answer(Index, u8),
    /// To a port that nobody has.
    Stray(Sent),
    Wait(u64),
    /// The backend of this family goes up, down, drains, or another takes its slot.
    Change(usize, usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = select(vec![Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::Unsummed]);
    let flags = || select(vec![SYN, SYN, ACK, ACK, ACK, ACK | 1, RST, SYN | ACK]);
    let from = select(vec![20_000_u16, 20_001, 20_003, 40_000]);
    let packet = (any::<bool>(), 0..4_u8, kind, from, 8000..8002_u16, flags(), vec(any::<u8>(), 0..30));
    let sent = packet.prop_map(|(four, number, kind, from, to, flags, payload)| {
        let ends = match if four || kind == Kind::Unsummed { ENDS4 } else { ENDS6 } {
            Ends::V4(_, vip) => Ends::V4([192, 0, 2, number], vip),
            Ends::V6(mut client, vip) => {
                client[15] = number;
                Ends::V6(client, vip)
            }
        };
        Sent { ports: (from, to), flags, payload, ..Sent::new(ends, kind) }
    });
    prop_oneof![
        12 => (sent.clone(), any::<u32>()).prop_map(|(sent, random)| Step::Client(sent, random)),
        8 => (any::<Index>(), flags()).prop_map(|(flow, flags)| Step::Answer(flow, flags)),
        1 => sent.prop_map(Step::Stray),
        2 => select(vec![1, 9, 10, 239, 240, 300, 301, 7440]).prop_map(Step::Wait),
        1 => (0..2_usize, 0..3_usize, 0..4_u8).prop_map(|(family, member, what)| Step::Change(family, member, what)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_models_whatever_happens(steps in vec(step(), 1..80)) {
        let mut plans = [Plan::full_nat(ENDS4), Plan::full_nat(ENDS6)];
        let mut world = World::of(&plans);
        world.nat.ports = Ports::new(20_000..=20_006, &[20_003..=20_004]);
        let mut model = Nat::default();
        for step in steps {
            let now = world.now.get();
            let (sent, expected) = match &step {
                Step::Wait(seconds) => {
                    world.wait(*seconds);
                    continue;
                }
                Step::Change(family, member, what) => {
                    let member = &mut plans[*family].backends[*member];
                    match what {
                        0 => member.up = !member.up,
                        1 => member.draining = !member.draining,
                        2 => (member.up, member.draining) = (true, false),
                        // Each has addresses of its own.
                        _ => *member = Member { generation: member.generation + 1, number: member.number + 3, ..*member },
                    }
                    world.fill(&plans);
                    continue;
                }
                Step::Client(sent, random) => {
                    world.nat.random.set(*random);
                    (sent.clone(), model.client(&plans, now, *random, sent))
                }
                Step::Answer(flow, flags) => {
                    if model.flows.is_empty() {
                        continue;
                    }
                    let flow = *model.flows.keys().nth(flow.index(model.flows.len())).expect("one of them");
                    let answer = model.flows[&flow].answer(*flags);
                    (answer.clone(), model.backend(now, &flow, &answer))
                }
                Step::Stray(sent) => {
                    let answer = Sent { ports: (9000, 20_004), ends: inner(sent.ends, Member::new(1)).reversed(), ..sent.clone() };
                    (answer.clone(), (Verdict::Pass, Outcome::Passed, answer.bytes()))
                }
            };
            let (verdict, after, outcome) = world.run(&sent.bytes());
            prop_assert_eq!((verdict, outcome), (expected.0, expected.1), "{:?}", step);
            prop_assert_eq!(after, expected.2, "{:?}", step);
            prop_assert_eq!(world.nat.flows.borrow().len(), model.flows.len());
            prop_assert_eq!(world.nat.returns.borrow().len(), model.flows.len());
        }
    }

    #[test]
    fn no_bytes_whatever_make_it_panic(frames in vec((vec(any::<u8>(), 14..120), any::<bool>(), any::<bool>()), 1..8)) {
        let world = World::of(&[Plan::full_nat(ENDS4), Plan::full_nat(ENDS6)]);
        for (mut frame, six, known) in frames {
            frame[12..14].copy_from_slice(if six { &[0x86, 0xdd] } else { &[0x08, 0] });
            if let Some(first) = frame.get_mut(14) {
                *first = if six { 0x60 } else { 0x45 };
            }
            // Often to a port that matters.
            if known && frame.len() > 60 {
                frame[if six { 14 + 6 } else { 14 + 9 }] = 17;
                frame[if six { 14 + 42 } else { 14 + 22 }..][..2].copy_from_slice(&8001_u16.to_be_bytes());
            }
            world.run(&frame);
        }
    }
}
