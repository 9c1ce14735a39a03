//! `kubernetes`: which cluster says what this node serves, and by which of its objects.

use std::num::NonZeroU8;

use vip_kube_protocol::{
    Kubernetes, LEAST_ROUTERS, Label, LoadBalancerClass, OUR_CLASS, ObjectName, Sources, is_subdomain,
};

use super::check::Url;
use super::field::{Field, Mapping};
use crate::types::VirtualRouterId;

/// `sources`, one by one.
const SOURCES: [&str; 4] = ["configmap", "annotation", "service", "pool"];

/// `kubernetes` of the file: null, or a mapping.
pub(super) fn kubernetes(file: &Mapping<'_>) -> Option<Option<Kubernetes>> {
    file.or("kubernetes", None, |field| if field.is_null() { Some(None) } else { read(field).map(Some) })
}

fn read(field: &Field<'_>) -> Option<Kubernetes> {
    let mapping = field.mapping(&[
        "kubeconfig",
        "apiserver",
        "sources",
        "watch_namespace",
        "configmap",
        "load_balancer_class",
        "virtual_router_id",
        "unicast",
        "steering",
    ])?;
    let default = Kubernetes::default();
    let kubeconfig = optional(&mapping, "kubeconfig", Field::absolute_path);
    let apiserver = optional(&mapping, "apiserver", |field| {
        let url = field.accept(field.text()?.parse::<Url>())?;
        if !url.is_https() {
            field.warn("without TLS the agent's token crosses the network in the clear");
        }
        Some(url.as_str().to_owned())
    });
    let sources = mapping.or("sources", default.sources, sources);
    let watch_namespace =
        optional(&mapping, "watch_namespace", |field| field.accept(Label::new(field.text()?)));
    let configmap =
        mapping.or("configmap", default.configmap, |field| field.accept(ObjectName::parse(field.text()?)));
    let class = mapping.or("load_balancer_class", default.load_balancer_class, class);
    let virtual_router_id = mapping.or("virtual_router_id", default.virtual_router_id, |field| {
        let id: VirtualRouterId = field.number()?;
        let last = u8::MAX - LEAST_ROUTERS + 1;
        if id.get() > last {
            return field.refuse(format_args!(
                "must be 1-{last}, not {id}: the cluster's objects need {LEAST_ROUTERS} virtual routers from there on"
            ));
        }
        NonZeroU8::new(id.get())
    });
    let unicast = mapping.or("unicast", default.unicast, Field::boolean);
    let may_steer = sources.is_none_or(Sources::may_steer);
    let steering = mapping.or("steering", may_steer, |field| {
        let steering = field.boolean()?;
        if steering && !may_steer {
            field.warn("has no effect: no object of these `sources` can ask for it");
        }
        Some(steering)
    });
    Some(Kubernetes {
        kubeconfig: kubeconfig?,
        apiserver: apiserver?,
        sources: sources?,
        watch_namespace: watch_namespace?,
        configmap: configmap?,
        load_balancer_class: class?,
        virtual_router_id: virtual_router_id?,
        unicast: unicast?,
        steering: steering?,
    })
}

/// What `read` makes of a key that may be null.
fn optional<'a, T>(
    mapping: &Mapping<'a>,
    key: &str,
    read: impl FnOnce(&Field<'a>) -> Option<T>,
) -> Option<Option<T>> {
    mapping.or(key, None, |field| if field.is_null() { Some(None) } else { read(field).map(Some) })
}

fn sources(field: &Field<'_>) -> Option<Sources> {
    let mut sources = Sources { configmap: false, annotation: false, service: false, pool: false };
    let words = field.list()?;
    if words.is_empty() {
        return field.refuse("needs at least one source; `kubernetes: null` does without Kubernetes");
    }
    let mut valid = true;
    for word in words {
        match word.choice(&SOURCES.map(|word| (word, word))) {
            Some("configmap") => sources.configmap = true,
            Some("annotation") => sources.annotation = true,
            Some("service") => sources.service = true,
            Some(_) => sources.pool = true,
            None => valid = false,
        }
    }
    valid.then_some(sources)
}

fn class(field: &Field<'_>) -> Option<LoadBalancerClass> {
    match field.text()? {
        "any" => Some(LoadBalancerClass::Any),
        // Kubernetes itself wants a label's key: a prefix and a name.
        class if is_class(class) => Some(LoadBalancerClass::Named(class.to_owned())),
        other => field.refuse(format_args!("must be `any` or a class as in {OUR_CLASS}, not {other:?}")),
    }
}

fn is_class(text: &str) -> bool {
    let name = match text.split_once('/') {
        Some((prefix, _)) if !is_subdomain(prefix) => return false,
        Some((_, name)) => name,
        None => text,
    };
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (1..=63).contains(&name.len())
        && edge(name.chars().next())
        && edge(name.chars().last())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}
