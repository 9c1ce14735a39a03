//! What the file says and what the cluster wants, put together. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use vip_common::steering::tables::{MAX_SERVICE_PORTS, MAX_SERVICES, MAX_SOURCES};
use vip_kube_protocol::{Order, Room, Steering};

use super::Document;
use crate::config::{self, Config, Instance, MOST_BACKENDS, Service};

/// A configuration file's instances and services, and those that the cluster wants beside them. The file comes first: what it has taken since the
/// cluster was asked is left out, until `vip-kube` says what becomes of the rest.
pub fn completed(file: &Config, document: &Document) -> Config {
    let mut config = file.clone();
    let Some(kubernetes) = &file.kubernetes else { return config };
    for instance in &document.instances {
        let same_router = |own: &Instance| own.virtual_router_id == instance.virtual_router_id;
        if file.instance(instance.name.as_str()).is_some() || file.instances.iter().any(same_router) {
            continue;
        }
        let mut instance = instance.clone();
        // Where they live is the file's to say.
        instance.interface = file.interface.clone();
        instance.vip_interface = file.interface.clone();
        let families =
            |instance: &Instance| (instance.vips_v4().next().is_some(), instance.vips_v6().next().is_some());
        let had = families(&instance);
        instance.vips.retain(|vip| {
            let own = |own: &config::VipAddress| own.address == vip.address;
            !file.instances.iter().any(|instance| instance.vips.iter().any(own))
        });
        // Its peers are of the families that it had.
        if families(&instance) == had {
            config.instances.push(instance);
        }
    }
    if kubernetes.steering {
        let services = services(&config, file, document);
        config.services.extend(services);
    }
    config
}

/// The cluster's services, of VIPs that are the cluster's.
fn services(config: &Config, file: &Config, document: &Document) -> Vec<Service> {
    let vips = |instances: &[Instance]| -> HashSet<IpAddr> {
        instances.iter().flat_map(|instance| &instance.vips).map(|vip| vip.address).collect()
    };
    let theirs = vips(&config.instances[file.instances.len()..]);
    let all = vips(&config.instances);
    let names: HashSet<&str> = file.services.iter().map(|service| service.name.as_str()).collect();
    let mut room = Left::of(file);
    let fits = document
        .services
        .iter()
        .filter(|service| theirs.contains(&service.vip) && !names.contains(service.name.as_str()));
    fits.filter(|service| room.takes(service))
        .map(|service| {
            let mut service = Service::clone(service);
            service.backends.retain(|backend| !all.contains(&backend.address));
            service
        })
        .collect()
}

/// What the file's own services leave of what the tables hold.
struct Left {
    services: usize,
    ports: usize,
    backends: usize,
    sources: usize,
}

impl Left {
    fn of(file: &Config) -> Self {
        let limit = |limit: u32| limit as usize;
        let mut left = Self {
            services: limit(MAX_SERVICES),
            ports: limit(MAX_SERVICE_PORTS),
            backends: limit(MOST_BACKENDS),
            sources: limit(MAX_SOURCES),
        };
        // It was held to these limits itself.
        let fits = file.services.iter().all(|service| left.takes(service));
        if !fits {
            left.services = 0;
        }
        left
    }

    /// Whether there is room for a service, which is taken then.
    fn takes(&mut self, service: &Service) -> bool {
        let ports: usize = service.ports.iter().map(|range| range.numbers().len()).sum();
        let backends = if service.mode.is_steered() { service.backends.len() } else { 0 };
        let needs = [1, ports, backends, service.source_ranges.len()];
        let left = [&mut self.services, &mut self.ports, &mut self.backends, &mut self.sources];
        let fits = needs.iter().zip(&left).all(|(needs, left)| *needs <= **left);
        if fits {
            left.into_iter().zip(needs).for_each(|(left, needs)| *left -= needs);
        }
        fits
    }
}

/// What a configuration file has followed; `None`: no cluster. `can_steer`: whether what steering takes is loaded.
pub(super) fn order(file: &Config, can_steer: bool) -> Option<Order> {
    let kubernetes = file.kubernetes.clone()?;
    let vips = file.instances.iter().flat_map(|instance| &instance.vips);
    let ids = file.instances.iter().map(|instance| instance.virtual_router_id.get());
    let steering = match (kubernetes.steering, can_steer) {
        (false, _) => Steering::Off,
        (true, false) => Steering::Unloaded,
        (true, true) => Steering::On(room(file)),
    };
    Some(Order {
        revision: 0,
        node: file.node.clone(),
        kubernetes,
        taken_ids: ids.filter_map(std::num::NonZeroU8::new).collect(),
        taken_vips: vips.map(|vip| vip.address).collect(),
        steering,
        active: std::collections::BTreeSet::new(),
    })
}

fn room(file: &Config) -> Room {
    let Left { services, ports, backends, sources } = Left::of(file);
    let count = |left: usize| u32::try_from(left).unwrap_or(u32::MAX);
    Room {
        taken_names: file.services.iter().map(|service| service.name.as_str().to_owned()).collect(),
        services: count(services),
        ports: count(ports),
        backends: count(backends),
        sources: count(sources),
    }
}

/// Puts a new order in the place of another; whether it is another one.
pub(super) fn renew(former: &mut Order, order: Order) -> bool {
    let order = Order { revision: former.revision, active: former.active.clone(), ..order };
    let differs = *former != order;
    if differs {
        *former = Order { revision: former.revision + 1, ..order };
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Config {
        config::parse(text, "test", "node1").unwrap().0
    }

    fn document(instances: &str, services: &str) -> Document {
        Document::read(&format!("{{\"instances\": [{instances}], \"services\": [{services}]}}")).unwrap()
    }

    fn lines(config: &Config) -> Vec<String> {
        let line = |instance: &Instance| {
            let vips: Vec<_> = instance.vips.iter().map(ToString::to_string).collect();
            format!("{} {} {}", instance.name, instance.interface, vips.join(" "))
        };
        config.instances.iter().map(line).collect()
    }

    /// `NAME: BACKEND BACKEND`.
    fn steered(config: &Config) -> Vec<String> {
        let line = |service: &Service| {
            let backends: Vec<_> =
                service.backends.iter().map(|backend| backend.address.to_string()).collect();
            format!("{}: {}", service.name, backends.join(" "))
        };
        config.services.iter().map(line).collect()
    }

    const TWO: &str = r#"{"name": "kube-configmap", "virtual_router_id": 50, "vips": ["10.0.0.60", "10.0.0.61"]},
                         {"name": "kube-shard-1", "virtual_router_id": 51, "vips": ["10.0.0.70"]}"#;
    const SERVICES: &str = r#"{"name": "kube-a", "vip": "10.0.0.60", "ports": [80], "mode": "nat",
                               "backends": [{"address": "10.2.0.1"}, {"address": "10.2.0.2"}]},
                              {"name": "kube-b", "vip": "10.0.0.70", "ports": [80], "mode": "local"}"#;
    const CLUSTER: &str = "kubernetes: {}\ninterface: eth7\n";

    #[test]
    fn what_the_cluster_wants_lives_where_the_file_says() {
        let completed = completed(&file(CLUSTER), &document(TWO, SERVICES));
        assert_eq!(
            lines(&completed),
            ["kube-configmap eth7 10.0.0.60 10.0.0.61", "kube-shard-1 eth7 10.0.0.70"]
        );
        assert_eq!(steered(&completed), ["kube-a: 10.2.0.1 10.2.0.2", "kube-b: "]);
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
            let completed = completed(&file(&format!("{CLUSTER}instances: [{own}]")), &document(TWO, ""));
            assert_eq!(lines(&completed)[1..], *left, "{own}");
        }
    }

    #[test]
    fn services_go_with_their_vips_and_leave_names_and_vips_to_the_file() {
        let own = |vip: &str, name: &str| {
            format!(
                "{CLUSTER}instances: [{{name: a, virtual_router_id: 9, vips: [{vip}]}}]\n\
                 services: [{{name: {name}, vip: {vip}, ports: all}}]"
            )
        };
        for (text, left) in [
            // Its VIP.
            (own("10.0.0.60", "mine"), ["mine: ", "kube-b: "].as_slice()),
            // Its name.
            (own("10.0.0.99", "kube-b"), &["kube-b: ", "kube-a: 10.2.0.1 10.2.0.2"]),
            // Where a backend is.
            (own("10.2.0.1", "mine"), &["mine: ", "kube-a: 10.2.0.2", "kube-b: "]),
            ("kubernetes: {steering: false}\ninterface: eth7".to_owned(), &[]),
        ] {
            assert_eq!(steered(&completed(&file(&text), &document(TWO, SERVICES))), left, "{text}");
        }
    }

    #[test]
    fn services_that_do_not_fit_beside_the_files_are_left_out() {
        let document = document(TWO, SERVICES);
        let own = |ports: &str| {
            let own = "instances: [{name: a, virtual_router_id: 9, vips: [10.0.0.99, 10.0.0.98]}]";
            file(&format!("{CLUSTER}{own}\nservices: [{{name: mine, vip: 10.0.0.99, ports: {ports}}}]"))
        };
        assert_eq!(completed(&own("1-65535"), &document).services.len(), 2, "one port is left: kube-a's");
        assert_eq!(completed(&own("1-65534"), &document).services.len(), 3);
    }

    #[test]
    fn a_file_without_a_cluster_has_its_own_instances_alone() {
        let file = file("interface: eth7\ninstances: [{name: a, virtual_router_id: 9, vips: [10.0.0.9]}]");
        assert_eq!(completed(&file, &document(TWO, SERVICES)), file);
        assert_eq!(order(&file, true), None);
    }

    #[test]
    fn an_order_grows_in_revision_by_what_the_file_says_and_by_nothing_else() {
        let mut known = order(&file(CLUSTER), true).unwrap();
        known.active.insert("kube-configmap".into());
        assert!(!renew(&mut known, order(&file(CLUSTER), true).unwrap()));
        let other = format!("{CLUSTER}instances: [{{name: a, virtual_router_id: 9, vips: [10.0.0.9]}}]");
        assert!(renew(&mut known, order(&file(&other), true).unwrap()));
        assert_eq!((known.revision, known.active.len(), known.taken_ids.len()), (1, 1, 1));
    }

    #[test]
    fn an_order_says_what_room_the_files_services_leave() {
        let text = format!(
            "{CLUSTER}instances: [{{name: a, virtual_router_id: 9, vips: [10.0.0.9]}}]\n\
             services: [{{name: web, vip: 10.0.0.9, ports: [80, 8000-8009], mode: nat, source_ranges: [10.0.0.0/8], \
             backends: [{{address: 10.2.0.1}}, {{address: 10.2.0.2}}]}}]"
        );
        let Some(Steering::On(room)) = order(&file(&text), true).map(|order| order.steering) else {
            panic!("it steers")
        };
        assert_eq!(room.taken_names, ["web".to_owned()].into());
        assert_eq!(
            [room.services, room.ports, room.backends, room.sources],
            [MAX_SERVICES - 1, MAX_SERVICE_PORTS - 11, MOST_BACKENDS - 2, MAX_SOURCES - 1]
        );
        let of = |text: &str, can_steer| order(&file(text), can_steer).map(|order| order.steering);
        assert_eq!(of(CLUSTER, false), Some(Steering::Unloaded));
        assert_eq!(of("kubernetes: {steering: false}", true), Some(Steering::Off));
    }
}
