//! A few machines, their agents and the links between them, on a virtual clock.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::Duration;

use vip_agent::types::{AdvertInterval, Centiseconds, MonotonicTime, Priority};
use vip_agent::vrrp::machine::{
    Action, Cause, Event, LEASE_INTERVALS, Machine, Output, Parameters, PeerAdvert, State,
};

/// Longest time that an advertisement is under way.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_micros(200);

/// SplitMix64: the same numbers for the same seed, on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `below` - 1.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        (self.next() % below as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub(crate) fn span(&mut self, longest: Duration) -> Duration {
        Duration::from_nanos(self.next() % (longest.as_nanos() as u64 + 1))
    }
}

/// The agent's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Running,
    /// SIGSTOP: the kernel goes on answering by the word, and queues what arrives.
    Stopped,
    /// kill -9: the word stays.
    Killed,
}

pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) parameters: Parameters,
    pub(crate) process: Process,
    /// Until when the kernel answers.
    pub(crate) word: MonotonicTime,
    /// When and why it last became an owner.
    pub(crate) took_over: (MonotonicTime, Cause),
    pub(crate) announced: MonotonicTime,
    /// Its host's firewall refuses its advertisements.
    pub(crate) muted: bool,
    queue: Vec<Event>,
    staging: Option<Duration>,
    staged_at: MonotonicTime,
}

impl Node {
    pub(crate) fn owns(&self, now: MonotonicTime) -> bool {
        self.word > now
    }

    fn next_event(&self) -> MonotonicTime {
        match self.process {
            Process::Running => self.machine.next_timer().min(self.staged_at),
            Process::Stopped | Process::Killed => MonotonicTime::NEVER,
        }
    }
}

struct Packet {
    arrives: MonotonicTime,
    to: usize,
    advert: PeerAdvert,
}

pub(crate) struct Network {
    pub(crate) random: Random,
    pub(crate) now: MonotonicTime,
    pub(crate) nodes: Vec<Node>,
    pub(crate) interval: Centiseconds,
    pub(crate) loss_percent: usize,
    /// `blocked[from][to]`
    pub(crate) blocked: Vec<Vec<bool>>,
    packets: Vec<Packet>,
    tracing: bool,
}

impl Network {
    /// Two to five routers (or as many as told) of priorities far enough apart that skews differ by more than a delay.
    pub(crate) fn new(seed: u64, count: Option<usize>, tracing: bool) -> Self {
        let mut random = Random(seed);
        let interval = Centiseconds::new(random.of(&[1, 10, 100])).expect("in range");
        let preempt = random.chance(70);
        let count = count.unwrap_or_else(|| 2 + random.below(4));
        let mut priorities = vec![250_u8, 200, 150, 100, 50];
        let staging = random.of(&[None, Some(Some(500)), Some(Some(30_000)), Some(None)]);
        let nodes: Vec<Node> = (0..count)
            .map(|_| {
                let priority = priorities.remove(random.below(priorities.len()));
                let parameters = Parameters {
                    priority: Priority::new(priority).expect("in range"),
                    interval: interval.into(),
                    preempt,
                    preempt_delay: Duration::ZERO,
                    hold_down: Duration::ZERO,
                    staging: staging.is_some(),
                    announce_repeat: 2,
                    announce_interval: Duration::from_millis(1100),
                    announce_refresh: None,
                };
                Node {
                    machine: Machine::new(parameters),
                    parameters,
                    process: Process::Running,
                    word: MonotonicTime::ZERO,
                    took_over: (MonotonicTime::ZERO, Cause::Startup),
                    announced: MonotonicTime::ZERO,
                    muted: false,
                    queue: Vec::new(),
                    staging: staging.flatten().map(Duration::from_micros),
                    staged_at: MonotonicTime::NEVER,
                }
            })
            .collect();
        let mut network = Self {
            random,
            now: MonotonicTime(1_000_000_000),
            blocked: vec![vec![false; nodes.len()]; nodes.len()],
            nodes,
            interval,
            loss_percent: 0,
            packets: Vec::new(),
            tracing,
        };
        for node in 0..count {
            network.event(node, Event::Startup);
        }
        network
    }

    /// One interval, as time.
    pub(crate) fn interval(&self) -> Duration {
        self.interval.duration()
    }

    /// Who answers now.
    pub(crate) fn owners(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].owns(self.now)).collect()
    }

    /// The priority of a router as a number.
    pub(crate) fn priority(&self, node: usize) -> u8 {
        self.nodes[node].parameters.priority.get()
    }

    /// Lets time go by; `check` sees the network after everything that happens.
    pub(crate) fn run(
        &mut self,
        span: Duration,
        mut check: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = self.now + span;
        while self.step(end) {
            check(self)?;
        }
        self.now = end;
        check(self)
    }

    /// Goes on to the next thing that happens, if it does by `end`.
    pub(crate) fn step(&mut self, end: MonotonicTime) -> bool {
        let packet = self.packets.iter().map(|packet| packet.arrives).min().unwrap_or(MonotonicTime::NEVER);
        let timers = self.nodes.iter().map(Node::next_event).enumerate();
        let (node, timer) = timers.min_by_key(|(_, at)| *at).unwrap_or((0, MonotonicTime::NEVER));
        if timer.min(packet) > end {
            return false;
        }
        self.now = self.now.max(timer.min(packet));
        // What has arrived is read before a timer is acted on.
        if packet <= timer {
            self.deliver();
        } else {
            self.wake(node);
        }
        true
    }

    /// Something happens to a router's machine, now or when it runs again.
    pub(crate) fn event(&mut self, node: usize, event: Event) {
        match self.nodes[node].process {
            Process::Running => {
                let output = self.nodes[node].machine.handle(event, self.now);
                self.trace(node, || format!("{event:?} -> {:?}", output.actions));
                self.carry_out(node, &output);
            }
            Process::Stopped => self.nodes[node].queue.push(event),
            Process::Killed => {}
        }
    }

    /// Some router leaves that a router had not heard before. One that must not preempt, and has just taken over without
    /// having heard anybody, would give the VIPs back to the first lower owner that it meets; not so from now on.
    pub(crate) fn acquaint(&mut self, node: usize) {
        let sender = IpAddr::from([10, 0, 0, 200]);
        let advert = PeerAdvert {
            priority: 0,
            interval: AdvertInterval::V3(self.interval),
            address: Ordering::Less,
            sender,
        };
        self.event(node, Event::Advert(advert));
    }

    pub(crate) fn stop(&mut self, node: usize) {
        if self.nodes[node].process == Process::Running {
            self.trace(node, || "SIGSTOP".into());
            self.nodes[node].process = Process::Stopped;
        }
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.trace(node, || "kill -9".into());
        self.nodes[node].process = Process::Killed;
        self.nodes[node].queue.clear();
        self.nodes[node].staged_at = MonotonicTime::NEVER;
    }

    /// SIGCONT, or a new agent: which starts with a word that is clear.
    pub(crate) fn revive(&mut self, node: usize) {
        self.trace(node, || "runs again".into());
        let before = std::mem::replace(&mut self.nodes[node].process, Process::Running);
        if before == Process::Killed {
            self.nodes[node].word = MonotonicTime::ZERO;
            self.nodes[node].machine = Machine::new(self.nodes[node].parameters);
            self.event(node, Event::Startup);
        }
        for event in std::mem::take(&mut self.nodes[node].queue) {
            self.event(node, event);
        }
    }

    fn wake(&mut self, node: usize) {
        let staged_at = &mut self.nodes[node].staged_at;
        if *staged_at <= self.now {
            *staged_at = MonotonicTime::NEVER;
            self.event(node, Event::Staged);
        }
        if self.nodes[node].machine.next_timer() <= self.now {
            self.event(node, Event::Timer);
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (arrived, under_way) =
            std::mem::take(&mut self.packets).into_iter().partition(|packet: &Packet| packet.arrives <= now);
        self.packets = under_way;
        for packet in arrived {
            self.event(packet.to, Event::Advert(packet.advert));
        }
    }

    fn send(&mut self, from: usize, priority: u8) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            if self.blocked[from][to] || self.random.chance(self.loss_percent) {
                self.trace(from, || format!("priority {priority} to {to} is lost"));
                continue;
            }
            let arrives = self.now + self.random.span(LONGEST_DELAY);
            let sender = IpAddr::from([10, 0, 0, u8::try_from(from).expect("few routers")]);
            let advert =
                PeerAdvert { priority, interval: self.interval.into(), address: from.cmp(&to), sender };
            self.packets.push(Packet { arrives, to, advert });
        }
    }

    /// As the driver does.
    fn carry_out(&mut self, node: usize, output: &Output) {
        let now = self.now;
        let muted = self.nodes[node].muted;
        if let Some(transition) = output.transition.filter(|transition| transition.to == State::Active) {
            self.nodes[node].took_over = (now, transition.cause);
        }
        for action in &output.actions {
            match *action {
                Action::Advertise if muted => {
                    self.event(node, Event::AdvertFailed);
                    return;
                }
                Action::Advertise => {
                    self.send(node, self.priority(node));
                    self.nodes[node].word = now + self.interval() * LEASE_INTERVALS;
                    self.event(node, Event::AdvertSent(now));
                }
                Action::AdvertiseLeaving if !muted => self.send(node, 0),
                Action::AdvertiseYielding if !muted => self.send(node, self.priority(node)),
                Action::Ask if !muted => self.send(node, 1),
                Action::HoldLease(until) if muted => {
                    self.nodes[node].word = self.nodes[node].word.min(until);
                    self.event(node, Event::AdvertFailed);
                }
                Action::HoldLease(until) => self.nodes[node].word = until,
                Action::Release => self.nodes[node].word = MonotonicTime::ZERO,
                Action::Announce => self.nodes[node].announced = now,
                Action::Stage => {
                    let delay = self.nodes[node].staging;
                    self.nodes[node].staged_at = delay.map_or(MonotonicTime::NEVER, |delay| now + delay);
                }
                Action::Unstage | Action::UnstageAfterGrace => {
                    self.nodes[node].staged_at = MonotonicTime::NEVER;
                }
                Action::AdvertiseLeaving
                | Action::AdvertiseYielding
                | Action::Ask
                | Action::ForwardToFormer
                | Action::ForwardNothing => {}
            }
        }
    }

    pub(crate) fn trace(&self, node: usize, what: impl FnOnce() -> String) {
        if self.tracing {
            let owns = if self.nodes[node].owns(self.now) { '*' } else { ' ' };
            let ms = self.now.0 as f64 / 1e6;
            eprintln!("{ms:>14.6} ms  {node} ({}){owns} {}", self.priority(node), what());
        }
    }
}
