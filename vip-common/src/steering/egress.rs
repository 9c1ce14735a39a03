//! The way back of mode `nat` with local backends: what they send to a client of the VIP is the VIP's again when it leaves.
//!
//! [`translate`](super::steer::translate) notes each flow on its way in (`admit`); the TC egress program calls [`restore`] for all
//! that goes out.
//!
//! **By flows, not by a table of backends**: a backend's address and port do not say whom its packet is from. The same one may
//! serve several VIPs, and be asked directly, too: what belongs to no flow that came through a VIP leaves as it is.
//!
//! Two flows of one client port to two VIPs with the same backend are one flow to that backend, which nobody could tell apart on
//! the way back. The later one is refused until the former is over.

use bytemuck::{Pod, Zeroable};

use super::choose::Flags;
use super::fragments::fragment_key;
use super::nat::Endpoint;
use super::packet::{Fragment, Packet, Tuple, has_ports, icmp, protocol};
use super::reason::Outcome;
use super::steer::{Way, number};
use super::tables::{FRAGMENT_TIMEOUT, FlowState, FragmentKey, REFRESH, SteeringTables};
use crate::decision::Family;
use crate::packet::checksum::Delta;
use crate::packet::{Bytes, ethernet, ipv4, ipv6};

/// Flows of local backends. The least recently used go first.
pub const MAX_LOCAL_FLOWS: u32 = 131_072;
/// Datagrams of local backends that leave in fragments.
pub const MAX_LOCAL_FRAGMENTS: u32 = 8192;

/// Key of `LOCAL_FLOWS`: a flow as its backend knows it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct LocalFlowKey {
    /// The client's address; an IPv4 one stands in the first four bytes.
    pub client: [u8; 16],
    /// The backend's, likewise.
    pub backend: [u8; 16],
    /// Network order.
    pub client_port: [u8; 2],
    /// Network order.
    pub backend_port: [u8; 2],
    /// TCP, UDP or SCTP.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Value of `LOCAL_FLOWS` and `LOCAL_FRAGMENTS`: whom the client believes to talk to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct LocalFlow {
    /// CLOCK_MONOTONIC nanoseconds of about the last packet of either direction.
    pub seen: u64,
    /// The VIP; an IPv4 address stands in the first four bytes.
    pub vip: [u8; 16],
    /// Network order.
    pub vip_port: [u8; 2],
    /// A [`FlowState`] as a number.
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

impl LocalFlow {
    /// Whether it is to be forgotten.
    #[inline(always)]
    pub const fn is_over(&self, protocol: u8, now: u64) -> bool {
        now.saturating_sub(self.seen) >= FlowState::of(self.state).timeout(protocol)
    }

    #[inline(always)]
    const fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.vip, port: self.vip_port }
    }
}

/// What the way back looks up and notes: BPF maps in the kernel, plain collections in tests.
pub trait EgressTables {
    /// An entry of `LOCAL_FLOWS`.
    type Known: Copy;
    /// Looks for one.
    fn local_flow(&self, key: &LocalFlowKey) -> Option<Self::Known>;
    /// What it says.
    fn read(&self, known: Self::Known) -> LocalFlow;
    /// Writes [`LocalFlow::seen`] and [`LocalFlow::state`] into it.
    fn refresh(&self, known: Self::Known, seen: u64, state: u8);
    /// `LOCAL_FRAGMENTS`
    fn local_fragment(&self, key: &FragmentKey) -> Option<LocalFlow>;
    /// Notes in `LOCAL_FRAGMENTS`. May fail: later fragments leave as they are.
    fn note_local_fragment(&self, key: &FragmentKey, flow: &LocalFlow);
    /// CLOCK_MONOTONIC in nanoseconds, behind by up to a tick.
    fn now_coarse(&self) -> u64;
}

impl Way {
    /// The same, with the family that is known when this is compiled.
    #[inline(always)]
    #[must_use]
    pub fn of_family(self, family: Family) -> Self {
        Self { packet: Packet { family, ..self.packet }, ..self }
    }
}

/// The end of the backend that a packet to the VIP is to have; why it must be dropped if it cannot. Notes its flow. Every packet is
/// looked at, not only the first: an entry that was evicted, or a node that took over, is whole again with the next one.
#[inline(always)]
pub(super) fn admit<B: Bytes + ?Sized, T: SteeringTables>(
    frame: &B,
    way: &Way,
    address: &[u8; 16],
    tables: &T,
) -> Result<Endpoint, Outcome> {
    let end = |vip_port: [u8; 2]| {
        let port = u16::from_be_bytes(vip_port).wrapping_add(way.shift).to_be_bytes();
        Endpoint { address: *address, port }
    };
    if let Some(quoted) = &way.quoted {
        return quoted.tuple(frame).map(|tuple| end(tuple.client_port)).ok_or(Outcome::Closed);
    }
    if matches!(way.packet.fragment, Fragment::Later(_)) {
        return Ok(end([0; 2]));
    }
    let tuple = way.packet.tuple(frame).ok_or(Outcome::Closed)?;
    let backend = end(tuple.vip_port);
    note(frame, way, &tuple, &backend, tables)?;
    Ok(backend)
}

#[inline(always)]
fn note<B: Bytes + ?Sized, T: SteeringTables>(
    frame: &B,
    way: &Way,
    tuple: &Tuple,
    backend: &Endpoint,
    tables: &T,
) -> Result<(), Outcome> {
    let Tuple { protocol, vip, vip_port, .. } = *tuple;
    let as_backend = Tuple { vip: backend.address, vip_port: backend.port, ..*tuple };
    let key = key_of(&as_backend, way.packet.family);
    let (flags, now) = (Flags::read(frame, &way.packet), tables.now_coarse());
    let ours = |known: &LocalFlow| known.vip == vip && known.vip_port == vip_port;
    let state = match tables.local_flow(&key).filter(|known| !known.is_over(protocol, now)) {
        Some(known) if ours(&known) && flags.opens => FlowState::Opening,
        Some(known) if ours(&known) => {
            let state = flags.after(FlowState::of(known.state));
            if state as u8 == known.state && now.saturating_sub(known.seen) < REFRESH {
                return Ok(());
            }
            state
        }
        Some(known) if FlowState::of(known.state) != FlowState::Closing => return Err(Outcome::NoPort),
        // Without an entry the client would not know the answer for one.
        _ if matches!(way.outcome, Outcome::Unnoted) => return Err(Outcome::Unmapped),
        _ if flags.resets => return Ok(()),
        _ if flags.opens || protocol != protocol::TCP => FlowState::Opening,
        _ => flags.after(FlowState::Opening),
    };
    let flow = LocalFlow { seen: now, vip, vip_port, state: state as u8, reserved: [0; 5] };
    tables.note_local_flow(&key, &flow);
    Ok(())
}

/// What became of a frame that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It belongs to no flow of a VIP, and is as it was.
    AsItWas,
    /// It is the VIP's.
    Restored,
    /// It ended in the middle of what was to be changed, and must be dropped.
    Broken,
}

/// Makes a frame that leaves the VIP's, if it is: a backend's answer, or an ICMP error about a packet to a backend, of whoever.
#[inline(always)]
pub fn restore<L: Leaving + ?Sized, T: EgressTables>(frame: &mut L, tables: &T) -> Left {
    match ethernet::Header::read(frame) {
        Some(header) if header.ethertype == ethernet::IPV4 => {
            restore_packet(frame, Family::V4, header.payload, tables)
        }
        Some(header) if header.ethertype == ethernet::IPV6 => {
            restore_packet(frame, Family::V6, header.payload, tables)
        }
        _ => Left::AsItWas,
    }
}

/// [`restore`] of a packet at `network`, whose family is known when this is compiled.
#[inline(always)]
pub fn restore_packet<L: Leaving + ?Sized, T: EgressTables>(
    frame: &mut L,
    family: Family,
    network: usize,
    tables: &T,
) -> Left {
    let done = match Packet::read(frame, family, network) {
        None => return Left::AsItWas,
        Some(packet) => {
            let packet = Packet { family, ..packet };
            match packet.fragment {
                Fragment::Later(id) => later(frame, &packet, id, tables),
                _ if has_ports(packet.protocol) => answer(frame, &packet, tables),
                _ => complaint(frame, &packet, tables),
            }
        }
    };
    match done {
        None => Left::AsItWas,
        Some(Some(())) => Left::Restored,
        Some(None) => Left::Broken,
    }
}

/// Of a tuple from the client to the backend.
#[inline(always)]
const fn key_of(tuple: &Tuple, family: Family) -> LocalFlowKey {
    LocalFlowKey {
        client: tuple.client,
        backend: tuple.vip,
        client_port: tuple.client_port,
        backend_port: tuple.vip_port,
        protocol: tuple.protocol,
        family: number(family),
        reserved: [0; 2],
    }
}

/// `None`: it is no answer; `Some(None)`: it is broken.
#[inline(always)]
fn answer<L: Leaving + ?Sized, T: EgressTables>(
    frame: &mut L,
    packet: &Packet,
    tables: &T,
) -> Option<Option<()>> {
    let known = tables.local_flow(&key_of(&packet.tuple(frame)?.reversed(), packet.family))?;
    let flow = tables.read(known);
    let now = tables.now_coarse();
    if flow.is_over(packet.protocol, now) {
        return None;
    }
    let closes = Flags::read(frame, packet).closes;
    let state = if closes { FlowState::Closing as u8 } else { flow.state };
    // What the backend says keeps the flow, too (RFC 4787, REQ-6).
    if state != flow.state || now.saturating_sub(flow.seen) >= REFRESH {
        tables.refresh(known, now, state);
    }
    if let Fragment::First(id) = packet.fragment {
        tables.note_local_fragment(&fragment_key(frame, packet, id)?, &LocalFlow { seen: now, ..flow });
    }
    Some(put_back_packet(frame, packet, &flow.endpoint()))
}

#[inline(always)]
fn later<L: Leaving + ?Sized, T: EgressTables>(
    frame: &mut L,
    packet: &Packet,
    id: u32,
    tables: &T,
) -> Option<Option<()>> {
    let first = tables.local_fragment(&fragment_key(frame, packet, id)?)?;
    if tables.now_coarse().saturating_sub(first.seen) >= FRAGMENT_TIMEOUT {
        return None;
    }
    Some(move_source(frame, packet, &first.endpoint()).map(drop))
}

/// An ICMP error to the client, of the backend or of somebody on the way to it. It keeps no flow alive.
#[inline(always)]
fn complaint<L: Leaving + ?Sized, T: EgressTables>(
    frame: &mut L,
    packet: &Packet,
    tables: &T,
) -> Option<Option<()>> {
    let quoted = packet.quoted(frame)?;
    let quoted = Packet { family: packet.family, ..quoted };
    let tuple = quoted.tuple(frame)?;
    if packet.addresses(frame)?.1 != tuple.client {
        return None;
    }
    let flow = tables.read(tables.local_flow(&key_of(&tuple, packet.family))?);
    if flow.is_over(quoted.protocol, tables.now_coarse()) {
        return None;
    }
    Some(put_back_error(frame, packet, &quoted, &flow.endpoint()))
}

/// What of a packet a transport checksum's change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covered {
    /// The pseudo-header: the addresses, which the sum that a device is to complete holds already.
    Addresses,
    /// The data, which a device has yet to sum up.
    Data,
}

/// A packet that leaves. Its checksums may be partial, left to the device, which the kernel alone knows: so they are changed by its
/// helpers, never by hand.
pub trait Leaving: Bytes {
    /// Writes bytes, and no checksum.
    #[must_use]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()>;
    /// Changes the checksum of the IPv4 header, at `at` (bpf_l3_csum_replace).
    #[must_use]
    fn adjust_header(&mut self, at: usize, delta: Delta) -> Option<()>;
    /// Changes a transport checksum, at `at` (bpf_l4_csum_replace). `udp`: zero stays, and nothing becomes zero.
    #[must_use]
    fn adjust_transport(&mut self, at: usize, delta: Delta, covered: Covered, udp: bool) -> Option<()>;
}

#[inline(always)]
fn put_back_packet<L: Leaving + ?Sized>(frame: &mut L, packet: &Packet, vip: &Endpoint) -> Option<()> {
    let addresses = move_source(frame, packet, vip)?;
    let (at, udp) = match packet.protocol {
        protocol::TCP => (packet.transport + 16, false),
        protocol::UDP => (packet.transport + 6, true),
        // SCTP has the VIP's port already, and no sum over addresses.
        _ => return Some(()),
    };
    let port: [u8; 2] = packet.load(frame, 0)?;
    frame.store(packet.transport, vip.port)?;
    frame.adjust_transport(at, addresses, Covered::Addresses, udp)?;
    frame.adjust_transport(at, Delta::new().word(port, vip.port), Covered::Data, udp)
}

#[inline(always)]
fn put_back_error<L: Leaving + ?Sized>(
    frame: &mut L,
    packet: &Packet,
    quoted: &Packet,
    vip: &Endpoint,
) -> Option<()> {
    let addresses = move_source(frame, packet, vip)?;
    let checksum = packet.transport + icmp::CHECKSUM;
    if packet.protocol == protocol::ICMPV6 {
        frame.adjust_transport(checksum, addresses, Covered::Addresses, false)?;
    }
    let at = match quoted.family {
        Family::V4 => quoted.network + ipv4::DESTINATION,
        Family::V6 => quoted.network + ipv6::DESTINATION,
    };
    let inner = move_address(frame, quoted.family, at, &vip.address)?;
    let mut data = inner;
    if quoted.family == Family::V4 {
        let at = quoted.network + ipv4::CHECKSUM;
        let before: [u8; 2] = frame.load(at)?;
        let after = inner.apply(before);
        frame.store(at, after)?;
        data = data.word(before, after);
    }
    if quoted.protocol != protocol::SCTP {
        let port: [u8; 2] = quoted.load(frame, 2)?;
        frame.store(quoted.transport + 2, vip.port)?;
        let port = Delta::new().word(port, vip.port);
        data = data.and(port);
        // Quotes have UDP's checksum, and seldom TCP's.
        let at = if quoted.protocol == protocol::TCP { 16 } else { 6 };
        if let Some(before) = quoted.load(frame, at) {
            let change = inner.and(port);
            let udp = quoted.protocol == protocol::UDP;
            let after = if udp { change.apply_udp(before) } else { change.apply(before) };
            frame.store(quoted.transport + at, after)?;
            data = data.word(before, after);
        }
    }
    frame.adjust_transport(checksum, data, Covered::Data, false)
}

#[inline(always)]
fn move_source<L: Leaving + ?Sized>(frame: &mut L, packet: &Packet, vip: &Endpoint) -> Option<Delta> {
    match packet.family {
        Family::V4 => {
            let delta = move_address(frame, Family::V4, packet.network + ipv4::SOURCE, &vip.address)?;
            frame.adjust_header(packet.network + ipv4::CHECKSUM, delta)?;
            Some(delta)
        }
        Family::V6 => move_address(frame, Family::V6, packet.network + ipv6::SOURCE, &vip.address),
    }
}

#[inline(always)]
fn move_address<L: Leaving + ?Sized>(
    frame: &mut L,
    family: Family,
    at: usize,
    to: &[u8; 16],
) -> Option<Delta> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *to;
    match family {
        Family::V4 => {
            let from = frame.load(at)?;
            frame.store(at, [a, b, c, d])?;
            Some(Delta::new().four(from, [a, b, c, d]))
        }
        Family::V6 => {
            let (high, low) = ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]);
            let (old_high, old_low) = (frame.load(at)?, frame.load(at + 8)?);
            frame.store(at, *to)?;
            Some(Delta::new().eight(old_high, high).eight(old_low, low))
        }
    }
}

const _: () = {
    assert!(size_of::<LocalFlowKey>() == 40);
    assert!(size_of::<LocalFlow>() == 32);
};
