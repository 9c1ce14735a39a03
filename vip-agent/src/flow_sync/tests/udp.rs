use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::super::exchange::Company;
use super::super::table::Noted;
use super::super::thread::FlowSync;
use super::{Memory, flow, keys};

/// Loopback has as many hosts as one likes.
fn host(number: u8) -> IpAddr {
    IpAddr::from([127, 83, 70, number])
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let latest = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < latest, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that is free on all of them.
fn port() -> u16 {
    UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

fn node(number: u8, port: u16, table: &Memory, peer: u8) -> FlowSync {
    let sync = FlowSync::start(SocketAddr::new(host(number), port), keys(), Box::new(table.clone())).unwrap();
    sync.set_company(Company { peers: BTreeSet::from([host(peer)]), guests: false });
    sync
}

#[test]
fn flows_come_over_udp_and_again_to_a_peer_that_was_started_anew() {
    let port = port();
    let (owner, peer) = (Memory::owner((0..200).map(flow)), Memory::default());
    let one = node(1, port, &owner, 2);
    let other = node(2, port, &peer, 1);
    eventually("all flows are there", || peer.flows() == owner.flows());
    eventually("and acknowledged", || one.view().peers.iter().all(|peer| peer.behind == 0));
    assert_eq!(other.view().counts.noted.get(&Noted::Yes), Some(&200));
    assert_eq!((one.view().flows, one.view().reason), (200, None));
    drop(other);
    peer.with(|tables| tables.flows.clear());
    let _other = node(2, port, &peer, 1);
    eventually("all flows are there again", || peer.flows() == owner.flows());
}

#[test]
fn an_address_that_somebody_else_has_is_tried_until_it_is_free() {
    let port = port();
    let taken = UdpSocket::bind((host(3), port)).unwrap();
    let sync = node(3, port, &Memory::default(), 4);
    eventually("it says why", || {
        sync.view().reason.is_some_and(|reason| reason.contains("cannot listen to 127.83.70.3"))
    });
    drop(taken);
    eventually("it listens", || sync.view().reason.is_none() && sync.view().peers.len() == 1);
}
