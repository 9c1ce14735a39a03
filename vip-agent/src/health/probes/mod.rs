//! Probers: a task for each probe that has to ask, again and again.
//!
//! Nobody waits for anybody: a question has a deadline of its own, and the next is put when its time has come, whatever
//! became of the last. What may hang in the kernel (files, name resolution) does so in a thread of its own, of which a
//! probe has a few at most; nothing here keeps the agent from ending.

mod background;
mod exec;
mod file;
mod http;
mod preset;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::tracker::Round;
use super::verdict::Outcome;
use crate::config::{Check, Polling, Probe, Question};
use crate::types::MonotonicTime;

/// Questions of one probe that may be open at once, where its time-out is longer than its interval.
const MOST_OPEN: usize = 8;

/// Rounds that may wait to be judged. A runtime that is behind slows the probers down, and verdicts expire.
const QUEUE: usize = 64;

/// All probers.
#[derive(Debug)]
pub struct Probers {
    running: BTreeMap<String, Running>,
    /// Ends them all when it is dropped, and with each what it has begun.
    tasks: JoinSet<()>,
    tell: mpsc::Sender<(u64, Arc<str>, Round)>,
    told: mpsc::Receiver<(u64, Arc<str>, Round)>,
    /// Tells a prober from an earlier one of the same name, whose last round may be on its way.
    last_number: u64,
}

#[derive(Debug)]
struct Running {
    number: u64,
    question: Question,
    polling: Polling,
    task: AbortHandle,
}

impl Default for Probers {
    fn default() -> Self {
        let (tell, told) = mpsc::channel(QUEUE);
        Self { running: BTreeMap::new(), tasks: JoinSet::new(), tell, told, last_number: 0 }
    }
}

impl Probers {
    /// Asks for these probes from now on; those that are the same as before are left alone. To be called within the tokio
    /// runtime.
    pub fn set(&mut self, probes: &[Probe]) {
        let mut before = std::mem::take(&mut self.running);
        for probe in probes {
            let Check::Polled(question, polling) = &probe.check else { continue };
            let same = |running: &Running| running.question == *question && running.polling == *polling;
            let running = match before.remove(probe.name()) {
                Some(running) if same(&running) => running,
                other => {
                    other.inspect(|running| running.task.abort());
                    self.start(probe.name(), question, *polling)
                }
            };
            self.running.insert(probe.name().to_owned(), running);
        }
        before.values().for_each(|gone| gone.task.abort());
        while self.tasks.try_join_next().is_some() {}
    }

    fn start(&mut self, name: &str, question: &Question, polling: Polling) -> Running {
        self.last_number += 1;
        let number = self.last_number;
        let prober = Prober {
            name: name.into(),
            number,
            polling,
            asker: Arc::new(Asker::new(name, question)),
            tell: self.tell.clone(),
            dice: RandomState::new(),
        };
        let task = self.tasks.spawn(prober.run());
        Running { number, question: question.clone(), polling, task }
    }

    /// What the next question came to, and of which probe. Waits for ever if there is none.
    pub async fn round(&mut self) -> (Arc<str>, Round) {
        loop {
            match self.told.recv().await {
                Some((number, name, round)) => {
                    if self.running.get(&*name).is_some_and(|running| running.number == number) {
                        return (name, round);
                    }
                }
                // Not while `tell` lives.
                None => std::future::pending().await,
            }
        }
    }
}

/// One probe's task.
struct Prober {
    name: Arc<str>,
    number: u64,
    polling: Polling,
    asker: Arc<Asker>,
    tell: mpsc::Sender<(u64, Arc<str>, Round)>,
    dice: RandomState,
}

impl Prober {
    async fn run(self) {
        let mut open = JoinSet::new();
        let mut asked = 0_u64;
        let mut due = Instant::now();
        loop {
            let put_off = self.jitter(asked);
            tokio::select! {
                Some(round) = open.join_next(), if !open.is_empty() => {
                    let round = round.unwrap_or_else(|error| {
                        // A probe that panics is down, and no reason to end.
                        let now = MonotonicTime::now();
                        let outcome = Outcome::Down(format!("the probe itself failed: {error}"));
                        Round { outcome, began: now, ended: now }
                    });
                    if self.tell.send((self.number, Arc::clone(&self.name), round)).await.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep_until(due + put_off) => {
                    let now = Instant::now();
                    due = next_due(due, now.checked_sub(put_off).unwrap_or(now), self.polling.interval);
                    asked += 1;
                    if open.len() < self.asker.most_open() {
                        open.spawn(ask(Arc::clone(&self.asker), self.polling.timeout));
                    }
                }
            }
        }
    }

    /// A part of the jitter, another one for each question.
    fn jitter(&self, question: u64) -> Duration {
        let most = u64::try_from(self.polling.jitter.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.dice.hash_one(question).checked_rem(most.max(1)).unwrap_or(0))
    }
}

/// When the next question is due: on schedule, but no sooner than half an interval after one that came late. Two answers that
/// are as good as one would be no row of two.
fn next_due(due: Instant, asked: Instant, interval: Duration) -> Instant {
    (due + interval).max(asked + interval / 2)
}

/// Asks once.
async fn ask(asker: Arc<Asker>, timeout: Duration) -> Round {
    let began = MonotonicTime::now();
    let limit = Limit { until: Instant::now() + timeout, timeout };
    let outcome = match asker.ask(limit).await {
        Ok(()) => Outcome::Up,
        Err(why) => Outcome::Down(why),
    };
    Round { outcome, began, ended: MonotonicTime::now() }
}

/// A deadline, and what it was made of.
#[derive(Clone, Copy, Debug)]
struct Limit {
    until: Instant,
    timeout: Duration,
}

impl Limit {
    /// Waits for something until the deadline; `what` says what was being done when it came.
    async fn on<T>(self, what: &str, work: impl Future<Output = T>) -> Result<T, String> {
        let late = |_| format!("no answer within {:?}: {what}", self.timeout);
        tokio::time::timeout_at(self.until, work).await.map_err(late)
    }
}

/// What one probe asks, with all that can be prepared.
#[derive(Debug)]
enum Asker {
    Http(Box<http::Asker>),
    Tcp(std::net::SocketAddr),
    Exec(exec::Asker),
    File(file::Asker),
    /// Something that is missing on this node.
    Never(String),
}

impl Asker {
    fn new(name: &str, question: &Question) -> Self {
        match question {
            Question::Http(http) => Self::Http(Box::new(http::Asker::new((**http).clone()))),
            Question::Tcp(address) => Self::Tcp(*address),
            Question::TcpPort(port) => {
                Self::Never(format!("port {port} is a backend's, and no backend names this probe"))
            }
            Question::Exec(command) => Self::Exec(exec::Asker::new(name, command.clone())),
            Question::File(path) => Self::File(file::Asker::new(path.clone())),
            Question::Preset(preset) => match preset::request(*preset, |name| std::env::var(name).ok()) {
                Ok(http) => Self::Http(Box::new(http::Asker::new(http))),
                Err(why) => Self::Never(why),
            },
        }
    }

    /// Two of the same command at once would be in each other's way, and a second look at a file that hangs tells nothing.
    fn most_open(&self) -> usize {
        match self {
            Self::Http(_) | Self::Tcp(_) => MOST_OPEN,
            Self::Exec(_) | Self::File(_) | Self::Never(_) => 1,
        }
    }

    async fn ask(&self, limit: Limit) -> Result<(), String> {
        match self {
            Self::Http(asker) => asker.ask(limit).await,
            Self::Tcp(address) => tcp::connect(*address, limit).await.map(drop),
            Self::Exec(asker) => asker.ask(limit).await,
            Self::File(asker) => asker.ask(limit).await,
            Self::Never(why) => Err(why.clone()),
        }
    }
}
