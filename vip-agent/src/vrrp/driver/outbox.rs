//! The adverts that are due in one turn: by as few system calls as there are sockets, and each one's fate told to its
//! instance.

use arrayvec::ArrayVec;

use super::router::{Refusal, Work};
use super::routers::Routers;
use super::{InstanceId, Router, Shared};
use crate::types::MonotonicTime;
use crate::vrrp::prepared::PreparedAdverts;

/// Adverts that go out together at most, and so timers acted on per turn of the loop: between these and the next the queues
/// are read, in which there may be a reason not to act on the next.
pub(super) const MOST: usize = 64;

/// IPv4 and IPv6.
const FAMILIES: usize = 2;

pub(super) struct Outbox {
    /// Never more than [`MOST`], for which there is room from the start.
    waiting: Vec<Waiting>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { waiting: Vec::with_capacity(MOST) }
    }
}

/// An instance whose advert is to be sent, and what it does after that.
struct Waiting {
    id: InstanceId,
    work: Work,
    sent: Result<(), Refusal>,
}

/// Places among those that wait.
type Places = ArrayVec<usize, MOST>;

impl Outbox {
    /// Takes an instance in: [`MOST`] of them between two calls of [`Self::send`].
    pub(super) fn push(&mut self, id: InstanceId, work: Work) {
        self.waiting.push(Waiting { id, work, sent: Ok(()) });
    }

    /// Sends everything, family by family, and lets the instances go on.
    pub(super) fn send(&mut self, routers: &mut Routers, shared: &Shared) {
        for waiting in &mut self.waiting {
            if !routers.with(waiting.id, Router::sign).unwrap_or(false) {
                waiting.sent = Err(None);
            }
        }
        for round in 0..FAMILIES {
            self.send_round(round, routers);
        }
        for Waiting { id, work, sent } in self.waiting.drain(..) {
            routers.with(id, |router| router.advert_sent(work, sent, shared));
        }
    }

    /// Sends one family of each instance. Whoever was refused in one is not sent in the other.
    fn send_round(&mut self, round: usize, routers: &Routers) {
        let family = |waiting: &Waiting| routers.get(waiting.id)?.family_to_send(round);
        let mut left: Places = (0..self.waiting.len()).filter(|&at| self.waiting[at].sent.is_ok()).collect();
        while let Some(&first) = left.first() {
            let Some(sender) = family(&self.waiting[first]).map(|family| &family.sender) else {
                left.remove(0);
                continue;
            };
            let shares = |at: &usize| {
                family(&self.waiting[*at])
                    .is_some_and(|family| std::sync::Arc::ptr_eq(&family.sender, sender))
            };
            let (mut batch, others): (Places, Places) = left.into_iter().partition(shares);
            left = others;
            // Looked at before each system call: a thread that was stopped since the decision, perhaps between two families,
            // must not send any more. An heir that hears it now would yield to nobody.
            let now = MonotonicTime::now();
            batch.retain(|at| {
                let waiting = &mut self.waiting[*at];
                let in_time =
                    routers.get(waiting.id).is_some_and(|router| now < router.latest(&waiting.work));
                if !in_time {
                    waiting.sent = Err(None);
                }
                in_time
            });
            let adverts: ArrayVec<&PreparedAdverts, MOST> =
                batch.iter().filter_map(|&at| Some(&family(&self.waiting[at])?.adverts)).collect();
            sender.send_each(&adverts, |refused, error| {
                let sent = &mut self.waiting[batch[refused]].sent;
                // To several peers: the first refusal counts.
                if sent.is_ok() {
                    *sent = Err(Some(error));
                }
            });
        }
    }
}
