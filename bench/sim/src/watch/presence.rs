//! An owner exists: within Active_Down of the network being whole and somebody being there to own; at every instant of a
//! planned move.
//!
//! The bound counts from the end of the last owner's word or the last disturbance, whichever is later: Active_Down
//! (3 intervals + skew) of the best router there is, by the longest interval in use, plus two delays, lateness, clocks
//! that are slow by 500 ppm, and the 75 ms for which a planned takeover waits for local addresses.

use super::Invariant;
use crate::network::Network;
use crate::time::Instant;
use vip_agent::vrrp::machine::State;

impl Network {
    pub(super) fn check_presence(&mut self, end: Instant) {
        let last = self.nodes.iter().map(|node| node.answers_until(self.now)).max().unwrap_or(self.now);
        self.watch.silent_since = if last > self.now { last } else { self.watch.silent_since.min(self.now) };
        let silent_since = self.watch.silent_since;
        if end <= silent_since {
            return;
        }
        if self.watch.unbroken {
            let silence = end.since(silent_since);
            let what = format!("nobody answers for {silence:?} or more of a planned move");
            self.watch.violated(Invariant::Handover, silent_since, what);
            return;
        }
        let since = silent_since.max(self.watch.disturbed);
        // The fastest of all waits four intervals at most: most silences end the check here.
        if end <= since + self.watch.longest_interval * 3 || self.is_cut() {
            return;
        }
        let eligible = self.nodes.iter().filter(|node| {
            node.speaks(self.now) && matches!(node.machine.state(), State::Backup | State::Active)
        });
        let Some(best) = eligible.map(|node| node.machine.parameters().priority.get()).max() else { return };
        let bound = self.watch.longest_wait(best);
        if end > since + bound {
            let what = format!("nobody answers for more than {bound:?}, and there is one of priority {best}");
            self.watch.violated(Invariant::Presence, since + bound, what);
        }
    }

    fn is_cut(&self) -> bool {
        let count = self.nodes.len();
        self.blocked[..count].iter().any(|to| to[..count].contains(&true))
    }
}
