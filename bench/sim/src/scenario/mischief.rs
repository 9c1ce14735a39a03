//! Anything that happens to routers, in any order; then all is repaired, and must settle.

use std::time::Duration;

use vip_agent::types::{AdvertInterval, Priority};
use vip_agent::vrrp::machine::{Event, Parameters};

use super::{Outcome, Run};
use crate::act::Act;
use crate::setup::centiseconds;

/// How many things happen in one run.
const ACTS: usize = 24;

/// No advert is lost.
pub(super) fn faithful(run: &mut Run) -> Outcome {
    for _ in 0..ACTS {
        run.wait()?;
        let node = run.any();
        let act = run.trouble(node);
        run.network.act(node, act);
    }
    run.repair_and_settle()
}

/// Adverts are lost, at random and because links are cut one way.
pub(super) fn lossy(run: &mut Run) -> Outcome {
    run.network.link.loss_permille = run.plan.of(&[10, 50, 200, 500]);
    for _ in 0..ACTS {
        run.wait()?;
        let node = run.any();
        let act = if run.plan.percent(30) { run.cut() } else { run.trouble(node) };
        run.network.act(node, act);
    }
    run.repair_and_settle()
}

/// Everything.
pub(super) fn chaos(run: &mut Run) -> Outcome {
    run.network.link.loss_permille = run.plan.of(&[0, 10, 100, 400]);
    for _ in 0..ACTS {
        run.wait()?;
        let node = run.any();
        let act = match run.plan.below(20) {
            0..=3 => run.cut(),
            4 | 5 => Act::Pause,
            6 => Act::PowerOff,
            7 => run.flood(40),
            8 => {
                let first = run.network.nodes[node].setup.parameters.interval;
                let times = run.plan.of(&[1, 2, 4]);
                run.reload(node, |parameters| {
                    if let AdvertInterval::V3(first) = first {
                        parameters.interval = centiseconds(first.get() * times);
                    }
                })
            }
            _ => run.trouble(node),
        };
        run.network.act(node, act);
    }
    run.repair_and_settle()
}

/// A stranger floods the routers.
pub(super) fn flood(run: &mut Run) -> Outcome {
    for _ in 0..ACTS / 3 {
        run.wait()?;
        let node = run.any();
        let act = if run.plan.percent(40) { run.trouble(node) } else { run.flood(700) };
        run.network.act(node, act);
    }
    run.repair_and_settle()
}

impl Run {
    fn wait(&mut self) -> Outcome {
        let interval = self.longest_interval();
        let longest = self.plan.of(&[interval / 50, interval, interval * 4]);
        self.idle(Duration::ZERO, longest)
    }

    /// What befalls an agent.
    fn trouble(&mut self, node: usize) -> Act {
        match self.plan.below(20) {
            0 | 1 => Act::Kill { watched: self.plan.percent(50) },
            2 | 3 => Act::Stop,
            4..=7 => Act::Revive,
            8 | 9 => Act::Tell(Event::Drain),
            10 | 11 => Act::Tell(Event::Undrain),
            12 => Act::Tell(self.plan.of(&[Event::Fault, Event::Unwell])),
            13 => Act::Tell(self.plan.of(&[Event::Recovered, Event::Well])),
            14 => Act::Tell(Event::Shutdown),
            15 => {
                let priority = Priority::new(self.plan.between(1, 254)).expect("not 0");
                let change = self.plan.below(3);
                self.reload(node, |parameters| match change {
                    0 => parameters.preempt = !parameters.preempt,
                    1 => parameters.preempt_delay = parameters.interval.duration() * 4,
                    _ => parameters.priority = priority,
                })
            }
            16 => Act::AnnounceAgain,
            17 => Act::Mute([false; 2]),
            _ => {
                let families = self.plan.of(&[[true, true], [true, false], [false, true]]);
                Act::Mute(families)
            }
        }
    }

    fn cut(&mut self) -> Act {
        let to = self.any();
        Act::Block { to, blocked: self.plan.percent(50) }
    }

    fn flood(&mut self, most: usize) -> Act {
        let frames = 1 + self.plan.below(most) as u32;
        let gap = self.plan.of(&[Duration::ZERO, Duration::from_micros(5), Duration::from_micros(100)]);
        let priority = self.plan.of(&[0, 1, 2, 100, 200, 255]);
        Act::Flood { frames, gap, priority }
    }

    pub(super) fn reload(&mut self, node: usize, change: impl FnOnce(&mut Parameters)) -> Act {
        let mut parameters = self.network.nodes[node].parameters;
        change(&mut parameters);
        Act::Reconfigure(parameters)
    }

    /// Everything is put right again.
    pub(super) fn repair(&mut self) {
        self.network.link.loss_permille = 0;
        self.network.stalls_permille = 0;
        for node in 0..self.count() {
            for to in 0..self.count() {
                if self.network.blocked[node][to] {
                    self.network.carry_out_act(node, Act::Block { to, blocked: false });
                }
            }
            if self.network.nodes[node].absent {
                continue;
            }
            let told = [Event::Recovered, Event::Well, Event::Undrain].map(Act::Tell);
            let acts = [Act::Mute([false; 2]), Act::Revive].into_iter().chain(told);
            for act in acts {
                self.network.carry_out_act(node, act);
            }
        }
    }

    fn repair_and_settle(&mut self) -> Outcome {
        self.repair();
        // Who is in the middle of leaving does so first.
        let leaving = self.settling();
        self.network.run(leaving)?;
        self.repair();
        self.check_settled().map(drop)
    }
}
