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
    /// What was kept on disk last.
    kept: Arc<Document>,
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
        Self { running: None, kept: Arc::clone(&view.document), view }
    }

    /// Follows the cluster that a configuration file names, or none.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn follow(&mut self, file: &Config) -> io::Result<()> {
        let Some(order) = order(file) else {
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
        if self.kept != self.view.document {
            self.view.document.save(state_dir)?;
            self.kept = Arc::clone(&self.view.document);
        }
        Ok(())
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

/// What a configuration file has followed; `None`: no cluster.
fn order(file: &Config) -> Option<Order> {
    let vips = file.instances.iter().flat_map(|instance| &instance.vips);
    let ids = file.instances.iter().map(|instance| instance.virtual_router_id.get());
    Some(Order {
        revision: 0,
        node: file.node.clone(),
        kubernetes: file.kubernetes.clone()?,
        taken_ids: ids.filter_map(std::num::NonZeroU8::new).collect(),
        taken_vips: vips.map(|vip| vip.address).collect(),
        active: BTreeSet::new(),
    })
}

/// Puts a new order in the place of another; whether it is another one.
fn renew(former: &mut Order, order: Order) -> bool {
    let order = Order { revision: former.revision, active: former.active.clone(), ..order };
    let differs = *former != order;
    if differs {
        *former = Order { revision: former.revision + 1, ..order };
    }
    differs
}

/// A configuration file's instances, and those that the cluster wants beside them. The file comes first: what it has taken since the cluster
/// was asked is left out, until `vip-kube` says what becomes of the rest.
pub fn completed(file: &Config, document: &Document) -> Config {
    let mut config = file.clone();
    if file.kubernetes.is_none() {
        return config;
    }
    for instance in &document.instances {
        let same_router = |own: &crate::config::Instance| own.virtual_router_id == instance.virtual_router_id;
        if file.instance(instance.name.as_str()).is_some() || file.instances.iter().any(same_router) {
            continue;
        }
        let mut instance = instance.clone();
        // Where they live is the file's to say.
        instance.interface = file.interface.clone();
        instance.vip_interface = file.interface.clone();
        let families = |instance: &crate::config::Instance| {
            (instance.vips_v4().next().is_some(), instance.vips_v6().next().is_some())
        };
        let had = families(&instance);
        instance.vips.retain(|vip| {
            let own = |own: &crate::config::VipAddress| own.address == vip.address;
            !file.instances.iter().any(|instance| instance.vips.iter().any(own))
        });
        // Its peers are of the families that it had.
        if families(&instance) == had {
            config.instances.push(instance);
        }
    }
    config
}

/// A configuration file, completed by what was last known of its cluster: the state with which an agent starts.
pub fn with_last_known(file: &Config) -> (Config, View) {
    if file.kubernetes.is_none() {
        return (file.clone(), View::default());
    }
    let document = Arc::new(Document::load(&file.state_dir).unwrap_or_default());
    (completed(file, &document), View { document, ..View::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn file(text: &str) -> Config {
        config::parse(text, "test", "node1").unwrap().0
    }

    fn document(instances: &str) -> Document {
        Document::read(format!("{{\"instances\": [{instances}]}}")).unwrap()
    }

    fn lines(config: &Config) -> Vec<String> {
        let line = |instance: &config::Instance| {
            let vips: Vec<_> = instance.vips.iter().map(ToString::to_string).collect();
            format!("{} {} {}", instance.name, instance.interface, vips.join(" "))
        };
        config.instances.iter().map(line).collect()
    }

    const TWO: &str = r#"{"name": "kube-configmap", "virtual_router_id": 50, "vips": ["10.0.0.60", "10.0.0.61"]},
                         {"name": "kube-shard-1", "virtual_router_id": 51, "vips": ["10.0.0.70"]}"#;
    const CLUSTER: &str = "kubernetes: {}\ninterface: eth7\n";

    #[test]
    fn what_the_cluster_wants_lives_where_the_file_says() {
        let completed = completed(&file(CLUSTER), &document(TWO));
        assert_eq!(
            lines(&completed),
            ["kube-configmap eth7 10.0.0.60 10.0.0.61", "kube-shard-1 eth7 10.0.0.70"]
        );
    }

    #[test]
    fn what_the_file_has_taken_is_left_out() {
        for (own, left) in [
            // A VIP.
            (
                "{name: a, virtual_router_id: 9, vips: [10.0.0.60]}",
                ["kube-configmap eth7 10.0.0.61", "kube-shard-1 eth7 10.0.0.70"].as_slice(),
            ),
            // The last VIP of a router.
            (
                "{name: a, virtual_router_id: 9, vips: [10.0.0.70]}",
                &["kube-configmap eth7 10.0.0.60 10.0.0.61"],
            ),
            // A virtual router, a name.
            ("{name: a, virtual_router_id: 50, vips: [10.0.0.99]}", &["kube-shard-1 eth7 10.0.0.70"]),
            (
                "{name: kube-configmap, virtual_router_id: 9, vips: [10.0.0.99]}",
                &["kube-shard-1 eth7 10.0.0.70"],
            ),
        ] {
            let completed = completed(&file(&format!("{CLUSTER}instances: [{own}]")), &document(TWO));
            assert_eq!(lines(&completed)[1..], *left, "{own}");
        }
    }

    #[test]
    fn a_file_without_a_cluster_has_its_own_instances_alone() {
        let file = file("interface: eth7\ninstances: [{name: a, virtual_router_id: 9, vips: [10.0.0.9]}]");
        assert_eq!(completed(&file, &document(TWO)), file);
        assert_eq!(order(&file), None);
    }

    #[test]
    fn an_order_grows_in_revision_by_what_the_file_says_and_by_nothing_else() {
        let mut known = order(&file(CLUSTER)).unwrap();
        known.active.insert("kube-configmap".into());
        assert!(!renew(&mut known, order(&file(CLUSTER)).unwrap()));
        let other = format!("{CLUSTER}instances: [{{name: a, virtual_router_id: 9, vips: [10.0.0.9]}}]");
        assert!(renew(&mut known, order(&file(&other)).unwrap()));
        assert_eq!((known.revision, known.active.len(), known.taken_ids.len()), (1, 1, 1));
    }
}
