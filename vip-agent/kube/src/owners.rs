//! Which node owns which address: what each writes about itself into the status of VipPools and VirtualIPs, and nothing about others, unless
//! it has taken over from them.
//!
//! By conditional writes: of two that write at once one is refused, and writes again by what it sees then. An allocator frees no address that a
//! living node is written to own (see `allocate`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use vip_kube_api::{AddressOwner, VipPool, VirtualIP};
use vip_kube_protocol::ObjectName;

use crate::cluster::Cluster;
use crate::model::{About, Desired};
use crate::pools::{Pool, VirtualIp};
use crate::trouble::{Troubles, refusal};

/// From one write to the next.
const PAUSE: Duration = Duration::from_millis(250);
/// After a write that was refused for another reason than that somebody else was faster.
const AGAIN: Duration = Duration::from_secs(10);
/// What this is called where it is in trouble.
const PART: &str = "owners";

/// What is to be written, by object.
pub(super) type Wanted = BTreeMap<Object, Write>;

/// An object whose status has an owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Pool(String),
    VirtualIp(ObjectName),
}

/// A conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// The version that it follows from.
    version: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// All owners of a pool.
    Owners(Vec<AddressOwner>),
    /// The owner of a VirtualIP, and since when.
    Node(Option<(String, String)>),
}

/// What this node, which is Active in the routers `owned`, has to write. `now`: RFC 3339.
pub(super) fn wanted(
    desired: &Desired,
    cluster: &Cluster,
    owned: &BTreeSet<String>,
    node: &str,
    now: &str,
) -> Wanted {
    let routers = desired.instances.iter().filter(|router| owned.contains(&router.name));
    let vips: BTreeSet<IpAddr> = routers.flat_map(|router| &router.vips).map(|vip| vip.address).collect();
    let of_pools = cluster.pools.iter().filter_map(|(name, pool)| {
        let owners = owners(pool, &vips, node, now);
        let write = Write { version: pool.version.clone(), what: What::Owners(owners.clone()) };
        (owners != pool.status.owners).then(|| (Object::Pool(name.clone()), write))
    });
    let served = desired.served.iter().filter(|served| owned.contains(&served.router));
    let served: BTreeSet<&ObjectName> = served
        .filter_map(|served| match &served.about {
            About::VirtualIp(name) => Some(name),
            _ => None,
        })
        .collect();
    let of_virtual_ips = cluster.virtual_ips.iter().filter_map(|(name, object)| {
        let owner = owner(object, served.contains(name), node, now)?;
        Some((
            Object::VirtualIp(name.clone()),
            Write { version: object.version.clone(), what: What::Node(owner) },
        ))
    });
    of_pools.chain(of_virtual_ips).collect()
}

/// The owners of a pool's addresses, as they are if this node is right about itself.
fn owners(pool: &Pool, vips: &BTreeSet<IpAddr>, node: &str, now: &str) -> Vec<AddressOwner> {
    // One that is on its way back is served for nobody who has it of the pool, be it that another object has written it on itself.
    let given = pool.assignments.iter().filter(|given| !given.released).map(|given| given.address);
    let mine: BTreeSet<IpAddr> = given.filter(|address| vips.contains(address)).collect();
    let is_mine = |owner: &AddressOwner| owner.address.parse().is_ok_and(|address| mine.contains(&address));
    let mut owners = pool.status.owners.clone();
    owners.retain(|owner| is_mine(owner) == (owner.node == node));
    let known: BTreeSet<IpAddr> = owners.iter().filter_map(|owner| owner.address.parse().ok()).collect();
    owners.extend(mine.difference(&known).map(|address| AddressOwner {
        address: address.to_string(),
        node: node.to_owned(),
        since: now.to_owned(),
    }));
    if owners.len() != pool.status.owners.len()
        || owners.iter().any(|owner| !pool.status.owners.contains(owner))
    {
        owners.sort_by_key(|owner| owner.address.parse::<IpAddr>().ok());
    }
    owners
}

/// What a VirtualIP's status should say, if it says otherwise.
fn owner(object: &VirtualIp, is_mine: bool, node: &str, now: &str) -> Option<Option<(String, String)>> {
    let says_me = object.status.node.as_deref() == Some(node);
    match (is_mine, says_me) {
        (true, false) => Some(Some((node.to_owned(), now.to_owned()))),
        (false, true) => Some(None),
        _ => None,
    }
}

/// Writes what is wanted, until nobody wants anything any more.
pub(super) async fn run(client: Client, mut wishes: Receiver<Wanted>, troubles: Troubles) {
    let mut tried: BTreeMap<(Object, String), Instant> = BTreeMap::new();
    loop {
        let now = Instant::now();
        tried.retain(|_, at| now < *at + AGAIN);
        let next = wishes
            .borrow_and_update()
            .iter()
            .find(|(object, write)| !tried.contains_key(&((*object).clone(), write.version.clone())))
            .map(|(object, write)| (object.clone(), write.clone()));
        let Some((object, write)) = next else {
            let again = async {
                match tried.values().min() {
                    Some(first) => sleep_until(*first + AGAIN).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                () = again => {}
            }
            continue;
        };
        let refused = match perform(&client, &object, &write).await {
            Err((_, kube::Error::Api(status))) if matches!(status.code, 404 | 409) => None,
            Err((what, error)) => {
                Some(refusal(what, &format!("the owner in the status of {object:?}"), &error))
            }
            Ok(()) => None,
        };
        troubles.set(PART, refused);
        tried.insert((object, write.version), Instant::now());
        sleep(PAUSE).await;
    }
}

async fn perform(client: &Client, object: &Object, write: &Write) -> Result<(), (&'static str, kube::Error)> {
    let status = match &write.what {
        What::Owners(owners) => json!({"owners": owners}),
        What::Node(owner) => {
            let (node, since) = owner.clone().unzip();
            json!({"node": node, "since": since})
        }
    };
    let change = Patch::Merge(json!({"metadata": {"resourceVersion": write.version}, "status": status}));
    let parameters = PatchParams::default();
    match object {
        Object::Pool(name) => {
            let pools = Api::<VipPool>::all(client.clone());
            let written = pools.patch_status(name, &parameters, &change).await;
            written.map(drop).map_err(|error| ("patch vippools/status", error))
        }
        Object::VirtualIp(name) => {
            let objects = Api::<VirtualIP>::namespaced(client.clone(), &name.namespace);
            let written = objects.patch_status(&name.name, &parameters, &change).await;
            written.map(drop).map_err(|error| ("patch virtualips/status", error))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cluster::Age;
    use crate::model::{LocalAddress, Router, Served};
    use vip_kube_protocol::vip;

    const NOW: &str = "2026-01-01T00:00:09Z";
    const BEFORE: &str = "2026-01-01T00:00:01Z";

    fn pool(owners: &Value) -> Pool {
        let assignment = |n: u8| json!({"address": format!("10.0.0.{n}"), "kind": "Service", "namespace": "default", "name": format!("s{n}"), "uid": ""});
        let status = json!({"owners": owners, "assignments": [assignment(1), assignment(2)]});
        let spec = serde_json::from_value(json!({"addresses": ["10.0.0.0/28"]})).unwrap();
        let mut object = VipPool::new("edge", spec);
        object.status = serde_json::from_value(status).unwrap();
        Pool::of(object)
    }

    fn vips(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// `ADDRESS NODE SINCE`
    fn lines(owners: &[AddressOwner]) -> Vec<String> {
        owners.iter().map(|owner| format!("{} {} {}", owner.address, owner.node, owner.since)).collect()
    }

    #[test]
    fn a_node_writes_what_it_has_and_takes_away_what_it_has_not() {
        let pool = pool(&json!([
            {"address": "10.0.0.1", "node": "node1", "since": BEFORE},
            {"address": "10.0.0.2", "node": "node2", "since": BEFORE},
        ]));
        let of = |node, addresses: &[&str]| lines(&owners(&pool, &vips(addresses), node, NOW));
        let (first, second) = (format!("10.0.0.1 node1 {BEFORE}"), format!("10.0.0.2 node2 {BEFORE}"));
        assert_eq!(of("node1", &["10.0.0.1"]), [first.clone(), second.clone()], "nothing is new");
        assert_eq!(of("node1", &[]), std::slice::from_ref(&second));
        assert_eq!(of("node1", &["10.0.0.1", "10.0.0.2"]), [first.clone(), format!("10.0.0.2 node1 {NOW}")]);
        assert_eq!(of("node3", &["10.0.0.9"]), [first, second.clone()], "that is none of the pool's");
        let mut released = pool.clone();
        released.assignments[0].released = true;
        assert_eq!(lines(&owners(&released, &vips(&["10.0.0.1"]), "node1", NOW)), [second]);
    }

    #[test]
    fn a_virtual_ip_says_who_owns_it_and_a_former_owner_leaves_others_alone() {
        let name = ObjectName { namespace: "default".into(), name: "vip".into() };
        let spec = serde_json::from_value(json!({"address": "10.0.0.9"})).unwrap();
        let mut object = VirtualIp::of(VirtualIP::new("vip", spec));
        object.age = Age { created: 1, uid: "vip".into() };
        let router = Router {
            name: "kube-shard-9".into(),
            virtual_router_id: 59.try_into().unwrap(),
            priority: 100,
            preempt: true,
            preempt_delay: "5s",
            unicast: None,
            vips: vec![vip("10.0.0.9").unwrap()],
            local_address: LocalAddress::Active,
        };
        let served = Served {
            about: About::VirtualIp(name.clone()),
            router: router.name.clone(),
            vips: vec![[10, 0, 0, 9].into()],
        };
        let desired = Desired { instances: vec![router], served: vec![served], ..Desired::default() };
        let mut what = |node: &str, said: Option<&str>, owned: &[&str]| {
            object.status.node = said.map(str::to_owned);
            let cluster =
                Cluster { virtual_ips: [(name.clone(), object.clone())].into(), ..Cluster::default() };
            let owned = owned.iter().map(|router| (*router).to_owned()).collect();
            wanted(&desired, &cluster, &owned, node, NOW).into_values().map(|write| write.what).next()
        };
        let me = Some(What::Node(Some(("node1".into(), NOW.into()))));
        assert_eq!(what("node1", None, &["kube-shard-9"]), me);
        assert_eq!(what("node1", Some("node2"), &["kube-shard-9"]), me);
        assert_eq!(what("node1", Some("node1"), &["kube-shard-9"]), None);
        assert_eq!(what("node1", Some("node1"), &[]), Some(What::Node(None)));
        assert_eq!(what("node1", Some("node2"), &[]), None);
    }
}
