//! Families of runs: what each network is like, what happens to it, and what is expected besides what must hold always.

mod directed;
mod mischief;
mod settled;

use std::time::Duration;

use vip_agent::vrrp::machine::{DRAIN_MARGIN, STAGING_PATIENCE};

use crate::act::Act;
use crate::network::{Network, Variation};
use crate::random::Random;
use crate::setup::{Preemption, Setup, Traits};
use crate::watch::{Invariant, Violation};

type Outcome = Result<(), Violation>;

/// A family of runs.
#[derive(Debug)]
pub struct Family {
    /// The name on the command line.
    pub name: &'static str,
    /// What happens in it.
    pub what: &'static str,
    traits: Traits,
    play: fn(&mut Run) -> Outcome,
}

/// All of them.
pub static FAMILIES: [Family; 9] = [
    Family {
        name: "faithful",
        what: "no advert is lost; agents are stopped, killed, muted, drained, reloaded, and late",
        traits: Traits {
            close_priorities: true,
            address_owner: true,
            preemption: Preemption::Mixed,
            delays: true,
            slow_network: true,
            duplicates: true,
            lateness: true,
            stalls: true,
            ..Traits::PLAIN
        },
        play: mischief::faithful,
    },
    Family {
        name: "lossy",
        what: "the same, on a network that loses and cuts links one way",
        traits: Traits {
            close_priorities: true,
            address_owner: true,
            preemption: Preemption::Mixed,
            delays: true,
            slow_network: true,
            duplicates: true,
            lateness: true,
            stalls: true,
            refresh: true,
            ..Traits::PLAIN
        },
        play: mischief::lossy,
    },
    Family {
        name: "chaos",
        what: "the same, with different intervals, paused machines, power failures and floods",
        traits: Traits {
            mixed_intervals: true,
            close_priorities: true,
            address_owner: true,
            preemption: Preemption::Mixed,
            delays: true,
            slow_network: true,
            duplicates: true,
            lateness: true,
            stalls: true,
            refresh: true,
        },
        play: mischief::chaos,
    },
    Family {
        name: "flood",
        what: "a stranger sends more adverts than are read at once, while others go on",
        traits: Traits { preemption: Preemption::Mixed, lateness: true, stalls: true, ..Traits::PLAIN },
        play: mischief::flood,
    },
    Family {
        name: "crash",
        what: "the owner's last k adverts are lost, and it dies",
        traits: Traits { close_priorities: true, ..Traits::PLAIN },
        play: directed::crash,
    },
    Family {
        name: "handover",
        what: "the owner is drained or ends, or loses its rank",
        traits: Traits {
            close_priorities: true,
            duplicates: true,
            preemption: Preemption::Mixed,
            ..Traits::PLAIN
        },
        play: directed::handover,
    },
    Family {
        name: "unwell",
        what: "owners become unwell one after the other until all are, and one becomes well again",
        traits: Traits {
            close_priorities: true,
            duplicates: true,
            preemption: Preemption::Mixed,
            ..Traits::PLAIN
        },
        play: directed::unwell,
    },
    Family {
        name: "split",
        what: "the network falls apart, both ways or one way, and heals",
        traits: Traits {
            mixed_intervals: true,
            close_priorities: true,
            preemption: Preemption::Mixed,
            ..Traits::PLAIN
        },
        play: directed::split,
    },
    Family {
        name: "order",
        what: "routers join, leave and are given other priorities",
        traits: Traits {
            close_priorities: true,
            address_owner: true,
            preemption: Preemption::Mixed,
            delays: true,
            ..Traits::PLAIN
        },
        play: directed::order,
    },
];

impl Family {
    /// The one of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<&'static Self, String> {
        let names = || FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ");
        let known = FAMILIES.iter().find(|family| family.name == name);
        known.ok_or_else(|| format!("no family is called {name:?}; there are {}", names()))
    }

    /// One run: a function of its arguments.
    pub(crate) fn play(&self, seed: u64, variation: Variation) -> (Network, Outcome) {
        let mut plan = Random::new(seed, 1);
        let setup = Setup::draw(&mut plan, &self.traits);
        let network = Network::new(&setup, Random::new(seed, 2), variation);
        let mut run = Run { plan, network };
        for node in 0..setup.nodes.len() {
            if !run.network.nodes[node].absent {
                run.network.carry_out_act(node, Act::Revive);
            }
        }
        let outcome = (self.play)(&mut run);
        (run.network, outcome)
    }
}

/// One run: what is done on purpose is drawn from `plan`, what chance does from the network's own numbers, so that leaving
/// one act out leaves the others as they are.
struct Run {
    plan: Random,
    network: Network,
}

impl Run {
    fn count(&self) -> usize {
        self.network.nodes.len()
    }

    /// Any of the nodes, drawn by the plan.
    fn any(&mut self) -> usize {
        let count = self.count();
        self.plan.below(count)
    }

    fn longest_interval(&self) -> Duration {
        self.network.watch.longest_interval()
    }

    /// Longer than it takes from any state of a whole network to one owner, whoever is to preempt whom.
    fn settling(&self) -> Duration {
        let delays = self.network.nodes.iter().map(|node| {
            let parameters = &node.parameters;
            parameters.hold_down + parameters.preempt_delay
        });
        let drained = self.longest_interval() + DRAIN_MARGIN;
        drained
            + delays.max().unwrap_or_default()
            + (self.network.watch.longest_wait(1) + STAGING_PATIENCE) * 3
            + self.network.lateness * 8
    }

    /// Lets so much go by, and a random part of `more`.
    fn idle(&mut self, least: Duration, more: Duration) -> Outcome {
        let span = least + self.plan.span(more);
        self.network.run(span)
    }

    fn expect(&self, holds: bool, invariant: Invariant, what: impl FnOnce() -> String) -> Outcome {
        if holds { Ok(()) } else { Err(Violation { invariant, at: self.network.now, what: what() }) }
    }
}
