//! What each kind of change writes.

use std::collections::BTreeSet;

use vip_common::steering::tables::{Mode, backend_flags, service_flags};

use super::super::book::Book;
use super::super::plan::Step;
use super::super::wanted::{Wanted, Way};
use super::world::{Rig, address, backend, service, via};

fn kinds(steps: &[Step]) -> Vec<&'static str> {
    steps
        .iter()
        .map(|step| match step {
            Step::Forget(..) => "forget",
            Step::Backends(_) => "backends",
            Step::Allow(_) => "allow",
            Step::Rings(_) => "rings",
            Step::Services(_) => "services",
            Step::Open(_) => "open",
            Step::Close(_) => "close",
            Step::Disallow(_) => "disallow",
        })
        .collect()
}

#[test]
fn a_service_is_built_from_its_backends_to_its_ports() {
    let mut rig = Rig::default();
    let restricted =
        Wanted { source_ranges: vec!["10.0.0.0/8".parse().unwrap()], ..service("web", 80, &[1, 2]) };
    let steps = rig.go(&[restricted]);
    assert_eq!(kinds(&steps), ["forget", "backends", "allow", "rings", "services", "open"]);
}

#[test]
fn what_is_the_same_is_not_written() {
    let mut rig = Rig::default();
    let wanted = [service("web", 80, &[1, 2]), service("dns", 53, &[1])];
    rig.go(&wanted);
    assert_eq!(rig.go(&wanted), []);
    // In another order, too.
    let mut turned = wanted.clone();
    turned.reverse();
    turned[1].backends.reverse();
    assert_eq!(rig.go(&turned), []);
}

#[test]
fn a_change_of_one_service_disturbs_no_other() {
    let mut rig = Rig::default();
    rig.go(&[service("a", 80, &[1, 2]), service("b", 81, &[1, 2])]);
    let b = rig.book.index("b").unwrap();
    rig.go(&[service("a", 80, &[1, 3]), service("b", 81, &[1, 2]), service("c", 82, &[9])]);
    assert!(!rig.world.touched.contains(&b), "{:?}", rig.world.touched);
    rig.go(&[service("b", 81, &[1, 2])]);
    assert!(!rig.world.touched.contains(&b), "{:?}", rig.world.touched);
}

#[test]
fn a_backend_that_goes_down_leaves_the_ring_before_it_is_down() {
    let mut rig = Rig::default();
    rig.go(&[service("web", 80, &[1, 2])]);
    let mut down = service("web", 80, &[1, 2]);
    down.backends[0].way = None;
    let steps = rig.go(std::slice::from_ref(&down));
    assert_eq!(kinds(&steps), ["rings", "backends"]);
    assert!(!rig.slot("web", 1).unwrap().is(backend_flags::UP));
    let up = rig.go(&[service("web", 80, &[1, 2])]);
    assert_eq!(kinds(&up), ["backends", "rings"]);
}

#[test]
fn a_draining_backend_keeps_its_slot_and_leaves_the_ring() {
    let mut rig = Rig::default();
    rig.go(&[service("web", 80, &[1, 2])]);
    let before = rig.slot("web", 1).unwrap();
    let mut draining = service("web", 80, &[1, 2]);
    draining.backends[0].weight = 0;
    rig.go(&[draining]);
    let after = rig.slot("web", 1).unwrap();
    assert!(after.is(backend_flags::UP) && after.is(backend_flags::DRAINING));
    assert_eq!(after.generation, before.generation);
}

#[test]
fn a_backend_that_was_removed_keeps_its_flows_until_they_end() {
    let mut rig = Rig::default();
    rig.go(&[service("web", 80, &[1, 2])]);
    rig.go(&[service("web", 80, &[2])]);
    let epoch = rig.book.epoch();
    assert!(rig.slot("web", 1).unwrap().is(backend_flags::DRAINING) && rig.book.is_draining());
    assert_eq!(
        rig.book
            .holders("web")
            .filter(|holder| holder.leaving)
            .map(|holder| holder.address)
            .collect::<Vec<_>>(),
        [address(1)]
    );
    // What was counted before it was to leave says nothing.
    assert_eq!(rig.book.release(epoch - 1, |_| false), []);
    assert_eq!(rig.book.release(epoch, |_| true), []);
    let steps = rig.book.release(epoch, |_| false);
    rig.world.apply(&steps);
    assert_eq!((kinds(&steps), rig.slot("web", 1)), (vec!["backends"], None));
    assert!(!rig.book.is_draining());
}

#[test]
fn a_removed_backend_that_comes_back_has_its_flows_again() {
    let mut rig = Rig::default();
    rig.go(&[service("web", 80, &[1, 2])]);
    let before = rig.slot("web", 1);
    rig.go(&[service("web", 80, &[2])]);
    rig.go(&[service("web", 80, &[1, 2])]);
    assert_eq!(rig.slot("web", 1), before);
    assert!(!rig.book.is_draining());
}

#[test]
fn a_removed_backend_that_is_not_reached_goes_at_once() {
    let mut rig = Rig::default();
    rig.go(&[service("web", 80, &[1, 2])]);
    rig.go_with(&[service("web", 80, &[2])], |_| None);
    assert!(rig.slot("web", 1).is_none() && !rig.book.is_draining());
}

#[test]
fn a_port_moves_to_another_service_by_one_write() {
    let mut rig = Rig::default();
    rig.go(&[service("old", 80, &[1])]);
    let steps = rig.go(&[service("new", 80, &[2])]);
    assert!(!kinds(&steps).contains(&"close"), "{steps:?}");
    assert_eq!(rig.port(80), rig.book.index("new"));
    // The removed one is emptied last of all.
    assert_eq!(kinds(&steps).last(), Some(&"rings"));
}

#[test]
fn source_ranges_are_there_before_their_flag_and_after_it() {
    let mut rig = Rig::default();
    let range = |text: &str| vec![text.parse().unwrap()];
    let with = |ranges| Wanted { source_ranges: ranges, ..service("web", 80, &[1]) };
    rig.go(&[with(Vec::new())]);
    assert_eq!(kinds(&rig.go(&[with(range("10.0.0.0/8"))])), ["allow", "services"]);
    assert_eq!(kinds(&rig.go(&[with(range("11.0.0.0/8"))])), ["allow", "disallow"]);
    assert_eq!(kinds(&rig.go(&[with(Vec::new())])), ["services", "disallow"]);
}

#[test]
fn a_local_service_needs_no_ring_and_a_backend_here_is_marked() {
    let mut rig = Rig::default();
    let local = Wanted { mode: Mode::Local, ..service("web", 80, &[]) };
    assert_eq!(kinds(&rig.go(&[local])), ["forget", "services", "open"]);
    let mut here = service("web", 80, &[1]);
    here.mode = Mode::Nat;
    here.backends[0].way = Some(Way::Here);
    rig.go(&[here]);
    let flags = rig.slot("web", 1).unwrap().flags;
    assert_eq!(flags, backend_flags::UP | backend_flags::LOCAL);
}

#[test]
fn after_a_failure_everything_is_written_again_into_the_same_slots() {
    let mut rig = Rig::default();
    let wanted =
        [Wanted { source_ranges: vec!["10.0.0.0/8".parse().unwrap()], ..service("web", 80, &[1, 2]) }];
    rig.go(&wanted);
    let before = rig.slot("web", 1);
    rig.book.distrust();
    assert_eq!(kinds(&rig.go(&wanted)), ["backends", "allow", "rings", "services", "open"]);
    assert_eq!(rig.slot("web", 1), before);
    // A port that was given up meanwhile is closed all the same.
    rig.book.distrust();
    let steps = rig.go(&[Wanted { ports: vec![super::world::port(81)], ..wanted[0].clone() }]);
    assert!(kinds(&steps).contains(&"close"));
}

#[test]
fn another_process_goes_on_in_the_same_slots() {
    let mut rig = Rig::default();
    rig.go(&[service("gone", 70, &[7]), service("a", 80, &[1, 2]), service("b", 81, &[1])]);
    rig.go(&[service("a", 80, &[1, 2]), service("b", 81, &[1])]);
    let slots = |book: &Book, name: &str| -> BTreeSet<_> {
        book.holders(name).map(|holder| (holder.address, holder.slot)).collect()
    };
    let last = *rig.world.backends.keys().max().unwrap();
    let backends: Vec<_> = (1..=last).map(|slot| rig.world.backends[&slot]).collect();
    let ports = rig.world.ports.iter().map(|(key, port)| (bytemuck::cast(*key), *port));
    let indices = rig.book.indices().map(|(name, index)| (name.to_owned(), index));
    let book = Book::adopt(indices, ports, &backends);
    let mut successor = Rig { book, world: rig.world.clone() };
    // With another configuration than the former one.
    let wanted = [service("a", 80, &[1, 2, 3]), service("c", 82, &[4])];
    successor.go(&wanted);
    assert!(slots(&rig.book, "a").is_subset(&slots(&successor.book, "a")));
    assert_eq!((successor.port(81), successor.port(82).is_some()), (None, true));
    let fresh = successor.slot("c", 4).unwrap();
    assert!(fresh.is(backend_flags::UP));
}

#[test]
fn who_waits_for_flows_makes_room_when_slots_run_out() {
    let mut rig = Rig::default();
    let many = |net: u8| Wanted {
        backends: (0..16_000_u32)
            .map(|host| {
                let [_, _, high, low] = host.to_be_bytes();
                let address = std::net::IpAddr::from([10, net, high, low]);
                super::super::wanted::WantedBackend { address, ..backend(1, 1) }
            })
            .collect(),
        ..service("web", 80, &[])
    };
    for net in [1, 2, 3] {
        let steps = rig.book.plan(&[many(net)], |_, _| Some(via(1))).expect("it fits");
        assert!(!rig.book.is_behind(), "{net}");
        rig.world.apply(&steps);
    }
    rig.world.is(&[many(3)], &rig.book);
}

#[test]
fn more_than_fits_is_refused_and_changes_nothing() {
    let mut rig = Rig::default();
    rig.go(&[service("web", 80, &[1])]);
    let many: Vec<_> = (0..5000).map(|number| service(&number.to_string(), number + 1, &[])).collect();
    let refused = rig.book.plan(&many, |_, _| None).unwrap_err().to_string();
    assert_eq!(refused, "5000 services are wanted, and 4096 fit");
    assert_eq!(rig.go(&[service("web", 80, &[1])]), []);
}

#[test]
fn when_all_services_are_replaced_at_once_the_rest_follows_when_slots_are_free() {
    let mut rig = Rig::default();
    let named = |prefix: &str| -> Vec<Wanted> {
        (0..4096)
            .map(|number| Wanted {
                mode: Mode::Local,
                ..service(&format!("{prefix}{number}"), number + 1, &[])
            })
            .collect()
    };
    rig.go(&named("a"));
    let steps = rig.book.plan(&named("b"), |_, _| None).expect("it fits");
    rig.world.apply(&steps);
    assert!(rig.book.is_behind());
    rig.go(&named("b"));
    assert!(!rig.book.is_behind());
}

#[test]
fn a_service_of_mode_nat_is_full_nats_while_it_has_a_backend_elsewhere_those_that_leave_included() {
    let mut rig = Rig::default();
    let nat = |hosts: &[u8], here: bool| {
        let mut wanted = Wanted { mode: Mode::Nat, ..service("web", 80, hosts) };
        let local = wanted.backends.iter_mut().filter(|_| here);
        local.for_each(|backend| backend.way = Some(Way::Here));
        wanted
    };
    let is_full = |rig: &Rig| rig.book.full_nat_vips().contains(&address(50));
    let mut book = Rig::default();
    book.plan_only(&[nat(&[1, 2], true)]);
    assert!(!is_full(&book));
    rig.plan_only(&[nat(&[1, 2], false)]);
    assert!(is_full(&rig));
    // What it had was removed, and goes when its last flow has ended.
    rig.plan_only(&[nat(&[3], true)]);
    assert!(is_full(&rig));
    let epoch = rig.book.epoch();
    let steps = rig.book.release(epoch, |_| false);
    assert_eq!((kinds(&steps), is_full(&rig)), (vec!["backends", "services"], false));
    let value = nat(&[1], false).value(true);
    assert_eq!(value.flags & service_flags::FULL_NAT, service_flags::FULL_NAT);
}
