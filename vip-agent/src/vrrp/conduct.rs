//! The rules of whoever drives a machine: in which order a wake-up is spent, how actions are carried out, and what renews
//! a lease.
//!
//! Apart from sockets, clock and words, so that the driver thread and simulated networks keep to the very same ones.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use super::machine::{Action, Event, LEASE_INTERVALS, Machine, Output, Transition};
use crate::types::MonotonicTime;

/// Frames read from one socket per wake-up. More than a default receive buffer (212 992 bytes) holds of frames this
/// small, so that all that was waiting is read before a timer is acted on; and a bound, so that a flood cannot keep the
/// timers waiting.
pub const FRAMES_PER_WAKE: usize = 512;

/// What one wake-up is spent on.
pub trait Turn {
    /// What the runtime asked for.
    fn take_commands(&mut self);
    /// What waits in the sockets, [`FRAMES_PER_WAKE`] from each at most.
    fn drain_sockets(&mut self);
    /// Whatever is due.
    fn act_on_timers(&mut self);
}

/// Spends one wake-up.
pub fn turn(work: &mut impl Turn) {
    work.take_commands();
    // Before any timer: an advertisement that waits in a queue may be the reason not to act on it.
    work.drain_sockets();
    work.act_on_timers();
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Our advertisement, which renews the lease.
    Advert,
    /// Our advertisement, which renews nothing.
    Yielding,
    /// Priority 0.
    Leaving,
    /// As [`Action::Ask`].
    Question,
}

/// What actions act upon: sockets and ownership word in production.
pub trait Effects {
    /// Why a message did not leave.
    type Refusal;

    /// The machine whose actions these are.
    fn machine(&mut self) -> &mut Machine;
    /// What follows is what an event of the time `at` led to.
    fn begins(&mut self, _output: &Output, _at: MonotonicTime) {}
    /// Reads the clock.
    fn now(&self) -> MonotonicTime;
    /// How many families a message is sent in: 1 or 2.
    ///
    /// # Errors
    /// There is nothing to send with.
    fn families(&self) -> Result<usize, Self::Refusal>;
    /// Which family refused last, by index.
    fn refused_family(&mut self) -> &mut usize;
    /// Sends in one family.
    ///
    /// # Errors
    /// It was refused (EPERM, ENETDOWN, ENOBUFS, ...).
    fn send(&mut self, message: Message, family: usize) -> Result<(), Self::Refusal>;
    /// The refusal of what is not sent because it is too late for it.
    fn too_late() -> Self::Refusal;
    /// The lease was renewed: the ownership word becomes this time.
    fn renew(&mut self, until: MonotonicTime);
    /// The handover begins: the ownership word becomes this time.
    fn hold(&mut self, until: MonotonicTime);
    /// The ownership word becomes this time unless it is earlier.
    fn cap(&mut self, until: MonotonicTime);
    /// The ownership word is cleared.
    fn release(&mut self);
    /// To be counted and told.
    fn refused(&mut self, refusal: Self::Refusal);
    /// What is carried out from here on was decided at this time, because of a refusal.
    fn decided_anew(&mut self, _at: MonotonicTime) {}
    /// As [`Action::ForwardToFormer`].
    fn forward_to_former(&mut self);
    /// As [`Action::ForwardNothing`].
    fn forward_nothing(&mut self);
    /// As [`Action::Announce`], as long as the word lies in the future; `at_takeover`: the former owner may not have heard
    /// of it yet, and would be taken for a rival.
    fn announce(&mut self, at_takeover: bool);
    /// As [`Action::Stage`].
    fn stage(&mut self);
    /// As [`Action::Unstage`].
    fn unstage(&mut self);
    /// As [`Action::UnstageAfterGrace`].
    fn unstage_after_grace(&mut self);
    /// To be told when all is done.
    fn moved(&mut self, transition: Transition);
}

/// What an event led to, as far as it is not carried out yet: it waits for our advertisement to be sent.
#[derive(Debug)]
pub struct Work<R> {
    actions: arrayvec::IntoIter<Action, 8>,
    transition: Option<Transition>,
    decided: MonotonicTime,
    leaving: Result<(), R>,
}

impl<R> Work<R> {
    /// The time of the event.
    pub fn decided(&self) -> MonotonicTime {
        self.decided
    }
}

/// Carries out what an event of the time `at` led to.
pub fn carry_out<E: Effects>(effects: &mut E, output: Output, at: MonotonicTime) {
    let work = begin(effects, output, at);
    send_and_go_on(effects, work);
}

/// Begins to carry out what an event of the time `at` led to, and comes back when our advertisement is to be sent: with
/// those of other routers, perhaps. [`sent`] goes on from there.
pub fn begin<E: Effects>(effects: &mut E, output: Output, at: MonotonicTime) -> Option<Work<E::Refusal>> {
    effects.begins(&output, at);
    let Output { actions, transition } = output;
    proceed(effects, Work { actions: actions.into_iter(), transition, decided: at, leaving: Ok(()) })
}

/// What became of our advertisement. Only if it was accepted in all families the lease runs on: losing in one loses both.
pub fn sent<E: Effects>(effects: &mut E, work: Work<E::Refusal>, accepted: Result<(), E::Refusal>) {
    let work = go_on(effects, work, accepted);
    send_and_go_on(effects, work);
}

fn send_and_go_on<E: Effects>(effects: &mut E, mut work: Option<Work<E::Refusal>>) {
    while let Some(waiting) = work {
        let accepted = send(effects, Message::Advert, waiting.decided);
        work = go_on(effects, waiting, accepted);
    }
}

fn go_on<E: Effects>(
    effects: &mut E,
    work: Work<E::Refusal>,
    accepted: Result<(), E::Refusal>,
) -> Option<Work<E::Refusal>> {
    match accepted {
        Ok(()) => {
            renew(effects, work.decided);
            proceed(effects, work)
        }
        Err(refusal) => {
            effects.refused(refusal);
            call_off(effects, work.transition);
            None
        }
    }
}

fn proceed<E: Effects>(effects: &mut E, mut work: Work<E::Refusal>) -> Option<Work<E::Refusal>> {
    let at = work.decided;
    while let Some(action) = work.actions.next() {
        match action {
            Action::Advertise => return Some(work),
            Action::AdvertiseLeaving => work.leaving = send(effects, Message::Leaving, at),
            Action::AdvertiseYielding => drop(send(effects, Message::Yielding, at)),
            Action::Ask => drop(send(effects, Message::Question, at)),
            Action::HoldLease(until) => match std::mem::replace(&mut work.leaving, Ok(())) {
                Ok(()) => effects.hold(until),
                Err(refusal) => {
                    effects.cap(until);
                    effects.refused(refusal);
                    let now = effects.now();
                    let output = effects.machine().handle(Event::AdvertFailed, now);
                    carry_out(effects, output, now);
                }
            },
            Action::Release => effects.release(),
            Action::ForwardToFormer => effects.forward_to_former(),
            Action::ForwardNothing => effects.forward_nothing(),
            Action::Announce => effects.announce(work.transition.is_some()),
            Action::Stage => effects.stage(),
            Action::Unstage => effects.unstage(),
            Action::UnstageAfterGrace => effects.unstage_after_grace(),
        }
    }
    if let Some(transition) = work.transition {
        effects.moved(transition);
    }
    None
}

/// The advertisement was accepted for sending.
fn renew(effects: &mut impl Effects, at: MonotonicTime) {
    // From the decision, not from the send: a thread that was stopped in between must not resume as an owner.
    let until = latest(effects.machine(), at);
    effects.renew(until);
    effects.machine().handle(Event::AdvertSent(at), at);
}

/// Until when a message that was decided on `at` this time may be sent, and what the lease becomes by it.
pub fn latest(machine: &Machine, at: MonotonicTime) -> MonotonicTime {
    at + machine.parameters().interval.duration() * LEASE_INTERVALS
}

/// The advertisement was refused: what was to follow it is off, and so is a takeover that it was to begin.
fn call_off(effects: &mut impl Effects, promotion: Option<Transition>) {
    let now = effects.now();
    let mut output = effects.machine().handle(Event::AdvertFailed, now);
    if let (Some(promotion), Some(fall)) = (promotion, &mut output.transition) {
        // Nobody saw us Active.
        fall.from = promotion.from;
        if fall.from == fall.to {
            output.transition = None;
        }
    }
    effects.decided_anew(now);
    carry_out(effects, output, now);
}

/// Sends in each family until one is refused.
fn send<E: Effects>(effects: &mut E, message: Message, at: MonotonicTime) -> Result<(), E::Refusal> {
    let families = effects.families()?;
    let latest = latest(effects.machine(), at);
    let order = order(*effects.refused_family());
    for family in order.into_iter().filter(|family| *family < families) {
        // A thread that was stopped since the decision, perhaps between two families: an heir that hears it now would yield
        // to nobody.
        if effects.now() >= latest {
            return Err(E::too_late());
        }
        if let Err(refusal) = effects.send(message, family) {
            *effects.refused_family() = family;
            return Err(refusal);
        }
    }
    Ok(())
}

/// Which family goes first and which second. One that was refused goes first the next time: otherwise peers would hear in
/// the other one, again and again, that we own, and we never would.
pub fn order(refused_family: usize) -> [usize; 2] {
    if refused_family == 0 { [0, 1] } else { [1, 0] }
}

/// How a sender's address compares with ours in the election. Only one family breaks ties, or two routers could each lose
/// in one.
pub fn tie_break<A: Ord>(breaks_ties: bool, source: &A, own: &A) -> Ordering {
    if breaks_ties { source.cmp(own) } else { Ordering::Less }
}
