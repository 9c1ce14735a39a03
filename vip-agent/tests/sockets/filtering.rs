//! Virtual MACs in the unicast filter: there while somebody holds them, and on what kinds of interfaces they help.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use vip_agent::types::{Family, MacAddr, VirtualRouterId};
use vip_agent::vrrp::socket::{Interface, UnicastFilter};

use crate::fixture::{Wire, eventually, run};

fn virtual_macs() -> [MacAddr; 2] {
    let id = VirtualRouterId::new(7).expect("a VRID");
    [Family::V4, Family::V6].map(|family| MacAddr::of_virtual_router(id, family))
}

/// How many want the interface to be promiscuous.
fn promiscuity(interface: &str) -> u32 {
    let listed = Command::new("ip").args(["-d", "link", "show", interface]).output().expect("ip").stdout;
    let listed = String::from_utf8(listed).expect("text");
    let mut words = listed.split_whitespace().skip_while(|word| *word != "promiscuity");
    words.nth(1).and_then(|count| count.parse().ok()).expect("a count")
}

#[test]
fn a_veth_which_has_no_filter_is_promiscuous_as_long_as_it_is_held() {
    let _wire = Wire::new();
    let near = Interface::named("near").unwrap();
    assert_eq!(promiscuity("near"), 0);
    let first = UnicastFilter::open(&near, virtual_macs()).unwrap();
    assert_eq!(promiscuity("near"), 1);
    let second = UnicastFilter::open(&near, virtual_macs()).unwrap();
    assert_eq!(promiscuity("near"), 1, "it is one wish, whoever has it");
    drop(first);
    eventually("it stays", || promiscuity("near") == 1);
    drop(second);
    eventually("it ends", || promiscuity("near") == 0);
}

/// Whether a frame from the other end to this MAC is given to whoever listens on the interface.
fn reaches(wire: &Wire, interface: &str, mac: MacAddr) -> bool {
    const EXPERIMENTAL: u16 = 0x88b5;
    let listener = packet_socket(interface, EXPERIMENTAL);
    let frame = [&mac.0[..], &[2, 0, 0, 0, 0, 9], &EXPERIMENTAL.to_be_bytes(), &[0; 46]].concat();
    wire.at_far(|| packet_socket("far", 0).send(&frame).expect("sent"));
    let mut received = [std::mem::MaybeUninit::uninit(); 64];
    listener.recv(&mut received).is_ok()
}

fn packet_socket(interface: &str, ethertype: u16) -> Socket {
    let index = nix::net::if_::if_nametoindex(interface).expect("an interface");
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).expect("a packet socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a whole sockaddr_ll that outlives the call, and the length is its own.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const link).cast(), size_of_val(&link) as libc::socklen_t)
    };
    assert_eq!(bound, 0, "bind to {interface}");
    socket
}

/// Why such a macvlan is refused ([`vip_agent`]'s places): its filter lets the frames in below, and its parent gets them.
#[test]
fn a_macvlan_beside_others_gets_frames_to_its_own_mac_alone_and_one_by_itself_gets_all() {
    let wire = Wire::new();
    let [virtual_mac, _] = virtual_macs();
    for (mode, expected) in [("bridge", false), ("private", false), ("vepa", false), ("passthru", true)] {
        run(&format!("ip link add link near name upper address 02:00:00:00:00:77 type macvlan mode {mode}"));
        run("ip link set upper up");
        let filter = UnicastFilter::open(&Interface::named("upper").unwrap(), virtual_macs()).unwrap();
        assert!(reaches(&wire, "upper", MacAddr([2, 0, 0, 0, 0, 0x77])), "{mode}");
        assert_eq!(reaches(&wire, "upper", virtual_mac), expected, "{mode}");
        drop(filter);
        run("ip link del upper");
    }
}

#[test]
fn a_filter_on_an_interface_that_is_gone_is_refused_and_named() {
    let wire = Wire::new();
    run("ip link del near");
    let message = UnicastFilter::open(&wire.near, virtual_macs()).unwrap_err().to_string();
    assert!(message.contains("near") && message.contains("does not exist"), "{message}");
}
