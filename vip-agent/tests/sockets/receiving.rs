//! What the receiver lets in: adverts for this interface, all of them and nothing else.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use vip_agent::types::{Family, MonotonicTime};
use vip_agent::vrrp::receive::{Packet, Rules, Senders};
use vip_agent::vrrp::socket::{Interface, PacketReceiver};

use crate::fixture::{
    FAMILIES, Wire, adverts, adverts_for, eventually, ip, multicast_adverts, near_sender, receive,
    receive_now, run, send_multicast, strict_rules,
};

#[test]
fn a_firewall_that_drops_all_input_hides_no_advert() {
    let wire = Wire::new();
    wire.at_far(|| {
        run(
            "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; policy drop; }; \
             add chain inet t p { type filter hook prerouting priority -300; policy drop; }'",
        );
    });
    for family in FAMILIES {
        let mut receiver = wire.far_receiver(family);
        send_multicast(&wire, family);
        receive(&mut receiver, 1);
    }
}

#[test]
fn other_traffic_does_not_wake_the_receiver() {
    let wire = Wire::new();
    let mut receivers = FAMILIES.map(|family| wire.far_receiver(family));
    run("ping -q -c 2 -i 0.01 192.0.2.2 && ping -q -c 2 -i 0.01 2001:db8::2");
    for (receiver, family) in receivers.iter_mut().zip(FAMILIES) {
        send_multicast(&wire, family);
        receive(receiver, 1);
    }
}

#[test]
fn an_oversized_advert_is_flagged_and_the_next_one_is_whole() {
    let wire = Wire::new();
    run("ip link set near mtu 9000");
    wire.at_far(|| run("ip link set far mtu 9000"));
    let mut receiver = wire.far_receiver(Family::V4);
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112))).unwrap();
    raw.set_multicast_if_v4(&Ipv4Addr::new(192, 0, 2, 1)).unwrap();
    let group = SocketAddr::new(ip("224.0.0.18"), 0).into();
    raw.send_to(&[0x31; 5000], &group).unwrap();
    send_multicast(&wire, Family::V4);
    let frames = receive(&mut receiver, 2);
    assert!(frames[0].truncated && !frames[1].truncated);
    assert!(Packet::parse(&frames[0].bytes).is_err());
    assert!(Packet::parse(&frames[1].bytes).is_ok());
}

#[test]
fn the_longest_advert_is_received_whole() {
    let wire = Wire::new();
    run("ip link set near mtu 9000");
    wire.at_far(|| run("ip link set far mtu 9000"));
    let mut receiver = wire.far_receiver(Family::V6);
    let vips: Vec<_> = (1..=255).map(|last| ip(&format!("fe80::{last:x}"))).collect();
    let adverts = adverts_for(&vips, ip("fe80::1"), &[ip("ff02::12")]);
    near_sender(&wire, ip("fe80::1")).send(&adverts).unwrap();
    let frame = receive(&mut receiver, 1).remove(0);
    let packet = Packet::parse(&frame.bytes).unwrap();
    let rules = Rules { vips, ..strict_rules("fe80::2", Senders::Multicast) };
    assert_eq!(packet.accept(&rules).unwrap().advert.addresses().len(), 255);
}

#[test]
fn a_burst_comes_in_batches_in_order_with_rising_arrivals() {
    let wire = Wire::new();
    let mut receiver = wire.far_receiver(Family::V4);
    let sender = near_sender(&wire, ip("192.0.2.1"));
    let mut adverts = multicast_adverts(Family::V4);
    for priority in 1..=50 {
        adverts.set_priority(priority);
        sender.send(&adverts).unwrap();
    }
    assert_eq!(receive_now(&mut receiver).len(), 16);
    let frames = receive(&mut receiver, 34);
    let rules = strict_rules("192.0.2.2", Senders::Multicast);
    let priorities = frames
        .iter()
        .map(|frame| Packet::parse(&frame.bytes).unwrap().accept(&rules).unwrap().advert.priority);
    assert_eq!(priorities.collect::<Vec<_>>(), (17..=50).collect::<Vec<_>>());
    assert!(frames.is_sorted_by_key(|frame| frame.arrival));
}

#[test]
fn an_arrival_is_when_the_kernel_received_not_when_we_read() {
    let wire = Wire::new();
    let mut receiver = wire.far_receiver(Family::V4);
    // The kernel begins to stamp a moment after the first socket on the machine asks for it.
    eventually("arrivals lie between sending and having sent", || {
        let before = MonotonicTime::now();
        send_multicast(&wire, Family::V4);
        let sent = MonotonicTime::now();
        std::thread::sleep(Duration::from_millis(50));
        let arrival = receive(&mut receiver, 1)[0].arrival;
        before <= arrival && arrival <= sent
    });
}

#[test]
fn adverts_for_a_device_on_top_are_received_there_and_not_below() {
    let wire = Wire::new();
    let (mut on_top, mut below) = wire.at_far(|| {
        run("ip link add link far name top address 02:00:00:00:00:77 type macvlan mode private && ip link set top up \
             && ip address add 192.0.2.7/24 dev top");
        let on_top = PacketReceiver::open(&Interface::named("top").unwrap(), Family::V4).unwrap();
        (on_top, PacketReceiver::open(&wire.far, Family::V4).unwrap())
    });
    run("ip neighbour add 192.0.2.7 lladdr 02:00:00:00:00:77 dev near");
    let sender = near_sender(&wire, ip("192.0.2.1"));
    sender.send(&adverts(ip("192.0.2.1"), &[ip("192.0.2.7")])).unwrap();
    receive(&mut on_top, 1);
    assert!(receive_now(&mut below).is_empty());
}

#[test]
fn an_advert_to_another_host_is_not_received_even_if_promiscuous() {
    let wire = Wire::new();
    wire.at_far(|| run("ip link set far promisc on"));
    run("ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:99 dev near");
    let mut receiver = wire.far_receiver(Family::V4);
    let sender = near_sender(&wire, ip("192.0.2.1"));
    sender.send(&adverts(ip("192.0.2.1"), &[ip("192.0.2.2")])).unwrap();
    sender.send(&multicast_adverts(Family::V4)).unwrap();
    receive(&mut receiver, 1);
}

#[test]
fn the_advert_group_is_joined_while_the_receiver_lives() {
    let wire = Wire::new();
    for (family, table, group) in [
        (Family::V4, "/proc/thread-self/net/igmp", "120000E0"),
        (Family::V6, "/proc/thread-self/net/igmp6", "ff020000000000000000000000000012"),
    ] {
        let joined = || fs::read_to_string(table).unwrap().contains(group);
        let mut receiver = PacketReceiver::open(&wire.near, family).unwrap();
        assert!(!joined());
        receiver.join_group().unwrap();
        receiver.join_group().unwrap();
        assert!(joined());
        drop(receiver);
        eventually("the group is left", || !joined());
    }
}

#[test]
fn a_receiver_survives_its_interface_going_down_and_up() {
    let wire = Wire::new();
    let mut receiver = wire.far_receiver(Family::V4);
    wire.at_far(|| run("ip link set far down"));
    let error = receiver.receive().map(drop).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENETDOWN as i32));
    assert!(receive_now(&mut receiver).is_empty());
    wire.at_far(|| run("ip link set far up"));
    run("for i in $(seq 100); do ip link show near | grep -q LOWER_UP && exit; sleep 0.01; done; exit 1");
    send_multicast(&wire, Family::V4);
    receive(&mut receiver, 1);
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let _wire = Wire::new();
    let message = Interface::named("nowhere0").unwrap_err().to_string();
    assert!(message.contains("nowhere0") && message.contains("does not exist"), "{message}");
}
