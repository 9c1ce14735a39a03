//! `kubernetes` of a configuration file.

use std::num::NonZeroU8;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Label, ObjectName};

/// Virtual routers that the objects of a cluster may make, from `virtual_router_id` on: the ConfigMap's, those over which the VIPs of
/// Services are spread, and at least one for a VIP with an election of its own.
pub const LEAST_ROUTERS: u8 = 18;

/// Our own class of Services of type LoadBalancer.
pub const OUR_CLASS: &str = "viplane.dev/vip";

/// `kubernetes`, where it is not null. As JSON, it is as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// Whom to ask, and as whom: absolute; `None`: as the pod that this is.
    pub kubeconfig: Option<PathBuf>,
    /// The API server's URL in place of the one that the kubeconfig, or the pod's environment, names.
    pub apiserver: Option<String>,
    /// By which objects.
    pub sources: Sources,
    /// The one namespace whose Services count; `None`: those of all.
    pub watch_namespace: Option<Label>,
    /// The ConfigMap of VIPs.
    pub configmap: ObjectName,
    /// Which Services of type LoadBalancer are ours.
    pub load_balancer_class: LoadBalancerClass,
    /// The first VRID.
    pub virtual_router_id: NonZeroU8,
    /// Whether adverts go to the other nodes by address.
    pub unicast: bool,
    /// Whether objects may have their traffic steered.
    pub steering: bool,
}

/// kube-keepalived-vip's default, so that a migration changes no router.
const FIRST_ROUTER: NonZeroU8 = match NonZeroU8::new(50) {
    Some(id) => id,
    None => unreachable!(),
};

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            apiserver: None,
            sources: Sources::default(),
            watch_namespace: None,
            configmap: ObjectName { namespace: "kube-system".to_owned(), name: "vip-configmap".to_owned() },
            load_balancer_class: LoadBalancerClass::default(),
            virtual_router_id: FIRST_ROUTER,
            unicast: true,
            steering: true,
        }
    }
}

/// `kubernetes.sources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Source>", into = "Vec<Source>")]
pub struct Sources {
    /// The ConfigMap of VIPs.
    pub configmap: bool,
    /// The annotation `ingress.alpha.k8s.io/ingress-vip` on Services.
    pub annotation: bool,
    /// Services of type LoadBalancer.
    pub service: bool,
    /// VipPool and VirtualIP.
    pub pool: bool,
}

impl Sources {
    /// Whether an object of these can ask for its traffic to be steered.
    pub const fn may_steer(self) -> bool {
        self.configmap || self.service || self.pool
    }
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Configmap,
    Annotation,
    Service,
    Pool,
}

impl Default for Sources {
    fn default() -> Self {
        Self { configmap: true, annotation: true, service: true, pool: true }
    }
}

impl From<Vec<Source>> for Sources {
    fn from(words: Vec<Source>) -> Self {
        let has = |source| words.contains(&source);
        Self {
            configmap: has(Source::Configmap),
            annotation: has(Source::Annotation),
            service: has(Source::Service),
            pool: has(Source::Pool),
        }
    }
}

impl From<Sources> for Vec<Source> {
    fn from(sources: Sources) -> Self {
        let Sources { configmap, annotation, service, pool } = sources;
        let all = [
            (configmap, Source::Configmap),
            (annotation, Source::Annotation),
            (service, Source::Service),
            (pool, Source::Pool),
        ];
        all.into_iter().filter_map(|(on, source)| on.then_some(source)).collect()
    }
}

/// `kubernetes.load_balancer_class`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LoadBalancerClass {
    /// `any`: Services without a class, and those of our own one.
    Any,
    /// Services of this class.
    Named(String),
}

impl Default for LoadBalancerClass {
    fn default() -> Self {
        Self::Named(OUR_CLASS.to_owned())
    }
}

impl From<String> for LoadBalancerClass {
    fn from(class: String) -> Self {
        if class == "any" { Self::Any } else { Self::Named(class) }
    }
}

impl From<LoadBalancerClass> for String {
    fn from(class: LoadBalancerClass) -> Self {
        match class {
            LoadBalancerClass::Any => "any".to_owned(),
            LoadBalancerClass::Named(class) => class,
        }
    }
}

impl LoadBalancerClass {
    /// Whether a Service of this class is ours.
    pub fn includes(&self, class: Option<&str>) -> bool {
        match self {
            Self::Any => class.is_none_or(|class| class == OUR_CLASS),
            Self::Named(ours) => class == Some(ours),
        }
    }
}
