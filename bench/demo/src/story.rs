//! The story: kill -9 the owner, drain the next, cut the third, bring all back.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cast::Member;
use crate::evidence::NodeNumber;
use crate::measure::{Event, Kind};
use crate::record::{Aside, Outage, Told};
use crate::stage::Stage;

/// For what needs no timer of the protocol: starting a process, noticing a link.
const SOON: Duration = Duration::from_secs(10);
/// Before the first event.
const LEAD_IN: Duration = Duration::from_secs(1);

/// Between what is done by the demo itself and what is measured.
const CALM: Duration = Duration::from_millis(150);

/// Parts in the story. Nodes past the third stand by.
const FIRST: NodeNumber = 1;
const SECOND: NodeNumber = 2;
const THIRD: NodeNumber = 3;

/// Plays it for as many rounds as planned, or until a move fails.
pub(crate) fn tell(stage: &mut Stage<'_>, cast: &mut [Member]) -> Result<Told> {
    let mut story = Story { stage, cast, told: Told::default(), round: 0 };
    let lead_in = story.stage.plan.pause.min(LEAD_IN);
    story.stage.pause(lead_in)?;
    for round in 1..=story.stage.plan.rounds {
        story.round = round;
        if !story.play_round()? {
            break;
        }
    }
    story.told.end = story.stage.now();
    Ok(story.told)
}

struct Story<'s, 'a> {
    stage: &'s mut Stage<'a>,
    cast: &'s mut [Member],
    told: Told,
    round: u16,
}

impl Story<'_, '_> {
    /// False if a move failed: what would follow makes no sense then.
    fn play_round(&mut self) -> Result<bool> {
        Ok(self.crash()?
            && self.drain()?
            && self.undrain()?
            && self.cut()?
            && self.plug_in()?
            && self.come_back()?)
    }

    fn crash(&mut self) -> Result<bool> {
        let did = "kill -9 node1's agent and its watcher. The kernel lives: the lease runs out by itself, and who knows its MAC is served on";
        self.event(Kind::Crash, FIRST, SECOND, did, |story| {
            story.out(FIRST, "killed");
            story.member(FIRST).kill()
        })
    }

    fn drain(&mut self) -> Result<bool> {
        let did =
            "drain node2: it says priority 0, answers until it hears node3, then serves only what is open";
        self.event(Kind::Drain, SECOND, THIRD, did, |story| {
            story.out(SECOND, "drained");
            story.member(SECOND).agent()?.drain()
        })
    }

    fn undrain(&mut self) -> Result<bool> {
        self.aside("undrain node2: a backup again, it does not preempt")?;
        self.member(SECOND).agent()?.undrain()?;
        self.back(SECOND)
    }

    fn cut(&mut self) -> Result<bool> {
        let did = "pull node3's cable: nothing reaches it any more, node2 waits out Active_Down";
        self.event(Kind::LinkCut, THIRD, SECOND, did, |story| {
            story.out(THIRD, "cable out");
            story.stage.lab.switch().set_cable(story.stage.lab.node(THIRD), false)
        })
    }

    fn plug_in(&mut self) -> Result<bool> {
        self.aside("plug node3's cable in: a backup again, it does not preempt")?;
        self.stage.lab.switch().set_cable(self.stage.lab.node(THIRD), true)?;
        self.back(THIRD)
    }

    fn come_back(&mut self) -> Result<bool> {
        let did = "start node1's agent: the highest priority preempts, node2 serves only what is open";
        self.event(Kind::Return, SECOND, FIRST, did, |story| {
            story.cast[FIRST - 1] = Member::start(story.stage.lab, story.stage.plan, FIRST)?;
            story.well(FIRST);
            Ok(())
        })
    }

    /// Does something that has to move the VIP, and watches until it is quiet again.
    fn event(
        &mut self,
        kind: Kind,
        from: NodeNumber,
        to: NodeNumber,
        did: &str,
        act: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<bool> {
        self.stage.note(did)?;
        let at = self.stage.now();
        let mut event = Event { round: self.round, kind, at, from, to, did: did.to_owned(), takeover: None };
        let acted = act(self);
        // What the drain said says more than that the VIP did not move.
        if let Err(error) = &acted {
            self.told.failures.push(format!("round {}, {}: {error:#}", self.round, event.title()));
        }
        let longest = self.stage.plan.active_down(to) * 2 + SOON;
        let moved = acted.is_ok() && self.stage.wait_for_owner(to, longest)?;
        if moved {
            // Not at once: to start a command costs a small machine some milliseconds, which the client would see.
            self.stage.pause(CALM * 2)?;
            event.takeover =
                self.member(to).takeover().with_context(|| format!("ask node{to} for the phases"))?;
            let rest = self.stage.plan.pause.saturating_sub(CALM * 2);
            self.stage.pause(rest)?;
            self.summarize(&event)?;
        }
        self.told.events.push(event);
        Ok(moved)
    }

    fn summarize(&mut self, event: &Event) -> Result<()> {
        let now = self.stage.now();
        let measures = event.measure(self.stage.evidence(), now);
        let after = measures.announced.map_or("?".into(), |at| format!("{:.1} ms", at - event.at));
        let gap = measures.gap.map_or("?".into(), |(from, to)| format!("{:.1} ms", to - from));
        self.stage.note(&format!(
            "    node{} -> node{}: announced after {after}; the client's longest gap {gap}, {} of {} requests lost",
            event.from, event.to, measures.lost, measures.requests
        ))?;
        self.stage.pause(CALM)
    }

    fn aside(&mut self, did: &str) -> Result<()> {
        self.told.asides.push(Aside { at_ms: self.stage.now(), did: did.to_owned() });
        self.stage.note(did)
    }

    /// A node can no longer own.
    fn out(&mut self, node: NodeNumber, why: &'static str) {
        let from_ms = self.stage.now();
        self.told.outages.push(Outage { node, why, from_ms, to_ms: None });
        self.stage.set_role(node, why);
    }

    /// A node can own again.
    fn well(&mut self, node: NodeNumber) {
        let now = self.stage.now();
        for outage in self.told.outages.iter_mut().filter(|outage| outage.node == node) {
            outage.to_ms.get_or_insert(now);
        }
        self.stage.set_role(node, "backup");
    }

    /// Waits until a node is well again, and for a quiet while.
    fn back(&mut self, node: NodeNumber) -> Result<bool> {
        self.member(node).wait_backup(SOON)?;
        self.well(node);
        let pause = self.stage.plan.pause / 2;
        self.stage.pause(pause)?;
        Ok(true)
    }

    fn member(&self, node: NodeNumber) -> &Member {
        &self.cast[node - 1]
    }
}
