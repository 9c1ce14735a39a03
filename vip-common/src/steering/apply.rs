//! Carries out what steering decided, on the frame's bytes.

use super::answer;
use super::nat::{Endpoint, Hops, Translation, decrement_hops, translate, translate_error};
use super::packet::Packet;
use super::steer::{Action, Answer};
use super::tunnel::encapsulate;
use crate::packet::Headroom;
use crate::rewrite::Verdict;

/// Rewrites the frame as the action says; `None` if there is no room, or the packet ends too early, or must have no answer:
/// what is left must be dropped.
#[inline(always)]
pub fn apply<B: Headroom + ?Sized>(frame: &mut B, action: &Action) -> Option<Verdict> {
    match action {
        Action::Pass => return Some(Verdict::Pass),
        Action::Drop => return Some(Verdict::Drop),
        Action::Direct(hop) => hop.write(frame)?,
        Action::Encapsulate { packet, tunnel, hash, hop } => {
            if decrement_hops(frame, packet)? == Hops::Expired {
                return None;
            }
            encapsulate(frame, packet, tunnel, *hash, *hop)?;
        }
        Action::Translate(packet, None, to) => {
            translate(frame, packet, to)?;
            return Some(Verdict::Pass);
        }
        Action::Translate(packet, Some(quoted), to) => {
            let outer = Translation { source: None, destination: to.destination.map(without_port) };
            translate_error(frame, packet, quoted, &outer, &to.swapped())?;
            return Some(Verdict::Pass);
        }
        Action::Exchange(packet, quoted, to, hop) => {
            if decrement_hops(frame, packet)? == Hops::Expired {
                return None;
            }
            match quoted {
                None => translate(frame, packet, to)?,
                // Whom the error is from is hidden, too: to its receiver the other end is all there is.
                Some(quoted) => translate_error(frame, packet, quoted, to, &to.swapped())?,
            }
            hop.write(frame)?;
        }
        Action::Answer(packet, answer, own) => tell(frame, packet, *answer, *own)?,
    }
    Some(Verdict::Transmit)
}

/// An ICMP message has no ports.
#[inline(always)]
const fn without_port(endpoint: Endpoint) -> Endpoint {
    Endpoint { port: [0; 2], ..endpoint }
}

#[inline(always)]
fn tell<B: Headroom + ?Sized>(
    frame: &mut B,
    packet: &Packet,
    answer: Answer,
    own: crate::packet::ethernet::Mac,
) -> Option<()> {
    match answer {
        Answer::Echo => answer::echo(frame, packet, own),
        Answer::Reset => answer::reset(frame, packet, own),
        Answer::Error(error) => answer::error(frame, packet, error, own),
    }
}
