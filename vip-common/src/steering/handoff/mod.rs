//! What the programs of steering hand to each other: which there are, and what stands in `SCRATCH` meanwhile.
//!
//! Each step is a program of its own, reached by a tail call: the verifier judges it alone, it has a stack of its own, and what
//! one mode needs costs the packets of no other. Nothing comes back from a tail call, so whoever calls has counted before.

mod step;

use bytemuck::{Pod, Zeroable};

pub use self::step::{Step, Task};
use super::answer::Error;
use super::link::Hop;
use super::packet::{Fragment, Packet};
use super::reason::Outcome;
use super::steer::{Action, Answer, Arrived, FullNat, Next, Way};
use super::tables::{Closed, MAX_SERVICES, Mode, ServicePort};
use crate::decision::Family;
use crate::packet::ethernet::{self, Mac};

/// Value of `SCRATCH`, one for each CPU: what one program knows and the next one needs. Valid during one packet only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Handoff {
    /// CLOCK_MONOTONIC nanoseconds, behind by up to a tick.
    pub now: u64,
    /// [`Mac::number`]: bytes would be written and read one by one.
    own: u64,
    hop_own: u64,
    hop_next: u64,
    ifindex: u32,
    network: u32,
    slot: u32,
    outcome: u32,
    served: u32,
    service: u16,
    shift: u16,
    mtu: u16,
    echo: u8,
    closed: u8,
    handed_over: u8,
    answer: u8,
    full_nat: u8,
    reserved: u8,
    packet: Place,
    quoted: Place,
}

/// A [`Packet`] in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
struct Place {
    /// [`behind_ethernet`]
    network: u32,
    transport: u32,
    end: u32,
    id: u32,
    protocol: u8,
    /// 4 or 6; 0 = no packet.
    family: u8,
    /// 0 = whole, 1 = first, 2 = later.
    part: u8,
    reserved: u8,
}

/// Bits of where a packet begins behind an Ethernet header without tags: at most two tags later.
const NETWORK_BITS: usize = 15;
/// Bits of an offset behind it: no header begins later, not even a quoted one behind all its extensions.
const OFFSET_BITS: usize = 2047;

impl Place {
    #[inline(always)]
    const fn of(packet: &Packet) -> Self {
        let (part, id) = match packet.fragment {
            Fragment::Whole => (0, 0),
            Fragment::First(id) => (1, id),
            Fragment::Later(id) => (2, id),
        };
        Self {
            network: behind_ethernet(packet.network),
            transport: packet.transport as u32,
            end: packet.end as u32,
            id,
            protocol: packet.protocol,
            family: number(packet.family),
            part,
            reserved: 0,
        }
    }

    /// `None` if there is none.
    #[inline(always)]
    fn packet(&self, network_bits: usize) -> Option<Packet> {
        let Self { end, protocol, .. } = *self;
        // Read whatever the part is: where only some arms had it, LLVM would leave a register unset that it saves in all of them.
        let id = core::hint::black_box(self.id);
        let network = offset(self.network, network_bits);
        let transport = self.transport as usize & OFFSET_BITS;
        let fragment = match self.part {
            0 => Fragment::Whole,
            1 => Fragment::First(id),
            _ => Fragment::Later(id),
        };
        let family = family(self.family)?;
        Some(Packet { family, network, transport, protocol, end: end as usize, fragment })
    }
}

#[inline(always)]
const fn behind_ethernet(network: usize) -> u32 {
    network.wrapping_sub(ethernet::HEADER) as u32
}

/// What [`behind_ethernet`] took down. The bits are the verifier's, which believes nothing that stands in memory. A comparison
/// would not do: LLVM may load or save the number in front of it and use it behind, and up to Linux 6.7 the verifier does not know
/// that those two are one.
#[inline(always)]
const fn offset(taken_down: u32, bits: usize) -> usize {
    ethernet::HEADER + (taken_down as usize & bits)
}

#[inline(always)]
const fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

#[inline(always)]
const fn family(number: u8) -> Option<Family> {
    match number {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ => None,
    }
}

impl Handoff {
    /// Takes down what steering must know.
    #[inline(always)]
    pub fn arrive(&mut self, arrived: &Arrived, now: u64) {
        self.now = now;
        self.ifindex = arrived.ifindex;
        self.network = behind_ethernet(arrived.network);
        self.own = arrived.own.number();
        self.echo = arrived.echo.into();
        self.closed = arrived.closed as u8;
        self.handed_over = arrived.handed_over.into();
        self.full_nat = arrived.full_nat as u8;
    }

    /// What [`Self::arrive`] took down.
    #[inline(always)]
    pub fn arrived(&self, family: Family) -> Arrived {
        Arrived {
            family,
            network: offset(self.network, NETWORK_BITS),
            ifindex: self.ifindex,
            own: Mac::of_number(self.own),
            echo: self.echo != 0,
            closed: Closed::of(self.closed),
            handed_over: self.handed_over != 0,
            full_nat: FullNat::of(self.full_nat),
        }
    }

    /// Takes down what was decided, and says what is to be done.
    #[inline(always)]
    pub fn leave(&mut self, next: &Next) -> Task {
        match next {
            Next::Done(steered) => {
                self.outcome = steered.outcome as u32;
                self.slot = steered.backend;
                self.served = match steered.service {
                    Some(service) => service.into(),
                    None => MAX_SERVICES,
                };
                match &steered.action {
                    Action::Pass => Task::Pass,
                    Action::Direct(hop) => {
                        (self.hop_own, self.hop_next) = (hop.own.number(), hop.next.number());
                        Task::Direct
                    }
                    Action::Answer(packet, answer, own) => {
                        self.tell(packet, *answer, *own);
                        Task::Answer
                    }
                    // Those who rewrite do so where they decide it.
                    Action::Drop
                    | Action::Encapsulate { .. }
                    | Action::Translate(..)
                    | Action::Exchange(..) => Task::Drop,
                }
            }
            Next::Fragment(packet) => {
                self.packet = Place::of(packet);
                Task::Fragment
            }
            Next::Icmp(packet) => {
                self.packet = Place::of(packet);
                Task::Icmp
            }
            Next::Error(packet, quoted) => {
                (self.packet, self.quoted) = (Place::of(packet), Place::of(quoted));
                Task::Error
            }
            Next::Outward(packet, port) => {
                self.ask(packet, *port);
                Task::Outward
            }
            Next::Fresh(packet, port) => {
                self.ask(packet, *port);
                Task::Fresh
            }
            Next::Begin(way) => {
                self.send(way);
                Task::Begin
            }
            Next::Begun(way) => {
                self.send(way);
                Task::Begun
            }
            Next::Inward(packet) => {
                self.packet = Place::of(packet);
                Task::Inward
            }
            Next::ErrorOutward(packet, quoted, port) => {
                self.ask(packet, *port);
                self.quoted = Place::of(quoted);
                Task::ErrorOutward
            }
            Next::ErrorInward(packet, quoted) => {
                (self.packet, self.quoted) = (Place::of(packet), Place::of(quoted));
                Task::ErrorInward
            }
            Next::Again(left) => {
                self.full_nat = *left as u8;
                Task::Again
            }
            Next::Send(way, mode) => {
                self.send(way);
                match mode {
                    Mode::Local => Task::Pass,
                    Mode::Direct => Task::Send,
                    Mode::Nat => Task::Translate,
                    Mode::Tunnel => Task::Tunnel,
                }
            }
        }
    }

    #[inline(always)]
    fn ask(&mut self, packet: &Packet, port: ServicePort) {
        self.packet = Place::of(packet);
        (self.service, self.shift) = (port.service, port.shift);
    }

    /// The service that full NAT is asked for.
    #[inline(always)]
    pub const fn service_port(&self) -> ServicePort {
        ServicePort { service: self.service, shift: self.shift }
    }

    /// Whose packet it was, for the counters: the service ([`MAX_SERVICES`]: nobody's), the backend (0 = none), and the outcome
    /// as a number.
    #[inline(always)]
    pub const fn counted(&self) -> (u32, u32, u32) {
        (self.served, self.slot, self.outcome)
    }

    /// The way of [`Task::Direct`].
    #[inline(always)]
    pub const fn hop(&self) -> Hop {
        Hop { own: Mac::of_number(self.hop_own), next: Mac::of_number(self.hop_next) }
    }

    /// What the packet of [`Task::Error`] quotes.
    #[inline(always)]
    pub fn quoted(&self) -> Option<Packet> {
        self.quoted.packet(OFFSET_BITS)
    }

    /// The packet that was taken down.
    #[inline(always)]
    pub fn packet(&self) -> Option<Packet> {
        self.packet.packet(NETWORK_BITS)
    }

    #[inline(always)]
    fn send(&mut self, way: &Way) {
        self.packet = Place::of(&way.packet);
        match &way.quoted {
            Some(quoted) => self.quoted = Place::of(quoted),
            None => self.quoted.family = 0,
        }
        (self.service, self.shift, self.slot) = (way.service, way.shift, way.slot);
        self.outcome = way.outcome as u32;
    }

    /// The way of [`Task::Tunnel`] and its like.
    #[inline(always)]
    pub fn way(&self) -> Option<Way> {
        if self.quotes() { self.way_of_error() } else { self.way_of_packet() }
    }

    /// Whether it is an ICMP error's.
    #[inline(always)]
    pub const fn quotes(&self) -> bool {
        self.quoted.family != 0
    }

    /// Whether the packet that was taken down is one of IPv4.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.packet.family == 4
    }

    /// The way of an ICMP error.
    #[inline(always)]
    pub fn way_of_error(&self) -> Option<Way> {
        Some(Way { quoted: Some(self.quoted()?), ..self.way_of_packet()? })
    }

    /// The way of any other packet.
    #[inline(always)]
    pub fn way_of_packet(&self) -> Option<Way> {
        let Self { service, shift, slot, .. } = *self;
        let outcome = Outcome::of(self.outcome)?;
        Some(Way { packet: self.packet()?, quoted: None, service, shift, slot, outcome })
    }

    #[inline(always)]
    fn tell(&mut self, packet: &Packet, answer: Answer, own: Mac) {
        self.packet = Place::of(packet);
        (self.answer, self.mtu) = code(answer);
        self.own = own.number();
    }

    /// The answer of [`Task::Answer`].
    #[inline(always)]
    pub fn answer(&self) -> Option<Action> {
        Some(Action::Answer(self.packet()?, answer(self.answer, self.mtu)?, Mac::of_number(self.own)))
    }
}

#[inline(always)]
const fn code(answer: Answer) -> (u8, u16) {
    match answer {
        Answer::Echo => (0, 0),
        Answer::Reset => (1, 0),
        Answer::Error(Error::PortUnreachable) => (2, 0),
        Answer::Error(Error::Prohibited) => (3, 0),
        Answer::Error(Error::TooBig(mtu)) => (4, mtu),
        Answer::Error(Error::TimeExceeded) => (5, 0),
    }
}

#[inline(always)]
const fn answer(code: u8, mtu: u16) -> Option<Answer> {
    Some(match code {
        0 => Answer::Echo,
        1 => Answer::Reset,
        2 => Answer::Error(Error::PortUnreachable),
        3 => Answer::Error(Error::Prohibited),
        4 => Answer::Error(Error::TooBig(mtu)),
        5 => Answer::Error(Error::TimeExceeded),
        _ => return None,
    })
}

const _: () = assert!(size_of::<Handoff>() == 104);

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Packet = Packet {
        family: Family::V6,
        network: 22,
        transport: 830,
        protocol: 17,
        end: 65_597,
        fragment: Fragment::First(0xdead_beef),
    };

    #[test]
    fn what_is_taken_down_is_what_the_next_one_reads() {
        let mut handoff = Handoff::zeroed();
        let arrived = Arrived {
            family: Family::V6,
            network: 18,
            ifindex: 7,
            own: Mac::new([2, 0, 0, 0, 0, 1]),
            echo: true,
            closed: Closed::Reject,
            handed_over: true,
            full_nat: FullNat::All,
        };
        handoff.arrive(&arrived, 77);
        assert_eq!((handoff.arrived(Family::V6), handoff.now), (arrived, 77));
        let quoted = Packet { network: 900, transport: 1646, fragment: Fragment::Later(3), ..PACKET };
        for quoted in [Some(quoted), None] {
            let outcome = Outcome::ErrorSteered;
            let way = Way { packet: PACKET, quoted, service: 4095, shift: 65_535, slot: 32_767, outcome };
            handoff.send(&way);
            assert_eq!(handoff.way(), Some(way));
        }
        for told in [
            Answer::Echo,
            Answer::Reset,
            Answer::Error(Error::PortUnreachable),
            Answer::Error(Error::Prohibited),
            Answer::Error(Error::TooBig(1360)),
            Answer::Error(Error::TimeExceeded),
        ] {
            handoff.tell(&PACKET, told, arrived.own);
            assert_eq!(handoff.answer(), Some(Action::Answer(PACKET, told, arrived.own)));
        }
    }

    #[test]
    fn what_full_nat_is_asked_is_what_it_reads() {
        let (mut handoff, port) = (Handoff::zeroed(), ServicePort { service: 4095, shift: 65_535 });
        let quoted = Packet { network: 900, transport: 1646, fragment: Fragment::Whole, ..PACKET };
        for (next, task) in [
            (Next::Outward(PACKET, port), Task::Outward),
            (Next::Fresh(PACKET, port), Task::Fresh),
            (Next::ErrorOutward(PACKET, quoted, port), Task::ErrorOutward),
        ] {
            assert_eq!(handoff.leave(&next), task);
            assert_eq!((handoff.packet(), handoff.service_port()), (Some(PACKET), port));
        }
        assert_eq!(handoff.quoted(), Some(quoted));
        assert_eq!(handoff.leave(&Next::Again(FullNat::Clients)), Task::Again);
        assert_eq!(handoff.arrived(Family::V4).full_nat, FullNat::Clients);
    }

    #[test]
    fn no_offset_is_read_that_no_packet_has() {
        let mut handoff = Handoff::zeroed();
        let far = Packet { network: usize::MAX, transport: usize::MAX, ..PACKET };
        handoff.leave(&Next::Icmp(far));
        let read = handoff.packet().expect("a packet");
        assert!(read.network <= ethernet::HEADER + NETWORK_BITS && read.transport <= OFFSET_BITS);
    }
}
