//! Nodes: who takes part, with which priority, and whom it speaks to.

use std::net::IpAddr;

use super::*;

fn with_vip() -> Cluster {
    Cluster { config_map: Some(config_map(&[("10.0.0.50", "")])), ..cluster() }
}

/// The only router of a node.
fn router(cluster: &Cluster, node: &str) -> Router {
    desired(cluster, &on(node)).instances.remove(0)
}

fn peers(instance: &Router) -> Vec<String> {
    instance.unicast.iter().flat_map(|unicast| &unicast.peers).map(ToString::to_string).collect()
}

#[test]
fn the_others_are_peers() {
    let instance = router(&with_vip(), "node2");
    let own: IpAddr = [10, 0, 0, 2].into();
    assert_eq!(instance.unicast.as_ref().unwrap().source, [own], "there is no IPv6 VIP");
    assert_eq!(peers(&instance), ["10.0.0.1", "10.0.0.3"]);
}

#[test]
fn only_nodes_that_run_agents_are_peers() {
    let agents = [("agent-a", "node1"), ("agent-b", "node3")];
    let agents = agents.map(|(pod, node)| (pod.to_owned(), node.to_owned()));
    let cluster = Cluster { agents: Some(agents.into()), ..with_vip() };
    assert_eq!(peers(&router(&cluster, "node1")), ["10.0.0.3"]);
    assert!(desired(&cluster, &on("node2")).instances.is_empty());
}

#[test]
fn who_is_excluded_takes_no_part_and_is_nobodys_peer() {
    let mut cluster = with_vip();
    cluster.nodes.get_mut("node3").unwrap().excluded = true;
    assert!(desired(&cluster, &on("node3")).instances.is_empty());
    assert_eq!(peers(&router(&cluster, "node1")), ["10.0.0.2"]);
}

#[test]
fn a_cordoned_node_has_the_lowest_priority_whatever_its_preference() {
    let mut cluster = with_vip();
    let node = cluster.nodes.get_mut("node1").unwrap();
    node.priority = Some("200".into());
    assert_eq!(router(&cluster, "node1").priority, 200);
    cluster.nodes.get_mut("node1").unwrap().cordoned = true;
    assert_eq!(router(&cluster, "node1").priority, 1);
    assert!(router(&cluster, "node2").preempt, "somebody takes over from it");
}

#[test]
fn nodes_without_preference_are_equals_where_nothing_is_to_be_spread() {
    let priorities = ["node1", "node2", "node3"].map(|node| router(&with_vip(), node).priority);
    assert_eq!(priorities, [100; 3]);
}

#[test]
fn a_preference_that_is_none_is_reported_and_ignored() {
    for text in ["high", "0", "255", "1000", ""] {
        let mut cluster = with_vip();
        cluster.nodes.get_mut("node1").unwrap().priority = Some(text.into());
        let made = desired(&cluster, &settings());
        assert_eq!(made.instances[0].priority, 100, "{text}");
        assert!(made.has(Trouble::Invalid, "Node node1"), "{text}");
    }
}

#[test]
fn without_an_address_of_each_family_everywhere_adverts_are_multicast() {
    let mut cluster = Cluster { config_map: Some(config_map(&[("fd00--50", "")])), ..cluster() };
    assert_eq!(peers(&router(&cluster, "node1")), ["fd00::2", "fd00::3"]);
    cluster.nodes.get_mut("node3").unwrap().addresses.retain(IpAddr::is_ipv4);
    for node in ["node1", "node2", "node3"] {
        assert_eq!(router(&cluster, node).unicast, None, "{node}");
    }
}

#[test]
fn adverts_are_multicast_if_so_configured_or_if_there_is_nobody_else() {
    let mut settings = settings();
    settings.kubernetes.unicast = false;
    assert_eq!(desired(&with_vip(), &settings).instances[0].unicast, None);
    let mut alone = with_vip();
    alone.nodes.retain(|name, _| name == "node1");
    assert_eq!(router(&alone, "node1").unicast, None);
}

#[test]
fn an_agent_whose_node_is_unknown_is_told() {
    let made = desired(&with_vip(), &on("node9.example.com"));
    assert!(made.instances.is_empty());
    assert!(made.has(Trouble::Pending, "Node node9.example.com"));
}

#[test]
fn routers_of_services_are_spread_over_nodes() {
    let services =
        (0..64_u8).map(|n| (name(&format!("default/s{n}")), wants(n.into(), &format!("10.1.0.{n}"))));
    let cluster = Cluster { services: services.collect(), ..cluster() };
    let of = |node: &str| desired(&cluster, &on(node)).instances;
    let all = ["node1", "node2", "node3"].map(of);
    let winners: BTreeSet<usize> = (0..all[0].len())
        .map(|router| (0..3).max_by_key(|node| all[*node][router].priority).unwrap())
        .collect();
    assert!(winners.len() >= 2, "one node would own all: {winners:?}");
}
