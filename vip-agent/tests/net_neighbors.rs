//! Peers' neighbour entries are there before anything is sent.

#[path = "support/sandbox.rs"]
mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use support::{Sandbox, eventually, sandbox};
use vip_agent::net::Rtnetlink;
use vip_agent::net::links::LinkTable;
use vip_agent::net::neighbors::{Neighbor, NeighborKeeper};

const PEERS: [&str; 2] = ["10.0.0.2", "fd00::2"];

async fn neighbors(addresses: &[&str]) -> BTreeSet<Neighbor> {
    let table = LinkTable::read(&Rtnetlink::connect().expect("netlink")).await.expect("links");
    let ifindex = table.by_name("eth0").expect("eth0").ifindex;
    let neighbor =
        |address: &&str| Neighbor { ifindex, address: address.parse::<IpAddr>().expect("an address") };
    addresses.iter().map(neighbor).collect()
}

fn connect(host: &Sandbox) {
    host.connect_to("peer");
    host.ip("address add 10.0.0.1/24 dev eth0");
    host.ip("address add fd00::1/64 dev eth0 nodad");
    host.ip("-n peer address add 10.0.0.2/24 dev eth0");
    host.ip("-n peer address add fd00::2/64 dev eth0 nodad");
}

fn resolved(host: &Sandbox, address: &str) -> bool {
    let entry = host.ip(&format!("neighbour show to {address} dev eth0"));
    entry.contains("lladdr")
        && ["REACHABLE", "STALE", "DELAY", "PROBE"].iter().any(|state| entry.contains(state))
}

#[test]
fn peers_are_resolved_without_traffic_and_again_after_a_flush() {
    sandbox(async |host: Sandbox| {
        connect(&host);
        let keeper = NeighborKeeper::start(Duration::from_millis(100)).expect("netlink");
        keeper.set(neighbors(&PEERS).await);
        for _ in 0..3 {
            for peer in PEERS {
                eventually("a resolved peer", || async { resolved(&host, peer) }).await;
            }
            host.ip("neighbour flush dev eth0");
        }
    });
}

#[test]
fn a_peer_that_comes_up_late_is_resolved_then() {
    sandbox(async |host: Sandbox| {
        connect(&host);
        host.ip("-n peer address del 10.0.0.2/24 dev eth0");
        let keeper = NeighborKeeper::start(Duration::from_millis(100)).expect("netlink");
        keeper.set(neighbors(&["10.0.0.2"]).await);
        eventually("a failure", || async { host.ip("neighbour show dev eth0").contains("10.0.0.2") }).await;
        assert!(!resolved(&host, "10.0.0.2"));
        host.ip("-n peer address add 10.0.0.2/24 dev eth0");
        eventually("a resolved peer", || async { resolved(&host, "10.0.0.2") }).await;
    });
}

#[test]
fn an_administrators_fixed_entry_stays_fixed() {
    sandbox(async |host: Sandbox| {
        connect(&host);
        host.ip("neighbour add 10.0.0.2 lladdr 02:00:00:00:00:99 nud permanent dev eth0");
        let keeper = NeighborKeeper::start(Duration::from_millis(20)).expect("netlink");
        keeper.set(neighbors(&PEERS).await);
        eventually("the other peer", || async { resolved(&host, "fd00::2") }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let entry = host.ip("neighbour show to 10.0.0.2 dev eth0");
        assert!(entry.contains("02:00:00:00:00:99 PERMANENT"), "{entry}");
    });
}

#[test]
fn peers_that_are_taken_out_are_left_alone_and_a_vanished_link_does_no_harm() {
    sandbox(async |host: Sandbox| {
        connect(&host);
        let keeper = NeighborKeeper::start(Duration::from_millis(20)).expect("netlink");
        let mut peers = neighbors(&PEERS).await;
        peers.insert(Neighbor { ifindex: 9999, address: "10.9.9.9".parse().expect("an address") });
        keeper.set(peers);
        eventually("a resolved peer", || async { resolved(&host, "fd00::2") }).await;
        keeper.set(neighbors(&["10.0.0.2"]).await);
        host.ip("neighbour flush dev eth0");
        eventually("the peer that stays", || async { resolved(&host, "10.0.0.2") }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!resolved(&host, "fd00::2"));
    });
}
