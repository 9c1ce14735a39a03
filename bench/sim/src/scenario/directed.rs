//! One thing on purpose: a crash, a handover, a split, a newcomer; and what exactly is expected of it.

use std::time::Duration;

use vip_agent::types::Priority;
use vip_agent::vrrp::machine::{DRAIN_MARGIN, Event};

use super::{Outcome, Run};
use crate::act::Act;
use crate::setup::skew;
use crate::time::Instant;
use crate::watch::{Invariant, Violation, by_slow_clock};

/// The owner dies when its last k adverts were lost: two answer for k intervals at most, and somebody does Active_Down
/// after the last advert that arrived.
pub(super) fn crash(run: &mut Run) -> Outcome {
    let owner = run.check_settled()?;
    let Some(heir) = run.best_but(owner) else { return Ok(()) };
    let interval = run.network.nodes[owner].parameters.interval.duration();
    let lost = run.plan.below(8) as u32;

    let heard = run.next_advert(owner)?;
    for to in 0..run.count() {
        run.network.blocked[owner][to] = true;
    }
    for _ in 0..lost {
        run.next_advert(owner)?;
    }
    run.idle(Duration::ZERO, interval / 50)?;
    let death = if run.plan.percent(80) { Act::Kill { watched: false } } else { Act::PowerOff };
    run.network.carry_out_act(owner, death);
    let answers_until = run.network.nodes[owner].answers_until(run.network.now);

    let skew = skew(heir.get(), run.network.nodes[owner].parameters.interval);
    let longest_delay = run.network.link.longest;
    let due = heard + longest_delay + by_slow_clock(interval * 3 + skew);
    run.run_until(due, |run| run.network.owners().iter().any(|node| *node != owner))?;
    let heirs = run.network.owners();
    let taken_over = heirs.iter().any(|node| *node != owner);
    run.expect(taken_over, Invariant::Presence, || {
        format!("nobody has taken over {:?} after the last advert that arrived", due.since(heard))
    })?;
    let together = answers_until.since(run.network.now);
    // It has begun to give the VIPs back to its heir, whom it heard, and who did not hear so.
    let leaves = run.network.nodes[owner].word.held;
    let bound = by_slow_clock(if leaves { interval + DRAIN_MARGIN } else { interval * lost });
    run.expect(together <= bound, Invariant::Overlap, || {
        format!("n{owner} and {heirs:?} answer together for {together:?}; {lost} adverts were lost")
    })
}

/// The owner goes in peace: no instant without an owner, and it is another one afterwards.
pub(super) fn handover(run: &mut Run) -> Outcome {
    let owner = run.check_settled()?;
    if run.best_but(owner).is_none() {
        return Ok(());
    }
    let interval = run.longest_interval();
    run.idle(Duration::ZERO, interval)?;
    let act = match run.plan.below(3) {
        0 => Act::Tell(Event::Drain),
        1 => Act::Tell(Event::Shutdown),
        _ => run.reload(owner, |parameters| parameters.priority = Priority::new(1).expect("not 0")),
    };
    let leaves = matches!(act, Act::Tell(_));
    run.network.watch.unbroken = true;
    run.network.carry_out_act(owner, act);
    let settling = run.settling();
    run.network.run(settling)?;
    let heir = run.only_owner()?;
    run.expect(heir != owner || !leaves, Invariant::Handover, || format!("n{owner} leaves, and owns"))
}

/// Owners become unwell, one after the other: no instant without an owner as long as somebody is well, and the last of them
/// stays one. Whoever becomes well again has the VIPs, unless it must not preempt.
pub(super) fn unwell(run: &mut Run) -> Outcome {
    let mut owner = run.check_settled()?;
    let nodes = &run.network.nodes;
    let mut well: Vec<usize> = (0..run.count()).filter(|node| !nodes[*node].absent).collect();
    while !well.is_empty() {
        well.retain(|node| *node != owner);
        run.network.watch.unbroken = !well.is_empty();
        run.network.carry_out_act(owner, Act::Tell(Event::Unwell));
        let settling = run.settling();
        run.network.run(settling)?;
        run.network.watch.unbroken = false;
        let heir = run.only_owner()?;
        let rightly = if well.is_empty() { heir == owner } else { well.contains(&heir) };
        run.expect(rightly, Invariant::Handover, || {
            format!("n{owner} became unwell, {well:?} are well, and n{heir} owns")
        })?;
        owner = heir;
    }
    let node = run.any();
    if run.network.nodes[node].absent {
        return Ok(());
    }
    run.network.watch.unbroken = true;
    run.network.carry_out_act(node, Act::Tell(Event::Well));
    let settling = run.settling();
    run.network.run(settling)?;
    let heir = run.only_owner()?;
    let parameters = &run.network.nodes[node].parameters;
    let entitled = parameters.preempt && parameters.priority.get() > 2;
    run.expect(heir == node || !entitled, Invariant::Handover, || {
        format!("n{node} is well again, and n{heir} is not and owns")
    })
}

/// Each side of a split has an owner; after the heal there is one, who announces after it.
pub(super) fn split(run: &mut Run) -> Outcome {
    run.check_settled()?;
    let count = run.count();
    let mut sides: Vec<bool> = (0..count).map(|_| run.plan.percent(50)).collect();
    (sides[0], sides[1]) = (true, false);
    let one_way = run.plan.percent(40);
    for from in 0..count {
        for to in 0..count {
            if sides[from] != sides[to] && !(one_way && sides[from]) {
                run.network.carry_out_act(from, Act::Block { to, blocked: true });
            }
        }
    }
    let (settling, interval) = (run.settling(), run.longest_interval());
    run.idle(settling, interval * 4)?;
    let owners = run.network.owners();
    if !one_way {
        for side in [true, false] {
            let present = (0..count).any(|node| sides[node] == side && !run.network.nodes[node].absent);
            let here = owners.iter().filter(|node| sides[**node] == side).count();
            run.expect(here == usize::from(present), Invariant::Presence, || {
                format!("{owners:?} own the sides {sides:?}")
            })?;
        }
    }

    let healed = run.network.now;
    let last = (0..count).max_by_key(|node| run.network.nodes[*node].announced);
    if one_way && last.is_some_and(|last| !owners.contains(&last)) {
        // A rival was and is no more, of whom the owner cannot have heard: its next regular announcement sets that right.
        for owner in &owners {
            run.network.carry_out_act(*owner, Act::AnnounceAgain);
        }
    }
    run.network.watch.unbroken = !owners.is_empty();
    run.repair();
    let disputed = run.network.longest_dispute();
    run.network.run(disputed * 2)?;
    if owners.len() > 1 && owners.iter().any(|owner| run.network.nodes[*owner].defers()) {
        // Who must not preempt gives back what it took; the former owner may have yielded, and is an heir now.
        let leaving = run.longest_interval() + DRAIN_MARGIN;
        run.network.run(leaving)?;
    }
    let owner = run.only_owner()?;
    run.network.run(Duration::from_millis(100))?;
    run.check_announcements(owner)?;
    run.network.watch.unbroken = false;
    let announced = run.network.nodes[owner].announced;
    run.expect(owners.len() < 2 || announced > healed, Invariant::Announcement, || {
        format!("n{owner} has not announced since the heal at {:.3} ms", healed.millis())
    })?;
    run.check_settled().map(drop)
}

/// Routers join, leave, and change their priorities, one at a time: whoever owns loses it to those only that may take it,
/// without an instant in between.
pub(super) fn order(run: &mut Run) -> Outcome {
    let mut owner = run.check_settled()?;
    for _ in 0..3 {
        let node = run.any();
        if run.network.nodes[node].absent {
            continue;
        }
        let priority = run.plan.between(1, 254);
        let act = match run.plan.below(3) {
            0 => Act::PowerOff,
            1 => Act::Revive,
            _ => run.reload(node, |parameters| parameters.priority = Priority::new(priority).expect("not 0")),
        };
        run.network.watch.unbroken = node != owner || !matches!(act, Act::PowerOff);
        run.network.carry_out_act(node, act);
        let heir = run.check_settled_with_anybody()?;
        run.network.watch.unbroken = false;
        let Some(heir) = heir else { break };
        let newcomer = &run.network.nodes[heir].parameters;
        let entitled = newcomer.preempt || newcomer.priority == Priority::OWNER;
        let rank = run.network.nodes[owner].parameters.priority;
        let rightly = heir == owner
            || !run.network.nodes[owner].speaks(run.network.now)
            || entitled && newcomer.priority > rank;
        run.expect(rightly, Invariant::Order, || {
            format!("n{owner} owned, and n{heir} took it without a right to preempt")
        })?;
        owner = heir;
    }
    Ok(())
}

impl Run {
    /// The highest priority among those that can own, but for one node.
    fn best_but(&self, owner: usize) -> Option<Priority> {
        let nodes = self.network.nodes.iter().enumerate();
        let others = nodes.filter(|(index, node)| *index != owner && node.speaks(self.network.now));
        others.map(|(_, node)| node.parameters.priority).max()
    }

    /// As [`Run::check_settled`], if anybody is left.
    fn check_settled_with_anybody(&mut self) -> Result<Option<usize>, Violation> {
        if self.network.nodes.iter().any(|node| node.speaks(self.network.now)) {
            self.check_settled().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Runs until the owner's word is renewed; when that was decided.
    fn next_advert(&mut self, owner: usize) -> Result<Instant, Violation> {
        let before = self.network.nodes[owner].renewal.decided;
        let latest = self.network.now + self.longest_interval() * 2;
        self.run_until(latest, |run| run.network.nodes[owner].renewal.decided > before)?;
        Ok(self.network.nodes[owner].renewal.decided)
    }

    /// Runs until something has happened, or the latest time.
    fn run_until(&mut self, latest: Instant, happened: impl Fn(&Self) -> bool) -> Outcome {
        while !happened(self) {
            if self.network.agenda.next() > latest {
                let rest = latest.since(self.network.now);
                return self.network.run(rest);
            }
            self.network.step()?;
        }
        Ok(())
    }
}
