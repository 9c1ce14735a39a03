//! Routers and the links between them: what happens, one thing after the other.

use std::time::Duration;

use vip_agent::types::MonotonicTime;
use vip_agent::vrrp::machine::{Event, Machine, Parameters, State};

use crate::act::Act;
use crate::agenda::Agenda;
use crate::mutation::Mutation;
use crate::node::{Agent, Command, Frame, Host, Node, Renewal, Word};
use crate::random::Random;
use crate::setup::{Link, MOST_NODES, Setup};
use crate::time::Instant;
use crate::watch::{Violation, Watch};

/// A sender of frames that is no router of the run.
pub(crate) const ROGUE: u8 = MOST_NODES as u8;

/// More events than any run has that does not spin.
const MOST_EVENTS: u64 = 3_000_000;

/// How a run differs from what its seed alone makes of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variation {
    /// A broken rule.
    pub(crate) mutation: Option<Mutation>,
    /// What is left out: acts by their number, and routers by index.
    pub(crate) without_acts: Vec<u32>,
    /// As above.
    pub(crate) without_nodes: Vec<usize>,
    /// Whether the run is written down.
    pub(crate) traced: bool,
}

/// What is going to happen.
#[derive(Debug)]
pub(crate) enum What {
    Arrive(Frame),
    /// A timer or a frame wakes the agent.
    Wake(usize),
    /// What an agent decided while its thread was stopped reaches the word.
    Store {
        node: usize,
        life: u32,
        word: MonotonicTime,
        held: bool,
        renewal: Option<Renewal>,
    },
    /// The local addresses are in place.
    Staged {
        node: usize,
        life: u32,
    },
    /// A dead agent's watcher acts; `former`: when the word would have ended that it has cleared before.
    Resign {
        node: usize,
        life: u32,
        former: Option<Instant>,
    },
    /// What somebody does, put off until the agent is where it can be done.
    Act(usize, Box<Act>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) families: usize,
    pub(crate) link: Link,
    pub(crate) lateness: Duration,
    pub(crate) stalls_permille: u32,
    /// `blocked[from][to]`
    pub(crate) blocked: [[bool; MOST_NODES]; MOST_NODES],
    pub(crate) agenda: Agenda<What>,
    /// What chance does to messages and threads.
    pub(crate) noise: Random,
    pub(crate) watch: Watch,
    pub(crate) variation: Variation,
    /// Counts what was done to the network: names each for [`Variation::without_acts`].
    pub(crate) acts: u32,
    pub(crate) trace: Vec<String>,
}

impl Network {
    /// All routers are started.
    pub(crate) fn new(setup: &Setup, noise: Random, variation: Variation) -> Self {
        let mut nodes: Vec<Node> = setup.nodes.iter().map(|node| Node::new(*node)).collect();
        for node in &variation.without_nodes {
            nodes[*node].absent = true;
        }
        let watch = Watch::new(setup, variation.mutation.is_none());
        Self {
            now: Instant::START,
            nodes,
            families: setup.families,
            link: setup.link,
            lateness: setup.lateness,
            stalls_permille: setup.stalls_permille,
            blocked: [[false; MOST_NODES]; MOST_NODES],
            agenda: Agenda::new(),
            noise,
            watch,
            variation,
            acts: 0,
            trace: Vec::new(),
        }
    }

    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.variation.mutation == Some(mutation)
    }

    /// Who answers now.
    pub(crate) fn owners(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].answers(self.now)).collect()
    }

    /// Lets time go by.
    pub(crate) fn run(&mut self, span: Duration) -> Result<(), Violation> {
        let end = self.now + span;
        while self.agenda.next() <= end {
            self.step()?;
        }
        self.check_until(end);
        self.now = end;
        self.verdict()
    }

    /// Goes on to the next thing that happens.
    pub(crate) fn step(&mut self) -> Result<(), Violation> {
        let at = self.agenda.next();
        self.check_until(at);
        self.verdict()?;
        self.now = at;
        if let Some(what) = self.agenda.take() {
            self.happen(what);
        }
        if self.agenda.planned() > MOST_EVENTS {
            self.watch.spins(self.now);
        }
        self.verdict()
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrive(frame) => self.arrive(frame),
            What::Wake(node) => {
                if self.nodes[node].wakes_at == self.now {
                    self.nodes[node].wakes_at = Instant::NEVER;
                    self.turn(node);
                }
            }
            What::Store { node, life, word, held, renewal } => {
                if self.nodes[node].life == life {
                    // Its advert left a while ago, and nobody knows who heard it.
                    self.watch.obstruct_all(node, self.now);
                    self.store(node, word, held, renewal);
                }
            }
            What::Staged { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].agent != Agent::Dead {
                    self.command(node, Command::Tell(Event::Staged));
                }
            }
            What::Resign { node, life, former } => self.resign(node, life, former),
            What::Act(node, act) => self.carry_out_act(node, *act),
        }
    }

    /// The runtime asks something of the driver.
    pub(crate) fn command(&mut self, node: usize, command: Command) {
        self.nodes[node].commands.push_back(command);
        self.turn(node);
    }

    fn arrive(&mut self, frame: Frame) {
        let to = usize::from(frame.to);
        let node = &mut self.nodes[to];
        if frame.from == ROGUE {
            self.watch.stranger_arrived(to, self.now);
        }
        if node.host == Host::Off || node.agent == Agent::Dead {
            return;
        }
        if !node.has_room() {
            self.lose(&frame, "the socket is full");
            return;
        }
        node.inbox.push_back(frame);
        let unheeded = node.has_asked() && frame.is_question() && (frame.from < frame.to || frame.family > 0);
        if frame.from != ROGUE && !unheeded {
            self.watch.arrived(&frame);
        }
        if self.lateness.is_zero() {
            self.turn(to);
        } else if self.nodes[to].acts(self.now) {
            let at = self.now + self.noise.span(self.lateness);
            self.wake(to, at);
        }
    }

    pub(crate) fn lose(&mut self, frame: &Frame, why: &str) {
        if frame.from != ROGUE {
            self.watch.lost(frame, self.now);
            if self.variation.traced {
                let (to, priority) = (frame.to, frame.priority);
                self.note(
                    usize::from(frame.from),
                    &format!("priority {priority} does not reach n{to}: {why}"),
                );
            }
        }
    }

    /// Sends to all others in one family, at a time that may lie ahead.
    pub(crate) fn broadcast(&mut self, frame: Frame, at: Instant) {
        let from = usize::from(frame.from);
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            if self.nodes[to].absent {
                continue;
            }
            let frame = Frame { to: to as u8, ..frame };
            if self.blocked[from][to] {
                self.lose(&frame, "cut off");
            } else if self.noise.permille(self.link.loss_permille) {
                self.lose(&frame, "lost");
            } else {
                self.plan_arrival(frame, at);
                if self.noise.permille(self.link.duplicate_permille) {
                    self.plan_arrival(frame, at);
                }
            }
        }
    }

    fn plan_arrival(&mut self, frame: Frame, at: Instant) {
        let shortest = self.link.shortest;
        let delay = shortest + self.noise.span(self.link.longest - shortest);
        self.agenda.plan(at + delay, What::Arrive(frame));
    }

    /// The word becomes this in the kernel.
    pub(crate) fn store(&mut self, node: usize, word: MonotonicTime, held: bool, renewal: Option<Renewal>) {
        if let Some(renewal) = &renewal {
            self.check_revival(node, word, renewal);
        }
        let now = self.now;
        let node = &mut self.nodes[node];
        let ends = if word == MonotonicTime::ZERO { now } else { node.clock.shows(word, now) };
        node.word = Word { until: word, ends, held };
        if let Some(renewal) = renewal {
            node.renewal = renewal;
        }
    }

    /// Wakes an agent at a time, or earlier if it wakes by itself.
    pub(crate) fn wake(&mut self, node: usize, at: Instant) {
        if at < self.nodes[node].wakes_at {
            self.nodes[node].wakes_at = at;
            self.agenda.plan(at, What::Wake(node));
        }
    }

    /// A new agent, whose word is clear.
    pub(crate) fn start(&mut self, node: usize, parameters: Parameters) {
        let node = &mut self.nodes[node];
        node.agent = Agent::Running;
        node.life += 1;
        node.word = Word::CLEAR;
        node.promised = MonotonicTime::ZERO;
        node.machine = Machine::new(parameters);
        node.parameters = parameters;
        node.refused = 0;
        node.ending = false;
        node.busy_until = Instant::START;
    }

    /// The agent is gone; `tidily`: after it has taken the program out of the kernel.
    pub(crate) fn end(&mut self, node: usize, tidily: bool) {
        let node = &mut self.nodes[node];
        node.agent = Agent::Dead;
        node.life += 1;
        node.inbox.clear();
        node.commands.clear();
        node.busy_until = Instant::START;
        if tidily {
            node.word = Word::CLEAR;
        }
    }

    /// The machine's state.
    pub(crate) fn state(&self, node: usize) -> State {
        self.nodes[node].machine.state()
    }

    /// Writes a line down if this run is traced: when, who, in which state (`*`: it answers), what.
    pub(crate) fn note(&mut self, node: usize, what: &str) {
        if self.variation.traced {
            let router = &self.nodes[node];
            let answers = if router.answers(self.now) { '*' } else { ' ' };
            let state = match (router.host, router.agent) {
                (Host::Off, _) => "off".to_owned(),
                (Host::Paused, _) => "paused".to_owned(),
                (Host::Up, Agent::Dead) => "dead".to_owned(),
                (Host::Up, Agent::Stopped) => "stopped".to_owned(),
                (Host::Up, Agent::Running) => format!("{:?}", router.machine.state()).to_lowercase(),
            };
            let priority = router.parameters.priority;
            self.trace.push(format!(
                "{:>13.6} ms  n{node} {priority:>3} {answers} {state:<10} {what}",
                self.now.millis()
            ));
        }
    }
}
