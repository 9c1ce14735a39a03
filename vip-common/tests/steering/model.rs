//! Steering once more, written without the code under test: from what was sent, not from its bytes.

use std::collections::HashMap;

use vip_common::decision::Family;
use vip_common::rewrite::Verdict;
use vip_common::steering::hash;
use vip_common::steering::reason::Outcome;
use vip_common::steering::tables::{Closed, Mode};

use crate::packets::{Ends, Kind, OWN, Sent, icmp_error};
use crate::world::{Plan, RING, SECOND, TUNNEL_SOURCE};

/// What a client, or a router, sends.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Whole(Sent),
    /// The first fragment of the datagram of this number, IPv4 only.
    First(Sent, u16),
    /// One without ports.
    Later(Sent, u16),
    /// About the packet that the VIP sent.
    Error(Sent),
}

impl Input {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let fragment = |sent: &Sent, id: u16, field: u16| {
            let mut frame = sent.bytes();
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            frame[20..22].copy_from_slice(&field.to_be_bytes());
            crate::packets::fix_ipv4(&mut frame[14..]);
            frame
        };
        match self {
            Self::Whole(sent) => sent.bytes(),
            Self::First(sent, id) => fragment(sent, *id, 0x2000),
            Self::Later(sent, id) => fragment(sent, *id, 0x2003),
            Self::Error(about) => icmp_error(about, 8),
        }
    }
}

/// Who a flow, client or datagram goes to: place in the list, generation, when last seen.
#[derive(Clone, Copy, Debug)]
struct Known {
    member: usize,
    generation: u16,
    seen: u64,
    /// 0 opening, 1 established, 2 closing.
    state: u8,
}

type Flow = (usize, u8, [u8; 16], (u16, u16));
type Datagram = ([u8; 16], u8, u16);

#[derive(Default)]
pub(crate) struct Model {
    flows: HashMap<Flow, Known>,
    clients: HashMap<(usize, [u8; 16]), Known>,
    /// With the service that it is of; `None`: up the stack.
    datagrams: HashMap<Datagram, Option<(usize, Known)>>,
    datagram_times: HashMap<Datagram, u64>,
}

/// Verdict, outcome, and the frame where it is the model's affair: answers have tests of their own.
pub(crate) type Expected = (Verdict, Outcome, Option<Vec<u8>>);

/// What the model knows of a packet to be steered.
struct Way<'a> {
    plan: &'a Plan,
    member: usize,
    outcome: Outcome,
}

fn protocol(kind: Kind) -> u8 {
    match kind {
        Kind::Tcp => 6,
        Kind::Udp | Kind::Unsummed => 17,
        Kind::Sctp => 132,
        Kind::Echo => 1,
    }
}

fn service(plans: &[Plan], ends: Ends, protocol: u8, port: u16) -> Option<usize> {
    let of = |wanted: fn(&Plan, u16) -> bool| {
        plans.iter().position(|plan| {
            plan.ends.wide().1 == ends.wide().1
                && plan.ends.family() == ends.family()
                && plan.protocols.contains(&protocol)
                && wanted(plan, port)
        })
    };
    of(|plan, port| port != 0 && (plan.ports.0..=plan.ports.1).contains(&port))
        .or_else(|| of(|plan, _| plan.ports.0 == 0))
}

impl Model {
    pub(crate) fn expect(&mut self, plans: &[Plan], now: u64, input: &Input) -> Expected {
        match input {
            Input::Whole(sent) if sent.kind == Kind::Echo => (Verdict::Transmit, Outcome::Echoed, None),
            Input::Whole(sent) => self.client(plans, now, sent, input, None),
            Input::First(sent, id) => self.client(plans, now, sent, input, Some(*id)),
            Input::Later(sent, id) => self.later(plans, now, sent, *id, input),
            Input::Error(about) => self.error(plans, now, about, input),
        }
    }

    fn client(&mut self, plans: &[Plan], now: u64, sent: &Sent, input: &Input, id: Option<u16>) -> Expected {
        let protocol = protocol(sent.kind);
        let client = sent.ends.wide().0;
        let passed = (Verdict::Pass, Outcome::Passed, Some(input.bytes()));
        let mut note = |way: Option<(usize, Known)>| {
            if let Some(id) = id {
                self.datagrams.insert((client, protocol, id), way);
                self.datagram_times.insert((client, protocol, id), now);
            }
        };
        let Some(index) = service(plans, sent.ends, protocol, sent.ports.1) else {
            note(None);
            return passed;
        };
        let plan = &plans[index];
        if !plan.allowed.is_empty() && !plan.allowed.contains(&client) {
            return (Verdict::Drop, Outcome::NotAllowed, Some(input.bytes()));
        }
        if plan.mode == Mode::Local {
            note(None);
            return passed;
        }
        let Some((known, outcome)) = self.choose(plan, index, now, sent) else {
            return match plan.closed {
                Closed::Pass => passed,
                Closed::Drop => (Verdict::Drop, Outcome::Closed, Some(input.bytes())),
                // Nothing resets a reset.
                Closed::Reject if sent.kind == Kind::Tcp && (sent.flags & 4 != 0 || id.is_some()) => {
                    (Verdict::Drop, Outcome::Rejected, Some(input.bytes()))
                }
                Closed::Reject => (Verdict::Transmit, Outcome::Rejected, None),
            };
        };
        if let Some(id) = id {
            self.datagrams.insert((client, protocol, id), Some((index, known)));
            self.datagram_times.insert((client, protocol, id), now);
        }
        sent_on(&Way { plan, member: known.member, outcome }, sent, input)
    }

    fn choose(&mut self, plan: &Plan, index: usize, now: u64, sent: &Sent) -> Option<(Known, Outcome)> {
        let protocol = protocol(sent.kind);
        let tcp = protocol == 6;
        let client = sent.ends.wide().0;
        let flow = (index, protocol, client, sent.ports);
        let opens = tcp && sent.flags & 0x12 == 0x02;
        let closes = tcp && sent.flags & 0x05 != 0;
        let after = |state: u8| if closes { 2 } else { state.max(1) };
        if !opens && let Some(known) = self.known(plan, now, &flow) {
            let state = after(known.state);
            let entry = self.flows.get_mut(&flow).expect("known");
            if state != known.state || now - known.seen >= SECOND {
                (entry.state, entry.seen) = (state, now);
            }
            return Some((known, Outcome::Steered));
        }
        let member = self.pick(plan, index, now, sent)?;
        let state = if opens || !tcp { 0 } else { after(0) };
        let known = Known { member, generation: plan.backends[member].generation, seen: now, state };
        if tcp && sent.flags & 4 != 0 {
            return Some((known, Outcome::Steered));
        }
        self.flows.insert(flow, known);
        if plan.affinity > 0 {
            self.clients.insert((index, client), known);
        }
        Some((known, Outcome::NewFlow))
    }

    fn known(&self, plan: &Plan, now: u64, flow: &Flow) -> Option<Known> {
        let known = *self.flows.get(flow)?;
        let minutes = match (flow.1, known.state) {
            (17, _) => 5,
            (_, 1) => 124,
            _ => 4,
        };
        let member = plan.backends[known.member];
        let over = now - known.seen >= minutes * 60 * SECOND;
        (!over && member.up && member.generation == known.generation).then_some(known)
    }

    pub(crate) fn pick(&self, plan: &Plan, index: usize, now: u64, sent: &Sent) -> Option<usize> {
        let client = sent.ends.wide().0;
        if plan.affinity > 0
            && let Some(known) = self.clients.get(&(index, client))
            && now - known.seen < u64::from(plan.affinity) * SECOND
        {
            let member = plan.backends[known.member];
            if member.up && !member.draining && member.generation == known.generation {
                return Some(known.member);
            }
        }
        let [a, b] = sent.ports.0.to_be_bytes();
        let [c, d] = sent.ports.1.to_be_bytes();
        let hash = match (sent.ends, plan.affinity > 0) {
            (Ends::V4(client, _), true) => hash::of_client4(client),
            (Ends::V6(client, _), true) => hash::of_client6(client),
            (Ends::V4(client, _), false) => hash::of_flow4(client, [a, b, c, d]),
            (Ends::V6(client, _), false) => hash::of_flow6(client, [a, b, c, d]),
        };
        plan.ring()[hash::position(hash, RING) as usize]
    }

    fn later(&mut self, plans: &[Plan], now: u64, sent: &Sent, id: u16, input: &Input) -> Expected {
        let key = (sent.ends.wide().0, protocol(sent.kind), id);
        let unknown = (Verdict::Drop, Outcome::FragmentUnknown, Some(input.bytes()));
        if self.datagram_times.get(&key).is_none_or(|seen| now - seen >= 30 * SECOND) {
            return unknown;
        }
        let Some((index, known)) = self.datagrams[&key] else {
            return (Verdict::Pass, Outcome::Passed, Some(input.bytes()));
        };
        let member = plans[index].backends[known.member];
        if !member.up || member.generation != known.generation {
            return unknown;
        }
        let way = Way { plan: &plans[index], member: known.member, outcome: Outcome::FragmentSteered };
        sent_on(&way, sent, input)
    }

    /// `about` is the VIP's packet.
    fn error(&mut self, plans: &[Plan], now: u64, about: &Sent, input: &Input) -> Expected {
        let passed = (Verdict::Pass, Outcome::Passed, Some(input.bytes()));
        let (vip_port, client_port) = about.ports;
        let clients = Sent { ends: about.ends.reversed(), ports: (client_port, vip_port), ..about.clone() };
        let protocol = protocol(about.kind);
        let Some(index) = service(plans, clients.ends, protocol, vip_port) else { return passed };
        let plan = &plans[index];
        if plan.mode == Mode::Local {
            return passed;
        }
        let flow = (index, protocol, clients.ends.wide().0, clients.ports);
        let member = match self.known(plan, now, &flow) {
            Some(known) => Some(known.member),
            None => self.pick(plan, index, now, &clients),
        };
        let Some(member) = member else { return passed };
        sent_on(&Way { plan, member, outcome: Outcome::ErrorSteered }, about, input)
    }
}

/// The frame as its backend gets it.
fn sent_on(way: &Way<'_>, sent: &Sent, input: &Input) -> Expected {
    let member = way.plan.backends[way.member];
    let frame = input.bytes();
    let network = 14 + 4 * sent.tags.len();
    match way.plan.mode {
        _ if member.local && way.plan.mode != Mode::Nat => (Verdict::Pass, way.outcome, Some(frame)),
        Mode::Direct => {
            (Verdict::Transmit, way.outcome, Some([&member.mac()[..], &OWN, &frame[12..]].concat()))
        }
        Mode::Tunnel => {
            assert_eq!(sent.ends.family(), Family::V6, "the plans have no other");
            let mut packet = frame[network..].to_vec();
            packet[7] -= 1;
            let [high, low] = u16::try_from(packet.len()).expect("short").to_be_bytes();
            let class = (packet[0] << 4) | (packet[1] >> 4);
            // The flow label is not the model's affair: it is that of the frame that came out.
            let start = [0x60 | (class >> 4), class << 4, 0, 0, high, low, 41, 64];
            let to = member.address(Family::V6);
            let front = [&member.mac()[..], &OWN, &frame[12..network]].concat();
            (
                Verdict::Transmit,
                way.outcome,
                Some([&front, &start[..], &TUNNEL_SOURCE, &to, &packet].concat()),
            )
        }
        Mode::Nat => (Verdict::Pass, way.outcome, Some(translated(way, sent, input))),
        Mode::Local => unreachable!("it is no way"),
    }
}

/// As if it had been sent to the local backend, or by it, in the first place.
fn translated(way: &Way<'_>, sent: &Sent, input: &Input) -> Vec<u8> {
    let address = way.plan.backends[way.member].address(Family::V4);
    let backend: [u8; 4] = address[..4].try_into().expect("4 bytes");
    let shift = |port: u16| port.wrapping_add(way.plan.ports.2);
    let Ends::V4(from, to) = sent.ends else { panic!("the plans have no other") };
    match input {
        Input::Error(_) => {
            let ports = (shift(sent.ports.0), sent.ports.1);
            Input::Error(Sent { ends: Ends::V4(backend, to), ports, ..sent.clone() }).bytes()
        }
        Input::Later(_, id) => {
            // Its first bytes are not ports: they stay, and so does what looks like a checksum.
            let after = Input::Later(Sent { ends: Ends::V4(from, backend), ..sent.clone() }, *id).bytes();
            [&after[..34], &input.bytes()[34..]].concat()
        }
        Input::First(_, id) => Input::First(to_backend(sent, backend, shift), *id).bytes(),
        Input::Whole(_) => to_backend(sent, backend, shift).bytes(),
    }
}

fn to_backend(sent: &Sent, backend: [u8; 4], shift: impl Fn(u16) -> u16) -> Sent {
    let Ends::V4(from, _) = sent.ends else { panic!("the plans have no other") };
    Sent { ends: Ends::V4(from, backend), ports: (sent.ports.0, shift(sent.ports.1)), ..sent.clone() }
}
