//! Sync groups: several machines that own together or not at all. Pure, as the machines are.
//!
//! The members of a group are one election, as the two families of an instance are:
//! - **What one hears, all hear.** An advertisement that any member accepts is given to every member that watches. So
//!   their timers run together, and the owner of a group whose networks are not all whole is left alone as long as any
//!   of them lets its advertisements through: two nodes that each take over where they hear nothing, and yield where
//!   they do, would flap for ever.
//! - **They take over together**, when the last of them may: in one turn, each by its own timer, so that each lease that
//!   may still run elsewhere has ended. One whose advertisement is refused ends it for all, and goes first the next time.
//! - **They lose together.** When one has lost the VIPs, the others give theirs up in the same turn.
//! - **They fault together**, and come back when the last has recovered.
//! - **An heir of one is the heir of all.** A leaving member that hears none does not take its VIPs back if another did.
//!
//! Members that were told to leave for good are none any more: the driver leaves them out.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use super::machine::{Event, Machine, PeerAdvert, State};
use crate::types::MonotonicTime;

/// The members of one group, by their places in it.
pub trait Members {
    /// How many there are.
    fn count(&self) -> usize;
    /// One's machine.
    fn machine(&self, member: usize) -> &Machine;
    /// Hands an event to one's machine and carries out what that asks for.
    fn tell(&mut self, member: usize, event: Event);
    /// Whether one cannot serve by itself, whatever the others can.
    fn is_faulty(&self, member: usize) -> bool;
    /// Whether one's last advertisement could not be sent.
    fn was_refused(&self, member: usize) -> bool;
}

/// How a member was before an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    state: State,
    hands_over: bool,
}

impl Before {
    /// As it is now.
    pub fn of(machine: &Machine) -> Self {
        Self { state: machine.state(), hands_over: machine.is_handing_over() }
    }
}

/// When the group needs its timers: the earliest time at which one of its members does.
pub fn next_timer(members: &impl Members) -> MonotonicTime {
    let together = take_over_at(members);
    let due = (0..members.count()).map(|member| timer_of(members.machine(member), together));
    due.min().unwrap_or(MonotonicTime::NEVER)
}

/// Acts on all timers that are due.
pub fn on_timer(members: &mut impl Members, now: MonotonicTime) {
    let mut together = take_over_at(members);
    // Who was refused goes first: else the peers would hear from the others, again and again, that we own.
    for refused in [true, false] {
        for member in 0..members.count() {
            let machine = members.machine(member);
            if members.was_refused(member) != refused || timer_of(machine, together) > now {
                continue;
            }
            let owned = machine.state() == State::Active;
            let takes_over = machine.takes_over_at().is_some_and(|at| at <= now);
            tell(members, member, Event::Timer);
            let owns = members.machine(member).state() == State::Active;
            if takes_over && !owns {
                return lose_all(members);
            }
            if owned && !owns {
                together = take_over_at(members);
            }
        }
    }
}

/// Hands an event to one member, and what follows from it to the others.
pub fn tell(members: &mut impl Members, member: usize, event: Event) {
    let before = Before::of(members.machine(member));
    members.tell(member, event);
    follow(members, member, before);
}

/// An advertisement was accepted and handed to one member.
pub fn heard(members: &mut impl Members, by: usize, before: Before, advert: PeerAdvert, now: MonotonicTime) {
    let lost = before.state == State::Active && members.machine(by).state() != State::Active;
    for other in (0..members.count()).filter(|other| *other != by) {
        let machine = members.machine(other);
        let heeds = match machine.state() {
            // News enough of its own: with many members this is all that there is to do.
            State::Backup => advert.priority == 0 || !machine.has_heard_an_owner(now),
            State::Active => lost || advert.priority > machine.parameters().priority.get(),
            _ => false,
        };
        if !heeds {
            continue;
        }
        // It tells that the owner lives, not how often it speaks on this other network; and an address there decides
        // nothing here, unless it has decided.
        let address = if lost { advert.address } else { Ordering::Less };
        let advert = PeerAdvert { interval: machine.interval(), address, ..advert };
        members.tell(other, Event::Advert(advert));
    }
    follow(members, by, before);
}

/// What one member's change of state makes of the others.
pub fn follow(members: &mut impl Members, member: usize, before: Before) {
    let machine = members.machine(member);
    let (state, hands_over) = (machine.state(), machine.is_handing_over());
    if before.state == State::Active && state == State::Backup {
        lose_all(members);
    }
    let heir_heard = before.hands_over && !hands_over && !matches!(state, State::Active | State::Fault);
    if heir_heard {
        for other in 0..members.count() {
            members.tell(other, Event::GroupHandedOver);
        }
    }
}

/// Makes all faulty if one is, and none if none is.
pub fn share_faults(members: &mut impl Members) {
    let faulty = (0..members.count()).any(|member| members.is_faulty(member));
    for member in 0..members.count() {
        match (faulty, members.machine(member).is_faulty()) {
            (true, false) => members.tell(member, Event::Fault),
            (false, true) => members.tell(member, Event::Recovered),
            _ => {}
        }
    }
}

fn lose_all(members: &mut impl Members) {
    for member in 0..members.count() {
        if members.machine(member).state() == State::Active {
            members.tell(member, Event::GroupLost);
        }
    }
}

/// When the last of them may take over. Owners do not hold the others back, whoever is out of the election does.
fn take_over_at(members: &impl Members) -> MonotonicTime {
    let may = |machine: &Machine| match machine.state() {
        State::Active => MonotonicTime::ZERO,
        _ => machine.takes_over_at().unwrap_or(MonotonicTime::NEVER),
    };
    let times = (0..members.count()).map(|member| may(members.machine(member)));
    times.max().unwrap_or(MonotonicTime::NEVER)
}

/// When one member's timer is due, given that a takeover waits for the others.
fn timer_of(machine: &Machine, together: MonotonicTime) -> MonotonicTime {
    let timer = machine.next_timer();
    match machine.takes_over_at() {
        Some(take_over) if take_over <= timer => take_over.max(together),
        _ => timer,
    }
}
