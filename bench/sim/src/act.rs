//! What operators, kernels, hypervisors and cables do to routers.

use std::fmt;
use std::time::Duration;

use vip_agent::types::MonotonicTime;
use vip_agent::vrrp::machine::{Event, Parameters};

use crate::network::{Network, ROGUE, What};
use crate::node::{Agent, Command, Frame, Host};
use crate::time::Instant;

/// The longest that a watcher takes to learn of its agent's death.
const LONGEST_NOTICE: Duration = Duration::from_millis(2);

/// After which it says priority 0 again, as production's does.
const AGAIN_AFTER: Duration = Duration::from_micros(500);

/// One of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// SIGKILL; `watched`: a watcher says what the agent no longer can.
    Kill { watched: bool },
    /// SIGSTOP.
    Stop,
    /// The machine is paused as a whole.
    Pause,
    /// The machine loses its power.
    PowerOff,
    /// Whatever it takes to have a running agent again: power, SIGCONT, a new agent.
    Revive,
    /// Something for the machine; [`Event::Shutdown`] ends the agent when its handover is done.
    Tell(Event),
    /// SIGHUP with another priority or interval.
    Reconfigure(Parameters),
    /// A repeat of the announcements is asked for.
    AnnounceAgain,
    /// A host firewall refuses what the families send.
    Mute([bool; 2]),
    /// Messages to this router no longer arrive, or do again.
    Block { to: usize, blocked: bool },
    /// Frames of somebody who is no router of ours.
    Flood { frames: u32, gap: Duration, priority: u8 },
}

impl Act {
    /// Whether it happens to a process or machine, which may be in the middle of something.
    fn interrupts(&self) -> bool {
        matches!(self, Self::Kill { .. } | Self::Stop | Self::Pause | Self::PowerOff)
    }
}

impl Network {
    /// Does something to a router, unless this run is one without that.
    pub(crate) fn act(&mut self, node: usize, act: Act) {
        let number = self.acts;
        self.acts += 1;
        if self.nodes[node].absent || self.variation.without_acts.contains(&number) {
            return;
        }
        self.carry_out_act(node, act);
    }

    pub(crate) fn carry_out_act(&mut self, node: usize, act: Act) {
        let busy_until = self.nodes[node].busy_until;
        if act.interrupts() && busy_until > self.now {
            self.agenda.plan(busy_until, What::Act(node, Box::new(act)));
            return;
        }
        if self.variation.traced {
            self.note(node, &act.to_string());
        }
        self.watch.obstruct_all(node, self.now);
        match act {
            Act::Kill { watched } => self.kill(node, watched),
            Act::Stop => self.stop(node),
            Act::Pause => self.pause(node),
            Act::PowerOff => {
                self.resume(node);
                self.end(node, true);
                self.nodes[node].host = Host::Off;
            }
            Act::Revive => self.revive(node),
            Act::Tell(event) => self.tell(node, event),
            Act::Reconfigure(parameters) => {
                self.watch.interval_in_use(parameters.interval.duration());
                self.if_alive(node, Command::Reconfigure(parameters));
            }
            Act::AnnounceAgain => self.if_alive(node, Command::AnnounceAgain),
            Act::Mute(muted) => self.nodes[node].muted = muted,
            Act::Block { to, blocked } => self.blocked[node][to] = blocked,
            Act::Flood { frames, gap, priority } => self.flood(node, frames, gap, priority),
        }
    }

    fn if_alive(&mut self, node: usize, command: Command) {
        if self.nodes[node].agent != Agent::Dead && !self.nodes[node].ending {
            self.command(node, command);
        }
    }

    fn tell(&mut self, node: usize, event: Event) {
        self.if_alive(node, Command::Tell(event));
        if event == Event::Shutdown {
            self.nodes[node].ending = true;
            self.turn(node);
        }
    }

    fn kill(&mut self, node: usize, watched: bool) {
        let alive = self.nodes[node].agent != Agent::Dead;
        self.end(node, false);
        if watched && alive && self.nodes[node].host == Host::Up {
            let at = self.now + self.noise.span(LONGEST_NOTICE);
            let life = self.nodes[node].life;
            self.agenda.plan(at, What::Resign { node, life, former: None });
        }
    }

    /// As production's watcher: silence first, then priority 0, and once more, unless another agent has begun.
    pub(crate) fn resign(&mut self, node: usize, life: u32, former: Option<Instant>) {
        let router = &self.nodes[node];
        if router.life != life || router.host != Host::Up {
            return;
        }
        let until = former.unwrap_or(router.word.ends);
        if former.is_none() {
            self.store(node, MonotonicTime::ZERO, false, None);
            self.agenda.plan(self.now + AGAIN_AFTER, What::Resign { node, life, former: Some(until) });
        }
        if until <= self.now {
            return;
        }
        self.note(node, "its watcher says priority 0");
        let (interval, muted) = (self.nodes[node].parameters.interval, self.nodes[node].muted);
        for family in (0..self.families).filter(|family| !muted[*family]) {
            let (from, family) = (node as u8, family as u8);
            let frame = Frame { from, to: from, family, priority: 0, interval, decided: self.now };
            self.broadcast(frame, self.now);
        }
    }

    fn stop(&mut self, node: usize) {
        if self.nodes[node].agent == Agent::Running {
            self.nodes[node].agent = Agent::Stopped;
        }
    }

    fn pause(&mut self, node: usize) {
        let now = self.now;
        let node = &mut self.nodes[node];
        if node.host == Host::Up {
            node.host = Host::Paused;
            node.clock.stop(now);
            // Until when it was paused, once that is known.
            node.paused_at = now;
        }
    }

    fn resume(&mut self, node: usize) {
        let now = self.now;
        let node = &mut self.nodes[node];
        if node.host == Host::Paused {
            node.host = Host::Up;
            node.clock.go_on(now);
            node.renewal.paused += now.since(node.paused_at);
            node.word.ends = if node.word.ends <= node.paused_at {
                node.word.ends
            } else {
                node.clock.shows(node.word.until, now)
            };
        }
    }

    fn revive(&mut self, node: usize) {
        self.resume(node);
        self.nodes[node].host = Host::Up;
        match self.nodes[node].agent {
            Agent::Running => self.turn(node),
            Agent::Stopped => {
                self.nodes[node].agent = Agent::Running;
                self.turn(node);
            }
            Agent::Dead => {
                self.start(node, self.nodes[node].parameters);
                self.command(node, Command::Tell(Event::Startup));
            }
        }
    }

    fn flood(&mut self, to: usize, frames: u32, gap: Duration, priority: u8) {
        let interval = self.nodes[to].parameters.interval;
        for number in 0..frames {
            let frame =
                Frame { from: ROGUE, to: to as u8, family: 0, priority, interval, decided: Instant::START };
            self.agenda.plan(self.now + gap * number, What::Arrive(frame));
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { watched: false } => f.write_str("SIGKILL"),
            Self::Kill { watched: true } => f.write_str("SIGKILL, and its watcher lives"),
            Self::Stop => f.write_str("SIGSTOP"),
            Self::Pause => f.write_str("the machine is paused"),
            Self::PowerOff => f.write_str("the power fails"),
            Self::Revive => f.write_str("runs (again)"),
            Self::Tell(event) => write!(f, "asked: {event:?}"),
            Self::Reconfigure(parameters) => {
                let Parameters { priority, interval, preempt, preempt_delay, .. } = parameters;
                write!(
                    f,
                    "reload: priority {priority}, {interval}, preempt: {preempt} after {preempt_delay:?}"
                )
            }
            Self::AnnounceAgain => f.write_str("asked to announce"),
            Self::Mute([false, false]) => f.write_str("sends are accepted"),
            Self::Mute(families) => write!(f, "sends are refused: {families:?}"),
            Self::Block { to, blocked: true } => write!(f, "no longer reaches n{to}"),
            Self::Block { to, blocked: false } => write!(f, "reaches n{to} again"),
            Self::Flood { frames, gap, priority } => {
                write!(f, "a stranger sends it {frames} adverts of priority {priority}, {gap:?} apart")
            }
        }
    }
}
