//! Watchers of all that counts, as one stream of changes. They resume, list anew when the server has forgotten where they were (410),
//! and back off while it does not answer.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll, StreamExt as _, select_all};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::NamespaceResourceScope;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use vip_kube_api::{VipPool, VirtualIP};
use vip_kube_protocol::{Kubernetes, ObjectName};

use crate::book::{Change, Kind, Object};
use crate::{convert, model};

/// After the first failure, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// An API server that comes back is met again within this time, by all agents at different moments.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Everything that changes.
pub(super) type Changes = SelectAll<BoxStream<'static, Change>>;

/// This agent's own pod, as its environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnPod {
    pub(super) namespace: String,
    /// What all agents' pods have in common.
    pub(super) labels: BTreeMap<String, String>,
}

impl OwnPod {
    /// Asks for the labels of the pod that POD_NAME and POD_NAMESPACE name; `None`: this is no pod.
    pub(super) async fn find(client: &Client) -> Result<Option<Self>, kube::Error> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(pod), Some(namespace)) = (variable("POD_NAME"), variable("POD_NAMESPACE")) else {
            return Ok(None);
        };
        let mut labels = Api::<Pod>::namespaced(client.clone(), &namespace).get(&pod).await?.labels().clone();
        // Revisions come and go while the set stays.
        labels.retain(|key, _| {
            !matches!(
                key.as_str(),
                "pod-template-generation" | "controller-revision-hash" | "pod-template-hash"
            )
        });
        Ok((!labels.is_empty()).then_some(Self { namespace, labels }))
    }
}

/// What has to be known for a configuration.
pub(super) fn kinds(kubernetes: &Kubernetes, own_pod: Option<&OwnPod>) -> Vec<Kind> {
    let mut kinds = vec![Kind::Nodes, Kind::Services, Kind::Slices];
    kinds.extend(kubernetes.sources.configmap.then_some(Kind::ConfigMap));
    if kubernetes.sources.pool {
        kinds.extend([Kind::Pools, Kind::VirtualIps]);
    }
    kinds.extend(own_pod.map(|_| Kind::Agents));
    kinds
}

/// Watches all of these.
pub(super) fn changes(client: &Client, kubernetes: &Kubernetes, own_pod: Option<&OwnPod>) -> Changes {
    let everything = watcher::Config::default;
    let mut streams = vec![
        follow(Kind::Nodes, Api::<Node>::all(client.clone()), everything(), |node| Some(convert::node(node))),
        follow(Kind::Services, scoped::<Service>(client, kubernetes), everything(), |service| {
            Some(convert::service(service))
        }),
        follow(Kind::Slices, scoped::<EndpointSlice>(client, kubernetes), everything(), convert::slice),
    ];
    if kubernetes.sources.configmap {
        let ObjectName { namespace, name } = &kubernetes.configmap;
        let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
        let only = everything().fields(&format!("metadata.name={name}"));
        streams.push(follow(Kind::ConfigMap, maps, only, |map| Some(convert::config_map(map))));
    }
    if kubernetes.sources.pool {
        let pools = Api::<VipPool>::all(client.clone());
        streams.push(follow(Kind::Pools, pools, everything(), |pool| Some(convert::pool(pool))));
        let virtual_ips = scoped::<VirtualIP>(client, kubernetes);
        streams.push(follow(Kind::VirtualIps, virtual_ips, everything(), |object| {
            Some(convert::virtual_ip(object))
        }));
    }
    if let Some(own) = own_pod {
        let labels: Vec<String> = own.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods = Api::<Pod>::namespaced(client.clone(), &own.namespace);
        streams.push(follow(Kind::Agents, pods, everything().labels(&labels.join(",")), convert::agent));
    }
    select_all(streams)
}

/// In the one namespace that is watched, or in all.
fn scoped<K>(client: &Client, kubernetes: &Kubernetes) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match &kubernetes.watch_namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace.as_str()),
        None => Api::all(client.clone()),
    }
}

fn follow<K>(
    kind: Kind,
    api: Api<K>,
    config: watcher::Config,
    convert: fn(K) -> Option<Object>,
) -> BoxStream<'static, Change>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let change = move |event: watcher::Result<Event<K>>| match event {
        Ok(Event::Init) => Some(Change::Listing(kind)),
        Ok(Event::InitApply(object)) => convert(object).map(Change::Listed),
        Ok(Event::InitDone) => Some(Change::Complete(kind)),
        Ok(Event::Apply(object)) => {
            let name = convert::name(object.meta());
            // One that does not count any more is gone.
            Some(convert(object).map_or(Change::Gone(kind, name), Change::Is))
        }
        Ok(Event::Delete(object)) => Some(Change::Gone(kind, convert::name(object.meta()))),
        Err(error) if is_optional(kind) && is_undefined(&error) => Some(Change::Undefined(kind)),
        Err(error) => Some(Change::Failed(kind, explain(kind, &error))),
    };
    let events = watch(api, config).backoff(Pauses::new());
    events.filter_map(move |event| std::future::ready(change(event))).boxed()
}

/// Kinds of our own, which a cluster that has no use for them need not know.
fn is_optional(kind: Kind) -> bool {
    matches!(kind, Kind::Pools | Kind::VirtualIps)
}

fn is_undefined(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

/// What went wrong, and what to do about it where that is known.
fn explain(kind: Kind, error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let resource = kind.resource();
    let answer = match error {
        InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) => {
            Some(&**status)
        }
        WatchFailed(kube::Error::Api(status)) | watcher::Error::WatchError(status) => Some(&**status),
        _ => None,
    };
    match answer {
        Some(status) if status.code == 403 => format!(
            "the API server does not allow this agent to list and watch {resource}: grant it by a ClusterRole ({})",
            status.message
        ),
        Some(status) if status.code == 401 => {
            format!("the API server does not know this agent's token ({})", status.message)
        }
        Some(status) => format!("{resource}: the API server answers {}: {}", status.code, status.message),
        None => {
            let mut text = format!("{resource}: {error}");
            let mut cause = error.source();
            while let Some(next) = cause {
                let said = next.to_string();
                if !text.contains(&said) {
                    text.push_str(&format!(": {said}"));
                }
                cause = next.source();
            }
            text
        }
    }
}

/// How long to wait after a failure, and after the next.
#[derive(Clone, Debug)]
pub(super) struct Pauses {
    next: Duration,
    /// 0-255: this agent's share of a pause, so that agents do not come in step.
    share: u32,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { next: FIRST_PAUSE, share: std::process::id() & 0xff }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (2 * pause).min(LONGEST_PAUSE);
        Some(pause / 2 + pause / 512 * self.share)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }
}

/// What [`crate::follow`] logs of an object's trouble.
pub(super) fn log(remark: &model::Remark) {
    tracing::warn!("{remark}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_anew() {
        let mut pauses = Pauses { share: 255, ..Pauses::new() };
        let first: Vec<_> = pauses.by_ref().take(12).collect();
        assert!(first.is_sorted());
        assert!(first[0] >= FIRST_PAUSE / 2 && first[0] <= FIRST_PAUSE);
        assert!(first[11] > LONGEST_PAUSE / 2 && first[11] <= LONGEST_PAUSE);
        pauses.reset();
        assert_eq!(pauses.next(), Some(first[0]));
    }
}
