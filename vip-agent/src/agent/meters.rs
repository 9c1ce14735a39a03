//! What is counted here and not by driver or program; and what they counted of instances and interfaces that are gone, so that
//! no counter ever falls while the agent runs.

use std::collections::BTreeMap;
use std::time::Duration;

use vip_common::reason::Reason;

use crate::dataplane::LinkCounter;
use crate::metrics::{PhaseTimes, Transitions, state_name};
use crate::vrrp::driver::{AdvertCounts, Phases};
use crate::vrrp::machine::State;

/// Packets by interface and reason.
pub(super) type Packets = BTreeMap<(String, Reason), u64>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// Of all instances that ever were, by name: one that comes back goes on counting.
    transitions: Transitions,
    phases: PhaseTimes,
    /// Of instances that are gone.
    adverts: AdvertCounts,
    /// Of interfaces while the program was on them the last time.
    packets: Packets,
}

impl Meters {
    /// An instance is in another state.
    pub(super) fn moved(&mut self, instance: &str, to: State, cause: String) {
        *self.transitions.entry((instance.to_owned(), state_name(to), cause)).or_default() += 1;
    }

    /// What a former agent counted of an instance.
    pub(super) fn inherit_transitions(&mut self, instance: String, to: &str, cause: String, count: u64) {
        let states = [State::Initialize, State::Backup, State::Active, State::Draining, State::Fault];
        if let Some(to) = states.map(state_name).into_iter().find(|name| *name == to) {
            *self.transitions.entry((instance, to, cause)).or_default() += count;
        }
    }

    /// An instance took over.
    pub(super) fn took_over(&mut self, phases: Phases) {
        let Phases { detect, decide, flip, announce } = phases;
        self.phases.detect.observe(detect);
        self.phases.decide.observe(decide);
        self.phases.flip.observe(flip);
        // None were made where a takeover was over before that.
        if announce > Duration::ZERO {
            self.phases.announce.observe(announce);
        }
    }

    /// An instance goes with its counts.
    pub(super) fn instance_goes(&mut self, counts: &AdvertCounts) {
        self.adverts.add_all(counts);
    }

    /// The program is about to be taken off an interface, and its counters with it.
    pub(super) fn interface_goes(&mut self, name: &str, counters: &[LinkCounter]) {
        add(&mut self.packets, name, counters);
    }

    pub(super) fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    pub(super) fn phases(&self) -> &PhaseTimes {
        &self.phases
    }

    /// All adverts: those of instances that are gone, and these.
    pub(super) fn adverts<'a>(&self, present: impl Iterator<Item = &'a AdvertCounts>) -> AdvertCounts {
        let mut all = self.adverts;
        present.for_each(|counts| all.add_all(counts));
        all
    }

    /// All packets: those of interfaces as they were before, and these. What never occurred is left out, but for present
    /// interfaces.
    pub(super) fn packets<'a>(&self, present: impl Iterator<Item = (&'a str, Vec<LinkCounter>)>) -> Packets {
        let mut all = self.packets.clone();
        present.for_each(|(name, counters)| add(&mut all, name, &counters));
        all
    }
}

fn add(packets: &mut Packets, name: &str, counters: &[LinkCounter]) {
    for LinkCounter { reason, packets: count, .. } in counters {
        *packets.entry((name.to_owned(), *reason)).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(ifindex: u32, packets: u64) -> Vec<LinkCounter> {
        vec![LinkCounter { ifindex, reason: Reason::ArpAnswered, packets }]
    }

    #[test]
    fn an_interface_that_comes_back_goes_on_counting_under_its_name() {
        let mut meters = Meters::default();
        let answered = |meters: &Meters, present: &[(&'static str, u64)]| {
            let present = present.iter().map(|(name, count)| (*name, counters(9, *count)));
            meters.packets(present).get(&("eth0".to_owned(), Reason::ArpAnswered)).copied()
        };
        assert_eq!(answered(&meters, &[("eth0", 5)]), Some(5));
        meters.interface_goes("eth0", &counters(7, 6));
        assert_eq!(answered(&meters, &[]), Some(6));
        // As another interface of that name, whose counters begin anew.
        assert_eq!(answered(&meters, &[("eth0", 1), ("eth1", 70)]), Some(7));
    }

    #[test]
    fn adverts_of_instances_that_are_gone_still_count() {
        let mut meters = Meters::default();
        let counts = |sent| AdvertCounts { sent, ..AdvertCounts::default() };
        meters.instance_goes(&counts(3));
        meters.instance_goes(&counts(4));
        assert_eq!(meters.adverts([counts(10), counts(20)].iter()).sent, 37);
    }

    #[test]
    fn a_takeover_without_announcements_has_no_time_for_them() {
        let mut meters = Meters::default();
        let phases = Phases { detect: Duration::from_millis(300), ..Phases::default() };
        meters.took_over(phases);
        assert_eq!((meters.phases.detect.count(), meters.phases.announce.count()), (1, 0));
    }
}
