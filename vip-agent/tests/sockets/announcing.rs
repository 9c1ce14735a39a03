//! Announcements go out as built; solicited-node groups are joined.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use vip_agent::dataplane::announce::Announcements;
use vip_agent::types::MacAddr;
use vip_agent::vrrp::socket::{AnnounceSender, MulticastGroups};

use crate::fixture::{Wire, eventually, ip, run};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn many_vips(count: u32) -> impl Iterator<Item = IpAddr> {
    (0..count).map(|vip| IpAddr::from((0x0a00_0000 + vip).to_be_bytes()))
}

/// Every frame that reaches the other end, from the moment that this returns.
fn capture_at_far(wire: &Wire) -> Socket {
    let open = || {
        let all = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all)))?;
        socket.set_recv_buffer_size(4 << 20)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        io::Result::Ok(socket)
    };
    wire.at_far(open).expect("a packet socket")
}

/// The next one that we sent; the kernels at both ends speak too.
fn next_frame(mut capture: &Socket) -> Vec<u8> {
    let mut buffer = [0; 256];
    loop {
        let length = capture.read(&mut buffer).expect("a frame");
        if buffer[6..12] == MAC.0 {
            return buffer[..length].to_vec();
        }
    }
}

#[test]
fn frames_go_out_in_order_over_many_batches() {
    let wire = Wire::new();
    let announcements = Announcements::build(many_vips(300).chain([ip("2001:db8::100")]), MAC, true);
    let sender = AnnounceSender::open(&wire.near).unwrap();
    let capture = capture_at_far(&wire);
    assert_eq!(sender.send(&announcements.first).unwrap(), 301);
    for frame in &announcements.first {
        assert_eq!(next_frame(&capture), frame[..]);
    }
}

#[test]
fn nothing_to_announce_is_announced_at_once() {
    let wire = Wire::new();
    assert_eq!(AnnounceSender::open(&wire.near).unwrap().send(&[]).unwrap(), 0);
}

#[test]
fn neighbours_learn_the_vip_from_an_announcement() {
    let wire = Wire::new();
    wire.at_far(|| {
        run("ip neighbour add 192.0.2.100 lladdr 02:00:00:00:00:99 nud stale dev far; \
             ip neighbour add 2001:db8::100 lladdr 02:00:00:00:00:99 nud stale dev far");
    });
    let announcements = Announcements::build(["192.0.2.100", "2001:db8::100"].map(ip), MAC, false);
    AnnounceSender::open(&wire.near).unwrap().send(&announcements.first).unwrap();
    wire.at_far(|| {
        for vip in ["192.0.2.100", "2001:db8::100"] {
            run(&format!(
                "for i in $(seq 100); do ip neighbour show {vip} | grep -q 02:00:00:00:00:01 && exit; sleep 0.01; \
                 done; ip neighbour >&2; exit 1"
            ));
        }
    });
}

#[test]
fn a_full_queue_costs_frames_but_is_no_error() {
    let wire = Wire::new();
    run("tc qdisc add dev near root bfifo limit 1");
    let announcements = Announcements::build(many_vips(200), MAC, false);
    assert_eq!(AnnounceSender::open(&wire.near).unwrap().send(&announcements.first).unwrap(), 0);
}

#[test]
fn a_downed_interface_is_an_error() {
    let wire = Wire::new();
    let sender = AnnounceSender::open(&wire.near).unwrap();
    run("ip link set near down");
    let error = sender.send(&Announcements::build(many_vips(1), MAC, false).first).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENETDOWN as i32));
}

fn memberships() -> usize {
    let table = fs::read_to_string("/proc/thread-self/net/igmp6").expect("the table of memberships");
    table
        .lines()
        .filter(|line| line.contains("near") && line.contains("ff0200000000000000000001ffab"))
        .count()
}

fn vip(low: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab, low)
}

#[test]
fn a_group_is_left_with_the_last_vip_that_shares_it() {
    let wire = Wire::new();
    let mut groups = MulticastGroups::new(&wire.near);
    let other_prefix = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0xab, 1);
    groups.join(vip(1)).unwrap();
    groups.join(other_prefix).unwrap();
    groups.join(vip(2)).unwrap();
    assert_eq!(memberships(), 2);
    groups.leave(vip(1));
    assert_eq!(memberships(), 2);
    groups.leave(other_prefix);
    groups.leave(vip(9));
    assert_eq!(memberships(), 1);
    drop(groups);
    eventually("all groups are left", || memberships() == 0);
}

#[test]
fn more_groups_than_one_socket_holds_are_spread_over_several() {
    let wire = Wire::new();
    let mut groups = MulticastGroups::new(&wire.near);
    let mut joined = 0;
    while groups.sockets() < 2 {
        assert!(joined < 20_000, "one socket holds them all: net.core.optmem_max is very great");
        groups.join(vip(joined)).unwrap();
        joined += 1;
    }
    assert_eq!(memberships(), usize::from(joined));
    drop(groups);
    eventually("all groups are left", || memberships() == 0);
}
