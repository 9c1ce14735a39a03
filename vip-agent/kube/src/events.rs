//! Events: what `kubectl describe` shows of an object. The leader tells of trouble, a node of what it has become Active for; each once, and no more
//! than two a second.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::model::{About, Desired, Remark};
use crate::trouble::{Troubles, refusal};

/// From one Event to the next.
const PAUSE: Duration = Duration::from_millis(500);
/// Events that wait; what is beyond is left out, as status and log say it as well.
const MOST: usize = 100;
/// Bytes of a message at most: the API server's limit.
const LONGEST: usize = 1024;
/// What this is called where it is in trouble.
const PART: &str = "events";

/// What was told, and whom to tell.
#[derive(Debug)]
pub(super) struct Events {
    news: Sender<News>,
    remarks: BTreeSet<Remark>,
    /// Objects that this node is Active for.
    active: Option<BTreeSet<About>>,
}

/// One Event.
#[derive(Clone, Debug, PartialEq)]
struct News {
    about: ObjectReference,
    is_trouble: bool,
    reason: String,
    message: String,
}

impl Events {
    /// Its task ends with the session's.
    pub(super) fn start(client: &Client, node: &str, tasks: &mut JoinSet<()>, troubles: &Troubles) -> Self {
        let (news, told) = channel(MOST);
        let reporter =
            Reporter { controller: "viplane.dev/vip-agent".to_owned(), instance: Some(node.to_owned()) };
        tasks.spawn(tell(Recorder::new(client.clone(), reporter), told, troubles.clone()));
        Self { news, remarks: BTreeSet::new(), active: None }
    }

    /// Tells what is new. `leads`: whether trouble is this node's to tell.
    pub(super) fn note(
        &mut self,
        cluster: &Cluster,
        desired: &Desired,
        owned: &BTreeSet<String>,
        (leads, node): (bool, &str),
    ) {
        let remarks: BTreeSet<Remark> = desired.remarks.iter().cloned().collect();
        for remark in remarks.difference(&self.remarks).filter(|_| leads) {
            self.tell(cluster, &remark.about, true, &remark.trouble.to_string(), remark.message.clone());
        }
        self.remarks = if leads { remarks } else { BTreeSet::new() };
        let served = desired.served.iter().filter(|served| owned.contains(&served.router));
        let active: BTreeSet<About> = served.map(|served| served.about.clone()).collect();
        // What it was Active for when this process was started is no news.
        let former = self.active.replace(active.clone());
        for about in former.iter().flat_map(|former| active.difference(former)) {
            self.tell(cluster, about, false, "Active", format!("{node} serves its VIPs"));
        }
    }

    fn tell(&self, cluster: &Cluster, about: &About, is_trouble: bool, reason: &str, message: String) {
        let Some(about) = reference(cluster, about) else { return };
        let mut message = message;
        message.truncate(message.floor_char_boundary(LONGEST));
        let _ = self.news.try_send(News { about, is_trouble, reason: reason.to_owned(), message });
    }
}

/// The object, as Events name it; `None`: it is not there.
fn reference(cluster: &Cluster, about: &About) -> Option<ObjectReference> {
    let (version, kind, name, uid) = match about {
        About::ConfigMap(name) => {
            ("v1", "ConfigMap", name.clone(), Some(&cluster.config_map.as_ref()?.age.uid))
        }
        About::Service(name) => ("v1", "Service", name.clone(), Some(&cluster.services.get(name)?.age.uid)),
        About::VirtualIp(name) => {
            ("viplane.dev/v1alpha1", "VirtualIP", name.clone(), Some(&cluster.virtual_ips.get(name)?.age.uid))
        }
        About::VipPool(name) => {
            ("viplane.dev/v1alpha1", "VipPool", of_cluster(name), Some(&cluster.pools.get(name)?.age.uid))
        }
        // Whoever describes a node looks for its name in place of the uid.
        About::Node(name) => ("v1", "Node", of_cluster(name), Some(name)),
    };
    Some(ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: (!name.namespace.is_empty()).then(|| name.namespace.clone()),
        name: Some(name.name),
        uid: uid.cloned(),
        ..ObjectReference::default()
    })
}

/// The name of what is in no namespace.
fn of_cluster(name: &str) -> vip_kube_protocol::ObjectName {
    vip_kube_protocol::ObjectName { namespace: String::new(), name: name.to_owned() }
}

async fn tell(recorder: Recorder, mut told: Receiver<News>, troubles: Troubles) {
    while let Some(News { about, is_trouble, reason, message }) = told.recv().await {
        let event = Event {
            type_: if is_trouble { EventType::Warning } else { EventType::Normal },
            reason,
            note: Some(message),
            action: "Serve".to_owned(),
            secondary: None,
        };
        let refused = recorder.publish(&event, &about).await.err();
        troubles.set(PART, refused.map(|error| refusal("create events.events.k8s.io", "an Event", &error)));
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Age, Service};
    use crate::model::{Served, Trouble};
    use vip_kube_protocol::ObjectName;

    fn events() -> (Events, Receiver<News>) {
        let (news, told) = channel(MOST);
        (Events { news, remarks: BTreeSet::new(), active: None }, told)
    }

    fn said(told: &mut Receiver<News>) -> Vec<String> {
        let mut said = Vec::new();
        while let Ok(news) = told.try_recv() {
            said.push(format!("{} {}", news.reason, news.about.uid.unwrap_or_default()));
        }
        said
    }

    #[test]
    fn what_lasts_is_told_once_and_what_is_gone_may_come_again() {
        let name = ObjectName { namespace: "default".into(), name: "web".into() };
        let service = Service { age: Age { created: 1, uid: "web-uid".into() }, ..Service::default() };
        let cluster = Cluster { services: [(name.clone(), service)].into(), ..Cluster::default() };
        let about = About::Service(name);
        let remark = Remark { about: about.clone(), trouble: Trouble::Conflict, message: "why".into() };
        let served = Served { about, router: "kube-shard-1".into(), vips: Vec::new() };
        let desired = |in_conflict: bool| Desired {
            remarks: in_conflict.then(|| remark.clone()).into_iter().collect(),
            served: vec![served.clone()],
            ..Desired::default()
        };
        let (mut events, mut told) = events();
        let mut note = |in_conflict: bool, owned: bool, leads: bool| {
            let owned = owned.then(|| "kube-shard-1".to_owned()).into_iter().collect();
            events.note(&cluster, &desired(in_conflict), &owned, (leads, "node1"));
            said(&mut told)
        };
        assert_eq!(note(true, false, false), [""; 0], "another leads");
        assert_eq!(note(true, false, true), ["Conflict web-uid"]);
        assert_eq!(note(true, true, true), ["Active web-uid"]);
        assert_eq!(note(true, true, true), [""; 0]);
        assert_eq!(note(false, false, true), [""; 0]);
        assert_eq!(note(true, true, true), ["Conflict web-uid", "Active web-uid"]);
    }
}
