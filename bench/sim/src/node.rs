//! A router: its host with a clock and a kernel that answers by the word, and the agent with the machine.

use std::collections::VecDeque;
use std::time::Duration;

use vip_agent::types::{MonotonicTime, Priority};
use vip_agent::vrrp::conduct::FRAMES_PER_WAKE;
use vip_agent::vrrp::machine::{Event, Machine, Parameters};

use crate::setup::{Interval, NodeSetup};
use crate::time::{Clock, Instant};

/// The agent's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agent {
    /// It does its work.
    Running,
    /// SIGSTOP: the kernel goes on answering by the word, and queues what arrives.
    Stopped,
    /// SIGKILL, or not started: the word stays as it is.
    Dead,
}

/// The machine that the agent runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// On.
    Up,
    /// Paused as a whole: its clock stops, and nobody answers.
    Paused,
    /// Without power.
    Off,
}

/// An advertisement under way, for one receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) from: u8,
    pub(crate) to: u8,
    /// 0 breaks ties.
    pub(crate) family: u8,
    pub(crate) priority: u8,
    pub(crate) interval: Interval,
    /// When its sender decided to send it.
    pub(crate) decided: Instant,
}

impl Frame {
    /// Whether it may be a question: an owner with the lowest priority says the same.
    pub(crate) fn is_question(&self) -> bool {
        self.priority == Priority::LOWEST.get()
    }
}

/// What the runtime asks of the driver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    Tell(Event),
    Reconfigure(Parameters),
    AnnounceAgain,
}

/// The ownership word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    /// As the kernel holds it, in the node's own time.
    pub(crate) until: MonotonicTime,
    /// When that is, unless it is stored again or the machine paused.
    pub(crate) ends: Instant,
    /// A leaving owner holds it, and said so.
    pub(crate) held: bool,
}

impl Word {
    pub(crate) const CLEAR: Self = Self { until: MonotonicTime::ZERO, ends: Instant::START, held: false };
}

/// The renewal that the word stems from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    pub(crate) decided: Instant,
    pub(crate) interval: Duration,
    /// For how long the machine was paused since.
    pub(crate) paused: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) setup: NodeSetup,
    pub(crate) parameters: Parameters,
    pub(crate) clock: Clock,
    pub(crate) host: Host,
    /// When the machine was paused last.
    pub(crate) paused_at: Instant,
    pub(crate) word: Word,
    /// The word once everything decided is carried out.
    pub(crate) promised: MonotonicTime,
    pub(crate) agent: Agent,
    /// Counts agents: what a dead one had begun comes to nothing.
    pub(crate) life: u32,
    pub(crate) machine: Machine,
    pub(crate) inbox: VecDeque<Frame>,
    pub(crate) commands: VecDeque<Command>,
    /// Its thread was stopped in the middle of something, until then.
    pub(crate) busy_until: Instant,
    pub(crate) wakes_at: Instant,
    /// The agent was told to end, and does once it is in Initialize.
    pub(crate) ending: bool,
    /// Which families its host's firewall refuses to send.
    pub(crate) muted: [bool; 2],
    /// As in the driver: the family that was refused last.
    pub(crate) refused: usize,
    pub(crate) renewal: Renewal,
    /// When it last began to wait as a Backup.
    pub(crate) listens_since: Instant,
    /// It gives the VIPs back, or did so last.
    pub(crate) gives_back: bool,
    /// When it last asked whether there is an owner.
    pub(crate) asked: Instant,
    pub(crate) announced: Instant,
    /// Takes no part in the run.
    pub(crate) absent: bool,
}

impl Node {
    pub(crate) fn new(setup: NodeSetup) -> Self {
        let clock = Clock::new(setup.clock_reading, setup.clock_error);
        Self {
            setup,
            parameters: setup.parameters,
            clock,
            host: Host::Up,
            paused_at: Instant::START,
            word: Word::CLEAR,
            promised: MonotonicTime::ZERO,
            agent: Agent::Dead,
            life: 0,
            machine: Machine::new(setup.parameters),
            inbox: VecDeque::with_capacity(16),
            commands: VecDeque::new(),
            busy_until: Instant::START,
            wakes_at: Instant::NEVER,
            ending: false,
            muted: [false; 2],
            refused: 0,
            renewal: Renewal { decided: Instant::START, interval: Duration::ZERO, paused: Duration::ZERO },
            listens_since: Instant::START,
            gives_back: false,
            asked: Instant::START,
            announced: Instant::START,
            absent: false,
        }
    }

    /// Whether a client's question is answered by this node.
    pub(crate) fn answers(&self, now: Instant) -> bool {
        self.answers_until(now) > now
    }

    /// Until when it answers, as things are.
    pub(crate) fn answers_until(&self, now: Instant) -> Instant {
        if self.host == Host::Up { self.word.ends } else { now }
    }

    /// Whether the agent can act.
    pub(crate) fn acts(&self, now: Instant) -> bool {
        self.host == Host::Up && self.agent == Agent::Running && self.busy_until <= now
    }

    /// Whether an owner of lower priority keeps the VIPs.
    pub(crate) fn defers(&self) -> bool {
        !self.parameters.preempt && self.parameters.priority != Priority::OWNER
    }

    /// Whether it has asked since it began to wait: of others that ask it heeds only greater addresses.
    pub(crate) fn has_asked(&self) -> bool {
        self.asked > self.listens_since
    }

    /// Whether nothing keeps the agent from being heard and from hearing.
    pub(crate) fn speaks(&self, now: Instant) -> bool {
        self.acts(now) && self.muted == [false; 2]
    }

    /// Whether a frame finds room; a socket's buffer holds fewer than are read at once.
    pub(crate) fn has_room(&self) -> bool {
        self.inbox.len() < FRAMES_PER_WAKE
    }
}
