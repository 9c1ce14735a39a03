//! What fails a send and what does not: only an advert that this host accepted for sending renews ownership.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use vip_agent::types::Family;
use vip_agent::vrrp::codec::advert_group;
use vip_agent::vrrp::socket::AdvertSender;

use crate::fixture::{
    FAMILIES, Wire, adverts, adverts_for, eventually, framed, ip, multicast_adverts, near_sender,
    near_source, receive, run,
};

const UNICAST: [(&str, &str); 2] = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")];

/// Over both families: sends that go well until `trouble`, and then fail every time with one of `expected`.
fn multicast_fails_with(wire: &Wire, expected: &[Errno], trouble: impl FnOnce()) {
    let senders = FAMILIES.map(|family| {
        let sender = near_sender(wire, near_source(family));
        sender.send(&multicast_adverts(family)).expect("sent");
        (family, sender)
    });
    trouble();
    for (family, sender) in senders {
        for _ in 0..3 {
            let error = sender.send(&multicast_adverts(family)).expect_err("it is refused");
            assert!(expected.contains(&error.errno), "{error}");
            assert_eq!(error.destination, advert_group(family));
        }
    }
}

fn drop_adverts(hook: &str) {
    run(&format!(
        "nft 'add table inet t; add chain inet t c {{ type filter hook {hook} priority 0; }}; \
         add rule inet t c meta l4proto 112 drop'"
    ));
}

#[test]
fn an_output_firewall_that_drops_adverts_fails_the_send_and_is_named() {
    let wire = Wire::new();
    multicast_fails_with(&wire, &[Errno::EPERM], || drop_adverts("output"));
    let sender = near_sender(&wire, ip("192.0.2.1"));
    let message = sender.send(&multicast_adverts(Family::V4)).unwrap_err().to_string();
    for part in ["224.0.0.18", "near", "EPERM", "firewall", "output chain"] {
        assert!(message.contains(part), "{part} in: {message}");
    }
}

#[test]
fn a_postrouting_firewall_that_drops_adverts_fails_the_send() {
    let wire = Wire::new();
    multicast_fails_with(&wire, &[Errno::EPERM], || drop_adverts("postrouting"));
}

#[test]
fn a_firewall_that_rejects_unicast_adverts_fails_every_send() {
    let wire = Wire::new();
    for (source, peer) in UNICAST {
        let sender = near_sender(&wire, ip(source));
        let adverts = adverts(ip(source), &[ip(peer)]);
        sender.send(&adverts).unwrap();
        run("nft 'add table inet t; add chain inet t c { type filter hook output priority 0; }; \
             add rule inet t c meta l4proto 112 reject with icmpx type host-unreachable'");
        for _ in 0..5 {
            assert_eq!(sender.send(&adverts).map_err(|error| error.errno), Err(Errno::EPERM), "{peer}");
        }
        run("nft delete table inet t");
        sender.send(&adverts).unwrap();
    }
}

#[test]
fn a_queue_that_drops_adverts_fails_the_send() {
    let wire = Wire::new();
    multicast_fails_with(&wire, &[Errno::ENOBUFS], || run("tc qdisc add dev near root bfifo limit 1"));
}

#[test]
fn a_downed_interface_fails_the_send() {
    let wire = Wire::new();
    let expected = [Errno::ENETDOWN, Errno::ENETUNREACH, Errno::EADDRNOTAVAIL, Errno::EINVAL];
    multicast_fails_with(&wire, &expected, || run("ip link set near down"));
}

#[test]
fn a_deleted_interface_fails_the_send() {
    let wire = Wire::new();
    let expected = [Errno::ENODEV, Errno::ENETUNREACH, Errno::ENXIO, Errno::EINVAL];
    multicast_fails_with(&wire, &expected, || run("ip link del near"));
}

#[test]
fn a_source_that_was_removed_fails_the_send() {
    let wire = Wire::new();
    let sender = near_sender(&wire, ip("192.0.2.1"));
    run("ip address add 198.51.100.9/24 dev near; ip address del 192.0.2.1/24 dev near");
    let error = sender.send(&multicast_adverts(Family::V4)).unwrap_err();
    assert!(error.to_string().contains("source address is gone"), "{error}");
}

#[test]
fn an_advert_longer_than_the_mtu_is_refused_rather_than_fragmented() {
    let wire = Wire::new();
    let vips: Vec<IpAddr> = (0..255).map(|last| ip(&format!("2001:db8::{last:x}"))).collect();
    let sender = near_sender(&wire, ip("fe80::1"));
    let adverts = adverts_for(&vips, ip("fe80::1"), &[advert_group(Family::V6)]);
    let error = sender.send(&adverts).unwrap_err();
    assert_eq!(error.errno, Errno::EMSGSIZE);
    let vips: Vec<IpAddr> = (0..255).map(|last| ip(&format!("192.0.2.{last}"))).collect();
    let sender = near_sender(&wire, ip("192.0.2.1"));
    let adverts = adverts_for(&vips, ip("192.0.2.1"), &[advert_group(Family::V4)]);
    sender.send(&adverts).unwrap();
    run("ip link set near mtu 1000");
    assert_eq!(sender.send(&adverts).unwrap_err().errno, Errno::EMSGSIZE);
}

#[test]
fn the_other_peers_are_served_although_one_is_refused() {
    let wire = Wire::new();
    let mut receiver = wire.far_receiver(Family::V4);
    let sender = near_sender(&wire, ip("192.0.2.1"));
    run("nft 'add table ip t; add chain ip t c { type filter hook output priority 0; }; \
         add rule ip t c ip daddr 192.0.2.2 drop'");
    let error = sender.send(&adverts(ip("192.0.2.1"), &["192.0.2.2", "192.0.2.3"].map(ip))).unwrap_err();
    assert_eq!((error.errno, error.destination), (Errno::EPERM, ip("192.0.2.2")));
    assert_eq!(receive(&mut receiver, 1).len(), 1);
}

/// Sends on while ICMP reports come in, and shows that they do: an ordinary socket beside ours is told.
fn reports_do_not_fail(wire: &Wire, source: &str, peers: &[&str], report: Errno) {
    let peers: Vec<_> = peers.iter().map(|peer| ip(peer)).collect();
    let sender = near_sender(wire, ip(source));
    let adverts = adverts(ip(source), &peers);
    let control = told_of_reports(source);
    for round in 0..100 {
        sender.send(&adverts).expect("sent");
        std::thread::sleep(Duration::from_millis(10));
        if was_told(&control, report) && round >= 50 {
            return;
        }
    }
    panic!("the kernel never reported {report}");
}

fn told_of_reports(source: &str) -> Socket {
    let source = SocketAddr::new(ip(source), 0);
    let open = || {
        let socket = Socket::new(Domain::for_address(source), Type::RAW, Some(Protocol::from(112)))?;
        match source {
            SocketAddr::V4(_) => setsockopt(&socket.as_fd(), sockopt::Ipv4RecvErr, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket.as_fd(), sockopt::Ipv6RecvErr, &true)?,
        }
        socket.bind(&source.into())?;
        std::io::Result::Ok(socket)
    };
    open().expect("a raw socket")
}

fn was_told(control: &Socket, report: Errno) -> bool {
    control.take_error().expect("SO_ERROR").is_some_and(|error| error.raw_os_error() == Some(report as i32))
}

#[test]
fn a_peer_whose_neighbour_entry_is_dead_does_not_fail_the_send() {
    let wire = Wire::new();
    for family in ["ipv4", "ipv6"] {
        run(&format!("sysctl -qw net.{family}.neigh.near.retrans_time_ms=10"));
    }
    reports_do_not_fail(&wire, "192.0.2.1", &["192.0.2.77", "192.0.2.2"], Errno::EHOSTUNREACH);
    reports_do_not_fail(&wire, "2001:db8::1", &["2001:db8::77", "2001:db8::2"], Errno::EHOSTUNREACH);
}

#[test]
fn a_peer_that_runs_no_vrrp_does_not_fail_the_send() {
    let wire = Wire::new();
    wire.at_far(|| run("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0"));
    reports_do_not_fail(&wire, "192.0.2.1", &["192.0.2.2"], Errno::ENOPROTOOPT);
    reports_do_not_fail(&wire, "2001:db8::1", &["2001:db8::2"], Errno::EPROTO);
}

#[test]
fn a_backup_does_not_answer_unicast_adverts_with_protocol_unreachable() {
    let wire = Wire::new();
    wire.at_far(|| run("sysctl -qw net.ipv4.icmp_ratelimit=0"));
    let sender = near_sender(&wire, ip("192.0.2.1"));
    let adverts = adverts(ip("192.0.2.1"), &[ip("192.0.2.2")]);
    let control = told_of_reports("192.0.2.1");
    let send_and_wait = || {
        sender.send(&adverts).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    };
    let backup = wire.at_far(|| AdvertSender::open(&wire.far, ip("192.0.2.2")).unwrap());
    (0..20).for_each(|_| send_and_wait());
    assert!(control.take_error().unwrap().is_none());
    drop(backup);
    eventually("without a backup the kernel answers", || {
        send_and_wait();
        was_told(&control, Errno::ENOPROTOOPT)
    });
}

#[test]
fn without_carrier_sends_fail() {
    let wire = Wire::new();
    let sender = near_sender(&wire, ip("192.0.2.1"));
    sender.send(&multicast_adverts(Family::V4)).unwrap();
    wire.at_far(|| run("ip link set far down"));
    // The kernel takes up to a second to stop the queue of an interface that lost its carrier.
    eventually("sends fail", || {
        sender.send(&multicast_adverts(Family::V4)).is_err_and(|error| error.errno == Errno::ENOBUFS)
    });
}

/// Adverts from a virtual MAC: sends that go well until `trouble`, and then fail every time with one of `expected`.
fn frames_fail_with(wire: &Wire, expected: &[Errno], trouble: impl FnOnce()) {
    let senders = FAMILIES.map(|family| {
        let (sender, adverts) = framed(wire, family);
        sender.send(&adverts).expect("sent");
        (family, sender, adverts)
    });
    trouble();
    for (family, sender, adverts) in senders {
        for _ in 0..3 {
            let error = sender.send(&adverts).expect_err("it is refused");
            assert!(expected.contains(&error.errno), "{error}");
            assert_eq!(error.destination, advert_group(family));
        }
    }
}

#[test]
fn a_queue_that_drops_frames_fails_the_send() {
    let wire = Wire::new();
    frames_fail_with(&wire, &[Errno::ENOBUFS], || run("tc qdisc add dev near root bfifo limit 1"));
}

#[test]
fn a_downed_interface_fails_the_send_of_frames() {
    let wire = Wire::new();
    frames_fail_with(&wire, &[Errno::ENETDOWN], || run("ip link set near down"));
}

#[test]
fn a_deleted_interface_fails_the_send_of_frames() {
    let wire = Wire::new();
    frames_fail_with(&wire, &[Errno::ENXIO, Errno::ENODEV], || run("ip link del near"));
}

/// What is said in the documentation: the one obstacle that frames do not meet.
#[test]
fn an_output_firewall_does_not_see_frames() {
    let wire = Wire::new();
    drop_adverts("output");
    for family in FAMILIES {
        let mut receiver = wire.far_receiver(family);
        let (sender, adverts) = framed(&wire, family);
        sender.send(&adverts).unwrap();
        receive(&mut receiver, 1);
    }
}

#[test]
fn without_carrier_sends_of_frames_fail() {
    let wire = Wire::new();
    let (sender, adverts) = framed(&wire, Family::V4);
    sender.send(&adverts).unwrap();
    wire.at_far(|| run("ip link set far down"));
    eventually("sends fail", || sender.send(&adverts).is_err_and(|error| error.errno == Errno::ENOBUFS));
}

#[test]
fn a_source_that_is_not_ours_is_refused_when_opening() {
    let wire = Wire::new();
    for source in ["192.0.2.50", "fe80::50", "2001:db8::50"] {
        let message = AdvertSender::open(&wire.near, ip(source)).unwrap_err().to_string();
        assert!(message.contains("near") && message.contains("not configured on this host"), "{message}");
    }
}
