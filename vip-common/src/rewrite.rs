//! Carries out a decision on the frame's bytes.

use crate::decision::{Action, ArpAnswer, Audience, Forward, NeighborAnswer};
use crate::packet::ethernet::{self, Mac};
use crate::packet::icmpv6::{self, Advertisement, flags};
use crate::packet::ipv6::Address;
use crate::packet::{BytesMut, arp, ipv6};

/// What the program returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// XDP_PASS
    Pass,
    /// XDP_DROP
    Drop,
    /// XDP_TX
    Transmit,
}

/// Rewrites the frame as the action says; `None` if it cannot grow: what is left must be dropped.
#[inline(always)]
pub fn apply<B: BytesMut + ?Sized>(frame: &mut B, action: &Action) -> Option<Verdict> {
    match action {
        // Steering is another program's: what it leaves goes up the stack.
        Action::Pass | Action::PassNewFlow(_) | Action::Steer(_) => return Some(Verdict::Pass),
        Action::Drop => return Some(Verdict::Drop),
        Action::AnswerArp(answer) => arp_reply(frame, answer)?,
        Action::AnswerNeighbor(answer) => advertisement(frame, answer)?,
        Action::Forward(Forward { own, former }) => {
            former.store(frame, ethernet::DESTINATION)?;
            own.store(frame, ethernet::SOURCE)?;
        }
    }
    Some(Verdict::Transmit)
}

/// Sends the frame to the interface instead of the virtual MAC that it came to; `None` if it is no frame.
#[inline(always)]
#[must_use]
pub fn deliver<B: BytesMut + ?Sized>(frame: &mut B, interface: Mac) -> Option<()> {
    interface.store(frame, ethernet::DESTINATION)
}

/// A reply in the place of the request; tags, padding and all else stay.
#[inline(always)]
fn arp_reply<B: BytesMut + ?Sized>(frame: &mut B, answer: &ArpAnswer) -> Option<()> {
    let ArpAnswer { at, own } = *answer;
    let asker = Mac::load(frame, at + arp::SENDER_MAC)?;
    let asker_address: [u8; 4] = frame.load(at + arp::SENDER)?;
    let vip: [u8; 4] = frame.load(at + arp::TARGET)?;
    asker.store(frame, ethernet::DESTINATION)?;
    own.store(frame, ethernet::SOURCE)?;
    frame.store(at + arp::OPERATION, arp::REPLY.to_be_bytes())?;
    own.store(frame, at + arp::SENDER_MAC)?;
    frame.store(at + arp::SENDER, vip)?;
    asker.store(frame, at + arp::TARGET_MAC)?;
    frame.store(at + arp::TARGET, asker_address)
}

/// An advertisement in the place of the solicitation, with its one option: the frame becomes exactly as long.
#[inline(always)]
fn advertisement<B: BytesMut + ?Sized>(frame: &mut B, answer: &NeighborAnswer) -> Option<()> {
    let NeighborAnswer { at, own, router, audience } = *answer;
    let message = at + ipv6::HEADER;
    frame.resize(message + Advertisement::LENGTH)?;
    let (to, destination, solicited) = match audience {
        Audience::Asker(mac) => (mac, ipv6::source(frame, at)?, flags::SOLICITED),
        Audience::AllNodes => (Address::ALL_NODES.group_mac(), Address::ALL_NODES, 0),
    };
    let flags = router | solicited | flags::OVERRIDE;
    let target = icmpv6::target(frame, at)?;
    let advertisement = Advertisement { target, mac: own, destination, flags };
    to.store(frame, ethernet::DESTINATION)?;
    own.store(frame, ethernet::SOURCE)?;
    frame.store(at, Advertisement::IPV6_START)?;
    target.store(frame, at + ipv6::SOURCE)?;
    destination.store(frame, at + ipv6::DESTINATION)?;
    frame.store(message, advertisement.start())?;
    frame.store(message + icmpv6::OPTIONS, advertisement.option())
}
