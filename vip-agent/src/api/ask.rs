//! Questions to the agent: bounded in number, time and frequency, whoever asks and however often.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::metrics::Snapshot;
use crate::status::Status;

/// Questions that wait for the agent.
pub(super) const WAITING: usize = 4;

/// How long an answer is awaited: longer than the driver may take for one, shorter than a scrape's usual time-out.
const PATIENCE: Duration = Duration::from_secs(5);

/// How old an answer may be that is given again: each costs the driver a question for every instance.
const FRESH: Duration = Duration::from_millis(100);

/// A question, with the place for its answer.
#[derive(Debug)]
pub enum Ask {
    /// How everything is.
    Status(oneshot::Sender<Status>),
    /// All that is counted.
    Metrics(oneshot::Sender<Snapshot>),
    /// Whether all that was configured is in place.
    Readiness(oneshot::Sender<Readiness>),
}

/// Whether the configuration is applied, the program attached wherever an instance needs it, and every instance past
/// Initialize.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What is missing, for people; ready if nothing is.
    pub missing: Vec<String>,
}

/// What the agent has to answer.
#[derive(Debug)]
pub struct Asks(mpsc::Receiver<Ask>);

impl Asks {
    pub(super) fn new(questions: mpsc::Receiver<Ask>) -> Self {
        Self(questions)
    }

    /// The next question. Never, once nobody can ask.
    pub async fn next(&mut self) -> Ask {
        match self.0.recv().await {
            Some(ask) => ask,
            None => std::future::pending().await,
        }
    }
}

/// The agent did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent's runtime does not answer: it is busy, or hangs (see /healthz)")]
pub(super) struct NoAnswer;

/// The other end: who asks.
#[derive(Debug)]
pub(super) struct Agent {
    asks: mpsc::Sender<Ask>,
    patience: Duration,
    status: Recent<Status>,
    metrics: Recent<Snapshot>,
    readiness: Recent<Readiness>,
}

impl Agent {
    pub(super) fn new(asks: mpsc::Sender<Ask>) -> Self {
        let (status, metrics, readiness) = (Recent::default(), Recent::default(), Recent::default());
        Self { asks, patience: PATIENCE, status, metrics, readiness }
    }

    pub(super) async fn status(&self) -> Result<Arc<Status>, NoAnswer> {
        self.within(self.status.get(&self.asks, Ask::Status)).await
    }

    pub(super) async fn metrics(&self) -> Result<Arc<Snapshot>, NoAnswer> {
        self.within(self.metrics.get(&self.asks, Ask::Metrics)).await
    }

    pub(super) async fn readiness(&self) -> Result<Arc<Readiness>, NoAnswer> {
        self.within(self.readiness.get(&self.asks, Ask::Readiness)).await
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, NoAnswer>>) -> Result<T, NoAnswer> {
        timeout(self.patience, answer).await.unwrap_or(Err(NoAnswer))
    }
}

/// The last answer to one kind of question. Whoever asks while somebody does waits for that answer.
#[derive(Debug)]
struct Recent<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Recent<T> {
    async fn get(
        &self,
        asks: &mpsc::Sender<Ask>,
        question: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<Arc<T>, NoAnswer> {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(answer));
        }
        let (answer, answered) = oneshot::channel();
        // From before it is asked: an answer shows what was so then, or later.
        let at = Instant::now();
        asks.send(question(answer)).await.map_err(|_| NoAnswer)?;
        let answer = Arc::new(answered.await.map_err(|_| NoAnswer)?);
        *last = Some((at, Arc::clone(&answer)));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(missing: &str) -> Readiness {
        Readiness { missing: vec![missing.to_owned()] }
    }

    /// Answers every question, the first one by "1" and so on.
    async fn answer_all(mut asks: Asks) {
        for number in 1.. {
            let Ask::Readiness(answer) = asks.next().await else { return };
            let _ = answer.send(readiness(&number.to_string()));
        }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_cost_one_question() {
        let (sender, questions) = mpsc::channel(WAITING);
        tokio::spawn(answer_all(Asks::new(questions)));
        let agent = Arc::new(Agent::new(sender));
        let ask = |agent: Arc<Agent>| async move { agent.readiness().await.map(|answer| (*answer).clone()) };
        let asking: Vec<_> = (0..50).map(|_| tokio::spawn(ask(Arc::clone(&agent)))).collect();
        for answer in asking {
            assert_eq!(answer.await.unwrap(), Ok(readiness("1")));
        }
        tokio::time::sleep(FRESH).await;
        assert_eq!(ask(agent).await, Ok(readiness("2")));
    }

    #[tokio::test]
    async fn an_agent_that_hangs_is_not_waited_for_for_ever() {
        let (sender, questions) = mpsc::channel(WAITING);
        let agent = Agent { patience: Duration::from_millis(20), ..Agent::new(sender) };
        assert_eq!(agent.readiness().await, Err(NoAnswer));
        assert_eq!(agent.readiness().await, Err(NoAnswer));
        drop(questions);
        assert_eq!(agent.readiness().await, Err(NoAnswer));
    }
}
