//! A whole network that is left alone: one owner, the right one, who has announced last, and who stays.

use std::time::Duration;

use vip_agent::types::Priority;

use super::{Outcome, Run};
use crate::watch::{Invariant, Violation};

/// In which a winner has announced over what a rival told everybody.
const ANNOUNCED_OVER: Duration = Duration::from_millis(100);

impl Run {
    /// Waits until the network must have settled, and checks that it has; the owner.
    pub(super) fn check_settled(&mut self) -> Result<usize, Violation> {
        let settling = self.settling();
        self.network.run(settling)?;
        let owner = self.only_owner()?;
        self.check_order(owner)?;
        let refresh = self.network.nodes[owner].parameters.announce_refresh;
        let announced = ANNOUNCED_OVER + self.network.longest_dispute() + refresh.unwrap_or_default();
        self.network.run(announced)?;
        self.check_announcements(owner)?;
        for _ in 0..4 {
            let span = self.longest_interval();
            self.network.run(span)?;
            let owners = self.network.owners();
            self.expect(owners == [owner], Invariant::Order, || {
                format!("n{owner} owned and was left alone; now {owners:?} do")
            })?;
        }
        Ok(owner)
    }

    pub(super) fn only_owner(&self) -> Result<usize, Violation> {
        let owners = self.network.owners();
        match owners[..] {
            [owner] => Ok(owner),
            [] => Err(self.violation(Invariant::Presence, "nobody owns a whole network".into())),
            _ => Err(self.violation(Invariant::Overlap, format!("{owners:?} own a whole network"))),
        }
    }

    /// Whoever may take it from the owner has done so.
    fn check_order(&self, owner: usize) -> Outcome {
        let priority = self.network.nodes[owner].parameters.priority;
        for (index, node) in self.network.nodes.iter().enumerate() {
            let parameters = &node.parameters;
            let entitled = parameters.preempt || parameters.priority == Priority::OWNER;
            let better = parameters.priority > priority && entitled && node.speaks(self.network.now);
            self.expect(!better || node.absent, Invariant::Order, || {
                format!("n{owner} owns with {priority}, and n{index} preempts with {}", parameters.priority)
            })?;
        }
        Ok(())
    }

    /// What the neighbours heard last is right.
    pub(super) fn check_announcements(&self, owner: usize) -> Outcome {
        let last = (0..self.count()).max_by_key(|node| self.network.nodes[*node].announced);
        self.expect(last == Some(owner), Invariant::Announcement, || {
            let at = |node: usize| self.network.nodes[node].announced.millis();
            let last = last.unwrap_or(owner);
            format!("n{owner} owns and announced at {:.3} ms, n{last} at {:.3} ms", at(owner), at(last))
        })
    }

    fn violation(&self, invariant: Invariant, what: String) -> Violation {
        Violation { invariant, at: self.network.now, what }
    }
}
