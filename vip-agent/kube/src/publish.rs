//! What is written back: the addresses of Services, so that kubectl shows them and kube-proxy serves them.
//!
//! One writer without a leader: the node that is Active for a Service's VIPs writes them. Nothing waits for it, and it is no more than a
//! few writes a second, whatever moves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, ObjectName};
use crate::model::{About, Desired};
use crate::trouble::{Troubles, refusal};

/// From one write to the next.
const PAUSE: Duration = Duration::from_millis(250);
/// After a write that was refused, or whose effect is not seen yet.
const AGAIN: Duration = Duration::from_secs(10);
/// While there is nothing to be written.
const IDLE: Duration = Duration::from_secs(3600);
/// What this is called where it is in trouble.
const PART: &str = "services";
/// As which the API server knows us.
const MANAGER: &str = "viplane";

/// Services, and the addresses that they are to be said to have.
pub(super) type Wanted = BTreeMap<ObjectName, Vec<IpAddr>>;

/// What this node, which is Active in the routers `owned`, has to write.
pub(super) fn wanted(desired: &Desired, cluster: &Cluster, owned: &BTreeSet<String>) -> Wanted {
    let ours = desired.served.iter().filter(|served| owned.contains(&served.router));
    let ours = ours.filter_map(|served| match &served.about {
        About::Service(name) => Some((name, &served.vips)),
        _ => None,
    });
    let differs = |name: &ObjectName, vips: &[IpAddr]| {
        cluster.services.get(name).is_some_and(|service| service.ingress != vips)
    };
    let new = ours.filter(|(name, vips)| differs(name, vips));
    new.map(|(name, vips)| (name.clone(), vips.clone())).collect()
}

/// Writes what is wanted, until nobody wants anything any more. `troubles`: why it cannot.
pub(super) async fn run(client: Client, mut wishes: Receiver<Wanted>, troubles: Troubles) {
    let mut written: BTreeMap<ObjectName, Instant> = BTreeMap::new();
    loop {
        let now = Instant::now();
        written.retain(|_, at| now < *at + AGAIN);
        let next = wishes
            .borrow_and_update()
            .iter()
            .find(|(name, _)| !written.contains_key(*name))
            .map(|(name, vips)| (name.clone(), vips.clone()));
        let Some((name, vips)) = next else {
            // Those that were written lately are looked at again.
            let again = sleep(if written.is_empty() { IDLE } else { AGAIN });
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                () = again => {}
            }
            continue;
        };
        let outcome = write(&client, &name, &vips).await;
        let refused =
            |error| refusal("patch services/status", &format!("the status of Service {name}"), &error);
        troubles.set(PART, outcome.err().map(refused));
        written.insert(name, Instant::now());
        sleep(PAUSE).await;
    }
}

/// Applies these addresses in place of those that any agent has applied before; what others have written stays, unless it is in the way.
pub(super) async fn write(client: &Client, name: &ObjectName, vips: &[IpAddr]) -> Result<(), kube::Error> {
    let services = Api::<Service>::namespaced(client.clone(), &name.namespace);
    // Without ipMode, which servers before 1.29 refuse and later ones take for VIP: right for all that reaches the node as it is.
    let ingress: Vec<_> = vips.iter().map(|vip| json!({"ip": vip})).collect();
    let balancer = if ingress.is_empty() { json!({}) } else { json!({"ingress": ingress}) };
    let status = json!({"apiVersion": "v1", "kind": "Service", "status": {"loadBalancer": balancer}});
    let parameters = PatchParams::apply(MANAGER).force();
    services.patch_status(&name.name, &parameters, &Patch::Apply(&status)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster;
    use crate::model::Served;

    #[test]
    fn only_the_owner_writes_and_only_what_differs() {
        let name = |text| ObjectName::parse(text).unwrap();
        let served = |service, router: &str, vip: [u8; 4]| Served {
            about: About::Service(name(service)),
            router: router.to_owned(),
            vips: vec![vip.into()],
        };
        let services = vec![
            served("default/new", "kube-shard-1", [10, 0, 0, 1]),
            served("default/known", "kube-shard-1", [10, 0, 0, 2]),
            served("default/others", "kube-shard-2", [10, 0, 0, 3]),
            served("default/gone", "kube-shard-1", [10, 0, 0, 4]),
        ];
        let desired = Desired { served: services, ..Desired::default() };
        let known = cluster::Service { ingress: vec![[10, 0, 0, 2].into()], ..cluster::Service::default() };
        let mut cluster = Cluster::default();
        cluster.services.extend([
            (name("default/new"), cluster::Service::default()),
            (name("default/known"), known),
            (name("default/others"), cluster::Service::default()),
        ]);
        let owned = ["kube-shard-1".to_owned()].into();
        let wanted = wanted(&desired, &cluster, &owned);
        assert_eq!(wanted, [(name("default/new"), vec![[10, 0, 0, 1].into()])].into());
    }
}
