//! The thread's work: keep a `vip-kube` running, order, hear.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use vip_kube_protocol::{self as protocol, LineError, Lines, Order, Report, Telling, encode};

use super::child::{Child, Logging, StartError};
use super::{Document, View};
use crate::privilege;

/// Whoever says nothing for so long hangs: it says that it is alive every 15 s.
const SILENCE: Duration = Duration::from_secs(60);
/// After the first failure, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// At most, and as long as one has to live for the next failure to be a first one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Read at once.
const PIECE: usize = 64 << 10;

/// Why there is no process any more, or none yet.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("vip-kube ended: {0}")]
    Ended(String),
    #[error("vip-kube said nothing for {} s, and was killed", SILENCE.as_secs())]
    Hangs,
    #[error("vip-kube was killed: {0}")]
    Line(#[from] LineError),
    #[error("the pipe to vip-kube: {0}")]
    Pipe(#[from] io::Error),
}

/// Keeps one running, until nobody wants anything any more.
pub(super) async fn run(
    mut orders: watch::Receiver<Order>,
    views: watch::Sender<View>,
    mut unwanted: oneshot::Receiver<()>,
    logging: Logging,
) {
    // What comes from outside is read here, and by whatever is started here, without the agent's rights.
    if let Err(error) = privilege::limit_to(privilege::WATCHER) {
        tracing::warn!(%error, "what is heard of Kubernetes is read with all of the agent's rights");
    }
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        let failure = tokio::select! {
            _ = &mut unwanted => return,
            failure = converse(&mut orders, &views, &logging) => failure,
        };
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        let why = format!("{failure}; what is known of the cluster stays, and it is started again");
        tracing::error!("Kubernetes: {why}");
        views.send_modify(|view| {
            view.in_sync = false;
            view.pid = None;
            view.troubles = [why].into();
        });
        tokio::select! {
            _ = &mut unwanted => return,
            () = sleep(pause) => {}
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// From the start of a process to its end.
async fn converse(
    orders: &mut watch::Receiver<Order>,
    views: &watch::Sender<View>,
    logging: &Logging,
) -> Failure {
    let mut child = match Child::start(logging) {
        Ok(child) => child,
        Err(error) => return error.into(),
    };
    views.send_modify(|view| view.pid = Some(child.pid()));
    match talk(&mut child, orders, views).await {
        Ok(()) => Failure::Ended(child.end()),
        Err(failure) => failure,
    }
}

/// Until it closes its end.
async fn talk(
    child: &mut Child,
    orders: &mut watch::Receiver<Order>,
    views: &watch::Sender<View>,
) -> Result<(), Failure> {
    let mut unsaid = encode(&*orders.borrow_and_update())?;
    let (mut lines, mut piece) = (Lines::default(), vec![0; PIECE]);
    let mut silent_until = Instant::now() + SILENCE;
    let mut told = Told::default();
    loop {
        tokio::select! {
            // Whoever does not read is told the latest alone, later.
            Ok(()) = orders.changed(), if unsaid.is_empty() => {
                unsaid = encode(&*orders.borrow_and_update())?;
            }
            ready = child.orders.writable(), if !unsaid.is_empty() => {
                ready?;
                match child.orders.try_write(&unsaid) {
                    Ok(count) => drop(unsaid.drain(..count)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // It is about to end.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => unsaid.clear(),
                    Err(error) => return Err(error.into()),
                }
            }
            count = child.reports.read(&mut piece) => {
                let count = count?;
                if count == 0 {
                    return Ok(lines.end().or_else(|error| match error {
                        // The last word of whoever was killed.
                        LineError::Truncated => Ok(()),
                        error => Err(error),
                    })?);
                }
                lines.push(&piece[..count]);
                while let Some(report) = lines.message::<Report>()? {
                    silent_until = Instant::now() + SILENCE;
                    if let Report::View(said) = report {
                        hear(said, orders.borrow().revision, &mut told, views);
                    }
                }
            }
            () = sleep_until(silent_until) => return Err(Failure::Hangs),
        }
    }
}

/// The last document that a process told, with its number; `None`: there was none, or it was refused.
#[derive(Debug, Default)]
struct Told(Option<(u64, Arc<Document>)>);

impl Told {
    /// What the cluster wants by what is said; `None`: that is not known.
    fn document(&mut self, telling: Telling) -> Result<Option<Arc<Document>>, String> {
        match telling {
            Telling::Nothing => Ok(None),
            Telling::Document(said) => {
                self.0 = None;
                let document =
                    Document::of(said.instances, said.services).map_err(|problems| problems.to_string())?;
                let document = Arc::new(document);
                self.0 = Some((said.number, Arc::clone(&document)));
                Ok(Some(document))
            }
            Telling::Backends(said) => {
                let told = self.0.as_ref().filter(|(number, _)| *number == said.of);
                let (_, document) = told.ok_or("the document that its backends belong to was refused")?;
                if said.services.is_empty() {
                    return Ok(Some(Arc::clone(document)));
                }
                document.with_backends(&said.services).map(|document| Some(Arc::new(document)))
            }
        }
    }
}

/// Takes over what was said, if it follows from the order with this revision. What is no valid configuration changes nothing.
fn hear(said: protocol::View, revision: u64, told: &mut Told, views: &watch::Sender<View>) {
    if said.revision != revision {
        return;
    }
    let known = Arc::clone(&views.borrow().document);
    let mut troubles = said.troubles;
    let (document, in_sync) = match told.document(said.telling) {
        Ok(None) => (known, false),
        Ok(Some(document)) if document == known => (known, said.in_sync),
        Ok(Some(document)) => (document, said.in_sync),
        Err(why) => {
            let why = format!("what vip-kube says is refused, and what was known before stays: {why}");
            tracing::error!("Kubernetes: {why}");
            troubles.insert(why);
            (known, false)
        }
    };
    views.send_if_modified(|view| {
        let new = View { document, in_sync, troubles, objects: Arc::new(said.objects), pid: view.pid };
        let differs = *view != new;
        *view = new;
        differs
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vip_kube_protocol::{Backend, Backends};

    use super::*;

    fn said(revision: u64, telling: Telling) -> protocol::View {
        protocol::View {
            revision,
            in_sync: telling != Telling::Nothing,
            telling,
            ..protocol::View::default()
        }
    }

    fn one(vip: &str) -> Telling {
        document(1, vip)
    }

    /// A VIP and a service of it.
    fn document(number: u64, vip: &str) -> Telling {
        let instances = json!([{"name": "kube-configmap", "virtual_router_id": 50, "vips": [vip]}]);
        let backends = json!([{"address": "10.2.0.1"}]);
        let services =
            json!([{"name": "web", "vip": vip, "ports": [80], "mode": "nat", "backends": backends}]);
        Telling::Document(protocol::Document { number, instances, services })
    }

    /// Other backends of that service.
    fn backends(of: u64, addresses: &[&str]) -> Telling {
        let backend = |address: &&str| Backend { address: address.parse().unwrap(), weight: 1 };
        let backends = addresses.iter().map(backend).collect();
        Telling::Backends(Backends { of, services: [("web".to_owned(), backends)].into() })
    }

    fn serving(views: &watch::Sender<View>) -> Vec<String> {
        let view = views.borrow();
        let backends = view.document.services.iter().flat_map(|service| &service.backends);
        backends.map(|backend| backend.address.to_string()).collect()
    }

    #[test]
    fn other_backends_of_a_document_count_until_the_next_ones() {
        let ((views, _), mut told) = (watch::channel(View::default()), Told::default());
        hear(said(0, document(7, "10.0.0.50")), 0, &mut told, &views);
        assert_eq!(serving(&views), ["10.2.0.1"]);
        hear(said(0, backends(7, &["10.2.0.2", "10.2.0.3"])), 0, &mut told, &views);
        assert_eq!(
            (serving(&views).join(" "), vips(&views)),
            ("10.2.0.2 10.2.0.3".into(), vec!["10.0.0.50".into()])
        );
        // They differ from the document, and not from what was said since.
        let none = Telling::Backends(Backends { of: 7, services: [].into() });
        hear(said(0, none), 0, &mut told, &views);
        assert_eq!(serving(&views), ["10.2.0.1"]);
        assert!(views.borrow().in_sync);
    }

    #[test]
    fn backends_of_a_document_that_is_not_known_change_nothing_and_are_said() {
        let ((views, _), mut told) = (watch::channel(View::default()), Told::default());
        hear(said(0, document(1, "10.0.0.50")), 0, &mut told, &views);
        hear(said(0, document(2, "224.0.0.18")), 0, &mut told, &views);
        for of in [1, 2] {
            hear(said(0, backends(of, &["10.2.0.9"])), 0, &mut told, &views);
            assert_eq!((serving(&views), views.borrow().in_sync), (vec!["10.2.0.1".into()], false));
        }
        assert!(!views.borrow().troubles.is_empty());
        hear(said(0, document(3, "10.0.0.50")), 0, &mut told, &views);
        hear(said(0, backends(3, &["10.0.0.50"])), 0, &mut told, &views);
        assert_eq!(serving(&views), ["10.2.0.1"]);
        assert!(views.borrow().troubles.first().unwrap().contains("10.0.0.50 is a VIP"));
    }

    fn vips(views: &watch::Sender<View>) -> Vec<String> {
        let view = views.borrow();
        let vips = view.document.instances.iter().flat_map(|instance| &instance.vips);
        vips.map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_said_counts_until_something_else_is_known() {
        let (views, _) = watch::channel(View::default());
        hear(said(0, one("10.0.0.50")), 0, &mut Told::default(), &views);
        assert_eq!(vips(&views), ["10.0.0.50"]);
        assert!(views.borrow().in_sync);
        // A process that was started anew, and cannot reach the cluster.
        hear(said(0, Telling::Nothing), 0, &mut Told::default(), &views);
        assert_eq!(vips(&views), ["10.0.0.50"]);
        assert!(!views.borrow().in_sync);
        hear(said(0, one("10.0.0.51")), 0, &mut Told::default(), &views);
        assert_eq!(vips(&views), ["10.0.0.51"]);
    }

    #[test]
    fn what_follows_from_another_configuration_does_not_count() {
        let (views, _) = watch::channel(View::default());
        hear(said(1, one("10.0.0.50")), 2, &mut Told::default(), &views);
        assert_eq!(vips(&views), [""; 0]);
    }

    #[test]
    fn what_is_no_valid_configuration_changes_nothing_and_is_said() {
        let (views, _) = watch::channel(View::default());
        hear(said(0, one("10.0.0.50")), 0, &mut Told::default(), &views);
        hear(said(0, one("224.0.0.18")), 0, &mut Told::default(), &views);
        assert_eq!(vips(&views), ["10.0.0.50"]);
        let view = views.borrow();
        assert!(!view.in_sync);
        assert!(view.troubles.first().unwrap().contains("a multicast address"), "{:?}", view.troubles);
    }
}
