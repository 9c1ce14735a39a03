//! The work: follow the cluster that is wanted, compute, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use kube::Client;
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::allocator::{Allocator, seconds};
use crate::book::{Book, Change, Kind, Object};
use crate::connection::client;
use crate::events::Events;
use crate::lead::Candidate;
use crate::model::{Desired, Remark, Settings, desired};
use crate::owners;
use crate::publish::{self, Wanted};
use crate::trouble::{Said, Troubles};
use crate::watch;
use crate::watch::{Changes, OwnPod, Pauses, changes, kinds};

/// Between attempts to reach an API server that does not answer, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Changes that are taken together at most.
const BATCH: usize = 4096;
/// Objects in trouble that are logged at a time.
const MOST_LOGGED: usize = 20;

/// What is to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// The order's.
    pub(super) revision: u64,
    pub(super) settings: Settings,
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Of the order that it follows from.
    pub(super) revision: u64,
    /// What the cluster wants of this node, once all that counts was read.
    pub(super) desired: Option<Arc<Desired>>,
    /// What keeps it from being followed.
    pub(super) troubles: BTreeSet<String>,
}

/// Follows what is wanted, until nobody can want anything any more.
///
/// `owned`: the routers in which this node is Active.
pub(super) async fn run(
    mut wishes: Receiver<Option<Wish>>,
    owned: Receiver<BTreeSet<String>>,
    views: Sender<Known>,
) {
    let mut follower = Follower {
        book: Book::default(),
        views,
        owned,
        writes: Sender::new(Wanted::new()),
        owners: Sender::new(owners::Wanted::new()),
        troubles: BTreeMap::new(),
        unwritten: Said::new(),
        allocator: None,
        replan: false,
        events: None,
        connection: None,
        remarked: BTreeSet::new(),
    };
    loop {
        let wanted = wishes.borrow_and_update().clone();
        let ended = match wanted {
            None => wishes.changed().await.is_err(),
            Some(wish) => follower.session(wish, &mut wishes).await.is_err(),
        };
        if ended {
            return;
        }
    }
}

/// Nobody wants anything any more.
struct Ended;

/// Beside the agents' pods; where they are none, beside the ConfigMap.
fn candidate(settings: &Settings, own_pod: Option<OwnPod>) -> Candidate {
    let namespace = own_pod.map(|pod| pod.namespace);
    Candidate {
        namespace: namespace.unwrap_or_else(|| settings.kubernetes.configmap.namespace.clone()),
        // A process that was started anew is another one.
        identity: format!("{}_{}", settings.node, std::process::id()),
    }
}

async fn wake(allocator: &mut Option<Allocator>) {
    match allocator {
        Some(allocator) => allocator.wake().await,
        None => std::future::pending().await,
    }
}

struct Follower {
    book: Book,
    views: Sender<Known>,
    owned: Receiver<BTreeSet<String>>,
    /// What is to be written back.
    writes: Sender<Wanted>,
    /// Whose addresses this node is to be said to have.
    owners: Sender<owners::Wanted>,
    /// Why something cannot be written.
    unwritten: Said,
    /// While pools are followed.
    allocator: Option<Allocator>,
    /// Whether something has changed that allocation follows from: endpoints, which change most, are none of it.
    replan: bool,
    events: Option<Events>,
    /// Kinds that cannot be followed now.
    troubles: BTreeMap<Kind, String>,
    /// Why nothing can.
    connection: Option<String>,
    /// What was logged already.
    remarked: BTreeSet<Remark>,
}

impl Follower {
    /// Until something else is wanted.
    async fn session(&mut self, wish: Wish, wishes: &mut Receiver<Option<Wish>>) -> Result<(), Ended> {
        let Wish { mut revision, mut settings } = wish;
        self.troubles.clear();
        self.unwritten.clear();
        self.allocator = None;
        self.events = None;
        // With other settings it may be another cluster.
        self.book.begin([Kind::Nodes]);
        self.tell(revision, &settings);
        let (client, own_pod, mut changes) = tokio::select! {
            connected = self.connect(revision, &settings) => connected,
            changed = wishes.changed() => return changed.map_err(|_| Ended),
        };
        // It ends with this session.
        let (mut tasks, (said, mut refused)) = (JoinSet::new(), channel(Said::new()));
        let troubles = Troubles(said);
        self.writes = Sender::new(Wanted::new());
        self.owners = Sender::new(owners::Wanted::new());
        if settings.kubernetes.sources.pool {
            tasks.spawn(owners::run(client.clone(), self.owners.subscribe(), troubles.clone()));
            self.events = Some(Events::start(&client, &settings.node, &mut tasks, &troubles));
            let candidate = candidate(&settings, own_pod);
            self.allocator = Some(Allocator::start(&client, candidate, &settings, &mut tasks, &troubles));
        }
        tasks.spawn(publish::run(client, self.writes.subscribe(), troubles));
        loop {
            tokio::select! {
                changed = wishes.changed() => {
                    changed.map_err(|_| Ended)?;
                    // The caller looks at it again.
                    let wanted = wishes.borrow_and_update().clone();
                    match wanted {
                        Some(wanted) if wanted.settings.kubernetes == settings.kubernetes => {
                            (revision, settings) = (wanted.revision, wanted.settings);
                            self.tell(revision, &settings);
                        }
                        _ => return Ok(()),
                    }
                }
                Some(change) = changes.next() => {
                    self.note(change);
                    self.note_what_is_there(&mut changes);
                    self.tell(revision, &settings);
                }
                Ok(()) = self.owned.changed() => self.publish(&settings),
                () = wake(&mut self.allocator) => {
                    self.allocate(&settings);
                    self.publish(&settings);
                }
                Ok(()) = refused.changed() => {
                    self.unwritten = refused.borrow_and_update().clone();
                    self.unwritten.values().for_each(|why| tracing::warn!("Kubernetes: {why}"));
                    self.tell(revision, &settings);
                }
            }
        }
    }

    /// Tries until the API server can be spoken to.
    async fn connect(&mut self, revision: u64, settings: &Settings) -> (Client, Option<OwnPod>, Changes) {
        let kubernetes = &settings.kubernetes;
        let mut pauses = Pauses::new();
        loop {
            let why = match client(kubernetes).await {
                Err(error) => error.to_string(),
                Ok(client) => match OwnPod::find(&client).await {
                    Err(error) => format!("this agent's own pod (POD_NAME) cannot be read: {error}"),
                    Ok(own_pod) => {
                        self.book.begin(kinds(kubernetes, own_pod.as_ref()));
                        self.connection = None;
                        let changes = changes(&client, kubernetes, own_pod.as_ref());
                        return (client, own_pod, changes);
                    }
                },
            };
            if self.connection.as_ref() != Some(&why) {
                tracing::error!("Kubernetes cannot be followed, what is known of it stays: {why}");
                self.connection = Some(why);
                self.tell(revision, settings);
            }
            sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    fn note_what_is_there(&mut self, changes: &mut Changes) {
        for _ in 0..BATCH {
            let Some(Some(change)) = changes.next().now_or_never() else { return };
            self.note(change);
        }
    }

    fn note(&mut self, change: Change) {
        match &change {
            Change::Failed(kind, why) => {
                if self.troubles.get(kind) != Some(why) {
                    tracing::warn!("Kubernetes, what is known stays: {why}");
                    self.troubles.insert(*kind, why.clone());
                }
                return;
            }
            Change::Complete(kind) => {
                if self.troubles.remove(kind).is_some() {
                    tracing::info!("Kubernetes: {} can be followed again", kind.resource());
                }
            }
            Change::Is(_)
            | Change::Gone(..)
            | Change::Undefined(_)
            | Change::Listing(_)
            | Change::Listed(_) => {}
        }
        self.replan |= !matches!(change, Change::Is(Object::Slice(..)) | Change::Gone(Kind::Slices, _));
        self.book.note(change);
    }

    /// Computes what is wanted of this node, and says so if it is something new.
    fn tell(&mut self, revision: u64, settings: &Settings) {
        // Of each kind the book has a whole list then, be it an old one: what is yet to be listed anew counts as it was.
        let desired = self.book.is_complete().then(|| Arc::new(desired(&self.book.cluster, settings)));
        let troubles = self.connection.iter().chain(self.unwritten.values()).chain(self.troubles.values());
        let known = Known { revision, desired, troubles: troubles.cloned().collect() };
        if let Some(desired) = &known.desired {
            self.log(&desired.remarks);
        }
        self.views.send_if_modified(|former| {
            let differs = *former != known;
            *former = known;
            differs
        });
        self.publish(settings);
        if std::mem::take(&mut self.replan) {
            self.allocate(settings);
        }
    }

    /// Has allocated what is the leader's to allocate.
    fn allocate(&mut self, settings: &Settings) {
        if let Some(allocator) = self.allocator.as_mut().filter(|_| self.book.is_complete()) {
            let desired = self.views.borrow().desired.clone();
            let remarks = desired.as_ref().map_or(&[][..], |desired| desired.remarks.as_slice());
            allocator.look(&self.book.cluster, settings, remarks);
        }
    }

    /// Has written back what is this node's to write.
    fn publish(&mut self, settings: &Settings) {
        let owned = self.owned.borrow_and_update().clone();
        let desired = self.views.borrow().desired.clone();
        let cluster = &self.book.cluster;
        if let (true, Some(desired)) = (self.allocator.is_some(), &desired) {
            let owners = owners::wanted(desired, cluster, &owned, &settings.node, &seconds());
            self.owners.send_if_modified(|former| std::mem::replace(former, owners.clone()) != owners);
        }
        if let (Some(events), Some(allocator), Some(desired)) = (&mut self.events, &self.allocator, &desired)
        {
            events.note(cluster, desired, &owned, (allocator.leads_now(), &settings.node));
        }
        let wanted = desired.map_or_else(Wanted::new, |desired| publish::wanted(&desired, cluster, &owned));
        self.writes.send_if_modified(|former| {
            let differs = *former != wanted;
            *former = wanted;
            differs
        });
    }

    fn log(&mut self, remarks: &[Remark]) {
        let new = remarks.iter().filter(|remark| !self.remarked.contains(remark));
        new.clone().take(MOST_LOGGED).for_each(watch::log);
        let more = new.count().saturating_sub(MOST_LOGGED);
        if more > 0 {
            tracing::warn!("and {more} more objects of Kubernetes in trouble: `vip-agent status` lists them");
        }
        self.remarked = remarks.iter().cloned().collect();
    }
}
