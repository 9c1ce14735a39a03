//! Kubernetes: what a cluster's objects want of this node, as the process `vip-kube` tells it.
//!
//! ```text
//! API server ◄─► vip-kube ◄─ lines (vip-kube-protocol) ─► thread "kube" ─► agent: by the path that a reload takes
//!                                                                           │
//!                                            STATE_DIR/kubernetes.json: what a start comes up with
//! ```
//!
//! A process of its own, for two reasons. An HTTP client, a TLS stack and a hundred types of objects, spread over the agent's own
//! code, made three MiB more of it resident, also where no cluster is followed. And whatever an API server answers is read without
//! any privilege. Without `kubernetes` in the configuration neither it nor the thread is there. Nothing here is on the way of a failover: with
//! the process dead, hanging or missing all stays as it is.

mod child;
mod document;
mod follow;
mod merge;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};
use vip_kube_protocol::{Order, Remark};

use self::child::Logging;
pub(crate) use self::child::program;
pub use self::document::Document;
pub use self::merge::completed;
use self::merge::{order, renew};
use crate::config::Config;

/// What is known of the cluster, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// What it wants of this node.
    pub document: Arc<Document>,
    /// Whether that comes from the API server, and not from disk.
    pub in_sync: bool,
    /// What keeps it from being followed.
    pub troubles: BTreeSet<String>,
    /// Objects that do not get what they ask for.
    pub objects: Arc<Vec<Remark>>,
    /// The process that follows it, while there is one.
    pub pid: Option<u32>,
}

/// The agent's end. Dropping it ends the thread, and the process.
#[derive(Debug)]
pub struct Kube {
    running: Option<Running>,
    view: View,
    /// What was kept on disk last, or is about to be by `keeping`.
    kept: Arc<Document>,
    keeping: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Running {
    orders: watch::Sender<Order>,
    views: watch::Receiver<View>,
    /// Dropped: nobody wants anything any more.
    wanted: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kube {
    /// Starts nothing yet. `view`: what the configuration was completed by ([`with_last_known`]).
    pub fn new(view: View) -> Self {
        Self { running: None, kept: Arc::clone(&view.document), keeping: None, view }
    }

    /// Follows the cluster that a configuration file names, or none. `can_steer`: whether what steering takes is loaded.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn follow(&mut self, file: &Config, can_steer: bool) -> io::Result<()> {
        let Some(order) = order(file, can_steer) else {
            if self.running.take().is_some() {
                self.view = View { document: Arc::clone(&self.view.document), ..View::default() };
            }
            return Ok(());
        };
        match &self.running {
            None => self.running = Some(Running::start(order, self.view.clone(), Logging::of(&file.log))?),
            Some(running) => {
                running.orders.send_if_modified(|former| renew(former, order));
            }
        }
        Ok(())
    }

    /// What is known by now.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Says in which instances this node is Active: what is written back is the owner's to write.
    pub fn owns<'a>(&self, instances: impl Iterator<Item = &'a str>) {
        let Some(running) = &self.running else { return };
        let active: BTreeSet<String> = instances.map(str::to_owned).collect();
        running.orders.send_if_modified(|order| {
            let differs = order.active != active;
            order.active = active;
            differs
        });
    }

    /// Waits until more is known. Never ends where no cluster is followed.
    pub async fn changed(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        if running.views.changed().await.is_err() {
            // Its thread has died: what is known stays.
            return std::future::pending().await;
        }
        self.view = running.views.borrow_and_update().clone();
    }

    /// Keeps on disk what is known, for a start without the cluster.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep(&mut self, state_dir: &Path) -> io::Result<()> {
        if let Some(keeping) = self.keeping.take() {
            // The later one is to be what stays.
            let _ = keeping.join();
        }
        if self.kept != self.view.document {
            self.view.document.save(state_dir)?;
            self.kept = Arc::clone(&self.view.document);
        }
        Ok(())
    }

    /// The same without waiting for the disk. Does nothing while a former one is at it.
    pub fn keep_soon(&mut self, state_dir: &Path) {
        let busy = self.keeping.as_ref().is_some_and(|keeping| !keeping.is_finished());
        if busy || Arc::ptr_eq(&self.kept, &self.view.document) {
            return;
        }
        let (document, state_dir) = (Arc::clone(&self.view.document), state_dir.to_owned());
        let save = move || {
            if let Err(error) = document.save(&state_dir) {
                tracing::warn!(%error, "cannot keep the latest endpoints of Kubernetes in state_dir");
            }
        };
        if let Ok(keeping) = std::thread::Builder::new().name("kube-keep".into()).spawn(save) {
            self.kept = Arc::clone(&self.view.document);
            self.keeping = Some(keeping);
        }
    }
}

impl Running {
    fn start(order: Order, known: View, logging: Logging) -> io::Result<Self> {
        let (orders, their_orders) = watch::channel(order);
        let (their_views, views) = watch::channel(known);
        let (wanted, unwanted) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("kube".into());
        let thread = thread.spawn(move || {
            runtime.block_on(follow::run(their_orders, their_views, unwanted, logging));
        })?;
        Ok(Self { orders, views, wanted: Some(wanted), thread: Some(thread) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A configuration file, completed by what was last known of its cluster: the state with which an agent starts.
pub fn with_last_known(file: &Config) -> (Config, View) {
    if file.kubernetes.is_none() {
        return (file.clone(), View::default());
    }
    let document = Arc::new(Document::load(&file.state_dir).unwrap_or_default());
    (completed(file, &document), View { document, ..View::default() })
}
