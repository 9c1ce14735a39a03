//! A wire between two namespaces, made in one call and gone with the test's thread.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sched::{CloneFlags, setns, unshare};
use vip_agent::types::{Centiseconds, ChecksumMode, Family, MacAddr, MonotonicTime, VirtualRouterId};
use vip_agent::vrrp::codec::{DecodeOptions, Dialect, Fields, advert_group};
use vip_agent::vrrp::prepared::PreparedAdverts;
use vip_agent::vrrp::receive::{Rules, Senders};
use vip_agent::vrrp::socket::{AdvertSender, Interface, PacketReceiver};

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// One second.
const VERSION_3: Dialect = Dialect::V3 { interval: Centiseconds::SECOND, checksum: ChecksumMode::Pseudo };

/// This thread's namespace has `near` (192.0.2.1, 2001:db8::1, fe80::1), another one has `far` (the same with 2, and
/// with 3 for a second peer).
pub(crate) struct Wire {
    pub(crate) near: Interface,
    pub(crate) far: Interface,
    far_namespace: File,
}

/// A frame out of the receiver's buffer.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) bytes: Vec<u8>,
    pub(crate) arrival: MonotonicTime,
    pub(crate) truncated: bool,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let far_namespace = enter_new_namespace();
        enter_new_namespace();
        let near_thread = nix::unistd::gettid();
        let far = in_namespace(&far_namespace, || {
            run(&format!("ip link add far type veth peer name near netns {near_thread}"));
            configure(
                "far",
                &["192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64", "2001:db8::3/64", "fe80::2/64"],
            );
            Interface::named("far").expect("the far interface")
        });
        configure("near", &["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"]);
        let near = Interface::named("near").expect("the near interface");
        Self { near, far, far_namespace }
    }

    /// Does something at the other end.
    pub(crate) fn at_far<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.far_namespace, action)
    }

    /// A receiver at the other end.
    pub(crate) fn far_receiver(&self, family: Family) -> PacketReceiver {
        self.at_far(|| PacketReceiver::open(&self.far, family).expect("a receiver"))
    }
}

fn enter_new_namespace() -> File {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: these tests need root");
    run("ip link set lo up");
    File::open("/proc/thread-self/ns/net").expect("this thread's namespace")
}

fn in_namespace<T: Send>(namespace: &File, action: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("the other namespace");
        action()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().expect("what is done in the other namespace"))
}

/// Only the addresses given, usable at once.
fn configure(interface: &str, addresses: &[&str]) {
    run(&format!("ip link set {interface} addrgenmode none up"));
    for address in addresses {
        run(&format!("ip address add {address} dev {interface} nodad"));
    }
}

/// Runs a shell command in this thread's namespace; it must succeed.
pub(crate) fn run(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an IP address")
}

/// The address that multicast adverts of `near` come from.
pub(crate) fn near_source(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "192.0.2.1" } else { "fe80::1" })
}

/// What sends the adverts of `near`.
pub(crate) fn near_sender(wire: &Wire, source: IpAddr) -> AdvertSender {
    AdvertSender::open(&wire.near, source).expect("a sender")
}

/// One multicast advert from `near`.
pub(crate) fn send_multicast(wire: &Wire, family: Family) {
    near_sender(wire, near_source(family)).send(&multicast_adverts(family)).expect("sent");
}

/// Adverts of VRID 7, priority 100, 1 s, for one VIP (IPv6: a link-local one before it).
pub(crate) fn adverts(source: IpAddr, destinations: &[IpAddr]) -> PreparedAdverts {
    adverts_for(&vips(Family::of(source)), source, destinations)
}

fn vips(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => vec![ip("192.0.2.100")],
        Family::V6 => vec![ip("fe80::100"), ip("2001:db8::100")],
    }
}

pub(crate) fn adverts_for(vips: &[IpAddr], source: IpAddr, destinations: &[IpAddr]) -> PreparedAdverts {
    let fields = Fields {
        virtual_router_id: VirtualRouterId::new(7).expect("a VRID"),
        priority: 100,
        dialect: VERSION_3,
        addresses: vips,
    };
    PreparedAdverts::build(&fields, source, destinations).expect("adverts")
}

/// One advert over a family as a whole frame from the virtual MAC, with what sends it.
pub(crate) fn framed(wire: &Wire, family: Family) -> (AdvertSender, PreparedAdverts) {
    let source = near_source(family);
    let vips = vips(family);
    let id = VirtualRouterId::new(7).expect("a VRID");
    let fields = Fields { virtual_router_id: id, priority: 100, dialect: VERSION_3, addresses: &vips };
    let mac = MacAddr::of_virtual_router(id, family);
    let adverts = PreparedAdverts::build_frame(&fields, source, mac);
    let sender = AdvertSender::open_for_frames(&wire.near).expect("a sender");
    (sender, adverts.expect("adverts"))
}

pub(crate) fn multicast_adverts(family: Family) -> PreparedAdverts {
    adverts(near_source(family), &[advert_group(family)])
}

/// Strict rules: what passes them is right in every respect.
pub(crate) fn strict_rules(own: &str, senders: Senders) -> Rules {
    let decode = DecodeOptions { dialect: VERSION_3, strict: true };
    let vips = vips(Family::of(ip(own)));
    Rules { own: ip(own), own_mac: MacAddr::default(), senders, decode, auth: None, vips }
}

/// Waits until something holds. What a closed socket held may outlive it for a moment: until its copy in a child
/// that another test is starting is closed as well.
pub(crate) fn eventually(what: &str, holds: impl FnMut() -> bool) {
    let mut attempts = std::iter::repeat_with(holds).take(500);
    let held = attempts.any(|holds| {
        std::thread::sleep(Duration::from_millis(10));
        holds
    });
    assert!(held, "{what}, at last");
}

/// Waits for that many frames, and checks that no more come with them.
pub(crate) fn receive(receiver: &mut PacketReceiver, count: usize) -> Vec<Captured> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut captured = Vec::new();
    while captured.len() < count && Instant::now() < deadline {
        wait_readable(receiver);
        captured.extend(receive_now(receiver));
    }
    assert_eq!(captured.len(), count, "frames received");
    captured
}

/// What has been received by now.
pub(crate) fn receive_now(receiver: &mut PacketReceiver) -> Vec<Captured> {
    let frames = receiver.receive().expect("a batch");
    frames
        .map(|frame| Captured {
            bytes: frame.bytes.to_vec(),
            arrival: frame.arrival,
            truncated: frame.truncated,
        })
        .collect()
}

pub(crate) fn wait_readable(receiver: &PacketReceiver) {
    let mut poll = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
    nix::poll::poll(&mut poll, PollTimeout::from(100u8)).expect("poll");
}
