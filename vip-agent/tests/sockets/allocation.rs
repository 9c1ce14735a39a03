//! What the driver thread does for every advert and takeover allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::SystemTime;

use vip_agent::dataplane::announce::Announcements;
use vip_agent::types::{Family, MacAddr};
use vip_agent::vrrp::receive::{Packet, Rules, Senders};
use vip_agent::vrrp::socket::AnnounceSender;
use vip_agent::vrrp::trailer::{AuthRules, Epoch, Freshness, KeyRing, Marks, Signer, Stamps};

use crate::fixture::{Wire, ip, multicast_adverts, near_sender, strict_rules, wait_readable};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(action: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    action();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn an_allocation_is_counted() {
    assert_eq!(allocations_of(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn sending_receiving_and_announcing_allocate_nothing() {
    let wire = Wire::new();
    let mut receiver = wire.far_receiver(Family::V4);
    let sender = near_sender(&wire, ip("192.0.2.1"));
    let mut adverts = multicast_adverts(Family::V4);
    let rules = strict_rules("192.0.2.2", Senders::Multicast);
    let announcer = AnnounceSender::open(&wire.near).unwrap();
    let vips = (0..200).map(|last| ip(&format!("192.0.2.{last}")));
    let announcements = Announcements::build(vips, MacAddr([2, 0, 0, 0, 0, 1]), false);

    let keys = KeyRing::parse(&"5e".repeat(32)).unwrap();
    let stamps = Arc::new(Stamps::begin(Epoch::after(None, SystemTime::now())));
    let mut signed = multicast_adverts(Family::V4).signed_by(Some(Signer::new(keys.clone(), stamps)));
    let others = multicast_adverts(Family::V4);
    let sending = allocations_of(|| {
        adverts.set_priority(90);
        sender.send(&adverts).unwrap();
        signed.sign();
        sender.send(&signed).unwrap();
        sender.send_each(&[&others, &others], |_, error| panic!("{error}"));
        announcer.send(&announcements.first).unwrap();
    });
    assert_eq!(sending, 0);

    wait_readable(&receiver);
    let changing_over = AuthRules { keys, accept_unsigned: true };
    let rules = Rules { auth: Some(changing_over), ..rules };
    let mut marks = Marks::default();
    let (mut accepted, mut verified) = (0, 0);
    let receiving = allocations_of(|| {
        for frame in receiver.receive().unwrap() {
            let received = Packet::parse(frame.bytes).and_then(|packet| packet.accept(&rules)).unwrap();
            accepted += usize::from(received.advert.lists(&[ip("192.0.2.100")]));
            let fresh = |signed| marks.admit(received.source, signed, frame.arrival) == Freshness::Fresh;
            verified += usize::from(received.signed.is_some_and(fresh));
        }
    });
    assert_eq!((receiving, accepted, verified), (0, 4, 1));
}

#[test]
fn a_refused_advert_allocates_nothing() {
    let wire = Wire::new();
    let sender = near_sender(&wire, ip("192.0.2.1"));
    let adverts = multicast_adverts(Family::V4);
    crate::fixture::run("ip link set near down");
    assert_eq!(allocations_of(|| drop(sender.send(&adverts).unwrap_err())), 0);
}
