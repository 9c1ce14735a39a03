//! Adverts of several instances by one system call: each one's fate is known.

use std::net::IpAddr;

use nix::errno::Errno;
use vip_agent::types::Family;
use vip_agent::vrrp::codec::advert_group;
use vip_agent::vrrp::prepared::PreparedAdverts;
use vip_agent::vrrp::socket::AdvertSender;

use crate::fixture::{
    FAMILIES, Wire, adverts, ip, multicast_adverts, near_sender, near_source, receive, run,
};

/// Sends the adverts of instances together; whose were refused, with whose error.
fn refusals(sender: &AdvertSender, adverts: &[PreparedAdverts]) -> Vec<(usize, Errno, IpAddr)> {
    let mut refusals = Vec::new();
    let adverts: Vec<&PreparedAdverts> = adverts.iter().collect();
    sender.send_each(&adverts, |of, error| refusals.push((of, error.errno, error.destination)));
    refusals
}

fn unicast(destinations: &[&str]) -> PreparedAdverts {
    let destinations: Vec<IpAddr> = destinations.iter().copied().map(ip).collect();
    adverts(ip("192.0.2.1"), &destinations)
}

fn refuse_those_to(peer: &str) {
    run(&format!(
        "nft 'add table ip t; add chain ip t c {{ type filter hook output priority 0; }}; \
         add rule ip t c ip daddr {peer} drop'"
    ));
}

#[test]
fn the_adverts_of_100_instances_arrive_in_order_and_once() {
    let wire = Wire::new();
    for family in FAMILIES {
        let mut receiver = wire.far_receiver(family);
        let sender = near_sender(&wire, near_source(family));
        let mut all = vec![multicast_adverts(family); 100];
        for (priority, adverts) in (1..).zip(&mut all) {
            adverts.set_priority(priority);
        }
        assert_eq!(refusals(&sender, &all), []);
        let payload = if family == Family::V4 { 14 + 20 } else { 14 + 40 };
        let priorities: Vec<u8> =
            receive(&mut receiver, 100).iter().map(|frame| frame.bytes[payload + 2]).collect();
        assert!(priorities.into_iter().eq(1..=100));
    }
}

#[test]
fn a_refusal_in_the_middle_is_that_instances_alone() {
    let wire = Wire::new();
    let mut receiver = wire.far_receiver(Family::V4);
    let sender = near_sender(&wire, ip("192.0.2.1"));
    refuse_those_to("192.0.2.7");
    let mut all = vec![multicast_adverts(Family::V4); 70];
    // The first, two in a row, at the border of two system calls, and the last.
    let refused = [0, 20, 21, 31, 32, 69];
    for at in refused {
        all[at] = unicast(&["192.0.2.7"]);
    }
    let expected: Vec<_> = refused.map(|at| (at, Errno::EPERM, ip("192.0.2.7"))).into();
    assert_eq!(refusals(&sender, &all), expected);
    receive(&mut receiver, 64);
}

#[test]
fn of_an_instance_with_several_peers_each_refusal_is_told_and_the_others_are_served() {
    let wire = Wire::new();
    let mut receiver = wire.far_receiver(Family::V4);
    let sender = near_sender(&wire, ip("192.0.2.1"));
    refuse_those_to("192.0.2.7");
    let all = [unicast(&["192.0.2.2"]), unicast(&["192.0.2.7", "192.0.2.2"]), unicast(&["192.0.2.2"])];
    assert_eq!(refusals(&sender, &all), [(1, Errno::EPERM, ip("192.0.2.7"))]);
    receive(&mut receiver, 3);
}

#[test]
fn nobodys_advert_is_accepted_by_a_downed_interface() {
    let wire = Wire::new();
    for family in FAMILIES {
        run("ip link set near up");
        let sender = near_sender(&wire, near_source(family));
        run("ip link set near down");
        let refused = refusals(&sender, &vec![multicast_adverts(family); 40]);
        assert!(refused.iter().map(|(of, ..)| *of).eq(0..40), "{refused:?}");
        assert!(refused.iter().all(|(.., destination)| *destination == advert_group(family)));
        run("ip link set near up; ip address replace fe80::1/64 dev near nodad");
    }
}
